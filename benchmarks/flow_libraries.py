"""The same coupling flow and the same spline from several libraries, to be timed beside each other.

All flows have the same masks, so the same number of blocks, the same hidden sizes and bins, and the activation that is
the default of their library. Points live where the library has them: the unit cube, or [-5, 5]^d for zuko. Ours is
there twice, the second time with points drawn through matrix products in bfloat16.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from nisampler.base.extras import install
from nisampler.errors import MissingExtraError
from nisampler.flows import CouplingConfig, NetConfig, Spline, binary_masks, coupling_flow
from nisampler.flows.coupling import split_parameters
from nisampler.flows.splines.fused_spline import using

OURS = "nisampler"
OURS_BFLOAT16 = "nisampler, bfloat16 samples"
PLAIN_TORCH = "nisampler, plain torch"
_ZUKO_BOUND = 5.0


@dataclass(frozen=True)
class FlowShape:
    """Size of a coupling flow: coordinates, `layers` hidden layers of `hidden` units, bins, blocks.

    Without a number of blocks there are 2 ceil(log2 d).
    """

    dim: int
    hidden: int = 64
    layers: int = 3
    bins: int = 10
    blocks: int | None = None

    def masks(self) -> list[Tensor]:
        """True where a coordinate is transformed."""
        full = binary_masks(self.dim)
        return [full[k % len(full)] for k in range(self.blocks or len(full))]

    def products(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of every linear layer of the conditioners."""
        found = []
        for mask in self.masks():
            changed = int(mask.sum())
            sizes = [self.dim - changed, *[self.hidden] * self.layers, changed * (3 * self.bins + 1)]
            found += list(pairwise(sizes))
        return found


@dataclass(frozen=True)
class Contestant:
    """A flow of some library.

    Attributes
    ----------
    module
        Owns the parameters.
    log_prob
        Points (n, d) -> log densities (n,).
    sample
        n -> points (n, d) with their log densities (n,).
    low, high
        Range of the coordinates.
    """

    module: nn.Module
    log_prob: Callable[[Tensor], Tensor]
    sample: Callable[[int], tuple[Tensor, Tensor]]
    low: float = 0.0
    high: float = 1.0


class WithoutContext(nn.Module):
    """A network for libraries that hand a context to theirs; `hidden_features` scales the inputs of their softmax."""

    def __init__(self, net: nn.Module, hidden: int) -> None:
        super().__init__()
        self.net, self.hidden_features = net, hidden

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        found: Tensor = self.net(x)
        return found


