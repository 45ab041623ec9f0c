"""Integrals over phase space: known volumes, and the same integral from channels of different kinds."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from windows import limit

from nisampler.base.rng import Streams
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
    Uniform,
    heavy_pair_channels,
    topology_channels,
)
from nisampler.processes.phase_space.kinematics import delta_r, mass, mass2, pt, rapidity
from nisampler.processes.phase_space.rambo import RamboOnDiet, massless_volume

SQRT_S = 13000.0
BOSON = Boson(BreitWigner(80.419, 2.08712367), 60.0, 100.0)
FLAT = Uniform()
LIMIT = limit(checks=10)  # of the pulls in one test
RESONANCE = BreitWigner(91.1876, 2.4955)


def cube(n: int, dim: int, seed: int = 1) -> Tensor:
    return torch.rand(n, dim, dtype=torch.float64, generator=Streams(seed).generator("cube", dim))


def pull(first: Tensor, second: Tensor) -> float:
    variance = first.var() / len(first) + second.var() / len(second)
    return abs(float((first.mean() - second.mean()) / variance.sqrt()))


def comb(legs: int, exchange: bool) -> Cluster:
    """Legs emitted one after the other; squared masses of k massless bodies grow like s^(k-2)."""
    tree: Cluster | int = legs - 1
    for leg in reversed(range(legs - 1)):
        bodies = legs - leg
        transfer = PowerLaw(0.2, offset=100.0) if exchange else None
        tree = Cluster(leg, tree, PowerLaw(2.0 - bodies, offset=1e-3), exchange=transfer)
    assert isinstance(tree, Cluster)
    return tree


def balanced(legs: tuple[int, ...]) -> Cluster:
    half = len(legs) // 2
    branches = [part[0] if len(part) == 1 else balanced(part) for part in (legs[:half], legs[half:])]
    return Cluster(branches[0], branches[1], FLAT)


@pytest.mark.parametrize("legs", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("kind", ["decays", "balanced", "exchanges"])
def test_massless_volume(legs: int, kind: str) -> None:
    tree = balanced(tuple(range(legs))) if kind == "balanced" else comb(legs, kind == "exchanges")
    channel = TopologyChannel(tree, (0.0,) * legs, FixedEnergy(100.0))
    assert channel.dim == 3 * legs - 4
    x, log_g = channel.forward(cube(40_000, channel.dim))
    total = torch.tensor([100.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    assert torch.allclose(x.sum(1), total.expand(len(x), 4), atol=1e-8)
    weight = torch.exp(-log_g)
    error = weight.std().item() / math.sqrt(len(weight))
    exact = massless_volume(legs, 100.0)
    assert error < 0.02 * exact
    assert abs(weight.mean().item() - exact) < 4 * error + 1e-9 * exact
    _, log_again = channel.inverse(x)
    assert int(((log_again - log_g).abs() > 1e-6).sum()) <= 2  # a cluster with no digits of its mass left


@pytest.mark.parametrize("exchange", [False, True])
def test_massive_phase_space_as_rambo_fills_it(exchange: bool) -> None:
    """Volume and a mean invariant with masses (20, 1, 30, 5) GeV."""
    masses = (20.0, 1.0, 30.0, 5.0)
    channel = TopologyChannel(comb(4, exchange), masses, FixedEnergy(100.0))
    rambo = RamboOnDiet(masses)
    x, log_g = channel.forward(cube(100_000, channel.dim))
    y, weight = rambo.forward(cube(100_000, rambo.dim, 2), 100.0)
    pairs = [
        (torch.exp(-log_g), weight),
        (torch.exp(-log_g) * mass2(x[:, 1] + x[:, 3]), weight * mass2(y[:, 1] + y[:, 3])),
        (torch.exp(-log_g) * x[:, 2, 3].square(), weight * y[:, 2, 3].square()),
    ]
    assert max(pull(a, b) for a, b in pairs) < LIMIT


MADSPACE_TREES = {
    "resonance_in_decay": Cluster(Cluster(0, 1, RESONANCE), 2),
    "massive_decay": Cluster(Cluster(0, 1, PowerLaw(0.8)), 2),
    "exchange": Cluster(Cluster(0, 1, RESONANCE), 2, exchange=PowerLaw(0.8, offset=0.01)),
    "hadronic": Cluster(0, 1),
}


@pytest.mark.parametrize("name", MADSPACE_TREES)
def test_densities_of_madspace_points(name: str) -> None:
    """The same topologies with the same maps give, point by point, the inverse of madspace's Jacobian."""
    reference = json.loads((Path(__file__).parent / "data" / "madspace.json").read_text())[name]
    energy = reference["energy"]
    fractions = MomentumFractions(energy, 1e-3, RESONANCE) if name == "hadronic" else FixedEnergy(energy)
    channel = TopologyChannel(MADSPACE_TREES[name], reference["masses"], fractions)
    _, log_g = channel.inverse(torch.tensor(reference["momenta"], dtype=torch.float64))
    weight = torch.tensor(reference["weight"], dtype=torch.float64)
    assert torch.allclose(torch.exp(-log_g), weight, rtol=1e-6)


def smooth(x: Tensor, window: tuple[float, float] = (0.0, math.inf)) -> Tensor:
    """A test function with the cuts pT > 20 GeV and |y| < 4 on jets, a window in Delta R to the first jet, x <= 1."""
    total = x.sum(1)
    x1, x2 = (total[:, 0] + total[:, 3]) / SQRT_S, (total[:, 0] - total[:, 3]) / SQRT_S
    value = torch.exp(-x1 * x2 * (SQRT_S / 700.0) ** 2) * ((x1 <= 1) & (x2 <= 1))
    value = value / ((mass2(x[:, :2].sum(1)) - 80.0**2).square() + 400.0**2)
    value = value * (1 + x[:, 0, 0] / (x[:, 0, 0] + x[:, 1, 0]))
    for i in range(2, x.shape[1]):
        value = value * (pt(x[:, i]) > 20) * (rapidity(x[:, i]).abs() < 4) / pt(x[:, i]).square()
    for i in range(3, x.shape[1]):
        distance = delta_r(x[:, 2], x[:, i])
        value = value * ((distance > window[0]) & (distance < window[1]))
    return value


