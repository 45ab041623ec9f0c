"""Coupling masks: which pairs of coordinates meet, and how many blocks that takes."""

from __future__ import annotations

import math

import pytest
import torch

from nisampler.errors import ConfigError
from nisampler.flows import binary_masks, exchange_masks, random_masks


def pairs_mixed(masks: list[torch.Tensor]) -> torch.Tensor:
    """Entry (i, j): some block transforms i under the condition of j."""
    return torch.stack([m[:, None] & ~m[None, :] for m in masks]).any(dim=0)


@pytest.mark.parametrize("dim", [*range(2, 18), 31, 32, 33, 96])
def test_binary_masks_mix_all_pairs_in_few_blocks(dim: int) -> None:
    masks = binary_masks(dim)
    assert len(masks) == 2 * math.ceil(math.log2(dim))
    assert all(mask.shape == (dim,) and mask.dtype == torch.bool and mask.any() for mask in masks)
    off_diagonal = ~torch.eye(dim, dtype=torch.bool)
    assert torch.equal(pairs_mixed(masks), off_diagonal)
    for mask, complement in zip(masks[::2], masks[1::2], strict=True):
        assert torch.equal(mask, ~complement)


def test_exchange_masks_do_not_mix_all_pairs() -> None:
    """The negative control: within one half, coordinates never meet directly."""
    mixed = pairs_mixed(exchange_masks(4, 6))
    assert not mixed[0, 1]
    assert mixed[0, 2]
    assert mixed[2, 0]


def test_random_masks_follow_the_generator() -> None:
    first = random_masks(8, 5, torch.Generator().manual_seed(1))
    again = random_masks(8, 5, torch.Generator().manual_seed(1))
    other = random_masks(8, 5, torch.Generator().manual_seed(2))
    assert len(first) == 5
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert all(int(mask.sum()) == 4 for mask in first)
    assert torch.equal(first[0], ~first[1])


def test_one_dimension_has_one_mask() -> None:
    assert [m.tolist() for m in binary_masks(1)] == [[True]]
    assert [m.tolist() for m in exchange_masks(1, 2)] == [[True], [True]]
    assert [m.tolist() for m in random_masks(1, 2, torch.Generator())] == [[True], [True]]


@pytest.mark.parametrize("dim", [0, -3])
def test_no_dimensions_are_refused(dim: int) -> None:
    with pytest.raises(ConfigError, match=f"dim = {dim}: must be a whole number, at least 1"):
        binary_masks(dim)
