"""Distillation: what the terms of the loss are, where they vanish, whom they train, and that they fall."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nisampler.calo.models.distillation import DistillationConfig, distillation_loss, divergence, student_of, trace
from nisampler.errors import ConfigError, ModelError, ShapeError
from nisampler.flows import (
    ActNorm,
    AutoregressiveConfig,
    AutoregressiveTransform,
    Composition,
    CouplingConfig,
    Flow,
    InverseAutoregressiveTransform,
    MaskedAutoregressiveTransform,
    NetConfig,
    Permutation,
    Spline,
    StandardNormal,
    coupling_flow,
    iaf,
    maf,
)

DIM = 4
SPLINE = Spline(bins=5, domain="line", bound=5.0)
NET = NetConfig(hidden=12, layers=1, context_dim=2)
FULL = DistillationConfig()
ENDS = DistillationConfig(steps=False, parameters=False)
TERMS = ("z", "x", "z_steps", "x_steps", "z_parameters", "x_parameters")


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(n: int, dim: int, seed: int) -> Tensor:
    return torch.randn(n, dim, generator=generator(seed), dtype=torch.float64)


def disturb(flow: Flow, seed: int = 3, scale: float = 0.3) -> Flow:
    source = generator(seed)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=source, dtype=parameter.dtype)
    return flow


def make_teacher(dim: int = DIM, blocks: int = 3, scale: float = 0.3, net: NetConfig = NET, seed: int = 3) -> Flow:
    config = AutoregressiveConfig(SPLINE, net, blocks, "alternate", (1, dim - 1) if dim > 1 else None)
    return disturb(maf(dim, config, generator=generator(1)), seed, scale).double().requires_grad_(False)


def make_student(teacher: Flow, scale: float = 0.1, net: NetConfig = NET) -> Flow:
    return disturb(student_of(teacher, net, generator(2)), 5, scale)


def losses(teacher: Flow, student: Flow, config: DistillationConfig = FULL, n: int = 20) -> dict[str, Tensor]:
    points = normal(n, teacher.dim, 11), normal(n, 2, 12), normal(n + 3, teacher.dim, 13), normal(n + 3, 2, 14)
    return distillation_loss(teacher, student, *points, config)


def blind(flow: Flow) -> Flow:
    """Let the splines depend on the context alone."""
    for block in flow.transform.modules():
        if isinstance(block, AutoregressiveTransform):
            block.net.input.weight.data.zero_()
    return flow


def test_a_trace_is_the_parallel_direction_of_the_flow() -> None:
    teacher = make_teacher()
    student = make_student(teacher)
    x, context = normal(9, DIM, 1), normal(9, 2, 2)
    forward, backward = trace(teacher, x, context), trace(student, x, context)
    assert torch.equal(forward.end, teacher.to_latent(x, context)[0])
    assert torch.equal(backward.end, student.from_latent(x, context)[0])
    for found in (forward, backward):
        assert len(found.points) == 4
        assert [p.shape for p in found.parameters] == [(9, SPLINE.n_params * DIM)] * 3
    # from data to latent space, in both
    assert forward.points[0] is x
    assert torch.equal(forward.points[3], forward.end)
    assert torch.equal(backward.points[0], backward.end)
    assert torch.equal(backward.points[3], x)


def test_points_and_parameters_of_a_trace_belong_to_their_blocks() -> None:
    """Each block takes the point before it, reordered, to the point after it, in the slow direction too."""
    for flow in (make_teacher(), make_student(make_teacher())):
        found = trace(flow, normal(9, DIM, 1), normal(9, 2, 2))
        assert isinstance(flow.transform, Composition)
        parts, value, blocks = list(flow.transform.transforms), found.points[0], 0
        for part in parts:
            value = part(value, normal(9, 2, 2))[0]
            if isinstance(part, AutoregressiveTransform):
                blocks += 1
                assert torch.allclose(value, found.points[blocks], atol=1e-9)
                seen = found.points[blocks - 1] if isinstance(part, MaskedAutoregressiveTransform) else value
                if blocks > 1 and isinstance(part, MaskedAutoregressiveTransform):
                    seen = parts[2 * blocks - 3](seen)[0]
                assert torch.allclose(part.net(seen, normal(9, 2, 2)), found.parameters[blocks - 1], atol=1e-9)


def test_permutations_at_both_ends_are_followed() -> None:
    inner = make_teacher().transform
    turns = [Permutation.random(DIM, generator(8)), inner.get_submodule("transforms.0"), Permutation.reverse(DIM)]
    teacher = blind(Flow(StandardNormal(DIM), Composition(turns)))  # type: ignore[arg-type]
    student = student_of(teacher, NET, generator(2))
    assert max(value.item() for value in losses(teacher, student).values()) < 1e-14


@given(dim=st.integers(1, 6), blocks=st.integers(1, 3), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_all_terms_vanish_for_a_student_that_undoes_its_teacher(dim: int, blocks: int, seed: int) -> None:
    """Where splines depend on the context alone, equal networks are exact inverses: parameters are comparable."""
    teacher = blind(make_teacher(dim, blocks, 0.2, seed=seed))
    student = student_of(teacher, NET, generator(2))
    terms = losses(teacher, student)
    assert all(terms[name].item() < 1e-18 for name in ("loss", *TERMS))
    assert losses(teacher, disturb(student, scale=0.02))["loss"].item() > 1e-6


def test_parameters_of_an_inverted_masked_block_would_not_be_comparable() -> None:
    """Why the student has blocks of its own: with equal outputs the networks must describe the same spline."""
    block = make_teacher(blocks=1).transform.get_submodule("transforms.0")
    assert isinstance(block, MaskedAutoregressiveTransform)
    block.net.input.weight.data.zero_()
    twin = InverseAutoregressiveTransform(DIM, SPLINE, NET, generator(1)).double()
    twin.load_state_dict(block.state_dict())
    x, context = normal(9, DIM, 1), normal(9, 2, 2)
    y, _ = block(x, context)
    assert torch.allclose(twin.inverse(y, context)[0], x, atol=1e-10)
    assert not torch.allclose(block(y, context)[0], x, atol=1e-2)


def test_terms_against_their_definition() -> None:
    teacher = make_teacher()
    student = make_student(teacher)
    x, context, z, context_z = normal(7, DIM, 1), normal(7, 2, 2), normal(5, DIM, 3), normal(5, 2, 4)
    terms = distillation_loss(teacher, student, x, context, z, context_z, DistillationConfig(beta=0.3))
    latent, _ = teacher.to_latent(x, context)
    data, _ = student.from_latent(z, context_z)
    expected = {
        "x": (student.from_latent(latent, context)[0] - x).square().sum(dim=1).mean().item(),
        "z": (teacher.to_latent(data, context_z)[0] - z).square().sum(dim=1).mean().item(),
    }
    pairs = {"x": (student, latent, teacher, x, context), "z": (student, z, teacher, data, context_z)}
    for side, (ours, below, theirs, above, given_context) in pairs.items():
        one, two = trace(ours, below, given_context), trace(theirs, above, given_context)
        for name, lists in {"steps": (one.points, two.points), "parameters": (one.parameters, two.parameters)}.items():
            total = 0.0
            for a, b in zip(*lists, strict=True):
                for row in range(len(a)):
                    total += ((a[row] - b[row]) ** 2).sum().item() / len(a)
            expected[f"{side}_{name}"] = total
    assert set(terms) == {"loss", *TERMS}
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-10), name
        assert value > 1e-3
    expected_loss = sum(
        0.7 * expected["z" + kind] + 0.3 * expected["x" + kind] for kind in ("", "_steps", "_parameters")
    )
    assert terms["loss"].item() == pytest.approx(expected_loss, rel=1e-10)


@pytest.mark.parametrize("steps", [True, False])
@pytest.mark.parametrize("parameters", [True, False])
def test_the_loss_has_the_terms_that_are_asked_for(steps: bool, parameters: bool) -> None:
    teacher = make_teacher()
    terms = losses(teacher, make_student(teacher), DistillationConfig(0.5, steps, parameters))
    kinds = ["", *["_steps"] * steps, *["_parameters"] * parameters]
    assert terms["loss"].item() == pytest.approx(
        0.5 * sum(terms[side + kind].item() for side in "zx" for kind in kinds), rel=1e-12
    )


def test_only_the_student_gets_a_gradient() -> None:
    teacher = make_teacher()
    student = make_student(teacher)
    losses(teacher, student)["loss"].backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    for parameter in student.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("config", [FULL, ENDS, DistillationConfig(0.0, False, False), DistillationConfig(0.0)])
def test_the_gradient_includes_the_way_through_the_teacher(config: DistillationConfig) -> None:
    teacher = make_teacher()
    student = make_student(teacher)
    losses(teacher, student, config)["loss"].backward()
    step = 1e-6
    block = student.transform.get_submodule("transforms.2")
    assert isinstance(block, InverseAutoregressiveTransform)
    for weight, index in ((block.net.output.bias, 3), (block.net.context.weight, 5)):  # type: ignore[union-attr]
        assert weight.grad is not None
        values = []
        for sign in (1, -1):
            weight.data.view(-1)[index] += sign * step
            values.append(losses(teacher, student, config)["loss"].item())
            weight.data.view(-1)[index] -= sign * step
        slope = (values[0] - values[1]) / (2 * step)
        assert weight.grad.view(-1)[index].item() == pytest.approx(slope, rel=1e-4, abs=1e-6)
        assert abs(slope) > 1e-5


def test_a_student_starts_from_its_teacher() -> None:
    teacher = make_teacher()
    state = torch.random.get_rng_state()
    same, wider = student_of(teacher, NET, generator(2)), student_of(teacher, NetConfig(hidden=20), generator(2))
    again = student_of(teacher, NetConfig(hidden=20), generator(2))
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(wider.parameters(), again.parameters(), strict=True))
    assert same.state_dict().keys() == teacher.state_dict().keys()
    for key, value in teacher.state_dict().items():
        assert torch.equal(same.state_dict()[key], value)
        if key.endswith(("order", "output.bias")):
            assert torch.equal(wider.state_dict()[key], value)
    assert wider.context_dim == teacher.context_dim
    assert all(parameter.requires_grad and parameter.dtype == torch.float64 for parameter in wider.parameters())
    shared = {parameter.data_ptr() for parameter in teacher.parameters()}
    assert not any(parameter.data_ptr() in shared for parameter in same.parameters())


def test_density_of_a_student() -> None:
    """The same in both directions, and finite far out."""
    teacher = make_teacher()
    student = make_student(teacher)
    z, context = normal(50, DIM, 1), normal(50, 2, 2)
    x, log_q = student.from_latent(z, context)
    assert torch.allclose(student.log_prob(x, context), log_q, atol=1e-8)
    samples, _ = teacher.from_latent(6 * z, context)
    assert torch.isfinite(student.log_prob(samples, context)).all()
    expected = log_q - teacher.log_prob(x, context)
    assert torch.allclose(divergence(teacher, student, z, context), expected)
    exact = student_of(blind(make_teacher()), NET, generator(2))
    assert divergence(blind(make_teacher()), exact, z, context).abs().max() < 1e-8


def ring(n: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """A ring whose radius is the condition, in two dimensions, and a third that follows the first."""
    context = 1 + torch.rand(n, 1, generator=source)
    angle = 2 * math.pi * torch.rand(n, 1, generator=source)
    noise = 0.2 * torch.randn(n, 3, generator=source)
    x = torch.cat([context * angle.cos(), context * angle.sin(), (2 * angle).cos()], dim=1)
    return x + noise, context


def optimise(flow: Flow, steps: int, step: object) -> list[dict[str, float]]:
    """Run Adam with a one-cycle schedule on `step(number) -> terms`; the terms of every step."""
    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    history = []
    for number in range(steps):
        terms = step(number)  # type: ignore[operator]
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        schedule.step()
        history.append({name: value.item() for name, value in terms.items()})
    return history


@pytest.fixture(scope="module")
def trained() -> Flow:
    """A teacher that has seen the ring."""
    net = NetConfig(hidden=24, layers=1, context_dim=1)
    config = AutoregressiveConfig(Spline(bins=6, domain="line", bound=4.0), net, 2, "alternate", (2, 1))
    teacher = maf(3, config, generator=generator(1))
    source = generator(2)

    def step(number: int) -> dict[str, Tensor]:
        return {"loss": -teacher.log_prob(*ring(128, source)).mean()}

    history = optimise(teacher, 200, step)
    assert history[-1]["loss"] < history[0]["loss"] - 1
    return teacher.requires_grad_(False)


def distil(teacher: Flow, student: Flow, steps: int, config: DistillationConfig = FULL) -> list[dict[str, float]]:
    source = generator(5)

    def step(number: int) -> dict[str, Tensor]:
        x, context = ring(128, source)
        z = torch.randn(128, 3, generator=source)
        context_z = 1 + torch.rand(128, 1, generator=source)
        return distillation_loss(teacher, student, x, context, z, context_z, config)

    return optimise(student, steps, step)


def distance(teacher: Flow, student: Flow) -> float:
    """Root mean squared distance of the points that the two make of the same latent ones."""
    z, context = torch.randn(500, 3, generator=generator(7)), 1 + torch.rand(500, 1, generator=generator(8))
    with torch.no_grad():
        difference = student.from_latent(z, context)[0] - teacher.from_latent(z, context)[0]
    return float(difference.square().mean().sqrt())


def kl(teacher: Flow, student: Flow) -> float:
    z, context = torch.randn(500, 3, generator=generator(9)), 1 + torch.rand(500, 1, generator=generator(10))
    with torch.no_grad():
        return float(divergence(teacher, student, z, context).mean())


@pytest.mark.parametrize("hidden", [24, 32])
def test_distillation_lowers_every_term(trained: Flow, hidden: int) -> None:
    """With a copy of the teacher's networks at the start, and with other networks."""
    student = student_of(trained, NetConfig(hidden=hidden, layers=1, context_dim=1), generator(4))
    start, start_kl = distance(trained, student), kl(trained, student)
    history = distil(trained, student, 200)
    for name in ("loss", *TERMS):
        first = sum(terms[name] for terms in history[:5])
        last = sum(terms[name] for terms in history[-5:])
        assert last < 0.5 * first, name
    assert distance(trained, student) < min(0.5 * start, 0.25)
    assert 0 < kl(trained, student) < 0.5 * start_kl
    context = 1 + torch.rand(500, 1, generator=generator(8))
    samples, log_p = trained.sample(500, context, generator(6))
    with torch.no_grad():
        log_q = student.log_prob(samples, context)
    assert torch.isfinite(log_q).all()
    assert 0 < float((log_p - log_q).mean()) < 0.5


