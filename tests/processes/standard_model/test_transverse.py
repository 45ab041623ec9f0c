"""Channels of branches with transverse momenta of their own: inverse, density, the whole of phase space, errors."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from nisampler.errors import ChannelError, ConfigError, ShapeError
from nisampler.processes.hadron.events import Decay, FinalState, Pole
from nisampler.processes.phase_space import BreitWigner, MomentumFractions, PowerLaw, TopologyChannel
from nisampler.processes.phase_space.kinematics import mass, pt
from nisampler.processes.phase_space.topology import Cluster
from nisampler.processes.standard_model.channels import Region
from nisampler.processes.standard_model.pairs import branches_of, transverse_channels
from nisampler.processes.standard_model.transverse import Emitted, TransverseChannel

W_MAP = BreitWigner(80.4, 2.1)
SHAPES: dict[str, tuple[list[Emitted], tuple[float, ...]]] = {
    "bosons and jets": (
        [Emitted((1,)), Emitted((0,)), Emitted((2,), pt_min=20.0, y_max=5.0), Emitted((3,))],
        (80.4, 91.2, 0, 0),
    ),
    "pairs": ([Emitted((0, 3), invariant=W_MAP), Emitted((1,), pt_min=30.0), Emitted((2,))], (0.0, 0.0, 0.0, 0.0)),
    "a pair that recoils": (
        [Emitted((2,), y_max=3.0), Emitted((1, 0), min_mass=50.0, max_mass=90.0)],
        (0.0, 5.0, 173.0),
    ),
}


def made(name: str) -> TransverseChannel:
    return TransverseChannel(*SHAPES[name])


def points(channel: TransverseChannel | TopologyChannel, n: int, seed: int) -> Tensor:
    return torch.rand(n, channel.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(SHAPES)), st.integers(0, 10**6))
def test_points_come_back_with_their_density(name: str, seed: int) -> None:
    channel = made(name)
    u = points(channel, 50, seed)
    p, log_density = channel.forward(u)
    again, found = channel.inverse(p)
    inside = torch.isfinite(found)
    assert bool(torch.isfinite(p).all()) and inside.double().mean() > 0.8
    assert torch.allclose(again[inside], u[inside], atol=1e-5)
    assert torch.allclose(found[inside], log_density[inside], rtol=1e-5, atol=1e-5)
    assert torch.allclose(p[..., 1:3].sum(1), torch.zeros(50, 2, dtype=torch.float64), atol=1e-7)


def test_masses_and_limits_are_kept() -> None:
    p = made("bosons and jets").forward(points(made("bosons and jets"), 500, 1))[0]
    assert torch.allclose(mass(p)[:, :2], torch.tensor([80.4, 91.2], dtype=torch.float64), atol=1e-3)
    assert float(pt(p[:, 2]).min()) >= 20.0
    channel = made("a pair that recoils")
    p = channel.forward(points(channel, 500, 2))[0]
    pair = mass(p[:, :2].sum(1))
    assert float(pair.min()) >= 50.0 - 1e-6 and float(pair.max()) <= 90.0 + 1e-6


def integral(channel: TransverseChannel | TopologyChannel, factor: float = 1.0) -> tuple[float, float]:
    """Of a function that falls with energy and transverse momenta, with cuts, over dx1 dx2 dPhi."""
    p, log_density = channel.forward(points(channel, 200_000, 3))
    total = p.sum(1)
    x = torch.stack([total[:, 0] + total[:, 3], total[:, 0] - total[:, 3]], 1) / 13000.0
    energy = (total[:, 0].square() - total[:, 3].square()).sqrt()
    inside = (x < 1).all(1) & (pt(p[:, 2]) > 20.0) & (pt(p[:, 1]) > 20.0) & (energy < 2000.0)
    values = torch.where(inside, torch.exp(-log_density - energy / 300.0), 0.0) * factor
    return float(values.mean()), float(values.std()) / len(values) ** 0.5


def test_the_density_is_that_of_phase_space() -> None:
    """Against a channel along a diagram; a control with one factor of two too many."""
    branches = [Emitted((0,)), Emitted((1,), PowerLaw(1.0, offset=100.0), 20.0), Emitted((2,))]
    ours, error = integral(TransverseChannel(branches, (80.4, 0.0, 0.0)))
    tree = Cluster(0, Cluster(1, 2))
    fractions = MomentumFractions(13000.0, 120.0, PowerLaw(1.5))
    other, error_of_other = integral(TopologyChannel(tree, (80.4, 0.0, 0.0), fractions))
    spread = math.hypot(error, error_of_other)
    assert spread < 0.03 * other
    assert abs(ours - other) < 4 * spread
    assert abs(2 * ours - other) > 10 * spread


def test_bosons_are_found_beside_jets() -> None:
    w, z = Pole(24, 80.4, 2.1), Pole(23, 91.2, 2.5)
    state = FinalState((0.0,) * 6, (Decay((0, 1), (w,)), Decay((2, 3), (z,))), (4, 5), (0, 2, 3), (1,))
    loose = Region(13000.0, state.masses, (0.0,) * 4 + (20.0, 20.0), {})
    assert branches_of(state, loose) is None, "photons"
    region = Region(13000.0, state.masses, (0.0,) * 4 + (20.0, 20.0), {(2, 3): 60.0}, {(2, 3): 120.0})
    branches = branches_of(state, region)
    assert branches is not None and [item.legs for item in branches] == [(0, 1), (2, 3), (4,), (5,)]
    assert (branches[1].min_mass, branches[1].max_mass) == (60.0, 120.0)
    channels, groups = transverse_channels(branches, state, region, 4.5, alike=False)
    assert [item.legs for item in channels[0].branches] == [(0, 1), (2, 3), (5,), (4,)] and groups == [0, 1]
    assert channels[0].branches[2].y_max == 4.5 and channels[0].branches[3].y_max == math.inf
    assert branches_of(FinalState((0.0, 80.4, 0.0), jets=(2,)), loose) is None
    assert (
        branches_of(
            FinalState((0.0, 80.4, 0.0, 0.0), jets=(2, 3)), Region(13000.0, (0.0, 80.4, 0.0, 0.0), (0.0,) * 4, {})
        )
        is None
    )


@pytest.mark.parametrize(
    ("branches", "masses", "sqrt_s"),
    [
        ([Emitted((0,))], (0.0,), 13000.0),
        ([Emitted((0,)), Emitted((0,))], (0.0, 0.0), 13000.0),
        ([Emitted((0, 1, 2)), Emitted((3,))], (0.0,) * 4, 13000.0),
        ([Emitted((0,)), Emitted((1,))], (90.0, 90.0), 150.0),
    ],
)
def test_branches_must_fit(branches: list[Emitted], masses: tuple[float, ...], sqrt_s: float) -> None:
    with pytest.raises(ChannelError):
        TransverseChannel(branches, masses, sqrt_s)


def test_other_shapes_and_negative_limits_are_refused() -> None:
    channel = made("pairs")
    with pytest.raises(ShapeError, match="takes points of shape"):
        channel.forward(torch.zeros(2, 3))
    with pytest.raises(ShapeError, match="takes momenta"):
        channel.inverse(torch.zeros(2, 3, 4))
    with pytest.raises(ConfigError):
        Emitted((0,), pt_min=-1.0)
