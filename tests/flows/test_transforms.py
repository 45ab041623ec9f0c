"""One battery of laws for every transform."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nisampler.errors import ConfigError, ShapeError
from nisampler.flows import (
    ActNorm,
    Affine,
    Composition,
    CouplingTransform,
    Inverse,
    InverseAutoregressiveTransform,
    Logit,
    LULinear,
    MaskedAutoregressiveTransform,
    NetConfig,
    Permutation,
    Spline,
    Transform,
    binary_masks,
    random_masks,
)

DIM = 4
SMALL = NetConfig(hidden=12, layers=2)
MASK = torch.tensor([True, False, True, False])


@dataclass(frozen=True)
class Case:
    """A transform to test, where its data live, and the length of its context."""

    build: Callable[[torch.Generator], Transform]
    domain: str = "unit"
    context_dim: int = 0


def coupling(spline: Spline, net: NetConfig = SMALL, mask: Tensor = MASK) -> Callable[..., Transform]:
    def build(generator: torch.Generator) -> Transform:
        return CouplingTransform(mask, lambda a, b: net.build(a, b, generator), spline)

    return build


def autoregressive(spline: Spline, net: NetConfig = SMALL) -> Callable[..., Transform]:
    return lambda generator: MaskedAutoregressiveTransform(DIM, spline, net, generator)


def inverse_autoregressive(spline: Spline, net: NetConfig = SMALL) -> Callable[..., Transform]:
    return lambda generator: InverseAutoregressiveTransform(DIM, spline, net, generator)


def act_norm(generator: torch.Generator) -> Transform:
    layer = ActNorm(DIM)
    layer(torch.randn(50, DIM, generator=generator))
    return layer


def stack(generator: torch.Generator) -> Transform:
    """A deep composition with a random mask and a random permutation, from the cube to the line."""
    mask = random_masks(DIM, 1, generator)[0]
    line = Spline("rational_quadratic", 5, "line", 4.0)
    return Composition(
        [
            coupling(Spline(bins=5), mask=mask)(generator),
            Logit(1e-3),
            act_norm(generator),
            Permutation.random(DIM, generator),
            LULinear(DIM),
            autoregressive(line)(generator),
        ]
    )


CONTEXT = NetConfig(hidden=12, layers=2, context_dim=3)
RESIDUAL = NetConfig(kind="residual", hidden=12, layers=2, context_dim=3)
FOURIER = NetConfig(hidden=12, layers=2, fourier=2, activation="gelu", centre=True)

CASES = {
    f"coupling-{kind}-{domain}": Case(coupling(Spline(kind, 5, domain, 3.0)), domain)  # type: ignore[arg-type]
    for kind in ("linear", "quadratic", "cubic", "rational_quadratic")
    for domain in ("unit", "line", "circle")
} | {
    "coupling-context": Case(coupling(Spline(bins=5), CONTEXT), context_dim=3),
    "coupling-residual": Case(coupling(Spline(bins=5), RESIDUAL), context_dim=3),
    "coupling-fourier": Case(coupling(Spline(bins=5), FOURIER)),
    "coupling-unconditional": Case(coupling(Spline(bins=5), mask=torch.ones(DIM, dtype=torch.bool))),
    "maf-unit": Case(autoregressive(Spline(bins=5))),
    "maf-line": Case(autoregressive(Spline(bins=5, domain="line", bound=3.0), CONTEXT), "line", 3),
    "maf-residual": Case(autoregressive(Spline(bins=5), RESIDUAL), context_dim=3),
    "maf-cubic": Case(autoregressive(Spline("cubic", bins=5), NetConfig(hidden=12, centre=True))),
    "iaf-unit": Case(inverse_autoregressive(Spline(bins=5))),
    "iaf-line": Case(inverse_autoregressive(Spline(bins=5, domain="line", bound=3.0), CONTEXT), "line", 3),
    "maf-inverted": Case(lambda g: Inverse(autoregressive(Spline(bins=5))(g))),
    "maf-inverted-context": Case(lambda g: Inverse(autoregressive(Spline(bins=5), CONTEXT)(g)), context_dim=3),
    "reverse": Case(lambda g: Permutation.reverse(DIM), "line"),
    "permutation": Case(lambda g: Permutation.random(DIM, g), "line"),
    "affine": Case(lambda g: Affine(DIM), "line"),
    "actnorm": Case(act_norm, "line"),
    "logit": Case(lambda g: Logit(1e-3)),
    "lu": Case(lambda g: LULinear(DIM), "line"),
    "composition": Case(stack),
}
STATELESS = ("reverse", "permutation", "logit")
EVERY = pytest.mark.parametrize("name", CASES)


def disturbed(transform: Transform, seed: int = 8, scale: float = 0.3) -> Transform:
    """Move all weights away from their start, where splines are the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return transform.eval()


