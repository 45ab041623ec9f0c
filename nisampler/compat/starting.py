"""Where a training goes on."""

from __future__ import annotations

from nisampler.samplers.base import Sampler
from nisampler.samplers.chain import ChainSampler
from nisampler.samplers.trainable import TrainableSampler


def start_of(sampler: Sampler) -> TrainableSampler | None:
    """What can be trained on of a sampler: itself, or what lies below a density tree; nothing of a flow over a grid.

    >>> from nisampler.samplers.base import UniformSampler
    >>> start_of(UniformSampler(2)) is None
    True
    """
    first = sampler.samplers[0] if isinstance(sampler, ChainSampler) else sampler
    return first if isinstance(first, TrainableSampler) else None
