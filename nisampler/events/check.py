"""Check an event file: counts, finiteness, momentum conservation, mass shells, beams, colours, weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nisampler.errors import CorruptFileError, EventFormatError
from nisampler.events.batch import EventBatch
from nisampler.events.columns import DEFAULT_CHUNK
from nisampler.events.files import EventFile, file_suffix
from nisampler.events.hdf5 import POINT_FORMAT, file_format, iterate_points, read_points_domain, read_points_header
from nisampler.events.info import GENERATOR, InitInfo
from nisampler.events.rules import DEFAULT_TOLERANCE, Problem, mass_shell_violation, momentum_violation, violations
from nisampler.events.shares import ProcessSums

_UNIT_WEIGHT_TOLERANCE = 1e-9
_SHARE_TOLERANCE = 1e-6


@dataclass(frozen=True)
class CheckReport:
    """What `check_file` found.

    Attributes
    ----------
    path
        The file.
    kind
        ``"events"`` or ``"points"``.
    n_events
        Number of events (or points) read.
    declared
        Number the file declares, or None.
    weight_sum, weight_square_sum
        Sums of weights and of their squares.
    n_negative, n_overweight
        Events with a negative weight; events above the weight of all others: one in a file of unit weights (IDWTUP
        ±3), in a file of ours with weights that average to the cross-section (±4) the largest that it declares.
    momentum_violation
        Largest imbalance, relative to the incoming energy.
    mass_shell_violation
        Largest |E² − p² − m²|/E².
    cross_section
        In pb, as declared; None for points.
    problems
        One line for each rule that is broken; empty if the file is good.

    Examples
    --------
    >>> CheckReport(Path("events.h5"), n_events=100, problems=("event 3: no final leg",)).passed
    False
    """

    path: Path
    kind: str = "events"
    n_events: int = 0
    declared: int | None = None
    weight_sum: float = 0.0
    weight_square_sum: float = 0.0
    n_negative: int = 0
    n_overweight: int = 0
    momentum_violation: float = 0.0
    mass_shell_violation: float = 0.0
    cross_section: float | None = None
    problems: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """Whether no rule is broken."""
        return not self.problems

    def rows(self) -> list[tuple[str, str]]:
        """(quantity, value) pairs for a table."""
        declared = "not declared" if self.declared is None else str(self.declared)
        rows = [
            ("file", str(self.path)),
            (f"{self.kind} found", str(self.n_events)),
            (f"{self.kind} declared", declared),
            ("sum of weights", f"{self.weight_sum:.10g}"),
            ("negative weights", str(self.n_negative)),
        ]
        if self.kind == "events":
            section = "unknown" if self.cross_section is None else f"{self.cross_section:.8g} pb"
            rows += [
                ("overweight events", str(self.n_overweight)),
                ("cross-section", section),
                ("momentum imbalance / incoming energy", f"{self.momentum_violation:.2e}"),
                ("|E² − p² − m²| / E²", f"{self.mass_shell_violation:.2e}"),
            ]
        return [*rows, ("result", "good" if self.passed else f"{len(self.problems)} problems")]


class _Findings:
    """Problems of many batches, added up by rule."""

    def __init__(self) -> None:
        self._by_text: dict[tuple[str, str], Problem] = {}
        self._other: list[str] = []

    def add(self, problem: Problem, start: int) -> None:
        key = (problem.rule, problem.text)
        earlier = self._by_text.get(key)
        if earlier is None:
            self._by_text[key] = replace(problem, first=problem.first + start)
        else:
            self._by_text[key] = replace(earlier, count=earlier.count + problem.count)

    def note(self, text: str) -> None:
        self._other.append(text)

    def lines(self) -> tuple[str, ...]:
        return (*(str(problem) for problem in self._by_text.values()), *self._other)


def _sums(report: CheckReport, weights: NDArray[np.float64]) -> CheckReport:
    with np.errstate(over="ignore"):
        squares = float((weights**2).sum())
    return replace(
        report,
        n_events=report.n_events + len(weights),
        weight_sum=report.weight_sum + float(weights.sum()),
        weight_square_sum=report.weight_square_sum + squares,
        n_negative=report.n_negative + int((weights < 0).sum()),
    )


def _largest(earlier: float, values: NDArray[np.float64]) -> float:
    """The larger of `earlier` and the maximum of `values`, where NaN counts as infinity."""
    return max(earlier, float(np.where(np.isnan(values), np.inf, values).max(initial=0.0)))


def _with_events(report: CheckReport, batch: EventBatch, info: InitInfo) -> CheckReport:
    over = np.abs(batch.weights) > _regular_weight(info) * (1 + _UNIT_WEIGHT_TOLERANCE)
    report = _sums(report, batch.weights)
    overweight = int(over.sum())
    return replace(
        report,
        n_overweight=report.n_overweight + overweight,
        momentum_violation=_largest(report.momentum_violation, momentum_violation(batch)),
        mass_shell_violation=_largest(report.mass_shell_violation, mass_shell_violation(batch)),
    )


def _regular_weight(info: InitInfo) -> float:
    """The weight of an event that is not overweight; infinity where a file does not tell."""
    if abs(info.strategy) == 3:
        return 1.0
    ours = abs(info.strategy) == 4 and info.generator == GENERATOR
    return max(process.max_weight for process in info.processes) if ours else math.inf


def check_file(path: str | Path, tolerance: float = DEFAULT_TOLERANCE) -> CheckReport:
    """Read a whole event file as a stream and report every rule that it breaks.

    Parameters
    ----------
    path
        ``.lhe``, ``.lhe.gz``, ``.lhe.zst`` or ``.h5`` (events or points).
    tolerance
        Largest relative violation of momentum conservation and of the mass shell. Files written with eight
        digits need about 1e-6. (lhecheck of lheutils asks for masses to 1e-6 GeV, which no double holds for a massless
        particle of 100 GeV, since E² alone is rounded to 1e-12 GeV²: ``--onshell-abs 1e-4 --positive-mass-abs 1e-4``.)

    Returns
    -------
    CheckReport
        Damage of the content is listed in `problems`, truncation included.

    Raises
    ------
    StorageError
        If the file does not exist or cannot be opened.
    EventFormatError
        If the ending names no event format.
    MissingExtraError
        If it is an LHE file and pylhe, which reads it, is not installed.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.events.batch import PointBatch
    >>> from nisampler.events.hdf5 import write_points
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     count = write_points(f"{folder}/points.h5", PointBatch([[0.5]], [1.0]))
    ...     report = check_file(f"{folder}/points.h5")
    >>> report.passed, report.kind, report.n_events
    (True, 'points', 1)
    """
    target, findings = Path(path), _Findings()
    report = CheckReport(target)
    suffix = file_suffix(target)
    try:
        if not suffix.startswith(".lhe") and file_format(target) == POINT_FORMAT:
            steps = _check_points(report, findings)
        else:
            steps = _check_events(report, findings, tolerance)
        for step in steps:
            report = step
    except (CorruptFileError, EventFormatError) as error:
        findings.note(str(error))
    else:
        if report.n_events == 0:
            findings.note(f"{target} holds no {report.kind}")
    return replace(report, problems=findings.lines())


def _check_points(report: CheckReport, findings: _Findings) -> Iterator[CheckReport]:
    """The report after each chunk of weighted points."""
    (_, declared), domain = read_points_header(report.path), read_points_domain(report.path)
    report = replace(report, kind="points", declared=declared)
    yield report
    for points in iterate_points(report.path):
        points.validate()
        if domain is not None:
            outside = ((points.x < domain[:, 0]) | (points.x > domain[:, 1])).any(axis=1)
            if outside.any():
                first = int(np.argmax(outside)) + 1
                problem = Problem("domain", "x lies outside the domain of the file", int(outside.sum()), first, "point")
                findings.add(problem, report.n_events)
        report = _sums(report, points.weights)
        yield report


def _check_events(report: CheckReport, findings: _Findings, tolerance: float) -> Iterator[CheckReport]:
    """The report after each chunk of events."""
    file = EventFile.open(report.path)
    report = replace(report, declared=file.declared, cross_section=file.info.cross_section)
    yield report
    sums = ProcessSums()
    for batch in file.batches(DEFAULT_CHUNK):
        for problem in violations(batch, tolerance, file.info):
            findings.add(problem, report.n_events)
        sums.add(batch.process_ids, batch.weights)
        report = _with_events(report, batch, file.info)
        yield report
    shared = sums.shared(file.info).processes if report.n_events else file.info.processes
    for declared, found in zip(file.info.processes, shared, strict=True):
        if not abs(declared.cross_section - found.cross_section) <= _SHARE_TOLERANCE * abs(file.info.cross_section):
            findings.note(
                f"process {declared.process_id} is declared with {declared.cross_section:.6g} pb, its events have a "
                f"share of {found.cross_section:.6g} pb"
            )
