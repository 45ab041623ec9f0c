"""Flows that have symmetries: exact densities, exact symmetries, and less to learn."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nisampler.errors import ConfigError
from nisampler.flows import Action, CouplingConfig, Flow, GroupedFlow, NetConfig, Spline, Symmetry, coupling_flow
from nisampler.flows.folding import Fold, folded
from nisampler.flows.grid_start import start_from_grid
from nisampler.flows.symmetry import symmetry_of

DIM = 4
SYMMETRY = Symmetry((1,), (Action.reflection(0, 2), Action.reflection(2, 3)))
CONFIG = CouplingConfig(Spline(bins=5), NetConfig(hidden=8, layers=1), symmetry=(SYMMETRY,))
SETS = st.lists(st.sets(st.integers(0, DIM - 1), min_size=1).map(tuple), max_size=4)
# Two jets beside a boson, (pT1, pT2, y1, y2, azimuth of the second from the first), with the beams exchanged, a mirror
# and the jets exchanged; and three legs with transverse momenta, rapidities and azimuths of their own.
JETS = Symmetry(
    actions=(
        Action.reflection(4),
        Action.reflection(2, 3),
        Action(((0, 1, -1, 0), (1, 0, -1, 0), (2, 3, -1, 0), (3, 2, -1, 0), (4, -1, 4, 0))),
    )
)
LEGS = Symmetry(
    (6, 7, 8),
    (
        Action.reflection(7, 8),
        Action(((0, 1, -1, 0), (1, 0, -1, 0), (3, 4, -1, 0), (4, 3, -1, 0), (7, -1, 7, 0), (8, 8, 7, 0))),
        Action(((1, 2, -1, 0), (2, 1, -1, 0), (4, 5, -1, 0), (5, 4, -1, 0), (7, 8, -1, 0), (8, 7, -1, 0))),
    ),
)
# A mirror on an angle that the other one moves by half a turn, as of a jet near another one.
NEAR = Symmetry(actions=(Action.reflection(0), Action(((0, -1, 0, 1), (1, -1, 1, 0)))))
KINDS = pytest.mark.parametrize(("dim", "symmetry"), [(4, SYMMETRY), (5, JETS), (9, LEGS), (3, NEAR)])


def uniform(n: int, dim: int = DIM, seed: int = 1) -> Tensor:
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bent(module: torch.nn.Module) -> torch.nn.Module:
    """With random weights, so that the densities are not flat."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def reflected(x: Tensor, mirror: tuple[int, ...]) -> Tensor:
    other = x.clone()
    other[:, list(mirror)] = 1.0 - other[:, list(mirror)]
    return other


@given(SETS, st.sets(st.integers(0, DIM - 1), max_size=DIM - 1), st.integers(0, 1000))
def test_folding_is_undone_by_unfolding(sets: list[tuple[int, ...]], flat: set[int], seed: int) -> None:
    turned = tuple(sorted(flat))[:1]
    fold = Fold(DIM, [Symmetry(turned, tuple(Action.reflection(*(set(own) - {*turned})) for own in sets))])
    x = uniform(50, seed=seed)
    for latent in (False, True):
        inner, rest = fold.enter(x, latent)
        assert inner.shape == (50, DIM - len(turned)) and bool(((inner >= 0.0) & (inner <= 1.0)).all())
        torch.testing.assert_close(fold.leave(inner, rest, latent), x, rtol=0.0, atol=1e-14)


@given(SETS, st.integers(0, 1000))
def test_equal_points_are_one_after_folding(sets: list[tuple[int, ...]], seed: int) -> None:
    fold = Fold(DIM, [Symmetry(actions=tuple(Action.reflection(*own) for own in sets))])
    x = uniform(50, seed=seed)
    for count in range(len(sets) + 1):
        for chosen in itertools.combinations(sets, count):
            y = x
            for mirror in chosen:
                y = reflected(y, mirror)
            torch.testing.assert_close(fold.enter(y, False)[0], fold.enter(x, False)[0], rtol=0.0, atol=1e-14)


