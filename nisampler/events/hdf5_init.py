"""The run information in an HDF5 file of events.

Group ``init`` has the attributes ``beam_ids``, ``beam_energies``, ``pdf_groups``, ``pdf_sets``, ``strategy`` (IDWTUP),
``generator``, ``version`` and the dataset ``processes`` with the rows (cross-section in pb, its error, largest weight,
process code); where the cross-section of all processes and its error are known apart, they are the attribute ``total``.
Where there are named weights, the rows of ``weight_groups`` are (name, combine, attributes), those of
``weights``, one for each column, (number of the group, id, text, attributes): bytes of UTF-8 (rows, columns, width), an
attribute a line, as ``MUR=0.5``. The group ``header`` holds the texts of the header by name, as bytes of UTF-8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nisampler.base.hdf5_input import attribute, require_readable
from nisampler.errors import EventFormatError
from nisampler.events.info import InitInfo, ProcessInfo
from nisampler.events.weights import Attributes, WeightGroup, WeightInfo

_TOTAL = "total"
_ATTRIBUTES = ("beam_ids", "beam_energies", "pdf_groups", "pdf_sets", "strategy", "generator", "version")
_GROUPS, _WEIGHTS, _HEADER = "weight_groups", "weights", "header"
# Bytes of the names of weights, and of the texts of the header.
_LARGEST, _MOST_TEXTS = 8 << 20, 1000
_MOST_PROCESSES = 10_000


def write_init(file: Any, info: InitInfo) -> None:
    """Write the group ``init``, and what the file has of named weights and texts.

    >>> import h5py
    >>> info = InitInfo((11, -11), (5.0, 5.0), (ProcessInfo(1.0, 0.1),), header=(("process", "ee"),))
    >>> with h5py.File("any", "w", driver="core", backing_store=False) as file:
    ...     write_init(file, info)
    ...     read_init(file) == info
    True
    """
    group = file.create_group("init")
    for name in _ATTRIBUTES:
        group.attrs[name] = getattr(info, name)
    if info.total is not None:
        group.attrs[_TOTAL] = info.total
    rows = [[item.cross_section, item.error, item.max_weight, item.process_id] for item in info.processes]
    group.create_dataset("processes", data=np.array(rows, dtype=np.float64), fletcher32=True).flush()
    if info.weight_groups:
        groups = [(item.name, item.combine, _joined(item.attributes)) for item in info.weight_groups]
        weights = [
            (str(number), item.id, item.text, _joined(item.attributes))
            for number, found in enumerate(info.weight_groups)
            for item in found.weights
        ]
        for name, table in ((_GROUPS, groups), (_WEIGHTS, weights)):
            group.create_dataset(name, data=_stored(table), fletcher32=True).flush()
    if info.header:
        texts = file.create_group(_HEADER, track_order=True)
        for name, text in info.header:
            data = np.frombuffer(text.encode(), np.uint8)
            texts.create_dataset(name, data=data, fletcher32=bool(text)).flush()


def read_init(file: Any) -> InitInfo:
    """The run information of an open file.

    Raises
    ------
    EventFormatError
        If names of weights or texts are none, or more than 8 MiB.

    Examples
    --------
    >>> import h5py
    >>> with h5py.File("any", "w", driver="core", backing_store=False) as file:
    ...     write_init(file, InitInfo((11, -11), (5.0, 5.0), (ProcessInfo(1.0, 0.1),)))
    ...     read_init(file).cross_section
    1.0
    """
    group = file["init"]
    require_readable(file.filename, {"init/processes": group["processes"]})
    if len(group["processes"]) > _MOST_PROCESSES:
        raise EventFormatError(f"{len(group['processes'])} processes, a file can have {_MOST_PROCESSES}")
    pairs = {name: attribute(group, name).tolist() for name in ("beam_ids", "pdf_groups", "pdf_sets")}
    energies = attribute(group, "beam_energies").tolist()
    total = None if _TOTAL not in group.attrs else attribute(group, _TOTAL).tolist()
    return InitInfo(
        beam_ids=(pairs["beam_ids"][0], pairs["beam_ids"][1]),
        beam_energies=(energies[0], energies[1]),
        processes=tuple(ProcessInfo(row[0], row[1], row[2], int(row[3])) for row in group["processes"][()].tolist()),
        pdf_groups=(pairs["pdf_groups"][0], pairs["pdf_groups"][1]),
        pdf_sets=(pairs["pdf_sets"][0], pairs["pdf_sets"][1]),
        strategy=int(attribute(group, "strategy")),
        generator=str(attribute(group, "generator")),
        version=str(attribute(group, "version")),
        weight_groups=_weight_groups(group),
        header=_header(file[_HEADER]) if _HEADER in file else (),
        total=None if total is None else (total[0], total[1]),
    )


def _joined(attributes: Attributes) -> str:
    return "\n".join(f"{name}={text}" for name, text in attributes)


def _parted(text: str) -> Attributes:
    pairs = (line.partition("=") for line in text.split("\n") if line)
    return tuple((name, value) for name, _, value in pairs)


def _weight_groups(group: Any) -> tuple[WeightGroup, ...]:
    if _GROUPS not in group:
        return ()
    rows = _table(group[_GROUPS], 3)
    members: dict[str, list[WeightInfo]] = {str(number): [] for number in range(len(rows))}
    for number, name, text, attributes in _table(group[_WEIGHTS], 4):
        members[number].append(WeightInfo(name, text, _parted(attributes)))
    found = zip(rows, members.values(), strict=True)
    return tuple(WeightGroup(name, combine, tuple(items), _parted(more)) for (name, combine, more), items in found)


def _stored(rows: Sequence[tuple[str, ...]]) -> NDArray[np.uint8]:
    """Texts (rows, columns) as bytes of UTF-8 (rows, columns, width), zeros at their ends."""
    cells = np.array([[cell.encode() for cell in row] for row in rows])
    return cells.view(np.uint8).reshape(*cells.shape, cells.dtype.itemsize)


def _table(data: Any, columns: int) -> list[list[str]]:
    """The texts that `_stored` made bytes of."""
    if data.ndim != 3 or data.shape[1] != columns:
        raise EventFormatError(
            f"{data.file.filename}: {data.name} has shape {data.shape}, not (rows, {columns}, width)"
        )
    return [[bytes(cell).rstrip(b"\0").decode() for cell in row] for row in _bytes(data)]


def _header(texts: Any) -> tuple[tuple[str, str], ...]:
    if len(texts) > _MOST_TEXTS:
        raise EventFormatError(f"{texts.file.filename}: {len(texts)} texts in the header, there can be {_MOST_TEXTS}")
    return tuple((name, _bytes(data).tobytes().decode()) for name, data in texts.items())


def _bytes(data: Any) -> NDArray[np.uint8]:
    """Bytes of texts, their number looked at before they are read."""
    require_readable(data.file.filename, {data.name: data})
    if data.dtype != np.uint8 or data.size > _LARGEST:
        raise EventFormatError(f"{data.file.filename}: {data.name} is no text of at most {_LARGEST >> 20} MiB")
    return np.asarray(data[()])