def test_end_points_alone_distil_too_but_leave_the_parameters_apart(trained: Flow) -> None:
    guided, free = (student_of(trained, NetConfig(hidden=32, layers=1), generator(4)) for _ in range(2))
    distil(trained, guided, 60)
    start = distance(trained, free)
    history = distil(trained, free, 60, ENDS)
    assert distance(trained, free) < 0.7 * start
    assert history[-1]["x_parameters"] > 3 * distil(trained, guided, 1)[0]["x_parameters"]


def test_a_student_of_another_teacher_stays_away(trained: Flow) -> None:
    """Negative control: the same training with wrong splines brings the student nowhere near."""
    other = student_of(trained, NetConfig(hidden=24, layers=1), generator(4))
    config = AutoregressiveConfig(
        Spline(bins=6, domain="line", bound=4.0), NetConfig(hidden=24, layers=1, context_dim=1)
    )
    parts = []
    for part in trained.transform.get_submodule("transforms").children():
        if isinstance(part, MaskedAutoregressiveTransform):
            parts.append(MaskedAutoregressiveTransform(3, config.spline, config.net, generator(1)))
        else:
            parts.append(part)
    identity = Flow(StandardNormal(3), Composition(parts)).requires_grad_(False)
    before = distance(trained, other)
    distil(identity, other, 60)
    assert distance(identity, other) < 0.1
    assert distance(trained, other) > before


