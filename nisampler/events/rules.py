"""What an event record must satisfy so that a parton shower accepts it (hep-ph/0109068, hep-ph/0609017)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nisampler.errors import EventFormatError
from nisampler.events.batch import EventBatch
from nisampler.events.columns import COLUMN_NAMES, EMPTY, FINAL, INCOMING, RESONANCE, Bools
from nisampler.events.info import InitInfo
from nisampler.events.pdg import COLOURLESS, GLUON, NEUTRON, PROTON, QUARKS

DEFAULT_TOLERANCE = 1e-8
_STATUS_CODES = (INCOMING, EMPTY, FINAL, RESONANCE, -2, 3, -9)
# What a number can be whatever the generator. Others write masses of -0.0 and less by rounding, spins of 9 for unknown,
# scales of -1 for none and densities x f of any sign; no collider or source has more than 1e15 GeV.
_LARGEST = 1e15
_RANGES = {
    "momenta": (-_LARGEST, _LARGEST),
    "masses": (-_LARGEST, _LARGEST),
    "spins": (-9.0, 9.0),
    "weights": (-1e30, 1e30),
    "named_weights": (-1e30, 1e30),
    "scales": (-1.0, _LARGEST),
    "alpha_em": (-1.0, 100.0),
    "alpha_s": (-1.0, 100.0),
    "lifetimes": (0.0, 1e30),
    "mu_r": (-1.0, _LARGEST),
    "pdf_x": (0.0, 1.0 + 1e-9),
    "pdf_xf": (-1e30, 1e30),
    "pt_clust": (-1.0, _LARGEST),
}
_HADRONS = (PROTON, NEUTRON)


@dataclass(frozen=True)
class Problem:
    """A rule that some events break: `count` of them, the `first` one 1-based.

    >>> str(Problem("finite", "column weights is not finite", count=3, first=7))
    'event 7 (and 2 more): column weights is not finite'
    """

    rule: str
    text: str
    count: int
    first: int
    noun: str = "event"

    def __str__(self) -> str:
        more = f" (and {self.count - 1} more)" if self.count > 1 else ""
        return f"{self.noun} {self.first}{more}: {self.text}"


def _problem(rule: str, bad: Bools | np.bool, text: str) -> Iterator[Problem]:
    """A `Problem` if any event is marked in `bad` (n,)."""
    marked = np.atleast_1d(bad)
    if marked.any():
        yield Problem(rule, text, int(marked.sum()), int(np.argmax(marked)) + 1)


def violations(
    batch: EventBatch, tolerance: float = DEFAULT_TOLERANCE, info: InitInfo | None = None
) -> Iterator[Problem]:
    """Every rule that some event of `batch` breaks, with the first event that does.

    Parameters
    ----------
    batch
        n events.
    tolerance
        Largest violation of momentum conservation, relative to the total incoming energy, and of the mass
        shell, relative to the square of the particle's energy.
    info
        If given, the incoming particles are compared with its beams and the process codes with its processes.

    Examples
    --------
    One event of zeros breaks many rules:

    >>> from nisampler.events.columns import COLUMNS
    >>> sizes = {"p": 2, "k": 0}
    >>> shapes = {name: (1, *(sizes.get(axis, axis) for axis in axes)) for name, (_, axes, _) in COLUMNS.items()}
    >>> zeros = EventBatch(**{name: np.zeros(shape) for name, shape in shapes.items()})
    >>> next(violations(zeros)).text
    'column status: particles 1 and 2, and no others, are incoming (-1)'
    """
    if len(batch) == 0:
        return
    yield from _finite(batch)
    yield from _ranges(batch)
    yield from _status(batch)
    yield from _mothers(batch)
    yield from _colours(batch)
    yield from _kinematics(batch, tolerance)
    if info is not None:
        yield from _beams(batch, info, tolerance)


def require_valid(batch: EventBatch, tolerance: float = DEFAULT_TOLERANCE) -> None:
    """Nothing if every event obeys the rules, see `violations`.

    Raises
    ------
    EventFormatError
        Naming the first wrong event and the column.

    Examples
    --------
    >>> require_valid(EventBatch.empty(4))
    """
    for problem in violations(batch, tolerance):
        raise EventFormatError(str(problem))


@dataclass(frozen=True)
class TrustedBatches:
    """Batches of files that were written here and have not changed since: they are not checked a second time.

    >>> [len(batch) for batch in TrustedBatches([EventBatch.empty(4)])]
    [0]
    """

    batches: Iterable[EventBatch]

    def __iter__(self) -> Iterator[EventBatch]:
        return iter(self.batches)


class CheckedBatches:
    """Batches on their way to a file: each event is checked against the rules, and counted.

    Parameters
    ----------
    batches
        One batch, or any iterable of batches; `TrustedBatches` are only counted.
    info
        The run information of the file.
    path
        The file, for messages.

    Raises
    ------
    EventFormatError
        While iterating, naming the file, the event and the rule that it breaks.

    Examples
    --------
    >>> from nisampler.events.info import ProcessInfo
    >>> info = InitInfo((11, -11), (45.0, 45.0), (ProcessInfo(1.0, 0.1),))
    >>> source = CheckedBatches(EventBatch.empty(), info, Path("events.h5"))
    >>> [len(batch) for batch in source], source.count
    ([0], 0)
    """

    def __init__(self, batches: EventBatch | Iterable[EventBatch], info: InitInfo, path: Path) -> None:
        self.batches = (batches,) if isinstance(batches, EventBatch) else batches
        self.info, self.path, self.count = info, path, 0

    def __iter__(self) -> Iterator[EventBatch]:
        trusted = isinstance(self.batches, TrustedBatches)
        for batch in self.batches:
            for problem in () if trusted else violations(batch, info=self.info):
                raise EventFormatError(f"{self.path}, batch starting after event {self.count}: {problem}")
            self.count += len(batch)
            yield batch


def _finite(batch: EventBatch) -> Iterator[Problem]:
    for name in COLUMN_NAMES:
        column = getattr(batch, name)
        bad = ~np.isfinite(column).reshape(len(batch), -1).all(axis=1)
        yield from _problem("finite", bad, f"column {name} is not finite")


def _ranges(batch: EventBatch) -> Iterator[Problem]:
    for name, (low, high) in _RANGES.items():
        column = getattr(batch, name).reshape(len(batch), -1)
        bad = ((column < low) | (column > high)).any(axis=1)
        yield from _problem("range", bad, f"column {name} must lie in [{low:g}, {high:g}]")


def _status(batch: EventBatch) -> Iterator[Problem]:
    status = batch.status
    bad = ~np.isin(status, _STATUS_CODES).all(axis=1)
    yield from _problem("status", bad, f"column status must hold one of {_STATUS_CODES}")
    leading = np.zeros_like(status, dtype=bool)
    leading[:, :2] = True
    wrong = (batch.incoming != leading).any(axis=1) | (batch.slots < 2)
    yield from _problem("status", wrong, "column status: particles 1 and 2, and no others, are incoming (-1)")
    yield from _problem("status", ~batch.final.any(axis=1), "column status: there is no final leg (1)")
    empty = status == EMPTY
    gap = (empty[:, :-1] & ~empty[:, 1:]).any(axis=1)
    yield from _problem("status", gap, "column status: an empty slot (0) comes before a particle")
    missing = ((batch.pdg_ids == 0) & ~empty).any(axis=1)
    yield from _problem("status", missing, "column pdg_ids: a particle has the code 0")


def _mothers(batch: EventBatch) -> Iterator[Problem]:
    first = batch.mothers[..., 0].astype(np.int64)
    last = np.where(batch.mothers[..., 1] == 0, first, batch.mothers[..., 1])
    position = np.arange(1, batch.slots + 1)[None, :]
    orphan = ((batch.incoming | (batch.status == EMPTY)) & ((first != 0) | (last != 0))).any(axis=1)
    yield from _problem("mothers", orphan, "column mothers: incoming particles have none (0 0)")
    child = np.isin(batch.status, (FINAL, RESONANCE))
    low, high = np.minimum(first, last), np.maximum(first, last)
    bad = (child & ((low < 1) | (high >= position))).any(axis=1)
    text = "column mothers: final legs and resonances need mothers among the particles before them"
    yield from _problem("mothers", bad, text)
    stable = np.zeros(len(batch), dtype=bool)
    for column in (first, last):
        index = np.clip(column - 1, 0, max(batch.slots - 1, 0))
        stable |= (child & (np.take_along_axis(batch.status, index, axis=1) == FINAL)).any(axis=1)
    yield from _problem("mothers", stable, "column mothers: a final leg (1) is the mother of another particle")


def _colours(batch: EventBatch) -> Iterator[Problem]:
    colour, anti = batch.colours[..., 0], batch.colours[..., 1]
    code, size = batch.pdg_ids, np.abs(batch.pdg_ids)
    quark = np.isin(size, QUARKS)
    active = batch.status != EMPTY
    has_colour = np.where(quark, code > 0, size == GLUON)
    has_anti = np.where(quark, code < 0, size == GLUON)
    known = active & (quark | (size == GLUON) | np.isin(size, COLOURLESS))
    bad = (known & (((colour != 0) != has_colour) | ((anti != 0) != has_anti))).any(axis=1)
    text = "column colours: quarks carry (tag, 0), antiquarks (0, tag), gluons two tags, others none"
    yield from _problem("colours", bad, text)
    begin = np.sort(np.where(batch.final, colour, np.where(batch.incoming, anti, 0)), axis=1)
    end = np.sort(np.where(batch.final, anti, np.where(batch.incoming, colour, 0)), axis=1)
    repeated = ((begin[:, 1:] == begin[:, :-1]) & (begin[:, 1:] != 0)).any(axis=1)
    broken = (begin != end).any(axis=1) | repeated
    yield from _problem("colours", broken, "column colours: a colour line does not join exactly two particles")


def momentum_violation(batch: EventBatch) -> NDArray[np.float64]:
    """(n,) largest component of the momentum imbalance divided by the total incoming energy.

    >>> momentum_violation(EventBatch.empty(4)).shape
    (0,)
    """
    with np.errstate(all="ignore"):
        total = (batch.momenta[..., 0] * batch.incoming).sum(axis=1)
        worst = np.abs(batch.momentum_balance()).max(axis=1, initial=0.0)
        return np.where(total > 0, worst / total, np.inf)


def mass_shell_violation(batch: EventBatch) -> NDArray[np.float64]:
    """(n,) largest |E² − p² − m²| / E² among incoming particles, resonances and final legs.

    >>> mass_shell_violation(EventBatch.empty(4)).shape
    (0,)
    """
    checked = np.isin(batch.status, (INCOMING, FINAL, RESONANCE))
    energy = batch.momenta[..., 0]
    with np.errstate(all="ignore"):
        ratio = np.where(energy > 0, np.abs(batch.mass_balance()) / energy**2, np.inf)
    return np.asarray(np.where(checked, ratio, 0.0).max(axis=1, initial=0.0))


def _kinematics(batch: EventBatch, tolerance: float) -> Iterator[Problem]:
    conserved = momentum_violation(batch) <= tolerance
    text = f"column momenta: four-momentum is not conserved to {tolerance:g} of the incoming energy"
    yield from _problem("momentum", ~conserved, text)
    on_shell = mass_shell_violation(batch) <= tolerance
    text = f"columns momenta and masses: E² − p² = m² is violated by more than {tolerance:g} E², or E ≤ 0"
    yield from _problem("mass shell", ~on_shell, text)
    if batch.slots >= 2:
        bad = (batch.momenta[:, 0, 3] <= 0) | (batch.momenta[:, 1, 3] >= 0)
        yield from _problem("beams", bad, "column momenta: particle 1 must run along +z, particle 2 along -z")
    resonance = batch.status == RESONANCE
    if resonance.any():
        with np.errstate(all="ignore"):
            bad = _unbalanced_decays(batch, resonance, tolerance)
        text = "column momenta: the decay products of a resonance (2) do not add up to its momentum"
        yield from _problem("momentum", bad, text)


def _unbalanced_decays(batch: EventBatch, resonance: Bools, tolerance: float) -> Bools:
    """(n,) whether the daughters of some resonance do not add up to its momentum."""
    total = np.maximum((batch.momenta[..., 0] * batch.incoming).sum(axis=1), np.finfo(np.float64).tiny)
    active = np.isin(batch.status, (FINAL, RESONANCE))
    first = batch.mothers[..., 0]
    last = np.where(batch.mothers[..., 1] == 0, first, batch.mothers[..., 1])
    bad = np.zeros(len(batch), dtype=bool)
    for slot in range(batch.slots):
        here = resonance[:, slot]
        if not here.any():
            continue
        daughters = active & (first == slot + 1) & (last == slot + 1)
        summed = np.einsum("np,npm->nm", daughters.astype(np.float64), batch.momenta)
        offset = np.abs(summed - batch.momenta[:, slot]).max(axis=1) / total
        bad |= here & ~(offset <= tolerance)
    return bad


def _beams(batch: EventBatch, info: InitInfo, tolerance: float) -> Iterator[Problem]:
    """Incoming particles are the beams themselves, or carry part of a composite beam's energy."""
    if batch.slots < 2:
        return
    for side, (beam, energy) in enumerate(zip(info.beam_ids, info.beam_energies, strict=True)):
        carried = batch.momenta[:, side, 0]
        above = carried > energy * (1 + tolerance)
        yield from _problem("beams", above, f"particle {side + 1} has more energy than its beam ({energy} GeV)")
        if abs(beam) not in _HADRONS and info.pdf_sets[side] == 0:
            other = (batch.pdg_ids[:, side] != beam) | (np.abs(carried - energy) > tolerance * energy)
            text = f"particle {side + 1} is not the beam {beam} of {energy} GeV that the file declares"
            yield from _problem("beams", other & ~above, text)
    count, named = len(info.weight_ids), batch.named_weights.shape[1]
    text = f"column named_weights: {named} weights, the file declares {count}"
    yield from _problem("named weights", np.full(len(batch), named != count), text)
    known = [process.process_id for process in info.processes]
    foreign = ~np.isin(batch.process_ids, known)
    yield from _problem("process", foreign, f"column process_ids: the file declares only {known}")
    if not info.signed:
        text = "column weights: negative in a file that does not declare signed weights (IDWTUP = -3)"
        yield from _problem("weights", batch.weights < 0, text)
