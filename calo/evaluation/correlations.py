"""Correlations between the layers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from nisampler.errors import ShapeError

Floats = NDArray[np.float64]


def layer_correlations(energies: Floats) -> Floats:
    """Pearson matrix (L, L) of layer energies (n, L).

    A layer whose energy does not vary has no correlation with any other: its off-diagonal elements are 0.

    Raises
    ------
    ShapeError
        If there are fewer than two showers.

    Examples
    --------
    >>> layer_correlations(np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 0.0]])).round(6)
    array([[ 1., -1.],
           [-1.,  1.]])
    """
    if energies.ndim != 2 or len(energies) < 2:
        raise ShapeError(f"correlations need at least two showers, got energies of shape {energies.shape}")
    centred = energies - energies.mean(axis=0)
    norm = np.sqrt((centred**2).sum(axis=0))
    # rounding leaves a constant column a norm of about 1e-16 of its size
    varies = norm > 1e-12 * np.abs(energies).max(axis=0)
    unit = np.where(varies, centred / np.where(varies, norm, 1.0), 0.0)
    matrix: Floats = np.clip(unit.T @ unit, -1.0, 1.0)
    np.fill_diagonal(matrix, 1.0)
    return matrix


def rank_correlations(energies: Floats) -> Floats:
    """Spearman matrix (L, L) of layer energies (n, L): the correlations of their ranks.

    A few showers with a thousand times the usual energy in a layer, as leakage has them, rule a Pearson matrix; here
    they weigh no more than others.

    Raises
    ------
    ShapeError
        If there are fewer than two showers.

    Examples
    --------
    >>> rank_correlations(np.array([[1.0, 2.0], [2.0, 3.0], [3.0, 1e9]])).round(6)
    array([[1., 1.],
           [1., 1.]])
    """
    return layer_correlations(rankdata(energies, axis=0) if energies.ndim == 2 else energies)


def mean_difference(first: Floats, second: Floats) -> float:
    """Mean absolute difference of two (L, L) matrices over the pairs of different layers; 0 for one layer.

    Raises
    ------
    ShapeError
        If their shapes differ.

    Examples
    --------
    >>> mean_difference(np.eye(2), np.array([[1.0, 0.5], [0.5, 1.0]]))
    0.5
    """
    if first.shape != second.shape or first.ndim != 2 or first.shape[0] != first.shape[1]:
        raise ShapeError(f"matrices of shapes {first.shape} and {second.shape} cannot be compared")
    if len(first) == 1:
        return 0.0
    pairs = ~np.eye(len(first), dtype=bool)
    return float(np.abs(first - second)[pairs].mean())
