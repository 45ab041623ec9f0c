"""Probabilities of a choice and the draw, compiled: every point on its own, so that no batch changes a bit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nisampler.base.kernels import kept
from nisampler.flows.splines.numba_maths import exp, sigmoid

_LIMIT = np.float32(10.0)


def _network(matrices: Any, offsets: Any, work: Any) -> None:
    """A multilayer perceptron with the activation x sigmoid(x), from row 0 of `work` (2, width) to the same row."""
    inner, outer = work[0], work[1]
    for layer in range(len(matrices)):
        matrix, offset = matrices[layer], offsets[layer]
        rows, columns = matrix.shape
        for j in range(columns):
            outer[j] = offset[j]
        for i in range(rows):
            factor = inner[i]
            row = matrix[i]
            for j in range(columns):
                outer[j] += factor * row[j]
        last = layer == len(matrices) - 1
        for j in range(columns):
            inner[j] = outer[j] if last else outer[j] * sigmoid(outer[j])


network = kept(_network)


def _draw(
    features: Any,
    sizes: Any,
    u: Any,
    shift: Any,
    scale: Any,
    matrices: Any,
    offsets: Any,
    floor: Any,
    table: Any,
    chosen: Any,
    own: Any,
) -> None:
    """Fill in probabilities (n, K), the terms chosen (n,) by numbers u (n,), and their probabilities (n,)."""
    n, terms = sizes.shape
    width = max(len(shift), terms)
    for matrix in matrices:
        width = max(width, matrix.shape[1])
    work = np.empty((2, width), dtype=np.float32)
    ratios = np.empty(terms)
    for i in range(n):
        for j in range(len(shift)):
            work[0, j] = max(-_LIMIT, min(_LIMIT, (features[i, j] - shift[j]) * scale[j]))
        network(matrices, offsets, work)
        size, row = sizes[i], table[i]
        largest, whole = -math.inf, 0.0
        for k in range(terms):
            whole += size[k]
            if size[k] > 0.0:
                largest = max(largest, work[0, k])
        for k in range(terms):
            ratios[k] = exp(min(0.0, work[0, k] - largest))
        total = 0.0
        for k in range(terms):
            row[k] = size[k] * ratios[k]
            total += row[k]
        if whole == 0.0:
            for k in range(terms):
                row[k] = 1.0 / terms
        else:
            inside, outside = (1.0 - floor) / total, floor / whole
            for k in range(terms):
                row[k] = inside * row[k] + outside * size[k]
        reached, best = 0.0, 0
        for k in range(terms):
            if row[k] > 0.0:
                best = k
                reached += row[k]
                if u[i] < reached:
                    break
        chosen[i], own[i] = best, row[best]


draw = kept(_draw)
"""See `_draw`."""
