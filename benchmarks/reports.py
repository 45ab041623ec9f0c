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
_CALL = 2e-4
"""CPU-seconds that a call of the costly function takes more."""
_COSTLY = f"""
import time
from nisampler.processes.hadron.lhc import create_drell_yan
Costly = create_drell_yan()
cheap = Costly.evaluate
def evaluate(p):
    end = time.process_time() + {_CALL} * len(p)
    while time.process_time() < end:
        pass
    return cheap(p)
Costly.evaluate = evaluate
"""


def reported(card: Path, folder: Path) -> dict[str, float]:
    """CPU-seconds of a run, and of its report: the distributions and the page."""
    spent = 0.0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal spent
            begin = time.process_time()
            result = function(*arguments)
            spent += time.process_time() - begin
            return result

        return call

    from nisampler.cli import app

    pipeline: Any = importlib.import_module("nisampler.run.pipeline")
    pipeline._drawn, pipeline.report_page = counted(pipeline._drawn), counted(pipeline.report_page)
    if app(["run", str(card), "--output", str(folder / "run"), "-q"], standalone_mode=False):
        raise SystemExit(f"the run of {card} failed")
    return {"report": spent, "run": time.process_time()}


def reports(folder: Path, rounds: int) -> str:
    """The page of what reports take of runs."""
    lines = [
        "`python benchmarks/reports.py`: CPU-seconds of runs from the shell, and what their reports take of them:",
        f"distributions and page; medians of {rounds}, load {os.getloadavg()[2]:.1f} on {os.cpu_count()} cores. Last:",
        f"Drell-Yan with {1e6 * _CALL:.0f} us more for each matrix element, those of records included, 30,000 calls",
        "and as many points.",
        "",
        "| card | run | report | share |",
        "|---|---|---|---|",
    ]
    (folder / "costly.py").write_text(_COSTLY, encoding="utf-8")
    costly = (HERE / "examples/drell_yan.toml").read_text(encoding="utf-8").split("\n[parameters]")
    costly = (
        costly[0].replace('"drell_yan"', f'"{folder}/costly.py:Costly"')
        + "\n[training]"
        + costly[1].split("[training]")[1]
    )
    (folder / "costly.toml").write_text(costly.replace("300_000", "30_000"), encoding="utf-8")
    for card in (*(HERE / f"examples/{name}.toml" for name in CARDS), folder / "costly.toml"):
        rows = []
        for index in range(rounds):
            place = folder / f"{card.stem}-{index}"
            place.mkdir()
            told = place / "told.json"
            command(HERE, __file__, "--card", str(card), "--output", str(told))
            rows.append(json.loads(told.read_text()))
        run, report = (statistics.median(row[name] for row in rows) for name in ("run", "report"))
        lines.append(f"| `{card.name}` | {run:.1f} | {report:.2f} | {100 * report / run:.1f} % |")
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
