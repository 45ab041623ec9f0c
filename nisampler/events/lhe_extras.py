"""What an LHE event says after its particles: its scales and the parton densities it was made with.

``<scales muf='…' mur='…'/>`` holds the factorisation and renormalisation scale in GeV (version 3 of the format,
1405.1067); the line ``#pdf id1 id2 x1 x2 scale xf1 xf2`` the two incoming partons, their momentum fractions, the scale
of the densities and the densities x f, as Pythia 8 reads it. An event without them has neither. ``pt_clust_i`` among
the scales is that of the final particle at position i, from 1, for matching by the MLM method: Pythia takes it with
``Beams:setProductionScalesFromLHEF = on``. The scale where the shower starts, ``mups``, is that of the event.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nisampler.errors import EventFormatError

_PDF_MARK, _CLUSTERED = "#pdf", "pt_clust_"
_PDF_FIELDS = 7
_X, _XF = slice(2, 4), slice(5, 7)


def extra_columns(records: list[Any], slots: int) -> dict[str, NDArray[np.float64]]:
    """The optional columns of pylhe's events of at most `slots` particles, zero where an event has no such line.

    Raises
    ------
    EventFormatError
        If a ``#pdf`` line does not hold seven numbers, or a scale is of a particle that there is not.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> record = SimpleNamespace(scales={"mur": 91.2}, optional=["#pdf 2 -2 0.1 0.2 91.2 0.5 0.3"])
    >>> extra_columns([record], 4)["pdf_x"]
    array([[0.1, 0.2]])
    """
    mu_r = np.array([record.scales.get("mur", 0.0) for record in records])
    pdf = np.zeros((len(records), _PDF_FIELDS))
    for row, record in enumerate(records):
        for line in record.optional:
            if line.split(maxsplit=1)[:1] == [_PDF_MARK]:
                pdf[row] = _pdf_numbers(line)
    return {"mu_r": mu_r, "pdf_x": pdf[:, _X], "pdf_xf": pdf[:, _XF], "pt_clust": _clustered(records, slots)}


def _clustered(records: list[Any], slots: int) -> NDArray[np.float64]:
    """The scales (n, slots) of particles that events name."""
    places = {f"{_CLUSTERED}{slot + 1}": slot for slot in range(slots)}
    table = np.zeros((len(records), slots))
    for row, record in enumerate(records):
        for name, value in record.scales.items():
            if name.startswith(_CLUSTERED):
                if places.get(name, slots) >= len(record.particles):
                    raise EventFormatError(f"the scale {name!r} names no particle, there are {len(record.particles)}")
                table[row, places[name]] = value
    return table


def _pdf_numbers(line: str) -> list[float]:
    fields = line.split()[1:]
    if len(fields) != _PDF_FIELDS:
        raise EventFormatError(f"need {_PDF_MARK} id1 id2 x1 x2 scale xf1 xf2, got {line!r}")
    return [float(field) for field in fields]
