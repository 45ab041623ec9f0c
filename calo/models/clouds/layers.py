"""What is known of a cloud before its points: how many each layer has, their energy, and the centre of gravity."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from nisampler.calo.models.config import FlowConfig
from nisampler.calo.models.flows import build_flow
from nisampler.calo.preprocessing.transforms import Standardise
from nisampler.errors import ModelError

# Logarithmic coordinates this far from their mean, in standard deviations, and numbers of points this many times above
# the largest of the training showers, are as far as generation goes.
_REACH, _MARGIN = 6.0, 1.5
_TREND = 3  # powers of log E_inc whose fit is taken off


class Summary(NamedTuple):
    """Numbers of points (n, L), energies of the layers (n, L) in MeV, centre of gravity (n, 2) in mm.

    >>> Summary(torch.ones(1, 2), torch.ones(1, 2), torch.zeros(1, 2)).numbers.sum()
    tensor(2.)
    """

    numbers: Tensor
    energies: Tensor
    centre: Tensor


def summary_of(points: Tensor, layers: int) -> Summary:
    """The summary of padded points (n, P, 4), whose energy is zero behind those of a shower.

    >>> points = torch.tensor([[[1.0, 0.0, 0.0, 2.0], [3.0, 0.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0]]])
    >>> [part.tolist() for part in summary_of(points, 2)]
    [[[1.0, 1.0]], [[2.0, 2.0]], [[2.0, 0.0]]]
    """
    x, y, layer, energy = points.unbind(2)
    there = (energy > 0).to(points.dtype)
    empty = points.new_zeros(len(points), layers)
    index = layer.long()
    numbers, energies = empty.scatter_add(1, index, there), empty.scatter_add(1, index, energy)
    total = energies.sum(1).clamp(min=1e-30)
    centre = torch.stack([(x * energy).sum(1) / total, (y * energy).sum(1) / total], dim=1)
    return Summary(numbers, energies, centre)


class LayerFlow(nn.Module):
    """p(numbers, energies, centre | E_inc): ShowerFlow of CaloClouds II (2309.05704), a flow over 2 L + 2 coordinates.

    They are log(N + u) with u uniform in [0, 1], which is below zero for an empty layer; the logarithm of the mean
    energy of a point, which is noise there; and the centre of gravity. A fit over E_inc is taken off each.

    Parameters
    ----------
    layers
        L.
    config
        Of the flow.
    context_dim
        Numbers that are known of a particle; the first is log E_inc, standardised.
    generator
        Source of the initial weights.

    Examples
    --------
    >>> from nisampler.flows import NetConfig
    >>> flow = LayerFlow(2, FlowConfig(blocks=2, net=NetConfig(hidden=8)), 1, torch.Generator().manual_seed(1))
    >>> flow.draw(torch.zeros(3, 1), torch.Generator().manual_seed(1)).numbers.shape
    torch.Size([3, 2])
    """

    trend: Tensor
    most: Tensor

    def __init__(self, layers: int, config: FlowConfig, context_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.layers, dim = layers, 2 * layers + 2
        self.flow = build_flow(dim, config, context_dim, generator)
        self.standard = Standardise(dim)
        self.register_buffer("trend", torch.zeros(_TREND, dim))
        self.register_buffer("most", torch.ones(layers))

    @torch.no_grad()
    def fit(self, summary: Summary, context: Tensor, generator: torch.Generator) -> None:
        """Take the constants from training showers.

        Raises
        ------
        ModelError
            If they are fewer than three.
        """
        if len(context) < _TREND:
            raise ModelError(f"a model of point clouds needs at least {_TREND} training showers, got {len(context)}")
        raw = self._raw(summary, torch.rand(summary.numbers.shape, generator=generator))
        powers = self._powers(context)
        there = self._there(summary)
        self.trend.zero_()
        for column in range(raw.shape[1]):
            rows = there[:, column]
            if int(rows.sum()) >= _TREND:
                found = torch.linalg.lstsq(powers[rows].double(), raw[rows, column].double(), driver="gelsd").solution
                self.trend[:, column] = found.to(self.trend.dtype)
        rest = raw - powers @ self.trend
        mean = (rest * there).sum(0) / there.sum(0).clamp(min=1)
        spread = (((rest - mean).square() * there).sum(0) / there.sum(0).clamp(min=1)).sqrt()
        self.standard.mean.copy_(mean)
        self.standard.spread.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))
        self.most.copy_(_MARGIN * summary.numbers.amax(0) + 2)

    def coordinates(self, summary: Summary, context: Tensor, generator: torch.Generator) -> Tensor:
        """Coordinates (n, 2 L + 2) of the flow, with fresh noise."""
        device = generator.device
        u = torch.rand(summary.numbers.shape, generator=generator, device=device).to(context.device)
        noise = torch.randn(len(context), 2 * self.layers + 2, generator=generator, device=device).to(context.device)
        rest = self._raw(summary, u) - self._powers(context) @ self.trend
        return torch.where(self._there(summary), self.standard(rest)[0], noise)

    def known(self, summary: Summary, context: Tensor) -> Tensor:
        """The same (n, 2 L + 2) without noise, cut at ±6: what the points of a shower are given."""
        rest = self._raw(summary, torch.full_like(summary.numbers, 0.5)) - self._powers(context) @ self.trend
        y = torch.where(self._there(summary), self.standard(rest)[0], torch.zeros_like(rest))
        return y.clamp(-_REACH, _REACH)

    def loss(self, summary: Summary, context: Tensor, generator: torch.Generator) -> Tensor:
        """Minus the log-density (n,) of the coordinates."""
        return -self.flow.log_prob(self.coordinates(summary, context, generator), context)

    def draw(self, context: Tensor, generator: torch.Generator) -> Summary:
        """A summary for each particle (n, c)."""
        y, _ = self.flow.sample(len(context), context, generator)
        y = y.clamp(-_REACH, _REACH)
        raw = self.standard.inverse(y)[0] + self._powers(context) @ self.trend
        logs, means, centre = torch.split(raw, [self.layers, self.layers, 2], dim=1)
        numbers = logs.exp().minimum(self.most).floor()
        return Summary(numbers, numbers * means.exp(), centre)

    def _raw(self, summary: Summary, u: Tensor) -> Tensor:
        numbers = summary.numbers.clamp(min=1)
        means = (summary.energies / numbers).clamp(min=1e-30).log()
        return torch.cat([(summary.numbers + u).clamp(min=1e-6).log(), means, summary.centre], dim=1)

    def _there(self, summary: Summary) -> Tensor:
        """Which coordinates mean something (n, 2 L + 2): the mean energy of no points does not."""
        filled = summary.numbers > 0
        rest = filled.new_ones(len(filled), 2)
        return torch.cat([torch.ones_like(filled), filled, rest], dim=1)

    def _powers(self, context: Tensor) -> Tensor:
        return torch.stack([context[:, 0] ** power for power in range(_TREND)], dim=1)
