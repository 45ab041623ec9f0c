"""Variational linear layers: networks whose weights have a posterior (1505.05424; in flows 2104.04543, 2312.09290).

Train inside `training_noise` on the loss NLL + KL / N for N training points. In evaluation mode a network uses the
means of its weights until `draw` freezes one sample of the posterior: the spread between draws is the uncertainty that
the training data leave, for instance the error band of a histogram of samples. Biases have no posterior, as published.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nisampler.base.checks import Finite, Positive, checked
from nisampler.errors import ConfigError

# Variances below this give no gradient: the derivative of the root is infinite at zero.
_LEAST_VARIANCE = 1e-20


class VariationalLinear(nn.Module):
    """y = W x + b with independent weights W_ij ~ N(mean_ij, exp log_variance_ij), (n, d_in) -> (n, d_out).

    In training mode every point has weights of its own, by local reparametrisation (1506.02557):
    y_i = sum_j mean_ij x_j + b_i + sqrt(sum_j exp(log_variance_ij) x_j^2) ε with ε ~ N(0, 1).
    In evaluation mode all points share the frozen draw, or the means. The result has the samples fastest in memory.

    Parameters
    ----------
    d_in, d_out
        Number of inputs and outputs.
    prior_precision
        1 / variance of the prior N(0, 1 / prior_precision) of the weights.
    initial_log_variance
        Log variance of all weights at the start.
    generator
        Source of the initial means and biases, uniform in ±1/sqrt(d_in); None starts both at zero.

    Raises
    ------
    ConfigError
        If the prior precision is not positive or the log variance not finite; in training mode outside
        `training_noise`.

    Examples
    --------
    >>> layer = VariationalLinear(2, 3, 500.0, -9.0, torch.Generator().manual_seed(1)).eval()
    >>> layer(torch.zeros(5, 2)).shape, bool(layer.kl() > 0)
    (torch.Size([5, 3]), True)
    """

    noise: Tensor | None

    def __init__(
        self,
        d_in: int,
        d_out: int,
        prior_precision: float,
        initial_log_variance: float,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        self.prior_precision: float = checked("prior_precision", prior_precision, Positive)
        start: float = checked("initial_log_variance", initial_log_variance, Finite)
        self.mean = nn.Parameter(torch.zeros(d_out, d_in))
        self.log_variance = nn.Parameter(torch.full((d_out, d_in), start))
        self.bias = nn.Parameter(torch.zeros(d_out))
        if generator is not None:
            scale = 1 / math.sqrt(d_in)
            nn.init.uniform_(self.mean, -scale, scale, generator=generator)
            nn.init.uniform_(self.bias, -scale, scale, generator=generator)
        self.source: torch.Generator | None = None
        self.register_buffer("noise", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        columns = x.t()
        if not self.training:
            return torch.addmm(self.bias.unsqueeze(1), self._weight(), columns).t()
        if self.source is None:
            raise ConfigError(
                "a variational layer in training mode has no source of noise: call the network inside "
                "`with training_noise(module, generator)`, or call module.eval() for a posterior draw or the means"
            )
        mean = torch.addmm(self.bias.unsqueeze(1), self.mean, columns)
        # the least variance is zero in the half precision that autocast may choose
        variance = (self.log_variance.exp() @ columns.square()).to(self.bias.dtype)
        noise = torch.randn(mean.shape, generator=self.source, dtype=variance.dtype, device=mean.device)
        return (mean + variance.clamp(min=_LEAST_VARIANCE).sqrt() * noise).t()

    def _weight(self) -> Tensor:
        if self.noise is None:
            return self.mean
        return self.mean + (0.5 * self.log_variance).exp() * self.noise

    def kl(self) -> Tensor:
        """KL divergence of the weights from their prior, a scalar (2312.09290).

        With p the prior precision: 1/2 sum [p (mean² + exp log_variance) - log_variance - 1 - log p].
        """
        square = self.mean.square() + self.log_variance.exp()
        excess = self.prior_precision * square - self.log_variance - (1 + math.log(self.prior_precision))
        return 0.5 * excess.sum()


def kl(module: nn.Module) -> Tensor:
    """KL divergence of all weights of `module` from their priors, a differentiable scalar.

    Raises
    ------
    ConfigError
        If the module has no variational layers.

    Examples
    --------
    >>> layer = VariationalLinear(2, 3, 1.0, 0.0, None)
    >>> kl(layer).detach()
    tensor(0.)
    """
    return torch.stack([layer.kl() for layer in _layers(module)]).sum()


def draw(module: nn.Module, generator: torch.Generator) -> None:
    """Freeze one sample of the posterior of all weights of `module`, for use in evaluation mode.

    The sample depends on the state of `generator` alone, not on the device or dtype of the module. It is not part of
    the state dict: to have it again, draw from the same stream.

    Raises
    ------
    ConfigError
        If the module has no variational layers.

    Examples
    --------
    >>> layer = VariationalLinear(2, 3, 500.0, -9.0, None).eval()
    >>> draw(layer, torch.Generator().manual_seed(1))
    >>> bool((layer(torch.ones(1, 2)) == 0).any())
    False
    """
    for layer in _layers(module):
        noise = torch.randn(layer.mean.shape, generator=generator, dtype=torch.float32, device=generator.device)
        layer.noise = noise.to(layer.mean)


def use_map(module: nn.Module) -> None:
    """Give all weights of `module` the means of their posteriors (its mode) again, for use in evaluation mode.

    Raises
    ------
    ConfigError
        If the module has no variational layers.

    Examples
    --------
    >>> layer = VariationalLinear(2, 3, 500.0, -9.0, None).eval()
    >>> draw(layer, torch.Generator().manual_seed(1))
    >>> use_map(layer)
    >>> bool((layer(torch.ones(1, 2)) == 0).all())
    True
    """
    for layer in _layers(module):
        layer.noise = None


@contextmanager
def training_noise(module: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Within the context the variational layers of `module` take their noise in training mode from `generator`.

    Raises
    ------
    ConfigError
        If the module has no variational layers, or the generator is on another device.

    Examples
    --------
    >>> layer = VariationalLinear(2, 3, 500.0, -9.0, None)
    >>> with training_noise(layer, torch.Generator().manual_seed(1)):
    ...     layer(torch.ones(5, 2)).shape
    torch.Size([5, 3])
    """
    layers = _layers(module)
    if any(layer.mean.device.type != generator.device.type for layer in layers):
        raise ConfigError(f"the network is on {layers[0].mean.device}, but the generator on {generator.device}")
    before = [layer.source for layer in layers]
    for layer in layers:
        layer.source = generator
    try:
        yield
    finally:
        for layer, source in zip(layers, before, strict=True):
            layer.source = source


def _layers(module: nn.Module) -> list[VariationalLinear]:
    layers = [layer for layer in module.modules() if isinstance(layer, VariationalLinear)]
    if not layers:
        raise ConfigError("the module has no variational layers; build its networks with kind='bayesian'")
    return layers
