"""Diffusion in the form of EDM (2206.00364), and its distillation into one step (consistency models, 2303.01469).

A network F is made a denoiser D(x; σ) = c_skip x + c_out F(c_in x, log(σ)/4, ...) of data with standard deviation
σ_data. The solution of dx/dσ = (x - D(x; σ)) / σ from σ_max to zero carries noise to data. It is found as dy/dθ = -F
with the angle θ = atan(σ/σ_data) and y = c_in x (2410.11081), where steps leave no error in normal data of that width;
in x and σ, 18 steps of Heun's method make them 5 % too wide.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from nisampler.base.checks import Finite, Positive, Several, settings
from nisampler.errors import ConfigError

# Of the pseudo-Huber distance of 2310.14189, times the square root of the number of coordinates.
_HUBER = 0.00054


@settings
class EDMConfig:
    """Noise of a diffusion: how it is drawn in training, and its levels in generation.

    Parameters
    ----------
    sigma_data
        Standard deviation of the data.
    p_mean, p_std
        Of log σ in training, which is normal.
    sigma_min, sigma_max, rho
        Levels in generation are equidistant in σ^(1/ρ).
    steps
        Number of levels above zero; Heun's method takes 2 steps - 1 evaluations.

    Raises
    ------
    ConfigError
        If a number is out of range.

    Examples
    --------
    >>> levels = EDMConfig(steps=3).levels()
    >>> [round(level, 3) for level in levels.tolist()]
    [80.0, 2.515, 0.002, 0.0]
    """

    sigma_data: Positive = 0.5
    p_mean: Finite = -1.2
    p_std: Positive = 1.2
    sigma_min: Positive = 0.002
    sigma_max: Positive = 80.0
    rho: Positive = 7.0
    steps: Several = 18

    def __post_init__(self) -> None:
        if self.sigma_min >= self.sigma_max:
            raise ConfigError(f"sigma_min = {self.sigma_min} must be below sigma_max = {self.sigma_max}")

    def levels(self) -> Tensor:
        """The noise levels (steps + 1,) of generation, from the largest down to zero, in float64."""
        ends = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        inner = torch.linspace(*ends, self.steps, dtype=torch.float64) ** self.rho
        return torch.cat([inner, torch.zeros(1, dtype=torch.float64)])


class Denoiser(nn.Module):
    """D(x; σ) of points (m, d) given anything that the network takes.

    Parameters
    ----------
    network
        Takes scaled points (m, d), log(σ)/4 of shape (g, 1) and the further arguments, and gives (m, d). The g noise
        levels may be those of groups of points: the network is told by its arguments which point belongs to which.
    config
        The noise.

    Examples
    --------
    >>> class Zero(nn.Module):
    ...     def forward(self, x, noise):
    ...         return torch.zeros_like(x)
    >>> denoiser = Denoiser(Zero(), EDMConfig())
    >>> denoiser(torch.ones(2, 3), torch.full((2, 1), 0.5))[0]
    tensor([0.5000, 0.5000, 0.5000])
    """

    def __init__(self, network: nn.Module, config: EDMConfig) -> None:
        super().__init__()
        self.network, self.config = network, config

    def forward(self, x: Tensor, sigma: Tensor, *given: Any, rows: Tensor | None = None) -> Tensor:
        """The clean points (m, d) expected of noisy ones.

        Parameters
        ----------
        x, sigma
            Points (m, d) and noise levels (g, 1).
        given
            Further arguments of the network.
        rows
            Which of the levels is that of each point, (m,); by default one level for each.
        """
        skip, out, scale = self.coefficients(sigma)
        found: Tensor = self.network(_of(scale, rows) * x, 0.25 * sigma.log(), *given)
        clean: Tensor = _of(skip, rows) * x + _of(out, rows) * found.to(x.dtype)
        return clean

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """c_skip, c_out and c_in at noise levels of any shape."""
        data = self.config.sigma_data
        total = (sigma.square() + data**2).sqrt()
        return data**2 / total.square(), data * sigma / total, 1 / total

    def loss(
        self, x: Tensor, levels: int, generator: torch.Generator, *given: Any, rows: Tensor | None = None
    ) -> Tensor:
        """The mean square of F's error, (m,), at noise and at `levels` random noise levels that belong to `rows`."""
        normal = torch.randn(levels, 1, generator=generator, device=generator.device, dtype=x.dtype).to(x.device)
        sigma = (self.config.p_mean + self.config.p_std * normal).exp()
        noisy = x + _of(sigma, rows) * _normal_like(x, generator)
        weight = _of(self.coefficients(sigma)[1], rows).reciprocal()
        error: Tensor = weight * (self(noisy, sigma, *given, rows=rows) - x)
        return error.square().mean(1)

    def draw(self, noise: Tensor, *given: Any, groups: int, rows: Tensor) -> Tensor:
        """Points (m, d) of normal noise (m, d) by Heun's method, at equal levels for all `groups`."""
        levels = self.config.levels().to(noise.device, noise.dtype)
        x = levels[0] * noise
        for index in range(self.config.steps):
            x = self._heun(x, levels[index], levels[index + 1], groups, rows, *given)
        return x

    def _heun(self, x: Tensor, now: Tensor, then: Tensor, groups: int, rows: Tensor, *given: Any) -> Tensor:
        """From one noise level, a number or one of each group, to the next lower one; Euler's step to zero."""
        shape, data = (groups, 1), self.config.sigma_data
        sigma, following = now.expand(shape), then.expand(shape)
        step = _of(torch.atan(following / data) - torch.atan(sigma / data), rows)
        y = _of(self.coefficients(sigma)[2], rows) * x
        slope = self.network(y, 0.25 * sigma.log(), *given)
        if bool((following > 0).all()):
            second = self.network(y - step * slope, 0.25 * following.log(), *given)
            slope = 0.5 * (slope + second)
        found: Tensor = (y - step * slope) / _of(self.coefficients(following)[2], rows)
        return found


