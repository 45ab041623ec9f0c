"""The same card gives the same bytes, however many threads it may use and however busy the machine is."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nisampler.run.pipeline import execute, start

CHOSEN = """process = "camel"
[parameters]
dim = 8
[training]
calls = 8000
[integration]
points = 34_000
[events]
n = 300
"""
# Wide batches: products over the points of one, in which several threads would share the terms of a sum.
FLOW = """process = "camel"
[parameters]
dim = 3
[training]
calls = 21_000
sampler = "flow"
[training.flow]
hidden = 16
layers = 1
bins = 4
fourier = 0
batch = 1024
buffer = 2000
[training.tree]
leaves = 20
[integration]
points = 34_000
[events]
n = 300
"""
CHANNELS = """process = "z_prime"
[training]
calls = 6000
sampler = "flow"
[training.flow]
hidden = 16
layers = 1
bins = 4
fourier = 0
batch = 300
[training.tree]
leaves = 20
[integration]
points = 34_000
[events]
n = 200
formats = ["h5"]
"""


@contextmanager
def busy() -> Iterator[None]:
    """Other work on every core."""
    load = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(load) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def made(folder: Path, card: str, threads: int) -> dict[str, Any]:
    """The integral of a run, and checksums of its sampler, its weights and its events."""
    path = folder / f"{len(list(folder.iterdir()))}.toml"
    path.write_text(card)
    with start(path, path.with_suffix("")) as directory:
        # Not in the card, whose text stands in the event files.
        directory.settings["threads"] = threads
        integral = execute(directory)["integral"]
    files = [*directory.path.glob("*/*.safetensors"), *directory.path.glob("events.*")]
    sums = {str(file.relative_to(directory.path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return sums | {"integral": integral}


@pytest.mark.parametrize("card", [CHOSEN, FLOW, CHANNELS], ids=["chosen", "flow", "channels"])
def test_threads_and_load_change_no_byte(tmp_path: Path, card: str) -> None:
    first = made(tmp_path, card, 1)
    assert {name.split("/")[0].split(".")[0] for name in first} >= {"sampler", "integration", "events", "integral"}
    assert made(tmp_path, card, 2) == first
    with busy():
        assert made(tmp_path, card, 1) == first
        assert made(tmp_path, card, 2) == first
