"""EDM and its one-step student: limits, exact denoisers of normal data, independence of points, and what must fail."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nisampler.errors import ConfigError
from nisampler.flows import ConsistentDenoiser, Denoiser, EDMConfig, PointwiseConfig, PointwiseNet

CONFIG = EDMConfig()
DATA = CONFIG.sigma_data


class Zero(nn.Module):
    def forward(self, x: Tensor, noise: Tensor, *_: Any) -> Tensor:
        return torch.zeros_like(x)


class Exact(nn.Module):
    """F of the consistency function of normal data, f(x; σ) = x √(σ_min² + σ_data²) / √(σ² + σ_data²)."""

    def forward(self, x: Tensor, noise: Tensor, rows: Tensor) -> Tensor:
        sigma = (4 * noise).exp()[rows]
        skip, out, scale = ConsistentDenoiser(nn.Identity(), CONFIG).coefficients(sigma)
        factor = ((CONFIG.sigma_min**2 + DATA**2) / (sigma.square() + DATA**2)).sqrt()
        return (factor - skip) * x / scale / out


class Width(nn.Module):
    """F of the exact denoiser of normal data of a width, D(x; σ) = x width² / (width² + σ²)."""

    def __init__(self, width: float) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor, noise: Tensor, *_: Any) -> Tensor:
        sigma = (4 * noise).exp()
        skip, out, scale = Denoiser(nn.Identity(), CONFIG).coefficients(sigma)
        return (self.width**2 / (self.width**2 + sigma.square()) - skip) * x / scale / out


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one_group(n: int) -> Tensor:
    return torch.zeros(n, dtype=torch.long)


def test_levels_are_those_of_the_paper() -> None:
    levels = CONFIG.levels()
    assert len(levels) == 19 and levels[-1] == 0.0 and bool((levels.diff() < 0).all())
    assert levels[0].item() == pytest.approx(80.0) and levels[-2].item() == pytest.approx(0.002)
    roots = levels[:-1] ** (1 / 7)
    assert torch.allclose(roots.diff(), roots.diff().mean().expand(17))


def test_preconditioning_has_the_right_limits() -> None:
    denoiser, x = Denoiser(Zero(), CONFIG), torch.randn(4, 3, generator=generator())
    small, large = torch.full((4, 1), 1e-6), torch.full((4, 1), 1e6)
    assert torch.allclose(denoiser(x, small), x)
    skip, out, scale = denoiser.coefficients(large)
    assert skip.max() < 1e-11 and torch.allclose(out, torch.full_like(out, DATA)) and torch.allclose(scale, 1 / large)
    sigma = torch.tensor([[0.3]])
    skip, out, scale = denoiser.coefficients(sigma)
    # unit variance of inputs and of targets: (y - c_skip (y + n)) / c_out
    assert (scale.square() * (sigma.square() + DATA**2)).item() == pytest.approx(1.0)
    variance = ((1 - skip).square() * DATA**2 + skip.square() * sigma.square()) / out.square()
    assert variance.item() == pytest.approx(1.0)


def test_normal_data_need_no_network() -> None:
    x = DATA * torch.randn(20_000, 3, generator=generator())
    exact = Denoiser(Zero(), CONFIG)
    rows = one_group(len(x))
    loss = exact.loss(x, len(x), generator(2)).mean()
    assert loss.item() == pytest.approx(1.0, abs=0.02)
    wrong = exact.loss(2 * x, len(x), generator(2)).mean()
    assert wrong.item() > 1.3
    noise = torch.randn(20_000, 3, generator=generator(3))
    made = exact.draw(noise, groups=1, rows=rows)
    assert made.std().item() == pytest.approx(DATA, rel=0.02) and torch.equal(made.sign(), noise.sign())
    few = Denoiser(Zero(), EDMConfig(steps=2)).draw(noise, groups=1, rows=rows)
    assert torch.allclose(few, made, atol=1e-4)


def test_heun_is_of_second_order() -> None:
    """The error of the width of normal data of another width falls by four with twice the steps."""
    noise, width = torch.ones(1, 1, dtype=torch.float64), 0.2
    errors = []
    for steps in (40, 80, 160):
        config = EDMConfig(steps=steps, sigma_min=1e-5)
        made = Denoiser(Width(width), config).draw(noise, groups=1, rows=one_group(1)).item()
        errors.append(abs(made - width * config.sigma_max / (config.sigma_max**2 + width**2) ** 0.5))
    assert 3.0 < errors[0] / errors[1] < 5.5 and 3.0 < errors[1] / errors[2] < 5.5 and errors[0] < 0.01 * width


def test_student_is_the_identity_at_the_lowest_level() -> None:
    net = PointwiseNet(3, 2, PointwiseConfig(hidden=8, layers=1), generator())
    with torch.no_grad():
        net.output.weight.normal_(generator=generator())
    student = ConsistentDenoiser(net, CONFIG)
    x, rows, context = torch.randn(5, 3, generator=generator()), one_group(5), torch.zeros(1, 2)
    lowest = torch.full((1, 1), CONFIG.sigma_min)
    assert torch.allclose(student(x, lowest, context, rows, rows=rows), x)
    assert not torch.allclose(student(x, 2 * lowest + 1, context, rows, rows=rows), x, atol=0.1)


def test_lesson_vanishes_for_the_exact_function_alone() -> None:
    x = DATA * torch.randn(2000, 3, generator=generator())
    rows = torch.arange(2000) % 50
    teacher = Denoiser(Zero(), CONFIG)
    losses = {
        kind.__name__: ConsistentDenoiser(kind(), CONFIG).lesson(teacher, x, 50, generator(2), rows, rows=rows).mean()
        for kind in (Exact, Zero)
    }
    assert losses["Exact"] < 0.02 * losses["Zero"]
    made = ConsistentDenoiser(Exact(), CONFIG).draw(x / DATA, rows, groups=50, rows=rows)
    assert made.std().item() == pytest.approx(DATA, rel=0.02)


def test_points_are_moved_alone_and_by_their_group() -> None:
    net = PointwiseNet(3, 2, PointwiseConfig(hidden=16, layers=2), generator())
    with torch.no_grad():
        net.output.weight.normal_(generator=generator())
    x, rows = torch.randn(6, 3, generator=generator()), torch.tensor([0, 0, 0, 1, 1, 1])
    t, context = torch.zeros(2, 1), torch.randn(2, 2, generator=generator(2))
    found = net(x, t, context, rows)
    order = torch.tensor([5, 0, 3, 1, 4, 2])
    assert torch.allclose(net(x[order], t, context, rows[order]), found[order], atol=1e-6)
    assert torch.allclose(net(x[:2], t, context, rows[:2]), found[:2], atol=1e-6)
    moved = net(x, t, context + torch.tensor([[0.0], [1.0]]), rows)
    assert torch.allclose(moved[:3], found[:3], atol=1e-6) and not torch.allclose(moved[3:], found[3:], atol=1e-3)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="sigma_min = 3"):
        EDMConfig(sigma_min=3.0, sigma_max=2.0)
    with pytest.raises(ConfigError, match="steps"):
        EDMConfig(steps=1)
