"""Stored samplers: which class reads which kind. Nothing is imported before a sampler of its kind is read."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from torch import Tensor

from nisampler.errors import CorruptFileError
from nisampler.samplers.base import Sampler

READERS: dict[str, str | type[Sampler]] = {
    "chain": "nisampler.samplers.chain:ChainSampler",
    "flow": "nisampler.samplers.flow:FlowSampler",
    "multichannel": "nisampler.samplers.multichannel:MultichannelSampler",
    "tree": "nisampler.samplers.tree:TreeSampler",
    "uniform": "nisampler.samplers.base:UniformSampler",
    "vegas": "nisampler.samplers.grid:VegasSampler",
}
"""The class of each kind of sampler, or "module:class"."""


def register(kind: type[Sampler]) -> type[Sampler]:
    """Let `sampler_from_state` read samplers of this class; a decorator for a class of one's own.

    >>> @register
    ... class Mine(Sampler):
    ...     kind = "mine"
    >>> READERS.pop("mine").kind
    'mine'
    """
    READERS[kind.kind] = kind
    return kind


def sampler_from_state(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Sampler:
    """The sampler whose `state` this is, on the device of the tensors.

    Raises
    ------
    CorruptFileError
        If the state describes no known sampler or does not fit its tensors.

    Examples
    --------
    >>> sampler_from_state({}, {"kind": "uniform", "dim": 3}).dim
    3
    """
    try:
        reader = READERS[meta["kind"]]
        if isinstance(reader, str):
            module, _, name = reader.partition(":")
            reader = getattr(import_module(module), name)
        return reader.from_state(tensors, meta)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError, StopIteration) as error:
        raise CorruptFileError(f"the stored sampler cannot be rebuilt: {error}") from error
