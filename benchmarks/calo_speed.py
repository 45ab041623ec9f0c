"""Milliseconds for each generated shower: models at their published sizes and small ones, beside published figures.

    pip install ".[bench]" && python benchmarks/calo_speed.py --model convl2l-ds2=ds2 --output results.json

The time does not depend on what a model has learned, so that the weights are fresh ones. Every model is timed in a
process of its own; rows are kept in a JSON file and can be measured in any order.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from calo_fresh import fresh_model, preset_and_geometry
from measurements import Row, Rows, markdown, measure_all, run_script, wide_console
from rich.console import Console
from rich.table import Table

from nisampler.calo.evaluation.published import PUBLISHED
from nisampler.calo.timing import BATCHES, count_parameters, time_batches

SCRIPT = "benchmarks/calo_speed.py"
KEY = ("model", "geometry", "device", "threads")
COLUMNS = ("geometry", "model", "parameters", "device", "batch", "ms/shower")
# What the CaloChallenge calls the model whose settings a preset has.
SUBMISSIONS = {
    "caloflow-ds1-photons": "CaloFlow teacher",
    "caloflow-ds1-photons-student": "CaloFlow student",
    "caloinn-ds1-photons": "CaloINN",
    "caloinn-ds2": "CaloINN",
    "icaloflow-ds2": "iCaloFlow teacher",
    "icaloflow-ds2-student": "iCaloFlow student",
    "icaloflow-ds3": "iCaloFlow teacher",
    "icaloflow-ds3-student": "iCaloFlow student",
    "convl2l-ds2": "conv. L2LFlows",
    "convl2l-ds3": "conv. L2LFlows",
    "l2lflows-ds3": "L2LFlows MAF",
    "calodream-ds2": "CaloDREAM",
    "calodream-ds3": "CaloDREAM",
}
NOTE = (
    "Median over the batches, generation alone, without writing the file. published: the CaloChallenge's own "
    "measurements with its submissions (2410.21611), from the start of the program to the finished file, on other "
    "hardware. -: a batch would have taken longer than the budget, or nothing was published."
)
_SHOWERS = 300
_WIDTH = 150


def measure(job: dict[str, Any]) -> Row:
    """The row of one model in this process."""
    model, _ = fresh_model(job["model"], job["geometry"], _SHOWERS, job["device"])
    rows = time_batches(model.eval(), job["device"], job["batches"], job["repeats"], job["budget"])
    gpu = torch.cuda.get_device_name() if job["device"] == "cuda" else None
    return job | {"rows": [asdict(row) for row in rows], "parameters": count_parameters(model)[1], "gpu": gpu}


def lines_of(row: Row) -> list[tuple[str, ...]]:
    """A line for each batch of a model, and what was published for it."""
    head = (row["geometry"], row["model"], f"{row['parameters']:,}")
    lines = []
    submission = PUBLISHED.get(row["geometry"], {}).get(SUBMISSIONS.get(row["model"], ""))
    for timing in row["rows"]:
        taken = "-" if timing["generate"] is None else f"{timing['generate']:.3g}"
        device = row["gpu"] or f"cpu, {row['threads']} thread{'s' if row['threads'] > 1 else ''}"
        said = submission.milliseconds.get((row["device"], timing["batch"])) if submission else None
        lines.append((*head, device, f"{timing['batch']:,}", taken, "-" if said is None else f"{said:.3g}"))
    return lines


def show(console: Console, rows: list[Row], output: Path | None) -> None:
    """Print the table, and write it beside the rows."""
    order = sorted(rows, key=lambda row: (row["geometry"], row["model"], row["device"]))
    lines = [line for row in order for line in lines_of(row)]
    if not lines:
        return
    columns = (*COLUMNS, "published")
    table = Table(title="Generation of showers", caption=NOTE)
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index in (0, 1, 3) else "right", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    console.print(table)
    places = ", ".join(sorted({row["hardware"] for row in rows}))
    dates = sorted({row["date"][:10] for row in rows})
    text = f"{places}; torch {torch.__version__}; {' to '.join(dict.fromkeys((dates[0], dates[-1])))}."
    console.print(text, highlight=False)
    if output:
        page = markdown("Generation of showers: milliseconds for each", (text, NOTE), columns, lines)
        output.with_suffix(".md").write_text(page, encoding="utf-8")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description="Time the generation of showers.")
    parser.add_argument("--model", nargs="+", default=["small=toy"], metavar="PRESET=GEOMETRY", help="what to time")
    parser.add_argument("--batch", nargs="+", type=int, default=list(BATCHES), help="showers that are made at once")
    parser.add_argument("--repeats", type=int, default=5, help="timed batches of each size")
    parser.add_argument("--budget", type=float, default=120.0, help="seconds for each batch size")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where models live")
    parser.add_argument("--threads", type=int, default=1, help="threads of the CPU")
    parser.add_argument("--output", type=Path, help="rows in JSON, added to those that are there; table beside it, .md")
    parser.add_argument("--refresh", action="store_true", help="measure models again that are in the file")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def jobs_of(options: argparse.Namespace) -> list[Row]:
    """The models to time.

    Raises
    ------
    ConfigError
        If one is not PRESET=GEOMETRY.
    """
    common = {"device": options.device, "batches": options.batch, "repeats": options.repeats, "budget": options.budget}
    common["threads"] = options.threads
    return [preset_and_geometry(text) | common for text in options.model]


def run(options: argparse.Namespace, console: Console) -> int:
    """Time what is missing, then print the table; the number of models that failed."""
    kept = Rows(options.output, KEY, SCRIPT)
    todo = kept.missing(jobs_of(options), options.refresh)
    failed = measure_all(__file__, todo, options.threads, kept, console, label, lambda row: f"{len(row['rows'])} sizes")
    show(console, kept.rows, options.output)
    return failed


def label(job: Row) -> str:
    """What a row is called."""
    return f"{job['model']} for {job['geometry']}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Time the models; 0 if all could be timed."""
    return run_script(parse(arguments), measure, run, wide_console(_WIDTH))


if __name__ == "__main__":
    sys.exit(main())
