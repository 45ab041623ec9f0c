"""Files that lie: bytes, numbers and keys changed at random, with an eye to what the file is, and sealed again.

`spoil` takes the random numbers of one case, so that a case can be made again.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nisampler.base.storage import SEAL, write_sealed

_SEALS = (SEAL, "manifest_sha256")
_NUMBER = re.compile(rb"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w.])")
_TEXTS = {".toml", ".json", ".lhe", ".info", ".dat", ".xml"}
_NASTY: tuple[Any, ...] = (
    0,
    -1,
    3,
    1e308,
    -1e308,
    10**20,
    10**400,
    1e-308,
    "",
    "x" * 300,
    "../../x",
    None,
    True,
    [],
    {},
)
_NASTY += ([[]], {"a": {"a": 1}}, "nan", "1e5", "\u2028", 2**31, 2**63, [1] * 1000)
_NASTY_TEXT = (
    b"0",
    b"-1",
    b"nan",
    b"inf",
    b"-inf",
    b"1e308",
    b"1e999",
    b"100000000000000000000",
    b"",
    b"x",
    b"[]",
    b"{}",
)
_NASTY_TEXT += (b'""', b"true", b"0x10", b"1_0", b"1e-320", b"2147483648", b"\xff", b"<x>", b"#", b"'")


def spoil(path: Path, content: bytes, dice: random.Random) -> None:
    """Write a spoiled version of a file's content to its place."""
    path.write_bytes(content)
    how = dice.random()
    if path.suffix in (".json", ".safetensors") and how < 0.6:
        (_spoil_json if path.suffix == ".json" else _spoil_tensors)(path, content, dice)
    elif path.suffix == ".h5" and how < 0.6:
        _spoil_hdf5(path, dice)
    elif path.suffix == ".gz" and how < 0.6:
        path.write_bytes(gzip.compress(_text(gzip.decompress(content), dice), 1))
    elif path.suffix in _TEXTS and how < 0.7:
        path.write_bytes(_text(content, dice))
    else:
        path.write_bytes(spoiled(content, dice))


def spoiled(content: bytes, dice: random.Random) -> bytes:
    """Bytes with one to four places changed, left out or repeated, or cut at the end."""
    data = bytearray(content)
    for _ in range(dice.randint(1, 4)):
        at, size = dice.randrange(len(data) or 1), dice.choice((1, 1, 4, 100))
        how = dice.randrange(5)
        if how == 0:
            data[at : at + size] = dice.randbytes(size)
        elif how == 1:
            data[at : at + 1] = bytes([(data[at] if data else 0) ^ 1 << dice.randrange(8)])
        elif how == 2:
            del data[at : at + size]
        elif how == 3:
            data[at:at] = data[at : at + size] * dice.choice((1, 2, 50))
        elif dice.random() < 0.3:
            del data[at:]
    return bytes(data)


def _text(content: bytes, dice: random.Random) -> bytes:
    """A text with a number replaced, or a line deleted, repeated, moved or cut."""
    for _ in range(dice.randint(1, 3)):
        numbers = list(_NUMBER.finditer(content))
        if numbers and dice.random() < 0.6:
            found = dice.choice(numbers)
            content = content[: found.start()] + dice.choice(_NASTY_TEXT) + content[found.end() :]
            continue
        lines = content.splitlines(keepends=True) or [b""]
        at, to = dice.randrange(len(lines)), dice.randrange(len(lines))
        how = dice.randrange(4)
        if how == 0:
            del lines[at]
        elif how == 1:
            lines.insert(to, lines[at])
        elif how == 2:
            lines[at], lines[to] = lines[to], lines[at]
        else:
            lines[at] = lines[at][: dice.randrange(len(lines[at]) + 1)]
        content = b"".join(lines)
    return content


def _places(data: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every container in JSON data with each of its keys."""
    if isinstance(data, dict | list):
        for key, value in list(data.items() if isinstance(data, dict) else enumerate(data)):
            found.append((data, key))
            _places(value, found)
    return found


def _spoil_values(data: Any, dice: random.Random) -> None:
    """Keys deleted or added, values times three, other types, and huge numbers, in JSON data."""
    for _ in range(dice.randint(1, 3)):
        places = _places(data, [])
        if not places:
            return
        holder, key = dice.choice(places)
        how = dice.randrange(4)
        if how == 0:
            del holder[key]
        elif how == 1 and isinstance(holder[key], int | float):
            holder[key] = holder[key] * 3
        elif how == 2 and isinstance(holder, dict):
            holder[dice.choice(("extra", "__class__", ""))] = holder[key]
        else:
            holder[key] = dice.choice(_NASTY)


def _spoil_json(path: Path, content: bytes, dice: random.Random) -> None:
    """JSON with other values; every second time with the checksum that belongs to them."""
    data = json.loads(content)
    _spoil_values(data, dice)
    seal = next((name for name in _SEALS if name in data), None) if isinstance(data, dict) else None
    if seal and dice.random() < 0.5:
        write_sealed(path, {name: value for name, value in data.items() if name != seal}, seal)
    else:
        path.write_text(json.dumps(data))


def _spoil_tensors(path: Path, content: bytes, dice: random.Random) -> None:
    """A safetensors file whose header lies."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    _spoil_values(header, dice)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def _spoil_hdf5(path: Path, dice: random.Random) -> None:
    """An HDF5 file with other attributes, values, types and shapes."""
    values = (np.nan, -1e300, 1e300, 0.0, -1.0, 2**31)
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        for _ in range(dice.randint(1, 3)):
            there = [name for name in names if name in file]
            if not there:
                return
            name = dice.choice(there)
            node, how = file[name], dice.randrange(6)
            with suppress(TypeError, ValueError, OverflowError, OSError, IndexError), np.errstate(all="ignore"):
                if how == 0:
                    del file[name]
                elif how == 1 and node.attrs:
                    node.attrs[dice.choice(sorted(node.attrs))] = dice.choice((b"", "x", -1, 1e300, [1, 2]))
                elif how == 2 and file.attrs:
                    file.attrs[dice.choice(sorted(file.attrs))] = dice.choice((b"", "x", -1, 1e300, [1, 2]))
                elif isinstance(node, h5py.Dataset) and how < 5:
                    node[(0,) * node.ndim] = dice.choice(values)
                elif isinstance(node, h5py.Dataset):
                    shape = dice.choice(((), (3,), (0,), (2, 3), (10**12,)))
                    del file[name]
                    file.create_dataset(name, shape, dice.choice(("f4", "i8", "S3")), chunks=True if shape else None)