def contributions(channel: Any, n: int, window: tuple[float, float] = (0.0, math.inf), seed: int = 1) -> Tensor:
    x, log_g = channel.forward(cube(n, channel.dim, seed))
    return smooth(x, window) * torch.exp(-log_g)


@pytest.mark.parametrize("jets", [0, 1, 2])
def test_chili_and_topologies_give_the_same_integral(jets: int) -> None:
    chili = contributions(ChiliChannel(BOSON, [Jet()] * jets, region=JetRegion(20.0, 4.0)), 100_000)
    for channel in topology_channels(BOSON, jets, Hadronic(energy=PowerLaw(1.0)))[0]:
        other = contributions(channel, 100_000, seed=2)
        assert pull(chili, other) < LIMIT, channel.name
        assert other.std() < 0.1 * math.sqrt(len(other)) * other.mean(), channel.name


def test_three_jets_from_both_kinds() -> None:
    chili = contributions(ChiliChannel(BOSON, [Jet()] * 3, region=JetRegion(20.0, 4.0)), 200_000)
    channels = topology_channels(BOSON, 3, Hadronic(energy=PowerLaw(1.0)))[0]
    for channel in (channels[0], channels[9], channels[-1]):
        assert pull(chili, contributions(channel, 100_000, seed=2)) < LIMIT, channel.name


@pytest.mark.parametrize(
    "jets", [(Jet(), Jet(0)), (Jet(), Jet(0), Jet(0)), (Jet(), Jet(), Jet(0)), (Jet(), Jet(0), Jet(1))]
)
def test_jets_near_jets_give_the_same_integral(jets: tuple[Jet, ...]) -> None:
    """Where the first jet's distance to the others is in a window that both channels cover."""
    window = (0.5, 1.2)
    region = JetRegion(20.0, 4.0, r_min=0.01, r_max=math.pi)
    order = (0, 2, 1) if jets[1:2] == (Jet(),) else None
    near = contributions(ChiliChannel(BOSON, jets, region=region, order=order), 200_000, window)
    free = contributions(ChiliChannel(BOSON, [Jet()] * len(jets), region=region), 400_000, window, seed=2)
    assert pull(near, free) < LIMIT
    assert near.std() < 0.1 * math.sqrt(len(near)) * near.mean()


@pytest.mark.parametrize("jets", [1, 2, 3])
def test_jets_that_recoil_give_the_same_integral(jets: int) -> None:
    law = Jet(transverse=PowerLaw(2.0, offset=50.0), recoils=True)
    region = JetRegion(20.0, 4.0)
    recoil = contributions(ChiliChannel(BOSON, [Jet()] * (jets - 1) + [law], region=region), 200_000)
    free = contributions(ChiliChannel(BOSON, [Jet()] * jets, region=region), 200_000, seed=2)
    assert pull(recoil, free) < LIMIT
    assert recoil.std() < 0.1 * math.sqrt(len(recoil)) * recoil.mean()


def test_soft_jets_give_the_same_integral() -> None:
    law = PowerLaw(2.5, offset=15.0)
    soft = ChiliChannel(BOSON, [Jet(transverse=law)] * 2, region=JetRegion(0.0, 4.0))
    hard = ChiliChannel(BOSON, [Jet()] * 2, region=JetRegion(20.0, 4.0))
    assert pull(contributions(soft, 200_000), contributions(hard, 100_000, seed=2)) < LIMIT


def test_a_wrong_jacobian_gives_another_integral() -> None:
    class Wrong(ChiliChannel):
        def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
            x, log_g = super().forward(u)
            return x, log_g + 0.02 * torch.log(pt(x[:, 2]))

    region = JetRegion(20.0, 4.0)
    right = contributions(ChiliChannel(BOSON, [Jet()], region=region), 100_000)
    assert pull(contributions(Wrong(BOSON, [Jet()], region=region), 100_000, seed=2), right) > 2 * LIMIT


@pytest.mark.parametrize("jets", [0, 1])
def test_heavy_pairs_give_the_same_integral(jets: int) -> None:
    """Topologies against Chili: top pairs, damped in s_hat and with a cut on the jet."""
    tops = Boson(PowerLaw(1.5), 346.0, masses=(173.0, 173.0))
    reference = ChiliChannel(tops, [Jet()] * jets, region=JetRegion(50.0, 4.0))

    def values(channel: Any, seed: int) -> Tensor:
        x, log_g = channel.forward(cube(60_000, channel.dim, seed))
        total = mass(x.sum(1))
        inside = total < SQRT_S
        for jet in x[:, 2:].unbind(1):
            inside = inside & (pt(jet) > 50) & (rapidity(jet).abs() < 4)
        weight = (1 + (x[:, 0, 3] / x[:, 0, 0]).square()) * torch.exp(-total / 300.0)
        fractions = (x.sum(1)[:, 0] + x.sum(1)[:, 3].abs()) <= SQRT_S * (1 + 1e-12)
        return torch.where(inside & fractions, weight, torch.zeros_like(weight)) * torch.exp(-log_g)

    expected = values(reference, 1)
    for channel in heavy_pair_channels(173.0, jets, Hadronic(pt_min=50.0))[0]:
        assert pull(values(channel, 2), expected) < LIMIT, channel.name
