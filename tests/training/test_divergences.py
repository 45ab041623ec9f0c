"""Every divergence against quadrature in one dimension: value, gradient, minimum, edges of the support."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from windows import limit

from nisampler.errors import ConfigError, DomainError, NonFiniteError, ShapeError
from nisampler.training.divergences import (
    DIVERGENCES,
    Alpha,
    Chernoff,
    Divergence,
    ForwardKL,
    Hellinger,
    LogVariance,
    Renyi,
    Variance,
    divergence,
)

NORM = 3.0
"""Integral of the unnormalised target."""

TRUE_TILT = 2.0

EDGE = 0.3
"""Below it, the target with an empty region vanishes."""

Formula = Callable[[Tensor, Tensor, Tensor], Tensor]

# The textbook integrands, without the shifts of the implementation; arguments are the densities p, q and g.
TEXTBOOK: dict[str, Formula] = {
    "ab_product": lambda p, q, g: 8 * p * (1 - (q / p) ** 0.25) ** 2,
    "alpha": lambda p, q, g: (p**4 / q**3 - p) / 12,
    "chernoff": lambda p, q, g: 4 / 0.75 * (p - p**0.25 * q**0.75),
    "exponential": lambda p, q, g: p * (p / q).log() ** 2,
    "forward_kl": lambda p, q, g: p * (p / q).log(),
    "hellinger": lambda p, q, g: 0.5 * (p.sqrt() - q.sqrt()) ** 2,
    "jeffreys": lambda p, q, g: (p - q) * (p / q).log(),
    "jensen_shannon": lambda p, q, g: 0.5 * (p * (2 * p / (p + q)).log() + q * (2 * q / (p + q)).log()),
    "pearson": lambda p, q, g: (p - q) ** 2 / p,
    "reverse_kl": lambda p, q, g: q * (q / p).log(),
    "squared_exponential": lambda p, q, g: p**2 / q * (p / q).log() ** 2,
    "variance": lambda p, q, g: p**2 / q - p,
}

NAMES = sorted(DIVERGENCES)


def tilted(x: Tensor, tilt: Tensor | float) -> Tensor:
    """Log density of the family exp(tilt x) on the unit interval."""
    tilt = torch.as_tensor(tilt, dtype=torch.float64)
    return tilt * x - ((tilt.exp() - 1.0) / tilt).log()


def target(x: Tensor) -> Tensor:
    return NORM * tilted(x, TRUE_TILT).exp()


def proposal_density(x: Tensor) -> Tensor:
    """g, neither p nor q: linear from 0.6 to 1.4."""
    return 0.6 + 0.8 * x


def proposal_quantile(u: Tensor) -> Tensor:
    return (-0.6 + (0.36 + 1.6 * u).sqrt()) / 0.8


def quadrature(name: str, tilt: Tensor) -> Tensor:
    """The divergence by Gauss-Legendre quadrature, from its textbook formula."""
    nodes, weights = np.polynomial.legendre.leggauss(60)
    x, dx = torch.from_numpy(0.5 * nodes + 0.5), torch.from_numpy(0.5 * weights)
    p, q, g = target(x) / NORM, tilted(x, tilt).exp(), proposal_density(x)
    if name == "log_variance":
        log_t = (p / q).log()
        return (g * log_t**2 * dx).sum() - (g * log_t * dx).sum() ** 2
    if name == "renyi":
        return (p**4 / q**3 * dx).sum().log() / 3
    return (TEXTBOOK[name](p, q, g) * dx).sum()


def even_points(n: int) -> Tensor:
    """Midpoints of n cells of equal probability under g: Monte-Carlo sums become quadrature."""
    return proposal_quantile((torch.arange(n, dtype=torch.float64) + 0.5) / n)


def random_points(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return proposal_quantile(torch.rand(n, dtype=torch.float64, generator=generator))


def batch_results(d: Divergence, tilt: float, batches: int, n: int, claim: Tensor | None = None) -> np.ndarray:
    """Value and gradient of independent batches, shape (batches, 2); `claim` falsifies log g."""
    rows = []
    for seed in range(batches):
        x = random_points(n, 1000 + seed)
        theta = torch.tensor(tilt, dtype=torch.float64, requires_grad=True)
        log_g = proposal_density(x).log() if claim is None else claim.expand_as(x)
        value = d(tilted(x, theta), target(x), log_g, NORM)
        (gradient,) = torch.autograd.grad(value, theta)
        rows.append((value.item(), gradient.item()))
    return np.array(rows)


def worst_pull(rows: np.ndarray, truth: tuple[float, float]) -> float:
    """Of value and gradient, means over the batches, the one further from the truth, in standard errors."""
    pulls = (rows.mean(0) - np.array(truth)) / (rows.std(0, ddof=1) / math.sqrt(len(rows)))
    return float(np.abs(pulls).max())


def bound(rows: np.ndarray, checks: int = 2) -> float:
    """What a right program keeps, with value and gradient as two checks."""
    return limit(checks, dof=len(rows) - 1)


def truth_at(name: str, tilt: float) -> tuple[float, float]:
    theta = torch.tensor(tilt, dtype=torch.float64, requires_grad=True)
    value = quadrature(name, theta)
    (gradient,) = torch.autograd.grad(value, theta)
    return value.item(), gradient.item()


def test_every_divergence_has_a_textbook_formula() -> None:
    assert set(TEXTBOOK) | {"renyi", "log_variance"} == set(DIVERGENCES)


@pytest.mark.parametrize("name", NAMES)
def test_value_agrees_with_quadrature(name: str) -> None:
    x = even_points(20_000)
    for tilt in (0.7, 3.5):
        value = divergence(name)(tilted(x, tilt), target(x), proposal_density(x).log(), NORM)
        assert float(value) == pytest.approx(truth_at(name, tilt)[0], rel=2e-4, abs=1e-8)
        assert float(value) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_gradient_agrees_with_quadrature(name: str) -> None:
    x = even_points(20_000)
    theta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    value = divergence(name)(tilted(x, theta), target(x), proposal_density(x).log(), NORM)
    (gradient,) = torch.autograd.grad(value, theta)
    assert float(gradient) == pytest.approx(truth_at(name, 0.7)[1], rel=2e-4)


@pytest.mark.parametrize("name", [name for name in NAMES if DIVERGENCES[name].unbiased])
def test_small_batches_are_unbiased(name: str) -> None:
    """Batches of 50 points: a bias of order 1/n of the size of the noise would show."""
    rows = batch_results(divergence(name), 0.7, batches=700, n=50)
    assert worst_pull(rows, truth_at(name, 0.7)) < bound(rows)


@pytest.mark.parametrize("control", [0.0, 0.5])
@pytest.mark.parametrize("kind", [ForwardKL, Variance])
def test_control_variate_changes_no_expectation(kind: type[ForwardKL | Variance], control: float) -> None:
    rows = batch_results(kind(control), 0.7, batches=400, n=200)
    assert worst_pull(rows, truth_at(kind.name, 0.7)) < bound(rows)


def test_renyi_bias_falls_as_one_over_n() -> None:
    """The documented exception: visible in batches of 4, gone in batches of 2000; `alpha` has none."""
    truth = truth_at("renyi", 0.7)
    small = batch_results(Renyi(4.0), 0.7, batches=2000, n=4)
    large = batch_results(Renyi(4.0), 0.7, batches=100, n=2000)
    twin = batch_results(Alpha(4.0), 0.7, batches=2000, n=4)
    assert worst_pull(large, truth) < bound(large, checks=4)
    assert worst_pull(small, truth) > 2 * bound(small)
    assert worst_pull(twin, truth_at("alpha", 0.7)) < bound(twin, checks=4)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_proposal_density_is_noticed(name: str) -> None:
    """Negative control: the same pulls with a proposal density that is not the points' own."""
    claimed = torch.tensor(0.0, dtype=torch.float64)
    rows = batch_results(divergence(name), 0.7, batches=100, n=5000, claim=claimed)
    worst = worst_pull(rows, truth_at(name, 0.7))
    if name == "log_variance":
        assert worst < bound(rows)  # its measure is the points themselves: log g is not used inside the support
    else:
        assert worst > 8.0


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"log_variance", "renyi"}))
def test_reuse_of_points_from_other_proposals_is_unbiased(name: str) -> None:
    """Half the points from g, half from another density, each with its own log g, as from a buffer."""
    rows = []
    for seed in range(300):
        old = torch.rand(100, dtype=torch.float64, generator=torch.Generator().manual_seed(5000 + seed))
        new = random_points(100, 6000 + seed)
        log_g = torch.cat([torch.zeros_like(old), proposal_density(new).log()])
        x = torch.cat([old, new])
        theta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        value = divergence(name)(tilted(x, theta), target(x), log_g, NORM)
        (gradient,) = torch.autograd.grad(value, theta)
        rows.append((value.item(), gradient.item()))
    assert worst_pull(np.array(rows), truth_at(name, 0.7)) < bound(np.array(rows))


