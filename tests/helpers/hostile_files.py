"""Small files that ask for much: each is made, then read in a child process that says what that cost.

A child forks before any thread starts, so that its largest memory is its own. Called by `cases_of(kind, folder)`, or as
a program with a kind and a folder.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

MIB = 1 << 20
Maker = Callable[[Path], object]

# Event files

INIT = "<init>\n 2212 2212 6500 6500 0 0 10042 10042 -4 1\n 50.1 0.2 1.0 66\n</init>\n"
ROOT = '<LesHouchesEvents version="3.0">\n'
LINE = " 21 1 1 2 503 504 10 0 0 10 0 0 9\n"
HEAD = " {} 66 2.5e-3 91.2 0.0078 0.118\n"
BEAMS = " 21 -1 0 0 501 502 0 0 10 10 0 0 9\n 21 -1 0 0 503 501 0 0 -10 10 0 0 9\n"
EVENT = f"<event>\n{HEAD.format(3)}{BEAMS}{LINE}</event>\n"


def lhe(*parts: tuple[bytes | str, int]) -> Maker:
    """A packed file of parts, each repeated."""

    def make(path: Path) -> None:
        from nisampler.events.compression import packed

        with open(path, "wb") as content, packed(content, path.name, 9) as file:
            for part, times in parts:
                piece = part.encode() if isinstance(part, str) else part
                step = max(1, min(times, MIB // len(piece)))
                for _ in range(times // step):
                    file.write(piece * step)

    return make


def wide(count: int, declared: int | None = None) -> tuple[tuple[str, int], ...]:
    """An event of many particles."""
    return (f"<event>\n{HEAD.format(declared or count)}{BEAMS}", 1), (LINE, count - 2), ("</event>\n", 1)


def columns(n: int, slots: int, **options: Any) -> Maker:
    """An event file whose columns were never written."""

    def make(path: Path) -> None:
        from nisampler.events.columns import COLUMNS

        with h5py.File(path, "w") as file:
            file.attrs.update({"format": "nisampler-events", "version": 1, "n": n, "generator": "x"})
            init = file.create_group("init")
            init.attrs.update({"beam_ids": [11, -11], "beam_energies": [5.0, 5.0], "pdf_groups": [0, 0]})
            init.attrs.update({"pdf_sets": [0, 0], "strategy": 3, "generator": "x", "version": "1"})
            init["processes"] = np.array([[1.0, 0.1, 1.0, 1.0]])
            group = file.create_group("events")
            for name, (dtype, axes, _) in COLUMNS.items():
                if "k" in axes:  # of named weights
                    continue
                shape = (n, *(slots if axis == "p" else int(axis) for axis in axes))
                chunks = (min(n, options.get("rows", 1000)), *(min(size, 64) for size in shape[1:]))
                group.create_dataset(name, shape=shape, dtype=dtype, chunks=chunks, compression="gzip")
            for change in options.get("changes", ()):
                change(file)

    return make


def points_of_texts(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "nisampler-points", "version": 1, "n": 1000, "unit": ""})
        group = file.create_group("points")
        group["weights"] = np.ones(1000)
        group.create_dataset("x", (1000, 2), dtype=h5py.string_dtype())


def many_processes(file: Any) -> None:
    del file["init/processes"]
    file["init"].create_dataset("processes", shape=(5_000_000, 4), dtype="f8", chunks=(1000, 4), compression="gzip")


EVENT_FILES: dict[str, tuple[str, Maker]] = {
    "a header of blanks": ("a.lhe.gz", lhe((ROOT + "<header>", 1), (" ", 60 * MIB), ("</header>" + INIT, 1))),
    "a header of elements": ("a.lhe.gz", lhe((ROOT + "<header>", 1), ("<a/>", 15 * MIB), ("</header>" + INIT, 1))),
    "a header of open comments": ("a.lhe.gz", lhe((ROOT, 1), ("<!--", 15 * MIB), (INIT, 1))),
    "a comment without end": ("a.lhe.gz", lhe(("<!-- ", 12 * MIB))),
    "entities": (
        "a.lhe",
        lambda path: path.write_text(
            '<!DOCTYPE LesHouchesEvents [<!ENTITY a "' + "x" * 100_000 + '">]>' + ROOT + INIT + EVENT
        ),
    ),
    "an event of blanks": ("a.lhe.gz", lhe((ROOT + INIT + "<event>", 1), (" ", 60 * MIB), ("</event>", 1))),
    "an event of 400,000 particles": (
        "a.lhe.gz",
        lhe((ROOT + INIT, 1), *wide(400_000), ("</LesHouchesEvents>", 1)),
    ),
    "one wide event among thousands": (
        "a.lhe.gz",
        lhe((ROOT + INIT, 1), (EVENT, 3000), *wide(30_000), ("</LesHouchesEvents>", 1)),
    ),
    "many wide events": (
        "a.lhe.gz",
        lhe((ROOT + INIT, 1), *(wide(20_000) * 5), ("</LesHouchesEvents>", 1)),
    ),
    "a million weights in an event": (
        "a.lhe.gz",
        lhe(
            (ROOT + "<header><initrwgt/></header>" + INIT + "<event>\n" + HEAD.format(2) + BEAMS + "<rwgt>", 1),
            ("<wgt id='1'>1</wgt>\n", 2 * MIB),
            ("</rwgt></event></LesHouchesEvents>", 1),
        ),
    ),
    "blanks behind the end": ("a.lhe.gz", lhe((ROOT + INIT + EVENT + "</LesHouchesEvents>", 1), (" ", 60 * MIB))),
    "a header of blanks in .zst": ("a.lhe.zst", lhe((ROOT + "<header>", 1), (" ", 600 * MIB), ("</header>", 1))),
    "an event of blanks in .zst": ("a.lhe.zst", lhe((ROOT + INIT + "<event>", 1), (" ", 600 * MIB), ("</event>", 1))),
    "blanks behind the end in .zst": (
        "a.lhe.zst",
        lhe((ROOT + INIT + EVENT + "</LesHouchesEvents>", 1), (" ", 600 * MIB), ("x", 1)),
    ),
    # A frame that wants its last 2 GiB kept (RFC 8878): window descriptor 21 << 3, then an empty last block.
    "a window of 2 GiB": ("a.lhe.zst", lambda path: path.write_bytes(b"\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00")),
    "columns of 10^12 rows": ("a.h5", columns(10**12, 5)),
    "columns of a million rows": ("a.h5", columns(10**6, 50)),
    "columns of 10^6 slots": ("a.h5", columns(10, 10**6)),
    "columns of 30000 slots": ("a.h5", columns(200, 30_000)),
    "chunks of 2^28 rows": ("a.h5", columns(2**28, 2, rows=2**28)),
    "a table of processes": ("a.h5", columns(10, 5, changes=[many_processes])),
    "points of texts": ("a.h5", points_of_texts),
}

# Shower files


def plain_showers(n: int, voxels: int = 240, **options: Any) -> Maker:
    """A shower file with energies that are written, if few enough, and voxels that are not."""

    def make(path: Path) -> None:
        with h5py.File(path, "w") as file:
            wide = {"chunks": (MIB, 1)} if options.get("chunks") is True else {}
            energy = file.create_dataset("incident_energies", (n, 1), dtype="f8", **options | wide)
            if n <= 1 << 24:
                energy[:] = np.full((n, 1), 1e4)
            file.create_dataset("showers", (n, voxels), dtype="f4", **options)

    return make


def bomb(path: Path) -> None:
    """One chunk that unpacks to far more than its size."""
    with h5py.File(path, "w") as file:
        file["incident_energies"] = np.full((10, 1), 1e4)
        data = file.create_dataset("showers", (10, 240), dtype="f4", chunks=(10, 240), compression="gzip")
        packer = zlib.compressobj(9)
        first, *same = (packer.compress(bytes(MIB)) + packer.flush(zlib.Z_SYNC_FLUSH) for _ in range(3))
        # Blocks of zeros after zeros have the same bytes; the checksum of zeros is their number and one.
        packed = first + 2499 * same[1] + b"\x03\x00" + ((2500 * MIB % 65521) << 16 | 1).to_bytes(4, "big")
        data.id.write_direct_chunk((0, 0), packed)


def virtual(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["incident_energies"] = np.full((10, 1), 1e4)
        layout = h5py.VirtualLayout((10, 240), dtype="f4")
        layout[:] = h5py.VirtualSource("/etc/other.h5", "showers", (10, 240))
        file.create_virtual_dataset("showers", layout)


SHOWER_FILES: dict[str, tuple[str, Maker]] = {
    "10^10 rows": ("a.h5", plain_showers(10**10, chunks=True, compression="gzip")),
    "10^8 rows": ("a.h5", plain_showers(10**8, chunks=True, compression="gzip")),
    "3 x 10^7 rows": ("a.h5", plain_showers(3 * 10**7, chunks=(1000, 1), compression="gzip")),
    "4 million energies without voxels": ("a.h5", plain_showers(4 * 10**6, chunks=True, compression="gzip")),
    "rows that are not stored at all": ("a.h5", plain_showers(10**8)),
    "chunks of 2 GiB": (
        "a.h5",
        lambda path: _chunked(path, 1 << 21),
    ),
    "a chunk that unpacks to 2.5 GiB": ("a.h5", bomb),
    "voxels in another file": ("a.h5", virtual),
}


def _chunked(path: Path, rows: int) -> None:
    with h5py.File(path, "w") as file:
        file["incident_energies"] = np.full((rows, 1), 1e4)
        file.create_dataset("showers", (rows, 240), dtype="f4", chunks=(rows, 240), compression="gzip")


BINNING = '<Bins><Bin pid="22" name="photon"><Layer id="0" r_edges="{}" n_bin_alpha="{}"/></Bin></Bins>'
BINNINGS: dict[str, tuple[str, Maker]] = {
    "50 million angles": ("a.xml", lambda path: path.write_text(BINNING.format("0,1", 50_000_000))),
    "10^30 angles": ("a.xml", lambda path: path.write_text(BINNING.format("0,1", 10**30))),
    "a thousand radii and 100,000 angles": (
        "a.xml",
        lambda path: path.write_text(BINNING.format(",".join(map(str, range(1000))), 100_000)),
    ),
    "angles without cells": ("a.xml", lambda path: path.write_text(BINNING.format("0", 10**12))),
    "a thousand layers of 900,000": (
        "a.xml",
        lambda path: path.write_text(
            '<Bins><Bin pid="22" name="photon">'
            + "".join(f'<Layer id="{i}" r_edges="0,1" n_bin_alpha="900000"/>' for i in range(1000))
            + "</Bin></Bins>"
        ),
    ),
    "10 MiB of blanks": ("a.xml", lambda path: path.write_text("<Bins>" + " " * (10 * MIB))),
    "nothing": ("a.xml", lambda path: path.write_text("<Bins/>")),
}

# Others

TOP = "PdfType: central\nFormat: lhagrid1\n---\n"
GRIDS: dict[str, tuple[str, Maker]] = {
    "a long file": ("set_0000.dat", lambda path: path.write_text(TOP + "0 " * (9 * MIB))),
    "many knots of one flavour": (
        "set_0000.dat",
        lambda path: path.write_text(
            TOP + f"{_rising(2000)}\n{_rising(1000)}\n21\n" + "0 " * (2000 * 1000) + "\n---\n"
        ),
    ),
    "a head of 10 MiB": (
        "set_0000.dat",
        lambda path: path.write_text(
            "Format: lhagrid1\n" + "a: b\n" * (2 * MIB) + "---\n0.1 1\n1 2\n21\n1 1 1 1\n---\n"
        ),
    ),
    "an endless .info": (
        "set_0000.dat",
        lambda path: (
            path.write_text(TOP + "0.1 1.0\n1.0 2.0\n21\n1 1 1 1\n---\n"),
            path.with_name("set.info").write_text("AlphaS_Qs: [" + "1,\n" * MIB),
        ),
    ),
    "SetIndex of 5000 digits": (
        "set_0000.dat",
        lambda path: (
            path.write_text(TOP + "0.1 1.0\n1.0 2.0\n21\n1 1 1 1\n---\n"),
            path.with_name("set.info").write_text("SetIndex: " + "9" * 5000),
        ),
    ),
}


def _rising(count: int) -> str:
    return " ".join(f"{0.001 * (i + 1):.4f}" for i in range(count))


JSONS: dict[str, tuple[str, Maker]] = {
    "lists in lists": ("a.json", lambda path: path.write_text("[" * 100_000)),
    "tables in tables": ("a.json", lambda path: path.write_text('{"a":' * 100_000)),
    "a long file": ("a.json", lambda path: path.write_text("[" + "[]," * (6 * MIB))),
    "a number of 5000 digits": ("a.json", lambda path: path.write_text("9" * 5000)),
    "a number beyond all": ("a.json", lambda path: path.write_text("1e999")),
}
HUGE = 10**20
CARDS: dict[str, tuple[str, Maker]] = {
    name: ("a.toml", partial(Path.write_text, data=text))
    for name, text in {
        "lists in lists": "a = " + "[" * 5000 + "]" * 5000,
        "tables in tables": "[" + ".".join(["a"] * 3000) + "]\nx = 1",
        "a number of 5000 digits": "process = 'camel4'\nseed = " + "9" * 5000,
        "a long file": "a = [" + "1," * MIB + "]",
        **{
            key: f"process = 'camel4'\n{key.rpartition('.')[0] and '[' + key.rpartition('.')[0] + ']'}\n"
            f"{key.rpartition('.')[2]} = {HUGE}"
            for key in (
                *("seed", "threads", "events.n", "events.shard_size", "integration.points", "integration.max_points"),
                *("integration.keep_weights", "training.calls", "training.events", "training.flow.bins"),
                *("training.flow.hidden", "training.flow.layers", "training.flow.fourier", "training.flow.batch"),
                *("training.flow.reuse", "training.flow.buffer", "training.tree.leaves"),
            )
        },
        "ten million shards": "process = 'camel4'\n[events]\nn = 10_000_000\nshard_size = 1",
        "a network of 10^10 weights": "process = 'camel4'\n[training.flow]\nhidden = 8192\nlayers = 200",
    }.items()
}
KINDS = {
    "events": EVENT_FILES,
    "showers": SHOWER_FILES,
    "binnings": BINNINGS,
    "grids": GRIDS,
    "json": JSONS,
    "cards": CARDS,
}


def reader_of(kind: str) -> Callable[[Path], object]:
    """What reads a kind of file."""
    if kind == "events":
        from nisampler.events import check_file

        return check_file
    if kind == "showers":
        from nisampler.calo.data.files import read_showers
        from nisampler.calo.detector.geometries import geometry

        return lambda path: read_showers(path, geometry("toy"))
    if kind == "binnings":
        from nisampler.calo.detector.binning import read_binning

        return read_binning
    if kind == "grids":
        from nisampler.processes.partons.pdf import load_pdf

        return load_pdf
    if kind == "cards":
        from nisampler.run.card import load_card

        return load_card
    from nisampler.base.storage import read_json

    return read_json


def read_in_child(read: Callable[[Path], object], path: Path) -> dict[str, Any]:
    """What came of it: the kind of error, its text, MiB beyond those at the start, seconds, problems of a report."""
    report = path.with_name("outcome")
    start = time.monotonic()
    child = os.fork()
    if not child:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # What would take all memory of the machine ends in a MemoryError instead.
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 3000 * MIB,) * 2)
        outcome: dict[str, Any] = {"error": "", "named": True, "text": ""}
        try:
            found = read(path)
            outcome["text"] = "; ".join(getattr(found, "problems", ()))[:500]
        except BaseException as error:
            named = any(kind.__name__ == "NisamplerError" for kind in type(error).__mro__)
            outcome = {"error": type(error).__name__, "named": named, "text": str(error)[:500]}
        outcome["mib"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        report.write_text(json.dumps(outcome))
        os._exit(0)
    os.waitpid(child, 0)
    return {**json.loads(report.read_text()), "seconds": time.monotonic() - start}


def main(kind: str, folder: Path) -> dict[str, dict[str, Any]]:
    """All cases of a kind, by name."""
    warnings.simplefilter("ignore", DeprecationWarning)
    read, found = reader_of(kind), {}
    for number, (name, (file, make)) in enumerate(KINDS[kind].items()):
        place = folder / str(number)
        place.mkdir()
        make(place / file)
        size = (place / file).stat().st_size
        found[name] = read_in_child(read, place / file) | {"bytes": size}
        for path in place.iterdir():
            path.unlink()
    return found


def cases_of(kind: str, folder: Path) -> dict[str, dict[str, Any]]:
    """The outcome of each case of a kind, from a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, kind, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    result: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return result


@lru_cache
def outcomes(kind: str) -> dict[str, dict[str, Any]]:
    """`cases_of` a kind in a folder of its own, once in a session."""
    with tempfile.TemporaryDirectory() as folder:
        return cases_of(kind, Path(folder))


def named_and_cheap(kind: str, name: str) -> Any:
    """The error of a case, after a look that it was named and took no memory to speak of."""
    found = outcomes(kind)[name]
    assert found["named"] and found["text"], found
    assert found["mib"] < 500, found
    return found["error"]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
