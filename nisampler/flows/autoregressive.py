"""Masked autoregressive blocks: the spline of coordinate i depends on the coordinates before it."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from nisampler.errors import ShapeError
from nisampler.flows.coupling import split_parameters
from nisampler.flows.nets.mlp import ACTIVATIONS, FourierFeatures, NetConfig, join_context
from nisampler.flows.splines.families import Spline
from nisampler.flows.transforms import Transform


class MaskedLinear(nn.Module):
    """A linear layer whose weight is multiplied by a fixed bool mask (d_out, d_in).

    >>> layer = MaskedLinear(torch.tensor([[True, False]]), torch.Generator().manual_seed(1))
    >>> torch.equal(layer(torch.tensor([[1.0, 2.0]])), layer(torch.tensor([[1.0, 3.0]])))
    True
    """

    mask: Tensor

    def __init__(self, mask: Tensor, generator: torch.Generator | None) -> None:
        super().__init__()
        self.register_buffer("mask", mask, persistent=False)
        self.weight = nn.Parameter(torch.zeros(mask.shape))
        self.bias = nn.Parameter(torch.zeros(mask.shape[0]))
        if generator is not None:
            scale = 1 / math.sqrt(max(mask.shape[1], 1))
            nn.init.uniform_(self.weight, -scale, scale, generator=generator)
            nn.init.uniform_(self.bias, -scale, scale, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight * self.mask, self.bias)

    def samples_fastest(self, x: Tensor) -> Tensor:
        """The same result (n, d_out) with the samples fastest in memory."""
        return torch.addmm(self.bias.unsqueeze(1), self.weight * self.mask, x.t()).t()

    def block(self, x: Tensor, rows: slice) -> Tensor:
        """The outputs `rows` from the first x.shape[1] inputs, all of which they may depend on."""
        return functional.linear(x, self.weight[rows, : x.shape[1]], self.bias[rows])


class MADE(nn.Module):
    """A network whose outputs for coordinate i see only those before it and the context (1502.03509).

    Hidden units are ordered by the number of coordinates they may see. That makes it possible to evaluate
    the network coordinate by coordinate (`Sweep`) at the total cost of one ordinary evaluation, which is
    what the slow direction of an autoregressive flow needs.

    Parameters
    ----------
    dim, n_params
        Coordinates and outputs per coordinate; output p dim + i is parameter p of coordinate i.
    config
        Hidden width, number of hidden layers, activation, context; `kind="residual"` makes `layers` count
        residual blocks. `fourier` has no meaning here.
    generator
        Source of the initial weights.

    Examples
    --------
    >>> made = MADE(3, 2, NetConfig(hidden=8, layers=1), torch.Generator().manual_seed(1))
    >>> made(torch.zeros(5, 3)).shape
    torch.Size([5, 6])
    """

    def __init__(self, dim: int, n_params: int, config: NetConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.dim, self.n_params, self.context_dim, self.config = dim, n_params, config.context_dim, config
        # degree k: sees the coordinates 0..k-1; units of degree 0 see the context only
        lowest = 0 if config.context_dim or dim == 1 else 1
        numbers = [lowest + unit * (dim - lowest) // config.hidden for unit in range(config.hidden)]
        self._ends = [bisect_right(numbers, k) for k in range(dim)]
        degrees = torch.tensor(numbers)
        self.features = FourierFeatures(dim, 0, config.centre)
        self.residual = config.kind == "residual"
        self._activation = ACTIVATIONS[config.activation]
        coordinates = torch.arange(dim)
        between = degrees[:, None] >= degrees[None, :]
        self.input = MaskedLinear(degrees[:, None] > coordinates[None, :], generator)
        every = torch.ones(config.hidden, config.context_dim, dtype=torch.bool)
        self.context = MaskedLinear(every, generator) if config.context_dim else None
        count = 2 * config.layers if self.residual else config.layers - 1
        self.hidden = nn.ModuleList(MaskedLinear(between.clone(), generator) for _ in range(count))
        seen = coordinates.repeat(n_params)
        self.output = MaskedLinear(seen[:, None] >= degrees[None, :], None)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Outputs of shape (n, n_params * dim)."""
        x = x.to(self.output.bias.dtype)
        hidden = self.input(self.features(x))
        given = self.embed(x, context)
        if given is not None:
            hidden = hidden + given
        if self.residual:
            for first, second in zip(self.hidden[::2], self.hidden[1::2], strict=True):
                hidden = hidden + second(self._activation(first(self._activation(hidden))))
        else:
            for layer in self.hidden:
                hidden = layer(self._activation(hidden))
        return self.output.samples_fastest(self._activation(hidden))

    def embed(self, x: Tensor, context: Tensor | None) -> Tensor | None:
        """What the context adds to the first hidden layer, shape (n, hidden)."""
        if self.context is None:
            return None
        embedded: Tensor = self.context(join_context(x[:, :0], context, self.context_dim))
        return embedded

    def sweep(self, x: Tensor, context: Tensor | None) -> Sweep:
        """Start an evaluation coordinate by coordinate; only the dtype, device and length of `x` matter."""
        return Sweep(self, self.embed(x.to(self.output.bias.dtype), context))

    def rows(self, step: int) -> slice:
        """The hidden units that become computable when coordinates 0..step-1 are known."""
        return slice(self._ends[step - 1] if step else 0, self._ends[step])


