"""Commands of the command line, called here or as a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from nisampler.cli import app


def call(*arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command in this process."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert "Traceback" not in done.stderr
    return done.exit_code, done.stdout, done.stderr


def shell(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The same as a command of its own."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "nisampler", *(str(argument) for argument in arguments)],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "60"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
