"""e- e+ -> q qbar g: matrix element, cross-section, events."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import dblquad
from windows import limit

from nisampler.base.rng import Streams
from nisampler.errors import ConfigError, DomainError, ShapeError
from nisampler.events.rules import require_valid
from nisampler.processes.lepton.ee_analytic import analytic_cross_section, born_cross_section, dalitz_integral
from nisampler.processes.lepton.ee_matrix_element import (
    EEToThreeJetsParameters,
    beam_momenta,
    chirality_factors,
    squared_matrix_element,
)
from nisampler.processes.lepton.ee_to_3jets import EEToThreeJets
from nisampler.processes.phase_space.kinematics import boost, durham_y23, rotate

DATA = Path(__file__).parent / "data" / "ee_to_3jets_pyamplicol.json"


def cube(n: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(n, 5, dtype=torch.float64, generator=Streams(seed).generator("cube"))


def reference_points() -> list[dict[str, Any]]:
    return json.loads(DATA.read_text())["points"]


def ratio_to_reference(point: dict[str, Any], flavour: int) -> float:
    momenta = torch.tensor(point["momenta"], dtype=torch.float64)
    parameters = EEToThreeJetsParameters(**point["parameters"])
    ours = squared_matrix_element(parameters, momenta[:2], momenta[2:], flavour)
    return ours.item() / point["squared_matrix_element"]


def test_matrix_element_agrees_with_pyamplicol() -> None:
    points = reference_points()
    assert len(points) == 40
    assert {p["flavour"] for p in points} == {1, 2}
    for point in points:
        assert ratio_to_reference(point, point["flavour"]) == pytest.approx(1, rel=1e-8)


def test_the_comparison_sees_a_wrong_flavour_or_swapped_quarks() -> None:
    for point in reference_points():
        assert abs(ratio_to_reference(point, 3 - point["flavour"]) - 1) > 1e-2
        m = point["momenta"]
        swapped = point | {"momenta": [m[0], m[1], m[3], m[2], m[4]]}
        assert abs(ratio_to_reference(swapped, point["flavour"]) - 1) > 1e-5


def test_flavours_of_one_type_agree() -> None:
    p = EEToThreeJetsParameters()
    assert chirality_factors(p, 2) == chirality_factors(p, 4)
    assert chirality_factors(p, 1) == chirality_factors(p, 3) == chirality_factors(p, 5)


def test_matrix_element_is_lorentz_invariant() -> None:
    process = EEToThreeJets()
    partons = process.momenta(cube(200))
    beams = beam_momenta(91.1876, partons).expand(200, 2, 4)
    velocity = torch.tensor([0.3, -0.2, 0.6], dtype=torch.float64)
    expected = squared_matrix_element(process.parameters, beams, partons, 2)
    moved = squared_matrix_element(process.parameters, boost(beams, velocity), boost(partons, velocity), 2)
    assert torch.allclose(moved, expected, rtol=1e-8)
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    turned = squared_matrix_element(process.parameters, beams, rotate(partons, turn), 2)
    assert torch.allclose(turned, expected, rtol=1e-10)


@pytest.mark.parametrize("sqrt_s", [20.0, 91.1876, 200.0])
@pytest.mark.parametrize("flavour", [1, 2])
def test_average_over_orientations_is_the_analytic_distribution(sqrt_s: float, flavour: int) -> None:
    """<|M|^2> / (2 s) s / (128 pi^3) = sigma_0 alpha_s C_F / (2 pi) (x_1^2 + x_2^2) / ((1 - x_1)(1 - x_2)).

    |M|^2 is a polynomial of degree two in the beam direction, so six directions average it exactly.
    """
    p = EEToThreeJetsParameters(sqrt_s=sqrt_s, alpha_s=0.12)
    partons = EEToThreeJets(p).momenta(cube(50))
    half = 0.5 * sqrt_s
    directions = torch.cat([torch.eye(3, dtype=torch.float64), -torch.eye(3, dtype=torch.float64)])
    values = []
    for n in directions:
        energy = torch.tensor([half], dtype=torch.float64)
        beams = torch.stack([torch.cat([energy, half * n]), torch.cat([energy, -half * n])])
        values.append(squared_matrix_element(p, beams.expand(50, 2, 4), partons, flavour))
    average = torch.stack(values).mean(0) / (256 * math.pi**3)
    x = 2 * partons[..., 0] / sqrt_s
    shape = (x[:, 0] ** 2 + x[:, 1] ** 2) / ((1 - x[:, 0]) * (1 - x[:, 1]))
    born = born_cross_section(p, flavour) / 0.3893793721e9
    assert torch.allclose(average, born * p.alpha_s * (4 / 3) / (2 * math.pi) * shape, rtol=1e-9)


@pytest.mark.parametrize("phase_space", ["durham", "kt"])
@pytest.mark.parametrize(("sqrt_s", "y_cut"), [(91.1876, 0.01), (200.0, 0.003), (40.0, 0.1)])
def test_cross_section_agrees_with_the_analytic_distribution(phase_space: Any, sqrt_s: float, y_cut: float) -> None:
    parameters = EEToThreeJetsParameters(sqrt_s=sqrt_s, y_cut=y_cut, phase_space=phase_space)
    values = EEToThreeJets(parameters)(cube(400_000, 21))
    error = values.std().item() / math.sqrt(len(values))
    exact = analytic_cross_section(parameters)
    assert error < 2e-3 * exact
    assert abs(values.mean().item() - exact) < limit() * error


def test_a_wrong_jacobian_would_be_seen() -> None:
    values = EEToThreeJets()(cube(400_000, 21)) * 1.01
    error = values.std().item() / math.sqrt(len(values))
    assert abs(values.mean().item() - analytic_cross_section(EEToThreeJetsParameters())) > 6 * error


@pytest.mark.parametrize("y_cut", [0.01, 0.1, 0.3])
def test_dalitz_integral_agrees_with_brute_force(y_cut: float) -> None:
    """A midpoint sum with the cut as a mask, and no knowledge of its limits."""
    n = 2000
    axis = y_cut * (1 / y_cut) ** ((np.arange(n) + 0.5) / n)
    a, b = np.meshgrid(axis, axis)
    x = np.stack([1 - a, 1 - b, a + b])
    with np.errstate(divide="ignore", invalid="ignore"):
        pairs = [(0, 1, 2), (0, 2, 1), (1, 2, 0)]
        y = np.min([(1 - x[k]) * np.minimum(x[i] / x[j], x[j] / x[i]) for i, j, k in pairs], axis=0)
    inside = (y > y_cut) & (a + b < 1)
    total = np.sum((x[0] ** 2 + x[1] ** 2)[inside]) * (math.log(1 / y_cut) / n) ** 2
    assert dalitz_integral(y_cut) == pytest.approx(total, rel=3e-3)


def test_dalitz_integral_is_converged() -> None:
    for y_cut in (1e-4, 0.01, 0.3):
        assert dalitz_integral(y_cut, 32) == pytest.approx(dalitz_integral(y_cut, 64), rel=1e-9)


def test_analytic_cross_section_scales_with_couplings() -> None:
    base = analytic_cross_section(EEToThreeJetsParameters())
    assert analytic_cross_section(EEToThreeJetsParameters(alpha_s=0.236)) == pytest.approx(2 * base)
    single = sum(analytic_cross_section(EEToThreeJetsParameters(flavours=(f,))) for f in range(1, 6))
    assert single == pytest.approx(base)


def test_born_cross_section_at_low_energy_is_photon_exchange() -> None:
    p = EEToThreeJetsParameters(sqrt_s=1.0)
    qed = 4 * math.pi * p.alpha_em**2 / 3 * 3 * (4 / 9) * 0.3893793721e9
    assert born_cross_section(p, 2) == pytest.approx(qed, rel=1e-3)


def test_integrand_is_zero_outside_the_cut_and_positive_inside() -> None:
    process = EEToThreeJets(EEToThreeJetsParameters(phase_space="kt"))
    u = cube(5000)
    values, inside = process(u), durham_y23(process.momenta(u)) > 0.01
    assert 0.6 < inside.double().mean().item() < 0.9
    assert bool(((values > 0) == inside).all())


def test_cube_points_invert_momenta() -> None:
    process = EEToThreeJets()
    u = cube(1000)
    assert torch.allclose(process.cube_points(process.momenta(u)), u, atol=1e-9)


def test_float32_agrees() -> None:
    process = EEToThreeJets()
    u = cube(2000).clamp(0.02, 0.98)
    single = process(u.float())
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), process(u), rtol=1e-3)


def events(n: int = 2000, seed: int = 5, **parameters: Any) -> Any:
    process = EEToThreeJets(EEToThreeJetsParameters(**parameters))
    u = cube(n, seed)
    weights = torch.ones(n, dtype=torch.float64)
    return process, u, process.events(u, weights, Streams(seed).generator("flavour"))


def test_event_record() -> None:
    process, u, batch = events()
    require_valid(batch)
    assert len(batch) == 2000
    assert batch.pdg_ids[:, :2].tolist() == [[11, -11]] * 2000
    assert np.all(batch.momenta[:, 0, 3] > 0)
    assert np.all(batch.momenta[:, 1, 3] < 0)
    assert np.all(batch.pdg_ids[:, 2] == -batch.pdg_ids[:, 3])
    assert set(batch.pdg_ids[:, 2].tolist()) == {1, 2, 3, 4, 5}
    assert np.all(batch.pdg_ids[:, 4] == 21)
    assert batch.colours[0].tolist() == [[0, 0], [0, 0], [501, 0], [0, 502], [502, 501]]
    assert batch.mothers[0].tolist() == [[0, 0], [0, 0], [1, 2], [1, 2], [1, 2]]
    assert batch.status[0].tolist() == [-1, -1, 1, 1, 1]
    assert np.allclose(batch.momenta[:, 2:], process.momenta(u).numpy())
    assert np.all(batch.scales == 91.1876)
    assert np.all(batch.alpha_s == 0.118)
    assert np.all(batch.spins == 9)
    assert process.beams.pdg_ids == (11, -11)
    assert sum(process.beams.energies) == pytest.approx(91.1876)


def test_colour_lines_connect() -> None:
    """Each tag of the final state appears once as a colour and once as an anticolour."""
    colours = events(1)[2].colours[0]
    assert sorted(t for t in colours[:, 0] if t) == sorted(t for t in colours[:, 1] if t) == [501, 502]


def test_flavours_follow_their_probabilities() -> None:
    process, u, batch = events(50_000, sqrt_s=200.0)
    probabilities = process.flavour_probabilities(process.momenta(u))
    assert torch.allclose(probabilities.sum(1), torch.ones(50_000, dtype=torch.float64))
    counts = np.bincount(batch.pdg_ids[:, 2], minlength=6)[1:]
    expected = probabilities.sum(0).numpy()
    variance = (probabilities * (1 - probabilities)).sum(0).numpy()
    assert np.all(np.abs(counts - expected) < 4 * np.sqrt(variance))
    forward = process.momenta(u)[:, 0, 3].numpy() > 0
    up = np.isin(batch.pdg_ids[:, 2], (2, 4))
    wanted = probabilities[:, [1, 3]].sum(1).numpy()
    assert abs(up[forward].sum() - wanted[forward].sum()) < 4 * math.sqrt(variance.sum())


def test_flavour_probabilities_are_ratios_of_matrix_elements() -> None:
    process = EEToThreeJets(EEToThreeJetsParameters(sqrt_s=60.0, flavours=(2, 5)))
    partons = process.momenta(cube(100))
    beams = beam_momenta(60.0, partons).expand(100, 2, 4)
    up, bottom = (squared_matrix_element(process.parameters, beams, partons, f) for f in (2, 5))
    assert torch.allclose(process.flavour_probabilities(partons)[:, 0], up / (up + bottom))


def test_events_are_reproducible_and_keep_their_weights() -> None:
    process, u, first = events(100)
    weights = torch.linspace(1, 2, 100, dtype=torch.float64)
    second = process.events(u, weights, Streams(5).generator("flavour"))
    assert np.array_equal(first.pdg_ids, second.pdg_ids)
    assert np.array_equal(second.weights, weights.numpy())


def test_observables_lie_in_their_ranges() -> None:
    process, _, batch = events()
    names = [o.name for o in process.observables]
    assert names[:2] == ["thrust", "y23"]
    for observable in process.observables:
        values = observable(batch)
        assert values.shape == (2000,)
        assert np.all((values >= observable.low) & (values <= observable.high)), observable.name


def test_thrust_of_events_is_the_largest_energy_fraction() -> None:
    process, _, batch = events()
    by_name = {o.name: o(batch) for o in process.observables}
    assert np.allclose(by_name["thrust"], by_name["x1"])
    assert np.allclose(by_name["cos_theta_thrust"], np.abs(by_name["cos_theta_jet"]))


def test_events_outside_the_cut_are_refused() -> None:
    process = EEToThreeJets(EEToThreeJetsParameters(phase_space="kt"))
    u = cube(100)
    with pytest.raises(DomainError, match="outside the cut"):
        process.events(u, torch.ones(100), Streams(1).generator("flavour"))


def test_wrong_shapes_are_refused() -> None:
    process = EEToThreeJets()
    with pytest.raises(ShapeError, match=r"\(n, 5\)"):
        process(torch.zeros(3, 4))
    with pytest.raises(ShapeError, match="weights"):
        process.events(cube(3), torch.ones(2), Streams(1).generator("flavour"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sqrt_s", 0.0),
        ("sqrt_s", math.inf),
        ("alpha_s", -0.1),
        ("alpha_em", math.nan),
        ("m_z", 0),
        ("gamma_z", -1.0),
        ("sin2_theta_w", 1.0),
        ("y_cut", 0.0),
        ("y_cut", 0.34),
        ("flavours", ()),
        ("flavours", (1, 1)),
        ("flavours", (6,)),
    ],
)
def test_values_outside_their_range_are_named(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=field):
        EEToThreeJetsParameters(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [("sqrt_s", "91"), ("alpha_s", True), ("y_cut", None), ("flavours", 3), ("phase_space", "flat")],
)
def test_values_of_the_wrong_type_are_named(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=field):
        EEToThreeJetsParameters(**{field: value})


def test_unknown_flavour_of_the_matrix_element() -> None:
    with pytest.raises(ConfigError, match="flavour = 6: must be"):
        squared_matrix_element(EEToThreeJetsParameters(), torch.ones(2, 4), torch.ones(3, 4), 6)


def test_reference_of_the_cut_region_by_adaptive_quadrature() -> None:
    """An adaptive two-dimensional integral over the region's own limits, in (ln b, eta)."""
    from nisampler.processes.phase_space.three_body import DurhamRegion

    region = DurhamRegion(0.05)

    def limits(eta: float) -> tuple[float, float]:
        low, high = region.limits(torch.tensor(math.exp(2 * abs(eta)), dtype=torch.float64))
        return math.log(low), math.log(high)

    def integrand(log_b: float, eta: float) -> float:
        b = math.exp(log_b)
        a = b * math.exp(2 * eta)
        return 2 * ((1 - a) ** 2 + (1 - b) ** 2)

    edge = 0.5 * math.log(region.max_ratio)
    value, _ = dblquad(integrand, 0, edge, lambda e: limits(e)[0], lambda e: limits(e)[1], epsrel=1e-7)
    assert 2 * value == pytest.approx(dalitz_integral(0.05), rel=1e-6)
