"""Matrix elements and cross-sections of processes from strings: time a point, growth with legs, MadGraph's figures.

    python benchmarks/standard_model.py --output benchmarks/results/standard_model.json

Speeds are helicity- and colour-summed matrix elements of one combination of flavours on one core, with those of
pyamplicol beside them where it is installed (extra [sm]). Draws in place of sums: one class of helicities a point,
drawn evenly, with all colours, and one choice of colours with all helicities, each with the relative variance that it
adds at fixed momenta; kinds of colours have a plan each. Cross-sections are compared with the regression table of
MadGraph7 (tests/acceptance_tests/check_xsec_processes_reference.json): 13 TeV, both scales at 91.188 GeV,
NNPDF23_lo_as_0130_qed, four flavours, masses and widths of its model, the default cuts of its run card.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from measurements import Row, Script, add_output_options, markdown, run_script, wide_console
from rich.console import Console
from rich.table import Table
from torch import Tensor

from nisampler import IntegrationConfig, TrainingConfig, integrate
from nisampler.errors import ConfigError
from nisampler.processes.amplitudes.recursion.amplitude import RecursiveAmplitude
from nisampler.processes.amplitudes.recursion.dressed import SampledColours
from nisampler.processes.amplitudes.recursion.probes import probe_momenta
from nisampler.processes.registry import create

SCRIPT = "benchmarks/standard_model.py"
SPEEDS = (
    *(f"u d~ > e+ ve{' g' * gluons}" for gluons in range(1, 6)),
    "g g > t t~",
    "g g > t t~ g",
    "g g > t t~ g g",
    "u c > w+ w+ d s QCD=0",
    "u u > w+ w+ d d QCD=0",
    "u c > d s e+ ve mu+ vm QCD=0",
    "u d~ > w+ w+ w-",
)
DRAWS = (
    *(f"u d~ > e+ ve{' g' * gluons}" for gluons in range(2, 6)),
    *(f"g g >{' g' * gluons}" for gluons in range(2, 5)),
    "g g > t t~ g",
)
MADGRAPH = {
    "p p > t t~ j": (997.5605, 0.35),
    "g g > t t~ g": (725.4015, 0.26),
    "p p > e+ e- j": (257.7744, 0.114),
    "q q~ > e+ e- g": (32.3769, 0.0136),
    "g q > e+ e- q": (59.0235, 0.0287),
    "p p > t t~ j j": (912.111, 0.28),
}
# A quark of each of the four flavours in turn, with the beams in the order that is written.
QUARKS = ("u", "d", "s", "c")
CARD = {
    "pdf": "NNPDF23_lo_as_0130_qed",
    "scale": 91.188,
    "flavours": 4,
    "alpha_em": 1 / 132.507,
    "mass_w": 80.419002,
    "mass_z": 91.188,
    "width_w": 2.0476,
    "width_z": 2.441404,
}
KEY = ("series", "process")
SPEED_COLUMNS = ("process", "CPU-us a point", "pyamplicol", "ratio", "operations", "flows", "helicities", "made in s")
DRAW_COLUMNS = (
    "process",
    "sums: us",
    "a helicity",
    "ratio",
    "variance",
    "a colour",
    "ratio",
    "variance",
    "kinds",
    "made in s",
)
SIGMA_COLUMNS = ("process", "nisampler [pb]", "MadGraph7 [pb]", "ratio", "pull", "calls", "CPU-s")
_POINTS, _WIDTH = 4000, 130


def speed(job: Row) -> Row:
    """Time of a point, and the size of the plan."""
    process = job["process"]
    start = time.process_time()
    amplitude = RecursiveAmplitude(process)
    made = time.process_time() - start
    (matrix,) = amplitude.matrices.values()
    momenta = probe_momenta([leg.mass for leg in matrix.legs], points=_POINTS)
    alpha_s = torch.full((_POINTS,), 0.118, dtype=torch.float64)

    def ours() -> Tensor:
        return matrix.squared(momenta, alpha_s)

    found = {
        "seconds": _median(ours, job["repeats"]) / _POINTS,
        "made": made,
        "operations": sum(len(step.outputs) for step in matrix.plan.steps),
        "flows": len(matrix.flows),
        "helicities": len({output.helicities for output in matrix.outputs}),
        "peer": None,
    }
    if "QCD" not in process and importlib.util.find_spec("pyamplicol"):
        found["peer"] = _pyamplicol(process, momenta, alpha_s, ours(), job["repeats"])
    return job | found


def draws(job: Row) -> Row:
    """Times of a point with sums, with a drawn class of helicities and with drawn colours; and what draws cost."""
    (matrix,) = RecursiveAmplitude(job["process"]).matrices.values()
    sampled = SampledColours(matrix.initial, matrix.final, matrix.couplings, matrix.strong)
    momenta = probe_momenta([leg.mass for leg in matrix.legs], points=job["points"])
    alpha_s = torch.full((len(momenta),), 0.118, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    helicities = torch.randint(matrix.helicity_count, (len(momenta),), generator=generator)
    colours, probability = sampled.draw(len(momenta), generator)
    start = time.process_time()
    by_colour = sampled.squared_of(colours, momenta, alpha_s) / probability
    made = time.process_time() - start
    whole = matrix.squared(momenta, alpha_s)
    by_helicity = matrix.squared_of(helicities, momenta, alpha_s) * matrix.helicity_count
    ways: dict[str, Callable[[], Tensor]] = {
        "sums": lambda: matrix.squared(momenta, alpha_s),
        "helicity": lambda: matrix.squared_of(helicities, momenta, alpha_s),
        "colour": lambda: sampled.squared_of(colours, momenta, alpha_s),
    }
    found = {name: _median(action, job["repeats"]) / len(momenta) for name, action in ways.items()}
    variances = {
        "helicity_variance": float((by_helicity / whole).var()),
        "colour_variance": float((by_colour / whole).var()),
    }
    return job | found | variances | {"made": made, "kinds": sampled.kinds}


def _pyamplicol(process: str, momenta: Tensor, alpha_s: Tensor, ours: Tensor, repeats: int) -> float:
    """Seconds a point of pyamplicol, whose values must be ours."""
    from nisampler.processes.amplicol import AmplicolAmplitude
    from nisampler.processes.parameters import StandardModel

    peer = AmplicolAmplitude(process, StandardModel().on_shell())

    def theirs() -> Tensor:
        return peer.squared(momenta[:, :2], momenta[:, 2:], alpha_s)[:, 0]

    difference = float((theirs() / ours - 1).abs().max())
    if difference > 1e-8:
        raise ConfigError(f"{process}: pyamplicol differs by {difference:.1e}")
    return _median(theirs, repeats) / len(momenta)


def _median(action: Callable[[], object], repeats: int) -> float:
    """CPU-seconds of an action; the first time compiles, or loads what is compiled."""
    action()
    times: list[float] = []
    for _ in range(repeats):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return statistics.median(times)


def sigma(job: Row) -> Row:
    """A cross-section by the sampler that the job names; the calls are those of all flavours together."""
    start = time.process_time()
    words = job["process"].split()
    parts = [" ".join(_quark(word, name) for word in words) for name in (QUARKS if "q" in words else ("",))]
    calls = job["calls"] // len(parts)
    found = [
        integrate(
            create(part, **CARD),
            seed=job["seed"],
            device="cpu",
            training=TrainingConfig(calls=calls, sampler=job["sampler"]),
            integration=IntegrationConfig(points=calls),
            progress=False,
        ).estimate
        for part in parts
    ]
    value, error = sum(item.value for item in found), math.hypot(*(item.error for item in found))
    return job | {"value": value, "error": error, "cpu": time.process_time() - start}


def _quark(word: str, name: str) -> str:
    """A word of a process with the quark of this name for q."""
    return {"q": name, "q~": f"{name}~"}.get(word, word)


def measure(job: Row) -> Row:
    """One row in this process."""
    return {"speed": speed, "draws": draws, "sigma": sigma}[job["series"]](job)


def show(console: Console, rows: Sequence[Row], output: Path | None) -> None:
    """Print all tables, and write them beside the rows."""
    tables = (
        ("Time of a matrix element", SPEED_COLUMNS, _speeds(rows)),
        ("Draws in place of sums", DRAW_COLUMNS, _draws(rows)),
        ("Cross-sections", SIGMA_COLUMNS, _sigmas(rows)),
    )
    pages: list[str] = []
    for title, columns, lines in tables:
        if not lines:
            continue
        table = Table(title=title)
        for name in columns:
            table.add_column(name, justify="left" if name == "process" else "right", no_wrap=True)
        for line in lines:
            table.add_row(*line)
        console.print(table)
        places = ", ".join(sorted({row["hardware"] for row in rows}))
        dates = sorted({row["date"][:10] for row in rows})
        pages.append(markdown(title, (f"{places}, one thread; {dates[0]} to {dates[-1]}. {SCRIPT}.",), columns, lines))
    if output and pages:
        output.with_suffix(".md").write_text("\n".join(pages), encoding="utf-8")


def _speeds(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    found = {row["process"]: row for row in rows if row["series"] == "speed"}
    lines: list[tuple[str, ...]] = []
    for process in SPEEDS:
        if row := found.get(process):
            peer = row["peer"]
            beside = ("-", "-") if peer is None else (f"{1e6 * peer:.2f}", f"{peer / row['seconds']:.1f}")
            sizes = (f"{row['operations']:,}", str(row["flows"]), str(row["helicities"]), f"{row['made']:.2f}")
            lines.append((process, f"{1e6 * row['seconds']:.2f}", *beside, *sizes))
    return lines


def _draws(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    found = {row["process"]: row for row in rows if row["series"] == "draws"}
    lines: list[tuple[str, ...]] = []
    for process in DRAWS:
        if row := found.get(process):
            line = [process, f"{1e6 * row['sums']:.2f}"]
            for way in ("helicity", "colour"):
                ratio, variance = row["sums"] / row[way], row[f"{way}_variance"]
                line += [f"{1e6 * row[way]:.2f}", f"{ratio:.1f}", f"{variance:.1f}"]
            lines.append((*line, str(row["kinds"]), f"{row['made']:.1f}"))
    return lines


def _sigmas(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    for row in rows:
        if row["series"] == "sigma":
            value, error = MADGRAPH[row["process"]]
            pull = (row["value"] - value) / (row["error"] ** 2 + error**2) ** 0.5
            ratio = f"{row['value'] / value:.4f}({1e4 * row['error'] / value:.0f})"
            ours = f"{row['value']:.2f} +- {row['error']:.2f}"
            theirs = f"{value} +- {error}"
            lines.append((row["process"], ours, theirs, ratio, f"{pull:.1f}", f"{row['calls']:,}", f"{row['cpu']:.0f}"))
    return lines


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description="Matrix elements and cross-sections of processes from strings.")
    parser.add_argument("--speeds", nargs="*", default=list(SPEEDS), choices=list(SPEEDS), metavar="PROCESS")
    parser.add_argument("--draws", nargs="*", default=list(DRAWS), choices=list(DRAWS), metavar="PROCESS")
    parser.add_argument("--points", type=int, default=8000, help="of draws")
    parser.add_argument("--sigmas", nargs="*", default=list(MADGRAPH), choices=list(MADGRAPH), metavar="PROCESS")
    parser.add_argument("--calls", type=int, default=400_000, help="of training and of integration")
    parser.add_argument("--sampler", default="vegas")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    add_output_options(parser)
    return parser.parse_args(arguments)


def jobs_of(options: argparse.Namespace) -> list[Row]:
    """The rows to measure.

    Raises
    ------
    ConfigError
        If a number is not positive.
    """
    if min(options.calls, options.repeats, options.threads, options.points) <= 0:
        raise ConfigError("every number must be positive")
    speeds = [{"series": "speed", "process": name, "repeats": options.repeats} for name in options.speeds]
    sizes = {"repeats": options.repeats, "points": options.points}
    drawn = [{"series": "draws", "process": name} | sizes for name in options.draws]
    common = {"calls": options.calls, "sampler": options.sampler, "seed": options.seed}
    return [*speeds, *drawn, *({"series": "sigma", "process": name} | common for name in options.sigmas)]


def label(job: Row) -> str:
    """What a row is called."""
    return f"{job['series']} of {job['process']}"


def brief(row: Row) -> str:
    """What is said of a row when it has been measured."""
    if row["series"] == "speed":
        return f"{1e6 * row['seconds']:.2f} us a point"
    if row["series"] == "draws":
        return f"{1e6 * row['colour']:.2f} us a point with drawn colours, {1e6 * row['sums']:.2f} with sums"
    return f"{row['value']:.6g} +- {row['error']:.2g} pb"


TABLE = Script(__file__, SCRIPT, KEY, jobs_of, label, brief, show)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurements; 0 if every row could be measured."""
    return run_script(parse(arguments), measure, TABLE.run, wide_console(_WIDTH))


if __name__ == "__main__":
    sys.exit(main())
