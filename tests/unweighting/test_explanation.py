"""What the largest weights have in common is found, and nothing where there is nothing."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import nisampler
from nisampler.density.channels import Multichannel
from nisampler.density.integrand import Integrand
from nisampler.errors import ConfigError, MissingFunctionError, UnweightingError
from nisampler.unweighting.explanation import explain, quantities_of


def uniform(n: int, dim: int, seed: int = 1) -> Tensor:
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def named(u: Tensor) -> dict[str, Tensor]:
    return {f"u{k + 1}": u[:, k] for k in range(u.shape[1])}


def test_a_corner_is_found_and_nothing_else() -> None:
    u = uniform(20_000, 5)
    corner = (u[:, 1] > 0.95) & (u[:, 3] < 0.05)
    found = explain(u, 1.0 + 20.0 * corner, named(u), worst=40)
    assert {item.name for item in found.separations[:2]} == {"u2", "u4"}
    assert [item.telling for item in found.separations] == [True, True, False, False, False]
    assert found.separations[0].distance > 0.9
    assert bool(corner[found.order].all()) and found.share == pytest.approx(40 * 21.0 / (1.0 + 20.0 * corner).sum())


def test_even_weights_have_nothing_in_common() -> None:
    """Negative control: the weights say nothing of the coordinates; two of 60 may be named by chance."""
    u = uniform(20_000, 60, seed=3)
    weights = torch.rand(20_000, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    found = explain(u, weights, named(u))
    assert sum(item.telling for item in found.separations) <= 2


@given(st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_the_distance_depends_on_the_order_of_values_alone(seed: int, scale: float) -> None:
    u = uniform(300, 1, seed)
    weights = 0.1 + u[:, 0] * uniform(300, 1, seed + 1)[:, 0]
    moved = explain(u, scale * weights, {"x": torch.exp(u[:, 0])}, worst=10).separations[0]
    plain = explain(u, -weights, {"x": u[:, 0]}, worst=10).separations[0]
    assert moved.distance == pytest.approx(plain.distance, abs=1e-9)
    assert 0.0 <= plain.distance <= 1.0


def test_the_distance_is_that_of_scipy() -> None:
    from scipy.stats import ks_2samp

    u = uniform(3000, 1)
    weights = torch.ones(3000, dtype=torch.float64)
    weights[:50] = 2.0
    found = explain(u, weights, named(u), worst=50).separations[0]
    assert found.distance == pytest.approx(ks_2samp(u[:50, 0], u[50:, 0]).statistic, abs=1e-12)


def test_what_few_points_have_or_all_share_is_left_out() -> None:
    u = uniform(1000, 2)
    rare = torch.where(torch.arange(1000) < 5, 1.0, math.nan)
    found = explain(u, u[:, 0], named(u) | {"rare": rare, "same": torch.ones(1000)}, worst=20)
    assert {item.name for item in found.separations} == {"u1", "u2"}
    assert {"rare", "same"} <= set(found.quantities)


class Half:
    def __init__(self, low: float) -> None:
        self.name, self.dim, self.low = f"from {low}", 1, low

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self.low + 0.5 * u, torch.full_like(u[:, 0], math.log(2.0))


def test_channels_are_told_apart() -> None:
    channels = Multichannel(lambda x: x[:, 0], [Half(0.0), Half(0.5)], prior=lambda x: torch.zeros(len(x), 2))
    u = uniform(2000, 2)
    found = explain(
        u, 1.0 + 9.0 * (u[:, 0] > 0.5), quantities_of(Integrand(channels, 2), u), worst=50, channels=channels
    )
    assert set(found.quantities) == {"u1"}
    shares = found.channels["2 from 0.5"]
    assert (
        shares[0] == 1.0 and shares[1] == pytest.approx(10 / 11, abs=0.02) and shares[2] == pytest.approx(0.5, abs=0.05)
    )
    assert found.channel_rows()[1][0] == "2 from 0.5"


def test_errors() -> None:
    u = uniform(1000, 1)
    for worst in (9, 101):
        with pytest.raises(ConfigError, match=f"{worst} worst of 1000 points: choose at least 10"):
            explain(u, u[:, 0], named(u), worst=worst)
    for weights in (torch.zeros(1000), torch.full((1000,), math.nan)):
        with pytest.raises(UnweightingError, match="nothing to explain"):
            explain(u, weights, named(u))


def test_a_result_explains_itself() -> None:
    quick = nisampler.TrainingConfig(calls=5000, sampler="vegas"), nisampler.IntegrationConfig(points=2048)
    ridge = nisampler.integrate(
        lambda x: torch.exp(-(((x[:, 0] - x[:, 1]) / 0.1) ** 2)), dim=2, training=quick[0], integration=quick[1]
    )
    found = ridge.explain(20_000)
    assert found.share > 0.005 and "largest of 20000 weights" in str(found) and found.figure().axes
    again = ridge.explain(20_000)
    assert torch.equal(found.weights, again.weights) and not torch.equal(
        found.weights, ridge.explain(20_000, 100, 1).weights
    )


def test_without_its_function_a_result_cannot(tmp_path: Path) -> None:
    quick = nisampler.TrainingConfig(calls=5000, sampler="vegas"), nisampler.IntegrationConfig(points=2048)
    result = nisampler.integrate(lambda x: x[:, 0], dim=1, training=quick[0], integration=quick[1])
    read = nisampler.load(result.save(tmp_path / "kept"))
    with pytest.raises(MissingFunctionError):
        read.explain(1000, 10)


def test_processes_name_what_their_points_look_like() -> None:
    """Momenta of a process are told by quantities that its cuts bound."""
    process = nisampler.process("w_plus_jets", n_jets=2)
    u = uniform(4000, process.dim)
    inside = process(u) > 0.0
    found = quantities_of(Integrand(process), u)
    assert {"pT(j1)", "pT(j2)", "eta(l1)", "dR(j1 j2)", "m(l1 v1)", "x1", "least pT / cut", "least dR / cut"} <= set(
        found
    )
    assert bool((found["pT(j1)"] >= found["pT(j2)"]).all())
    assert bool((found["least pT / cut"][inside] >= 1.0).all() and (found["least dR / cut"][inside] > 1.0).all())
    assert bool((found["least dR / cut"] < 1.0).any())
    jets = nisampler.process("ee_to_3jets")
    assert bool((quantities_of(Integrand(jets), uniform(100, 5))["y23"] > 0.0).all())
    assert explain(u, process(u), found, worst=20).channels == {}
