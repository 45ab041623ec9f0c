"""Symmetries of a density on the unit cube, taken from the flow that learns it: it sees one of all equal points.

A mirror turns some coordinates u into 1 - u and leaves the density as it is; on a flat coordinate it does not depend.
The cube is folded along one coordinate of each mirror, and flat coordinates are left out: the flow has less to learn,
and its density has the symmetries exactly. Folding keeps volumes, so that densities stay exact whether or not the
learned function has the symmetries.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nisampler.base.checks import Natural, Row, settings
from nisampler.errors import ConfigError
from nisampler.flows.fused.chain import coupling_chain
from nisampler.flows.transforms import Transform


@settings
class Symmetry:
    """Under what a density on the cube does not change.

    Parameters
    ----------
    mirrors
        Sets of coordinates that may be reflected together.
    flat
        Coordinates that it does not depend on.

    Examples
    --------
    >>> bool(Symmetry()), Symmetry(mirrors=((0, 2), (2, 3)), flat=(3,)).generators()
    (False, {0: (0,), 2: (2,)})
    """

    mirrors: Row[Row[Natural]] = ()
    flat: Row[Natural] = ()

    def __bool__(self) -> bool:
        return bool(self.mirrors or self.flat)

    def generators(self) -> dict[int, tuple[int, ...]]:
        """Mirrors that give all others, each by a coordinate that no other one of them reflects, the last it can be.

        Channels have decays first and then jets, which have more structure to be folded away.
        """
        rows: dict[int, set[int]] = {}
        for mirror in self.mirrors:
            left = set(mirror) - set(self.flat)
            for pivot, own in rows.items():
                if pivot in left:
                    left ^= own
            if left:
                first = max(left)
                rows = {pivot: own ^ left if first in own else own for pivot, own in rows.items()} | {first: left}
        return {pivot: tuple(sorted(own)) for pivot, own in sorted(rows.items())}


class Fold(nn.Module):
    """The cube folded along mirrors, without its flat coordinates.

    Parameters
    ----------
    dim
        Of the cube.
    symmetry
        Its mirrors and flat coordinates.

    Raises
    ------
    ConfigError
        If a coordinate does not exist, or none is left.

    Examples
    --------
    >>> fold = Fold(3, Symmetry(mirrors=((0, 1),), flat=(2,)))
    >>> inner, rest = fold.enter(torch.tensor([[0.75, 0.25, 0.5]]), latent=False)
    >>> inner, fold.leave(inner, rest, latent=False)
    (tensor([[0.7500, 0.5000]]), tensor([[0.7500, 0.2500, 0.5000]]))
    """

    pivots: Tensor
    flips: Tensor
    kept: Tensor
    flat: Tensor

    def __init__(self, dim: int, symmetry: Symmetry) -> None:
        super().__init__()
        generators = symmetry.generators()
        known = {*symmetry.flat, *(k for mirror in symmetry.mirrors for k in mirror)}
        if known and max(known) >= dim:
            raise ConfigError(f"a symmetry names coordinate {max(known)}; there are {dim}, 0 to {dim - 1}")
        kept = [k for k in range(dim) if k not in symmetry.flat]
        if not kept:
            raise ConfigError("all coordinates are flat: nothing is left to learn")
        flips = torch.zeros(len(generators), dim)
        for row, own in enumerate(generators.values()):
            flips[row, list(own)] = 1.0
        columns = {"pivots": list(generators), "kept": kept, "flat": sorted(set(symmetry.flat))}
        for name, column in columns.items():
            self.register_buffer(name, torch.tensor(column, dtype=torch.long), persistent=False)
        self.register_buffer("flips", flips, persistent=False)
        self.dim, self.inner_dim = dim, len(kept)

    def enter(self, x: Tensor, latent: bool) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Points (n, inner_dim) of the folded cube, and what else is to be known of x (n, dim): its sides and the rest.

        A latent point has its side of a mirror in the half of the interval that it lies in; another one is reflected.
        """
        at = x.index_select(1, self.pivots)
        side = at > 0.5
        rest = (side, x.index_select(1, self.flat))
        if latent:
            inner = x.index_copy(1, self.pivots, (2.0 * at - side.to(x)).clamp(0.0, 1.0))
        else:
            mirrored = self._mirrored(x, side)
            inner = mirrored.index_copy(1, self.pivots, (2.0 * mirrored.index_select(1, self.pivots)).clamp(max=1.0))
        return inner.index_select(1, self.kept), rest

    def leave(self, inner: Tensor, rest: tuple[Tensor, Tensor], latent: bool) -> Tensor:
        """Points (n, dim) of the whole cube, latent ones or others, from what `enter` returned of the other side."""
        side, flat = rest
        x = inner.new_empty(len(inner), self.dim).index_copy(1, self.kept, inner).index_copy(1, self.flat, flat)
        half = x.index_select(1, self.pivots)
        if latent:
            return x.index_copy(1, self.pivots, 0.5 * (half + side.to(x)))
        return self._mirrored(x.index_copy(1, self.pivots, 0.5 * half), side)

    def _mirrored(self, x: Tensor, side: Tensor) -> Tensor:
        """x (n, dim), reflected by the mirrors of the mask (n, m)."""
        odd = (side.to(self.flips) @ self.flips).remainder(2.0) > 0.5
        return torch.where(odd, 1.0 - x, x)

    def grids(self, nodes: Tensor) -> Tensor:
        """Nodes of VEGAS grids (groups, dim, m + 1) of the cube as those of the folded one, (groups, inner_dim, m + 1).

        >>> Fold(1, Symmetry(mirrors=((0,),))).grids(torch.tensor([[[0.0, 0.4, 0.6, 1.0]]]))
        tensor([[[0.0000, 0.4000, 0.8000, 1.0000]]])
        """
        nodes, count = nodes.clone(), nodes.shape[2] - 1
        levels = torch.linspace(0.0, 1.0, count + 1, dtype=torch.float64, device=nodes.device)
        for group in nodes:
            for pivot in self.pivots.tolist():
                own = group[pivot].double()
                edges = torch.cat([2.0 * own[own <= 0.5], 2.0 * (1.0 - own[own > 0.5]), levels[:1], levels[-1:]])
                edges = torch.unique(edges)
                carried = _line(own, levels, 0.5 * edges) + 1.0 - _line(own, levels, 1.0 - 0.5 * edges)
                group[pivot] = _line(carried, edges, levels).to(nodes)
                group[pivot, 0], group[pivot, -1] = 0.0, 1.0
        return nodes.index_select(1, self.kept)


