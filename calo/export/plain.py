"""Models for other programs: their noise is an argument, and they use plain operations only."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from nisampler.calo.data.kinds import VOXELS
from nisampler.calo.models import GenerativeModel
from nisampler.errors import ModelError
from nisampler.flows import (
    Flow,
    LULinear,
    MaskedAutoregressiveTransform,
    StandardNormal,
    Transform,
)

_LONGEST = 64
"""Coordinates that a flow may generate one after the other: each is a network of its own in the file."""


class Columns:
    """Columns of given noise (n, d), handed out from the left; it stands where a model expects a generator.

    Without noise it draws some from a generator and only notes how much.

    Parameters
    ----------
    noise
        (n, d).

    Examples
    --------
    >>> columns = Columns(torch.tensor([[1.0, 2.0, 3.0]]))
    >>> columns.take(2), columns.take(1)
    (tensor([[1., 2.]]), tensor([[3.]]))
    """

    def __init__(self, noise: Tensor) -> None:
        self.noise, self.used = noise, 0

    def take(self, dim: int) -> Tensor:
        """The next `dim` columns."""
        self.used += dim
        return self.noise[:, self.used - dim : self.used]


class _Counted(Columns):
    """Zeros as noise of one shower, as many as are asked for."""

    def __init__(self) -> None:
        super().__init__(torch.zeros(1, 0))
        self.sizes: list[int] = []

    def take(self, dim: int) -> Tensor:
        self.sizes.append(dim)
        return torch.zeros(1, dim)


class GivenNoise(StandardNormal):
    """The base of a flow whose points are the next columns of `Columns`, which comes in place of a generator.

    >>> GivenNoise(2).sample(1, Columns(torch.tensor([[1.0, 2.0, 3.0]])))
    tensor([[1., 2.]])
    """

    def sample(self, n: int, generator: Any = None, device: Any = None, dtype: Any = None) -> Tensor:
        columns: Tensor = generator.take(self.dim)
        return columns


class Matrix(Transform):
    """x = y M + b for y = (x - b) M⁻¹, the inverse of a linear map as one product.

    >>> linear = LULinear(2)
    >>> y = torch.ones(5, 2)
    >>> torch.equal(Matrix(linear).inverse(y)[0], linear.inverse(y)[0])
    True
    """

    matrix: Tensor
    shift: Tensor

    def __init__(self, linear: LULinear) -> None:
        super().__init__()
        with torch.no_grad():
            basis = torch.eye(linear.bias.shape[0], dtype=torch.float64)
            shift, _ = linear.inverse(torch.zeros_like(basis[:1]))
            matrix = linear.inverse(basis)[0] - shift
        self.register_buffer("matrix", matrix.to(linear.bias.dtype))
        self.register_buffer("shift", shift.to(linear.bias.dtype))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        raise ModelError("a model for export has one direction only: take the model that it was made from")

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return y @ self.matrix + self.shift, y.new_zeros(y.shape[0])


class PlainShowers(nn.Module):
    """Showers (n, V) in MeV of noise (n, d) and incident energies (n,) in MeV: a copy of a model.

    Parameters
    ----------
    model
        A fitted model; it stays as it is.

    Attributes
    ----------
    sizes
        Columns of noise that its flows take, one after the other: those that `model.sample` draws from a generator.

    Raises
    ------
    ModelError
        If a flow would generate more than 64 coordinates one after the other, its noise is not normal, or it
        makes point clouds, or showers depend on more than the incident energy.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> plain = PlainShowers(build_model("small-inn", geometry("toy")).eval())
    >>> plain.sizes, plain(torch.zeros(2, 245), torch.full((2,), 1e4)).shape
    ((245,), torch.Size([2, 240]))
    """

    def __init__(self, model: GenerativeModel) -> None:
        super().__init__()
        if model.kind is not VOXELS:
            raise ModelError("models of point clouds are not exported: only those of showers in cells")
        if model.geometry.conditions:
            names = ", ".join(known.name for known in model.geometry.conditions)
            raise ModelError(f"showers of this model depend on {names}, which exported models cannot be told")
        self.model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
        needed = nn.ModuleList(self.model.generation_modules())
        kept = {id(weight) for weight in needed.parameters()}
        for weight in self.model.parameters():
            if id(weight) not in kept:
                weight.data = weight.data.new_empty(0)
        for module in list(needed.modules()):
            if isinstance(module, Flow):
                module.base = _given(module)
            for name, child in list(module.named_children()):
                if isinstance(child, LULinear):
                    module.add_module(name, Matrix(child))
        counted = _Counted()
        self.model.sample(torch.tensor([model.geometry.incident.values[0]]), _as_generator(counted))
        self.sizes = tuple(counted.sizes)

    @property
    def noise(self) -> int:
        """Columns of noise."""
        return sum(self.sizes)

    def forward(self, noise: Tensor, incident: Tensor) -> Tensor:
        return self.model.sample(incident, _as_generator(Columns(noise)))


def _given(flow: Flow) -> GivenNoise:
    """The base of a flow for export."""
    if not isinstance(flow.base, StandardNormal):
        raise ModelError(f"only flows with normal noise can be exported, got {type(flow.base).__name__}")
    for part in flow.transform.modules():
        if isinstance(part, MaskedAutoregressiveTransform) and part.dim > _LONGEST:
            raise ModelError(
                f"this model makes {part.dim} coordinates one after the other, which no other program should: "
                "export its student, or a model of couplings"
            )
    return GivenNoise(flow.dim)


def _as_generator(columns: Columns) -> torch.Generator:
    source: Any = columns
    return source  # type: ignore[no-any-return]
