"""Probability density distillation: an inverse autoregressive student learns to undo a masked autoregressive teacher.

The teacher has a fast density and generates coordinate by coordinate; the student is the other way round. Block k of
the student undoes block k of the teacher between the same permutations, and its networks describe the same splines,
from data to latent space. So the two can be compared at the end points, after every block, and in the raw parameters of
every spline (CaloFlow II, 2110.11377).

A step costs three parallel passes with gradient (the student twice, the inputs of the teacher once) and one without,
each about as much as one evaluation of the density of the teacher; nothing runs coordinate by coordinate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from nisampler.errors import ConfigError, ModelError
from nisampler.flows import (
    AutoregressiveTransform,
    Composition,
    Flow,
    InverseAutoregressiveTransform,
    MaskedAutoregressiveTransform,
    NetConfig,
    Permutation,
)


@dataclass(frozen=True)
class DistillationConfig:
    """Which terms the loss of the student has; the defaults are the published "fully guided" one.

    Parameters
    ----------
    beta
        Weight of the loss from data points; that from latent points has 1 - beta.
    steps
        Compare the points between the blocks too, end points included: with this the end points count twice, as
        published.
    parameters
        Compare the spline parameters of all blocks too.

    Raises
    ------
    ConfigError
        If beta is not in [0, 1].

    Examples
    --------
    >>> DistillationConfig(beta=0.3).steps
    True
    """

    beta: float = 0.5
    steps: bool = True
    parameters: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise ConfigError(f"beta must be in [0, 1], got {self.beta}")


@dataclass(frozen=True)
class Trace:
    """What a flow of B autoregressive blocks does to a batch in its parallel direction.

    Parameters
    ----------
    end
        Where the points come out, (n, d): latent points of a teacher, data points of a student.
    points
        B + 1 tensors (n, d) in the order from data to latent space: the data, then what lies on the latent side of
        each block.
    parameters
        Raw outputs (n, P d) of the network of each block, in the same order.

    Examples
    --------
    >>> from nisampler.calo.models.config import FlowConfig
    >>> from nisampler.calo.models.flows import build_flow
    >>> teacher = build_flow(3, FlowConfig("maf", 2, NetConfig(hidden=8)), 0, torch.Generator().manual_seed(0))
    >>> len(trace(teacher, torch.zeros(4, 3)).points)
    3
    """

    end: Tensor
    points: tuple[Tensor, ...]
    parameters: tuple[Tensor, ...]


def trace(flow: Flow, start: Tensor, context: Tensor | None = None) -> Trace:
    """Run a flow in its parallel direction and keep what happens on the way.

    Parameters
    ----------
    flow
        Made of permutations and autoregressive blocks of one kind.
    start
        (n, d): data points for a teacher (MAF), latent points for a student (IAF).
    context
        (n, c).

    Raises
    ------
    ModelError
        If the flow has other parts.
    ShapeError
        If points or context have the wrong shape.

    Examples
    --------
    >>> from nisampler.calo.models.config import FlowConfig
    >>> from nisampler.calo.models.flows import build_flow
    >>> teacher = build_flow(3, FlowConfig("maf", 2, NetConfig(hidden=8)), 0, torch.Generator().manual_seed(0))
    >>> trace(teacher, torch.zeros(4, 3)).end.shape
    torch.Size([4, 3])
    """
    parts = _parts(flow)
    backward = isinstance(_blocks(parts)[0], InverseAutoregressiveTransform)
    value, points, parameters = start, [], []
    for part in reversed(parts) if backward else parts:
        if isinstance(part, Permutation):
            value, _ = part.inverse(value) if backward else part(value)
            continue
        before = value
        value, _, raw = part.fast(before, context)
        points.append(before if backward else value)
        parameters.append(raw)
    if backward:
        return Trace(value, (value, *reversed(points)), tuple(reversed(parameters)))
    return Trace(value, (start, *points), tuple(parameters))


def student_of(teacher: Flow, config: NetConfig, generator: torch.Generator) -> Flow:
    """A student for a teacher: as many blocks, the same splines and permutations, networks of its own.

    With networks like those of the teacher it starts from a copy of their weights, which is right as far as the points
    before and after a block are alike. Other networks start with the teacher's last biases and no dependence.

    Parameters
    ----------
    teacher
        A `maf`.
    config
        Networks of the student; the length of the context is that of the teacher.
    generator
        Source of the initial weights.

    Raises
    ------
    ModelError
        If the teacher has other parts than permutations and masked autoregressive blocks.

    Examples
    --------
    >>> from nisampler.calo.models.config import FlowConfig
    >>> from nisampler.calo.models.flows import build_flow
    >>> generator, net = torch.Generator().manual_seed(0), NetConfig(hidden=8)
    >>> student_of(build_flow(3, FlowConfig("maf", 2, net), 0, generator), net, generator).dim
    3
    """
    config = replace(config, context_dim=teacher.context_dim)
    parts: list[AutoregressiveTransform | Permutation] = []
    for part in _parts(teacher):
        if isinstance(part, Permutation):
            parts.append(Permutation(part.order))
            continue
        if not isinstance(part, MaskedAutoregressiveTransform):
            raise ModelError("a teacher is a masked autoregressive flow, but this one is inverse autoregressive")
        block = InverseAutoregressiveTransform(part.dim, part.spline, config, generator)
        with torch.no_grad():
            if part.net.config == config:
                block.net.load_state_dict(part.net.state_dict())
            else:
                block.net.output.bias.copy_(part.net.output.bias)
        parts.append(block)
    return Flow(teacher.base, Composition(parts), teacher.domain).to(next(teacher.parameters()))


def distillation_loss(
    teacher: Flow,
    student: Flow,
    x: Tensor,
    context_x: Tensor | None,
    z: Tensor,
    context_z: Tensor | None,
    config: DistillationConfig,
) -> dict[str, Tensor]:
    """The loss of probability density distillation and each of its terms.

    With χ²(a, b) the mean over the batch of the squared distance,

        loss = (1 - beta) (z + z_steps + z_parameters) + beta (x + x_steps + x_parameters).

    The terms in x send data through the teacher to latent points and those through the student back: x = χ²(x', x).
    The terms in z send latent points through the student to data and those through the teacher back: z = χ²(z', z).
    "_steps" sums χ² over the points before, between and after the blocks, "_parameters" over the raw outputs of the
    networks. The student alone gets a gradient, in the terms in z through the teacher.

    Parameters
    ----------
    teacher, student
        A `maf` that is trained and needs no gradient, and its `student_of`.
    x, context_x
        Training data (n, d) and their context (n, c).
    z, context_z
        Draws (m, d) of the base density, and a context (m, c) for each of them.
    config
        Which terms enter the loss.

    Returns
    -------
    "loss", and without gradient all of "z", "x", "z_steps", "x_steps", "z_parameters", "x_parameters": scalars.

    Raises
    ------
    ModelError
        If the student does not fit the teacher, or the teacher requires gradients.
    ShapeError
        If points or contexts have the wrong shape.

    References
    ----------
    Krause and Shih, 2110.11377, section III; van den Oord et al., 1711.10433.

    Examples
    --------
    >>> from nisampler.calo.models.config import FlowConfig
    >>> from nisampler.calo.models.flows import build_flow
    >>> generator, net = torch.Generator().manual_seed(0), NetConfig(hidden=8)
    >>> teacher = build_flow(3, FlowConfig("maf", 2, net), 0, generator)
    >>> x, student = torch.zeros(4, 3), student_of(teacher, net, generator)
    >>> teacher = teacher.requires_grad_(False)
    >>> sorted(distillation_loss(teacher, student, x, None, x, None, DistillationConfig()))
    ['loss', 'x', 'x_parameters', 'x_steps', 'z', 'z_parameters', 'z_steps']
    """
    _check_pair(teacher, student)
    with torch.no_grad():
        x_teacher = trace(teacher, x, context_x)
    x_student = trace(student, x_teacher.end, context_x)
    z_student = trace(student, z, context_z)
    z_teacher = trace(teacher, z_student.end, context_z)
    terms = {
        "z": _chi2([z_teacher.end], [z]),
        "x": _chi2([x_student.end], [x]),
        "z_steps": _chi2(z_student.points, z_teacher.points),
        "x_steps": _chi2(x_student.points, x_teacher.points),
        "z_parameters": _chi2(z_student.parameters, z_teacher.parameters),
        "x_parameters": _chi2(x_student.parameters, x_teacher.parameters),
    }
    wanted = ["", *["_steps"] * config.steps, *["_parameters"] * config.parameters]
    loss = sum(((1 - config.beta) * terms["z" + name] + config.beta * terms["x" + name] for name in wanted), start=0.0)
    return {"loss": cast(Tensor, loss)} | {name: value.detach() for name, value in terms.items()}


class Distillation:
    """A teacher and the student that learns from it.

    Parameters
    ----------
    teacher
        A `maf`.
    net
        Networks of the student.
    config
        Which terms its loss has.
    generator
        Source of its initial weights.

    Raises
    ------
    ModelError
        As `student_of` does.

    Examples
    --------
    >>> from nisampler.calo.models.config import FlowConfig
    >>> from nisampler.calo.models.flows import build_flow
    >>> generator, net = torch.Generator().manual_seed(0), NetConfig(hidden=8)
    >>> teacher = build_flow(3, FlowConfig("maf", 2, net), 0, generator)
    >>> Distillation(teacher, net, DistillationConfig(), generator).student.dim
    3
    """

    def __init__(self, teacher: Flow, net: NetConfig, config: DistillationConfig, generator: torch.Generator) -> None:
        self.teacher, self.net, self.config = teacher, net, config
        self._seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        self.student = student_of(teacher, net, torch.Generator().manual_seed(self._seed))

    def release(self) -> None:
        """Before the training of the teacher."""
        self.teacher.requires_grad_(True)

    def begin(self) -> None:
        """Before that of the student, which starts from the trained teacher as far as the networks are alike."""
        self.teacher.requires_grad_(False)
        fresh = student_of(self.teacher, self.net, torch.Generator().manual_seed(self._seed))
        self.student.load_state_dict(fresh.state_dict())

    def loss(self, x: Tensor, context_x: Tensor, context_z: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """`distillation_loss` at training data x (n, d) and as many latent points, with their contexts (n, c)."""
        self.teacher.eval()
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return distillation_loss(self.teacher, self.student, x, context_x, z, context_z, self.config)


def divergence(teacher: Flow, student: Flow, z: Tensor, context: Tensor | None = None) -> Tensor:
    """log q(x) - log p(x) at the student's points x of latent points z (n, d): shape (n,), in parallel.

    q is the density of the student, p that of the teacher; the mean over draws of the base density estimates
    KL(q || p), by which the published students are selected (2110.11377).

    >>> from nisampler.calo.models.config import FlowConfig
    >>> from nisampler.calo.models.flows import build_flow
    >>> generator, net = torch.Generator().manual_seed(0), NetConfig(hidden=8)
    >>> teacher = build_flow(3, FlowConfig("maf", 2, net), 0, generator)
    >>> divergence(teacher, student_of(teacher, net, generator), torch.zeros(4, 3)).shape
    torch.Size([4])
    """
    x, log_q = student.from_latent(z, context)
    return log_q - teacher.log_prob(x, context)


def _chi2(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """Sum over the list of the mean over the batch of the squared distance."""
    return torch.stack([(a - b).square().sum() / len(a) for a, b in zip(ours, theirs, strict=True)]).sum()


def _parts(flow: Flow) -> list[AutoregressiveTransform | Permutation]:
    """The permutations and blocks of an autoregressive flow."""
    parts = list(flow.transform.transforms) if isinstance(flow.transform, Composition) else []
    if not _blocks(parts) or not all(isinstance(part, AutoregressiveTransform | Permutation) for part in parts):
        raise ModelError(
            "distillation needs a flow of permutations and autoregressive blocks, such as maf() and student_of() make"
        )
    if len({type(block) for block in _blocks(parts)}) > 1:
        raise ModelError("the blocks of a flow must be all masked or all inverse autoregressive")
    return cast(list[AutoregressiveTransform | Permutation], parts)


def _blocks(parts: Sequence[object]) -> list[AutoregressiveTransform]:
    return [part for part in parts if isinstance(part, AutoregressiveTransform)]


def _check_pair(teacher: Flow, student: Flow) -> None:
    """ModelError unless the blocks and permutations of the two belong together and the teacher is frozen."""
    if any(parameter.requires_grad for parameter in teacher.parameters()):
        raise ModelError("the teacher must not be trained by its student: call teacher.requires_grad_(False) first")
    ours, theirs = _parts(student), _parts(teacher)
    kinds = type(_blocks(theirs)[0]), type(_blocks(ours)[0])
    if kinds != (MaskedAutoregressiveTransform, InverseAutoregressiveTransform):
        raise ModelError("a masked autoregressive teacher needs an inverse autoregressive student: use student_of()")
    if len(ours) != len(theirs) or not all(map(_fits, ours, theirs)):
        raise ModelError("the blocks, splines or permutations of the student are not those of the teacher")


def _fits(ours: AutoregressiveTransform | Permutation, theirs: AutoregressiveTransform | Permutation) -> bool:
    if isinstance(ours, Permutation) or isinstance(theirs, Permutation):
        both = isinstance(ours, Permutation) and isinstance(theirs, Permutation)
        return both and torch.equal(cast(Permutation, ours).order, cast(Permutation, theirs).order)
    return ours.dim == theirs.dim and ours.spline == theirs.spline
