"""Marginals: a known law becomes a normal variable, beyond the knots too, and the state keeps it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest
from torch import Tensor
from windows import ks_accepts

from nisampler.calo.detector.geometry import Geometry, IncidentEnergy, Layer
from nisampler.calo.preprocessing.marginals import Marginals
from nisampler.errors import ConfigError, ShapeError

GEOMETRY = Geometry(
    "small",
    "electron",
    11,
    (Layer.polar(0, 2, (0, 1)), Layer.polar(1, 1, (0, 1, 2))),
    0.0,
    IncidentEnergy("log-uniform", (1e2, 1e4)),
)
VOXELS = GEOMETRY.n_voxels
ALONE = torch.arange(VOXELS)
LAYER = torch.tensor(GEOMETRY.layer_of_voxel)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def log_energies(n: int, source: torch.Generator) -> Tensor:
    return 3 * torch.rand(n, GEOMETRY.n_layers, generator=source, dtype=torch.float64)


def normal_law(logs: Tensor, source: torch.Generator) -> Tensor:
    """Mean and width follow the energy of the layer."""
    energy = logs.index_select(1, LAYER)
    return energy + (0.5 + 0.3 * energy) * torch.randn(energy.shape, generator=source, dtype=torch.float64)


def exponential_law(logs: Tensor, source: torch.Generator) -> Tensor:
    """Logarithms of exponential variables whose mean is the energy of the layer: skewed, with a long lower tail."""
    draws = torch.rand(len(logs), VOXELS, generator=source, dtype=torch.float64)
    return logs.index_select(1, LAYER) + (-draws.log()).log()


LAWS = {"normal": normal_law, "exponential": exponential_law}


def fitted(law: str, seed: int = 1, n: int = 40_000) -> Marginals:
    source = generator(seed)
    logs = log_energies(n, source)
    step = Marginals(GEOMETRY.sizes).double()
    step.fit(LAWS[law](logs, source), logs, ALONE)
    return step


@pytest.mark.parametrize("law", LAWS)
def test_a_known_law_becomes_normal_at_every_energy(law: str) -> None:
    step, source = fitted(law), generator(2)
    for energy in (0.4, 1.5, 2.6):
        logs = torch.full((1500, GEOMETRY.n_layers), energy, dtype=torch.float64)
        y, _ = step(LAWS[law](logs, source), logs)
        for voxel in range(VOXELS):
            assert ks_accepts(y[:, voxel].numpy(), "norm", checks=3 * VOXELS)


def test_the_same_voxels_at_another_energy_are_not_normal() -> None:
    step, source = fitted("normal"), generator(2)
    logs = torch.full((1500, GEOMETRY.n_layers), 1.5, dtype=torch.float64)
    y, _ = step(normal_law(logs, source), logs + 0.5)
    assert kstest(y[:, 0].numpy(), "norm").pvalue < 1e-10


def test_the_density_is_that_of_the_law() -> None:
    """The standard normal density times the slope, against the density of the law that was fitted."""
    step, source = fitted("exponential"), generator(3)
    logs = torch.full((4000, GEOMETRY.n_layers), 1.2, dtype=torch.float64)
    x = exponential_law(logs, source)
    y, log_det = step(x, logs)
    ours = (-0.5 * y**2).sum(1) - 0.5 * VOXELS * math.log(2 * math.pi) + log_det
    theirs = (x - 1.2 - (x - 1.2).exp()).sum(1)
    assert abs((theirs - ours).mean()) < 0.05
    assert abs((theirs - ours + log_det).mean()) > 0.2  # without the slope


def test_voxels_of_an_orbit_share_their_quantiles() -> None:
    source = generator(1)
    logs = log_energies(4000, source)
    x = normal_law(logs, source) + torch.tensor([0.0, 4.0, 0.0, 4.0], dtype=torch.float64)
    step = Marginals(GEOMETRY.sizes, knots=13, levels=3).double()
    step.fit(x, logs, torch.tensor([0, 0, 2, 3]))
    assert torch.equal(step.quantiles[:, 0], step.quantiles[:, 1])
    assert not torch.equal(step.quantiles[:, 2], step.quantiles[:, 3])
    # the median of the two voxels lies between theirs
    alone = Marginals(GEOMETRY.sizes, knots=13, levels=3).double()
    alone.fit(x, logs, ALONE)
    assert (alone.quantiles[:, 0, 6] + 1 < step.quantiles[:, 0, 6]).all()
    assert (step.quantiles[:, 0, 6] + 1 < alone.quantiles[:, 1, 6]).all()
    torch.testing.assert_close(alone.quantiles[:, 2:], step.quantiles[:, 2:])


@given(seed=st.integers(0, 2**32 - 1))
def test_the_map_is_linear_beyond_the_knots_and_invertible_there(seed: int) -> None:
    step = fitted("normal", n=2000)
    logs = log_energies(1, generator(seed)).repeat(4, 1)
    far = torch.tensor([[-40.0], [-30.0], [30.0], [40.0]], dtype=torch.float64).repeat(1, VOXELS)
    y, log_det = step(far, logs)
    again, back = step.inverse(y, logs)
    torch.testing.assert_close(again, far)
    torch.testing.assert_close(log_det + back, torch.zeros(4, dtype=torch.float64))
    for low, high in ((0, 1), (2, 3)):
        slope = (y[high] - y[low]) / 10
        assert (slope > 0).all()
        torch.testing.assert_close(slope.log().sum(), log_det[low])
        torch.testing.assert_close(log_det[low], log_det[high])


def test_values_increase_through_knots_and_levels() -> None:
    step = fitted("exponential", n=2000)
    x = torch.linspace(-30, 20, 4000, dtype=torch.float64).unsqueeze(1).repeat(1, VOXELS)
    for energy in (-5.0, 0.0, 1.234, 3.0, 9.0):  # below and above all that was seen too
        y, log_det = step(x, torch.full((len(x), GEOMETRY.n_layers), energy, dtype=torch.float64))
        assert (y.diff(dim=0) > 0).all()
        assert torch.isfinite(log_det).all()


def test_before_a_fit_it_is_the_identity() -> None:
    step, x = Marginals(GEOMETRY.sizes), 2 * torch.randn(50, VOXELS, generator=generator(1))
    y, log_det = step(x, torch.zeros(50, GEOMETRY.n_layers))
    torch.testing.assert_close(y, x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(log_det, torch.zeros(50), rtol=0, atol=1e-5)


def test_equal_values_are_spread_out_and_stay_invertible() -> None:
    """Voxels that are nearly always at one value, and showers of one energy."""
    step = Marginals(GEOMETRY.sizes, knots=13, levels=4)
    x = torch.zeros(500, VOXELS)
    x[:5] = 3.0
    step.fit(x, torch.full((500, GEOMETRY.n_layers), 2.0), ALONE)
    logs = torch.full((500, GEOMETRY.n_layers), 2.0)
    y, log_det = step(x, logs)
    assert torch.isfinite(y).all()
    assert torch.isfinite(log_det).all()
    torch.testing.assert_close(step.inverse(y, logs)[0], x, rtol=1e-4, atol=1e-4)


def test_the_state_holds_what_was_fitted() -> None:
    step, other = fitted("normal", n=2000), Marginals(GEOMETRY.sizes).double()
    source = generator(4)
    logs = log_energies(20, source)
    x = normal_law(logs, source)
    assert set(step.state_dict()) == {"levels", "quantiles", "normal"}
    other.load_state_dict(step.state_dict())
    torch.testing.assert_close(other(x, logs), step(x, logs), rtol=0, atol=0)


@pytest.mark.parametrize(("knots", "levels"), [(11, 4), (28, 1), (0, 0)])
def test_too_few_knots_or_levels_are_refused(knots: int, levels: int) -> None:
    with pytest.raises(ConfigError, match="twelve knots and two levels"):
        Marginals(GEOMETRY.sizes, knots, levels)


def test_a_condition_for_each_group_is_needed() -> None:
    step, x = Marginals(GEOMETRY.sizes), torch.zeros(2, VOXELS)
    with pytest.raises(ShapeError, match="need conditions"):
        step(x)
    with pytest.raises(ShapeError, match="need conditions"):
        step.inverse(x, torch.zeros(2, 1))


def jumping(n: int, source: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates that are noise around -4 in three of ten cases and hits above 1 otherwise, and which are noise."""
    logs = log_energies(n, source)
    empty = torch.rand(n, VOXELS, generator=source) < 0.3
    hits = 1 - torch.rand(n, VOXELS, generator=source).log()
    noise = -4 + 0.2 * torch.randn(n, VOXELS, generator=source)
    return torch.where(empty, noise, hits).double(), logs, empty


