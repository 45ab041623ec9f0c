"""Chili channels of processes from strings: in transverse momenta and rapidities of jets and of what is beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from nisampler.processes.constants import MASS_W, Z_BOSON
from nisampler.processes.hadron.events import FinalState, Pole
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
from nisampler.processes.standard_model.transverse import Emitted, TransverseChannel

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
    state: FinalState, region: Region, poles: Sequence[Pole], distance: float, widest: float, alike: bool
) -> tuple[list[PairChannel], list[int]]:
    """Chili channels for the two legs beside the jets, and the group of each.

    Parameters
    ----------
    state
        With two legs beside jets, see `pair_of`.
    region
        Cuts on momenta and masses.
    poles
        What the pair may come from.
    distance, widest
        Least Delta R of jets, greatest pseudorapidity.
    alike
        Whether the jets stand for the same particles, so that channels that differ by their order share a flow.

    Examples
    --------
    >>> state = FinalState(masses=(0.0, 173.0, 173.0), jets=(0,))
    >>> region = Region(13000.0, state.masses, (20.0, 0.0, 0.0), {})
    >>> pair_channels(state, region, [], 0.4, 5.0, alike=True)[0][0].name
    'V j1'
    """
    pair = pair_of(state) or (0, 1)
    legs = (*pair, *state.jets)
    jets = JetRegion(min(region.pt_min[leg] for leg in state.jets), min(widest, _WIDEST), distance)
    least = max(region.least_mass(pair), _LIGHTEST)
    channels: list[PairChannel] = []
    groups: list[int] = []
    for shape in _shapes(poles, least):
        boson = Boson(
            shape, least, min(region.most_mass(pair), region.sqrt_s), (region.masses[pair[0]], region.masses[pair[1]])
        )
        found, own = chili_channels(boson, len(state.jets), region=jets, sqrt_s=region.sqrt_s)
        first = len(channels) if not alike else max(groups, default=-1) + 1
        groups += [first + (group if alike else place) for place, group in enumerate(own)]
        channels += [PairChannel(channel, legs) for channel in found]
    return channels, groups


def _shapes(poles: Sequence[Pole], least: float) -> list[IntervalMap]:
    """Maps of the mass of the pair: of each resonance, and a power law where it may be a photon, or has none."""
    shapes: dict[IntervalMap, None] = {
        BreitWigner(pole.mass, pole.width): None for pole in poles if pole.width and least < pole.mass
    }
    if not shapes or not all(pole.width for pole in poles):
        shapes[_POWER] = None
    return list(shapes)


def branches_of(state: FinalState, region: Region) -> list[Emitted] | None:
    """Bosons and other heavy legs beside two and more jets, then the jets; None where a leg is neither.

    Leptons are taken in pairs, from a W, or from a Z where a cut keeps photons away.

    >>> state = FinalState(masses=(80.4, 80.4, 0.0, 0.0), jets=(2, 3))
    >>> len(branches_of(state, Region(13000.0, state.masses, (0.0, 0.0, 20.0, 20.0), {})))
    4
    """
    if len(state.jets) < 2:
        return None
    spread = PowerLaw(2.0, offset=MASS_W**2)
    found: list[Emitted] = []
    for decay in state.decays:
        pole, least = decay.poles[0], region.least_mass(decay.legs)
        if len(decay.legs) != 2 or not pole.width or (pole.code == Z_BOSON and least < 0.5 * pole.mass):
            return None
        shape = BreitWigner(pole.mass, pole.width)
        found.append(Emitted(decay.legs, spread, 0.0, math.inf, shape, least, region.most_mass(decay.legs)))
    paired = {leg for item in found for leg in item.legs}
    for leg, mass in enumerate(state.masses):
        if leg in paired or leg in state.jets:
            continue
        if not mass:
            return None
        found.append(Emitted((leg,), spread, region.pt_min[leg]))
    return [*found, *(Emitted((leg,), spread, region.pt_min[leg]) for leg in state.jets)]


def transverse_channels(
    branches: Sequence[Emitted], state: FinalState, region: Region, widest: float, alike: bool
) -> tuple[list[TransverseChannel], list[int]]:
    """For each jet the channel in which it balances all other branches, and the group of each; see `pair_channels`.

    >>> state = FinalState(masses=(80.4, 80.4, 0.0, 0.0), jets=(2, 3))
    >>> region = Region(13000.0, state.masses, (0.0, 0.0, 20.0, 20.0), {})
    >>> channels, groups = transverse_channels(branches_of(state, region), state, region, 5.0, alike=True)
    >>> [channel.name for channel in channels], groups
    (['0, 1, 3, -2', '0, 1, 2, -3'], [0, 0])
    """
    channels: list[TransverseChannel] = []
    for last in state.jets:
        others = [
            replace(item, y_max=widest) if item.legs[0] in state.jets else item
            for item in branches
            if item.legs != (last,)
        ]
        channels.append(TransverseChannel([*others, Emitted((last,))], state.masses, region.sqrt_s))
    return channels, [0] * len(channels) if alike else list(range(len(channels)))