def test_flows_that_cannot_be_distilled_are_refused() -> None:
    teacher = make_teacher()
    student = make_student(teacher)
    coupling = coupling_flow(DIM, CouplingConfig(SPLINE, NetConfig(context_dim=2))).double()
    inverse = iaf(DIM, AutoregressiveConfig(SPLINE, NET, 3))
    with pytest.raises(ModelError, match="permutations and autoregressive blocks"):
        student_of(coupling, NET, generator(1))
    with pytest.raises(ModelError, match="permutations and autoregressive blocks"):
        trace(Flow(StandardNormal(DIM), ActNorm(DIM)), normal(3, DIM, 1))
    with pytest.raises(ModelError, match="inverse autoregressive"):
        student_of(inverse, NET, generator(1))
    mixed = [MaskedAutoregressiveTransform(DIM, SPLINE, NET, generator(1))]
    both = Composition([*mixed, InverseAutoregressiveTransform(DIM, SPLINE, NET, generator(1))])
    with pytest.raises(ModelError, match="all masked or all inverse"):
        trace(Flow(StandardNormal(DIM), both), normal(3, DIM, 1))
    with pytest.raises(ModelError, match="requires_grad_"):
        losses(make_teacher().requires_grad_(True), student)
    for pair in ((teacher, make_teacher()), (inverse.requires_grad_(False), student)):
        with pytest.raises(ModelError, match="student_of"):
            losses(*pair)
    others = [make_teacher(blocks=2), make_teacher()]
    assert isinstance(others[1].transform, Composition)
    others[1].transform.transforms[1] = Permutation.random(DIM, generator(99))
    spline = AutoregressiveConfig(Spline(bins=6, domain="line", bound=5.0), NET, 3, "alternate", (1, DIM - 1))
    others.append(maf(DIM, spline, generator=generator(1)).requires_grad_(False))
    for other in others:
        with pytest.raises(ModelError, match="are not those of the teacher"):
            losses(other, student)


def test_wrong_shapes_and_settings_are_refused() -> None:
    teacher = make_teacher()
    student = make_student(teacher)
    x, context = normal(5, DIM, 1), normal(5, 2, 2)
    for points in ((x[:, :3], context, x, context), (x, context, x, context[:4]), (x, None, x, context)):
        with pytest.raises(ShapeError):
            distillation_loss(teacher, student, *points, FULL)
    for beta in (-0.1, 1.1, math.nan):
        with pytest.raises(ConfigError, match="beta"):
            DistillationConfig(beta)
