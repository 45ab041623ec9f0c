"""Phase-space channels: inverse, Jacobian against automatic differentiation, edges of the cube, errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nisampler.base.rng import Streams
from nisampler.errors import ChannelError, ConfigError, ShapeError
from nisampler.processes.phase_space import (
    Boson,
    BreitWigner,
    ChiliChannel,
    Cluster,
    FixedEnergy,
    Hadronic,
    Jet,
    JetRegion,
    MomentumFractions,
    PowerLaw,
    TopologyChannel,
    chili_channels,
    drell_yan_channels,
    heavy_pair_channels,
    topology_channels,
)
from nisampler.processes.phase_space.kinematics import delta_r, mass2

SQRT_S = 13000.0
W = Boson(BreitWigner(80.419, 2.08712367), 10.0)
Z_HIGH = Boson(BreitWigner(91.1876, 2.495514921), 50.0, 500.0)
TOPS = Boson(PowerLaw(2.0), 346.0, masses=(173.0, 173.0))
SOFT = JetRegion(pt_min=0.0, y_max=4.0)
CHAIN = (Jet(), Jet(0), Jet(1, PowerLaw(3.0)))
RECOIL = Jet(transverse=PowerLaw(2.0, offset=50.0), recoils=True)
CHANNELS: list[ChiliChannel | TopologyChannel] = [
    *(channel for jets in range(4) for channel in chili_channels(W, jets)[0]),
    ChiliChannel(Z_HIGH, CHAIN, name="chain"),
    ChiliChannel(Z_HIGH, CHAIN, order=(2, 0, 1), name="chain in another order"),
    ChiliChannel(TOPS, [Jet()], name="tops with a jet"),
    ChiliChannel(TOPS, [RECOIL], name="a jet that recoils"),
    ChiliChannel(Boson(PowerLaw(1.0), 100.0, masses=(5.0, 20.0)), [Jet()], name="unequal masses"),
    ChiliChannel(W, [Jet(transverse=PowerLaw(2.0, offset=10.0))] * 2, region=SOFT, name="soft"),
    *(channel for jets in range(3) for channel in topology_channels(W, jets)[0]),
    *topology_channels(W, 3)[0][::7],
    *drell_yan_channels([BreitWigner(91.1876, 2.495514921), PowerLaw(2.0)], 50.0, max_mass=1000.0),
    *heavy_pair_channels(173.0, 0)[0],
    *heavy_pair_channels(173.0, 1)[0],
]
IDS = [channel.name for channel in CHANNELS]


def cube(n: int, dim: int, seed: int = 1) -> Tensor:
    return torch.rand(n, dim, dtype=torch.float64, generator=Streams(seed).generator("cube", dim))


def fractions(x: Tensor) -> tuple[Tensor, Tensor]:
    total = x.sum(1)
    return (total[:, 0] + total[:, 3]) / SQRT_S, (total[:, 0] - total[:, 3]) / SQRT_S


def physical(x: Tensor) -> Tensor:
    x1, x2 = fractions(x)
    return (x1 <= 1) & (x2 <= 1)


def masses_of(channel: ChiliChannel | TopologyChannel) -> tuple[float, ...]:
    if isinstance(channel, TopologyChannel):
        return channel.masses
    return (*channel.boson.masses, *[0.0] * (channel.legs - 2))


def jacobian_log_g(channel: Any, u: Tensor, masses: tuple[float, ...]) -> Tensor:
    """log g by automatic differentiation of independent momentum components.

    With delta^4 integrated over x_1, x_2 and the last leg's pT, d mu = (2 pi)^(4-3m) (2/s) prod 1/(2 E_i) d q, q
    all three-momenta but the last leg's pT.
    """
    m = len(masses)

    def components(point: Tensor) -> Tensor:
        x = channel.forward(point.unsqueeze(0))[0][0]
        return torch.cat([x[:-1, 1:].reshape(-1), x[-1:, 3]])

    x, _ = channel.forward(u)
    determinants = torch.stack(
        [torch.linalg.slogdet(torch.autograd.functional.jacobian(components, point))[1] for point in u]
    )
    constant = (4 - 3 * m) * math.log(2 * math.pi) + math.log(2 / SQRT_S**2)
    return -(determinants + constant - torch.log(2 * x[:, :, 0]).sum(-1))


@settings(max_examples=200)
@given(st.sampled_from(CHANNELS), st.integers(0, 10_000))
def test_the_inverse_undoes_the_map(channel: ChiliChannel | TopologyChannel, seed: int) -> None:
    u = cube(40, channel.dim, seed)
    x, log_g = channel.forward(u)
    u, x, log_g = u[physical(x)], x[physical(x)], log_g[physical(x)]
    again, log_again = channel.inverse(x)
    difference = (again - u).abs()
    assert float(torch.minimum(difference, 1 - difference).max()) < 1e-5
    assert torch.allclose(log_again, log_g, atol=1e-4)


@pytest.mark.parametrize("channel", CHANNELS, ids=IDS)
def test_momenta_are_on_shell_and_balanced(channel: ChiliChannel | TopologyChannel) -> None:
    x, log_g = channel.forward(cube(500, channel.dim))
    assert x.shape == (500, channel.legs, 4)
    assert log_g.shape == (500,)
    square = torch.tensor(masses_of(channel), dtype=torch.float64).square()
    assert bool(((mass2(x) - square).abs() < 1e-9 * x.sum(1)[:, :1].square()).all())
    assert torch.allclose(x.sum(1)[:, 1:3], torch.zeros(500, 2, dtype=torch.float64), atol=1e-8)


@pytest.mark.parametrize("channel", CHANNELS, ids=IDS)
def test_density_times_jacobian_is_one(channel: ChiliChannel | TopologyChannel) -> None:
    u = 0.02 + 0.96 * cube(4, channel.dim, 5)
    _, log_g = channel.forward(u)
    assert torch.allclose(jacobian_log_g(channel, u, masses_of(channel)), log_g, atol=1e-6)


def test_a_wrong_jacobian_is_caught() -> None:
    class Wrong(ChiliChannel):
        def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
            x, log_g = super().forward(u)
            return x, log_g + 1e-3 * torch.log(x[:, 2, 0])

    channel = Wrong(W, [Jet()])
    u = cube(4, channel.dim, 5)
    difference = jacobian_log_g(channel, u, masses_of(channel)) - channel.forward(u)[1]
    assert float(difference.abs().min()) > 1e-4


@pytest.mark.parametrize("channel", CHANNELS, ids=IDS)
def test_everything_is_finite_on_the_edges_of_the_cube(channel: ChiliChannel | TopologyChannel) -> None:
    inner = cube(400, channel.dim, 3)
    side = torch.floor(3 * cube(400, channel.dim, 4)) / 2
    corners = torch.floor(2 * cube(400, channel.dim, 6))
    for u in (corners, torch.where(side == 0.5, inner, side)):
        x, log_g = channel.forward(u)
        assert bool(torch.isfinite(x).all() & torch.isfinite(log_g).all())
        again, log_again = channel.inverse(x)
        assert bool(((again >= 0) & (again <= 1)).all())
        assert not bool((torch.isnan(log_again) | (log_again == math.inf)).any())


@pytest.mark.parametrize("jets", [1, 2, 3])
def test_chili_only_overshoots_where_the_jets_do(jets: int) -> None:
    """A point comes out with x > 1 exactly where no rapidity of the boson would keep both fractions below 1."""
    for channel in chili_channels(W, jets)[0]:
        x, _ = channel.forward(cube(5000, channel.dim))
        pair, rest = x[:, :2].sum(1), x[:, 2:].sum(1)
        mt2 = mass2(pair) + pair[:, 1].square() + pair[:, 2].square()
        plus, minus = SQRT_S - rest[:, 0] - rest[:, 3], SQRT_S - rest[:, 0] + rest[:, 3]
        possible = (plus > 0) & (minus > 0) & (plus * minus > mt2)
        x1, x2 = fractions(x)
        assert torch.equal((x1 <= 1 + 1e-9) & (x2 <= 1 + 1e-9), possible)
        assert float(possible.double().mean()) > (0.999 if jets == 1 else 0.7)


def test_jets_near_a_jet_keep_their_distance() -> None:
    channel = ChiliChannel(W, [Jet(), Jet(0)], region=JetRegion(r_min=0.4, r_max=1.0), order=(1, 0))
    x, _ = channel.forward(cube(2000, channel.dim))
    distance = delta_r(x[:, 2], x[:, 3])
    assert float(distance.min()) >= 0.4 - 1e-9
    assert float(distance.max()) <= 1.0 + 1e-9
    free = ChiliChannel(W, [Jet(), Jet()])
    x, _ = free.forward(cube(2000, channel.dim))
    distance = delta_r(x[:, 2], x[:, 3])
    _, log_g = channel.inverse(x)
    assert torch.equal(torch.isfinite(log_g) & physical(x), (distance > 0.4) & (distance < 1.0) & physical(x))


def test_points_outside_a_channel_have_no_density() -> None:
    narrow = ChiliChannel(Boson(BreitWigner(80.419, 2.1), 70.0, 90.0), [Jet()], region=JetRegion(30.0, 2.0))
    x, _ = ChiliChannel(W, [Jet()]).forward(cube(5000, narrow.dim))
    mass, jet = mass2(x[:, :2].sum(1)).sqrt(), x[:, 2]
    pt = torch.hypot(jet[:, 1], jet[:, 2])
    inside = (mass > 70) & (mass < 90) & (pt > 30) & (torch.asinh(jet[:, 3] / pt).abs() < 2)
    assert 0 < int(inside.sum()) < 5000
    assert torch.equal(torch.isfinite(narrow.inverse(x)[1]), inside)


@pytest.mark.parametrize("build", [chili_channels, topology_channels])
@pytest.mark.parametrize("jets", [2, 3])
def test_channels_of_a_group_differ_by_a_permutation(build: Any, jets: int) -> None:
    channels, groups = build(W, jets)
    assert len(groups) == len(channels)
    assert sorted(set(groups)) == list(range(max(groups) + 1))
    u = cube(20, channels[0].dim)
    for group in set(groups):
        members = [channel.forward(u) for channel, index in zip(channels, groups, strict=True) if index == group]
        for x, log_g in members[1:]:
            assert torch.allclose(log_g, members[0][1])
            assert torch.allclose(x[:, 2:].sum(1), members[0][0][:, 2:].sum(1))
            assert torch.allclose(x[:, 2:, 0].sort(-1)[0], members[0][0][:, 2:, 0].sort(-1)[0])


def test_numbers_of_channels() -> None:
    assert [len(chili_channels(W, jets)[0]) for jets in range(5)] == [1, 1, 4, 10, 15]
    assert [len(topology_channels(W, jets)[0]) for jets in range(4)] == [1, 3, 8, 42]
    assert chili_channels(W, 3)[1] == [0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert topology_channels(W, 1)[1] == [0, 1, 2]
    assert topology_channels(W, 2)[1] == [0, 0, 1, 1, 2, 2, 3, 4]


def test_channels_follow_the_device_and_keep_gradients() -> None:
    for channel in (ChiliChannel(W, [Jet(), Jet(0)]), topology_channels(W, 2)[0][0]):
        u = cube(50, channel.dim, 2).requires_grad_()
        x, log_g = channel.forward(u)
        again, log_again = channel.inverse(x)
        (gradient,) = torch.autograd.grad((again[:, 0] + log_g + log_again)[physical(x)].sum(), u)
        assert bool(torch.isfinite(gradient).all())
        shapes = [t.shape for t in channel.forward(torch.empty(3, channel.dim, dtype=torch.float64, device="meta"))]
        assert shapes == [(3, 4, 4), (3,)]


def test_settings_that_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match="min_mass < max_mass"):
        Boson(PowerLaw(1.0), 100.0, 50.0)
    with pytest.raises(ConfigError, match="masses"):
        Boson(PowerLaw(1.0), 300.0, masses=(173.0, 173.0))
    with pytest.raises(ConfigError, match=r"pt_min = -1.0: must be"):
        JetRegion(pt_min=-1.0)
    with pytest.raises(ConfigError, match=r"r_max = 4.0: must be"):
        JetRegion(r_max=4.0)
    with pytest.raises(ChannelError, match="earlier jet"):
        ChiliChannel(W, [Jet(), Jet(1)])
    with pytest.raises(ChannelError, match="come first"):
        ChiliChannel(W, [Jet(), Jet(0), Jet()])
    with pytest.raises(ChannelError, match="offset"):
        ChiliChannel(W, [Jet()], region=SOFT)
    with pytest.raises(ChannelError, match="offset"):
        ChiliChannel(W, [Jet(), Jet(recoils=True)])
    for jets in ([RECOIL, Jet()], [Jet(), Jet(0), RECOIL], [Jet(), RECOIL, RECOIL]):
        with pytest.raises(ChannelError, match=r"come first|only the last jet can recoil"):
            ChiliChannel(W, jets)
    with pytest.raises(ChannelError, match="permutation"):
        ChiliChannel(W, [Jet(), Jet()], order=(0, 0))
    with pytest.raises(ChannelError, match="do not suffice"):
        ChiliChannel(W, [Jet()], sqrt_s=40.0)
    with pytest.raises(ConfigError, match="jets = -1: must be"):
        chili_channels(W, -1)
    with pytest.raises(ConfigError, match="pt_min"):
        topology_channels(W, 1, Hadronic(pt_min=0.0))
    with pytest.raises(ConfigError, match="jets = 2: must be 0 or 1"):
        heavy_pair_channels(173.0, 2)
    with pytest.raises(ConfigError, match="at least one map"):
        drell_yan_channels([], 50.0)


def test_trees_that_make_no_sense() -> None:
    energy = FixedEnergy(100.0)
    with pytest.raises(ChannelError, match="appear once"):
        TopologyChannel(Cluster(0, 0), (0.0, 0.0), energy)
    with pytest.raises(ChannelError, match="no beam"):
        TopologyChannel(Cluster(0, Cluster(1, 2, exchange=PowerLaw(1.0))), (0.0,) * 3, energy)
    with pytest.raises(ChannelError, match="no mass below"):
        TopologyChannel(Cluster(0, Cluster(1, 2, max_mass=10.0)), (0.0, 5.0, 6.0), energy)
    with pytest.raises(ChannelError, match="raise its min_mass"):
        TopologyChannel(Cluster(0, 1), (173.0, 173.0), MomentumFractions(SQRT_S, 300.0))


@pytest.mark.parametrize("channel", [ChiliChannel(W, [Jet()]), topology_channels(W, 1)[0][0]])
def test_shapes_are_checked(channel: ChiliChannel | TopologyChannel) -> None:
    with pytest.raises(ShapeError, match=r"\(n, 7\)"):
        channel.forward(cube(3, 6))
    with pytest.raises(ShapeError, match=r"\(n, 3, 4\)"):
        channel.inverse(torch.ones(3, 4, 4, dtype=torch.float64))
