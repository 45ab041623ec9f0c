"""The page of what `gpu.sh` measured: `gpu_table.py gpu.json` writes gpu.md beside it, and prints it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from measurements import Row, markdown, read_rows
from throughput import FLOW_COLUMNS, NOTE, SPLINE_COLUMNS, SPLINE_NOTE, flow_lines, ratio, spline_lines

SCRIPT = "gpu.py"
NOTES = {
    "laws": "Largest differences from plain torch in float64 on the CPU; of gradients the mean one over their mean.",
    "small batches": "Microseconds of a call, d = 8, 3x64; difference: of a replayed log_prob from a plain one.",
    "steps": "Milliseconds of log_prob, its gradients and a step of Adam, d = 8.",
    "showers": "Milliseconds of a shower, fresh weights.",
    "elements": "Matrix elements a second, all helicities and colours; largest relative difference from the CPU.",
    "amplitudes": "Whole integrands; difference: the largest one from the CPU over the mean value.",
    "integrals": "From the first call to the integral, training included; efficiency at 0.1 % overweight.",
    "fits": "Seconds of a short fit on `toy`.",
}
# What a GPU is asked for: a name, the figure, and its least or largest value.
SAMPLE, KERNEL, STUDENT, CONVOLUTIONAL = 5.0, 2.0, 0.01, 0.6
ELEMENTS = ("g g > t t~ g", "double", 1e7)


def verdicts(parts: dict[str, Row]) -> Iterator[str]:
    """Each target, what was found, and whether it is met."""
    for row in parts.get("flows", {}).get("rows", []):
        found = ratio(row, "sample", "madnis")
        if found is not None:
            size = f"d = {row['dim']}, {row['layers']}x{row['hidden']}, batch {row['batch']:,}"
            yield _said(f"sampling against madnis, {size}", found, found >= SAMPLE, f"at least {SAMPLE:g}")
    for row in parts.get("splines", {}).get("rows", []):
        for line in spline_lines([row]):
            if line[2] == "nisampler":
                used = float(line[5].rstrip("%")) / 100.0
                found = 1.0 / used if used else float("inf")
                yield _said(
                    f"spline {line[1]}, time over its bandwidth bound", found, found <= KERNEL, f"at most {KERNEL:g}"
                )
    limits = {"caloflow-ds1-photons-student": STUDENT, "convl2l-getting-high": CONVOLUTIONAL}
    for row in parts.get("showers", {}).get("rows", []):
        limit, found = limits.get(row["model"]), row["ms"]
        if limit is not None and found is not None:
            yield _said(
                f"{row['model']}, ms a shower at batch {row['batch']:,}", found, found <= limit, f"at most {limit:g}"
            )

    for row in parts.get("elements", {}).get("rows", []):
        if (row["process"], row["precision"]) == ELEMENTS[:2]:
            found = row["elements_per_second cuda"]
            yield _said(
                f"{ELEMENTS[0]}, matrix elements a second", found, found >= ELEMENTS[2], f"at least {ELEMENTS[2]:g}"
            )


def _said(what: str, found: float, met: bool, target: str) -> str:
    return f"{'met' if met else 'MISSED'}: {what}: {found:.3g} ({target})"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def section(part: Row) -> str:
    """The table of a part, or its error."""
    name = part["part"]
    if "error" in part:
        lines = "\n".join(part["error"].strip().splitlines()[-12:])
        return f"# {name}: failed\n\n```text\n{lines}\n```\n"
    if name == "flows":
        return markdown(name, (NOTE.format(clock="second"),), FLOW_COLUMNS, flow_lines(part["rows"]))
    if name == "splines":
        return markdown(name, (SPLINE_NOTE,), SPLINE_COLUMNS, spline_lines(part["rows"]))
    columns = list(dict.fromkeys(key for row in part["rows"] for key in row))
    lines = [[_cell(row.get(key, "")) for key in columns] for row in part["rows"]]
    return markdown(name, (NOTES[name],), columns, lines)


def page(rows: Sequence[Row]) -> str:
    """The whole page."""
    first, parts = rows[0], {row["part"]: row for row in rows}
    gpu = first["gpu"] or "CPU only, to try the script"
    place = f"{gpu}; {first['hardware']}; torch {first['torch']}; {first['date']}."
    seconds = f"{sum(row['seconds'] for row in rows):.0f} s in all."
    failed = [name for name, row in parts.items() if "error" in row]
    told = [*(verdicts(parts) if first["gpu"] else ()), *(f"FAILED: {name}" for name in failed)]
    head = f"# What a GPU shows\n\n`benchmarks/gpu.sh`; {place} {seconds}\n\n" + "".join(f"- {line}\n" for line in told)
    return "\n".join([head, *(section(row).replace("# ", "## ", 1) for row in rows)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Write and print the page; 1 if a part failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path, help="the file that gpu.py wrote")
    given = parser.parse_args(arguments)
    rows = read_rows(given.rows, ("part", "device"), SCRIPT)
    if not rows:
        print(f"{given.rows} holds no rows: run benchmarks/gpu.sh first", file=sys.stderr)
        return 2
    text = page(rows)
    given.rows.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
    return int(any("error" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main())
