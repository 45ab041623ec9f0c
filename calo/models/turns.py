"""Where the voxels of a shower go when it is turned about the axis, or mirrored."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nisampler.calo.detector.geometry import Geometry


def symmetry_table(geometry: Geometry) -> Any:
    """Indices (m, V) of the voxels of a shower that is turned and mirrored about the axis; the identity comes first.

    All layers turn by the same angle, a common multiple of their bins; layers with one angular bin stay as they are.
    Layers of other cells than equal angular bins have no symmetry here.

    >>> from nisampler.calo.detector.geometries import geometry
    >>> symmetry_table(geometry("toy")).shape
    (16, 240)
    """
    if not geometry.angles:
        return np.arange(geometry.n_voxels)[None]
    steps = math.gcd(*geometry.angles)
    table = []
    for mirror in (False, True):
        for step in range(steps):
            rows = []
            for position, layer in enumerate(geometry.layers):
                index = np.arange(geometry.n_voxels)[geometry.slice(position)].reshape(layer.shape)
                index = index[::-1] if mirror else index
                rows.append(np.roll(index, step * layer.shape[0] // steps, axis=0).ravel())
            table.append(np.concatenate(rows))
    return np.unique(np.stack(table), axis=0)
