"""Laws of every step from showers to coordinates: inverse, log-determinants, and where points without a shower go."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nisampler.calo.detector.geometries import geometry as registered
from nisampler.calo.detector.geometry import Geometry, IncidentEnergy, Layer
from nisampler.calo.models import PRESETS
from nisampler.calo.preprocessing.cores import CoreScale
from nisampler.calo.preprocessing.marginals import Marginals
from nisampler.calo.preprocessing.preprocessing import Preprocessing, PreprocessingConfig
from nisampler.calo.preprocessing.transforms import (
    LayerScale,
    LogLogit,
    LogSticks,
    ShiftedLog,
    Standardise,
    StickBreaking,
)
from nisampler.errors import ConfigError, DomainError, ShapeError
from nisampler.flows import Transform

Inputs = tuple[Tensor, Tensor | None]

THRESHOLD, GAP = 0.02, 1.0
GEOMETRY = Geometry(
    "small",
    "electron",
    11,
    (Layer.polar(0, 1, (0, 1, 3)), Layer.polar(1, 2, (0, 1, 2)), Layer.polar(2, 1, (0, 5))),
    THRESHOLD,
    IncidentEnergy("log-uniform", (1e2, 1e4)),
)
SIZES = GEOMETRY.sizes
DIM = GEOMETRY.n_voxels + GEOMETRY.n_layers
SEEDS = st.integers(0, 2**32 - 1)
SCALES = [(0.0, "layer"), (THRESHOLD, "layer")]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(n: int, dim: int, source: torch.Generator) -> Tensor:
    return torch.randn(n, dim, generator=source, dtype=torch.float64)


def uniform(n: int, dim: int, source: torch.Generator) -> Tensor:
    return torch.rand(n, dim, generator=source, dtype=torch.float64)


def voxels_of(n: int, source: torch.Generator, threshold: float = THRESHOLD, gap: float = GAP) -> Tensor:
    """Positive voxels over five decades but none in the gap; in a third of the layers none reaches the threshold."""
    voxels = THRESHOLD * torch.exp(2.5 * normal(n, GEOMETRY.n_voxels, source) + 2)
    empty = uniform(n, GEOMETRY.n_layers, source) < 1 / 3
    empty = empty.index_select(1, torch.tensor(GEOMETRY.layer_of_voxel)) | (voxels < threshold)
    low = threshold * math.exp(-gap) * (0.01 + 0.98 * uniform(n, GEOMETRY.n_voxels, source))
    return torch.where(empty, low, voxels) if threshold else voxels


def augmented(n: int, source: torch.Generator, threshold: float, smallest: float = 0.8) -> Tensor:
    scales = smallest + (1 - smallest) * uniform(n, GEOMETRY.n_layers, source)
    return torch.cat([voxels_of(n, source, threshold), scales], dim=1)


def layer_scale(threshold: float, unit: Any) -> Transform:
    return LayerScale(SIZES, threshold, unit, GAP)


def largest_voxels(source: torch.Generator) -> Transform:
    step = LayerScale(SIZES, THRESHOLD, "maximum", GAP)
    step.units.copy_(torch.exp(normal(1, 3, source)[0]))
    return step


def core_scale(source: torch.Generator | None = None) -> CoreScale:
    """With about a third of the hits of `voxels_of` above the core, and layers without any."""
    step = CoreScale(SIZES, THRESHOLD, GAP)
    step.core.fill_(THRESHOLD * math.exp(4.0))
    return step


def fitted_standardise(source: torch.Generator) -> Standardise:
    step = Standardise(5).double()
    step.fit(3 * normal(100, 5, source) + 7)
    return step


def fitted_marginals(source: torch.Generator) -> Marginals:
    """Voxels with a mean and a width that depend on the energy of their layer."""
    logs = normal(800, GEOMETRY.n_layers, source)
    follow = logs.index_select(1, torch.tensor(GEOMETRY.layer_of_voxel))
    x = follow + torch.exp(0.3 * follow) * normal(800, GEOMETRY.n_voxels, source)
    step = Marginals(GEOMETRY.sizes, knots=12, levels=4).double()
    step.fit(x, logs, torch.arange(GEOMETRY.n_voxels))
    return step


def energies_of(n: int, source: torch.Generator) -> Inputs:
    """Layer energies with very unequal shares, and the incident energy."""
    energies = torch.exp(2 * normal(n, 4, source))
    return energies, energies.sum(1, keepdim=True) * (1.1 + uniform(n, 1, source))


def sticks_of_empty_layers(source: torch.Generator) -> tuple[Transform, Inputs]:
    """A third of the layers is empty, the second one never."""
    energies, incident = energies_of(6, source)
    low = THRESHOLD * (0.1 + 0.8 * uniform(6, 4, source))
    rare = (uniform(6, 4, source) < 1 / 3) & torch.tensor([True, False, True, True])
    energies = torch.where(rare, low, energies + THRESHOLD)
    step = LogSticks(4, THRESHOLD)
    step.fit(energies)
    return step, (energies, incident)


STEPS: dict[str, Callable[[torch.Generator], tuple[Transform, Inputs]]] = {
    f"layer-scale-{threshold}-{unit}": lambda source, threshold=threshold, unit=unit: (  # type: ignore[misc]
        layer_scale(threshold, unit),
        (augmented(6, source, threshold), None),
    )
    for threshold, unit in SCALES
} | {
    "stick-breaking": lambda source: (StickBreaking(1.3), energies_of(6, source)),
    "log-sticks": lambda source: (LogSticks(), energies_of(6, source)),
    "log": lambda source: (ShiftedLog(), (torch.exp(3 * normal(6, 5, source)), None)),
    "shifted-log": lambda source: (ShiftedLog(1e-3), (torch.exp(3 * normal(6, 5, source)), None)),
    "log-logit": lambda source: (LogLogit(), (uniform(6, 5, source).clamp(1e-6, 1), None)),
    "core-scale": lambda source: (core_scale(), (augmented(6, source, THRESHOLD), None)),
    "log-sticks-of-empty-layers": lambda source: sticks_of_empty_layers(source),
    "layer-scale-maximum": lambda source: (largest_voxels(source), (augmented(6, source, THRESHOLD), None)),
    "standardise": lambda source: (fitted_standardise(source), (10 * normal(6, 5, source), None)),
    "marginals": lambda source: (
        fitted_marginals(source),
        (3 * normal(6, GEOMETRY.n_voxels, source), 2 * normal(6, GEOMETRY.n_layers, source)),
    ),
}


def numerical_log_det(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """log |det| of the Jacobian of a function of one point (d,)."""
    jacobian: Any = torch.autograd.functional.jacobian(function, x)
    return torch.linalg.slogdet(jacobian).logabsdet


def check_laws(step: Transform, x: Tensor, context: Tensor | None, tolerance: float = 1e-7) -> None:
    y, forward = step(x, context)
    again, backward = step.inverse(y, context)
    torch.testing.assert_close(again, x, rtol=tolerance, atol=tolerance * THRESHOLD)
    torch.testing.assert_close(forward + backward, torch.zeros_like(forward), rtol=0, atol=10 * tolerance)
    for row in range(2):
        given = None if context is None else context[row : row + 1]
        there = numerical_log_det(lambda point, given=given: step(point[None], given)[0][0], x[row])  # type: ignore[misc]
        back = numerical_log_det(lambda point, given=given: step.inverse(point[None], given)[0][0], y[row])  # type: ignore[misc]
        torch.testing.assert_close(forward[row], there, rtol=1e-8, atol=10 * tolerance)
        torch.testing.assert_close(backward[row], back, rtol=1e-8, atol=10 * tolerance)


@pytest.mark.parametrize("name", STEPS)
@given(seed=SEEDS)
def test_every_step_has_an_inverse_and_an_exact_log_det(name: str, seed: int) -> None:
    step, (x, context) = STEPS[name](generator(seed))
    check_laws(step, x, context)


def test_a_wrong_log_det_is_found() -> None:
    """The control of the law above: the log-determinant without its powers of the energy."""

    class Careless(LayerScale):
        def _log_det(self, scales: Tensor, energies: Tensor) -> Tensor:
            return super()._log_det(scales, torch.ones_like(energies))

    with pytest.raises(AssertionError):
        check_laws(Careless(SIZES, THRESHOLD, "layer", GAP), augmented(6, generator(1), THRESHOLD), None)


def test_a_wrong_log_det_of_a_core_is_found() -> None:
    class Careless(CoreScale):
        def _energy(self, v: Tensor, over: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
            energy, log_det = super()._energy(v, over, s)
            return energy, log_det + s.log()

    step = Careless(SIZES, THRESHOLD, GAP)
    step.core.fill_(THRESHOLD * math.exp(4.0))
    with pytest.raises(AssertionError):
        check_laws(step, augmented(6, generator(1), THRESHOLD), None)


def preset_settings() -> dict[str, PreprocessingConfig]:
    """The different settings of the presets, with the threshold of the small geometry where they have one."""
    found: dict[str, PreprocessingConfig] = {}
    for name, entry in PRESETS.items():
        config = entry.config(registered(entry.geometry or "toy")).preprocessing
        config = replace(config, threshold=THRESHOLD) if config.threshold else config
        if config not in found.values():
            found[name] = config
    return found


CLEAR = PreprocessingConfig(
    threshold=THRESHOLD, noise="below-threshold", width=1.0, voxels="log", energies="log-sticks", scale=0.95, levels=8
)
SETTINGS = preset_settings() | {
    "units of the threshold": replace(CLEAR, unit="threshold", levels=4),
    "largest voxels": PreprocessingConfig(
        threshold=THRESHOLD,
        noise="log-normal",
        width=1e-4,
        fill=1e-3,
        unit="maximum",
        voxels="log-logit",
        alpha=1e-2,
        energies="log-sticks",
    ),
    "wide gap": replace(CLEAR, gap=3.0, scale=0.3, levels=0),
    "logit of the sticks": replace(
        CLEAR, voxels="shifted-log", energies="logit", alpha=1e-3, largest_ratio=3.0, levels=0
    ),
}


def showers(n: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """Voxels in MeV that are zero where they are below the threshold, and incident energies (n, 1)."""
    voxels = voxels_of(n, source)
    voxels = torch.where(voxels < THRESHOLD, torch.zeros_like(voxels), voxels)
    return voxels, voxels.sum(1, keepdim=True) * (1 + uniform(n, 1, source)) + 1


def prepared(config: PreprocessingConfig, seed: int) -> Preprocessing:
    source = generator(seed)
    voxels, incident = showers(300, source)
    step = Preprocessing(GEOMETRY, config).double()
    step.fit(step.cells.augment(voxels, source), incident, torch.arange(GEOMETRY.n_voxels))
    return step


def test_the_presets_differ_in_their_settings() -> None:
    assert {config.noise for config in SETTINGS.values()} == {"below-threshold", "uniform", "relative", "log-normal"}
    assert {config.voxels for config in SETTINGS.values()} == {"log", "shifted-log", "logit", "log-logit"}
    assert {config.energies for config in SETTINGS.values()} == {"log-sticks", "logit"}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_chain_of_every_preset_has_an_inverse_and_an_exact_log_det(name: str) -> None:
    config = SETTINGS[name]
    step = prepared(config, 1)

    @given(seed=SEEDS)
    def law(seed: int) -> None:
        source = generator(seed)
        voxels, incident = showers(4, source)
        if config.unit == "maximum":
            voxels = voxels.clamp_max(float(step.cells.scale.units.min()))
        # the logarithm of x + alpha forgets what is far below alpha times the layer; so does the logit
        tolerance = 1e-6 if config.voxels == "log" else 2e-4
        check_laws(step, step.cells.augment(voxels, source), incident, tolerance)

    law()


@pytest.mark.parametrize("name", SETTINGS)
def test_coordinates_of_training_showers_are_centred(name: str) -> None:
    source = generator(1)
    voxels, incident = showers(300, source)
    step = prepared(SETTINGS[name], 1)
    y, _ = step(step.cells.augment(voxels, source), incident)
    assert y.shape == (300, DIM)
    # voxels that pile up at one value leave no normal variable behind, but a bounded one
    assert y.mean(0).abs().max() < 0.8
    assert 0.4 < y.std(0).min() < y.std(0).max() < 1.6


@pytest.mark.parametrize(("threshold", "unit"), SCALES)
@given(seed=SEEDS, spread=st.sampled_from([0.01, 0.3, 3.0]))
def test_points_that_no_shower_maps_to_become_showers(threshold: float, unit: Any, seed: int, spread: float) -> None:
    source = generator(seed)
    step = layer_scale(threshold, unit)
    y, _ = step(augmented(20, source, threshold))
    y = y * torch.exp(spread * normal(20, DIM, source))
    x, log_det = step.inverse(y)
    voxels, energies = x[:, : GEOMETRY.n_voxels], y[:, GEOMETRY.n_voxels :]
    assert torch.isfinite(x).all()
    assert torch.isfinite(log_det).all()
    assert (voxels >= 0).all()
    kept = torch.where(voxels < threshold, torch.zeros_like(voxels), voxels)
    sums = GEOMETRY.layer_sums(kept)
    full = energies >= threshold
    assert (sums[~full] == 0).all()
    torch.testing.assert_close(sums[full], energies[full])


def test_a_point_without_a_shower_is_cut_in_the_middle_of_the_gap_and_rescaled_by_hand() -> None:
    """10 MeV, a threshold of 1 MeV and a cut at exp(-1/2) / 10 = 0.061: four voxels are kept, one of them mirrored."""
    step = LayerScale((5,), 1.0, "layer", 1.0)
    z = torch.tensor([[0.6, 0.4, 0.2, 0.12, 0.05, 10.0]], dtype=torch.float64)
    x, _ = step.inverse(z)
    rescaled = [6 / 1.32, 4 / 1.32, 2 / 1.32, 1.32 / 1.2]  # the last one was 0.909, mirrored about the threshold
    shrink = 6 / (sum(rescaled) - 4)
    kept = [1 + shrink * (energy - 1) for energy in rescaled]
    expected = torch.tensor([[*kept, 0.5 / 1.32, 1.32]], dtype=torch.float64)
    torch.testing.assert_close(x, expected)
    assert x[0, :4].sum() == pytest.approx(10)


@given(seed=SEEDS, spread=st.sampled_from([0.01, 0.3, 3.0]))
def test_of_points_that_no_shower_maps_to_only_voxels_above_the_core_move(seed: int, spread: float) -> None:
    source, step = generator(seed), core_scale()
    y, _ = step(augmented(20, source, THRESHOLD))
    y = y * torch.exp(spread * normal(20, DIM, source))
    x, log_det = step.inverse(y)
    voxels, energies, core = x[:, : GEOMETRY.n_voxels], y[:, GEOMETRY.n_voxels :], float(step.core)
    assert torch.isfinite(x).all() and torch.isfinite(log_det).all()
    sums = GEOMETRY.layer_sums(torch.where(voxels < THRESHOLD, torch.zeros_like(voxels), voxels))
    filled = energies >= THRESHOLD
    assert (sums[~filled] == 0).all()
    assert (sums[filled] > 0).all()
    before = THRESHOLD * y[:, : GEOMETRY.n_voxels]
    still = (before >= THRESHOLD) & (before <= core) & filled.index_select(1, torch.tensor(GEOMETRY.layer_of_voxel))
    torch.testing.assert_close(voxels[still], before[still])
    # the energy is met where voxels above the core can make up for the difference
    most = torch.stack([part.amax(1) for part in torch.split(before, list(SIZES), dim=1)], dim=1) - core
    stretch = 1 / x[:, GEOMETRY.n_voxels :]
    excess = torch.stack([(part - core).clamp_min(0).sum(1) for part in torch.split(before, list(SIZES), dim=1)], dim=1)
    met = filled & (most > 0) & (stretch > 1.0001 * (core / excess).clamp_max(0.25)) & (stretch < 3.999)
    torch.testing.assert_close(sums[met], energies[met])


def test_a_core_by_hand() -> None:
    """Core 4 MeV: 10 + 6 exceed it by 8; with 1 MeV of energy too little, they exceed it by 7 in all."""
    step = CoreScale((4,), 1.0, 1.0)
    step.core.fill_(4.0)
    x, _ = step.inverse(torch.tensor([[10.0, 6.0, 3.0, 0.3, 18.0]], dtype=torch.float64))
    torch.testing.assert_close(x, torch.tensor([[9.25, 5.75, 3.0, 0.3, 8 / 7]], dtype=torch.float64))
    # without a voxel above the core, voxels say what the energy is
    x, _ = step.inverse(torch.tensor([[3.0, 2.0, 0.3, 0.3, 7.0]], dtype=torch.float64))
    torch.testing.assert_close(x[0, :4], torch.tensor([3.0, 2.0, 0.3, 0.3], dtype=torch.float64))
    # far too much excess shrinks to the core at most
    x, _ = step.inverse(torch.tensor([[1e6, 2.0, 0.3, 0.3, 3.0]], dtype=torch.float64))
    torch.testing.assert_close(x[0, :4], torch.tensor([8.0, 2.0, 0.3, 0.3], dtype=torch.float64))
    # no hit at all: the largest voxel gets the energy; and a smeared hit is mirrored about the threshold
    x, _ = step.inverse(torch.tensor([[0.5, 0.3, 0.2, 0.1, 7.0], [0.8, 0.3, 0.2, 3.0, 4.0]], dtype=torch.float64))
    torch.testing.assert_close(x[0, :4], torch.tensor([7.0, 0.3, 0.2, 0.1], dtype=torch.float64))
    torch.testing.assert_close(x[1, :4], torch.tensor([1.25, 0.3, 0.2, 3.0], dtype=torch.float64))


def test_voxels_that_cannot_all_reach_the_threshold_leave_the_highest() -> None:
    step = LayerScale((4,), 1.0, "layer", 1.0)
    x, _ = step.inverse(torch.tensor([[0.5, 0.49, 0.48, 0.47, 2.5]], dtype=torch.float64))
    assert (x[0, :2] >= 1).all() and (x[0, 2:4] < 1).all()
    assert x[0, :2].sum() == pytest.approx(2.5)


def test_more_energy_than_the_largest_ratio_is_refused() -> None:
    voxels = torch.full((4, GEOMETRY.n_voxels), 1.0)
    chain = Preprocessing(GEOMETRY, PreprocessingConfig(largest_ratio=0.5))
    augmented = chain.cells.augment(voxels, torch.Generator().manual_seed(1))
    with pytest.raises(DomainError, match="largest_ratio"):
        chain.fit(augmented, torch.full((4, 1), float(GEOMETRY.n_voxels)), torch.arange(GEOMETRY.n_voxels))


def test_a_layer_below_the_threshold_is_empty() -> None:
    step = LayerScale((3,), 1.0, "layer", 1.0)
    x, _ = step.inverse(torch.tensor([[0.95, 0.5, 0.1, 0.8]], dtype=torch.float64))
    torch.testing.assert_close(x, torch.tensor([[0.8, 0.4 / 0.95, 0.08 / 0.95, 0.95]], dtype=torch.float64))


def test_sticks_by_hand() -> None:
    energies, incident = torch.tensor([[6.0, 3.0, 1.0]]), torch.tensor([[20.0]])
    u, _ = StickBreaking(2.0)(energies, incident)
    torch.testing.assert_close(u, torch.tensor([[10 / 40, 0.6, 0.75]]))
    y, _ = LogSticks()(energies, incident)
    torch.testing.assert_close(y, torch.tensor([[math.log(0.5), math.log(1.5), math.log(3.0)]]))


def test_sticks_of_empty_layers_by_hand() -> None:
    step = LogSticks(3, 0.5)
    step.fit(torch.tensor([[6.0, 3.0, 0.1], [0.2, 3.0, 1.0]]))
    assert step.order.tolist() == [0, 2, 1]  # the layer that is always filled is the last stick
    energies, incident = torch.tensor([[6.0, 3.0, 0.1], [0.2, 3.0, 1.0]]), torch.tensor([[18.0], [8.0]])
    y, _ = step(energies, incident)
    empty = [math.log(0.2) - 24, math.log(0.4) - 24]
    expected = [[math.log(9 / 18), math.log(2), empty[0]], [math.log(4 / 8), empty[1], math.log(1 / 3)]]
    torch.testing.assert_close(y, torch.tensor(expected))
    assert step.empty(energies).tolist() == [[False, False, True], [False, True, False]]
    torch.testing.assert_close(step.inverse(y, incident)[0], energies)
    # a stick that is too short for the threshold is as long as the threshold
    y[0, 1] = -10.0
    assert step.inverse(y, incident)[0][0, 0] == 0.5


def test_log_sticks_keep_a_layer_with_a_millionth_of_the_shower_in_single_precision() -> None:
    energies, incident = torch.tensor([[1.0, 1e6, 0.5]]), torch.tensor([[2e6]])
    again, _ = LogSticks().inverse(LogSticks()(energies, incident)[0], incident)
    torch.testing.assert_close(again, energies, rtol=1e-4, atol=0)
    u, _ = StickBreaking()(energies, incident)
    assert abs(StickBreaking().inverse(u, incident)[0][0, 2] - 0.5) > 1e-3  # the cancellation that they avoid


def test_shifted_log_never_returns_a_negative_voxel() -> None:
    x, _ = ShiftedLog(1e-2).inverse(torch.tensor([[-20.0, 0.0]]))
    assert (x > 0).all()


def test_constants_are_those_of_the_data_and_travel_with_the_state() -> None:
    x = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    step = Standardise(2)
    step.fit(x)
    torch.testing.assert_close(step.mean, torch.tensor([2.0, 5.0]))
    torch.testing.assert_close(step.spread, torch.tensor([math.sqrt(2), 1.0]))
    other = Standardise(2)
    other.load_state_dict(step.state_dict())
    torch.testing.assert_close(other(x), step(x))


def test_the_state_of_the_chain_restores_its_coordinates() -> None:
    config = SETTINGS["small"]
    step, other = prepared(config, 1), Preprocessing(GEOMETRY, config).double()
    voxels, incident = showers(5, generator(2))
    x = step.cells.augment(voxels, generator(3))
    before, _ = other(x, incident)
    other.load_state_dict(step.state_dict())
    after, _ = other(x, incident)
    torch.testing.assert_close(after, step(x, incident)[0])
    assert not torch.allclose(before, after)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(("first", "last"), [(0, 1), (1, 3), (0, 3)])
def test_a_window_is_the_same_for_its_layers(name: str, first: int, last: int) -> None:
    step = prepared(SETTINGS[name], 1).cells
    voxels, _ = showers(6, generator(2))
    x = step.augment(voxels, generator(3))
    y, _ = step(x)
    part = step.window(first, last)
    cells = slice(GEOMETRY.starts[first], GEOMETRY.starts[last])
    layers = slice(GEOMETRY.n_voxels + first, GEOMETRY.n_voxels + last)
    own, _ = part(torch.cat([x[:, cells], x[:, layers]], dim=1))
    torch.testing.assert_close(own, torch.cat([y[:, cells], y[:, layers]], dim=1))
    torch.testing.assert_close(part.showers(own), step.showers(y)[:, cells])
    assert part.log_scale_density == pytest.approx(step.log_scale_density * (last - first) / GEOMETRY.n_layers)
    windows = [step.window(layer, layer + 1) for layer in range(GEOMETRY.n_layers)]
    pieces = [
        window(torch.cat([x[:, GEOMETRY.slice(layer)], x[:, GEOMETRY.n_voxels + layer, None]], dim=1))[1]
        for layer, window in enumerate(windows)
    ]
    torch.testing.assert_close(torch.stack(pieces).sum(0), step(x)[1])


def test_the_unit_is_twice_the_largest_voxel_of_the_training() -> None:
    voxels, incident = showers(300, generator(1))
    step = Preprocessing(GEOMETRY, SETTINGS["largest voxels"]).double()
    x = step.cells.augment(voxels, generator(2))
    step.fit(x, incident, torch.arange(GEOMETRY.n_voxels))
    units = step.cells.scale.units
    expected = [x[:, GEOMETRY.slice(layer)].max() for layer in range(GEOMETRY.n_layers)]
    torch.testing.assert_close(units, 2 * torch.stack(expected))


@pytest.mark.parametrize("points", [torch.ones(1, 2), torch.tensor([[1.0, math.nan], [0.0, 1.0]])])
def test_constants_need_finite_data(points: Tensor) -> None:
    with pytest.raises(DomainError, match="two finite points"):
        Standardise(2).fit(points)


@pytest.mark.parametrize("name", SETTINGS)
def test_noise_is_within_its_width_and_the_scales_in_their_range(name: str) -> None:
    config = SETTINGS[name]
    voxels, _ = showers(2000, generator(4))
    step = Preprocessing(GEOMETRY, config)
    x = step.cells.augment(voxels, generator(5))
    noisy, scales = x[:, : GEOMETRY.n_voxels], x[:, GEOMETRY.n_voxels :]
    assert (noisy > 0).all()
    assert config.scale <= scales.min()
    assert scales.max() <= 1
    if config.noise == "below-threshold":
        assert torch.equal(noisy >= THRESHOLD, voxels >= THRESHOLD)
        assert torch.equal(noisy[voxels >= THRESHOLD], voxels[voxels >= THRESHOLD])
        depth = ((THRESHOLD / noisy[voxels < THRESHOLD]).log() - config.gap) / config.width
        assert depth.min() > -1e-4
        assert abs(depth.square().mean() - 1) < 0.1  # |N(0, 1)|
        return
    if config.noise == "log-normal":
        hits = voxels > 0
        added = (noisy - voxels)[hits]
        assert 0 <= added.min() < added.max() <= config.width * (1 + 1e-6)
        empty = noisy[~hits]
        if config.threshold:
            assert empty.max() <= THRESHOLD * math.exp(-config.gap) * (1 + 1e-9)
        # half of the fill is below its median, and what is added to it uniform
        median = float((empty - config.width * 0.5).median())
        assert median == pytest.approx(config.fill, abs=0.1 * config.fill + 0.05 * config.width)
        spread = float((empty - config.width * 0.5).quantile(0.9)) / config.fill
        assert spread > 10 ** (1.1 * config.fill_decades)
        return
    sums = GEOMETRY.layer_sums(voxels).clamp_min(1e-3)[:, torch.tensor(GEOMETRY.layer_of_voxel)]
    size = (noisy - voxels) / (config.width * (sums if config.noise == "relative" else 1.0))
    assert -1e-9 <= size.min()
    assert size.max() <= 1 + 1e-9
    assert abs(size.mean() - 0.5) < 0.02


def test_the_scales_have_the_density_that_is_taken_off() -> None:
    step = Preprocessing(GEOMETRY, PreprocessingConfig(scale=0.9))
    assert step.cells.log_scale_density == pytest.approx(-3 * math.log(0.1))
    scales = step.cells.augment(torch.ones(20_000, 7, dtype=torch.float64), generator(1))[:, 7:]
    assert abs(scales.mean() - 0.95) < 5 * 0.1 / math.sqrt(12 * 60_000)
    assert abs(scales.std() - 0.1 / math.sqrt(12)) < 3e-4


def test_noise_comes_from_the_generator_alone() -> None:
    step, voxels = Preprocessing(GEOMETRY, SETTINGS["small"]), showers(3, generator(1))[0]
    state = torch.random.get_rng_state()
    first, second, other = (step.cells.augment(voxels, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": "pink"}, 'noise = "pink": must be "below-threshold" or'),
        ({"unit": "GeV"}, 'unit = "GeV": must be'),
        ({"voxels": "root"}, "voxels = "),
        ({"energies": "sqrt"}, "energies = "),
        ({"threshold": -1.0}, "threshold = -1.0: must be a number, at least 0"),
        ({"threshold": math.nan}, "threshold = nan"),
        ({"width": 0.0}, "width"),
        ({"largest_ratio": 0.0}, "largest_ratio"),
        ({"alpha": 0.5}, "alpha"),
        ({"levels": 1}, "levels"),
        ({"fill": 0.0}, "fill = 0.0: must be a number, more than 0"),
        ({"fill_decades": math.nan}, "fill_decades = nan"),
        ({"unit": "threshold", "threshold": 1.0, "noise": "below-threshold", "voxels": "log-logit"}, "choose voxels"),
        ({"levels": -2}, "levels"),
        ({"scale": 1.0}, "scale"),
        ({"scale": 0.0}, "scale"),
        ({"noise": "below-threshold"}, "goes with noise below it"),
        ({"threshold": 1.0}, "goes with noise below it"),
        ({"width": math.inf}, "width = inf"),
        ({"output_cut": -1.0}, "output_cut = -1.0"),
        ({"unit": "threshold", "voxels": "log"}, "need threshold > 0"),
        ({"unit": "threshold", "threshold": 1.0, "noise": "below-threshold"}, "choose voxels = 'log'"),
        ({"threshold": 1.0, "noise": "below-threshold", "gap": 0.1, "scale": 0.9}, "gap must exceed 0.211"),
        ({"threshold": 1.0, "noise": "below-threshold", "gap": math.nan}, "gap = nan"),
    ],
)
def test_settings_that_are_wrong_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PreprocessingConfig(**change)


def test_a_negative_alpha_is_refused() -> None:
    with pytest.raises(ConfigError, match="negative"):
        ShiftedLog(-1.0)


@pytest.mark.parametrize("context", [None, torch.ones(3), torch.ones(2, 1)])
@pytest.mark.parametrize("step", [StickBreaking(), LogSticks()])
def test_sticks_need_one_incident_energy_per_shower(step: Transform, context: Tensor | None) -> None:
    with pytest.raises(ShapeError, match="incident energies"):
        step(torch.ones(3, 2), context)
    with pytest.raises(ShapeError, match="incident energies"):
        step.inverse(torch.ones(3, 2), context)


@pytest.mark.parametrize("shape", [(3, DIM - 1), (DIM,)])
def test_points_of_another_geometry_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="expected"):
        layer_scale(0.0, "layer")(torch.ones(shape))
    with pytest.raises(ShapeError, match="small has showers"):
        Preprocessing(GEOMETRY, PreprocessingConfig()).cells.augment(torch.ones(shape), generator(1))
