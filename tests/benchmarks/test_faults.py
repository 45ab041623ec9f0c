"""The campaign of faults: a tiny setting of each kind, and faults that it must find."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_a_tiny_campaign(tmp_path: Path) -> None:
    """In a process of its own: it forks, and limits its children."""
    rows = tmp_path / "rows.json"
    counts = ["--kill", "1", "--disk", "2", "--pair", "1", "--damage", "0", "--fuzz", "3", "--code", "0"]
    chosen = ["--only", "calo simulate", "card.toml", "set/set_0000.dat"]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(FOLDER / "faults.py"), *counts, *chosen, "--output", str(rows)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(rows.read_text())["rows"]
    assert [(row["campaign"], row["cases"]) for row in found] == [
        ("kill", 1),
        ("disk", 2),
        ("pair", 1),
        ("fuzz", 3),
        ("fuzz", 3),
    ]
    assert found[1]["hit"] == 2
    assert "| disk | calo simulate | 1 | 2 | 2 | 0 |" in rows.with_suffix(".md").read_text()


FINDS = f"""
import json, os, sys
from pathlib import Path
sys.path.insert(0, {str(FOLDER)!r})
import faults

def print_words():
    os.write(2, b"unexpected KeyError: 'x'; please report it")
    raise SystemExit(1)

def crash():
    os.kill(os.getpid(), {signal.SIGSEGV.value})

errors = Path(sys.argv[1])
works = (print_words, crash, lambda: sys.exit(1), lambda: {{}}["x"], lambda: None)
print(json.dumps([sorted(faults.wait(faults.child_of(work, errors), errors).faults()) for work in works]))
"""


def test_faults_are_found(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FINDS, str(tmp_path / "errors")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [["raw"], ["crash"], ["silent"], ["raw"], []]