def test_a_flow_has_its_symmetries_and_an_exact_density() -> None:
    flow = bent(coupling_flow(DIM, CONFIG))
    assert isinstance(flow, Flow)
    flow.requires_grad_(False)
    z = uniform(2000)
    x, log_q = flow.from_latent(z)
    assert float(log_q.std()) > 0.1
    back, log_det = flow.to_latent(x)
    torch.testing.assert_close(back, z, rtol=0.0, atol=1e-6)
    torch.testing.assert_close(log_det, log_q, rtol=0.0, atol=1e-5)
    y = uniform(2000, seed=2)
    for mirror in ((0, 2), (2, 3), (0, 3)):
        torch.testing.assert_close(flow.log_prob(reflected(y, mirror)), flow.log_prob(y), rtol=0.0, atol=1e-6)
    assert float((flow.log_prob(reflected(y, (0,))) - flow.log_prob(y)).abs().max()) > 0.1
    other = y.clone()
    other[:, 1] = uniform(2000, 1, seed=5)[:, 0]
    torch.testing.assert_close(flow.log_prob(other), flow.log_prob(y), rtol=0.0, atol=1e-12)
    assert float(flow.log_prob(uniform(200_000, seed=7)).exp().mean()) == pytest.approx(1.0, abs=0.01)


def test_the_jacobian_is_that_of_the_map() -> None:
    flow = bent(coupling_flow(DIM, CONFIG)).double()
    for z in uniform(5):
        jacobian = torch.autograd.functional.jacobian(lambda u: flow.from_latent(u[None])[0][0], z)
        expected = -torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(flow.from_latent(z[None])[1][0], expected, rtol=1e-8, atol=1e-8)


@KINDS
def test_every_kind_folds_and_unfolds(dim: int, symmetry: Symmetry) -> None:
    fold, x = Fold(dim, [symmetry]), uniform(2000, dim)
    for latent in (False, True):
        inner, rest = fold.enter(x, latent)
        assert bool(((inner >= 0.0) & (inner <= 1.0)).all())
        torch.testing.assert_close(fold.leave(inner, rest, latent), x, rtol=0.0, atol=1e-12)
        # Volumes are kept: uniform points stay so in each coordinate, and in each pair of them.
        assert float((inner.mean(0) - 0.5).abs().max()) < 0.035
        assert float((torch.corrcoef(inner.T) - torch.eye(fold.inner_dim)).abs().max()) < 0.1


@KINDS
def test_every_kind_of_symmetry_is_that_of_the_flow(dim: int, symmetry: Symmetry) -> None:
    config = CouplingConfig(Spline(bins=5), NetConfig(hidden=8, layers=1), symmetry=(symmetry,))
    flow = bent(coupling_flow(dim, config)).double()
    assert isinstance(flow, Flow)
    x, log_q = flow.from_latent(uniform(500, dim, seed=2))
    torch.testing.assert_close(flow.to_latent(x)[1], log_q, rtol=0.0, atol=1e-8)
    counted = symmetry.counted(x)
    for action in symmetry.actions:
        torch.testing.assert_close(flow.log_prob(action.of(counted)), log_q, rtol=0.0, atol=1e-7)
        torch.testing.assert_close(action.of(action.of(counted)), counted, rtol=0.0, atol=1e-12)
    assert float((flow.log_prob(uniform(500, dim, seed=3)) - log_q).detach().abs().max()) > 0.1
    for z in uniform(3, dim, seed=4):
        jacobian = torch.autograd.functional.jacobian(lambda u: flow.from_latent(u[None])[0][0], z)
        expected = -torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(flow.from_latent(z[None])[1][0], expected, rtol=1e-7, atol=1e-7)


