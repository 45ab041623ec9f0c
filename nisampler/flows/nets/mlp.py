"""Conditioner networks: from the coordinates a block leaves alone, and a context, to spline parameters.

The last layer starts at zero, so that a fresh flow is the identity. Inputs are cast to the dtype of the
weights, which lets a float32 network steer a transform that is evaluated in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from nisampler.base.checks import Depth, Finite, Natural, Positive, Width, settings
from nisampler.errors import ConfigError, ShapeError
from nisampler.flows.nets.bayesian import VariationalLinear

# Of one network: 4 GiB in single precision.
_MOST_WEIGHTS = 1 << 30
Activation = Literal["silu", "relu", "leaky_relu", "gelu", "elu", "tanh"]
ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "gelu": functional.gelu,
    "elu": functional.elu,
    "tanh": torch.tanh,
}


def overwriting(name: Activation) -> Callable[[Tensor], Tensor]:
    """An activation of values that nothing else needs: they are overwritten where no gradient is wanted.

    >>> x = torch.tensor([-1.0, 2.0])
    >>> with torch.no_grad():
    ...     overwriting("relu")(x) is x
    True
    """
    function = ACTIVATIONS[name]
    if name not in ("silu", "relu", "leaky_relu", "elu"):
        return function
    return partial(_overwrite, function)


def _overwrite(function: Callable[..., Tensor], x: Tensor) -> Tensor:
    return function(x, inplace=not torch.is_grad_enabled())


def join_context(x: Tensor, context: Tensor | None, context_dim: int) -> Tensor:
    """Append the context (n, context_dim) to x (n, d); ShapeError if it is missing or misshapen.

    >>> join_context(torch.zeros(1, 2), torch.ones(1, 1), 1)
    tensor([[0., 0., 1.]])
    """
    if context_dim == 0:
        return x
    if context is None or context.shape != (x.shape[0], context_dim):
        shape = None if context is None else tuple(context.shape)
        raise ShapeError(f"expected a context of shape {(x.shape[0], context_dim)}, got {shape}")
    return torch.cat([x, context.to(x.dtype)], dim=1)


def make_linear(d_in: int, d_out: int, generator: torch.Generator, gain: float = 1.0) -> nn.Linear:
    """A linear layer with uniform weights in ±gain/sqrt(d_in), drawn from `generator` only.

    >>> make_linear(2, 3, torch.Generator().manual_seed(1)).weight.shape
    torch.Size([3, 2])
    """
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, d_in, d_out)  # type: ignore[no-untyped-call]
    _initialise(layer.weight, layer.bias, generator, gain)
    return layer


def _initialise(weight: Tensor, bias: Tensor, generator: torch.Generator, gain: float) -> None:
    scale = gain / math.sqrt(weight.shape[1])
    nn.init.uniform_(weight, -scale, scale, generator=generator)
    nn.init.uniform_(bias, -scale, scale, generator=generator)


class Linear(nn.Module):
    """A linear layer whose result (n, d_out) has the samples fastest in memory, as the splines want it.

    Its weights start as those of `make_linear`, or without a generator at zero.

    >>> Linear(2, 3)(torch.ones(1, 2))
    tensor([[0., 0., 0.]], grad_fn=<TBackward0>)
    """

    def __init__(self, d_in: int, d_out: int, generator: torch.Generator | None = None, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(d_out, d_in))
        self.bias = nn.Parameter(torch.zeros(d_out))
        if generator is not None:
            _initialise(self.weight, self.bias, generator, gain)

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias.unsqueeze(1), self.weight, x.t()).t()


class Constant(nn.Module):
    """A conditioner without inputs: `d_out` free numbers, the same for every point, zero at the start.

    >>> Constant(3)(torch.zeros(5, 0)).shape
    torch.Size([5, 3])
    """

    def __init__(self, d_out: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(d_out))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.values.unsqueeze(1).expand(-1, x.shape[0]).t()


class FourierFeatures(nn.Module):
    """x -> (x, sin 2πkx, cos 2πkx) with k = 1..m: good for thin curved ridges, bad for smooth targets.

    With `centre`, the first entry is 2x - 1.

    >>> FourierFeatures(1, 1)(torch.tensor([[0.0]]))
    tensor([[0., 0., 1.]])
    """

    numbers: Tensor

    def __init__(self, d_in: int, m: int, centre: bool = False) -> None:
        super().__init__()
        self.d_out = d_in * (1 + 2 * m)
        self.m, self.centre = m, centre
        self.register_buffer("numbers", torch.arange(1.0, m + 1.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        plain = 2 * x - 1 if self.centre else x
        if self.m == 0:
            return plain
        # whole turns are taken off while they are exact, so that single precision does not lose the phase
        turns = (x.unsqueeze(-1) * self.numbers).flatten(1)
        phase = 2 * math.pi * (turns - turns.detach().round())
        return torch.cat([plain, torch.sin(phase), torch.cos(phase)], dim=1)


class MLP(nn.Module):
    """A multilayer perceptron (n, d_in), (n, context_dim) -> (n, d_out) with `layers` hidden layers.

    >>> net = MLP(2, 4, NetConfig(hidden=8, layers=2), torch.Generator().manual_seed(1))
    >>> net(torch.zeros(5, 2)).shape, len(net.hidden)
    (torch.Size([5, 4]), 2)
    """

    def __init__(self, d_in: int, d_out: int, config: NetConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.context_dim = config.context_dim
        self.features = FourierFeatures(d_in, config.fourier, config.centre)
        width = config.context_dim + self.features.d_out
        sizes = [width] + [config.hidden] * config.layers
        self.hidden = nn.ModuleList(config.linear(a, b, generator) for a, b in pairwise(sizes))
        self.output = config.linear(config.hidden, d_out, None)
        self.activation: Activation = config.activation
        self._activation = overwriting(config.activation)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = self.features(x.to(self.output.bias.dtype))
        x = join_context(x, context, self.context_dim)
        for layer in self.hidden:
            x = self._activation(layer(x))
        return self.output(x)  # type: ignore[no-any-return]


class ResidualNet(nn.Module):
    """A residual network with pre-activation blocks of two layers; the context enters at the input.

    `layers` counts the blocks.

    >>> net = ResidualNet(2, 4, NetConfig("residual", hidden=8, layers=2), torch.Generator().manual_seed(1))
    >>> net(torch.zeros(5, 2)).shape
    torch.Size([5, 4])
    """

    def __init__(self, d_in: int, d_out: int, config: NetConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.context_dim = config.context_dim
        self.features = FourierFeatures(d_in, config.fourier, config.centre)
        width = config.context_dim + self.features.d_out
        size = config.hidden
        self.input = Linear(width, size, generator, config.gain)
        self.first = nn.ModuleList(Linear(size, size, generator, config.gain) for _ in range(config.layers))
        self.second = nn.ModuleList(Linear(size, size, generator, config.gain) for _ in range(config.layers))
        self.output = Linear(size, d_out)
        self._activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = self.features(x.to(self.output.bias.dtype))
        x = self.input(join_context(x, context, self.context_dim))
        for first, second in zip(self.first, self.second, strict=True):
            x = x + second(self._activation(first(self._activation(x))))
        return self.output(self._activation(x))  # type: ignore[no-any-return]


@settings
class NetConfig:
    """What a conditioner looks like.

    Parameters
    ----------
    kind
        "mlp", "residual", or "bayesian": an MLP whose weights have a posterior, see `flows.nets.bayesian`.
    hidden, layers
        Width, and number of hidden layers (blocks of two layers for "residual").
    activation
        A key of `ACTIVATIONS`; "silu" suits smooth targets.
    fourier
        Number of Fourier frequencies added to the coordinates; 0 for none.
    context_dim
        Length of the context vector.
    centre
        Feed coordinates of [0, 1] to the network as 2x - 1.
    gain
        Of the initial weights and biases, which are uniform in ±gain/sqrt(inputs), but of "bayesian". With √3, inputs
        of unit variance keep it (LeCun et al., Efficient BackProp, 1998); 1 is the usual choice of torch.
    prior_precision, initial_log_variance
        For the weights of "bayesian" (2312.09290): 1 / variance of their prior, and log variance of their posterior at
        the start.

    Raises
    ------
    ConfigError
        If a setting is unknown or out of range.

    Examples
    --------
    >>> net = NetConfig(hidden=8, layers=1, context_dim=3).build(2, 4, torch.Generator().manual_seed(1))
    >>> net(torch.zeros(5, 2), torch.zeros(5, 3)).shape
    torch.Size([5, 4])
    """

    kind: Literal["mlp", "residual", "bayesian"] = "mlp"
    hidden: Width = 64
    layers: Depth = 3
    activation: Activation = "silu"
    fourier: Natural = 0
    context_dim: Natural = 0
    centre: bool = False
    gain: Positive = 1.0
    prior_precision: Positive = 500.0
    initial_log_variance: Finite = -9.0

    def build(self, d_in: int, d_out: int, generator: torch.Generator) -> nn.Module:
        """A fresh network; its weights depend on `generator` alone."""
        if d_in + self.context_dim == 0:
            return Constant(d_out)
        weights = self.hidden * (d_in + self.context_dim + self.hidden * self.layers + d_out)
        if weights > _MOST_WEIGHTS:
            raise ConfigError(f"a network of {weights} weights, it can have {_MOST_WEIGHTS}: lower hidden or layers")
        network = ResidualNet if self.kind == "residual" else MLP
        return network(d_in, d_out, self, generator)

    def linear(self, d_in: int, d_out: int, generator: torch.Generator | None) -> Linear | VariationalLinear:
        """A layer of an MLP; without a generator an output layer, which starts at zero."""
        if self.kind == "bayesian":
            return VariationalLinear(d_in, d_out, self.prior_precision, self.initial_log_variance, generator)
        return Linear(d_in, d_out, generator, self.gain)
