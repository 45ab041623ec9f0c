"""What a chain of coupling blocks consists of, read once and written as tables for the compiled code.

Between the blocks the points of a tile lie in a matrix (d, t) whose rows are overwritten block by block. A permutation
moves nothing: it only changes which row a coordinate is found in.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nisampler.flows.coupling import CouplingTransform
from nisampler.flows.fused.work import Spare
from nisampler.flows.nets.grouped import GroupedConstant, GroupedLinear, GroupedMLP
from nisampler.flows.nets.mlp import MLP, Constant, FourierFeatures, Linear
from nisampler.flows.splines.fused_spline import Shape
from nisampler.flows.splines.rational_quadratic import BOUNDARIES, MIN_SIZE, MIN_SLOPE
from nisampler.flows.transforms import Composition, Permutation

ACTIVATIONS = ("silu", "relu", "leaky_relu", "elu", "tanh")
"""Activations that compiled code knows, by their place in this row."""
COLUMNS = (
    *("inputs", "layers", "units", "kept", "changed", "params", "harmonics", "centre", "context"),
    *("weights", "rows", "features", "sums", "raw", "before", "index"),
)
"""Columns of a table, one row for each block: sizes of the block; where its weights and the rows of its coordinates
begin; and where its features, sums of layers, raw parameters, points before the splines and numbers of bins begin."""
_Sizes = dict[str, int]


class _Direction:
    """A chain in one direction: `order` of its blocks, `rows` of their coordinates, and those (d,) of the results."""

    def __init__(self, parts: list[nn.Module], dim: int, inverse: bool) -> None:
        place, rows = torch.arange(dim), []
        self.order: list[int] = []
        count = sum(isinstance(part, CouplingTransform) for part in parts)
        self.starts = [0] * count
        block, length = (count if inverse else -1), 0
        for part in reversed(parts) if inverse else parts:
            if isinstance(part, Permutation):
                place = place[part.undo if inverse else part.order]
            elif isinstance(part, CouplingTransform):
                block += -1 if inverse else 1
                self.order.append(block)
                self.starts[block] = length
                rows += [place[part._kept], place[part._changed]]
                length += dim
        self.rows = torch.cat(rows).numpy()
        self.results: Tensor | None = None if torch.equal(place, torch.arange(dim)) else place


class Plan:
    """A chain of coupling blocks and permutations that is evaluated as one operation.

    Attributes
    ----------
    names
        Names of its parameters in the composition.
    dim, groups, context_dim
        Of its points; how many flows there are; and the length of the context.
    form
        Shape of the splines, number of the activation, and `dim`, as the kernels take them.
    spare
        Memory for evaluations.

    Examples
    --------
    >>> from nisampler.flows import coupling_flow
    >>> plan = plan_of(coupling_flow(4).transform)
    >>> plan.dim, plan.groups, len(plan.names)
    (4, 1, 32)
    """

    def __init__(self, composition: Composition) -> None:
        self._seen, modules = _signature(composition), list(composition.modules())
        kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        self._hooks = [getattr(module, kind) for module in modules for kind in kinds]
        parts: list[nn.Module] = list(composition.transforms)
        blocks = [part for part in parts if isinstance(part, CouplingTransform)]
        self.dim, self.spare = len(blocks[0].mask), Spare()
        self._owners: list[tuple[nn.Module, str]] = []
        self.names: list[str] = []
        for number, part in enumerate(parts):
            if isinstance(part, CouplingTransform):
                self._own(part.net, f"transforms.{number}.net")
        grouped = next((m for m in modules if isinstance(m, GroupedLinear | GroupedConstant)), None)
        self.grouped = grouped is not None
        self.groups = 1 if grouped is None else len(next(grouped.parameters()))
        self.directions = tuple(_Direction(parts, self.dim, inverse) for inverse in (False, True))
        self._sizes = [_sizes(block) for block in blocks]
        self.context_dim = max(size["context"] for size in self._sizes)
        spline, nets = blocks[0].spline, [block.net for block in blocks if not _constant(block.net)]
        bound = float(spline.bound) if spline.domain == "line" else 0.0
        shape = Shape(spline.bins, BOUNDARIES.index(spline.boundary), MIN_SIZE, MIN_SIZE, MIN_SLOPE, bound)
        kind = ACTIVATIONS.index(nets[0].activation) if nets else 0
        self.form = (shape, kind, self.dim)
        self._tables = {(inverse, keep): self._table(inverse, keep) for inverse in (0, 1) for keep in (False, True)}

    def _own(self, net: nn.Module, prefix: str) -> None:
        if _constant(net):
            self._owners.append((net, "values"))
            self.names.append(f"{prefix}.values")
            return
        hidden: Any = net.hidden
        layers: list[tuple[Any, str]] = [*((layer, f"hidden.{k}") for k, layer in enumerate(hidden))]
        for layer, name in [*layers, (net.output, "output")]:
            for kind in ("weight", "bias"):
                self._owners.append((layer, kind))
                self.names.append(f"{prefix}.{name}.{kind}")

    def weights(self) -> list[Tensor] | None:
        """The parameters as they are now; None if the modules have none of these names."""
        found = [module._parameters.get(name) for module, name in self._owners]
        return None if any(tensor is None for tensor in found) else found  # type: ignore[return-value]

    def fits(self, composition: Composition) -> bool:
        """Whether this is still what the composition consists of, and nobody listens at its parts."""
        return self._seen == _signature(composition) and not any(self._hooks)

    def table(self, inverse: bool, keep: bool) -> tuple[Any, Any, tuple[int, int, int]]:
        """The table of a direction, the rows of its coordinates, and how many rows of numbers a tile needs.

        With `keep` each block has rows of its own, which the gradient needs; otherwise all share theirs.
        """
        return self._tables[inverse, keep]

    def scratch(self) -> tuple[int, int]:
        """Rows of numbers that the gradient of a tile needs, in the precisions of networks and points."""
        wide = max(size["params"] * size["changed"] + 2 * max(size["units"], size["inputs"]) for size in self._sizes)
        return wide, self.dim + 1

    def _table(self, inverse: int, keep: bool) -> tuple[Any, Any, tuple[int, int, int]]:
        direction = self.directions[inverse]
        units = max(size["units"] for size in self._sizes)
        networks, points, bins = units, self.dim + 1, 0
        found: list[_Sizes] = []
        most, weights = [networks, points, bins], 0
        for number, size in enumerate(self._sizes):
            at = (networks, points, bins) if keep else (units, self.dim + 1, 0)
            sums = at[0] + size["inputs"]
            raw = sums + size["layers"] * size["units"]
            networks, points, bins = raw + size["params"] * size["changed"], *(k + size["changed"] for k in at[1:])
            most = [max(pair) for pair in zip(most, (networks, points, bins), strict=True)]
            places = {"weights": weights, "rows": direction.starts[number], "features": at[0], "sums": sums, "raw": raw}
            found.append(size | places | {"before": at[1], "index": at[2]})
            weights += self.groups * _count_weights(size)
        table = np.array([[found[number][name] for name in COLUMNS] for number in direction.order], np.int64)
        return table, direction.rows, (most[0], most[1], most[2])


def plan_of(composition: nn.Module) -> Plan | None:
    """The plan of a composition; None if some of its parts can only be evaluated one after the other.

    >>> from nisampler.flows import Affine, coupling_flow
    >>> plan_of(coupling_flow(4).transform) is None, plan_of(Composition([Affine(4)])) is None
    (False, True)
    """
    if type(composition) is not Composition:
        return None
    known: Plan | None = composition.__dict__.get("_plan")
    if known is not None and known.fits(composition):
        return known
    composition.__dict__.pop("_plan", None)
    parts = list(composition.transforms)
    if not all(map(_known, parts)) or not _alike([part for part in parts if isinstance(part, CouplingTransform)]):
        return None
    plan = Plan(composition)
    if not plan.fits(composition):
        return None
    composition.__dict__["_plan"] = plan
    return plan


def _signature(composition: Composition) -> list[Any]:
    """Identities of everything that a plan has looked at."""
    found: list[Any] = []
    for part in composition.transforms._modules.values():
        found.append(id(part))
        if isinstance(part, CouplingTransform):
            net, buffers = part._modules["net"], part._buffers
            found += [id(net), part.spline, id(buffers["_kept"]), id(buffers["_changed"])]
            inner = {} if net is None else net._modules
            found += map(id, inner.values())
            hidden = inner.get("hidden")
            found += map(id, () if hidden is None else hidden._modules.values())
        elif isinstance(part, Permutation):
            found += [id(part.order), part.order._version, id(part.undo), part.undo._version]
    return found


def _constant(net: nn.Module) -> bool:
    return type(net) in (Constant, GroupedConstant)


def _known(part: nn.Module) -> bool:
    """Whether a part is one of those that a plan may have."""
    if type(part) is Permutation:
        return part.order.is_cpu and not part.order.is_inference() and not part.undo.is_inference()
    if type(part) is not CouplingTransform or part.spline.kind != "rational_quadratic":
        return False
    if part.spline.domain == "circle" or not part._kept.is_cpu:
        return False
    net: Any = part.net
    if _constant(net):
        return True
    if type(net) not in (MLP, GroupedMLP) or net.activation not in ACTIVATIONS:
        return False
    linear = Linear if type(net) is MLP else GroupedLinear
    return type(net.features) is FourierFeatures and all(type(layer) is linear for layer in (*net.hidden, net.output))


def _alike(blocks: list[CouplingTransform]) -> bool:
    """Whether the blocks have the same splines, activations, context and number of flows."""
    nets: list[Any] = [block.net for block in blocks]
    layers = [net for net in nets if not _constant(net)]
    activations = {net.activation for net in layers}
    contexts = {getattr(net, "context_dim", 0) for net in layers}
    widths = all(len({layer.weight.shape[-2] for layer in net.hidden}) <= 1 for net in layers)
    grouped = {type(net) in (GroupedMLP, GroupedConstant) for net in nets}
    alike = {(block.spline, len(block.mask)) for block in blocks}
    return len(alike) == 1 and widths and max(map(len, (activations, contexts, grouped)), default=0) <= 1


def _sizes(block: CouplingTransform) -> _Sizes:
    net: Any = block.net
    changed, found = len(block._changed), dict.fromkeys(COLUMNS[:9], 0)
    found |= {"kept": len(block._kept), "changed": changed, "params": block.spline.n_params}
    if _constant(net):
        return found
    first = net.hidden[0] if len(net.hidden) else net.output
    own = {"inputs": first.weight.shape[-1], "layers": len(net.hidden), "context": getattr(net, "context_dim", 0)}
    own["units"] = first.weight.shape[-2] if len(net.hidden) else 0
    return found | own | {"harmonics": net.features.m, "centre": int(net.features.centre)}


def _count_weights(size: _Sizes) -> int:
    """Parameters of a block of one flow."""
    outputs = size["params"] * size["changed"]
    if not size["inputs"]:
        return outputs
    widths = [size["inputs"], *[size["units"]] * size["layers"], outputs]
    return sum(b * (a + 1) for a, b in pairwise(widths))
