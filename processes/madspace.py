"""Phase space of MadSpace (2602.06895), the engine of MadGraph7, as channels. The package `madspace` is optional."""

from __future__ import annotations

import importlib
import math
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from nisampler.base.checks import Count, Positive, checked
from nisampler.errors import ChannelError, MissingExtraError, ShapeError

# Cube points keep this distance from the edges, where maps of MadSpace give momenta that are not finite.
_EDGE = 1e-9
# Log density of points that MadSpace cannot make: any value times exp(-_NOWHERE) is zero.
_NOWHERE = 1000.0
_BEAMS = 2


def madspace() -> Any:
    """The package of MadSpace.

    Raises
    ------
    MissingExtraError
        If it is not installed.

    Examples
    --------
    >>> from contextlib import suppress
    >>> with suppress(MissingExtraError):
    ...     assert callable(madspace().PhaseSpaceMapping)
    """
    try:
        return importlib.import_module("madspace")
    except ImportError as error:
        raise MissingExtraError(
            "channels of MadSpace need its package, which is not installed or does not load "
            f"({error}): `pip install 'madspace>=0.2'`"
        ) from error


class MadSpaceMap:
    r"""A map of MadSpace as a channel that tells its density, but not where a point came from.

    Points are momenta (n, m, 4) of the outgoing particles in the lab frame, (E, px, py, pz) in GeV. Densities are in
    the measure of the channels of `nisampler.processes.phase_space`, with which these mix: :math:`dx_1 dx_2 d\Phi_m`,
    or :math:`d\Phi_m` for leptons. The cuts that a mapping was given only say where to throw points: outside of them,
    too, the density is that of the map, and it is the function that must be zero there.

    For maps whose inverse misses in the last digits, such as Chili's: give `Multichannel` the densities by `prior`. The
    density of color-ordered maps is not known either, as two points of the cube may make one point.

    Parameters
    ----------
    mapping
        A `madspace.PhaseSpaceMapping` without discrete choices and with at most one permutation.
    sqrt_s
        The energy in GeV that the mapping was made with.
    leptonic
        Whether the mapping is that of leptons, without momentum fractions.
    name
        For messages and tables.
    threads
        Of MadSpace.

    Raises
    ------
    MissingExtraError
        Without the package.
    ChannelError
        If the mapping is none, or has discrete choices or several permutations.
    ConfigError
        If another argument is out of range.

    Examples
    --------
    >>> from contextlib import suppress
    >>> with suppress(MissingExtraError):
    ...     kind = madspace().PhaseSpaceMapping
    ...     channel = MadSpaceMap(kind([0.0] * 5, 500.0, True, 0.8, kind.rambo), 500.0, leptonic=True)
    ...     momenta, log_density = channel.forward(torch.full((1, 5), 0.5, dtype=torch.float64))
    ...     assert momenta.shape == (1, 3, 4) and abs(float(momenta[0, :, 0].sum()) - 500) < 1e-9
    """

    kind = "torch"

    def __init__(
        self, mapping: Any, sqrt_s: float, *, leptonic: bool = False, name: str = "MadSpace", threads: int = 1
    ) -> None:
        package = madspace()
        if not isinstance(mapping, package.PhaseSpaceMapping):
            raise ChannelError(f"channel {name!r} needs a madspace.PhaseSpaceMapping, got {type(mapping).__name__}")
        if mapping.discrete_dim() or mapping.channel_count() > 1:
            raise ChannelError(
                f"channel {name!r}: the mapping has {mapping.discrete_dim()} discrete choices and "
                f"{mapping.channel_count()} permutations; make a mapping, and a channel, of each"
            )
        self.name, self.dim, self.leptonic = name, int(mapping.random_dim()), leptonic
        self.sqrt_s = float(checked("sqrt_s", sqrt_s, Positive))
        self.particles = int(mapping.particle_count()) - _BEAMS
        context = package.Context(package.cpu_device(), checked("threads", threads, Count))
        self._forward, self._inverse = (
            package.FunctionRuntime(function, context)
            for function in (mapping.forward_function(), mapping.inverse_function())
        )
        self._beyond = self._far_away()

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Momenta (n, m, 4) and their log densities (n,) at cube points u (n, dim), both in double precision.

        Where the map leaves the reach of the beams, momenta are of some point far beyond it, where the value of any
        function is to be zero.
        """
        if u.ndim != 2 or u.shape[1] != self.dim:
            raise ShapeError(f"channel {self.name!r} takes cube points (n, {self.dim}), got {tuple(u.shape)}")
        x, log_g = self._map(u)
        lost = ~torch.isfinite(x).flatten(1).all(1)
        x = torch.where(lost[:, None, None], self._beyond, x)
        cut = ~torch.isfinite(log_g) & ~lost
        if bool(cut.any()):
            log_g[cut] = self._back(x[cut])[1]
        log_g = torch.where(torch.isfinite(log_g) & ~lost, log_g, _NOWHERE)
        return x.to(u.device), log_g.to(u.device)

    def log_density(self, x: Tensor) -> Tensor:
        """Log density (n,) at momenta (n, m, 4); -inf where the map does not reach."""
        return self._back(x)[1].to(x.device)

    def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        cube = u.detach().to("cpu", torch.float64).clamp(_EDGE, 1.0 - _EDGE).contiguous()
        momenta, *_, weight = _called(self._forward, cube)
        return momenta[:, _BEAMS:].clone(), -torch.log(weight)

    def _back(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cube points (n, dim) and log densities (n,) of momenta."""
        if x.ndim != 3 or x.shape[1:] != (self.particles, 4):
            raise ShapeError(
                f"channel {self.name!r} takes momenta (n, {self.particles}, 4) of what goes out, got {tuple(x.shape)}"
            )
        outgoing = x.detach().to("cpu", torch.float64)
        total = outgoing.sum(1)
        along = torch.stack([total[:, 0] + total[:, 3], total[:, 0] - total[:, 3]], 1)
        fractions = torch.ones_like(along) if self.leptonic else along / self.sqrt_s
        energies = 0.5 * self.sqrt_s * fractions
        beams = energies.new_zeros(len(x), _BEAMS, 4)
        beams[:, :, 0] = energies
        beams[:, 0, 3], beams[:, 1, 3] = energies[:, 0], -energies[:, 1]
        momenta = torch.cat([beams, outgoing], 1).contiguous()
        u, density = _called(self._inverse, momenta, *fractions.T.contiguous().unbind())
        reached = torch.isfinite(density) & (density > 0) & torch.isfinite(u).all(1)
        return u, torch.where(reached, density.clamp(min=1e-300).log(), -math.inf)

    def _far_away(self) -> Tensor:
        """Momenta (m, 4) of twice the energy of the beams."""
        centre = self._map(torch.full((1, self.dim), 0.5, dtype=torch.float64))[0][0]
        return centre * (2.0 * self.sqrt_s / centre[:, 0].sum())


class MadSpaceChannel(MadSpaceMap):
    """A map of MadSpace as a channel with its inverse: those of trees, with exchanges or without, and RAMBO.

    Parameters, points and densities are those of `MadSpaceMap`. The self-test of `nisampler.Multichannel` finds
    mappings whose inverse is not good enough.

    Examples
    --------
    >>> from contextlib import suppress
    >>> with suppress(MissingExtraError):
    ...     kind = madspace().PhaseSpaceMapping
    ...     channel = MadSpaceChannel(kind([0.0] * 5, 500.0, True, 0.8, kind.rambo), 500.0, leptonic=True)
    ...     u = torch.rand(10, 5, dtype=torch.float64)
    ...     torch.testing.assert_close(channel.inverse(channel.forward(u)[0])[0], u)
    """

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cube points (n, dim) and log densities (n,) of momenta (n, m, 4); -inf where the map does not reach."""
        u, log_g = self._back(x)
        return u.to(x.device), log_g.to(x.device)


def _called(runtime: Any, *arguments: Tensor) -> list[Tensor]:
    return [from_dlpack(part) for part in runtime.call(list(arguments))]