def test_groups_have_symmetries_of_their_own() -> None:
    one = Symmetry(actions=(Action.reflection(0), Action.exchange((1, 2), (3, 4))))
    other = Symmetry(actions=(Action(((4, 4, -1, 1),)),))
    flow = bent(GroupedFlow(5, 2, CouplingConfig(Spline(bins=5), NetConfig(hidden=8), symmetry=(one, other)))).double()
    x, group = uniform(1000, 5), torch.arange(1000) % 2
    log_q = flow.log_prob(x, group).detach()  # type: ignore[operator]
    for number, own in enumerate((one, other)):
        for action in own.actions:
            change = (flow.log_prob(action.of(x), group).detach() - log_q).abs()  # type: ignore[operator]
            assert float(change[group == number].max()) < 1e-7 < 0.1 < float(change[group != number].max())
    z, back = flow.to_latent(x, group)  # type: ignore[operator]
    torch.testing.assert_close(flow.from_latent(z, group)[0], x, rtol=0.0, atol=1e-6)  # type: ignore[operator]
    torch.testing.assert_close(back, flow.log_prob(x, group))  # type: ignore[operator]


def test_grouped_flows_have_them_too() -> None:
    flow = bent(GroupedFlow(DIM, 2, CONFIG))
    group = torch.arange(1000) % 2
    x, log_q = flow.from_latent(uniform(1000), group)
    torch.testing.assert_close(flow.log_prob(x, group), log_q, rtol=0.0, atol=1e-5)
    torch.testing.assert_close(flow.log_prob(reflected(x, (0, 3)), group), log_q, rtol=0.0, atol=1e-5)
    assert float((flow.log_prob(x, 1 - group) - log_q).detach().abs().max()) > 0.1
    loss = flow.log_prob(x, group).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in flow.parameters())


def test_a_start_from_grids_is_folded() -> None:
    nodes = torch.linspace(0.0, 1.0, 6, dtype=torch.float64).expand(1, DIM, 6).clone()
    nodes[0, 0] = torch.tensor([0.0, 0.3, 0.45, 0.55, 0.7, 1.0])  # dense in the middle, and even
    flow = coupling_flow(DIM, CONFIG)
    start_from_grid(flow.transform, nodes)
    x = torch.full((2, DIM), 0.3, dtype=torch.float64)
    x[:, 0] = torch.tensor([0.5, 0.05])
    found = flow.log_prob(x).detach().exp()
    assert float(found[0]) > 1.5 and float(found[1]) < 0.9
    grids = Fold(DIM, [SYMMETRY]).grids(nodes)
    assert grids.shape == (1, DIM - 1, 6) and bool((grids.diff(dim=2) > 0.0).all())


def test_saved_and_read(tmp_path: Path) -> None:
    flow = bent(coupling_flow(DIM, CONFIG))
    flow.save(tmp_path / "flow")  # type: ignore[operator]
    again = Flow.load(tmp_path / "flow")
    assert torch.equal(again.log_prob(uniform(10)), flow.log_prob(uniform(10)))  # type: ignore[operator]


def test_errors() -> None:
    with pytest.raises(ConfigError, match="coordinate 4; there are 4"):
        coupling_flow(DIM, CouplingConfig(symmetry=(Symmetry((4,)),)))
    with pytest.raises(ConfigError, match="the only coordinate turns"):
        coupling_flow(1, CouplingConfig(symmetry=(Symmetry((0,)),)))
    with pytest.raises(ConfigError, match="those of the unit cube"):
        CouplingConfig(Spline(domain="line"), symmetry=(SYMMETRY,))
    with pytest.raises(ConfigError, match="either all groups have coordinates that turn"):
        Fold(DIM, [SYMMETRY, Symmetry()])
    with pytest.raises(ConfigError, match="2 symmetries are stated for 3 groups"):
        folded(DIM, 3, [SYMMETRY, SYMMETRY])
    with pytest.raises(ConfigError, match="needs two coordinates that swap and that nothing reflects"):
        Fold(DIM, [Symmetry(actions=(Action.reflection(0), Action.exchange((0, 1))))])
    twisted = Action(((0, 1, -1, 0), (1, 0, -1, 0), (2, 3, -1, 0), (3, -1, 2, 0)))
    with pytest.raises(ConfigError, match="make 3 images where their keys have 2 orders"):
        Fold(DIM, [Symmetry(actions=(twisted,))])
    assert symmetry_of(lambda x: x) == ()
