"""Integrands of madnis: functions of cube points and channels that return f, y and alpha."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nisampler.base.checks import Count, Dimension, checked
from nisampler.density.integrand import Integrand as CubeIntegrand
from nisampler.density.joint import joint_channels
from nisampler.errors import ChannelError, ConfigError, UnsupportedError

# How far prior weights may be from one in sum.
_SUM = 1e-3


class ChannelGrouping:
    """Channels that are images of each other, as madnis groups them: those of one group share a flow.

    Parameters
    ----------
    channel_assignment
        For each channel None, or the number of the channel that it is an image of.

    Raises
    ------
    ConfigError
        If a channel is the image of one that is an image itself, or of none.

    Examples
    --------
    >>> ChannelGrouping([None, 0, None]).numbers
    [0, 0, 1]
    """

    def __init__(self, channel_assignment: Sequence[int | None]) -> None:
        own = [index for index, target in enumerate(channel_assignment) if target is None]
        targets = [index if target is None else target for index, target in enumerate(channel_assignment)]
        for index, target in enumerate(targets):
            if target not in own:
                raise ConfigError(f"channel {index} is assigned to {target}, which must be a channel that has None")
        self.numbers = [own.index(target) for target in targets]


class Integrand:
    """A function with what madnis knows of it; the same arguments, for scripts without madnis.

    Parameters
    ----------
    function
        Torch function of points x (n, input_dim), and with channels of their numbers c (n,) too. It returns f (n,);
        with `remapped_dim` the points y (n, remapped_dim) that the channel made of x; with `has_channel_weight_prior`
        the prior weights alpha (n, channel_count): f, (f, y), (f, alpha) or (f, y, alpha). With y the values f hold the
        Jacobian dy/dx.
    input_dim
        Coordinates of x.
    bounds
        A (low, high) pair for each coordinate; the unit cube by default.
    channel_count
        Number of channels; None for a function of x alone.
    remapped_dim, has_channel_weight_prior
        Which of y and alpha there are.
    channel_grouping
        A `ChannelGrouping`.

    Raises
    ------
    ConfigError
        If bounds do not fit.

    Examples
    --------
    >>> half = Integrand(lambda x, c: (x[:, 0], torch.full((len(x), 2), 0.5)), 1, channel_count=2,
    ...     has_channel_weight_prior=True)
    >>> f, y, alpha = half(torch.tensor([[0.25]]), torch.tensor([1]))
    >>> f.tolist(), y, alpha.tolist()
    ([0.25], None, [[0.5, 0.5]])
    """

    def __init__(
        self,
        function: Callable[..., Any],
        input_dim: int,
        bounds: Sequence[Sequence[float]] | None = None,
        channel_count: int | None = None,
        remapped_dim: int | None = None,
        has_channel_weight_prior: bool = False,
        channel_grouping: Any = None,
    ) -> None:
        self.function, self.input_dim = function, checked("input_dim", input_dim, Dimension)
        self.channel_count = checked("channel_count", channel_count, Count | None)
        self.remapped_dim = self.input_dim if remapped_dim is None else remapped_dim
        self.has_channel_weight_prior, self.channel_grouping = has_channel_weight_prior, channel_grouping
        self._remaps = remapped_dim is not None
        self._bounds = torch.tensor([[0.0, 1.0]] * self.input_dim if bounds is None else bounds, dtype=torch.float64)
        if self._bounds.shape != (self.input_dim, 2) or not bool((self._bounds[:, 0] < self._bounds[:, 1]).all()):
            raise ConfigError(f"bounds must be {self.input_dim} pairs low < high, got {bounds}")

    def __call__(self, x: Tensor, channels: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """f, y and alpha at points x of the unit cube, None for what there is not."""
        low, width = self._bounds[:, 0].to(x), self._bounds.diff(dim=1)[:, 0].to(x)
        points = low + width * x
        if self.channel_count is None:
            return width.prod() * self.function(points), None, None
        found = self.function(points, channels)
        parts = list(found) if isinstance(found, tuple) else [found]
        value = width.prod() * parts.pop(0)
        y = parts.pop(0) if self._remaps else None
        return value, y, parts.pop(0) if self.has_channel_weight_prior else None


class _Joint:
    """An integrand of madnis with channels in the form of `joint_channels`."""

    def __init__(self, found: Any, count: int, dtype: torch.dtype) -> None:
        self.found, self.count, self.dtype = found, count, dtype
        self.name = str(getattr(found.function, "__name__", type(found).__name__))

    def __call__(self, u: Tensor, channel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            value, y, alpha = self.found(u.to(self.dtype), channel)
        if y is None:  # without a map x is a point that all channels share, unless a prior tells them apart there
            y = u if alpha is None else torch.zeros_like(u[:, :1])
        if alpha is None:
            alpha = u.new_full((len(u), self.count), 1.0 / self.count)
        used = value != 0.0
        wrong = (alpha[used].sum(1) - 1.0).abs() > _SUM
        if bool(wrong.any()):
            total = float(alpha[used][wrong][0].sum())
            raise ChannelError(f"{self.name}: the prior weights of a point add up to {total:g}; they must make one")
        return value, torch.where(used.view(-1, *[1] * (y.dim() - 1)), y, torch.zeros_like(y)), alpha


class _Single:
    """An integrand of madnis without channels."""

    def __init__(self, found: Any, dtype: torch.dtype) -> None:
        self.found, self.dtype = found, dtype
        self.name = str(getattr(found.function, "__name__", type(found).__name__))

    def __call__(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            value: Tensor = self.found(x.to(self.dtype), None)[0]
        return value


def as_integrand(
    found: Any, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64, nonfinite: float = 0.0
) -> CubeIntegrand:
    """An integrand of madnis as one of this package, with its channels, their prior weights and their groups.

    Parameters
    ----------
    found
        A `madnis.integrator.Integrand`, the `Integrand` here, or anything with its attributes that maps x
        (n, input_dim) and channels (n,) to f, y and alpha.
    device, dtype
        Where and how precisely it wants its points.
    nonfinite
        See `nisampler.Integrand`.

    Raises
    ------
    UnsupportedError
        If it has discrete coordinates or draws its own points.
    ConfigError
        If it is no such integrand.
    ChannelError
        When it is called, if shapes do not fit or prior weights do not add up to one.

    Examples
    --------
    The integral of 1 over [0, 1] through x = u² and x = 1 - u², with prior weights 1 - x and x:

    >>> import nisampler
    >>> def both(u, channel):
    ...     x = torch.where(channel[:, None] == 0, u**2, 1 - u**2)
    ...     return 2 * u[:, 0], x, torch.cat([1 - x, x], 1)
    >>> two = Integrand(both, 1, channel_count=2, remapped_dim=1, has_channel_weight_prior=True)
    >>> result = nisampler.integrate(as_integrand(two), calls=4000)
    >>> abs(result.estimate.value - 1) < 5 * result.estimate.error
    True
    """
    lacks = [name for name in ("input_dim", "channel_count", "function") if not hasattr(found, name)]
    if lacks or not callable(found):
        raise ConfigError(f"{type(found).__name__} is no integrand of madnis: it lacks {', '.join(lacks) or 'a call'}")
    if getattr(found, "discrete_dims", None):
        raise UnsupportedError("discrete_dims: make a discrete coordinate of n values from floor(n * x)")
    if getattr(found, "function_includes_sampling", False):
        raise UnsupportedError("function_includes_sampling: points are drawn here; give the function of points")
    if found.channel_count is None:
        return CubeIntegrand(_Single(found, dtype), found.input_dim, kind="torch", nonfinite=nonfinite, device=device)
    count, grouping = found.channel_count, found.channel_grouping
    groups = None if grouping is None else _groups(grouping)
    function = joint_channels(_Joint(found, count, dtype), found.input_dim, count, groups)
    return CubeIntegrand(function, kind="torch", nonfinite=nonfinite, device=device)


def _groups(grouping: Any) -> list[int]:
    """For each channel the number of its group."""
    if isinstance(grouping, ChannelGrouping):
        return grouping.numbers
    return [channel.group.group_index for channel in grouping.channels]
