"""Chili channels of processes from strings: two legs that recoil against jets, in transverse momenta and rapidities."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nisampler.processes.constants import Z_BOSON
from nisampler.processes.hadron.events import FinalState
from nisampler.processes.phase_space import (
    Boson,
    BreitWigner,
    ChiliChannel,
    IntervalMap,
    JetRegion,
    PowerLaw,
    chili_channels,
)
from nisampler.processes.standard_model.channels import Region

# Rapidities beyond this need more energy than any collider has, and lighter pairs carry nothing.
_WIDEST, _LIGHTEST = 12.0, 1e-3
_POWER = PowerLaw(2.0)


class PairChannel:
    """A Chili channel whose legs stand in the order of a process.

    Parameters
    ----------
    channel
        Its own legs are the pair, then the jets.
    legs
        Of the process: the place of each of the channel's legs.

    Examples
    --------
    >>> import torch
    >>> from nisampler.processes.phase_space import Jet
    >>> channel = PairChannel(ChiliChannel(Boson(PowerLaw(2.0), 50.0), [Jet()]), legs=(1, 2, 0))
    >>> u = torch.full((1, channel.dim), 0.4, dtype=torch.float64)
    >>> p, log_density = channel.forward(u)
    >>> bool(p[0, 0, 0] == p[0, 0, 1:].norm()), torch.allclose(channel.inverse(p)[0], u)
    (True, True)
    """

    def __init__(self, channel: ChiliChannel, legs: Sequence[int]) -> None:
        self.channel, self.legs = channel, list(legs)
        self.places = [self.legs.index(leg) for leg in range(len(self.legs))]
        self.name, self.dim = channel.name, channel.dim

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Momenta (n, m, 4) in GeV and the log-density (n,) of the cube points u (n, dim)."""
        p, log_density = self.channel.forward(u)
        return p[:, self.places], log_density

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cube points (n, dim) and log-density (n,) of momenta (n, m, 4)."""
        return self.channel.inverse(x[:, self.legs])


def pair_of(state: FinalState) -> tuple[int, int] | None:
    """The two legs beside jets, None where these are not two, or there is no jet.

    >>> pair_of(FinalState(masses=(0.0, 173.0, 173.0), jets=(0,)))
    (1, 2)
    """
    others = [leg for leg in range(len(state.masses)) if leg not in state.jets]
    return (others[0], others[1]) if len(others) == 2 and state.jets else None


def pair_channels(
    state: FinalState, region: Region, distance: float, widest: float, alike: bool
) -> tuple[list[PairChannel], list[int]]:
    """Chili channels for the two legs beside the jets, and the group of each.

    Parameters
    ----------
    state
        With two legs beside jets, see `pair_of`.
    region
        Cuts on momenta and masses.
    distance, widest
        Least Delta R of jets, greatest pseudorapidity.
    alike
        Whether the jets stand for the same particles, so that channels that differ by their order share a flow.

    Examples
    --------
    >>> state = FinalState(masses=(0.0, 173.0, 173.0), jets=(0,))
    >>> region = Region(13000.0, state.masses, (20.0, 0.0, 0.0), {})
    >>> pair_channels(state, region, 0.4, 5.0, alike=True)[0][0].name
    'V j1'
    """
    pair = pair_of(state) or (0, 1)
    legs = (*pair, *state.jets)
    jets = JetRegion(min(region.pt_min[leg] for leg in state.jets), min(widest, _WIDEST), distance)
    least = max(region.least_mass(pair), _LIGHTEST)
    channels: list[PairChannel] = []
    groups: list[int] = []
    for shape in _shapes(state, pair):
        boson = Boson(
            shape, least, min(region.most_mass(pair), region.sqrt_s), (region.masses[pair[0]], region.masses[pair[1]])
        )
        found, own = chili_channels(boson, len(state.jets), region=jets, sqrt_s=region.sqrt_s)
        first = len(channels) if not alike else max(groups, default=-1) + 1
        groups += [first + (group if alike else place) for place, group in enumerate(own)]
        channels += [PairChannel(channel, legs) for channel in found]
    return channels, groups


def _shapes(state: FinalState, pair: tuple[int, int]) -> list[IntervalMap]:
    """Maps of the mass of the pair: of its resonance, and a power law where it may be a photon, or no resonance."""
    poles = [pole for decay in state.decays if set(decay.legs) == set(pair) for pole in decay.poles]
    shapes: list[IntervalMap] = [BreitWigner(pole.mass, pole.width) for pole in poles if pole.width]
    if not shapes or any(pole.code == Z_BOSON for pole in poles):
        shapes.append(_POWER)
    return shapes
