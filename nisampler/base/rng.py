"""One seed, many independent named random streams.

Every draw in the package names its purpose and its indices (batch, shard, channel), so a stream depends on nothing
but the seed and that name: not on how many workers ran, nor on what was drawn before. A resumed run therefore needs
no stored generator state.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from nisampler.errors import ConfigError

_SEED_BITS = 63


@dataclass(frozen=True)
class Streams:
    """Independent random streams derived from one seed.

    Parameters
    ----------
    seed
        Any integer, 0 ≤ seed < 2^63.

    Raises
    ------
    ConfigError
        If the seed is out of range.
    """

    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**_SEED_BITS:
            raise ConfigError(f"seed must be in [0, 2^{_SEED_BITS}), got {self.seed}")

    def integer(self, purpose: str, *indices: int) -> int:
        """A 63-bit integer that is unique to (seed, purpose, indices)."""
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
