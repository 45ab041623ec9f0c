"""Full disks: every writer says so in one sentence, leaves nothing behind, and works once there is space."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from nisampler.base import hdf5_output
from nisampler.base.storage import atomic_write
from nisampler.errors import StorageError

# A program that writes each kind of file again and again, with more and more space (RLIMIT_FSIZE), until it fits.
PROGRAM = """
import json, os, resource, sys
import h5py
import numpy as np
import torch
from nisampler.base.checkpoints import save_checkpoint
from nisampler.base.storage import write_json
from nisampler.calo.data.showers import Showers
from nisampler.calo.data.writer import ShowerWriter
from nisampler.calo.detector.geometries import geometry
from nisampler.errors import StorageError
from nisampler.events import EventBatch, InitInfo, PointBatch, ProcessInfo, write_events, write_points
from nisampler.ui.monitor import LogMonitor

folder, steps = sys.argv[1], int(sys.argv[2])
rng = np.random.default_rng(1)
info = InitInfo((11, -11), (5.0, 5.0), (ProcessInfo(1.0, 0.1),))

def events(n=400):
    momenta = np.zeros((n, 4, 4))
    momenta[:, 0], momenta[:, 1] = (5, 0, 0, 5), (5, 0, 0, -5)
    way = rng.normal(size=(n, 3))
    way *= 5 / np.linalg.norm(way, axis=1, keepdims=True)
    momenta[:, 2:, 0], momenta[:, 2, 1:], momenta[:, 3, 1:] = 5, way, -way
    return EventBatch(
        momenta=momenta, masses=np.zeros((n, 4)), pdg_ids=np.tile([11, -11, 13, -13], (n, 1)),
        status=np.tile([-1, -1, 1, 1], (n, 1)), mothers=np.tile([[0, 0], [0, 0], [1, 2], [1, 2]], (n, 1, 1)),
        colours=np.zeros((n, 4, 2)), spins=np.full((n, 4), 9.0), lifetimes=np.zeros((n, 4)), weights=np.ones(n),
        scales=np.full(n, 10.0), alpha_em=np.full(n, 0.0078), alpha_s=np.full(n, 0.118),
        process_ids=np.ones(n, dtype=int),
    )

def points(n=3000):
    return PointBatch(rng.random((n, 4)), np.ones(n))

def showers():
    with ShowerWriter(f"{folder}/a.h5", geometry("toy")) as writer:
        for _ in range(6):
            writer.append(Showers(np.full(300, 1e4), rng.random((300, 240), dtype=np.float32)))

writers = {
    "a.json": lambda: write_json(f"{folder}/a.json", list(range(20_000))),
    "checkpoint": lambda: save_checkpoint(folder, {"x": torch.ones(40_000)}, {}),
    "events.h5": lambda: write_events(f"{folder}/a.h5", (events() for _ in range(12)), info),
    "points.h5": lambda: write_points(f"{folder}/a.h5", (points() for _ in range(6))),
    "showers.h5": showers,
    "a.lhe": lambda: write_events(f"{folder}/a.lhe", events(), info),
    "a.lhe.gz": lambda: write_events(f"{folder}/a.lhe.gz", (events() for _ in range(2)), info),
    "run.log": lambda: LogMonitor(f"{folder}/run.log").line("word " * 100_000),
}
found = {}
for kind, write in writers.items():
    write()
    full = max(entry.stat().st_size for entry in os.scandir(folder))
    for entry in os.scandir(folder):
        os.unlink(entry)
    messages = set()
    for step in range(steps):
        resource.setrlimit(resource.RLIMIT_FSIZE, (full * step // steps, resource.RLIM_INFINITY))
        try:
            write()
            messages.add("no error")
        except StorageError as error:
            messages.add(str(error))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        for entry in os.scandir(folder):
            if entry.name != "run.log":
                messages.add(f"left {entry.name}")
            os.unlink(entry)
    write()
    for entry in os.scandir(folder):
        os.unlink(entry)
    found[kind] = sorted(messages)
print(json.dumps(found))
"""


def test_a_full_disk_is_one_sentence_and_no_debris(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(tmp_path), "8"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 8
    good = (f"cannot write {tmp_path}", "File too large")
    wrong = {
        kind: messages
        for kind, messages in found.items()
        if not all(text.startswith(good[0]) and text.endswith(good[1]) for text in messages)
    }
    assert not wrong and done.stderr == ""


def test_bytes_after_the_error_are_kept_in_memory() -> None:
    """The HDF5 library reads back what it wrote, whether the disk took it or not."""

    class Full:
        def seek(self, at: int) -> None:
            self.at = at

        def write(self, data: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def read(self, size: int) -> bytes:
            return b"old"[self.at : self.at + size]

    stream = hdf5_output._Stream(Full())  # type: ignore[arg-type]
    for at, data in ((2, b"abcd"), (4, b"XY"), (10, b"z")):
        stream.seek(at)
        assert stream.write(data) == len(data)
    stream.seek(0)
    assert stream.read(11) == b"olabXY\0\0\0\0z" and stream.seek(0, 2) == 11
    assert stream.failure is not None and stream.failure.errno == errno.ENOSPC


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    for name, kind in (("link", "link"), ("broken", "link"), ("folder", "folder"), ("/dev/null", "device or pipe")):
        with pytest.raises(StorageError, match=f"it is a {kind}, not a file"), atomic_write(tmp_path / name) as handle:
            handle.write(b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 4
