"""Many flows as one: every group of points (a channel of phase space, say) has a flow or a grid of its own.

`GroupedFlow` evaluates the flows of all groups in one batched computation. Points are sorted by group once, at the
entry. On a CPU the tiles of all groups then go through one compiled operation (`fused.chain`). Elsewhere they are
padded to equal size; each layer of the conditioners is one batched matrix product over the tiles, and the splines run
over all points as in a single flow. `GridSpline` gives each group a frozen product of one-dimensional maps made from
VEGAS grids, for a flow to start from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nisampler.base.checks import Coordinates, Count, checked
from nisampler.errors import ConfigError, DomainError, ShapeError
from nisampler.flows.assemblies import CouplingConfig, coupling_masks
from nisampler.flows.coupling import CouplingTransform
from nisampler.flows.folding import folded
from nisampler.flows.fused.chain import grouped_chain
from nisampler.flows.nets.grouped import GroupedConstant, GroupedMLP
from nisampler.flows.saving import Saved
from nisampler.flows.splines.rational_quadratic import segment, solve_segment
from nisampler.flows.transforms import Composition

_ROUNDING = 1e-6
# what a tile costs beyond its points, in points: its copy of the weights, forth and back
_TILE_COST = 24
# how many tiles the largest group may fill: every small number, and powers of two for very uneven groups
_PARTS = (*range(1, 65), *(2**k for k in range(7, 24)))


@dataclass(frozen=True)
class _Tiles:
    """Points sorted by group and padded, so that each tile of `len(source) / len(group)` points has one group.

    Parameters
    ----------
    group
        The group of each tile, shape (T,).
    source
        The point that stands in each place, shape (n',); point 0 fills the padding.
    place
        The place of each point, shape (n,).
    """

    group: Tensor
    source: Tensor
    place: Tensor

    @classmethod
    def of(cls, group: Tensor, groups: int) -> _Tiles:
        """The cheapest tiles for points of the given groups (n,)."""
        counts = torch.bincount(group, minlength=groups)
        parts = torch.tensor(_PARTS, device=group.device)
        sizes = (-(-counts.max() // parts)).clamp(min=1)
        tiles = -(-counts // sizes.unsqueeze(1))
        best = (tiles.sum(1) * (sizes + _TILE_COST)).argmin()
        tiles = tiles[best]
        size, total = torch.stack([sizes[best], tiles.sum()]).tolist()
        order = torch.argsort(group, stable=True)
        # a place is the rank among all sorted points, moved on by the padding of the groups before
        padding = tiles * size - counts
        shift = (padding.cumsum(0) - padding).index_select(0, group.index_select(0, order))
        sorted_place = torch.arange(len(group), device=group.device) + shift
        source = torch.zeros(total * size, dtype=torch.long, device=group.device)
        source[sorted_place] = order
        place = torch.empty_like(order)
        place[order] = sorted_place
        tile_group = torch.repeat_interleave(tiles, output_size=total)
        return cls(tile_group, source, place)


class GroupedFlow(Saved):
    """G coupling flows on the unit cube with weights of their own, evaluated together: log q(x | group).

    Value and gradient are those of G separate flows from `coupling_flow`, whose stacked parameters are the parameters
    of this one under the same names; one group gives the flow itself. All are the identity at the start.

    Parameters
    ----------
    dim
        Number of coordinates.
    groups
        Number of flows G.
    config
        What each flow looks like; all share the masks.
    generator
        Fixes the initial weights and random masks; without one a fixed seed is used.

    Raises
    ------
    ConfigError
        If there is no group, or the config asks for a spline on the line, a residual network or a context.

    Examples
    --------
    >>> flow = GroupedFlow(2, 3)
    >>> x, log_q = flow.sample(torch.tensor([2, 0, 0, 2]), generator=torch.Generator().manual_seed(1))
    >>> x.shape, bool((log_q.abs() < 1e-5).all())
    (torch.Size([4, 2]), True)
    """

    def __init__(
        self, dim: int, groups: int, config: CouplingConfig | None = None, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        config = config or CouplingConfig()
        net = config.net
        generator = generator or torch.Generator().manual_seed(0)
        dim, groups = checked("dim", dim, Coordinates), checked("groups", groups, Count)
        if config.spline.domain == "line" or net.kind != "mlp" or net.context_dim:
            raise ConfigError(
                "a grouped flow takes splines on 'unit' or 'circle', networks of kind 'mlp' and no context; got domain "
                f"{config.spline.domain!r}, kind {net.kind!r} and context_dim {net.context_dim}"
            )

        def build(d_in: int, d_out: int) -> nn.Module:
            return GroupedMLP(groups, d_in, d_out, net, generator) if d_in else GroupedConstant(groups, d_out)

        self.fold = folded(dim, groups, config.symmetry)
        masks = coupling_masks(dim if self.fold is None else self.fold.inner_dim, config, generator)
        self.transform = Composition(CouplingTransform(mask, build, config.spline) for mask in masks)
        self._dim, self._groups = dim, groups
        self.assembled("grouped", dim=dim, groups=groups, config=config)

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return self._dim

    @property
    def groups(self) -> int:
        """Number of flows."""
        return self._groups

    def forward(self, x: Tensor, group: Tensor) -> Tensor:
        """What `log_prob` gives: a wrapper such as `DistributedDataParallel` calls a module by this name."""
        return self.log_prob(x, group)

    def log_prob(self, x: Tensor, group: Tensor) -> Tensor:
        """Log density (n,) at x (n, dim) of the flow of each point's group (n,); errors are those of `to_latent`."""
        return self.to_latent(x, group)[1]

    def to_latent(self, x: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
        """The latent point z (n, dim) of x in its group's flow, and log q(x) (n,).

        Raises
        ------
        ShapeError
            If x is not (n, dim), or the groups are not n integers.
        DomainError
            If a point lies outside the unit cube by more than 1e-6 or is not finite, or a group does not exist.
        """
        return self._through(x, _checked_groups(x, group, self._dim, self._groups), inverse=False)

    def from_latent(self, z: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
        """The point x (n, dim) of a latent point z in its group's flow, and log q(x) (n,).

        Its errors are those of `to_latent`.
        """
        x, log_det = self._through(z, _checked_groups(z, group, self._dim, self._groups), inverse=True)
        return x, -log_det

    def _through(self, x: Tensor, group: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """A direction of the flows with its log determinant."""
        if self.fold is None:
            return self._inner(x, group, inverse)
        entered, rest = self.fold.enter(x, inverse, group)
        y, log_det = self._inner(entered, group, inverse)
        return self.fold.leave(y, rest, not inverse, group), log_det

    def _inner(self, x: Tensor, group: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """The same on the folded cube: as one operation where that is possible."""
        function = self.transform.inverse if inverse else self.transform

        def plain(x: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
            tiles = _Tiles.of(group, self._groups)
            y, log_det = function(x.index_select(0, tiles.source), tiles.group)
            return y.index_select(0, tiles.place), log_det.index_select(0, tiles.place)

        found = grouped_chain(self.transform, x, group, inverse, plain)
        return plain(x, group) if found is None else found

    def sample(
        self, group: Tensor, generator: torch.Generator | None = None, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw one point for each entry of `group` (n,): x (n, dim) and log q(x) (n,), on the device of the weights.

        `dtype` is that of the points, by default that of the weights. `generator` must live on the same device.
        Its errors are those of `to_latent`.
        """
        weight = next(self.parameters())
        z = torch.rand(len(group), self._dim, generator=generator, device=weight.device, dtype=dtype or weight.dtype)
        return self.from_latent(z, group.to(weight.device))


class GridSpline:
    """A frozen monotone map of the unit cube per group, made from VEGAS grids: cells of equal probability 1/m.

    Coordinate i of group g runs through the m + 1 nodes in equal steps of u. Between the nodes the map is linear,
    which is the VEGAS map itself, or a rational-quadratic spline. The slope of the spline at an inner node is the
    harmonic mean of the slopes of the cells beside it, so that the density there is continuous, the mean of the
    densities of the two cells; at the ends it is that of the outer cell. Every slope inside a cell is then at most
    twice the one of the linear map: smoothing never more than halves the density of a coordinate.

    Everything is evaluated in float64, on the device of the nodes.

    Parameters
    ----------
    nodes
        Shape (G, dim, m + 1), rising from 0 to 1 along the last axis.
    smooth
        Take the rational-quadratic spline.

    Raises
    ------
    ShapeError
        If the nodes are not of shape (G, dim, m + 1) with m >= 1.
    ConfigError
        If they do not rise from 0 to 1.

    References
    ----------
    Lepage, J. Comput. Phys. 27 (1978) 192; Gregory and Delbourgo, IMA J. Numer. Anal. 2 (1982) 123; Durkan et al.,
    1906.04032, eqs. (4)-(8); the slopes are those of Fritsch and Butland, SIAM J. Sci. Stat. Comput. 5 (1984) 300.

    Examples
    --------
    >>> grid = GridSpline(torch.tensor([[[0.0, 0.2, 1.0]]]), smooth=False)
    >>> x, log_q = grid.map(torch.tensor([[0.25]]), torch.tensor([0]))
    >>> x, log_q.exp()
    (tensor([[0.1000]], dtype=torch.float64), tensor([2.5000], dtype=torch.float64))
    """

    def __init__(self, nodes: Tensor, smooth: bool = True) -> None:
        if nodes.dim() != 3 or nodes.numel() == 0 or nodes.shape[2] < 2:
            raise ShapeError(f"expected nodes of shape (groups, dim, cells + 1), got {tuple(nodes.shape)}")
        self.nodes = nodes.detach().to(torch.float64, copy=True)
        self.smooth = smooth
        width = self.nodes.diff(dim=2)
        ends = (self.nodes[..., 0] == 0.0).all() & (self.nodes[..., -1] == 1.0).all()
        if not (ends & (width > 0.0).all()):
            raise ConfigError("the nodes of a grid must rise strictly from 0 to 1")
        cells = [self.nodes[..., :-1], width]
        if smooth:
            # slope at a node over that of the cell on its left, and on its right
            ratio = 2.0 / (width[..., :-1] + width[..., 1:])
            one = torch.ones_like(width[..., :1])
            cells += [torch.cat([one, width[..., :-1] * ratio], 2), torch.cat([width[..., 1:] * ratio, one], 2)]
        self._cells = torch.stack(cells, dim=-1).flatten(0, 2)

    def map(self, u: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
        """u (n, dim) -> x (n, dim) and log q(x) (n,) in the grids of the groups (n,).

        Raises
        ------
        ShapeError
            If u is not (n, dim), or the groups are not n integers.
        DomainError
            If a point lies outside the unit cube by more than 1e-6 or is not finite, or a group does not exist.
        """
        groups, dim, count = self.nodes.shape
        row = self._row(_checked_groups(u, group, dim, groups))
        scaled = u.double().clamp(0.0, 1.0) * (count - 1)
        index = scaled.detach().long().clamp(max=count - 2)
        low, width, *slopes = self._cell(row, index)
        theta, log_slope = scaled - index, torch.log(width * (count - 1))
        if slopes:
            theta, relative = segment(theta, torch.ones_like(width), slopes[0], slopes[1])
            log_slope = log_slope + relative
        return torch.addcmul(low, theta, width).clamp(0.0, 1.0), -log_slope.sum(1)

    def unmap(self, x: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
        """x (n, dim) -> u (n, dim) and log q(x) (n,), the inverse of `map`; its errors are those of `map`."""
        groups, dim, count = self.nodes.shape
        row, x = self._row(_checked_groups(x, group, dim, groups)), x.double().clamp(0.0, 1.0)
        index = self._find(row, x.detach())
        low, width, *slopes = self._cell(row, index)
        theta, log_slope = ((x - low) / width).clamp(0.0, 1.0), torch.log(width * (count - 1))
        if slopes:
            one = torch.ones_like(width)
            theta, relative = solve_segment(theta, torch.zeros_like(width), one, one, slopes[0], slopes[1])
            log_slope = log_slope + relative
        return (index + theta) / (count - 1), -log_slope.sum(1)

    def _row(self, group: Tensor) -> Tensor:
        dim = self.nodes.shape[1]
        return group.unsqueeze(1) * dim + torch.arange(dim, device=group.device)

    def _cell(self, row: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        """What is stored of cells of the given rows and indices, both (n, dim)."""
        cells = self._cells.index_select(0, (row * (self.nodes.shape[2] - 1) + index).flatten())
        return tuple(part.view_as(row) for part in cells.unbind(1))

    def _find(self, row: Tensor, x: Tensor) -> Tensor:
        """Index of the cell that holds each coordinate, by bisection in the coordinate's own row of nodes."""
        count = self.nodes.shape[2]
        nodes, start = self.nodes.flatten(), row * count
        index = torch.zeros_like(row)
        step = 1 << (count - 2).bit_length()
        while step := step // 2:
            further = (index + step).clamp(max=count - 2)
            index = torch.where(nodes.take(start + further) <= x, further, index)
        return index


def _checked_groups(points: Tensor, group: Tensor, dim: int, groups: int) -> Tensor:
    """The groups as int64, once points and groups are known to fit; two reductions for the whole batch."""
    if points.dim() != 2 or points.shape[1] != dim:
        raise ShapeError(f"expected points of shape (n, {dim}), got {tuple(points.shape)}")
    if group.shape != points.shape[:1] or group.is_floating_point() or group.dtype == torch.bool:
        raise ShapeError(
            f"expected {points.shape[0]} groups, one integer per point, got {group.dtype} of shape {tuple(group.shape)}"
        )
    if len(points) == 0:
        return group.long()
    low, high = (float(bound) for bound in torch.aminmax(points.detach()))
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        raise DomainError(f"points must lie in [0, 1]^{dim}; found coordinates from {low} to {high}")
    first, last = (int(bound) for bound in torch.aminmax(group))
    if first < 0 or last >= groups:
        raise DomainError(f"group {first if first < 0 else last} does not exist; there are {groups}, 0 to {groups - 1}")
    return group.long()
