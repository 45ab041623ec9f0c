"""The densities of all topology channels from invariants: those of the inverse maps, for trees of every kind."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nisampler.density.channels import Multichannel
from nisampler.errors import ChannelError, ShapeError
from nisampler.processes.phase_space import (
    Boson,
    BreitWigner,
    Cluster,
    FixedEnergy,
    MomentumFractions,
    PowerLaw,
    TopologyChannel,
    Uniform,
    chili_channels,
    drell_yan_channels,
    heavy_pair_channels,
    topology_channels,
)
from nisampler.processes.phase_space.densities import TopologyDensities, TopologyPropagators, joint_densities

W = Boson(BreitWigner(80.419, 2.08712367), 10.0)
MASSES = (0.0, 5.0, 0.0, 20.0)
SETS = {
    "Drell-Yan": drell_yan_channels([BreitWigner(91.1876, 2.495514921), PowerLaw(2.0)], 50.0, max_mass=1000.0),
    "W + 1 jet": topology_channels(W, 1)[0],
    "W + 2 jets": topology_channels(W, 2)[0],
    "W + 3 jets": topology_channels(W, 3)[0],
    "tops": heavy_pair_channels(173.0, 0)[0],
    "tops and a jet": heavy_pair_channels(173.0, 1)[0],
}


def made_by(channels: Sequence[TopologyChannel], points: int, seed: int = 1) -> Tensor:
    """Momenta of points of all channels."""
    generator = torch.Generator().manual_seed(seed)
    cubes = [torch.rand(points, channel.dim, dtype=torch.float64, generator=generator) for channel in channels]
    return torch.cat([channel.forward(u)[0] for channel, u in zip(channels, cubes, strict=True)])


def by_inverses(channels: Sequence[TopologyChannel], x: Tensor) -> Tensor:
    return torch.stack([channel.inverse(x)[1] for channel in channels], 1)


def require_equal(found: Tensor, expected: Tensor) -> None:
    assert torch.equal(found > -math.inf, expected > -math.inf)
    torch.testing.assert_close(found.clamp(min=-1e3), expected.clamp(min=-1e3), rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("name", SETS)
def test_they_are_those_of_the_inverses(name: str) -> None:
    channels = SETS[name]
    x = made_by(channels, 50)
    require_equal(TopologyDensities(channels)(x), by_inverses(channels, x))


@st.composite
def trees(draw: st.DrawFn, legs: tuple[int, ...] = (0, 1, 2, 3), has_beam: bool = True) -> Cluster:
    """A tree of these legs with any maps and limits."""
    cut = draw(st.integers(1, len(legs) - 1))
    exchange = draw(st.none() | st.sampled_from([PowerLaw(1.0, offset=100.0), PowerLaw(0.7, offset=3.0)]))
    exchange = exchange if has_beam else None
    parts = []
    for part, beam in ((legs[:cut], False), (legs[cut:], exchange is not None)):
        parts.append(part[0] if len(part) == 1 else draw(trees(part, beam)))
    shapes = [PowerLaw(1.0, offset=10.0), PowerLaw(2.0, offset=5.0), BreitWigner(80.0, 2.0), Uniform()]
    limits = draw(st.sampled_from([(0.0, math.inf), (60.0, math.inf), (30.0, 150.0)]))
    return Cluster(parts[0], parts[1], draw(st.sampled_from(shapes)), *limits, exchange)


@st.composite
def shuffled(draw: st.DrawFn) -> Cluster:
    return draw(trees(tuple(draw(st.permutations((0, 1, 2, 3))))))


@settings(max_examples=60)
@given(
    st.lists(shuffled(), min_size=1, max_size=5),
    st.sampled_from([MomentumFractions(13000.0, 300.0), FixedEnergy(500.0)]),
)
def test_any_trees(found: list[Cluster], fractions: MomentumFractions | FixedEnergy) -> None:
    """Also where a channel does not reach points of another one, and with massive legs."""
    channels = [TopologyChannel(tree, MASSES, fractions) for tree in found]
    x = made_by(channels, 20)
    require_equal(TopologyDensities(channels)(x), by_inverses(channels, x))


def test_a_wrong_density_is_seen() -> None:
    """The test above can fail: a map that is a little off gives other densities."""
    off = topology_channels(Boson(BreitWigner(80.5, 2.08712367), 10.0), 1)[0]
    x = made_by(SETS["W + 1 jet"], 20)
    with pytest.raises(AssertionError):
        require_equal(TopologyDensities(off)(x), by_inverses(SETS["W + 1 jet"], x))


def test_the_weights_of_channels_are_those_without_it() -> None:
    channels = SETS["W + 2 jets"]
    plain, joint = (
        Multichannel(lambda x: x[:, 0, 0], channels, densities=densities)
        for densities in (None, joint_densities(channels))
    )
    u = torch.rand(300, plain.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(joint(u), plain(u), rtol=1e-6, atol=0.0)
    joint.self_test()


def test_a_joint_density_that_reaches_too_far_fails_the_self_test() -> None:
    narrow = [
        channel for mass in (200.0, 900.0) for channel in drell_yan_channels([PowerLaw(2.0)], 50.0, max_mass=mass)
    ]
    honest = TopologyDensities(narrow)
    Multichannel(lambda x: x[:, 0, 0], narrow, densities=honest).self_test()
    with pytest.raises(ChannelError, match="does not reach"):
        Multichannel(lambda x: x[:, 0, 0], narrow, densities=lambda x: honest(x).clamp(min=-100.0)).self_test()


def test_propagators_weigh_channels_by_their_peaks_and_only_where_these_reach() -> None:
    narrow = [
        channel for mass in (200.0, 900.0) for channel in drell_yan_channels([PowerLaw(2.0)], 50.0, max_mass=mass)
    ]
    x = made_by(narrow, 50)
    found = TopologyPropagators(narrow)(x)
    assert torch.equal(found > -math.inf, by_inverses(narrow, x) > -math.inf)
    assert bool((found == -math.inf).any())
    Multichannel(lambda x: x[:, 0, 0], narrow, prior=TopologyPropagators(narrow)).self_test()
    photon, boson = drell_yan_channels([PowerLaw(2.0), BreitWigner(91.0, 2.5)], 50.0)
    at_the_peak, above = torch.tensor(
        [[[45.5, 0, 0, 45.5], [45.5, 0, 0, -45.5]], [[90, 0, 0, 90], [90, 0, 0, -90]]]
    ).double()
    weights = TopologyPropagators([photon, boson])(torch.stack([at_the_peak, above]))
    ratio = (weights[:, 1] - weights[:, 0]).exp()
    expected = [91.0**4 / (91.0 * 2.5) ** 2, 180.0**4 / ((180.0**2 - 91.0**2) ** 2 + (91.0 * 2.5) ** 2)]
    assert ratio.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", [TopologyDensities, TopologyPropagators])
def test_it_stays_on_its_device(kind: type[TopologyDensities | TopologyPropagators]) -> None:
    x = torch.empty(4, 5, 4, device="meta", dtype=torch.float64)
    assert kind(SETS["W + 3 jets"])(x).shape == (4, 42)


def test_wrong_use() -> None:
    with pytest.raises(ChannelError, match="the same legs and masses"):
        TopologyDensities([])
    with pytest.raises(ChannelError, match="the same legs and masses"):
        TopologyDensities([*SETS["tops"], *SETS["Drell-Yan"]])
    with pytest.raises(ShapeError, match=r"momenta \(n, 3, 4\), got \(5, 2, 4\)"):
        TopologyDensities(SETS["W + 1 jet"])(torch.zeros(5, 2, 4))
    assert joint_densities(chili_channels(W, 1)[0]) is None
