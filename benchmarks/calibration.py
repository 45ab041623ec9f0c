"""Are errors right, and do results that are not carry their mark? Pulls of many integrals from few and many calls.

    python benchmarks/calibration.py --output benchmarks/results/calibration.json

Every replica trains and integrates with seeds of its own, half of the calls each. From `--shared` calls on, twenty
integrations share a training, as trainings of half a million calls take long. A pull is the deviation from the known
integral over the error; marked results are those that print with `(?)`.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from measurements import Row, Script, add_output_options, markdown, run_script, wide_console
from rich.console import Console
from rich.table import Table
from torch import Tensor

from nisampler import Integrand, IntegrationConfig, TrainingConfig
from nisampler.base.estimate import pull
from nisampler.base.rng import Streams
from nisampler.errors import ConfigError
from nisampler.integration.integrator import Integrator
from nisampler.training.records import TrainingResult
from nisampler.training.trainer import Trainer

SCRIPT = "benchmarks/calibration.py"
KEY = ("function", "sampler", "calls")
COLUMNS = (
    "function",
    "sampler",
    "calls",
    "replicas",
    "mean",
    "width",
    "marked",
    "unmarked: mean",
    "width",
    "worst",
    "above 5",
)
SHARING = 20
NOTE = (
    "Mean and width of the pulls of all replicas, and the share of them whose result is marked. Then, of those without "
    "a mark, mean (over its standard error in brackets), width, worst pull, and how many are above 5. An asterisk "
    "stands where this mean is beyond 3 standard errors, or this width further from 1 than .1 and 3 of its own."
)
HIDDEN = (
    "`hidden6` has a peak that most trainings of few calls meet with no point at all. Nothing in the numbers tells of "
    "it, and no mark can; it is here to show this limit and stands outside of the other rows."
)
_WIDTH = 130


@dataclass(frozen=True)
class Known:
    """A function of the unit cube with its integral."""

    dim: int
    function: Callable[[Tensor], Tensor]
    integral: float

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x)


def peaks(dim: int, *parts: tuple[float, Sequence[float], float]) -> Known:
    """A sum of normal densities: share, centre (one number for all coordinates will do) and width of each."""
    whole = [(share, torch.tensor(centre, dtype=torch.float64).expand(dim), width) for share, centre, width in parts]

    def function(x: Tensor) -> Tensor:
        found = torch.zeros_like(x[:, 0])
        for share, centre, width in whole:
            height = share / (width * math.sqrt(2 * math.pi)) ** dim
            found += height * torch.exp(-((x - centre) ** 2).sum(1) / (2 * width * width))
        return found

    def inside(centre: float, width: float) -> float:
        return 0.5 * (math.erf((1 - centre) / (width * math.sqrt(2))) + math.erf(centre / (width * math.sqrt(2))))

    integral = sum(share * math.prod(inside(c, width) for c in centre.tolist()) for share, centre, width in whole)
    return Known(dim, function, integral)


def ridge(dim: int, width: float) -> Known:
    """A ridge along the diagonal of the first two coordinates."""
    root = width * math.sqrt(2)
    integral = math.sqrt(math.pi) * root * math.erf(1 / root) - root * root * -math.expm1(-1 / root**2)
    return Known(
        dim,
        lambda x: torch.exp(-((x[:, 0] - x[:, 1]) ** 2) / (2 * width * width)) * (2 * x[:, 2:]).prod(1),
        integral,
    )


_CENTRES = ([0.3, 0.6, 0.4, 0.7, 0.5, 0.3], [0.7, 0.3, 0.6, 0.4, 0.4, 0.7], [0.5])
FUNCTIONS: dict[str, Known] = {
    "wide4": peaks(4, (1.0, [0.5], 0.3)),
    "narrow8": peaks(8, (1.0, [0.45], 0.06)),
    "camel4": peaks(4, (0.5, [1 / 3], 0.1), (0.5, [2 / 3], 0.1)),
    "mixture6": peaks(6, (0.5, _CENTRES[0], 0.15), (0.3, _CENTRES[1], 0.12), (0.2, _CENTRES[2], 0.1)),
    "unequal3": peaks(3, (0.9, [0.35], 0.12), (0.1, [0.75], 0.05)),
    "peaks8": peaks(8, (0.7, [0.3], 0.1), (0.3, [0.65], 0.1)),
    "cut3": Known(3, lambda x: 8 * x.prod(1) * (x.sum(1) > 1.0), 1 - 8 / math.factorial(6)),
    "ball5": Known(5, lambda x: (((x - 0.5) ** 2).sum(1) < 0.16).double(), 8 * math.pi**2 / 15 * 0.4**5),
    "signed3": Known(3, lambda x: 3 * torch.sin(2 * math.pi * x[:, 0]) * x[:, 1] + x[:, 2], 0.5),
    "edge2": Known(2, lambda x: (x**-0.5).prod(1), 4.0),
    "ridge4": ridge(4, 0.05),
    "corner5": Known(
        5,
        lambda x: (1 + x.sum(1)) ** -6,
        math.fsum((-1) ** k * math.comb(5, k) / (1 + k) for k in range(6)) / math.factorial(5),
    ),
    "hidden6": peaks(6, (0.6, _CENTRES[0], 0.1), (0.25, _CENTRES[1], 0.08), (0.15, _CENTRES[2], 0.05)),
}


def trained(function: Known, job: Row, number: int) -> TrainingResult:
    """Training number so and so of a job."""
    config = TrainingConfig(calls=job["calls"] // 2, sampler=job["sampler"])
    return Trainer(Integrand(function, function.dim, kind="torch"), config, Streams(10_000 + number)).fit()


def measure(job: Row) -> Row:
    """The row of one job: pulls, and whether each is trusted."""
    function, pulls, trusted = FUNCTIONS[job["function"]], [], []
    share = SHARING if job["calls"] >= job["shared"] else 1
    config, start = IntegrationConfig(points=job["calls"] // 2), time.process_time()
    training = trained(function, job, 0)
    for replica in range(job["replicas"]):
        if replica % share == 0 and replica:
            training = trained(function, job, replica // share)
        integrand = Integrand(function, function.dim, kind="torch")
        streams = Streams(10_000 + replica // share).child("replica", replica)
        found = Integrator(integrand, training.sampler, config, streams, training.known).run().estimate
        pulls.append(round(pull(found, function.integral), 3))
        trusted.append(found.trusted)
    return job | {"pulls": pulls, "trusted": trusted, "seconds": time.process_time() - start}


def moments_of(pulls: Sequence[float]) -> tuple[float, float, bool]:
    """Mean and width of pulls, and whether they are those of right errors; NaN for fewer than two."""
    if len(pulls) < 2:
        return math.nan, math.nan, True
    mean, width, n = statistics.fmean(pulls), statistics.pstdev(pulls), len(pulls)
    return mean, width, abs(mean) < 3 * width / math.sqrt(n) and abs(width - 1) < max(0.1, 3 / math.sqrt(2 * n))


def line_of(row: Row) -> list[str]:
    """A row of the table."""
    pulls, unmarked = row["pulls"], [value for value, kept in zip(row["pulls"], row["trusted"], strict=True) if kept]
    mean, width, _ = moments_of(pulls)
    line = [row["function"], row["sampler"], f"{row['calls']:,}", str(len(pulls)), f"{mean:.2f}", f"{width:.2f}"]
    line.append(f"{100 * (1 - len(unmarked) / len(pulls)):.1f} %")
    mean, width, right = moments_of(unmarked)
    if math.isnan(width):
        return [*line, "", "", f"{unmarked[0]:.1f}" if unmarked else "", str(sum(abs(value) > 5 for value in unmarked))]
    ratio = mean / width * math.sqrt(len(unmarked))
    star = "" if right else " *"
    worst, above = max(unmarked, key=abs), sum(abs(value) > 5 for value in unmarked)
    return [*line, f"{mean:.2f} ({ratio:.1f})", f"{width:.2f}{star}", f"{worst:.1f}", str(above)]


def ordered(rows: list[Row]) -> list[Row]:
    """Rows by calls, in the order of the functions, the limit last."""
    names = list(FUNCTIONS)
    return sorted(rows, key=lambda row: (row["calls"], row["sampler"], names.index(row["function"])))


def summary_of(rows: list[Row]) -> str:
    """What all rows but the limit say together."""
    shown = [row for row in rows if row["function"] != "hidden6"]
    pairs = [(value, kept) for row in shown for value, kept in zip(row["pulls"], row["trusted"], strict=True)]
    beyond = [kept for value, kept in pairs if abs(value) > 5]
    fine = [row["trusted"] for row in shown if moments_of(row["pulls"])[2] and max(map(abs, row["pulls"])) < 5]
    kept = [one for row in fine for one in row]
    marked = 100 * (1 - sum(kept) / len(kept)) if kept else math.nan
    return (
        f"Of {len(pairs):,} results {sum(not kept for _, kept in pairs):,} are marked, and of the {len(beyond):,} with "
        f"a pull above 5 {sum(not kept for kept in beyond):,}. In the {len(fine)} rows whose pulls are right with no "
        f"help of marks, {marked:.1f} % of the results carry one all the same."
    )


def show(console: Console, rows: list[Row], output: Path | None) -> None:
    """Print the table, and write it beside the rows."""
    if not rows:
        return
    lines, summary = [line_of(row) for row in ordered(rows)], summary_of(rows)
    table = Table(*COLUMNS, title="pulls")
    for line in lines:
        table.add_row(*line)
    console.print(table)
    console.print(summary, markup=False, highlight=False)
    if output:
        seconds = sum(row["seconds"] for row in rows)
        where = f"{rows[-1]['hardware']}, {rows[-1]['date'][:10]}, {seconds / 60:.0f} CPU-minutes, `{SCRIPT}`."
        text = [f"{NOTE} {where}", summary, HIDDEN]
        output.with_suffix(".md").write_text(markdown("Calibration of errors", text, COLUMNS, lines), encoding="utf-8")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--functions", nargs="+", default=list(FUNCTIONS), choices=list(FUNCTIONS))
    parser.add_argument("--samplers", nargs="+", default=["vegas"], choices=["vegas", "auto", "flow"])
    parser.add_argument("--calls", nargs="+", type=int, default=[5000, 20_000, 1_000_000])
    parser.add_argument("--replicas", type=int, default=400)
    parser.add_argument("--shared", type=int, default=200_000, help="calls from which on integrations share a training")
    add_output_options(parser)
    return parser.parse_args(arguments)


def jobs_of(options: argparse.Namespace) -> list[Row]:
    """The rows to measure.

    Raises
    ------
    ConfigError
        If there are too few replicas or calls.
    """
    if options.replicas < 2 or min(options.calls) < 200:
        raise ConfigError("need at least two replicas and 200 calls")
    common = {"replicas": options.replicas, "shared": options.shared}
    return [
        common | {"function": name, "sampler": sampler, "calls": calls}
        for calls in options.calls
        for sampler in options.samplers
        for name in options.functions
    ]


def label(job: Row) -> str:
    """What a row is called."""
    return f"{job['function']}, {job['sampler']}, {job['calls']:,} calls"


def brief(row: Row) -> str:
    """What is said of a row when it has been measured."""
    return ", ".join(line_of(row)[4:])


TABLE = Script(__file__, SCRIPT, KEY, jobs_of, label, brief, show)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurements; 0 if every row could be measured."""
    return run_script(parse(arguments), measure, TABLE.run, wide_console(_WIDTH))


if __name__ == "__main__":
    sys.exit(main())
