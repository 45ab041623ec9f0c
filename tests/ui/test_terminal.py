"""The default bar on a terminal, which a pseudo-terminal plays: what it shows, and what it leaves behind."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

WIDTHS = (80, 130)
CODE = """
from nisampler.ui.progress import monitor_for
print("before")
try:
    with monitor_for({wanted}) as monitor:
        figures = {{"error": "1.0e-02", "efficiency": "40.0 %", "loss": "0.05797"}}
        for done in (0, 500_000, 1_000_000):
            monitor.progress("training", done, 1_000_000, {{"calls": f"{{done:,}}", **figures}})
        monitor.progress("integration", 1, 2, {{}})
        {end}
except ValueError:
    pass
print("after")
"""


def on_a_terminal(
    wanted: str, width: int = 80, end: str = 'monitor.progress("integration", 2, 2, {"error": "1.0e-03"})'
) -> str:
    """All that a program writes whose stdout is a terminal."""
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": str(width), "LINES": "24"}
    for name in ("NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "FORCE_COLOR"):
        environment.pop(name, None)
    command = [sys.executable, "-W", "error", "-c", CODE.format(wanted=wanted, end=end)]
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment) as process:
        os.close(slave)
        parts = []
        while True:
            try:
                parts.append(os.read(master, 65536))
            except OSError:  # the other end is closed
                break
            if not parts[-1]:
                break
        process.wait(timeout=60)
    os.close(master)
    return b"".join(parts).decode()


def screen(text: str) -> list[str]:
    """What a terminal shows after it was sent this text; it understands what moves and erases."""
    lines: list[list[str]] = [[]]
    row = column = 0
    for match in re.finditer(r"\x1b\[([?\d;]*)([A-Za-z])|(.)", text, re.DOTALL):
        number, move, letter = match.groups()
        if move == "A":
            row -= int(number or 1)
        elif move == "K":
            lines[row] = [] if number == "2" else lines[row][:column]
        elif letter == "\r":
            column = 0
        elif letter == "\n":
            row += 1
            lines += [[] for _ in range(row + 1 - len(lines))]
        elif letter:
            lines[row] += [" "] * (column + 1 - len(lines[row]))
            lines[row][column] = letter
            column += 1
    return ["".join(line).rstrip() for line in lines]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_terminal_shows_a_bar_and_is_left_clean(width: int) -> None:
    text = on_a_terminal("None", width)
    before, training, integration, after, end = screen(text)
    assert (before, after, end) == ("before", "after", "")
    figures = "calls 1,000,000  error 1.0e-02  efficiency 40.0 %" + ("  loss 0.05797" if width > 100 else "…")
    assert re.fullmatch(rf"training +━+ 100% \d\d:\d\d .*{re.escape(figures)}", training), training
    assert re.fullmatch(r"integration +━+ 100% \d\d:\d\d .*error 1\.0e-03", integration), integration
    assert max(map(len, (training, integration))) <= width
    # The cursor is hidden while the bar moves, and comes back.
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    assert text.index("\x1b[?25l") < text.rindex("training") < text.index("\x1b[?25h") < text.index("after")


def test_a_call_that_fails_leaves_the_terminal_clean_too() -> None:
    text = on_a_terminal("None", end="raise ValueError")
    shown = screen(text)
    assert [line.split()[0] for line in shown if line] == ["before", "training", "integration", "after"]
    assert text.index("\x1b[?25h") < text.index("after")


def test_nothing_is_shown_that_nobody_wants() -> None:
    assert on_a_terminal("False").split() == ["before", "after"]
    code = CODE.format(wanted="None", end="pass")
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.split(), done.stderr) == (["before", "after"], "")
