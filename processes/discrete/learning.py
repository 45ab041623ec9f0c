"""How the probabilities of a choice are learned: from the whole sum at some points, which tells the best ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nisampler.base.device import cpu_threads
from nisampler.base.optim import RateSchedule, Stepper, adamw
from nisampler.density.channels import ChannelWeights
from nisampler.processes.discrete.choice import fresh_weights, mixed

_STEPS, _BATCH, _RATE, _DECAY, _CLIP = 2000, 256, 5e-3, 1e-4, 1.0
# No point counts more than so many average ones.
_HEAVIEST = 20.0
_FEWEST = 100
_TINY = 1e-30


@dataclass(frozen=True)
class Sums:
    """A sum at n points, term by term.

    Attributes
    ----------
    features
        Of the points, (n, F).
    sizes
        What is known of the size of each term beforehand, (n, K), not negative.
    values
        The terms, (n, K).
    weights
        What each point contributes to the integral, (n,).

    Examples
    --------
    >>> sums = Sums(torch.zeros(2, 1), torch.ones(2, 2), torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.ones(2))
    >>> len(sums.of_use().weights)
    1
    """

    features: Tensor
    sizes: Tensor
    values: Tensor
    weights: Tensor

    def of_use(self) -> Sums:
        """The points where the sum is finite and not zero."""
        size = self.values.abs().sum(1) * self.weights.abs()
        rows = torch.nonzero((size > 0.0) & torch.isfinite(size)).squeeze(1)
        return Sums(self.features[rows], self.sizes[rows], self.values[rows], self.weights[rows])


def learned(sums: Sums) -> ChannelWeights:
    r"""The network whose probabilities p(k|x) make the draws vary least.

    With s_k = |f_k| / \sum_j |f_j| the second moment of a draw is \sum_k s_k^2 / p_k, and 1 for the best p = s. Its log
    is minimised by AdamW, points counted by the root of what they contribute, in single precision on one thread: the
    result depends on the points alone. Of fewer than a hundred points nothing is learned.

    Examples
    --------
    >>> x = torch.rand(2000, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    >>> sums = Sums(x, torch.ones(2000, 2).double(), torch.cat([x, 1 - x], 1), torch.ones(2000).double())
    >>> p = learned(sums)(torch.tensor([[0.2]]), torch.zeros(1, 2)).exp()
    >>> abs(p[0, 0].item() - 0.2) < 0.02
    True
    """
    found = sums.of_use()
    weights = fresh_weights(sums.values.shape[1], sums.features.shape[1])
    if len(found.weights) < _FEWEST:
        return weights
    size = found.values.abs()
    shares = size / size.sum(1, keepdim=True)
    emphasis = found.weights.abs().sqrt()
    emphasis = (emphasis / emphasis.mean()).clamp(max=_HEAVIEST)
    generator = torch.Generator().manual_seed(1)
    with torch.inference_mode(False), torch.enable_grad(), cpu_threads(1):
        weights.standardise(found.features.float())
        stepper = Stepper(weights, adamw(_RATE, _DECAY), RateSchedule(warm_up=0.1, start=0.1), _CLIP)
        for step in range(_STEPS):
            rows = torch.randint(len(shares), (_BATCH,), generator=generator)
            p = mixed(weights, found.features[rows], found.sizes[rows])
            # Where a term is known to be zero both are.
            moment = (shares[rows].square() / p.clamp(min=_TINY)).sum(1)
            stepper.step((torch.log(moment) * emphasis[rows]).mean(), step / _STEPS)
    return weights