@pytest.mark.parametrize("norm", [NORM, None, torch.tensor(NORM)])
@pytest.mark.parametrize("name", NAMES)
def test_minimum_is_where_q_equals_p(name: str, norm: float | Tensor | None) -> None:
    x = even_points(5000)
    tilts = torch.linspace(0.25, 4.0, 16, dtype=torch.float64)
    values = [float(divergence(name)(tilted(x, tilt), target(x), proposal_density(x).log(), norm)) for tilt in tilts]
    assert tilts[int(np.argmin(values))] == TRUE_TILT
    assert min(values) == pytest.approx(0.0, abs=1e-6)
    assert all(np.diff(values[:8]) < 0) and all(np.diff(values[8:]) > 0)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_noise_vanishes_at_the_minimum(name: str) -> None:
    rows = batch_results(divergence(name), TRUE_TILT, batches=3, n=100)
    assert np.abs(rows).max() < 1e-12


def test_uncontrolled_gradient_is_noisy_at_the_minimum() -> None:
    rows = batch_results(ForwardKL(control=0.0), TRUE_TILT, batches=3, n=100)
    assert np.abs(rows[:, 1]).max() > 1e-3


# A target with an empty region: f = 0 for x < EDGE. The proposal leaks a share of its mass into it.


def leaking(x: Tensor, tilt: float, leak: Tensor | float) -> Tensor:
    leak = torch.as_tensor(leak, dtype=torch.float64)
    inner = (1.0 - leak).log() + tilted((x - EDGE) / (1.0 - EDGE), tilt) - math.log(1.0 - EDGE)
    return torch.where(x < EDGE, (leak / EDGE).log(), inner)