class ConsistentDenoiser(Denoiser):
    """A denoiser that gives the end of the solution from any of its points: one evaluation makes a sample.

    Its coefficients are those with f(x; σ_min) = x (2303.01469, appendix C).

    Examples
    --------
    >>> from nisampler.flows.nets.pointwise import PointwiseConfig, PointwiseNet
    >>> net = PointwiseNet(3, 2, PointwiseConfig(hidden=8, layers=1), torch.Generator().manual_seed(1))
    >>> student, rows = ConsistentDenoiser(net, EDMConfig()), torch.tensor([0, 0])
    >>> student.draw(torch.ones(2, 3), torch.zeros(1, 2), rows, groups=1, rows=rows).shape
    torch.Size([2, 3])
    """

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """c_skip, c_out and c_in at noise levels of any shape."""
        data, above = self.config.sigma_data, sigma - self.config.sigma_min
        total = (sigma.square() + data**2).sqrt()
        return data**2 / (above.square() + data**2), data * above / total, 1 / total

    def draw(self, noise: Tensor, *given: Any, groups: int, rows: Tensor) -> Tensor:
        """Points (m, d) of normal noise (m, d) in one step."""
        sigma = torch.full((groups, 1), self.config.sigma_max, device=noise.device, dtype=noise.dtype)
        made: Tensor = self(self.config.sigma_max * noise, sigma, *given, rows=rows)
        return made

    def lesson(
        self, teacher: Denoiser, x: Tensor, groups: int, generator: torch.Generator, *given: Any, rows: Tensor
    ) -> Tensor:
        """Pseudo-Huber distance (m,) between what is found at neighbouring levels of a solution of the teacher.

        The level of each group is one of those of generation; what is found at the lower level is the target.
        """
        levels = self.config.levels()[:-1].to(x.device, x.dtype)
        pick = torch.randint(len(levels) - 1, (groups, 1), generator=generator, device=generator.device).to(x.device)
        high, low = levels[pick], levels[pick + 1]
        noisy = x + _of(high, rows) * _normal_like(x, generator)
        with torch.no_grad():
            lower = teacher._heun(noisy, high, low, groups, rows, *given)
            target = self(lower, low, *given, rows=rows)
        c = _HUBER * math.sqrt(x.shape[1])
        square = (self(noisy, high, *given, rows=rows) - target).square().sum(1)
        distance: Tensor = (square + c**2).sqrt() - c
        return distance / _of(high - low, rows).squeeze(1)


def _of(values: Tensor, rows: Tensor | None) -> Tensor:
    """Values (g, 1) of the groups for each point, (m, 1)."""
    return values if rows is None or values.dim() == 0 else values[rows]


def _normal_like(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype).to(x.device)