def setup(name: str, n: int = 40, seed: int = 2, scale: float = 0.3) -> tuple[Transform, Tensor, Tensor | None]:
    case = CASES[name]
    generator = torch.Generator().manual_seed(seed)
    transform = disturbed(case.build(generator), scale=scale).double()
    x = torch.rand(n, DIM, generator=generator, dtype=torch.float64)
    if case.domain == "line":
        x = 8 * (x - 0.5)
    context = torch.randn(n, case.context_dim, generator=generator, dtype=torch.float64)
    return transform, x, context if case.context_dim else None


def gap(name: str, a: Tensor, b: Tensor) -> Tensor:
    distance = (a - b).detach().abs()
    return torch.minimum(distance, (1 - distance).abs()) if CASES[name].domain == "circle" else distance


def log_det_by_autograd(
    function: Callable[..., tuple[Tensor, Tensor]], x: Tensor, context: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(log |det J| from the full Jacobian, log_det as returned)."""
    x = x.detach().requires_grad_()
    y, log_det = function(x, context)
    rows = [torch.autograd.grad(y[:, i].sum(), x, retain_graph=True)[0] for i in range(y.shape[1])]
    return torch.linalg.slogdet(torch.stack(rows, dim=1)).logabsdet, log_det.detach()


@EVERY
def test_inverse(name: str) -> None:
    transform, x, context = setup(name)
    y, up = transform(x, context)
    back, down = transform.inverse(y, context)
    assert gap(name, back, x).max() < 1e-9
    assert torch.allclose(up, -down, atol=1e-8, rtol=0)
    assert up.shape == down.shape == (len(x),)
    again, _ = transform(transform.inverse(x, context)[0], context)
    if name not in ("logit", "composition"):  # their latent space is the line, x is no fair latent point
        assert gap(name, again, x).max() < 1e-9


@EVERY
def test_log_det_against_autograd(name: str) -> None:
    transform, x, context = setup(name)
    exact, claimed = log_det_by_autograd(transform, x, context)
    assert torch.allclose(claimed, exact, atol=1e-8, rtol=0)
    y = transform(x, context)[0]
    exact, claimed = log_det_by_autograd(transform.inverse, y, context)
    assert torch.allclose(claimed, exact, atol=1e-7, rtol=0)


class Careless(Affine):
    """An affine map that forgets its scale in the determinant."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, log_det = super().forward(x, context)
        return y, log_det * 0.99


def test_a_wrong_determinant_is_noticed() -> None:
    transform = disturbed(Careless(DIM)).double()
    x = torch.rand(5, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    exact, claimed = log_det_by_autograd(transform, x, None)
    assert not torch.allclose(claimed, exact, atol=1e-8, rtol=0)


@EVERY
def test_float32(name: str) -> None:
    transform, x, context = setup(name, n=500, scale=0.15)
    exact, exact_det = transform(x, context)
    transform, x32 = transform.float(), x.float()
    y, log_det = transform(x32, context)
    back, back_det = transform.inverse(y, context)
    assert y.dtype == back.dtype == log_det.dtype == torch.float32
    assert gap(name, y, exact).max() < 2e-4
    assert gap(name, back, x32).max() < 2e-4
    if "linear" not in name:
        assert (log_det - exact_det).abs().max() < 5e-3
        assert (log_det + back_det).abs().max() < 5e-3


def moved(transform: Transform, roundings: float, seed: int) -> Transform:
    """A copy whose float32 weights are wrong by so many roundings, up or down."""
    generator, copy = torch.Generator().manual_seed(seed), deepcopy(transform)
    with torch.no_grad():
        for parameter in copy.parameters():
            sign = 2.0 * torch.randint(2, parameter.shape, generator=generator) - 1.0
            parameter *= 1 + roundings * torch.finfo(torch.float32).eps * sign
    return copy


def mismatch(one: Transform, other: Transform, x: Tensor, context: Tensor | None, name: str) -> tuple[float, float]:
    """Largest differences of points and log-determinants between `one` forwards and `other` backwards."""
    y, up = one(x, context)
    back, down = other.inverse(y, context)
    assert y.dtype == up.dtype == torch.float64
    return float(gap(name, back, x).max()), float((up + down).detach().abs().max())


@EVERY
def test_float32_weights_with_float64_points(name: str) -> None:
    """Coupling blocks with float32 networks invert float64 points to float64 precision.

    The two directions of an autoregressive block add up the same products in another order, in single precision: they
    agree as well as a transform does with another whose weights are wrong by 64 roundings (the networks here add up
    at most 15 products), on any processor.
    """
    transform, x, context = setup(name)
    transform = transform.float()
    found = mismatch(transform, transform, x, context, name)
    allowed = (1e-9, 1e-8)
    if name[:3] in ("maf", "iaf") or name == "composition":
        changed = [mismatch(transform, moved(transform, 64, seed), x, context, name) for seed in range(4)]
        allowed = (max(a for a, _ in changed), max(b for _, b in changed))
    assert found[0] < allowed[0]
    assert found[1] < allowed[1]
    wrong = mismatch(transform, moved(transform, 4096, 9), x, context, name)
    if list(transform.parameters()):
        assert wrong > allowed, "weights of half precision in one direction would be noticed"


@pytest.mark.parametrize("name", [name for name in CASES if name not in STATELESS])
@given(data=st.data())
@settings(max_examples=5)
def test_gradients_are_finite_at_the_edges(name: str, data: st.DataObject) -> None:
    transform, _, context = setup(name, n=3)
    for parameter in transform.parameters():
        parameter.data *= data.draw(st.sampled_from([0.0, 1.0, 30.0])) if "spline" in transform.__dict__ else 1.0
    corner = st.one_of(st.sampled_from([0.0, 1.0, 0.2, 0.4, 0.5, 1e-300, 1 - 1e-16]), st.floats(0, 1))
    points = data.draw(st.lists(st.lists(corner, min_size=DIM, max_size=DIM), min_size=3, max_size=3))
    for dtype in (torch.float64, torch.float32):
        transform = transform.to(dtype)
        for function in (transform, transform.inverse):
            x = torch.tensor(points, dtype=dtype)
            x = (6.4 * (x - 0.5) if CASES[name].domain == "line" else x).requires_grad_()
            y, log_det = function(x, context)
            assert torch.isfinite(y).all()
            assert torch.isfinite(log_det).all()
            wanted = [x, *transform.parameters()]
            gradients = torch.autograd.grad(y.sum() + log_det.sum(), wanted, allow_unused=True)
            assert all(g is None or bool(torch.isfinite(g).all()) for g in gradients)
            assert gradients[0] is not None


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.context_dim])
def test_context_matters_and_is_checked(name: str) -> None:
    transform, x, context = setup(name)
    assert context is not None
    context.requires_grad_()
    y, log_det = transform(x, context)
    (gradient,) = torch.autograd.grad(log_det.sum(), context)
    assert (gradient.abs().sum(dim=1) > 0).all()
    assert not torch.allclose(y, transform(x, context + 1)[0])
    for wrong in (None, context[:, :2], context[:1]):
        for function in (transform, transform.inverse):
            with pytest.raises(ShapeError, match="context"):
                function(x, wrong)


