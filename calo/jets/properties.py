"""The numbers of a whole jet, drawn first: a small flow given the type of the jet."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nisampler.errors import JetDataError
from nisampler.flows import CouplingConfig, NetConfig, Spline, coupling_flow

PROPERTIES = ("pt", "eta", "mass", "share", "count")
"""pT in GeV and eta of the jet; mass and pT of its constituents over that pT; their number."""
_KNOTS = 64
_REACH = 3.2
_GAP = 1e-5
_FEWEST = 50


class TypeQuantiles(nn.Module):
    """Each property made normal with the quantiles that it has among jets of a type; piecewise linear.

    Parameters
    ----------
    types, dim
        Numbers of types and of properties.

    Examples
    --------
    >>> step = TypeQuantiles(1, 1)
    >>> x, kinds = torch.rand(500, 1, generator=torch.Generator().manual_seed(0)), torch.zeros(500, dtype=torch.long)
    >>> step.fit(x, kinds)
    >>> torch.allclose(step.inverse(step(x, kinds), kinds), x, atol=1e-4)
    True
    """

    quantiles: Tensor
    normal: Tensor

    def __init__(self, types: int, dim: int) -> None:
        super().__init__()
        normal = torch.linspace(-_REACH, _REACH, _KNOTS)
        self.register_buffer("normal", normal, persistent=False)
        self.register_buffer("quantiles", normal.repeat(types, dim, 1))

    @torch.no_grad()
    def fit(self, x: Tensor, kinds: Tensor) -> None:
        """Count the quantiles of properties (n, d) for each type of jets (n,).

        Raises
        ------
        JetDataError
            If there are fewer than fifty jets of a type.
        """
        shares = torch.special.ndtr(self.normal.double())
        for kind in range(len(self.quantiles)):
            rows = x[kinds == kind].double()
            if len(rows) < _FEWEST:
                raise JetDataError(f"{len(rows)} jets of one type are too few to learn from: give at least {_FEWEST}")
            found = torch.quantile(rows, shares, dim=0).t()
            scale = (found[:, -1:] - found[:, :1]).clamp_min(1e-6)
            steps = torch.maximum(found.diff(dim=1), _GAP * scale).cumsum(1)
            self.quantiles[kind] = torch.cat([found[:, :1], found[:, :1] + steps], dim=1).to(self.quantiles.dtype)

    def forward(self, x: Tensor, kinds: Tensor) -> Tensor:
        """Properties (n, d) of jets of these types (n,) as normal numbers."""
        table = self.quantiles[kinds]
        return _through(x, table, self.normal.expand_as(table))

    def inverse(self, y: Tensor, kinds: Tensor) -> Tensor:
        """Normal numbers (n, d) as properties."""
        table = self.quantiles[kinds]
        return _through(y, self.normal.expand_as(table), table)


def _through(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Piecewise linear through (knots, values) (n, d, K), the last pieces without an end."""
    place = torch.searchsorted(knots.contiguous(), x.unsqueeze(2).contiguous()).clamp(1, knots.shape[2] - 1)
    low, high = (knots.gather(2, place - step).squeeze(2) for step in (1, 0))
    first, last = (values.gather(2, place - step).squeeze(2) for step in (1, 0))
    return first + (x - low) / (high - low) * (last - first)


class PropertyFlow(nn.Module):
    """p(pT, eta, mass, share of the pT, number of constituents | type).

    Numbers of constituents are spread evenly over ±1/2 for training, and rounded after drawing.

    Parameters
    ----------
    types
        Number of types.
    most
        Places for constituents.
    blocks, hidden
        Of the flow.
    generator
        Source of the initial weights.

    Examples
    --------
    >>> flow = PropertyFlow(2, 30, blocks=2, hidden=8, generator=torch.Generator().manual_seed(0))
    >>> flow.draw(torch.tensor([0, 1]), torch.Generator().manual_seed(1)).shape
    torch.Size([2, 5])
    """

    def __init__(self, types: int, most: int, blocks: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.types, self.most = types, most
        self.quantiles = TypeQuantiles(types, len(PROPERTIES))
        net = NetConfig("mlp", hidden, 2, context_dim=types)
        config = CouplingConfig(Spline(bins=8, domain="line"), net, "random", blocks)
        self.flow = coupling_flow(len(PROPERTIES), config, generator=generator)

    def spread(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Properties (n, 5) as the flow sees them: logarithms of pT and mass, and no whole numbers."""
        noise = torch.rand(len(x), generator=generator, dtype=x.dtype, device=generator.device).to(x.device)
        count = x[:, 4] + noise - 0.5
        return torch.stack([x[:, 0].log(), x[:, 1], x[:, 2].clamp_min(1e-6).log(), x[:, 3], count], dim=1)

    def fit(self, x: Tensor, kinds: Tensor, generator: torch.Generator) -> None:
        """Count the quantiles of properties (n, 5) of training jets with these types (n,)."""
        self.quantiles.fit(self.spread(x, generator), kinds)

    def loss(self, x: Tensor, kinds: Tensor, generator: torch.Generator) -> Tensor:
        """Minus the log density (n,) of the normal numbers of properties (n, 5)."""
        y = self.quantiles(self.spread(x, generator), kinds).clamp(-2 * _REACH, 2 * _REACH)
        return -self.flow.log_prob(y, self._context(kinds, y))

    @torch.no_grad()
    def draw(self, kinds: Tensor, generator: torch.Generator) -> Tensor:
        """New properties (n, 5) of jets of these types (n,)."""
        like = self.quantiles.normal
        y, _ = self.flow.sample(len(kinds), self._context(kinds, like), generator)
        x = self.quantiles.inverse(y.clamp(-_REACH, _REACH), kinds)
        count = x[:, 4].round().clamp(1, self.most)
        share = x[:, 3].clamp(1e-3, 2.0)
        mass = torch.minimum(x[:, 2].clamp_max(math.log(2.0)).exp(), share)
        return torch.stack([x[:, 0].exp(), x[:, 1], mass, share, count], dim=1)

    def _context(self, kinds: Tensor, like: Tensor) -> Tensor:
        return nn.functional.one_hot(kinds, self.types).to(like.dtype)