def target_with_hole(x: Tensor) -> Tensor:
    return torch.where(x < EDGE, 0.0, NORM * leaking(x, TRUE_TILT, 0.0).exp())


def loss_with_hole(d: Divergence, tilt: float, leak: Tensor | float, n: int = 5000) -> Tensor:
    x = even_points(n)
    return d(leaking(x, tilt, leak), target_with_hole(x), proposal_density(x).log(), NORM)


@pytest.mark.parametrize("name", NAMES)
def test_leakage_out_of_the_support_is_penalised(name: str) -> None:
    d = divergence(name)
    leaks = [1e-9, 0.01, 0.05, 0.2, 0.5]
    table = np.array([[float(loss_with_hole(d, tilt, leak)) for leak in leaks] for tilt in (1.0, 2.0, 3.0)])
    assert np.isfinite(table).all()
    assert np.unravel_index(table.argmin(), table.shape) == (1, 0)
    assert (np.diff(table[1]) > 0).all()
    assert table.min() == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_pushes_leaked_mass_back(name: str) -> None:
    leak = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss_with_hole(divergence(name), TRUE_TILT, leak), leak)
    assert math.isfinite(float(gradient)) and float(gradient) > 0.05


def test_log_variance_alone_is_blind_to_leakage() -> None:
    """Negative control: with a vanishing price of leakage, half the mass outside costs nothing."""
    blind = LogVariance(leak=1e-12)
    half, none = (float(loss_with_hole(blind, TRUE_TILT, leak)) for leak in (0.5, 1e-9))
    assert abs(half - none) < 1e-10
    assert float(loss_with_hole(LogVariance(), TRUE_TILT, 0.5)) == pytest.approx(0.5, rel=1e-3)