def library(name: str) -> Any:
    """Import a module of a peer.

    Raises
    ------
    MissingExtraError
        If the peer is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(f"{name.partition('.')[0]} is not installed: {install('bench')}") from error


def _nisampler(shape: FlowShape, device: str) -> Contestant:
    net = NetConfig(hidden=shape.hidden, layers=shape.layers)
    flow = coupling_flow(shape.dim, CouplingConfig(Spline(bins=shape.bins), net, blocks=shape.blocks)).to(device)
    return Contestant(flow, flow.log_prob, flow.sample)


def _nisampler_bfloat16(shape: FlowShape, device: str) -> Contestant:
    ours = _nisampler(shape, device)
    return replace(ours, sample=partial(ours.sample, products=torch.bfloat16))


def _madnis(shape: FlowShape, device: str) -> Contestant:
    masks = ~torch.stack(shape.masks())
    # its layers count the output layer
    sizes = {"layers": shape.layers + 1, "units": shape.hidden, "bins": shape.bins}
    flow = library("madnis.nn").Flow(shape.dim, condition_masks=masks, **sizes).to(device)
    place = torch.device(device)
    return Contestant(flow, flow.log_prob, lambda n: flow.sample(n, return_log_prob=True, device=place))


def _nflows(shape: FlowShape, device: str) -> Contestant:
    transforms, nets = library("nflows.transforms"), library("nflows.nn.nets")

    def net(d_in: int, d_out: int) -> nn.Module:
        return WithoutContext(nets.MLP((d_in,), (d_out,), [shape.hidden] * shape.layers), shape.hidden)

    block = transforms.PiecewiseRationalQuadraticCouplingTransform
    whole = transforms.CompositeTransform([block(mask, net, shape.bins) for mask in shape.masks()]).to(device)

    def sample(n: int) -> tuple[Tensor, Tensor]:
        x, log_det = whole.inverse(torch.rand(n, shape.dim, device=device))
        return x, -log_det

    return Contestant(whole, lambda x: whole(x)[1], sample)


def _zuko(shape: FlowShape, device: str) -> Contestant:
    coupling, lazy = library("zuko.flows.coupling"), library("zuko.lazy")
    univariate = library("zuko.transforms").MonotonicRQSTransform
    shapes = [(shape.bins,), (shape.bins,), (shape.bins - 1,)]
    hidden = [shape.hidden] * shape.layers
    blocks = [
        coupling.GeneralCouplingTransform(
            shape.dim, mask=~mask, univariate=univariate, shapes=shapes, hidden_features=hidden
        )
        for mask in shape.masks()
    ]
    edge = torch.full((shape.dim,), _ZUKO_BOUND)
    # rounding may take a point past the edge of the box, where the density of a uniform base is zero
    box = library("zuko.distributions").BoxUniform
    base = lazy.UnconditionalDistribution(box, lower=-1.01 * edge, upper=1.01 * edge, buffer=True)
    flow = lazy.Flow(blocks, base).to(device)
    return Contestant(
        flow,
        lambda x: flow().log_prob(x),
        lambda n: flow().rsample_and_log_prob((n,)),
        -_ZUKO_BOUND,
        _ZUKO_BOUND,
    )


def _normflows(shape: FlowShape, device: str) -> Contestant:
    peer, coupling = library("normflows"), library("normflows.flows.neural_spline.coupling")

    def net(d_in: int, d_out: int) -> nn.Module:
        sizes = [d_in, *[shape.hidden] * shape.layers, d_out]
        return WithoutContext(peer.nets.MLP(sizes), shape.hidden)

    # its flows run from latent space to data, and its couplings the other way; `log_prob` starts from the last flow
    blocks = [coupling.PiecewiseRationalQuadraticCoupling(mask, net, shape.bins) for mask in shape.masks()]
    base = library("normflows.distributions.base").Uniform(shape.dim, 0.0, 1.0)
    base.low, base.high = base.low.to(device), base.high.to(device)
    base.log_prob_val = 0.0
    flow = peer.NormalizingFlow(base, [peer.flows.Reverse(block) for block in reversed(blocks)]).to(device)
    return Contestant(flow, flow.log_prob, flow.sample)


_FLOWS: dict[str, Callable[[FlowShape, str], Contestant]] = {
    OURS: _nisampler,
    OURS_BFLOAT16: _nisampler_bfloat16,
    "madnis": _madnis,
    "nflows": _nflows,
    "zuko": _zuko,
    "normflows": _normflows,
}
LIBRARIES = tuple(_FLOWS)


def build(name: str, shape: FlowShape, device: str = "cpu", seed: int = 1) -> Contestant:
    """The flow of a library with random weights, those that start at zero included, so that no spline is the identity.

    Raises
    ------
    MissingExtraError
        If the library is not installed.
    """
    torch.manual_seed(seed)
    found = _FLOWS[name](shape, device)
    with torch.no_grad():
        for parameter in found.module.parameters():
            if not bool(parameter.any()):
                width = parameter.shape[1] if parameter.dim() > 1 else shape.hidden
                parameter.uniform_(-(width**-0.5), width**-0.5)
    return found


SplineCall = Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor]]


def _split(raw: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    return raw[..., :bins], raw[..., bins : 2 * bins], raw[..., 2 * bins :]


def _without_kernel(spline: Spline, x: Tensor, raw: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    with using("reference"):
        return spline(x, raw, inverse)


def _of_zuko(bins: int) -> SplineCall:
    transform = library("zuko.transforms").MonotonicRQSTransform

    def call(x: Tensor, raw: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        widths, heights, slopes = _split(raw, bins)
        spline = transform(widths, heights, slopes[..., 1:-1])
        found: tuple[Tensor, Tensor] = (spline.inv if inverse else spline).call_and_ladj((2 * x - 1) * _ZUKO_BOUND)
        return found

    return call


def spline_calls(name: str, bins: int) -> dict[str, SplineCall]:
    """Rational-quadratic splines of a library by label: x (n, d), raw parameters (n, d, 3 bins + 1), direction.

    Those between products of lower precision are ours.

    Raises
    ------
    MissingExtraError
        If the library is not installed.
    """
    if name == OURS:
        return {OURS: Spline(bins=bins), PLAIN_TORCH: partial(_without_kernel, Spline(bins=bins))}
    if name == OURS_BFLOAT16:
        return {}
    if name == "zuko":
        return {name: _of_zuko(bins)}
    places = {
        "madnis": ("madnis.nn.splines", "unconstrained_rational_quadratic_spline"),
        "nflows": ("nflows.transforms.splines.rational_quadratic", "rational_quadratic_spline"),
        "normflows": ("normflows.utils.splines", "rational_quadratic_spline"),
    }
    module, function = places[name]
    peer = getattr(library(module), function)
    return {name: lambda x, raw, inverse: peer(x, *_split(raw, bins), inverse=inverse)}


def spline_inputs(name: str, points: int, dim: int, bins: int, device: str) -> tuple[Tensor, Tensor]:
    """The same points (n, d) and raw parameters (n, d, P) for each library, in memory as its networks leave them."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(points, dim, generator=generator).to(device)
    raw = torch.randn(points, dim, 3 * bins + 1, generator=generator).to(device)
    if name == OURS:
        major = raw.permute(2, 1, 0).contiguous().view(-1, points)
        return x, split_parameters(major.t(), dim)
    return x, raw
