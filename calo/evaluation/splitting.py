"""Which showers a classifier learns from, which choose its epoch, and which judge it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nisampler.base.rng import Streams
from nisampler.errors import ShowerDataError

Index = NDArray[np.int64]
_FEWEST = 10  # showers of each class in each part


@dataclass(frozen=True)
class Parts:
    """Which showers of one class serve for training, for selection and calibration, and for the figures of merit.

    Examples
    --------
    >>> Parts(np.arange(6), np.arange(6, 8), np.arange(8, 10)).test
    array([8, 9])
    """

    train: Index
    selection: Index
    test: Index


def split_classes(sizes: Sequence[int], shares: tuple[float, float, float], streams: Streams) -> tuple[Parts, ...]:
    """Split each class at random into parts as large as the smallest class allows.

    Parameters
    ----------
    sizes
        Number of showers of each class.
    shares
        Shares of the three parts.
    streams
        Each class is shuffled by its own stream.

    Raises
    ------
    ShowerDataError
        If a part has fewer than ten showers of a class.

    Examples
    --------
    >>> [len(part.train) for part in split_classes([100, 130], (0.6, 0.2, 0.2), Streams(1))]
    [60, 60]
    """
    n = min(sizes)
    train, selection = (round(share * n) for share in shares[:2])
    test = min(n - train - selection, round(shares[2] * n))
    if min(train, selection, test) < _FEWEST:
        raise ShowerDataError(
            f"{n} showers of a class make parts of {train}, {selection} and {test}; each needs at least {_FEWEST}: "
            "use more showers"
        )
    shuffled = [streams.numpy("split", k).permutation(size) for k, size in enumerate(sizes)]
    return tuple(
        Parts(order[:train], order[train : train + selection], order[train + selection : train + selection + test])
        for order in shuffled
    )