def test_leak_term_is_unbiased_and_needs_the_true_proposal() -> None:
    """With a constant weight on the support the log-variance is the leaked mass alone: value, slope 1."""
    rows, wrong = [], []
    for seed in range(400):
        x = random_points(60, 9000 + seed)
        leak = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
        for log_g, results in ((proposal_density(x).log(), rows), (torch.zeros_like(x), wrong)):
            value = LogVariance()(leaking(x, TRUE_TILT, leak), target_with_hole(x), log_g)
            (gradient,) = torch.autograd.grad(value, leak)
            results.append((value.item(), gradient.item()))
    assert worst_pull(np.array(rows), (0.2, 1.0)) < bound(np.array(rows))
    assert worst_pull(np.array(wrong), (0.2, 1.0)) > 8.0


@pytest.mark.parametrize("name", ["reverse_kl", "pearson"])
def test_floor_prices_leaked_mass(name: str) -> None:
    """Outside the support: φ(0) per unit of mass; inside, t = 1/(1 - leak) everywhere."""
    leak, floor = 0.2, 1e-4
    t = 1.0 / (1.0 - leak)
    inner = {"reverse_kl": t - 1 - math.log(t), "pearson": t - 2 + 1 / t}[name] * (1 - leak)
    outer = {"reverse_kl": -math.log(floor), "pearson": 2 / floor - 2}[name] * leak
    value = loss_with_hole(divergence(name, floor=floor), TRUE_TILT, leak, n=200_000)
    assert float(value) == pytest.approx(inner + outer, rel=1e-4)


@pytest.mark.parametrize("name", ["reverse_kl", "jeffreys", "pearson"])
def test_floor_joins_smoothly(name: str) -> None:
    """Value and gradient agree on both sides of p/q = floor, and stay convex below it."""
    d = divergence(name, floor=0.01)
    log_t = torch.tensor([0.01 * (1 - 1e-9), 0.01 * (1 + 1e-9)], dtype=torch.float64).log()
    results = []
    for point in log_t:
        log_q = (-point).reshape(1).requires_grad_()
        value = d(log_q, torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64), 1.0)
        results.append((value.item(), torch.autograd.grad(value, log_q)[0].item()))
    assert results[0] == pytest.approx(results[1], rel=1e-6)


# Derivatives in closed form


class WrongSlopes(Hellinger):
    """A negative control: the derivatives of something else."""

    def _slopes(self, log_t: Tensor, q: Tensor, p: Tensor) -> Tensor:
        return 1.01 * super()._slopes(log_t, q, p)


def derivatives(d: Divergence, log_q: Tensor, f: Tensor, log_g: Tensor, norm: float | None) -> tuple[Tensor, Tensor]:
    """Derivatives in log q as they are given, and by autograd from the estimate."""
    (given,) = torch.autograd.grad(d(log_q, f, log_g, norm), log_q)
    numbers = d._numbers(log_q, f, log_g, d._log_norm(f, log_g, norm))
    (plain,) = torch.autograd.grad(d._estimate(*numbers), log_q)
    return given, plain


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """log q, f and log g of a few points, some of them outside the support."""
    n = draw(st.integers(1, 8))
    logs = st.lists(st.floats(-3.0, 3.0), min_size=n, max_size=n)
    log_q, log_f, log_g = (torch.tensor(draw(logs), dtype=torch.float64) for _ in range(3))
    inside = torch.tensor(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    return log_q.requires_grad_(), torch.where(inside, log_f.exp(), 0.0), log_g


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40)
@given(batch=batches(), norm=st.one_of(st.none(), st.floats(0.1, 10.0)))
def test_closed_derivatives_are_those_of_autograd(
    name: str, batch: tuple[Tensor, Tensor, Tensor], norm: float | None
) -> None:
    closed, plain = derivatives(divergence(name), *batch, norm)
    assert torch.allclose(closed, plain, rtol=1e-9, atol=1e-12 * (1.0 + float(plain.abs().max())))