@pytest.mark.parametrize("name", [name for name in CASES if "coupling" in name or "af" in name])
def test_spline_blocks_start_as_the_identity(name: str) -> None:
    _, x, context = setup(name)
    transform = CASES[name].build(torch.Generator().manual_seed(5)).double()
    for function in (transform, transform.inverse):
        y, log_det = function(x, context)
        assert gap(name, y, x).max() < 1e-12
        assert log_det.abs().max() < 1e-10


@EVERY
def test_saved_and_loaded_as_safetensors(name: str) -> None:
    """The copy is built from other random numbers: masks, orders and flags have to come out of the file."""
    transform, x, context = setup(name)
    expected, expected_det = transform(x, context)
    copy = CASES[name].build(torch.Generator().manual_seed(77)).double().eval()
    copy.load_state_dict(load(save(transform.state_dict())))
    y, log_det = copy(x, context)
    assert torch.equal(y, expected)
    assert torch.equal(log_det, expected_det)
    assert torch.equal(copy.inverse(y, context)[0], transform.inverse(y, context)[0])


def test_weights_depend_on_the_generator_alone() -> None:
    state = torch.random.get_rng_state()
    for name, case in CASES.items():
        one, two = (case.build(torch.Generator().manual_seed(4)).state_dict() for _ in range(2))
        assert all(torch.equal(one[key], two[key]) for key in one), name
    assert torch.equal(state, torch.random.get_rng_state()), "the global random state was used"


