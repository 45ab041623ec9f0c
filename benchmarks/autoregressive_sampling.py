"""Sampling an autoregressive flow coordinate by coordinate: stored hidden units against whole passes of the network.

    pip install ".[bench]" && python benchmarks/autoregressive_sampling.py

The plain way runs the whole network once for each coordinate and keeps one row of its output. nisampler computes every
hidden unit once, when the coordinates that it sees are known. nflows is timed as it is. All of them sample flows of the
same size; the plain way uses the very weights of nisampler's, and gives the same points.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from flow_libraries import library
from measurements import Row, Script, add_output_options, markdown, run_script, wide_console
from rich.console import Console
from rich.table import Table
from roofline import interleaved, seconds_of
from torch import Tensor

from nisampler.errors import ConfigError, MissingExtraError
from nisampler.flows import AutoregressiveConfig, Flow, MaskedAutoregressiveTransform, NetConfig, Spline, maf
from nisampler.flows.coupling import split_parameters

SCRIPT = "benchmarks/autoregressive_sampling.py"
OURS, PLAIN, FAST, NFLOWS = "nisampler", "plain", "one pass", "nflows"
KEY = ("dim", "hidden", "layers", "bins", "blocks", "batch", "device", "threads")
COLUMNS = (
    "d",
    "network",
    "blocks",
    "batch",
    "device",
    "method",
    "ms/sample",
    "against nisampler",
    "largest difference",
)
AIM = 10.0
NOTE = (
    "Milliseconds of one sample with its density, medians of interleaved repeats in one process, single precision. "
    "plain: d passes of the whole network. one pass: the parallel direction, for comparison. largest difference: of "
    "points and log densities from the plain way, both in double precision, without unit."
)
_TRIAL = 8
_BOUND = 14.0
_WIDTH = 140


def plain_inverse(block: MaskedAutoregressiveTransform, y: Tensor) -> tuple[Tensor, Tensor]:
    """The sequential direction of a block by one whole pass of its network for each coordinate."""
    x, total = torch.zeros_like(y), y.new_zeros(len(y))
    for index in range(y.shape[1]):
        params = split_parameters(block.net(x), y.shape[1])[:, index : index + 1].to(y.dtype)
        value, log_slope = block.spline(y[:, index : index + 1], params, inverse=True)
        x[:, index : index + 1] = value
        total = total + log_slope[:, 0]
    return x, total


def plain_sample(flow: Flow, z: Tensor) -> tuple[Tensor, Tensor]:
    """Points (n, d) and log densities (n,) of latent points z (n, d), by plain passes."""
    x, log_q = z, flow.base.log_prob(z)
    chain: Any = flow.transform
    for transform in reversed(chain.transforms):
        sequential = isinstance(transform, MaskedAutoregressiveTransform)
        x, log_det = plain_inverse(transform, x) if sequential else transform.inverse(x)
        log_q = log_q - log_det
    return x, log_q


def make_flow(job: Row) -> Flow:
    """A flow with random weights; those that start at zero too, so that no spline is the identity."""
    net = NetConfig(hidden=job["hidden"], layers=job["layers"], activation="relu")
    spline = Spline(bins=job["bins"], domain="line", bound=_BOUND)
    flow = maf(job["dim"], AutoregressiveConfig(spline, net, job["blocks"], "alternate"))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in flow.parameters():
            if not bool(parameter.any()):
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator) / job["hidden"] ** 0.5)
    return flow.to(job["device"])


def nflows_sampler(job: Row) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The sequential direction of nflows, one MADE with as many layers for each block; the order is reversed between.

    Raises
    ------
    MissingExtraError
        If nflows is not installed.
    """
    transforms = library("nflows.transforms")
    torch.manual_seed(1)
    blocks = []
    for _ in range(job["blocks"]):
        blocks += [
            transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
                job["dim"],
                job["hidden"],
                num_bins=job["bins"],
                tails="linear",
                tail_bound=_BOUND,
                # its first layer is not counted
                num_blocks=job["layers"] - 1,
                use_residual_blocks=False,
            ),
            transforms.ReversePermutation(job["dim"]),
        ]
    whole: Any = transforms.CompositeTransform(blocks).to(job["device"])
    inverse: Callable[[Tensor], tuple[Tensor, Tensor]] = whole.inverse
    return inverse