def test_wrong_derivatives_are_noticed() -> None:
    log_q = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)
    closed, plain = derivatives(WrongSlopes(), log_q, torch.ones(2).double(), torch.zeros(2).double(), 1.0)
    assert not torch.allclose(closed, plain, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_second_derivatives_are_left_to_autograd(name: str) -> None:
    x = random_points(20, 8)
    f, log_g, direction = target(x), proposal_density(x).log(), torch.linspace(-1.0, 1.0, 20, dtype=torch.float64)

    def slope(log_q: Tensor, create: bool) -> Tensor:
        leaf = log_q.detach().requires_grad_()
        (found,) = torch.autograd.grad(divergence(name)(leaf, f, log_g, NORM), leaf, create_graph=create)
        return torch.autograd.grad((found * direction).sum(), leaf)[0] if create else found

    log_q, step = tilted(x, 0.7), 1e-5 * direction
    difference = (slope(log_q + step, False) - slope(log_q - step, False)) / 2e-5
    assert torch.allclose(slope(log_q, True), difference, rtol=1e-5, atol=1e-7)


# Robustness


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_extreme_inputs_give_finite_values_and_gradients(name: str, dtype: torch.dtype) -> None:
    log_q = torch.tensor([-15.0, 0.0, 12.0, -8.0, 5.0, -60.0], dtype=dtype, requires_grad=True)
    f = torch.tensor([1e-30, 0.0, 1e-3, 5.0, 0.0, 0.0], dtype=dtype)
    value = divergence(name)(log_q, f, torch.zeros(6, dtype=dtype), 1.0)
    value.backward()
    assert value.dtype == dtype and value.ndim == 0
    assert bool(torch.isfinite(value)) and log_q.grad is not None and bool(torch.isfinite(log_q.grad).all())


@pytest.mark.parametrize("name", NAMES)
def test_float32_follows_float64(name: str) -> None:
    x = random_points(2000, 5)
    arguments = (tilted(x, 0.7), target(x), proposal_density(x).log())
    exact = divergence(name)(*arguments, NORM)
    single = divergence(name)(*(a.to(torch.float32) for a in arguments), NORM)
    assert float(single) == pytest.approx(float(exact), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_zero_density_of_q_outside_the_support_is_harmless(name: str) -> None:
    log_q = torch.tensor([0.0, -math.inf, 0.1], dtype=torch.float64, requires_grad=True)
    value = divergence(name)(log_q, torch.tensor([1.0, 0.0, 1.0]), torch.zeros(3), 1.0)
    value.backward()
    assert bool(torch.isfinite(value)) and log_q.grad is not None and bool(torch.isfinite(log_q.grad).all())


@pytest.mark.parametrize("norm", [None, 2.0])
@pytest.mark.parametrize("name", NAMES)
def test_batch_without_support_still_pushes_q_away(name: str, norm: float | None) -> None:
    log_q = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    value = divergence(name)(log_q, torch.zeros(4), torch.zeros(4), norm)
    value.backward()
    assert bool(torch.isfinite(value)) and log_q.grad is not None
    assert bool((log_q.grad >= 0).all())


@pytest.mark.parametrize("name", NAMES)
def test_scale_of_f_cancels_without_a_norm(name: str) -> None:
    x = random_points(500, 6)
    log_g = proposal_density(x).log()
    values = [float(divergence(name)(tilted(x, 0.7), s * target(x), log_g)) for s in (1.0, 1e-40, 1e40)]
    assert values == pytest.approx([values[0]] * 3, rel=1e-9)


def test_the_density_of_the_points_gets_no_gradient() -> None:
    x = random_points(50, 7)
    log_q, f, log_g = (t.clone().requires_grad_() for t in (tilted(x, 0.7), target(x), x * 0.0))
    divergence("forward_kl")(log_q, f, log_g).backward()
    assert log_q.grad is not None and f.grad is not None and log_g.grad is None


def test_the_gradient_of_the_target_is_finite_where_it_is_zero() -> None:
    x = random_points(50, 7)
    for name in NAMES:
        f = torch.where(torch.arange(50) % 3 > 0, target(x), torch.zeros(50, dtype=x.dtype)).requires_grad_()
        divergence(name)(tilted(x, 0.7), f, x * 0.0, NORM).backward()
        assert f.grad is not None and bool(torch.isfinite(f.grad).all()) and bool((f.grad != 0.0).any())


def test_relations_between_divergences() -> None:
    x = random_points(500, 8)
    arguments = (tilted(x, 0.7), target(x), proposal_density(x).log(), NORM)
    value = {
        d: float(d(*arguments))
        for d in (Alpha(2.0), Variance(), Chernoff(0.0), Hellinger(), Chernoff(-0.6), Alpha(0.8))
    }
    assert 2 * value[Alpha(2.0)] == pytest.approx(value[Variance()])
    assert value[Chernoff(0.0)] == pytest.approx(4 * value[Hellinger()])
    assert value[Chernoff(-0.6)] == pytest.approx(value[Alpha(0.8)])
    nearly_kl = float(Renyi(1.0001)(*arguments))
    assert nearly_kl == pytest.approx(float(ForwardKL()(*arguments)), rel=1e-3)


# Look-up and named errors


def test_lookup_round_trip() -> None:
    for name in NAMES:
        d = divergence(name)
        assert d.name == name and divergence(name, **d.parameters()) == d
    assert divergence("renyi", alpha=2.5) == Renyi(2.5)


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(ConfigError, match=r"'wasserstein'.*forward_kl.*log_variance"):
        divergence("wasserstein")
    with pytest.raises(ConfigError, match="no parameter beta; it takes alpha"):
        divergence("renyi", beta=2)
    with pytest.raises(ConfigError, match="takes no parameters"):
        divergence("hellinger", alpha=2)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("renyi", {"alpha": 1.0}),
        ("renyi", {"alpha": 0.0}),
        ("alpha", {"alpha": math.nan}),
        ("alpha", {"alpha": math.inf}),
        ("chernoff", {"alpha": 1.0}),
        ("ab_product", {"alpha": 0.0}),
        ("ab_product", {"beta": 1.0}),
        ("reverse_kl", {"floor": 0.0}),
        ("jeffreys", {"floor": 1.0}),
        ("pearson", {"floor": -1.0}),
        ("log_variance", {"leak": 0.0}),
        ("log_variance", {"leak": math.inf}),
        ("forward_kl", {"control": 1.5}),
        ("variance", {"control": math.nan}),
    ],
)
def test_parameters_out_of_range_are_named(name: str, parameters: dict[str, float]) -> None:
    (key,) = parameters
    with pytest.raises(ConfigError, match=key):
        divergence(name, **parameters)


def test_wrong_inputs_are_refused_by_name() -> None:
    d, one = divergence("forward_kl"), torch.ones(3, dtype=torch.float64)
    with pytest.raises(ShapeError, match=r"\(n,\)"):
        d(one, one[:2], one)
    with pytest.raises(ShapeError):
        d(one.reshape(3, 1), one.reshape(3, 1), one.reshape(3, 1))
    with pytest.raises(ShapeError):
        d(one[:0], one[:0], one[:0])
    with pytest.raises(ShapeError, match="single number"):
        d(one, one, one, one)
    with pytest.raises(DomainError, match="absolute values"):
        d(one, -one, one)
    for bad in (math.nan, math.inf):
        with pytest.raises(NonFiniteError, match="f has"):
            d(one, one * bad, one)
        with pytest.raises(NonFiniteError, match="norm"):
            d(one, one, one, bad)
    for norm in (0.0, -1.0):
        with pytest.raises(DomainError, match="norm"):
            d(one, one, one, norm)