def _line(x: Tensor, y: Tensor, at: Tensor) -> Tensor:
    """The values of the line through points x, y, both rising, at places between them."""
    right = torch.searchsorted(x, at).clamp(1, len(x) - 1)
    low, high = x[right - 1], x[right]
    share = ((at - low) / (high - low).clamp(min=torch.finfo(x.dtype).tiny)).clamp(0.0, 1.0)
    return torch.lerp(y[right - 1], y[right], share)


class Folded(Transform):
    """A composition of coupling blocks on the folded cube, as a transform of the whole one.

    >>> from nisampler.flows import CouplingConfig, coupling_flow
    >>> flow = coupling_flow(3, CouplingConfig(symmetry=Symmetry(mirrors=((0, 1),), flat=(2,))))
    >>> isinstance(flow.transform, Folded), flow.dim
    (True, 3)
    """

    def __init__(self, inner: Transform, fold: Fold) -> None:
        super().__init__()
        self.inner, self.fold = inner, fold

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._through(x, context, inverse=False)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._through(y, context, inverse=True)

    def _through(self, x: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        entered, rest = self.fold.enter(x, latent=inverse)
        found = coupling_chain(self.inner, entered, context, inverse)
        if found is None:
            found = (self.inner.inverse if inverse else self.inner)(entered, context)
        return self.fold.leave(found[0], rest, latent=not inverse), found[1]


def symmetry_of(function: Any) -> Symmetry:
    """The symmetry that a function states by a method `symmetry`, of the coordinates of its channels; none by default.

    >>> symmetry_of(torch.sin)
    Symmetry(mirrors=(), flat=())
    """
    stated = getattr(function, "symmetry", None)
    found = stated() if callable(stated) else None
    return found if isinstance(found, Symmetry) else Symmetry()
