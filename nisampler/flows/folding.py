"""The unit cube folded by the symmetries of a density, so that a flow sees one of all equal points.

The cube is folded along one coordinate of each reflection, and onto the points whose exchanged coordinates are in
order; coordinates that turn together are counted from the first of them, which is left out. The flow has less to learn,
and its density has the symmetries exactly. Folding keeps volumes, so that densities stay exact whether or not the
learned function has the symmetries.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nisampler.errors import ConfigError
from nisampler.flows.fused.chain import coupling_chain
from nisampler.flows.symmetry import NONE, Action, Symmetry
from nisampler.flows.transforms import Transform

_POINTS = 2**15

Rest = tuple[Tensor, Tensor, list[Tensor]]


class _Mirrors(nn.Module):
    """Reflections of G groups, one after the other: each halves one coordinate, its pivot, and doubles what is left.

    A reflection acts on what those before it have left: where it turned the pivot of one by half a circle, it reflects
    what is left of that.
    """

    pivot: Tensor
    flip: Tensor
    turn: Tensor

    def __init__(self, dim: int, actions: Sequence[Sequence[Action]]) -> None:
        super().__init__()
        found = [_stages(dim, own) for own in actions]
        self.count = max(map(len, found))
        shape = (self.count, len(found), dim)
        pivot, (flip, turn) = torch.full(shape[:2], NONE), torch.zeros(2, *shape, dtype=torch.bool)
        for group, stages in enumerate(found):
            for stage, (column, flips, halves) in enumerate(stages):
                pivot[stage, group] = column
                flip[stage, group], turn[stage, group] = torch.tensor(flips), torch.tensor(halves)
        for name, part in (("pivot", pivot), ("flip", flip), ("turn", turn)):
            self.register_buffer(name, part, persistent=False)

    def enter(self, x: Tensor, group: Tensor, latent: bool) -> tuple[Tensor, list[Tensor]]:
        sides = []
        for stage in range(self.count):
            column, inside = self._pivot(stage, group)
            at = x.gather(1, column)
            side = (at > 0.5) & inside
            sides.append(side)
            if not latent:
                x = torch.where(side, self._acted(x, stage, group), x)
                at = x.gather(1, column)
                half = (2.0 * at).clamp(max=1.0)
            else:
                half = (2.0 * at - side.to(x)).clamp(0.0, 1.0)
            x = x.scatter(1, column, torch.where(inside, half, at))
        return x, sides

    def leave(self, x: Tensor, sides: list[Tensor], group: Tensor, latent: bool) -> Tensor:
        for stage in reversed(range(self.count)):
            (column, inside), side = self._pivot(stage, group), sides[stage]
            at = x.gather(1, column)
            whole = 0.5 * (at + side.to(x)) if latent else 0.5 * at
            x = x.scatter(1, column, torch.where(inside, whole, at))
            if not latent:
                x = torch.where(side, self._acted(x, stage, group), x)
        return x

    def _pivot(self, stage: int, group: Tensor) -> tuple[Tensor, Tensor]:
        """Pivot column (n, 1) of each point, and whether it has one."""
        column = self.pivot[stage].index_select(0, group).unsqueeze(1)
        return column.clamp(min=0), column >= 0

    def _acted(self, x: Tensor, stage: int, group: Tensor) -> Tensor:
        flip, turn = (part[stage].index_select(0, group) for part in (self.flip, self.turn))
        x = torch.where(flip, 1.0 - x, x)
        return torch.where(turn, torch.remainder(x + 0.5, 1.0), x)


def _stages(dim: int, actions: Sequence[Action]) -> list[tuple[int, list[int], list[int]]]:
    """(pivot, flips, halves) of each reflection, as it acts on what those before it have left."""
    stages: list[tuple[int, list[int], list[int]]] = []
    for action in actions:
        flips, halves = [0] * dim, [0] * dim
        for column, _, minus, half in action.rows:
            flips[column], halves[column] = int(minus == column), half % 2
        for pivot, others, turns in stages:
            if flips[pivot] != halves[pivot]:
                flips = [a ^ b for a, b in zip(flips, others, strict=True)]
                halves = [a ^ b for a, b in zip(halves, turns, strict=True)]
            halves[pivot] = 0
        used = {pivot for pivot, _, _ in stages}
        able = [k for k in range(dim) if flips[k] != halves[k]]
        if able:
            stages.append((max(able, key=lambda k: (k not in used, k)), flips, halves))
    return stages


class _Orders(nn.Module):
    """Exchanges: points are brought in order of some coordinates, the keys, and the keys made independent.

    Of m keys in rising order with distances t_1 > t_2 > … from the upper end each (t_i / t_{i-1})^(m - i + 1), where
    t_0 = 1, is uniform and independent of the others if the keys were. The only steep place is at the upper end, where
    densities of momenta are small.
    """

    keys: Tensor
    code: Tensor
    plus: Tensor
    minus: Tensor
    halves: Tensor
    undo: Tensor

    def __init__(self, dim: int, sets: Sequence[Sequence[int]], actions: Sequence[Action]) -> None:
        super().__init__()
        self.sizes = [len(own) for own in sets]
        self.register_buffer("keys", torch.tensor([key for own in sets for key in own]), persistent=False)
        images = _images(dim, sets, actions)
        rows = torch.tensor([image.rows(dim) for image in images])
        for name, part in zip(("plus", "minus", "halves"), rows.unbind(2), strict=True):
            self.register_buffer(name, part, persistent=False)
        code = torch.zeros(math.prod(size**size for size in self.sizes), dtype=torch.long)
        code[self._code([self.plus.index_select(1, own) for own in self._sets()])] = torch.arange(len(images))
        self.register_buffer("code", code, persistent=False)
        undo = [images.index(image.undone()) for image in images]
        self.register_buffer("undo", torch.tensor(undo), persistent=False)

    def _sets(self) -> tuple[Tensor, ...]:
        """The keys (m,) of each set."""
        return torch.split(self.keys, self.sizes)

    def _code(self, orders: Sequence[Tensor]) -> Tensor:
        """A number (n,) for the keys (n, m) of each set that come first, second, …"""
        found = torch.zeros(len(orders[0]), dtype=torch.long, device=orders[0].device)
        for own, order in zip(self._sets(), orders, strict=True):
            for place in order.unbind(1):
                found = found * len(own) + (place.unsqueeze(1) > own).sum(1)
        return found

    def enter(self, x: Tensor, latent: bool) -> tuple[Tensor, Tensor]:
        """Points (n, dim) in order, and which image (n,) brings them there."""
        orders = [own[torch.argsort(x.index_select(1, own), dim=1)] for own in self._sets()]
        image = self.code.index_select(0, self._code(orders))
        x = self._image(x, image, latent)
        for own in self._sets():
            distance = 1.0 - x.index_select(1, own)
            before = torch.cat([torch.ones_like(distance[:, :1]), distance[:, :-1]], 1)
            ratio = (distance / before.clamp(min=torch.finfo(x.dtype).tiny)).clamp(max=1.0)
            x = x.index_copy(1, own, 1.0 - ratio.pow(_powers(own, x)))
        return x, image

    def leave(self, x: Tensor, image: Tensor, latent: bool) -> Tensor:
        """Points (n, dim) from what `enter` returned of the other side."""
        for own in self._sets():
            ratio = (1.0 - x.index_select(1, own)).pow(1.0 / _powers(own, x))
            x = x.index_copy(1, own, 1.0 - ratio.cumprod(1))
        return self._image(x, self.undo.index_select(0, image), latent)

    def _image(self, x: Tensor, image: Tensor, keys_alone: bool) -> Tensor:
        """The images of points; of latent ones the keys change places and nothing else."""
        plus, minus, halves = (part.index_select(0, image) for part in (self.plus, self.minus, self.halves))
        found = torch.where(plus >= 0, x.gather(1, plus.clamp(min=0)), 1.0)
        if keys_alone:
            return x.index_copy(1, self.keys, found.index_select(1, self.keys))
        found = found - torch.where(minus >= 0, x.gather(1, minus.clamp(min=0)), 0.0) + 0.5 * halves
        wraps = (plus >= 0) & (minus >= 0) | (halves > 0)
        return torch.where(wraps, torch.remainder(found, 1.0), found)


def _powers(keys: Tensor, like: Tensor) -> Tensor:
    return torch.arange(len(keys), 0, -1, dtype=like.dtype, device=like.device)


@dataclass(frozen=True)
class _Image:
    """x becomes A x + halves / 2 modulo 1, with a matrix of whole numbers."""

    matrix: tuple[tuple[int, ...], ...]
    halves: tuple[int, ...]

    @classmethod
    def of(cls, dim: int, action: Action | None = None) -> _Image:
        matrix, halves = [[int(a == b) for b in range(dim)] for a in range(dim)], [0] * dim
        for column, plus, minus, half in () if action is None else action.rows:
            matrix[column] = [int(k == plus) - int(k == minus) for k in range(dim)]
            halves[column] = half % 2
        return cls(tuple(map(tuple, matrix)), tuple(halves))

    def after(self, other: _Image) -> _Image:
        columns = list(zip(*other.matrix, strict=True))
        matrix = tuple(tuple(_dot(row, column) for column in columns) for row in self.matrix)
        halves = ((own + _dot(row, other.halves)) % 2 for own, row in zip(self.halves, self.matrix, strict=True))
        return _Image(matrix, tuple(halves))

    def undone(self) -> _Image:
        """The inverse: all have a finite order."""
        last = self
        while (following := self.after(last)) != _Image.of(len(self.halves)):
            last = following
        return last

    def rows(self, dim: int) -> list[list[int]]:
        """(plus, minus, halves) of each column."""
        found = []
        for row, half in zip(self.matrix, self.halves, strict=True):
            ends = {sign: [k for k in range(dim) if row[k] == sign] for sign in (1, -1)}
            if max(map(len, ends.values())) > 1 or max(map(abs, row)) > 1:
                raise ConfigError("exchanges together make a coordinate of more than two others")
            found.append([ends[1][0] if ends[1] else NONE, ends[-1][0] if ends[-1] else NONE, half])
        return found


def _dot(a: Sequence[int], b: Sequence[int]) -> int:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _images(dim: int, sets: Sequence[Sequence[int]], actions: Sequence[Action]) -> list[_Image]:
    """All that exchanges make together, one for each order of the keys."""
    generators, found = [_Image.of(dim, action) for action in actions], [_Image.of(dim)]
    most = math.prod(math.factorial(len(own)) for own in sets)
    for image in found:
        for generator in generators:
            made = generator.after(image)
            if made not in found:
                found.append(made)
        if len(found) > most:
            break
    if len(found) != most:
        raise ConfigError(f"exchanges of coordinates make {len(found)} images where their keys have {most} orders")
    return found


def _keys(symmetry: Symmetry) -> list[list[int]]:
    """Sets of coordinates that exchanges permute and nothing else touches, one set for legs that are alike."""
    touched = {k for action in symmetry.actions if action.diagonal for k in action.columns()}
    sets: list[set[int]] = []
    for action in symmetry.actions:
        swaps = {(a, b) for a, b, minus, halves in action.rows if minus == NONE and not halves and a != b != NONE}
        own = sorted((a, b) for a, b in swaps if a < b and (b, a) in swaps and not {a, b} & touched)
        if not action.diagonal:
            if not own:
                raise ConfigError(f"an exchange needs two coordinates that swap and that nothing reflects: {action}")
            joined = set(own[0]).union(*(other for other in sets if other & set(own[0])))
            sets = [other for other in sets if not other & joined] + [joined]
    return [sorted(own) for own in sets]


class Fold(nn.Module):
    """The cube folded along reflections and exchanges, without what turns; of one group of points or more.

    Parameters
    ----------
    dim
        Of the cube.
    symmetries
        That of each group, or one for all. Either something turns in all groups, or in none.

    Raises
    ------
    ConfigError
        If a coordinate does not exist, none is left, groups differ in dimension, or exchanges do not fit together.

    Examples
    --------
    >>> fold = Fold(3, [Symmetry((2,), (Action.reflection(0, 1),))])
    >>> inner, rest = fold.enter(torch.tensor([[0.75, 0.25, 0.5]]), latent=False)
    >>> inner, fold.leave(inner, rest, latent=False)
    (tensor([[0.7500, 0.5000]]), tensor([[0.7500, 0.2500, 0.5000]]))
    """

    first: Tensor
    turned: Tensor
    kept: Tensor

    def __init__(self, dim: int, symmetries: Sequence[Symmetry]) -> None:
        super().__init__()
        named = {k for own in symmetries for k in own.columns()}
        if named and max(named) >= dim:
            raise ConfigError(f"a symmetry names coordinate {max(named)}; there are {dim}, 0 to {dim - 1}")
        if len({bool(own.turned) for own in symmetries}) > 1:
            raise ConfigError(
                "either all groups have coordinates that turn together, or none: they share one dimension"
            )
        first = [own.turned[0] if own.turned else NONE for own in symmetries]
        kept = [[k for k in range(dim) if k != one] for one in first]
        if not kept[0]:
            raise ConfigError("the only coordinate turns: nothing is left to learn")
        self.dim, self.inner_dim, self.groups = dim, len(kept[0]), len(symmetries)
        self.turns = any(len(own.turned) > 1 for own in symmetries)
        turned = torch.tensor([[k in own.turned[1:] for k in range(dim)] for own in symmetries])
        for name, part in (("first", torch.tensor(first)), ("turned", turned), ("kept", torch.tensor(kept))):
            self.register_buffer(name, part, persistent=False)
        self.mirrors = _Mirrors(dim, [[action for action in own.actions if action.diagonal] for own in symmetries])
        self.orders = nn.ModuleDict()
        for group, own in enumerate(symmetries):
            if sets := _keys(own):
                exchanges = [action for action in own.actions if not action.diagonal]
                self.orders[str(group)] = _Orders(dim, sets, exchanges)

    def enter(self, x: Tensor, latent: bool, group: Tensor | None = None) -> tuple[Tensor, Rest]:
        """Points (n, inner_dim) of the folded cube, and what else is to be known of x (n, dim), of the groups (n,).

        A latent point has its side of a reflection in the half of the interval that it lies in; another one is
        reflected.
        """
        group = self._group(x, group)
        angle = self._angle(x, group)
        x = x if latent else self._turned(x, -angle, group)
        image = torch.zeros_like(group)
        for rows, orders in self._ordered(group):
            part, found = orders.enter(x.index_select(0, rows), latent)
            x, image = x.index_copy(0, rows, part), image.index_copy(0, rows, found)
        x, sides = self.mirrors.enter(x, group, latent)
        return x.gather(1, self.kept.index_select(0, group)), (angle, image, sides)

    def leave(self, inner: Tensor, rest: Rest, latent: bool, group: Tensor | None = None) -> Tensor:
        """Points (n, dim) of the whole cube, latent ones or others, from what `enter` returned of the other side."""
        group, (angle, image, sides) = self._group(inner, group), rest
        x = inner.new_zeros(len(inner), self.dim).scatter(1, self.kept.index_select(0, group), inner)
        x = self.mirrors.leave(x, sides, group, latent)
        for rows, orders in self._ordered(group):
            part = orders.leave(x.index_select(0, rows), image.index_select(0, rows), latent)
            x = x.index_copy(0, rows, part)
        if self.inner_dim == self.dim:
            return x
        x = x.scatter(1, self.first.index_select(0, group).unsqueeze(1), angle)
        return x if latent else self._turned(x, angle, group)

    def _angle(self, x: Tensor, group: Tensor) -> Tensor:
        """The coordinate (n, 1) from which those that turn with it are counted; zero where none turns."""
        if self.inner_dim == self.dim:
            return torch.zeros_like(x[:, :1])
        return x.gather(1, self.first.index_select(0, group).unsqueeze(1))

    def _turned(self, x: Tensor, angle: Tensor, group: Tensor) -> Tensor:
        """Points (n, dim) with all that turn together but the first moved by angles (n, 1)."""
        if not self.turns:
            return x
        return torch.where(self.turned.index_select(0, group), torch.remainder(x + angle, 1.0), x)

    def _group(self, x: Tensor, group: Tensor | None) -> Tensor:
        if group is None or self.groups == 1:
            return torch.zeros(len(x), dtype=torch.long, device=x.device)
        return group

    def _ordered(self, group: Tensor) -> Iterator[tuple[Tensor, _Orders]]:
        """The points (n,) of each group that has exchanges."""
        for number, orders in self.orders.items():
            if isinstance(orders, _Orders):
                yield torch.nonzero(group == int(number)).squeeze(1), orders

    def grids(self, nodes: Tensor) -> Tensor:
        """Nodes of VEGAS grids (groups, dim, m + 1) of the cube as those of the folded one, (groups, inner_dim, m + 1).

        They are quantiles of points of the grids that were folded.

        >>> Fold(1, [Symmetry(actions=(Action.reflection(0),))]).grids(torch.tensor([[[0.0, 0.4, 0.6, 1.0]]]))
        tensor([[[0.0000, 0.4000, 0.8000, 1.0000]]])
        """
        count = nodes.shape[2] - 1
        engine = torch.quasirandom.SobolEngine(self.dim)  # type: ignore[no-untyped-call]
        points = engine.draw(_POINTS, dtype=torch.float64) + 0.5 / _POINTS
        place = points.to(nodes.device) * count
        cell = place.long().clamp(max=count - 1)
        found = []
        for group, own in enumerate(nodes.double()):
            low, high = (own.T.gather(0, cell + step) for step in (0, 1))
            x = torch.lerp(low, high, place - cell)
            inner = self.enter(x, False, torch.full_like(cell[:, 0], group))[0].sort(0).values
            index = torch.arange(1, count, device=nodes.device) * _POINTS // count
            inside = 0.5 * (inner[index - 1] + inner[index])
            ends = torch.zeros_like(inner[:1])
            found.append(torch.cat([ends, inside, ends + 1.0]).T)
        return torch.stack(found).to(nodes)


def folded(dim: int, groups: int, symmetries: Sequence[Symmetry]) -> Fold | None:
    """The fold of so many groups by their symmetries, one for each or one for all; None where there is none.

    Raises
    ------
    ConfigError
        If their number is another one, and as `Fold` does.

    >>> folded(2, 3, ()), folded(2, 3, [Symmetry(turned=(1,))]).inner_dim
    (None, 1)
    """
    if not any(symmetries):
        return None
    if len(symmetries) not in (1, groups):
        raise ConfigError(f"{len(symmetries)} symmetries are stated for {groups} groups: give one for each, or one")
    return Fold(dim, symmetries)


class Folded(Transform):
    """A composition of coupling blocks on the folded cube, as a transform of the whole one.

    >>> from nisampler.flows import CouplingConfig, coupling_flow
    >>> flow = coupling_flow(3, CouplingConfig(symmetry=(Symmetry((2,), (Action.reflection(0, 1),)),)))
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
