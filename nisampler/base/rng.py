"""One seed, many independent named random streams.

Every draw in the package names its purpose and its indices (batch, shard, channel), so a stream depends on nothing
but the seed and that name: not on how many workers ran, nor on what was drawn before. A resumed run therefore needs
no stored generator state.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from nisampler.base.checks import Whole, settings

Seed = Annotated[Whole, Field(ge=0, lt=2**63)]
"""0 ≤ seed < 2^63."""


@settings
class Streams:
    """Independent random streams derived from one seed.

    Parameters
    ----------
    seed
        Any integer, 0 ≤ seed < 2^63.

    Raises
    ------
    ConfigError
        If the seed is no integer or out of range.

    Examples
    --------
    >>> streams = Streams(1)
    >>> third, fourth = (torch.rand(1, generator=streams.generator("shower", index)) for index in (3, 4))
    >>> third == torch.rand(1, generator=Streams(1).generator("shower", 3)), third == fourth
    (tensor([True]), tensor([False]))
    """

    seed: Seed

    def integer(self, purpose: str, *indices: int) -> int:
        """A 63-bit integer that is unique to (seed, purpose, indices).

        >>> Streams(1).integer("events", 0) == Streams(1).integer("events", 0) != Streams(1).integer("events", 1)
        True
        """
        text = ":".join([str(self.seed), purpose, *(str(index) for index in indices)])
        digest = hashlib.sha256(text.encode()).digest()
        return int.from_bytes(digest[:8], "little") >> 1

    def generator(self, purpose: str, *indices: int, device: torch.device | str = "cpu") -> torch.Generator:
        """A fresh torch generator on `device` for (seed, purpose, indices)."""
        return torch.Generator(device=device).manual_seed(self.integer(purpose, *indices))

    def numpy(self, purpose: str, *indices: int) -> np.random.Generator:
        """A fresh NumPy generator for (seed, purpose, indices)."""
        return np.random.default_rng(self.integer(purpose, *indices))

    def child(self, purpose: str, *indices: int) -> Streams:
        """A new family of streams, e.g. one for each replica of an experiment."""
        return Streams(self.integer(purpose, *indices))
