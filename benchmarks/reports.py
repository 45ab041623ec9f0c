"""What the report of a run takes of its CPU-seconds.

python benchmarks/reports.py
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from event_files import HERE, command

CARDS = ("drell_yan", "ttbar", "ee_to_3jets")


def reported(card: Path, folder: Path) -> dict[str, float]:
    """CPU-seconds of a run, and of its report: matplotlib's import, the distributions and the page."""
    import numpy  # noqa: F401  # what a run needs without a report, too

    spent = 0.0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal spent
            begin = time.process_time()
            result = function(*arguments)
            spent += time.process_time() - begin
            return result

        return call

    counted(lambda: [importlib.import_module(f"matplotlib.{name}") for name in ("figure", "backends.backend_svg")])()
    from nisampler.cli import app

    pipeline: Any = importlib.import_module("nisampler.run.pipeline")
    pipeline._drawn, pipeline.report_page = counted(pipeline._drawn), counted(pipeline.report_page)
    app(["run", str(card), "--output", str(folder / "run"), "-q"], standalone_mode=False)
    return {"report": spent, "run": time.process_time()}


def reports(folder: Path, rounds: int) -> str:
    """The page of what reports take of runs."""
    lines = [
        "`python benchmarks/reports.py`: CPU-seconds of runs from the shell, and what their reports take of them:",
        f"matplotlib's import, distributions and page; medians of {rounds} runs, load {os.getloadavg()[2]:.1f} on",
        f"{os.cpu_count()} cores.",
        "",
        "| card | run | report | share |",
        "|---|---|---|---|",
    ]
    for card in CARDS:
        rows = []
        for index in range(rounds):
            place = folder / f"{card}-{index}"
            place.mkdir()
            told = place / "told.json"
            command(HERE, __file__, "--card", f"examples/{card}.toml", "--output", str(told))
            rows.append(json.loads(told.read_text()))
        run, report = (statistics.median(row[name] for row in rows) for name in ("run", "report"))
        lines.append(f"| `examples/{card}.toml` | {run:.1f} | {report:.2f} | {100 * report / run:.0f} % |")
    return "\n".join(["# Reports", "", *lines]) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=HERE / "benchmarks/results/reports.md")
    parser.add_argument("--card", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if options.card is None:
            text = reports(Path(name), options.rounds)
            print(text)
        else:
            text = json.dumps(reported(options.card, Path(name)))
    options.output.write_text(text, encoding="utf-8")
