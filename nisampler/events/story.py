"""What an event file tells of itself, for a person: events, cross-section, weights and the texts of its header."""

from __future__ import annotations

from pathlib import Path

from nisampler.events.files import EventFile, file_suffix
from nisampler.events.hdf5 import POINT_FORMAT, file_format, read_points_domain, read_points_header
from nisampler.events.info import InitInfo

_CONVENTIONS = {
    1: "weighted events, to be unweighted by the largest weight that the file declares",
    2: "weighted events, to be unweighted to the cross-section of the file",
    3: "unit weights; a shower takes every event for ±1",
    4: "the mean weight is the cross-section in pb",
}


def story(path: str | Path) -> list[tuple[str, str]]:
    """(name, text) pairs for a table; a text of several lines takes several rows, the later ones without a name.

    Nothing but the header is read.

    Raises
    ------
    StorageError, CorruptFileError, EventFormatError, MissingExtraError
        If the file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.events.batch import EventBatch
    >>> from nisampler.events.files import write_events
    >>> from nisampler.events.info import ProcessInfo
    >>> info = InitInfo((11, -11), (5.0, 5.0), (ProcessInfo(1.0, 0.1),), header=(("seed", "7"),))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     count = write_events(f"{folder}/events.h5", EventBatch.empty(4), info)
    ...     rows = story(f"{folder}/events.h5")
    >>> rows[1:3], rows[-1]
    ([('events', '0'), ('cross-section', '1 ± 0.1 pb')], ('seed', '7'))
    """
    target = Path(path)
    if not file_suffix(target).startswith(".lhe") and file_format(target) == POINT_FORMAT:
        unit, count = read_points_header(target)
        domain = read_points_domain(target)
        dim = "unknown" if domain is None else str(len(domain))
        return [("file", str(target)), ("points", str(count)), ("dimension", dim), ("unit", unit or "none")]
    file = EventFile.open(target)
    info = file.info
    declared = "not declared" if file.declared is None else str(file.declared)
    rows = [("file", str(target)), ("events", declared), *_sections(info)]
    beams = zip(info.beam_ids, info.beam_energies, strict=True)
    rows += [
        ("weights", f"{_CONVENTIONS[abs(info.strategy)]} (IDWTUP = {info.strategy})"),
        ("beams", ", ".join(f"{code} of {energy:g} GeV" for code, energy in beams)),
        ("PDF sets", ", ".join(map(str, info.pdf_sets)) if any(info.pdf_sets) else "none"),
        ("made by", f"{info.generator} {info.version}".strip() or "unknown"),
    ]
    for group in info.weight_groups:
        rule = f", {group.combine}" if group.combine else ""
        some = ", ".join(group.ids[:2]) + (" …" if len(group.ids) > 2 else "")
        rows.append(("named weights", f"{group.name or 'no group'}{rule}: {len(group.ids)} ({some})"))
    for name, text in info.header:
        first, *others = text.rstrip("\n").split("\n")
        rows += [(name, first), *(("", line) for line in others)]
    return rows


def _sections(info: InitInfo) -> list[tuple[str, str]]:
    """The cross-section, and that of each process."""
    rows = [("cross-section", f"{info.cross_section:.8g} ± {info.error:.2g} pb")]
    if len(info.processes) > 1:
        rows += [
            (f"cross-section of {process.process_id}", f"{process.cross_section:.8g} ± {process.error:.2g} pb")
            for process in info.processes
        ]
    return rows
