"""What the largest weights of a sampler have in common: where they lie, by coordinates, channels and momenta."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nisampler.density.channels import Multichannel, multichannel_of
from nisampler.density.integrand import Integrand
from nisampler.density.maps import channel_of
from nisampler.errors import ConfigError, UnweightingError

if TYPE_CHECKING:
    from nisampler.ui.drawing import Drawing

_QUANTILES = (0.1, 0.5, 0.9)
# Distance that two samples of one law exceed once in a hundred times, in units of 1/√m for the smaller one of m points.
_BY_CHANCE = 1.63
_FEWEST = 10
_COORDINATE = re.compile(r"u\d+")


@dataclass(frozen=True)
class Separation:
    """How differently a quantity is distributed for the worst points and for the integral.

    Attributes
    ----------
    name
        Of the quantity.
    distance
        The largest difference of the two cumulative distributions (Kolmogorov and Smirnov), from 0 to 1.
    by_chance
        What the distance exceeds once in a hundred times without any reason.
    worst, rest
        Quantiles at 10, 50 and 90 %: of the worst points, and of all others by their weight.

    Examples
    --------
    >>> found = Separation("u1", 0.8, 0.2, (0.9, 0.95, 0.99), (0.1, 0.5, 0.9))
    >>> found.telling
    True
    """

    name: str
    distance: float
    by_chance: float
    worst: tuple[float, float, float]
    rest: tuple[float, float, float]

    @property
    def telling(self) -> bool:
        """Whether the distance is more than chance gives."""
        return self.distance > self.by_chance


@dataclass(frozen=True, repr=False)
class Explanation:
    """The points with the largest weights beside all others; it prints as tables.

    Attributes
    ----------
    weights
        |f/q| of all points (n,), in units of their mean.
    order
        Numbers of the worst points (m,), the worst first.
    quantities
        By name, of all points (n,): "u1", "u2", ... are coordinates of the cube, of the channel that made the point;
        others are those of the process. NaN where a point has none.
    channels
        By name: share of the worst points, of the weights and of the points drawn; empty without channels.
    separations
        Of the quantities, the most different ones first.

    Examples
    --------
    >>> u = torch.rand(2000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    >>> found = explain(u, 1.0 + 9.0 * (u[:, 1] > 0.99), {"u1": u[:, 0], "u2": u[:, 1]}, worst=20)
    >>> found.separations[0].name, found.separations[0].telling, found.separations[1].telling
    ('u2', True, False)
    """

    weights: Tensor
    order: Tensor
    quantities: Mapping[str, Tensor]
    channels: Mapping[str, tuple[float, float, float]]
    separations: tuple[Separation, ...]

    @property
    def share(self) -> float:
        """Of the integral that the worst points carry."""
        return float(self.weights[self.order].sum() / self.weights.sum())

    def rows(self, points: int = 5, most: int = 12) -> list[list[str]]:
        """Cells of a table: quantities with their quantiles and their values at the worst points.

        Parameters
        ----------
        points
            How many of these.
        most
            Most quantities.
        """
        shown = self.order[:points].tolist()
        head = ["quantity", "distance", "by chance", "worst 10-50-90 %", "rest 10-50-90 %"]
        lines = [head + [f"no. {k + 1}" for k in range(len(shown))]]
        lines.append(["weight / mean", "", "", "", "", *(f"{float(self.weights[k]):.4g}" for k in shown)])
        for item in self.separations[:most]:
            values = [f"{float(self.quantities[item.name][k]):.4g}" for k in shown]
            ranges = (" - ".join(f"{value:.3g}" for value in part) for part in (item.worst, item.rest))
            lines.append([item.name, f"{item.distance:.2f}", f"{item.by_chance:.2f}", *ranges, *values])
        return lines

    def channel_rows(self) -> list[list[str]]:
        """Cells of a table of the channels, none without them; those with most of the worst points come first."""
        if not self.channels:
            return []
        ordered = sorted(self.channels.items(), key=lambda item: -item[1][0])
        lines = [[name, *(f"{100 * share:.1f} %" for share in shares)] for name, shares in ordered]
        return [["channel", "of the worst", "of the integral", "of the points"], *lines]

    def line(self) -> str:
        """What was found, in a sentence or two."""
        count, largest = len(self.order), float(self.weights[self.order[0]])
        text = (
            f"the {count} largest of {len(self.weights)} weights, up to {largest:.3g} times their mean, carry "
            f"{100 * self.share:.2g} % of the integral"
        )
        telling = [item for item in self.separations if item.telling][:3]
        if not telling:
            return f"{text}; no quantity tells them from the others"
        return f"{text}; they differ most in {', '.join(item.name for item in telling)}"

    def __repr__(self) -> str:
        return f"Explanation({self.line()})"

    def __str__(self) -> str:
        tables = (self.rows(), self.channel_rows())
        return "\n".join([self.line(), *("  ".join(row) for table in tables for row in table)])

    def figure(self) -> Drawing:
        """Distributions of the six most different quantities: the worst points beside the integral."""
        from nisampler.ui import contrasts

        worst = torch.zeros(len(self.weights), dtype=torch.bool)
        worst[self.order] = True
        shown = {item.name: self.quantities[item.name].numpy() for item in self.separations[: contrasts.MOST]}
        return contrasts.contrasts(shown, self.weights.numpy(), worst.numpy())

    def losses(self, names: Sequence[str] = ()) -> Drawing:
        """Mean weights and their spread over pairs of quantities: where the sampler draws too few points or too many.

        Parameters
        ----------
        names
            Of the quantities; by default the six coordinates of the cube that are most different for the worst points.

        Raises
        ------
        ConfigError
            If there is no such quantity, there are too many, or one is the same for all points.
        """
        from nisampler.ui import losses

        coordinates = [item.name for item in self.separations if _COORDINATE.fullmatch(item.name)]
        wanted = list(dict.fromkeys(names)) or sorted(coordinates[: losses.MOST], key=lambda name: int(name[1:]))
        unknown = [name for name in wanted if name not in self.quantities]
        if unknown:
            raise ConfigError(f"no quantity {unknown[0]!r}; there are {', '.join(self.quantities)}")
        return losses.losses({name: self.quantities[name].numpy() for name in wanted}, self.weights.numpy())


def explain(
    u: Tensor, weights: Tensor, quantities: Mapping[str, Tensor], worst: int = 100, channels: Multichannel | None = None
) -> Explanation:
    """Compare the points with the largest weights with all others.

    Parameters
    ----------
    u
        Points of the cube (n, dim).
    weights
        f/q (n,); signs do not matter.
    quantities
        Of the points (n,), by name.
    worst
        How many points count as the worst.
    channels
        Whose channels the first coordinate chooses, if any.

    Raises
    ------
    ConfigError
        If there are not at least ten worst points, and ten times as many in all.
    UnweightingError
        If the weights are all zero or not finite.

    Examples
    --------
    >>> u = torch.rand(500, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    >>> explain(u, 2.0 * u[:, 0], {"u1": u[:, 0]}, worst=20).line()
    'the 20 largest of 500 weights, up to ... % of the integral; they differ most in u1'
    """
    if worst < _FEWEST or len(weights) < 10 * worst:
        raise ConfigError(
            f"{worst} worst of {len(weights)} points: choose at least {_FEWEST}, and ten times as many points"
        )
    size = weights.detach().double().cpu().abs()
    if not bool(torch.isfinite(size).all()) or float(size.sum()) == 0.0:
        raise UnweightingError("the weights are all zero or not finite: there is nothing to explain")
    size = size / size.mean()
    order = torch.topk(size, worst).indices
    is_worst = torch.zeros(len(size), dtype=torch.bool)
    is_worst[order] = True
    kept = {name: value.detach().double().cpu() for name, value in quantities.items()}
    found = [_separation(name, value, size, is_worst) for name, value in kept.items()]
    separations = sorted((item for item in found if item is not None), key=lambda item: -item.distance)
    shares = {} if channels is None else _channel_shares(u, size, is_worst, channels)
    return Explanation(size, order, kept, shares, tuple(separations))


def quantities_of(integrand: Integrand, u: Tensor) -> dict[str, Tensor]:
    """Coordinates of cube points u (n, dim) by name, and what the process tells of them by its method `quantities`.

    Examples
    --------
    >>> u = torch.tensor([[0.5, 0.25]])
    >>> {name: value.tolist() for name, value in quantities_of(Integrand(lambda x: x[:, 0], 2), u).items()}
    {'u1': [0.5], 'u2': [0.25]}
    """
    first = 0 if multichannel_of(integrand.function) is None else 1
    found = {f"u{k + 1 - first}": u[:, k] for k in range(first, u.shape[1])}
    own = getattr(integrand.function, "quantities", None)
    if callable(own):
        found |= {str(name): value for name, value in own(u).items()}
    return found


def _separation(name: str, value: Tensor, size: Tensor, worst: Tensor) -> Separation | None:
    """None for a quantity that too few points have, or that is the same for all."""
    there = torch.isfinite(value)
    bad, rest = value[there & worst], value[there & ~worst]
    weight = size[there & ~worst]
    if len(bad) < _FEWEST or float(weight.sum()) == 0.0 or float(rest.min()) == float(rest.max()) == float(bad.min()):
        return None
    rest, by_value = rest.sort()
    carried = weight[by_value].cumsum(0) / weight.sum()
    bad = bad.sort().values
    # The distance is reached at a step of either distribution, on one of its two sides.
    places = torch.cat([bad, rest])
    gaps = []
    for side in (False, True):
        of_bad = torch.searchsorted(bad, places, right=side).double() / len(bad)
        index = torch.searchsorted(rest, places, right=side)
        of_rest = torch.cat([carried.new_zeros(1), carried])[index]
        gaps.append((of_bad - of_rest).abs().max())
    levels = torch.tensor(_QUANTILES, dtype=torch.float64)
    among = rest[torch.searchsorted(carried, levels).clamp(max=len(rest) - 1)]
    low, middle, high = torch.quantile(bad, levels).tolist()
    below, half, above = among.tolist()
    effective = float(weight.sum().square() / weight.square().sum())
    by_chance = _BY_CHANCE * (1.0 / len(bad) + 1.0 / effective) ** 0.5
    return Separation(name, float(max(gaps)), by_chance, (low, middle, high), (below, half, above))


def _channel_shares(
    u: Tensor, size: Tensor, worst: Tensor, channels: Multichannel
) -> dict[str, tuple[float, float, float]]:
    """Of the worst points, of the weights and of all points."""
    count = len(channels.channels)
    channel = channel_of(u[:, 0].cpu(), count)
    parts = (worst.double(), size, torch.ones_like(size))
    shares = [torch.bincount(channel, weights=part, minlength=count) / part.sum() for part in parts]
    names = [f"{k + 1} {item.name}" for k, item in enumerate(channels.channels)]
    return {name: (float(a), float(b), float(c)) for name, a, b, c in zip(names, *shares, strict=True)}
