"""Scales at which the jets of an event come from its hard process, for matching by the MLM method.

The partons are clustered backwards by the longitudinally invariant k_T measure (hep-ph/9305266) with D = 1, as showers
and MadGraph do: with a beam at d = pT², with each other at d = 2 min(pT²) (cosh Δy − cos Δφ), the smallest first, where
flavours make a vertex of QCD. The scale of a parton is the largest √d at which its line has a vertex. Legs without such
a vertex (leptons, tops) have the energy √s of the collision, so that no veto on emissions stops at them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nisampler.events.batch import EventBatch
from nisampler.events.columns import Bools
from nisampler.events.pdg import COLOURLESS, GLUON

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_LIGHTEST_QUARK, _HEAVIEST_JET = 1, 5
# A parton goes to the beam on its side where both would do.
_OTHER_SIDE = 1 + 1e-9


def clustering_scales(batch: EventBatch, sqrt_s: float) -> Floats:
    """The scale in GeV of each final leg, (n, p), zero for all other particles.

    Parameters
    ----------
    batch
        Events of hadron collisions; massless quarks up to the bottom quark and gluons are jets.
    sqrt_s
        Energy of the collision.

    Examples
    --------
    A gluon of 30 GeV beside a pair of leptons:

    >>> event = EventBatch(
    ...     momenta=[[[90, 0, 0, 90], [40, 0, 0, -40], [50, 0, 0, 50], [50, -30, 40, 0], [30, 30, -40, 0]]],
    ...     masses=[[0] * 5],
    ...     pdg_ids=[[2, -2, 11, -11, 21]],
    ...     status=[[-1, -1, 1, 1, 1]],
    ...     mothers=[[[0, 0], [0, 0], [1, 2], [1, 2], [1, 2]]],
    ...     colours=[[[0, 0]] * 5],
    ...     spins=[[9] * 5],
    ...     **dict.fromkeys(("weights", "scales", "alpha_em", "alpha_s", "process_ids"), [1]),
    ... )
    >>> clustering_scales(event, 13000.0).tolist()
    [[0.0, 0.0, 13000.0, 13000.0, 50.0]]
    """
    result = np.where(batch.final, sqrt_s, 0.0)
    codes = np.abs(batch.pdg_ids)
    jets = batch.final & ((codes == GLUON) | (codes >= _LIGHTEST_QUARK) & (codes <= _HEAVIEST_JET))
    count = int(jets.sum(axis=1).max(initial=0))
    if not count:
        return result
    places = np.argsort(~jets, axis=1, kind="stable")[:, :count]
    state = _State.of(batch, jets, places)
    for _ in range(count):
        state.step()
    scales = state.finished()
    found = np.where(scales > 0, scales, np.take_along_axis(result, places, axis=1))
    np.put_along_axis(result, places, found, axis=1)
    return result


@dataclass
class _State:
    """Events on their way back to the hard process, k partons each.

    Attributes
    ----------
    momenta, codes, active
        Of the partons, (n, k, 4), (n, k) and (n, k).
    lines
        The leg (n, k) that each parton is identified with.
    beams
        Codes (n, 2) of the incoming partons.
    rapidity
        Of the incoming partons together, (n,).
    others
        Final legs (n,) that are no jets.
    fewest
        Ends (n,) of quark lines that have to stay: two where a boson comes from one.
    scales
        Of the legs so far, (n, k).
    """

    momenta: Floats
    codes: Ints
    active: Bools
    lines: Ints
    beams: Ints
    rapidity: Floats
    others: Ints
    fewest: Ints
    scales: Floats

    @classmethod
    def of(cls, batch: EventBatch, jets: Bools, places: Ints) -> _State:
        active = np.take_along_axis(jets, places, axis=1)
        momenta = np.take_along_axis(batch.momenta, places[:, :, None], axis=1)
        total = batch.momenta[:, :2].sum(axis=1)
        other = batch.final & ~jets
        plain = np.isin(np.abs(batch.pdg_ids), COLOURLESS)
        from_quarks = (other & plain).any(axis=1) & ~(other & ~plain).any(axis=1)
        return cls(
            momenta=np.where(active[:, :, None], momenta, [1.0, 1.0, 0.0, 0.0]),
            codes=np.take_along_axis(batch.pdg_ids, places, axis=1).astype(np.int64),
            active=active,
            lines=np.broadcast_to(np.arange(places.shape[1]), places.shape).copy(),
            beams=batch.pdg_ids[:, :2].astype(np.int64),
            rapidity=0.5 * np.log((total[:, 0] + total[:, 3]) / (total[:, 0] - total[:, 3])),
            others=other.sum(axis=1),
            fewest=np.where(from_quarks, 2, 0),
            scales=np.zeros(places.shape),
        )

    def step(self) -> None:
        """Undo the vertex of the smallest d in each event that has one."""
        n, k = self.active.shape
        with_beams, with_others = self._distances()
        distances = np.concatenate([with_beams.reshape(n, -1), with_others.reshape(n, -1)], axis=1)
        chosen = distances.argmin(axis=1)
        d = distances[np.arange(n), chosen]
        rows = np.nonzero(np.isfinite(d))[0]
        chosen, scale = chosen[rows], np.sqrt(d[rows])
        single = chosen < 2 * k
        self._to_beam(rows[single], chosen[single] // 2, chosen[single] % 2)
        first, second = np.divmod(chosen[~single] - 2 * k, k)
        self._together(rows[~single], first, second, scale[~single])

    def finished(self) -> Floats:
        """The scales of the legs. Jets alone end as two, whose transverse momentum is that of their hard process."""
        core = self.active & (self.others == 0)[:, None]
        for row, parton in zip(*np.nonzero(core), strict=True):
            pt = np.hypot(*self.momenta[row, parton, 1:3])
            self._raise(np.array([row]), self.lines[row, [parton]], np.array([pt]))
        return self.scales

    def _distances(self) -> tuple[Floats, Floats]:
        """d (n, k, 2) with each beam and (n, k, k) with each other, infinite where there is no such vertex."""
        pt2 = (self.momenta[:, :, 1:3] ** 2).sum(axis=2)
        energy, along = self.momenta[:, :, 0], self.momenta[:, :, 3]
        y = 0.5 * np.log((energy + along) / (energy - along))
        phi = np.arctan2(self.momenta[:, :, 2], self.momenta[:, :, 1])
        delta = [item[:, :, None] - item[:, None, :] for item in (y, phi)]
        measure = 2 * np.minimum(pt2[:, :, None], pt2[:, None, :]) * (np.cosh(delta[0]) - np.cos(delta[1]))
        gluons = self.codes == GLUON
        usable = self.active & ((self.others > 0) | (self.active.sum(axis=1) > 2))[:, None]
        ends = (usable & ~gluons).sum(axis=1) + (self.beams != GLUON).sum(axis=1)
        spare = (ends - 2 >= self.fewest)[:, None, None]
        with_gluon = gluons[:, :, None] | (self.beams == GLUON)[:, None, :]
        same = (self.codes[:, :, None] == self.beams[:, None, :]) & spare
        side = np.stack([y < self.rapidity[:, None], y >= self.rapidity[:, None]], axis=2)
        to_beam = np.where(usable[:, :, None] & (with_gluon | same), pt2[:, :, None], np.inf)
        annihilate = (self.codes[:, :, None] + self.codes[:, None, :] == 0) & spare
        pair = usable[:, :, None] & usable[:, None, :] & (gluons[:, :, None] | gluons[:, None, :] | annihilate)
        upper = np.triu(np.ones(pair.shape[1:], dtype=bool), 1)
        return np.where(side, to_beam * _OTHER_SIDE, to_beam), np.where(pair & upper, measure, np.inf)

    def _raise(self, rows: Ints, lines: Ints, scale: Floats) -> None:
        self.scales[rows, lines] = np.maximum(self.scales[rows, lines], scale)

    def _to_beam(self, rows: Ints, parton: Ints, beam: Ints) -> None:
        self._raise(rows, self.lines[rows, parton], np.hypot(*self.momenta[rows, parton, 1:3].T))
        code, old = self.codes[rows, parton], self.beams[rows, beam]
        # A gluon changes nothing; an incoming gluon that gave a quark went on as its antiquark; a quark as a gluon.
        self.beams[rows, beam] = np.where(code == GLUON, old, np.where(old == GLUON, -code, GLUON))
        self.active[rows, parton] = False

    def _together(self, rows: Ints, first: Ints, second: Ints, scale: Floats) -> None:
        codes = [self.codes[rows, item] for item in (first, second)]
        harder = (self.momenta[rows, first, 1:3] ** 2).sum(1) >= (self.momenta[rows, second, 1:3] ** 2).sum(1)
        alike = (codes[0] == GLUON) == (codes[1] == GLUON)
        keeps_first = np.where(alike, harder, codes[1] == GLUON)
        lines = [self.lines[rows, item] for item in (first, second)]
        for line in lines:
            self._raise(rows, line, scale)
        self.codes[rows, first] = np.where(alike, GLUON, np.where(codes[0] == GLUON, codes[1], codes[0]))
        self.lines[rows, first] = np.where(keeps_first, *lines)
        self.momenta[rows, first] += self.momenta[rows, second]
        self.active[rows, second] = False
        self.momenta[rows, second] = [1.0, 1.0, 0.0, 0.0]