def difference(job: Row, flow: Flow) -> float:
    """Largest difference between both ways in double precision; the flow is left in it."""
    flow = flow.double()
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(min(job["batch"], _TRIAL), job["dim"], generator=generator, dtype=torch.float64).to(job["device"])
    with torch.inference_mode():
        pairs = zip(flow.from_latent(z), plain_sample(flow, z), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def measure(job: dict[str, Any]) -> Row:
    """One row in this process."""
    flow = make_flow(job)
    z = torch.randn(job["batch"], job["dim"], generator=torch.Generator().manual_seed(2)).to(job["device"])
    actions: dict[str, Callable[[], object]] = {
        OURS: lambda: flow.from_latent(z),
        PLAIN: lambda: plain_sample(flow, z),
        FAST: lambda: flow.to_latent(z),
    }
    missing = False
    try:
        inverse = nflows_sampler(job)
        actions[NFLOWS] = lambda: inverse(z)
    except MissingExtraError:
        missing = True
    with torch.inference_mode():
        first = {name: seconds_of(action, job["device"], 0.0) for name, action in actions.items()}
        repeats = {name: min(int(job["repeats"]), int(job["budget"] / each)) for name, each in first.items()}
        times = interleaved(actions, repeats, job["device"])
    times = {name: found or [first[name]] for name, found in times.items()}
    gpu = torch.cuda.get_device_name() if job["device"] == "cuda" else None
    extra = {"times": times, "missing": missing, "gpu": gpu, "torch": torch.__version__}
    return job | extra | {"difference": difference(job, flow)}


def middle(values: Sequence[float]) -> float:
    """The median."""
    return float(torch.tensor(values, dtype=torch.float64).median())


def against(row: Row, method: str) -> float:
    """How many times longer a method takes: the median over the repeats that both have."""
    return middle([b / a for a, b in zip(row["times"][OURS], row["times"][method], strict=False)])


def lines_of(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """A line for each size and method."""
    lines: list[tuple[str, ...]] = []
    for row in sorted(rows, key=lambda row: (row["device"], row["dim"], row["blocks"], row["batch"])):
        network = f"{row['layers']}x{row['hidden']}, {row['bins']} bins"
        place = row["gpu"] or f"cpu, {row['threads']} thread(s)"
        head = (str(row["dim"]), network, str(row["blocks"]), f"{row['batch']:,}", place)
        for method, times in row["times"].items():
            told = f"{row['difference']:.1e}" if method == OURS else ""
            each = 1e3 * middle(times) / row["batch"]
            lines.append((*head, method, f"{each:.3g}", f"{against(row, method):.3g}", told))
        if row["missing"]:
            lines.append((*head, NFLOWS, "n/a", "n/a", ""))
    return lines


def acceptance(rows: Sequence[Row]) -> str:
    """The ratio that is promised, at d = 368."""
    said = [
        f"batch {row['batch']:,} {against(row, PLAIN):.1f} times ({'met' if against(row, PLAIN) >= AIM else 'not met'})"
        for row in sorted(rows, key=lambda row: int(row["batch"]))
        if row["dim"] == 368
    ]
    return f"Aim, {AIM:g} times faster than plain passes in d = 368: {'; '.join(said)}." if said else ""


def show(console: Console, rows: Sequence[Row], output: Path | None) -> None:
    """Print the table, and write it beside the rows."""
    lines = lines_of(rows)
    if not lines:
        return
    title = "Sampling of autoregressive flows"
    table = Table(title=title, caption=NOTE)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("network", "device", "method") else "right", no_wrap=True)
    for line in lines:
        table.add_row(*line, style="bold" if line[5] == OURS else None)
    console.print(table)
    dates = sorted({row["date"][:10] for row in rows})
    places, versions = (", ".join(sorted({row[name] for row in rows})) for name in ("hardware", "torch"))
    text = f"{places}; torch {versions}; {' to '.join(dict.fromkeys((dates[0], dates[-1])))}."
    texts = [text, *filter(None, [acceptance(rows)]), NOTE]
    for part in texts[:-1]:
        console.print(part, markup=False, highlight=False)
    if output:
        output.with_suffix(".md").write_text(markdown(title, texts, COLUMNS, lines), encoding="utf-8")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description="Sequential sampling of autoregressive flows.")
    parser.add_argument("--dim", nargs="+", type=int, default=[368], help="CaloFlow for photons: 368")
    parser.add_argument("--hidden", type=int, default=378)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--bins", type=int, default=8)
    parser.add_argument("--blocks", type=int, default=1, help="every block takes the same time; CaloFlow has 8")
    parser.add_argument("--batch", nargs="+", type=int, default=[10, 100, 1000])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--budget", type=float, default=60.0, help="seconds for the repeats of a method; what takes longer is run once"
    )
    add_output_options(parser)
    return parser.parse_args(arguments)


def jobs_of(options: argparse.Namespace) -> list[Row]:
    """The rows to measure.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """
    names = ("hidden", "layers", "bins", "blocks", "device", "repeats", "budget", "threads")
    common = {name: getattr(options, name) for name in names}
    if min(*options.dim, *options.batch, *(value for value in common.values() if not isinstance(value, str))) <= 0:
        raise ConfigError("every number must be positive")
    return [{"dim": dim, "batch": batch} | common for dim in options.dim for batch in options.batch]


def label(job: Row) -> str:
    """What a row is called."""
    return f"d = {job['dim']}, batch {job['batch']}, {job['device']}"


def brief(row: Row) -> str:
    """What is said of a row when it has been measured."""
    return f"plain passes {against(row, PLAIN):.1f} times slower, difference {row['difference']:.1e}"


TABLE = Script(__file__, SCRIPT, KEY, jobs_of, label, brief, show)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; 0 if every row could be measured."""
    return run_script(parse(arguments), measure, TABLE.run, wide_console(_WIDTH))


if __name__ == "__main__":
    sys.exit(main())
