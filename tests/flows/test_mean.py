"""Mean velocities: the identity that they obey, what they begin with, and that they learn the way of a flow."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nisampler.base.optim import Stepper, adamw
from nisampler.errors import ModelError
from nisampler.flows import ContinuousFlow, MeanFlow, VelocityConfig, continuous_flow

DIM, CONTEXT = 3, 2
NET = VelocityConfig(hidden=32, layers=2, frequencies=2, solver="rk4", steps=20)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flow(scale: float, config: VelocityConfig = NET) -> ContinuousFlow:
    """A flow whose last layer is not zero."""
    made = continuous_flow(DIM, config, CONTEXT, generator(1), (1, 1, DIM))
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "output" in name:
                weight.add_(scale * torch.randn(weight.shape, generator=generator(2)))
    return made


def student(config: VelocityConfig = NET) -> MeanFlow:
    return MeanFlow(DIM, CONTEXT, config, generator(3), (1, 1, DIM))


def points(n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Points, contexts, and times t <= s."""
    g = generator(4)
    times = torch.rand(n, 2, generator=g).sort(1).values
    x, context = torch.randn(n, DIM, generator=g), torch.randn(n, CONTEXT, generator=g)
    return x, context, times[:, :1], times[:, 1:]


def test_normal_coordinates_jump_exactly() -> None:
    """A fresh network is the flow between independent normal coordinates, from any time to any other."""
    x, context, t, s = points(20)
    fresh = student()
    there = x + (s - t) * fresh.mean_velocity(x, t, s, context)
    spread = [(time.square() + (1 - time).square()).sqrt() for time in (t, s)]
    assert torch.allclose(there, x * spread[1] / spread[0], atol=1e-5)
    assert torch.allclose(fresh.mean_velocity(x, t, t, context), flow(0.0).transform.velocity(x, t, context), atol=1e-5)


def test_the_identity_holds_where_the_mean_is_exact() -> None:
    x, context, *_ = points(200)
    exact, other = (student().loss(flow(scale), x, context, generator(5)).detach() for scale in (0.0, 0.3))
    assert exact.shape == (200,) and float(exact.max()) < 1e-8
    assert float(other.mean()) > 1e-3


@pytest.mark.parametrize("config", [NET, VelocityConfig("velocity-vit", 8, 1, heads=2, frequencies=2)])
def test_a_student_begins_with_the_velocity(config: VelocityConfig) -> None:
    teacher, pupil = flow(0.3, config), student(config)
    pupil.begin(teacher)
    x, context, t, _ = points(20)
    velocity = teacher.transform.velocity(x, t, context)
    assert torch.allclose(pupil.mean_velocity(x, t, t, context), velocity, atol=1e-5)
    assert not torch.allclose(student(config).mean_velocity(x, t, t, context), velocity, atol=1e-2)


def test_a_student_learns_to_jump() -> None:
    """One step ends nearer to the end of the way than one step of the velocity, and two are nearer still."""
    teacher, pupil = flow(0.3), student()
    pupil.begin(teacher)
    start, context, *_ = points(500)
    with torch.no_grad():
        end = teacher.transform.transport(start, context, 0.0, 1.0)

    def error(steps: int) -> float:
        pupil.config = VelocityConfig(hidden=32, layers=2, frequencies=2, steps=steps)
        with torch.no_grad():
            return float((pupil.transport(start, context) - end).square().mean().sqrt())

    before = error(1)
    stepper, g = Stepper(pupil, adamw(3e-3)), generator(6)
    for step in range(300):
        x, known = torch.randn(128, DIM, generator=g), torch.randn(128, CONTEXT, generator=g)
        stepper.step(pupil.loss(teacher, x, known, g).mean(), step / 300)
    assert error(1) < 0.5 * before
    assert error(2) < error(1)
    assert all(weight.grad is None for weight in teacher.parameters())


def test_draws_belong_to_their_generator() -> None:
    pupil, (_, context, *_) = student(), points(7)
    first, second = (pupil.draw(7, context, generator(8)) for _ in range(2))
    assert first.shape == (7, DIM) and torch.equal(first, second)


def test_students_of_other_networks() -> None:
    with pytest.raises(ModelError, match=r"networks of the same width: net\.input\.weight differs"):
        student(VelocityConfig(hidden=16, layers=2, frequencies=2)).begin(flow(0.3))
    with pytest.raises(ModelError, match="as many layers"):
        student(VelocityConfig(hidden=32, layers=3, frequencies=2)).begin(flow(0.3))
