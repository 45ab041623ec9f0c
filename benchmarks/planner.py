"""What the planner expects of a flow beside what the laboratory has measured: a fit of its constants, and their error.

    python benchmarks/learning.py --cases camel4 camel8 w1 ttj w2 w3 --calls 60000 200000 \
        --output benchmarks/results/planner.json
    python benchmarks/planner.py --rows benchmarks/results/planner.json --figure planner.svg

A flow is expected to reach e_flow = e_vegas^γ with γ = 1 / (1 + calls / (h flows)) and the efficiency of VEGAS after
its survey; h is some factor c larger where several flows share the calls. h, for each size of the flows, and c are
fitted to log e_flow.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from learning import DEFAULT
from matplotlib.figure import Figure
from measurements import Row, markdown
from scipy.optimize import least_squares

from nisampler.base import tuning
from nisampler.training.costs import flow_efficiency
from nisampler.ui.palette import BLUE, GREY, ORANGE
from nisampler.ui.plots import PLAIN

SCRIPT = "benchmarks/planner.py"
SMALL = json.dumps({"flow.layers": tuning.SMALL_FLOW[0], "flow.hidden": tuning.SMALL_FLOW[1]})
COLUMNS = ("case", "calls", "flow", "VEGAS", "measured", "expected", "measured/expected")


def usable(rows: Sequence[Row]) -> list[Row]:
    """Rows of the default flow and of the small one that know their VEGAS."""
    return [row for row in rows if row["value"] in (DEFAULT, SMALL) and row.get("vegas", 0.0) > 0.0]


def is_small(row: Row) -> bool:
    """Whether a row is one of the small flow."""
    return bool(row["value"] == SMALL)


def expected(row: Row) -> float:
    """Efficiency that the planner expects in place of a measured one."""
    return flow_efficiency(row["vegas"], int(tuning.TRAINING_SHARE * row["calls"]), row["flows"], is_small(row))


def fitted(rows: Sequence[Row]) -> tuple[list[float], float]:
    """h of the large and of the small flow, c, and the root mean square of log(measured/expected)."""
    calls = np.array([tuning.TRAINING_SHARE * row["calls"] / row["flows"] for row in rows])
    small, shared = np.array([is_small(row) for row in rows]), np.array([row["flows"] > 1 for row in rows])
    vegas, reached = (np.log([row[name] for row in rows]) for name in ("vegas", "efficiency"))

    def residuals(parameters: np.ndarray) -> np.ndarray:
        large, little, factor = np.exp(parameters)
        half_way = np.where(small, little, large) * np.where(shared, factor, 1.0)
        return vegas / (1.0 + calls / half_way) - reached

    found = least_squares(residuals, np.log([*tuning.HALF_WAY, tuning.SHARED_HALF_WAY]), loss="soft_l1", f_scale=0.2)
    return np.exp(found.x).tolist(), math.sqrt(float(np.square(residuals(found.x)).mean()))


def lines(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """A line of the table for each row."""
    return [
        (
            *(row["case"], f"{row['calls']:,}", "small" if is_small(row) else "large"),
            *(f"{value:.3g}" for value in (row["vegas"], row["efficiency"], expected(row))),
            f"{row['efficiency'] / expected(row):.2f}",
        )
        for row in sorted(rows, key=lambda row: (row["case"], row["calls"], row["value"]))
    ]


def draw(rows: Sequence[Row], path: Path) -> None:
    """Measured efficiencies over expected ones, and VEGAS where it stands."""
    with mpl.rc_context(PLAIN):
        canvas = Figure(figsize=(5.0, 4.6), layout="constrained")
        axis = canvas.subplots()
        axis.plot([0.003, 1.0], [0.003, 1.0], "-", color=GREY, linewidth=1)
        for name, colour, chosen in (("3x64", BLUE, False), ("2x32", ORANGE, True)):
            own = [row for row in rows if is_small(row) == chosen]
            axis.plot([expected(row) for row in own], [row["efficiency"] for row in own], "o", color=colour, label=name)
        for row in rows:
            if abs(math.log(row["efficiency"] / expected(row))) < 0.2:
                continue  # those on the line need no name
            label = f" {row['case']} {row['calls'] // 1000}k"
            axis.annotate(label, (expected(row), row["efficiency"]), fontsize=7, color=GREY)
        axis.set(xscale="log", yscale="log", xlabel="expected efficiency at 0.1 %", ylabel="measured")
        axis.legend(title="flow", fontsize=8)
        path.parent.mkdir(parents=True, exist_ok=True)
        canvas.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print table and fit; 0."""
    parser = argparse.ArgumentParser(description="What the planner expects of a flow beside what was measured.")
    parser.add_argument("--rows", type=Path, required=True, help="of benchmarks/learning.py")
    parser.add_argument("--figure", type=Path, help="draw measured over expected")
    options = parser.parse_args(arguments)
    rows = usable(json.loads(options.rows.read_text(encoding="utf-8"))["rows"])
    (large, little, factor), error = fitted(rows)
    now = math.sqrt(sum(math.log(row["efficiency"] / expected(row)) ** 2 for row in rows) / len(rows))
    text = (
        f"Rows of `benchmarks/learning.py` by `{SCRIPT}`. With the constants in use a measured efficiency is within a "
        f"factor {math.exp(now):.2f} of the expected one (root mean square). A fit gives HALF_WAY "
        f"({large:.0f}, {little:.0f}) and SHARED_HALF_WAY {factor:.2f}, with a factor {math.exp(error):.2f}."
    )
    page = markdown("What the planner expects of flows", (text,), COLUMNS, lines(rows))
    options.rows.with_suffix(".md").write_text(page, encoding="utf-8")
    sys.stdout.write(page)
    if options.figure:
        draw(rows, options.figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
