"""Fresh points of frozen samplers and what they are worth."""

from __future__ import annotations

import torch
from torch import Tensor

from nisampler.base.rng import Streams
from nisampler.base.weights import efficiencies_at, importance_weights, kish_ess
from nisampler.density.integrand import Integrand
from nisampler.samplers.base import Sampler
from nisampler.training import spent
from nisampler.training.memory import Memory
from nisampler.training.prices import Prices
from nisampler.training.records import Candidate


class Evaluation:
    """Evaluates the integrand at fresh points of a sampler; their random numbers depend on a name and an index alone.

    Parameters
    ----------
    integrand, streams, device
        As for the `Trainer`.
    prices
        Whose clock, if it has one, measures points ("grid") and calls ("call").

    Attributes
    ----------
    memory
        The points with the largest weights, where these do not depend on channel weights of the sampler.

    Examples
    --------
    >>> from nisampler.samplers.base import UniformSampler
    >>> from nisampler.training.config import TrainingConfig
    >>> integrand = Integrand(lambda x: 2.0 * x[:, 0], 1, kind="torch")
    >>> evaluate = Evaluation(integrand, Streams(1), torch.device("cpu"), Prices(TrainingConfig()))
    >>> u, weights = evaluate(UniformSampler(1), 1000, "example")
    >>> abs(float(weights.mean()) - 1.0) < 0.1
    True
    """

    def __init__(self, integrand: Integrand, streams: Streams, device: torch.device, prices: Prices) -> None:
        self.integrand, self.streams, self.device, self.prices = integrand, streams, device, prices
        self.memory = Memory(integrand.dim, device)

    def __call__(self, sampler: Sampler, n: int, name: str, index: int = 0) -> tuple[Tensor, Tensor]:
        """Fresh latent points (n, dim) of a frozen sampler and their weights f/q (n,)."""
        generator = self.streams.generator(name, index, device=self.device)
        u = torch.rand(n, self.integrand.dim, generator=generator, dtype=torch.float64, device=self.device)
        return u, self.weights(sampler, u)

    def weights(self, sampler: Sampler, u: Tensor) -> Tensor:
        """Weights f/q (n,) of latent points u (n, dim) of a frozen sampler."""
        n = len(u)
        with self.prices.timed("grid", n), spent.timed("networks"):
            x, log_q = sampler.map(u)
        view = sampler.view(self.integrand)
        with self.prices.timed("call", n), spent.timed("functions"):
            f = view(x).to(self.device)
        weights = importance_weights(f, log_q)
        if view is self.integrand:
            self.memory.add(x, f, weights)
        return weights


def rated(name: str, weights: Tensor, counts: Tensor | None = None) -> Candidate:
    """A candidate with the figures of its weights (n,), which stand for `counts` (n,) draws each, one by default.

    >>> rated("even", torch.ones(100)).efficiency_0p1
    1.0
    """
    if not bool((weights != 0.0).any()):
        return Candidate(name, 0.0, 0.0)
    efficiency = efficiencies_at(weights, [1e-3], counts)[0][1]
    draws = len(weights) if counts is None else float(counts.sum())
    return Candidate(name, efficiency, kish_ess(weights.abs(), counts) / draws)
