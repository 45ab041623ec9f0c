"""The columns of an event record: their dtypes, axes, codes and the values of empty slots."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]

UNKNOWN_SPIN = 9.0
FIRST_COLOUR_TAG = 501
INCOMING, FINAL, RESONANCE, EMPTY = -1, 1, 2, 0

# column: (dtype, axes after the event axis, value in an empty slot); "p" is the number of particle slots, "k" that of
# named weights
COLUMNS: dict[str, tuple[type[np.generic], tuple[str | int, ...], float]] = {
    "momenta": (np.float64, ("p", 4), 0.0),
    "masses": (np.float64, ("p",), 0.0),
    "pdg_ids": (np.int32, ("p",), 0),
    "status": (np.int8, ("p",), EMPTY),
    "mothers": (np.int16, ("p", 2), 0),
    "colours": (np.int16, ("p", 2), 0),
    "spins": (np.float64, ("p",), UNKNOWN_SPIN),
    "weights": (np.float64, (), 0.0),
    "scales": (np.float64, (), 0.0),
    "alpha_em": (np.float64, (), 0.0),
    "alpha_s": (np.float64, (), 0.0),
    "process_ids": (np.int32, (), 0),
    "lifetimes": (np.float64, ("p",), 0.0),
    "mu_r": (np.float64, (), 0.0),
    "pdf_x": (np.float64, (2,), 0.0),
    "pdf_xf": (np.float64, (2,), 0.0),
    "pt_clust": (np.float64, ("p",), 0.0),
    "named_weights": (np.float64, ("k",), 0.0),
}
COLUMN_NAMES = tuple(COLUMNS)
MOST_SLOTS = 32_767
"""Particles of an event: mothers are stored as 16-bit numbers."""
DEFAULT_CHUNK = 10_000
"""Events held in memory at a time where a file is read or merged."""
# columns that a batch or a file may lack: they are zero then, and there are no named weights
OPTIONAL = ("lifetimes", "mu_r", "pdf_x", "pdf_xf", "pt_clust", "named_weights")
