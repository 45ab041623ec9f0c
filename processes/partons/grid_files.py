"""Files of LHAPDF sets (1412.7420, section 3.4): the grid of a member with its head, and the .info of a set."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nisampler.base.checks import shown
from nisampler.base.kept import kept
from nisampler.base.storage import read_bounded
from nisampler.errors import PdfError, StorageError
from nisampler.processes.constants import GLUON

_ENTRY = re.compile(r"(\w+):[ \t]*(.*)")
_FUSED = re.compile(r"(?<=[eE][+-]\d\d)(?=\d\.)")
# x f beyond this is a damaged number: the cubics would overflow. A gluon at x = 1e-9 and Q = 100 TeV has 1e4.
_LARGEST = 1e30
# Bytes of a grid file, of its head and of an .info file, and knots in x times knots in Q, for each of which a density
# keeps 16 coefficients a flavour. The largest sets have 6 MiB and 20,000 knots.
_MOST_GRID, _MOST_HEAD, _MOST_KNOTS = 16 << 20, 1 << 20, 100_000
# From so many bytes on a text takes longer to parse than to find in the cache.
_WORTH_KEEPING = 256 << 10


@dataclass(frozen=True)
class SubGrid:
    """One block of a grid file.

    Attributes
    ----------
    x, q
        Knots, shapes (k,) and (l,); q in GeV.
    flavours
        PDG codes of the columns.
    values
        x f, shape (k, l, flavours).

    Examples
    --------
    >>> SubGrid(torch.tensor([0.1, 1.0]), torch.tensor([1.0, 100.0]), (21,), torch.ones(2, 2, 1)).flavours
    (21,)
    """

    x: Tensor
    q: Tensor
    flavours: tuple[int, ...]
    values: Tensor


def read_grid(path: Path) -> list[SubGrid]:
    """The sub-grids of an LHAPDF grid file; `read_member` gives its head, too.

    Knots that are printed alike are taken as one. Numbers that ran together (`0.00e+000.00e+00`) are told apart.

    Raises
    ------
    PdfError
        If the file is not there, not a grid, cut short, larger than 16 MiB or 100,000 knots, or holds something that is
        not a finite number of a size that densities can have; the message names the file and the sub-grid.

    Examples
    --------
    >>> read_grid(Path("nowhere.dat"))
    Traceback (most recent call last):
    ...
    nisampler.errors.PdfError: cannot read the PDF grid nowhere.dat: [Errno 2] No such file or directory: 'nowhere.dat'
    """
    return read_member(path)[1]


def read_member(path: Path) -> tuple[dict[str, str], list[SubGrid]]:
    """The entries in the head of a grid file, which override those of the set, and its sub-grids; see `read_grid`.

    What was parsed of a large file is kept in the user's cache, under the checksum of the file.

    >>> import tempfile
    >>> text = "Format: lhagrid1\\nAlphaS_MZ: 0.117\\n---\\n0.1 1.0\\n1.0 100.0\\n21\\n2 2 0 0\\n---\\n"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     size = Path(folder, "toy_0001.dat").write_text(text)
    ...     head, grids = read_member(Path(folder, "toy_0001.dat"))
    >>> float(head["AlphaS_MZ"]), grids[0].flavours
    (0.117, (21,))
    """
    try:
        content = read_bounded(path, _MOST_GRID, "a PDF grid")
    except StorageError as error:
        raise PdfError(f"cannot read the PDF grid {path}: {error.__cause__ or error}") from error
    if len(content) < _WORTH_KEEPING:
        return _parsed(path, content)
    return _unpacked(kept("pdf-1", content, lambda: _packed(*_parsed(path, content))))


def _packed(head: dict[str, str], grids: list[SubGrid]) -> dict[str, Tensor]:
    """A member as tensors alone."""
    table = {"head": _text(json.dumps(head))}
    for index, grid in enumerate(grids):
        parts = {"x": grid.x, "q": grid.q, "flavours": torch.tensor(grid.flavours), "values": grid.values}
        table |= {f"{index}.{name}": tensor for name, tensor in parts.items()}
    return table


def _unpacked(table: dict[str, Tensor]) -> tuple[dict[str, str], list[SubGrid]]:
    grids = []
    for index in range((len(table) - 1) // 4):
        x, q, flavours, values = (table[f"{index}.{name}"] for name in ("x", "q", "flavours", "values"))
        grids.append(SubGrid(x, q, tuple(flavours.tolist()), values))
    return json.loads(bytes(table["head"].tolist())), grids


def _text(text: str) -> Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def _parsed(path: Path, content: bytes) -> tuple[dict[str, str], list[SubGrid]]:
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError as error:
        raise PdfError(f"cannot read the PDF grid {path}: {error}") from error
    head, *rest = f"\n{text}".split("\n---")
    blocks = [block.partition("\n")[2] for block in rest]
    if len(head) > _MOST_HEAD or "lhagrid1" not in head:
        raise PdfError(f"{path} is not an LHAPDF grid file: its head does not say 'Format: lhagrid1'")
    if len(blocks) < 2 or blocks[-1].strip():
        raise PdfError(f"{path} is cut short: the last sub-grid does not end with ---")
    grids = [_read_block(block, f"{path}, sub-grid {i}") for i, block in enumerate(blocks[:-1], start=1)]
    if sum(len(grid.x) * len(grid.q) for grid in grids) > _MOST_KNOTS:
        raise PdfError(f"{path} has more than {_MOST_KNOTS} knots (in x times in Q), more than any density needs")
    return _entries(head), grids


def _read_block(block: str, where: str) -> SubGrid:
    lines = block.strip().split("\n", 3)
    if len(lines) < 4:
        raise PdfError(f"{where} is cut short: it has no values")
    try:
        x, q = (np.array(line.split(), dtype=np.float64) for line in lines[:2])
        codes = [int(code) for code in lines[2].split()]
        values = _numbers(lines[3])
    except ValueError as error:
        raise PdfError(f"{where}: {error}") from error
    flavours = tuple(GLUON if code == 0 else code for code in codes)
    _check_values(values, (len(x), len(q)), flavours, where)
    table = values.reshape(len(x), len(q), -1)[_distinct(x)][:, _distinct(q)]
    x, q = x[_distinct(x)], q[_distinct(q)]
    if not all(len(knots) > 1 and knots.min() > 0 and knots.max() < _LARGEST and _rise(knots) for knots in (x, q)):
        raise PdfError(f"{where}: the knots in x and in Q must be positive and rise, two or more of each")
    return SubGrid(torch.from_numpy(x), torch.from_numpy(q), flavours, torch.from_numpy(table))


def _numbers(text: str) -> NDArray[np.float64]:
    """Numbers with blanks between them, or where that fails run together."""
    try:
        return np.array(text.split(), dtype=np.float64)
    except ValueError:
        return np.array(_FUSED.sub(" ", text).split(), dtype=np.float64)


def _check_values(values: NDArray[np.float64], knots: tuple[int, int], flavours: tuple[int, ...], where: str) -> None:
    """Raise PdfError unless there is one finite value for each knot and flavour."""
    expected = knots[0] * knots[1] * len(flavours)
    if len(values) != expected or len(set(flavours)) < len(flavours):
        raise PdfError(
            f"{where} holds {len(values)} numbers, but {knots[0]} x {knots[1]} knots with the {len(flavours)} flavours"
            f" {shown(flavours)} make {expected}: it is cut short or a column is missing"
        )
    if not np.isfinite(values).all():
        raise PdfError(f"{where} holds a value that is not finite")
    if (np.abs(values) > _LARGEST).any():
        raise PdfError(
            f"{where} holds x f = {values[np.argmax(np.abs(values))]:g}, which no density reaches: get it again"
        )


def _rise(knots: NDArray[np.float64]) -> bool:
    """Whether the knots and their logarithms, on which densities are interpolated, rise."""
    return bool((np.diff(np.log(knots)) > 0).all())


def _distinct(knots: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mask of the knots that are not printed like the one before them."""
    return np.append(True, np.diff(knots) != 0)


def read_info(path: Path) -> dict[str, str]:
    """The entries of an .info file; none where there is no file. PdfError if it cannot be read or has more than 1 MiB.

    >>> read_info(Path("nowhere.info"))
    {}
    """
    if not path.is_file():
        return {}
    try:
        text = read_bounded(path, _MOST_HEAD, "an .info file").decode(errors="replace")
    except StorageError as error:
        raise PdfError(str(error)) from error
    return _entries(text)


def _entries(text: str) -> dict[str, str]:
    """`Key: value`, where a list may run over lines."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.split("\n"):
        if entry := _ENTRY.match(line):
            lines = found[entry[1]] = [entry[2]]
        else:
            lines.append(line)
    return {key: "\n".join(parts) for key, parts in found.items()}