class _Operations(TorchDispatchMode):
    """Collects the names of all operations, those of the backward pass included."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.masked = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).split(".")[1]
        self.names.add(name)
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            self.masked |= any(t is not None and t.dtype == torch.bool for t in args[1])
        return func(*args, **(kwargs or {}))


@contextmanager
def recorded() -> Iterator[_Operations]:
    with _Operations() as mode:
        yield mode


DATA_DEPENDENT = {
    "nonzero",
    "masked_select",
    "masked_scatter",
    "_local_scalar_dense",
    "unique_dim",
    "_unique2",
}


@EVERY
def test_no_operation_has_a_data_dependent_shape(name: str) -> None:
    transform, x, context = setup(name, n=4)
    x.requires_grad_()
    with recorded() as mode:
        for function in (transform, transform.inverse):
            y, log_det = function(x, context)
            (y.sum() + log_det.sum()).backward()
    assert mode.names, "nothing was recorded"
    assert not mode.names & DATA_DEPENDENT
    assert not mode.masked


def test_boolean_indexing_would_be_noticed() -> None:
    x = torch.rand(5)
    with recorded() as mode:
        x[x > 0.5] = 0
        x[x > 0.1].sum()
    assert mode.masked
    assert not mode.names.isdisjoint(DATA_DEPENDENT | {"index"})


@pytest.mark.parametrize("net", [SMALL, RESIDUAL])
def test_autoregressive_dependence(net: NetConfig) -> None:
    """Coordinate i is transformed under the condition of exactly the coordinates before it."""
    generator = torch.Generator().manual_seed(9)
    transform = disturbed(autoregressive(Spline(bins=5), net)(generator)).double()
    x = torch.rand(20, DIM, generator=generator, dtype=torch.float64, requires_grad=True)
    context = torch.randn(20, net.context_dim, generator=generator) if net.context_dim else None
    y = transform(x, context)[0]
    rows = [torch.autograd.grad(y[:, i].sum(), x, retain_graph=True)[0] for i in range(DIM)]
    reached = (torch.stack(rows, dim=1).abs() > 0).any(dim=0)
    assert torch.equal(reached, torch.ones(DIM, DIM).tril().bool())


def test_coupling_over_binary_masks_reaches_every_pair() -> None:
    dim, generator = 5, torch.Generator().manual_seed(10)
    blocks = [coupling(Spline(bins=4), mask=mask)(generator) for mask in binary_masks(dim)]
    transform = disturbed(Composition(blocks)).double()
    x = torch.rand(30, dim, generator=generator, dtype=torch.float64, requires_grad=True)
    y = transform(x)[0]
    rows = [torch.autograd.grad(y[:, i].sum(), x, retain_graph=True)[0] for i in range(dim)]
    assert (torch.stack(rows, dim=1).abs().amax(dim=0) > 0).all()


def test_actnorm_whitens_its_first_batch_once() -> None:
    generator = torch.Generator().manual_seed(11)
    x = 3 + 5 * torch.randn(200, DIM, generator=generator)
    layer = ActNorm(DIM).eval()
    assert torch.equal(layer(x)[0], x), "evaluation mode does not initialise"
    y, _ = layer.train()(x)
    assert y.mean(dim=0).abs().max() < 1e-5
    assert (y.std(dim=0, correction=0) - 1).abs().max() < 1e-5
    before = layer.log_scale.clone()
    layer(10 * x)
    assert torch.equal(layer.log_scale, before)
    copy = ActNorm(DIM)
    copy.load_state_dict(layer.state_dict())
    copy(10 * x)
    assert torch.equal(copy.log_scale, before), "the flag travels with the weights"
    with pytest.raises(ShapeError, match="2 points"):
        ActNorm(DIM)(x[:1])


def test_logit_reaches_the_edges() -> None:
    for dtype in (torch.float32, torch.float64):
        x = torch.tensor([[0.0, 1.0, 0.5, 1e-9]], dtype=dtype)
        y, log_det = Logit(1e-6)(x)
        assert torch.isfinite(y).all()
        assert torch.isfinite(log_det).all()
        assert torch.allclose(y[0, 0], -y[0, 1])
        assert torch.allclose(Logit(1e-6).inverse(y)[0], x, atol=1e-6)


def test_wrong_settings_and_shapes_are_refused() -> None:
    with pytest.raises(ConfigError, match="permutation"):
        Permutation(torch.tensor([0, 0, 1]))
    with pytest.raises(ConfigError, match="alpha"):
        Logit(0.5)
    for mask in (torch.zeros(3, dtype=torch.bool), torch.ones(3), torch.ones(2, 2, dtype=torch.bool)):
        with pytest.raises(ConfigError, match="mask"):
            coupling(Spline(), mask=mask)(torch.Generator())
    for options in ({"kind": "cnn"}, {"hidden": 0}, {"layers": 0}, {"fourier": -1}, {"activation": "step"}):
        with pytest.raises(ConfigError, match=f"{next(iter(options))} = .*: must be"):
            NetConfig(**options)  # type: ignore[arg-type]
    for name in ("coupling-cubic-unit", "maf-unit"):
        transform, _, _ = setup(name)
        for function in (transform, transform.inverse):
            with pytest.raises(ShapeError, match="points"):
                function(torch.rand(3, DIM + 1))


def test_autoregressive_blocks_see_one_side_each() -> None:
    """The same weights: a MAF block's network sees the data side, an IAF block's the latent side; same spline."""
    line = Spline(bins=5, domain="line", bound=4.0)
    masked = disturbed(autoregressive(line)(torch.Generator().manual_seed(3))).double()
    inverted = inverse_autoregressive(line)(torch.Generator().manual_seed(4)).double()
    inverted.load_state_dict(masked.state_dict())
    assert isinstance(masked, MaskedAutoregressiveTransform)
    assert isinstance(inverted, InverseAutoregressiveTransform)
    x = torch.randn(20, DIM, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    y, log_det, raw = masked.fast(x)
    assert torch.equal(raw, masked.net(x))
    assert torch.equal(y, masked(x)[0])
    assert torch.allclose(masked.slow(y)[0], x, atol=1e-9)
    back, down, raw = inverted.fast(y)
    assert torch.equal(raw, masked.net(y))
    assert torch.equal(back, inverted.inverse(y)[0])
    assert torch.allclose(inverted.slow(back)[0], y, atol=1e-9)
    # the first coordinate depends on nothing: there the two undo each other
    assert torch.allclose(back[:, 0], x[:, 0], atol=1e-9)
    assert not torch.allclose(back[:, -1], x[:, -1], atol=1e-3)
    assert not torch.allclose(log_det, -down, atol=1e-3)