class Sweep:
    """The state of a coordinate-by-coordinate evaluation of a `MADE`: the hidden units known so far.

    >>> made = MADE(3, 2, NetConfig(hidden=8, layers=1), torch.Generator().manual_seed(1))
    >>> made.sweep(torch.zeros(5, 3), None).step(torch.zeros(5, 0)).shape
    torch.Size([5, 2])
    """

    def __init__(self, made: MADE, embedded: Tensor | None) -> None:
        self._made = made
        self._embedded = embedded
        self._inputs: list[Tensor | None] = [None] * (len(made.hidden) + 1)

    def _extend(self, layer: int, chunk: Tensor) -> Tensor:
        """Store newly known inputs of a layer; returns all that are known."""
        known = self._inputs[layer]
        whole = chunk if known is None else torch.cat([known, chunk], dim=1)
        self._inputs[layer] = whole
        return whole

    def step(self, x: Tensor) -> Tensor:
        """Parameters (n, n_params) of the next coordinate, given all the ones before it, x (n, i)."""
        made, index = self._made, x.shape[1]
        rows = made.rows(index)
        activate = made._activation
        chunk = made.input.block(made.features(x.to(made.output.bias.dtype)), rows)
        if self._embedded is not None:
            chunk = chunk + self._embedded[:, rows]
        for number, layer in enumerate(cast(list[MaskedLinear], list(made.hidden))):
            if made.residual and number % 2 == 0:
                skip = chunk
            chunk = layer.block(self._extend(number, activate(chunk)), rows)
            if made.residual and number % 2 == 1:
                chunk = chunk + skip
        known = self._extend(len(made.hidden), activate(chunk))
        return made.output.block(known, slice(index, None, made.dim))


class AutoregressiveTransform(Transform):
    """What the two masked autoregressive blocks share: a parallel direction, `fast`, and a sequential one, `slow`.

    In both directions the network sees the same side of the block: the input of `fast`, which is the output of `slow`.

    >>> spline, net = Spline(bins=4), NetConfig(hidden=8, layers=1)
    >>> block = InverseAutoregressiveTransform(3, spline, net, torch.Generator().manual_seed(1))
    >>> x = torch.full((2, 3), 0.4)
    >>> torch.allclose(block.slow(block.fast(x)[0])[0], x, atol=1e-6)
    True
    """

    _fast_is_inverse: ClassVar[bool]

    def __init__(self, dim: int, spline: Spline, config: NetConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.dim, self.spline = dim, spline
        self.net = MADE(dim, spline.n_params, config, generator)

    def fast(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The parallel direction: the image (n, dim), its log |det| (n,) and the network's raw outputs (n, P dim)."""
        self._check(x)
        raw = self.net(x, context)
        params = split_parameters(raw, self.dim).to(x.dtype)
        y, log_slope = self.spline(x, params, inverse=self._fast_is_inverse)
        return y, log_slope.sum(dim=1), raw

    def slow(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The other direction, coordinate by coordinate: the image (n, dim) and its log |det| (n,)."""
        self._check(y)
        sweep = self.net.sweep(y, context)
        x, total = y[:, :0], y.new_zeros(y.shape[0])
        for index in range(self.dim):
            params = sweep.step(x).to(y.dtype).unsqueeze(1)
            value, log_slope = self.spline(y[:, index : index + 1], params, inverse=not self._fast_is_inverse)
            x, total = torch.cat([x, value], dim=1), total + log_slope[:, 0]
        return x, total

    def _check(self, x: Tensor) -> None:
        if x.dim() != 2 or x.shape[1] != self.dim:
            raise ShapeError(f"expected points of shape (n, {self.dim}), got {tuple(x.shape)}")


class MaskedAutoregressiveTransform(AutoregressiveTransform):
    """y_i = spline(x_i; made(x_1 .. x_{i-1}, context)): parallel `forward`, sequential `inverse` (MAF, 1705.07057).

    >>> spline, net = Spline(bins=4), NetConfig(hidden=8, layers=1)
    >>> block = MaskedAutoregressiveTransform(3, spline, net, torch.Generator().manual_seed(1))
    >>> y, log_det = block(torch.full((2, 3), 0.4))
    >>> y.shape, log_det.shape
    (torch.Size([2, 3]), torch.Size([2]))
    """

    _fast_is_inverse = False

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.fast(x, context)[:2]

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.slow(y, context)


class InverseAutoregressiveTransform(AutoregressiveTransform):
    """y_i = spline(x_i; made(y_1 .. y_{i-1}, context)): sequential `forward`, parallel `inverse` (IAF, 1606.04934).

    The network's outputs parametrise the spline from data to latent space, as in `MaskedAutoregressiveTransform`, so
    that the two kinds of block can be compared parameter by parameter; `Inverse` of a MAF block is an IAF block too,
    but its outputs describe the spline of the opposite direction.

    >>> spline, net = Spline(bins=4), NetConfig(hidden=8, layers=1)
    >>> block = InverseAutoregressiveTransform(3, spline, net, torch.Generator().manual_seed(1))
    >>> x, log_det = block.inverse(torch.full((2, 3), 0.4))
    >>> x.shape, log_det.shape
    (torch.Size([2, 3]), torch.Size([2]))
    """

    _fast_is_inverse = True

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.slow(x, context)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.fast(y, context)[:2]
