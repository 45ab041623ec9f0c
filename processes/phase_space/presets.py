"""Ready-made sets of topology channels: Drell-Yan, a boson with jets, a heavy pair with and without a jet."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import Literal

from nisampler.base.checks import Natural, NonNegative, Positive, checked, settings
from nisampler.errors import ConfigError
from nisampler.processes.phase_space.blocks import MomentumFractions
from nisampler.processes.phase_space.chili import Boson
from nisampler.processes.phase_space.mappings import IntervalMap, PowerLaw
from nisampler.processes.phase_space.topology import Branch, Cluster, TopologyChannel


@settings
class Hadronic:
    """What the channels of a set share.

    Parameters
    ----------
    sqrt_s
        Hadronic centre-of-mass energy in GeV.
    pt_min
        Least pT of a jet in GeV; sets the least sqrt(s_hat) and the scales below; positive where there are jets.
    energy
        Map of s_hat where no resonance gives it.

    Examples
    --------
    >>> Hadronic(sqrt_s=14000.0).pt_min
    20.0
    """

    sqrt_s: Positive = 13000.0
    pt_min: NonNegative = 20.0
    energy: IntervalMap = field(default=PowerLaw(1.5))


def drell_yan_channels(
    invariants: Sequence[IntervalMap], min_mass: float, *, max_mass: float = math.inf, sqrt_s: float = 13000.0
) -> list[TopologyChannel]:
    """One channel for each map of the squared mass of two massless legs, such as two Breit-Wigners and a power law.

    Parameters
    ----------
    invariants
        Maps of s_hat.
    min_mass, max_mass
        Limits on the mass of the pair in GeV; no upper limit by default.
    sqrt_s
        Hadronic centre-of-mass energy in GeV.

    Raises
    ------
    ConfigError
        If there is no map or the limits contradict each other.

    Examples
    --------
    >>> [channel.dim for channel in drell_yan_channels([PowerLaw(2.0), PowerLaw(1.0)], min_mass=50.0)]
    [4, 4]
    """
    if not invariants:
        raise ConfigError("Drell-Yan channels need at least one map of the squared mass")
    pair = Cluster(0, 1)
    return [
        TopologyChannel(pair, (0.0, 0.0), MomentumFractions(sqrt_s, min_mass, law, max_mass), name=str(law))
        for law in invariants
    ]


def topology_channels(
    boson: Boson, jets: int, hadronic: Hadronic | None = None
) -> tuple[list[TopologyChannel], list[int]]:
    """Channels for legs (l_1, l_2, jets): all orderings of t-channel chains, with and without a pair of jets.

    No jets: one channel with the boson's map. From one jet: every ordering of boson and jets along a chain of
    exchanges (2, 6 and 24 for one to three jets), and for one jet also the s-channel. From two jets: every
    ordering in which two of the jets come from one time-like invariant.

    Returns
    -------
    The channels and the group of each: a group differs by a permutation of jets only.

    Raises
    ------
    ConfigError
        If the number of jets is negative, or pt_min is not positive where there are jets.

    Examples
    --------
    >>> from nisampler.processes.phase_space.mappings import BreitWigner
    >>> channels, groups = topology_channels(Boson(BreitWigner(80.4, 2.1), 10.0), jets=2)
    >>> len(channels), len(set(groups))
    (8, 5)
    """
    setup = Hadronic() if hadronic is None else hadronic
    checked("jets", jets, Natural)
    _require_jet_cut(jets, setup)
    pair = Cluster(0, 1, boson.invariant, boson.min_mass, boson.max_mass)
    masses = (*boson.masses, *[0.0] * jets)
    if not jets:
        fractions = MomentumFractions(setup.sqrt_s, boson.min_mass, boson.invariant, boson.max_mass)
        return [TopologyChannel(pair, masses, fractions)], [0]
    # sqrt(s_hat) is at least the sum of the transverse masses of boson and jets
    fractions = MomentumFractions(setup.sqrt_s, boson.min_mass + jets * setup.pt_min, setup.energy)
    legs = list(range(2, 2 + jets))
    trees: dict[tuple[int, ...], list[Cluster]] = {}
    for chain in _chains(pair, legs, setup.pt_min):
        shape = tuple(-1 if branch is pair else isinstance(branch, Cluster) for branch in chain)
        trees.setdefault(shape, []).append(_exchange_chain(chain, setup.pt_min**2, setup.pt_min))
    if jets == 1:
        trees[()] = [Cluster(pair, 2)]
    channels = [TopologyChannel(tree, masses, fractions) for group in trees.values() for tree in group]
    return channels, [index for index, group in enumerate(trees.values()) for _ in group]


def heavy_pair_channels(
    mass: float, jets: int, hadronic: Hadronic | None = None
) -> tuple[list[TopologyChannel], list[int]]:
    """Channels for legs (Q, Qbar) or (Q, Qbar, jet), two heavy quarks of one mass.

    No jet: s-channel, and |t| and |u| with the quark's propagator. One jet: every ordering along a chain of
    exchanges, and both orderings of the jet and the pair.

    Returns
    -------
    The channels and the group of each; every channel is a group of its own.

    Raises
    ------
    ConfigError
        If there are not 0 or 1 jets, the mass is not positive, or pt_min is not positive where there is a jet.

    Examples
    --------
    >>> channels, groups = heavy_pair_channels(173.0, jets=0)
    >>> [channel.name for channel in channels], groups
    (['(0 1)', '(0|1)', '(1|0)'], [0, 1, 2])
    """
    setup = Hadronic() if hadronic is None else hadronic
    checked("mass", mass, Positive)
    checked("jets", jets, Literal[0, 1])
    _require_jet_cut(jets, setup)
    fractions = MomentumFractions(setup.sqrt_s, 2 * mass + jets * setup.pt_min, setup.energy)
    if jets == 0:
        trees = [Cluster(0, 1), *(_exchange_chain(chain, mass**2, mass) for chain in ((0, 1), (1, 0)))]
    else:
        pair = Cluster(0, 1, PowerLaw(1.5))
        chains: list[tuple[Branch, ...]] = [(pair, 2), (2, pair), *itertools.permutations((0, 1, 2))]
        trees = [_exchange_chain(chain, setup.pt_min**2, setup.pt_min) for chain in chains]
    channels = [TopologyChannel(tree, (mass, mass, 0.0)[: 2 + jets], fractions) for tree in trees]
    return channels, list(range(len(channels)))


def _require_jet_cut(jets: int, setup: Hadronic) -> None:
    if jets and setup.pt_min == 0:
        raise ConfigError("channels with jets take the scale of their invariants from pt_min, which must not be 0")


def _chains(pair: Cluster, jets: Sequence[int], pt_min: float) -> Iterator[tuple[Branch, ...]]:
    """All orderings of the boson and the jets, then all with two of the jets in a cluster."""
    yield from itertools.permutations((pair, *jets))
    for first, second in itertools.combinations(jets, 2):
        splitting = Cluster(first, second, PowerLaw(1.0, offset=0.1 * pt_min**2))
        others = [jet for jet in jets if jet not in (first, second)]
        yield from itertools.permutations((pair, splitting, *others))


def _exchange_chain(chain: Sequence[Branch], transfer: float, scale: float) -> Cluster:
    """Branches along a chain of exchanges from beam 1; `transfer` is added to |t| (GeV^2), `scale` in GeV."""
    first, *rest = chain
    right = rest[0] if len(rest) == 1 else _exchange_chain(rest, transfer, scale)
    return Cluster(first, right, PowerLaw(1.0, offset=0.1 * scale**2), exchange=PowerLaw(1.0, offset=transfer))
