"""Random streams: named, independent of each other, and seeds that are refused."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from nisampler.base.rng import Streams
from nisampler.errors import ConfigError


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, 1.0, True, None, "1"])
def test_seeds_that_are_none_are_named(seed: Any) -> None:
    with pytest.raises(ConfigError, match=r"^seed = .*must be a whole number, at least 0"):
        Streams(seed)


def test_integers_of_numpy_are_seeds() -> None:
    assert Streams(np.int64(5)) == Streams(5) and type(Streams(np.int64(5)).seed) is int
    assert Streams(2**63 - 1).integer("a") != Streams(2**63 - 2).integer("a")
    assert copy.deepcopy(Streams(5)) == Streams(5) and hash(Streams(5)) == hash(Streams(5))


def test_streams_depend_on_seed_purpose_and_indices_alone() -> None:
    drawn = {
        name: torch.rand(3, generator=streams.generator(purpose, *indices)).tolist()
        for name, streams, purpose, indices in [
            ("first", Streams(1), "a", (0,)),
            ("other seed", Streams(2), "a", (0,)),
            ("other purpose", Streams(1), "b", (0,)),
            ("other index", Streams(1), "a", (1,)),
            ("child", Streams(1).child("a", 0), "a", (0,)),
        ]
    }
    assert len({tuple(row) for row in drawn.values()}) == 5
    assert torch.rand(3, generator=Streams(1).generator("a", 0)).tolist() == drawn["first"]
