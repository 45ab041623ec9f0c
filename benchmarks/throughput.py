"""Samples per CPU-second of coupling flows and of their splines: nisampler, madnis, nflows, zuko and normflows.

    pip install ".[bench]" && python benchmarks/throughput.py --output benchmarks/results/throughput.json

All libraries run in one process for each row, in turns, with the same masks, hidden sizes and bins, together with the
matrix products of the networks alone (the roofline). Rows are kept in a JSON file and can be measured in any order.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from flow_libraries import LIBRARIES, OURS, Contestant, FlowShape, build, spline_calls, spline_inputs
from measurements import Row, Script, add_output_options, markdown, run_script, wide_console
from rich.console import Console
from rich.table import Table
from roofline import Products, bandwidth, interleaved, peak_rate, seconds_of
from torch import Tensor

from nisampler.errors import ConfigError, MissingExtraError

SCRIPT = "benchmarks/throughput.py"
KEY = ("part", "dim", "hidden", "layers", "bins", "blocks", "batch", "device", "threads")
QUANTITIES = ("sample", "log_prob", "backward")
SPLINE_QUANTITIES = ("forward", "inverse", "backward")
FLOW_COLUMNS = ("d", "hidden", "batch", "quantity", *LIBRARIES, "/madnis", "/nflows", "products", "of bound", "of peak")
SPLINE_COLUMNS = ("elements", "quantity", "library", "ns", "against ours", "of bandwidth")
NOTE = (
    "Thousand samples per {clock}, medians of interleaved repeats. sample: points with their densities, without "
    "gradients; in the second column of nisampler with matrix products in bfloat16, all else as in the first. "
    "backward: log_prob and the gradients of all weights. /madnis, /nflows: median of the ratios within a repeat. "
    "products: the rate at which the matrix products of the conditioners alone run, in the best layout and "
    "tile found. of bound: nisampler's rate over that. of peak: floating-point operations of those products per second "
    "of nisampler, over the rate of a large matrix product. -: a call would have taken longer than the budget, or more "
    "memory than allowed. n/a: the library is not installed."
)
SPLINE_NOTE = (
    "Nanoseconds for each coordinate, same points and raw parameters. inverse: with its log slope, like forward. "
    "backward: forward and the gradients of points and parameters. of bandwidth: bytes that must be moved at least "
    "once over the time, as a fraction of the rate of a large copy."
)
# Aims: least ratios to madnis and nflows, and the least share of the rate of the matrix products alone.
TARGETS = {"sample": 5.0, "log_prob": 5.0, "backward": 4.0}
BOUND_TARGET = 0.6
_TRIAL, _ENOUGH = 500, 16_384
_MEMORY_TRIAL = 128
_WIDTH = 150


def saved_bytes(action: Callable[[], Tensor]) -> int:
    """Bytes that autograd keeps for the backward pass of what the action returns."""
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        action()
    return sum(storages.values())


def _backward(flow: Contestant, x: Tensor) -> None:
    flow.module.zero_grad(set_to_none=True)
    flow.log_prob(x).mean().backward()  # type: ignore[no-untyped-call]


def _frozen(action: Callable[[], object]) -> None:
    with torch.inference_mode():
        action()


def flow_actions(flow: Contestant, x: Tensor) -> dict[str, Callable[[], object]]:
    """What is timed of a flow."""
    return {
        "sample": partial(_frozen, lambda: flow.sample(len(x))),
        "log_prob": partial(_frozen, lambda: flow.log_prob(x)),
        "backward": partial(_backward, flow, x),
    }


def points_of(flow: Contestant, dim: int, batch: int, device: str) -> Tensor:
    """Uniform points of its domain, not quite up to the edges."""
    generator = torch.Generator().manual_seed(2)
    inner = 1e-3 + 0.998 * torch.rand(batch, dim, generator=generator)
    return (flow.low + (flow.high - flow.low) * inner).to(device)


def affordable(trial: Callable[[], object], growth: float, job: Row) -> int:
    """How often an action can be repeated within the budget, judged by a trial that is `growth` times smaller."""
    trial()
    each = growth * seconds_of(trial, job["device"])
    # it also runs once to warm up
    return max(0, min(int(job["repeats"]), int(job["budget"] / each) - 1))


def measure_flows(job: Row) -> Row:
    """Times of all libraries, and of the matrix products alone."""
    shape = FlowShape(*(job[name] for name in ("dim", "hidden", "layers", "bins", "blocks")))
    device, batch = job["device"], job["batch"]
    actions: dict[str, dict[str, Callable[[], object]]] = {quantity: {} for quantity in QUANTITIES}
    repeats: dict[str, dict[str, int]] = {quantity: {} for quantity in QUANTITIES}
    missing = []
    for name in job["libraries"]:
        try:
            flow = build(name, shape, device)
        except MissingExtraError:
            missing.append(name)
            continue
        x = points_of(flow, shape.dim, batch, device)
        few = flow_actions(flow, x[:_TRIAL])
        growth = batch / min(batch, _TRIAL)
        memory = saved_bytes(partial(flow.log_prob, x[:_MEMORY_TRIAL])) * batch / min(batch, _MEMORY_TRIAL)
        for quantity, action in flow_actions(flow, x).items():
            count = affordable(few[quantity], growth, job)
            if count and (quantity != "backward" or memory < 1e9 * job["memory"]):
                actions[quantity][name], repeats[quantity][name] = action, count
    # larger batches only repeat the same tiles
    some = min(batch, _ENOUGH) if device == "cpu" else batch
    products = Products(shape.products(), some, device)
    times = {}
    for quantity in QUANTITIES:
        actions[quantity]["products"] = products.gradient if quantity == "backward" else products.value
        repeats[quantity]["products"] = job["repeats"]
        for action in actions[quantity].values():
            action()
        times[quantity] = interleaved(actions[quantity], repeats[quantity], device)
        times[quantity]["products"] = [batch / some * seconds for seconds in times[quantity]["products"]]
    return {"times": times, "missing": missing, "operations": batch / some * products.operations}


def measure_splines(job: Row) -> Row:
    """Times of the splines of all libraries on `batch` points of `dim` coordinates."""
    device, bins = job["device"], job["bins"]
    actions: dict[str, dict[str, Callable[[], object]]] = {quantity: {} for quantity in SPLINE_QUANTITIES}
    missing = []
    for library in job["libraries"]:
        try:
            calls = spline_calls(library, bins)
        except MissingExtraError:
            missing.append(library)
            continue
        x, raw = spline_inputs(library, job["batch"], job["dim"], bins, device)
        for name, call in calls.items():
            actions["forward"][name] = partial(_frozen, partial(call, x, raw, False))
            actions["inverse"][name] = partial(_frozen, partial(call, x, raw, True))
            actions["backward"][name] = partial(_spline_gradient, call, x, raw)
    times = {}
    for quantity in SPLINE_QUANTITIES:
        repeats = {name: affordable(action, 1.0, job) for name, action in actions[quantity].items()}
        kept = {name: action for name, action in actions[quantity].items() if repeats[name]}
        times[quantity] = interleaved(kept, repeats, device)
    count = 3 * bins + 1
    # forward: parameters and points in, values and log slopes out; backward: those, their gradients, and both again
    moved = {"forward": count + 3, "inverse": count + 3, "backward": 3 * count + 8}
    return {"times": times, "missing": missing, "bytes": {name: 4 * number for name, number in moved.items()}}


def _spline_gradient(call: Callable[..., tuple[Tensor, Tensor]], x: Tensor, raw: Tensor) -> None:
    point, parameters = x.detach().requires_grad_(), raw.detach().requires_grad_()
    y, log_slope = call(point, parameters, False)
    torch.autograd.grad([y, log_slope], [point, parameters], [torch.ones_like(y), torch.ones_like(y)])


def measure(job: dict[str, Any]) -> Row:
    """One row in this process."""
    found = measure_flows(job) if job["part"] == "flow" else measure_splines(job)
    gpu = torch.cuda.get_device_name() if job["device"] == "cuda" else None
    rates = {"peak": peak_rate(job["device"], job["product"]), "bandwidth": bandwidth(job["device"], job["copy"])}
    return job | found | rates | {"gpu": gpu, "torch": torch.__version__}


def rate(row: Row, quantity: str, name: str) -> float | None:
    """Thousand samples per second, if it was measured."""
    times = row["times"][quantity].get(name)
    return 1e-3 * row["batch"] / statistics.median(times) if times else None


def ratio(row: Row, quantity: str, other: str, ours: str = OURS) -> float | None:
    """How many times faster ours is: the median over the repeats that both have."""
    mine, theirs = (row["times"][quantity].get(name, []) for name in (ours, other))
    pairs = [b / a for a, b in zip(mine, theirs, strict=False)]
    return statistics.median(pairs) if pairs else None


def figure(value: float | None, row: Row | None = None, name: str = "") -> str:
    """Three digits; what is missing says why."""
    if value is None:
        return "n/a" if row is not None and name in row["missing"] else "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def flow_lines(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """A line for each size, batch and quantity."""
    lines: list[tuple[str, ...]] = []
    for row in rows:
        for quantity in QUANTITIES:
            mine, work = rate(row, quantity, OURS), row["operations"] * (3 if quantity == "backward" else 1)
            used = None if mine is None else 1e3 * mine / row["batch"] * work / row["peak"]
            lines.append(
                (
                    str(row["dim"]),
                    f"{row['layers']}x{row['hidden']}",
                    f"{row['batch']:,}",
                    quantity,
                    *(figure(rate(row, quantity, name), row, name) for name in LIBRARIES),
                    *(figure(ratio(row, quantity, name), row, name) for name in ("madnis", "nflows")),
                    figure(rate(row, quantity, "products")),
                    *(f"{value:.0%}" if value else "-" for value in (ratio(row, quantity, "products"), used)),
                )
            )
    return lines


def spline_lines(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """A line for each number of elements, quantity and library."""
    lines: list[tuple[str, ...]] = []
    for row in rows:
        elements = row["batch"] * row["dim"]
        for quantity in SPLINE_QUANTITIES:
            for name, times in row["times"][quantity].items():
                each = statistics.median(times) / elements
                used = row["bytes"][quantity] / each / row["bandwidth"]
                against = ratio(row, quantity, name)
                lines.append((f"{elements:,}", quantity, name, figure(1e9 * each), figure(against), f"{used:.0%}"))
            lines += [(f"{elements:,}", quantity, name, "n/a", "n/a", "n/a") for name in row["missing"]]
    return lines


def acceptance(rows: Sequence[Row]) -> str:
    """How the rows that are promised stand: 3x64 and 10 bins in 8 and 16 dimensions, batches of 10,000, one thread."""
    promised = [
        row
        for row in rows
        if row["part"] == "flow"
        and (row["layers"], row["bins"], row["batch"], row["threads"], row["device"]) == (3, 10, 10_000, 1, "cpu")
        and row["dim"] in (8, 16)
        and row["blocks"] is None
    ]
    said = []
    for row in promised:
        head = f"d = {row['dim']}, 3x{row['hidden']}"
        if row["hidden"] == 64:
            for quantity, aim in TARGETS.items():
                found = [value for name in ("madnis", "nflows") if (value := ratio(row, quantity, name)) is not None]
                least = min(found, default=0.0)
                said.append(f"{head}: {quantity} {least:.2f} of {aim:g} ({'met' if least >= aim else 'not met'})")
        if row["hidden"] == 256:
            least = min(ratio(row, quantity, "products") or 0.0 for quantity in ("sample", "log_prob"))
            met = "met" if least >= BOUND_TARGET else "not met"
            said.append(f"{head}: {least:.0%} of the products of {BOUND_TARGET:.0%} ({met})")
    return "Aims: " + "; ".join(said) + "." if said else ""


def conditions(rows: Sequence[Row]) -> str:
    """Where and when the rows were measured, and the rates of that machine."""
    places = sorted({f"{row['gpu'] or 'CPU'} on {row['hardware']}, {row['threads']} thread(s)" for row in rows})
    dates = sorted({row["date"][:10] for row in rows})
    peak, copies = (statistics.median(row[name] for row in rows) for name in ("peak", "bandwidth"))
    return (
        f"{'; '.join(places)}; torch {'/'.join(sorted({row['torch'] for row in rows}))}; "
        f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}. Large matrix product: {1e-9 * peak:.0f} GFLOP/s; "
        f"large copy: {1e-9 * copies:.0f} GB/s."
    )


def show(console: Console, rows: Sequence[Row], output: Path | None) -> None:
    """Print the tables of each device, and write them beside the rows."""
    pages = []
    for device in sorted({row["device"] for row in rows}):
        mine = sorted((row for row in rows if row["device"] == device), key=lambda row: [str(row[n]) for n in KEY])
        mine.sort(key=lambda row: (row["dim"], row["hidden"], row["batch"]))
        clock = "CPU-second" if device == "cpu" else "second"
        flows, splines = ([row for row in mine if row["part"] == part] for part in ("flow", "spline"))
        parts = [
            ("Throughput of coupling flows", FLOW_COLUMNS, flow_lines(flows), NOTE.format(clock=clock), flows),
            ("Rational-quadratic splines", SPLINE_COLUMNS, spline_lines(splines), SPLINE_NOTE, splines),
        ]
        for title, columns, lines, note, part in parts:
            if not lines:
                continue
            title = f"{title}, {device}"
            texts = [conditions(part), note, *filter(None, [acceptance(part)])]
            table = Table(title=title, caption=note)
            for name in columns:
                table.add_column(name, justify="left" if name in ("quantity", "library") else "right", no_wrap=True)
            for line in lines:
                table.add_row(*line)
            console.print(table)
            for text in (texts[0], *texts[2:]):
                console.print(text, markup=False, highlight=False)
            pages.append(markdown(title, texts, columns, lines))
    if output and pages:
        output.with_suffix(".md").write_text("\n".join(pages), encoding="utf-8")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description="Throughput of coupling flows and splines.")
    parser.add_argument("--part", nargs="+", default=["flow", "spline"], choices=("flow", "spline"))
    parser.add_argument("--dim", nargs="+", type=int, default=[4, 8, 16, 32])
    parser.add_argument("--hidden", nargs="+", type=int, default=[64, 256])
    parser.add_argument("--layers", type=int, default=3, help="hidden layers")
    parser.add_argument("--bins", type=int, default=10)
    parser.add_argument("--blocks", type=int, help="coupling blocks; 2 ceil(log2 d) by default")
    parser.add_argument("--batch", nargs="+", type=int, default=[1000, 10_000, 100_000])
    parser.add_argument("--libraries", nargs="+", default=list(LIBRARIES), choices=LIBRARIES)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--repeats", type=int, default=7, help="interleaved repeats")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of one library and quantity")
    parser.add_argument("--memory", type=float, default=8.0, help="most GB that a backward pass may keep")
    parser.add_argument("--product", type=int, help="rows of the large matrix product; 2048, on a GPU 8192")
    parser.add_argument("--copy", type=int, help="bytes of the large copy; 2^28, on a GPU 2^31")
    add_output_options(parser)
    return parser.parse_args(arguments)


def jobs_of(options: argparse.Namespace) -> list[Row]:
    """The rows to measure: splines see one size of network, those of half of the largest number of coordinates.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """
    numbers = [*options.dim, *options.hidden, *options.batch, options.layers, options.repeats, options.threads]
    if min(numbers) < 1 or min(options.dim) < 2 or options.bins < 3 or options.budget <= 0:
        raise ConfigError("--dim must be at least 2, --bins 3, and every other number positive")
    cuda = options.device == "cuda"
    if cuda and not torch.cuda.is_available():
        raise ConfigError("no GPU is visible here; use --device cpu")
    common = {name: getattr(options, name) for name in ("layers", "bins", "blocks", "device", "threads", "libraries")}
    common |= {name: getattr(options, name) for name in ("repeats", "budget", "memory")}
    common |= {
        "product": options.product or (8192 if cuda else 2048),
        "copy": options.copy or 2 ** (31 if cuda else 28),
    }
    sizes = [(dim, hidden) for dim in options.dim for hidden in options.hidden] if "flow" in options.part else []
    jobs = [
        {"part": "flow", "dim": dim, "hidden": hidden, "batch": batch}
        for dim, hidden in sizes
        for batch in options.batch
    ]
    if "spline" in options.part:
        dim = max(options.dim) // 2
        jobs += [{"part": "spline", "dim": dim, "hidden": 0, "batch": batch} for batch in options.batch]
    return [job | common for job in jobs]


def label(job: Row) -> str:
    """What a row is called."""
    size = f", {job['layers']}x{job['hidden']}" if job["part"] == "flow" else ""
    return f"{job['part']}, d = {job['dim']}{size}, batch {job['batch']}, {job['device']}"


def brief(row: Row) -> str:
    """What is said of a row when it has been measured."""
    best = [f"{quantity} {figure(rate(row, quantity, OURS))} k/s" for quantity in row["times"]]
    return ", ".join(best)


TABLE = Script(__file__, SCRIPT, KEY, jobs_of, label, brief, show)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; 0 if every row could be measured."""
    return run_script(parse(arguments), measure, TABLE.run, wide_console(_WIDTH))


if __name__ == "__main__":
    sys.exit(main())
