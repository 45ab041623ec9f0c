"""Sharp edges and rare layers through the preprocessing alone: independent normal numbers, no flow."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from nisampler.calo.detector.geometries import geometry
from nisampler.calo.models.presets.preset import clear_noise
from nisampler.calo.models.turns import symmetry_table
from nisampler.calo.preprocessing.cores import CoreScale
from nisampler.calo.preprocessing.marginals import Marginals
from nisampler.calo.preprocessing.preprocessing import Preprocessing, PreprocessingConfig
from nisampler.calo.preprocessing.transforms import LogSticks
from nisampler.calo.simulation.simulator import simulator

TOY = geometry("toy-silicon")
CLEAR = clear_noise(TOY)
N = 3000


@dataclass(frozen=True)
class Data:
    """Showers of the simulator, voxels (n, V) and incident energies (n,)."""

    voxels: Tensor
    incident: Tensor


@pytest.fixture(scope="module")
def data() -> Data:
    rng = np.random.default_rng(1)
    incident = np.exp(rng.uniform(*np.log([1e3, 1e4]), N))
    return Data(torch.from_numpy(simulator(TOY).simulate(incident, rng)), torch.from_numpy(incident).float())


def fitted(data: Data, config: PreprocessingConfig) -> Preprocessing:
    step, source = Preprocessing(TOY, config), torch.Generator().manual_seed(2)
    orbits = torch.as_tensor(symmetry_table(TOY)).amin(0)
    step.fit(step.cells.augment(data.voxels, source), data.incident.unsqueeze(1), orbits)
    return step


def drawn(data: Data, step: Preprocessing) -> Tensor:
    """Showers of independent coordinates at the incident energies of the data."""
    source = torch.Generator().manual_seed(3)
    return step.showers(torch.randn(len(data.incident), TOY.n_voxels + TOY.n_layers, generator=source), data.incident)


@pytest.fixture(scope="module")
def step(data: Data) -> Preprocessing:
    return fitted(data, CLEAR)


@pytest.fixture(scope="module")
def showers(data: Data, step: Preprocessing) -> Tensor:
    return drawn(data, step)


def per_mille(voxels: Tensor, low: float, high: float) -> float:
    hits = voxels[voxels > 0]
    return 1e3 * float(((hits >= low) & (hits < high)).double().mean())


def filled(voxels: Tensor) -> Tensor:
    return (TOY.layer_sums(voxels) > 0).double().mean(0)


def test_the_peak_of_one_crossing_and_the_shoulder_below_stay(data: Data, showers: Tensor) -> None:
    assert per_mille(data.voxels, 3.0, 3.6) > 8 * per_mille(data.voxels, 2.0, 2.8)
    assert per_mille(showers, 3.0, 3.6) == pytest.approx(per_mille(data.voxels, 3.0, 3.6), rel=0.05)
    assert per_mille(showers, 2.0, 2.8) == pytest.approx(per_mille(data.voxels, 2.0, 2.8), rel=0.1)


def test_voxels_in_units_of_their_layer_smear_it(data: Data) -> None:
    """The control: a scale of all voxels."""
    showers = drawn(data, fitted(data, replace(CLEAR, unit="layer")))
    assert per_mille(showers, 3.0, 3.6) < 0.8 * per_mille(data.voxels, 3.0, 3.6)
    assert per_mille(showers, 2.0, 2.8) > 1.5 * per_mille(data.voxels, 2.0, 2.8)


def test_layers_are_as_often_filled_as_in_the_data(data: Data, step: Preprocessing, showers: Tensor) -> None:
    share, incident = filled(data.voxels), data.incident.repeat(10).unsqueeze(1)
    assert 0.05 < share[-1] < 0.3 and 0.3 < share[-2] < 0.9
    y = torch.randn(len(incident), TOY.n_layers, generator=torch.Generator().manual_seed(4))
    energies, _ = step.layer_energies(y, incident)
    drawn = (energies >= TOY.threshold).double().mean(0)
    assert (drawn - share).abs().max() < 0.01
    # showers have hits in the layers that have energy
    assert (filled(showers) - drawn).abs().max() < 0.03


def test_sticks_that_know_of_no_empty_layer_fill_them_too_often(data: Data, step: Preprocessing) -> None:
    """The control: marginals of the log-odds of all layers, with the noise of empty ones."""
    energies = step.cells.layer_energies(data.voxels, torch.Generator().manual_seed(4))
    incident = data.incident.unsqueeze(1)
    sticks, marginals = LogSticks(), Marginals((TOY.n_layers,), levels=32)
    marginals.fit(sticks(energies, incident)[0], incident.log(), torch.arange(TOY.n_layers))
    y = torch.randn(N, TOY.n_layers, generator=torch.Generator().manual_seed(5))
    again, _ = sticks.inverse(marginals.inverse(y, incident.log())[0], incident)
    share = (again >= TOY.threshold).double().mean(0)
    assert (share - filled(data.voxels)).abs().max() > 0.02


def test_the_core_is_the_lowest_quarter_of_the_hits(data: Data, step: Preprocessing) -> None:
    scale = step.cells.scale
    assert isinstance(scale, CoreScale)
    hits = data.voxels[data.voxels > 0]
    assert float((hits <= scale.core).double().mean()) == pytest.approx(0.25, abs=0.01)


def test_showers_without_a_hit_are_no_reason_to_fail() -> None:
    empty = Data(torch.zeros(200, TOY.n_voxels), torch.full((200,), 1e3))
    empty.voxels[0, 0] = 5.0
    assert torch.isfinite(drawn(empty, fitted(empty, CLEAR))).all()


def peaked(logs: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """Hits with a narrow peak at 1, which holds more of them the higher the condition, and which are noise."""
    n = len(logs)
    peak = torch.rand(n, 1, generator=source) < 0.1 + 0.15 * logs
    wide = 3 * torch.rand(n, 1, generator=source)
    hits = torch.where(peak, 1 + 0.02 * torch.randn(n, 1, generator=source), wide)
    empty = torch.rand(n, 1, generator=source) < 0.7 - 0.2 * logs
    return torch.where(empty, -4 + 0.2 * torch.randn(n, 1, generator=source), hits), empty


def in_peak(places: int) -> tuple[float, float]:
    """Shares of the data and of what the map draws that lie in the peak."""
    source = torch.Generator().manual_seed(1)
    logs = 3 * torch.rand(20_000, 1, generator=source)
    x, empty = peaked(logs, source)
    step = Marginals([1], knots=24, levels=4, jumps=True, places=places)
    step.fit(x, logs, torch.arange(1), empty, core=2.0)
    y = torch.randn(x.shape, generator=source)
    again, _ = step.inverse(y, logs)
    torch.testing.assert_close(step(again, logs)[0], y, rtol=1e-2, atol=2e-3)
    data, new = (((part - 1).abs() < 0.05).double().mean() for part in (x, again))
    return float(data), float(new)


def test_a_peak_that_stays_where_it_is_survives_between_levels() -> None:
    data, new = in_peak(places=36)
    assert new == pytest.approx(data, rel=0.05)
    data, smeared = in_peak(places=0)
    assert smeared < 0.85 * data


def test_levels_are_spread_over_showers_with_hits() -> None:
    """One level is left for the nine tenths that have none."""
    source = torch.Generator().manual_seed(1)
    hit = torch.rand(5000, generator=source) < 0.1
    condition = torch.where(hit, 2 + torch.rand(5000, generator=source), -5 + 0.1 * torch.rand(5000, generator=source))
    x = torch.where(hit, torch.rand(5000, generator=source), -2 - torch.rand(5000, generator=source))
    step = Marginals([1], levels=8, jumps=True)
    step.fit(x.unsqueeze(1), condition.unsqueeze(1), torch.arange(1), ~hit.unsqueeze(1))
    assert (step.levels[0] > 2).sum() == 7
    assert step.levels[0, 0] == pytest.approx(float(condition[~hit].median()))
