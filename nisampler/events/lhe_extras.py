"""What an LHE event says after its particles: its scales and the parton densities it was made with.

``<scales muf='…' mur='…'/>`` holds the factorisation and renormalisation scale in GeV (version 3 of the format,
1405.1067); the line ``#pdf id1 id2 x1 x2 scale xf1 xf2`` the two incoming partons, their momentum fractions, the scale
of the densities and the densities x f, as Pythia 8 reads it. An event without them has neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nisampler.errors import EventFormatError

if TYPE_CHECKING:
    from nisampler.events.batch import EventBatch

_PDF_MARK = "#pdf"
_PDF_FIELDS = 7
_X, _XF = slice(2, 4), slice(5, 7)


def extra_lines(batch: EventBatch) -> Iterator[tuple[dict[str, float], list[str]]]:
    """For each event the attributes of ``<scales>`` and the comment lines, both empty where nothing is known.

    >>> from nisampler.events.batch import EventBatch
    >>> list(extra_lines(EventBatch.empty(4)))
    []
    """
    if not batch.mu_r.any() and not batch.pdf_x.any():
        yield from repeat(({}, []), len(batch))
        return
    codes = batch.pdg_ids[:, :2].tolist()
    numbers = zip(batch.scales.tolist(), batch.mu_r.tolist(), batch.pdf_x.tolist(), batch.pdf_xf.tolist(), strict=True)
    for ids, (mu_f, mu_r, x, xf) in zip(codes, numbers, strict=True):
        scales = {"muf": mu_f, "mur": mu_r} if mu_r > 0 else {}
        fields = [*map(str, ids), *(f"{value:.16e}" for value in (*x, mu_f, *xf))]
        yield scales, [" ".join([_PDF_MARK, *fields])] if any(x) else []


def extra_columns(records: list[Any]) -> dict[str, NDArray[np.float64]]:
    """The optional columns of pylhe's events, zero where an event has no such line.

    Raises
    ------
    EventFormatError
        If a ``#pdf`` line does not hold seven numbers.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> record = SimpleNamespace(scales={"mur": 91.2}, optional=["#pdf 2 -2 0.1 0.2 91.2 0.5 0.3"])
    >>> extra_columns([record])["pdf_x"]
    array([[0.1, 0.2]])
    """
    mu_r = np.array([record.scales.get("mur", 0.0) for record in records])
    pdf = np.zeros((len(records), _PDF_FIELDS))
    for row, record in enumerate(records):
        for line in record.optional:
            if line.split(maxsplit=1)[:1] == [_PDF_MARK]:
                pdf[row] = _pdf_numbers(line)
    return {"mu_r": mu_r, "pdf_x": pdf[:, _X], "pdf_xf": pdf[:, _XF]}


def _pdf_numbers(line: str) -> list[float]:
    fields = line.split()[1:]
    if len(fields) != _PDF_FIELDS:
        raise EventFormatError(f"need {_PDF_MARK} id1 id2 x1 x2 scale xf1 xf2, got {line!r}")
    return [float(field) for field in fields]
