"""Events as rows of numbers and the templates of their text, in the layout of Les Houches event files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from nisampler.events.batch import EventBatch
from nisampler.events.text.fields import INTEGER, REAL
from nisampler.events.text.templates import Template

_HEAD = (INTEGER, INTEGER, REAL, REAL, REAL, REAL)
_PARTICLE = (INTEGER,) * 6 + (REAL,) * 7
_SCALE = 3
_PIECES = list[tuple[str, int, int]]


class Layout:
    """What an event of a batch says, and where its numbers stand in a row.

    Parameters
    ----------
    batch
        n events of p slots with k named weights.
    ids
        The names of these weights.

    Attributes
    ----------
    table
        (n, w) the numbers: six of the event, 13 of each particle, the renormalisation scale, x and x f of both incoming
        partons, `pt_clust` of each slot, and the named weights.
    which
        (n,) the template of each event.
    templates
        One for each number of particles and each set of what else is known of an event.

    Examples
    --------
    >>> layout = Layout(EventBatch.empty(4), ())
    >>> layout.table.shape, layout.templates
    ((0, 67), [])
    """

    def __init__(self, batch: EventBatch, ids: Sequence[str]) -> None:
        n, p = len(batch), batch.slots
        self._ids, self._clustered, self._named = ids, 11 + 13 * p, 11 + 14 * p
        self._mu_r = 6 + 13 * p
        heads = (batch.process_ids, batch.weights, batch.scales, batch.alpha_em, batch.alpha_s)
        counts = np.count_nonzero(batch.status, axis=1)
        self.table = table = np.empty((n, self._named + len(ids)))
        for column, values in enumerate((counts, *heads)):
            table[:, column] = values
        particles = table[:, 6 : self._mu_r].reshape(n, p, len(_PARTICLE), copy=False) if n else np.empty((0, p, 13))
        particles[..., 0], particles[..., 1] = batch.pdg_ids, batch.status
        particles[..., 2:4], particles[..., 4:6] = batch.mothers, batch.colours
        particles[..., 6:9], particles[..., 9] = batch.momenta[..., 1:], batch.momenta[..., 0]
        particles[..., 10], particles[..., 11], particles[..., 12] = batch.masses, batch.lifetimes, batch.spins
        table[:, self._mu_r] = batch.mu_r
        table[:, self._mu_r + 1 : self._mu_r + 3] = batch.pdf_x
        table[:, self._mu_r + 3 : self._clustered] = batch.pdf_xf
        table[:, self._clustered : self._named] = batch.pt_clust
        table[:, self._named :] = batch.named_weights
        known = [counts, batch.mu_r > 0, (batch.pdf_x != 0).any(axis=1)]
        if batch.pt_clust.any():
            known += list((batch.pt_clust > 0).T)
        self.which, kinds = _distinct(known)
        self.templates = [self._template(*kind) for kind in kinds]

    def _template(self, count: int, scaled: int, dense: int, *clustered: int) -> Template:
        pieces = [("<event>\n", 0, _HEAD[0]), *_line(1, _HEAD[1:])]
        for slot in range(count):
            begin = 6 + 13 * slot
            pieces += [("\n", begin, _PARTICLE[0]), *_line(begin + 1, _PARTICLE[1:])]
        end = "\n"
        if dense:
            x, ids = self._mu_r + 1, [("\n#pdf ", 6, INTEGER), (" ", 19, INTEGER)]
            pieces += [*ids, *((" ", column, REAL) for column in (x, x + 1, _SCALE, x + 2, x + 3))]
        if self._ids:
            end = "\n<rwgt>\n"
            for place, name in enumerate(self._ids):
                pieces.append((f"{end}<wgt id={_attribute(name)}>", self._named + place, REAL))
                end = "</wgt>\n"
            end += "</rwgt>\n"
        scales = list(self._scales(scaled, clustered))
        for place, (name, column) in enumerate(scales):
            pieces.append((f"{end}<scales {name}='" if place == 0 else f"' {name}='", column, REAL))
            end = "'/>\n"
        return Template(
            (*(piece for piece, _, _ in pieces), f"{end}</event>\n"),
            tuple((column, kind) for _, column, kind in pieces),
        )

    def _scales(self, scaled: int, clustered: Sequence[int]) -> Iterator[tuple[str, int]]:
        if scaled:
            yield from (("muf", _SCALE), ("mur", self._mu_r))
        yield from ((f"pt_clust_{i + 1}", self._clustered + i) for i, known in enumerate(clustered) if known)


def _distinct(columns: Sequence[NDArray[Any]]) -> tuple[NDArray[np.int64], list[tuple[int, ...]]]:
    """The different rows of whole numbers from zero on, and which of them each row is."""
    which = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        high = int(column.max(initial=0)) + 1
        if high > 1:
            # Numbered anew each time, so that the codes stay small.
            which = np.unique(which * high + column, return_inverse=True)[1]
    first = np.unique(which, return_index=True)[1]
    return which, [tuple(int(column[row]) for column in columns) for row in first]


def _line(begin: int, kinds: Sequence[int]) -> _PIECES:
    return [(" ", begin + place, kind) for place, kind in enumerate(kinds)]


def _attribute(text: str) -> str:
    """A quoted attribute in ASCII."""
    return quoteattr(text).encode("ascii", "xmlcharrefreplace").decode()
