"""Masks that say which coordinates a coupling block transforms (True) and which it conditions on (False)."""

from __future__ import annotations

import torch
from torch import Tensor

from nisampler.base.checks import Coordinates, checked


def binary_masks(dim: int) -> list[Tensor]:
    """The 2 ceil(log2 d) masks after which every coordinate has been conditioned on every other one.

    Coordinate i is transformed where bit b of i is one; each mask is followed by its complement
    (2001.05486, section 3). Any two coordinates differ in at least one bit, so each of them is transformed
    under the condition of the other. One dimension has nothing to condition on and gets a single mask.

    Returns
    -------
    Bool tensors of shape (dim,).

    Raises
    ------
    ConfigError
        If `dim` is less than one.

    Examples
    --------
    >>> binary_masks(2)
    [tensor([False,  True]), tensor([ True, False])]
    """
    checked("dim", dim, Coordinates)
    if dim == 1:
        return [torch.ones(1, dtype=torch.bool)]
    index = torch.arange(dim)
    masks = []
    for bit in range((dim - 1).bit_length()):
        mask = (index >> bit) % 2 == 1
        masks += [mask, ~mask]
    return masks


def exchange_masks(dim: int, n: int) -> list[Tensor]:
    """`n` masks that alternate between the first and the second half of the coordinates (1605.08803).

    >>> exchange_masks(3, 2)
    [tensor([ True, False, False]), tensor([False,  True,  True])]
    """
    checked("dim", dim, Coordinates)
    if dim == 1:
        return binary_masks(1) * n
    first = torch.arange(dim) < dim // 2
    return [first if k % 2 == 0 else ~first for k in range(n)]


def random_masks(dim: int, n: int, generator: torch.Generator) -> list[Tensor]:
    """`n` masks of random halves of the coordinates, each followed by its complement.

    >>> [int(mask.sum()) for mask in random_masks(5, 3, torch.Generator().manual_seed(1))]
    [2, 3, 2]
    """
    checked("dim", dim, Coordinates)
    if dim == 1:
        return binary_masks(1) * n
    masks: list[Tensor] = []
    while len(masks) < n:
        order = torch.randperm(dim, generator=generator, device=generator.device).cpu()
        mask = order < dim // 2
        masks += [mask, ~mask]
    return masks[:n]
