"""Events with given final particles, for tests of what is computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nisampler.events import EventBatch

Particle = tuple[int, tuple[float, float, float, float]]


def events_of(
    *events: Sequence[Particle], weights: Sequence[float] = (), resonances: int = 0, **more: Any
) -> EventBatch:
    """A batch; the first `resonances` particles of each event are intermediate ones."""
    n, slots = len(events), max(map(len, events))
    momenta, codes, status = np.zeros((n, slots, 4)), np.zeros((n, slots)), np.zeros((n, slots))
    for row, event in enumerate(events):
        for place, (code, momentum) in enumerate(event):
            momenta[row, place], codes[row, place] = momentum, code
            status[row, place] = 2 if place < resonances else 1
    empty = EventBatch.empty(slots).columns()
    columns = {name: np.zeros((n, *value.shape[1:]), value.dtype) for name, value in empty.items()}
    columns |= {"momenta": momenta, "pdg_ids": codes, "status": status, "weights": weights or np.ones(n)}
    return EventBatch(**(columns | more))


def massless(pt: float, eta: float = 0.0, phi: float = 0.0) -> tuple[float, float, float, float]:
    """A momentum."""
    return (pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta))
