"""The strong coupling against closed forms and an independent solution of its equation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from nisampler.errors import ConfigError
from nisampler.processes.constants import MASS_Z
from nisampler.processes.partons.alpha_s import RunningAlphaS, TabulatedAlphaS, beta_coefficients

FIVE = (0.0, 0.0, math.inf)


def scales(low: float, high: float, n: int = 400) -> torch.Tensor:
    return torch.logspace(math.log10(low), math.log10(high), n, dtype=torch.float64).square()


def test_one_loop_has_a_closed_form() -> None:
    q2 = scales(1, 1e4)
    b0 = 23 / (12 * math.pi)
    exact = 0.118 / (1 + b0 * 0.118 * (q2 / MASS_Z**2).log())
    assert torch.allclose(RunningAlphaS(0.118, masses=FIVE)(q2), exact, rtol=1e-8)


def test_two_loops_have_an_implicit_solution() -> None:
    q2 = scales(1, 1e4)
    b0, b1 = beta_coefficients(5, 2)
    alpha = RunningAlphaS(0.118, loops=2, masses=FIVE)(q2)

    def primitive(a: torch.Tensor) -> torch.Tensor:
        return 1 / (b0 * a) + b1 / b0**2 * (b0 * a / (b0 + b1 * a)).log()

    start = primitive(torch.tensor(0.118, dtype=torch.float64))
    assert torch.allclose(primitive(alpha) - start, (q2 / MASS_Z**2).log(), atol=1e-6)


@pytest.mark.parametrize("loops", (1, 2, 3))
def test_against_scipy_over_all_thresholds(loops: int) -> None:
    masses = (1.4, 4.75, 172.5)
    run = RunningAlphaS(0.118, loops=loops, masses=masses)
    step = 7 / (24 * math.pi**2) if loops == 3 else 0.0
    edges = [(1.0, 3), (masses[0], 4), (masses[1], 5), (MASS_Z, 5)]
    value = 0.118
    for (low, flavours), (high, _) in reversed(list(itertools.pairwise(edges))):
        beta = beta_coefficients(flavours, loops)
        t = np.linspace(2 * math.log(high), 2 * math.log(low), 60)
        slope = lambda _, a, beta=beta: -sum(b * a ** (i + 2) for i, b in enumerate(beta))  # noqa: E731
        solution = solve_ivp(slope, (t[0], t[-1]), [value], method="Radau", t_eval=t, rtol=1e-11, atol=1e-13).y[0]
        inside = slice(1, -1)
        assert run(torch.from_numpy(np.exp(t[inside]))).numpy() == pytest.approx(solution[inside], rel=1e-7)
        value = solution[-1] * (1 - step * solution[-1] ** 2)


def test_the_reference_value_and_the_steps_at_the_thresholds() -> None:
    for loops in (1, 2, 3):
        run = RunningAlphaS(0.1181, 91.2, loops)
        assert run(torch.tensor(91.2**2)).item() == pytest.approx(0.1181, rel=1e-6)
        for mass in run.masses:
            below, above = run(torch.tensor([mass**2 * (1 - 1e-12), mass**2 * (1 + 1e-12)], dtype=torch.float64))
            size = 7 / (24 * math.pi**2) * below.item() ** 2 if loops == 3 else 0.0
            assert (above / below - 1).item() == pytest.approx(size, rel=3e-2, abs=1e-9)


def test_more_loops_differ() -> None:
    values = [RunningAlphaS(0.118, loops=loops)(torch.tensor(4.0)).item() for loops in (1, 2, 3)]
    assert values[0] < values[1] < values[2]
    assert values[1] / values[0] > 1.05


def test_frozen_outside_and_any_shape() -> None:
    run = RunningAlphaS(0.118, q_min=2.0, q_max=1e3)
    q2 = torch.tensor([[1e-4, 4.0], [1e6, 1e12]], dtype=torch.float64)
    values = run(q2)
    assert values[0, 0] == values[0, 1]
    assert values[1, 0].item() == pytest.approx(values[1, 1].item(), rel=1e-12)
    assert run(torch.empty(3, 2, device="meta")).device.type == "meta"


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"loops": 4}, "loops = 4: must be 1 or 2 or 3"),
        ({"loops": 0}, "loops = 0"),
        ({"alpha_s_mz": -0.1}, "alpha_s_mz"),
        ({"alpha_s_mz": math.nan}, "alpha_s_mz"),
        ({"masses": (4.0, 1.0, 170.0)}, "must rise"),
        ({"masses": (2.0, 2.0, 170.0)}, "must rise"),
        ({"q_min": 100.0}, "q_min < mass_z"),
        ({"q_max": math.inf}, "q_max"),
        ({"q_min": 0.1}, r"exceeds 1\.5.*raise q_min"),
    ),
)
def test_wrong_parameters(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RunningAlphaS(**{"alpha_s_mz": 0.118, **options})


def test_wrong_tables() -> None:
    for scales, values in (([1.0, 2.0], [0.3]), ([1.0], [0.3])):
        with pytest.raises(ConfigError, match="as many scales"):
            TabulatedAlphaS(scales, values)
    with pytest.raises(ConfigError, match="positive and finite"):
        TabulatedAlphaS([1.0, 2.0], [0.3, math.nan])
    for scales, values in (([1.0, 2.0, 3.0], [0.3, 1e308, 0.1]), ([1.0, 2.0, 1e200], [0.3, 0.2, 0.1])):
        with pytest.raises(ConfigError, match=r"values up to 100 and scales up to 1e\+30 GeV"):
            TabulatedAlphaS(scales, values)
    for scales in ([2.0, 1.0, 3.0], [1.0, 2.0, 2.0]):
        with pytest.raises(ConfigError, match="rise"):
            TabulatedAlphaS(scales, [0.3, 0.2, 0.1])
