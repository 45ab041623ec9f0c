"""SIGKILL at random moments, then resume: the bytes of an uninterrupted run, and never an unreadable file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("kill_and_resume.py")
CARD = """
process = "{process}"
threads = 1
[training]
calls = 5000
sampler = "{sampler}"
[training.flow]
fourier = 0
bins = 4
hidden = 8
layers = 1
buffer = 1000
[training.tree]
leaves = 20
[integration]
points = 3000
[events]
n = 240
shard_size = 20
formats = [{formats}]
"""


@pytest.mark.parametrize(
    ("process", "sampler", "formats", "kills"),
    [("camel2", "flow", '"h5"', 12), ("ee_to_3jets", "vegas", '"lhe.gz"', 8)],
    ids=["points", "events"],
)
def test_killed_runs_end_with_the_same_bytes(
    tmp_path: Path, process: str, sampler: str, formats: str, kills: int
) -> None:
    card = tmp_path / "card.toml"
    card.write_text(CARD.format(process=process, sampler=sampler, formats=formats))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(PROGRAM), str(card), str(tmp_path / "runs"), str(kills), "1"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert sum(found["kills"].values()) == kills
    assert found["finished"] >= 1
    assert found["differing"] == []