def between(x: Tensor) -> float:
    """Share of the values that lie where no data are."""
    return float(((x > -2.5) & (x < 0.99)).double().mean())


def test_nothing_comes_to_lie_between_noise_and_hits() -> None:
    source = generator(5)
    x, logs, empty = jumping(6000, source)
    step = Marginals(GEOMETRY.sizes, levels=3, jumps=True).double()
    step.fit(x, logs, torch.arange(VOXELS), empty)
    y, log_det = step(x, logs)
    back, log_det_back = step.inverse(y, logs)
    torch.testing.assert_close(back, x)
    # a value on a knot of a jump has the slope of either side
    assert float(((log_det + log_det_back).abs() > 1e-6).double().mean()) < 1e-3
    drawn, _ = step.inverse(torch.randn(x.shape, generator=source, dtype=x.dtype), logs)
    assert between(drawn) < 2e-3
    assert abs(float((drawn < 0).double().mean()) - 0.3) < 0.01
    # the control: a map that knows of no jump spreads a bin over it
    plain = Marginals(GEOMETRY.sizes, levels=3).double()
    plain.fit(x, logs, torch.arange(VOXELS))
    assert between(plain.inverse(torch.randn(x.shape, generator=source, dtype=x.dtype), logs)[0]) > 0.01


@pytest.mark.parametrize("value", [True, False])
def test_coordinates_that_are_always_or_never_empty(value: bool) -> None:
    x, logs, _ = jumping(500, generator(6))
    step = Marginals(GEOMETRY.sizes, levels=3, jumps=True).double()
    step.fit(x, logs, torch.arange(VOXELS), torch.full_like(x, value, dtype=torch.bool))
    y, log_det = step(x, logs)
    assert torch.isfinite(y).all() and torch.isfinite(log_det).all()
    torch.testing.assert_close(step.inverse(y, logs)[0], x, rtol=1e-6, atol=1e-6)
