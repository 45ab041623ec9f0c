"""What flows and learned channel weights are worth: pp -> photon, Z, Z' -> e+ e- through three channels.

    pip install ".[shower]" && python benchmarks/multichannel.py --output benchmarks/results/multichannel.json

Four variants with the same calls: VEGAS grids with prior weights, flows with prior weights, flows with learned weights
that start flat, and flows with learned weights that start at the prior. The figure shows the weights of the last one
against the mass of the lepton pair.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from measurements import Row, Rows, key, markdown, measure_all, run_script
from rich.console import Console
from rich.table import Table
from torch import Tensor

from nisampler import ChannelSettings, Integrand, IntegrationConfig, TrainingConfig
from nisampler.base.notation import format_with_error
from nisampler.base.rng import Streams
from nisampler.base.weights import efficiencies_at
from nisampler.density.channels import ChannelWeights, Multichannel
from nisampler.density.maps import channel_of
from nisampler.errors import ConfigError
from nisampler.integration.integrator import Integrator
from nisampler.processes.hadron.process import HadronProcess
from nisampler.processes.phase_space.kinematics import mass2
from nisampler.processes.registry import create
from nisampler.samplers.base import Sampler
from nisampler.samplers.multichannel import MultichannelSampler
from nisampler.training.trainer import Trainer
from nisampler.ui.plots import BLUE, GREEN, GREY, INK, ORANGE, PLAIN

SCRIPT = "benchmarks/multichannel.py"
PROCESS = "z_prime"
LEPTONS = (0, 1)
KEY = ("variant", "seed", "calls", "points")
LEVELS = (0.0, 1e-3, 1e-2)
# Channels with less than this share of the integral do not count.
NEGLIGIBLE = 0.01
MASSES, PER_CHANNEL = (50.0, 1000.0), 100_000
BINS = 120
EDGES = np.geomspace(*MASSES, BINS + 1)
NOTE = (
    "strict, 0.1 %, 1 %: unweighting efficiency with that fraction of the integral in weights above the maximum. "
    "channels: share of the integral and efficiency at 0.1 % of each. alpha: largest deviation of the sum of the "
    "channel weights from one, and mean difference between learned and prior weights, at points of all channels."
)
COLUMNS = ("variant", "pb", "strict", "0.1 %", "1 %", "channels: share, 0.1 %", "sum of alpha - 1", "change of alpha")


@dataclass(frozen=True)
class Variant:
    """What may learn: the density of each channel, and the weights, starting at the prior or flat."""

    sampler: str
    learned_weights: bool
    prior: bool = True


VARIANTS = {
    "no flow": Variant("vegas", False),
    "prior only": Variant("flow", False),
    "learned only": Variant("flow", True, prior=False),
    "both": Variant("flow", True),
}
# Colours of the channels in the figure.
COLOURS = (BLUE, GREEN, ORANGE)


class FlatPrior:
    """The process with equal prior weights for all channels."""

    unit = "pb"

    def __init__(self, process: HadronProcess) -> None:
        setup, self.name = process.setup, process.name
        self.multichannel = Multichannel(
            process.differential,
            setup.channels,
            features=process.features,
            groups=setup.groups,
            prior=lambda x: x.new_zeros(len(x), len(setup.channels)),
            support=process.passes,
        )
        self.dim = self.multichannel.dim

    def __call__(self, u: Tensor) -> Tensor:
        """Values (n,) in pb at the cube points u (n, dim)."""
        return self.multichannel(u)


def weights_of(sampler: Sampler) -> ChannelWeights | None:
    """The learned channel weights, if the sampler or a part of a chain has any."""
    parts = getattr(sampler, "samplers", (sampler,))
    found = [part.model.weights for part in parts if isinstance(part, MultichannelSampler)]
    return found[0] if found else None


def channel_figures(names: Sequence[str], channel: Tensor, weights: Tensor) -> list[Row]:
    """Share of the integral and efficiencies of each channel, from points drawn by a sampler with these weights."""
    rows: list[Row] = []
    for index, name in enumerate(names):
        own = weights[channel == index]
        share = float(own.sum() / weights.sum())
        found: Row = {"name": name, "share": share, "points": len(own)}
        if share > 0.0:
            efficiencies = [efficiency for _, efficiency in efficiencies_at(own, LEVELS)]
            found |= dict(zip(("strict", "at_0p1", "at_1"), efficiencies, strict=True))
        rows.append(found)
    return rows


def alpha_figures(function: Multichannel, weights: ChannelWeights | None, streams: Streams) -> Row:
    """Prior and learned weights at points of all channels: how exact their sum is, and how they run with the mass."""
    count = len(function.channels)
    generator = streams.generator("alpha")
    u = torch.rand(count * PER_CHANNEL, function.dim, generator=generator, dtype=torch.float64)
    u[:, 0] = torch.arange(count).repeat_interleave(PER_CHANNEL).add(0.5) / count
    found = function.evaluate(u)
    log_prior = found.log_prior[found.value != 0.0]
    x = function.points(u)[1][found.value != 0.0]
    with torch.no_grad():
        log_alpha = log_prior if weights is None else weights(found.features[found.value != 0.0], log_prior)
    prior, alpha = log_prior.exp(), log_alpha.exp()
    mass = mass2(x[:, list(LEPTONS)].sum(1)).sqrt()
    edges = torch.from_numpy(EDGES)
    place = (torch.searchsorted(edges, mass, right=True) - 1).clamp(0, BINS - 1)
    filled = torch.bincount(place, minlength=BINS).clamp(min=1).unsqueeze(1)

    def mean(values: Tensor) -> list[str]:
        """For each channel its mean weight in the bins of mass, as one line of text."""
        summed = torch.zeros(BINS, count, dtype=torch.float64).index_add_(0, place, values)
        return [" ".join(f"{value:.4f}" for value in column) for column in (summed / filled).T.tolist()]

    return {
        "alpha_error": float((alpha.sum(1) - 1.0).abs().max()),
        "alpha_change": float((alpha - prior).abs().mean()),
        "prior": mean(prior),
        "alpha": mean(alpha),
    }


def measure(job: dict[str, Any]) -> Row:
    """Train a variant, integrate, and look at its channels and weights."""
    variant = VARIANTS[job["variant"]]
    process = create(PROCESS)
    if not isinstance(process, HadronProcess):
        raise ConfigError(f"{PROCESS} is no hadron process")
    function = process if variant.prior else FlatPrior(process)
    integrand, streams = Integrand(function), Streams(job["seed"])
    config = TrainingConfig(
        calls=job["calls"],
        sampler=variant.sampler,
        events=0,
        channels=ChannelSettings(learned_weights=variant.learned_weights),
    )
    trained = Trainer(integrand, config, streams).fit()
    training_calls = integrand.calls
    result = Integrator(integrand, trained.sampler, IntegrationConfig(points=job["points"]), streams).run()
    generator = streams.generator("channels")
    points, log_q = trained.sampler.sample(job["points"], generator)
    weights = trained.sampler.view(integrand)(points) * torch.exp(-log_q)
    channel = channel_of(points[:, 0], len(function.multichannel.channels))
    strict, at_0p1, at_1 = (efficiency for _, efficiency in efficiencies_at(weights, LEVELS))
    found: Row = {
        "sampler": trained.sampler.describe(),
        "warnings": trained.warnings,
        "training_calls": training_calls,
        "value": result.estimate.value,
        "error": result.estimate.error,
        "strict": strict,
        "at_0p1": at_0p1,
        "at_1": at_1,
        "channels": channel_figures(function.multichannel.names, channel, weights),
    }
    return job | found | alpha_figures(function.multichannel, weights_of(trained.sampler), streams)


def cells(row: Row) -> tuple[str, ...]:
    """A row as it is printed."""
    channels = ", ".join(
        f"{item['name']} {item['share']:.3f}" + (f" {item['at_0p1']:.3f}" if item["share"] > NEGLIGIBLE else "")
        for item in row["channels"]
    )
    figures = (f"{row[name]:.3f}" for name in ("strict", "at_0p1", "at_1"))
    value = format_with_error(row["value"], row["error"])
    return row["variant"], value, *figures, channels, f"{row['alpha_error']:.1e}", f"{row['alpha_change']:.3f}"


def draw(row: Row, names: Sequence[str], path: Path) -> None:
    """Prior (dashed) and learned (solid) weights of the channels against the mass of the lepton pair."""
    centres = np.sqrt(EDGES[1:] * EDGES[:-1])
    with mpl.rc_context(PLAIN):
        canvas = Figure(figsize=(8.0, 5.2))
        axis = canvas.subplots()
        canvas.subplots_adjust(left=0.12, right=0.97, bottom=0.13, top=0.84)
        dashed: dict[str, Any] = {"linestyle": (0, (4, 2)), "linewidth": 1.6}
        for prior, alpha, name, colour in zip(row["prior"], row["alpha"], names, COLOURS, strict=True):
            axis.plot(centres, [float(value) for value in prior.split()], color=colour, **dashed)
            axis.plot(centres, [float(value) for value in alpha.split()], color=colour, label=name)
        axis.plot([], [], color=INK, label="learned")
        axis.plot([], [], color=INK, label="prior", **dashed)
        axis.set(xscale="log", xlim=MASSES, ylim=(0.0, 1.02), xlabel=r"$m_{\ell\ell}$ [GeV]", ylabel="channel weight")
        ticks = [50, 91, 200, 400, 1000]
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.tick_params(axis="x", which="minor", color=GREY, labelbottom=False)
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5, handlelength=1.6, columnspacing=1.4)
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        canvas.savefig(path, metadata=metadata)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description="Flows and learned channel weights for a Z'.")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--calls", type=int, default=3_000_000, help="integrand calls of each training")
    parser.add_argument("--points", type=int, default=2**18, help="points of estimate and efficiencies")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="threads of each row")
    parser.add_argument("--output", type=Path, help="rows in JSON, added to those that are there; table beside it, .md")
    parser.add_argument("--refresh", action="store_true", help="measure rows again that are in the file")
    parser.add_argument("--figure", type=Path, help="draw the weights of the variant 'both' to this file")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure what is missing, then the table and the figure; the number of failed rows."""
    for name in ("calls", "points", "threads"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name} must be positive, got {getattr(options, name)}")
    kept, settings = Rows(options.output, KEY, SCRIPT), (options.seed, options.calls, options.points)
    jobs = [dict(zip(KEY, (name, *settings), strict=True)) for name in options.variants]
    failed = measure_all(
        __file__,
        kept.missing(jobs, options.refresh),
        options.threads,
        kept,
        console,
        lambda job: str(job["variant"]),
        lambda row: "  ".join(cells(row)),
    )
    by_key = {key(row, KEY): row for row in kept.rows}
    shown = [by_key[name, *settings] for name in VARIANTS if (name, *settings) in by_key]
    if shown:
        show(console, shown, options)
    return failed


def show(console: Console, rows: list[Row], options: argparse.Namespace) -> None:
    """Print the table, write it beside the rows, and draw the figure."""
    table = Table(title="Z' through three channels", caption=NOTE)
    for name in COLUMNS:
        table.add_column(name, no_wrap=name != COLUMNS[5])
    for row in rows:
        table.add_row(*cells(row))
    console.print(table)
    if options.output:
        text = (
            f"13 TeV, NNPDF31_lo_as_0118; at most {options.calls} calls of training, {options.points} fresh points; "
            f"seed {options.seed}; {rows[0]['hardware']}, {rows[0]['threads']} thread(s); {rows[-1]['date'][:10]}."
        )
        page = markdown("Z' through three channels", (text, NOTE), COLUMNS, [cells(row) for row in rows])
        options.output.with_suffix(".md").write_text(page, encoding="utf-8")
    last = {row["variant"]: row for row in rows}.get("both")
    if options.figure and last:
        draw(last, [item["name"] for item in last["channels"]], options.figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; 0 if every row could be measured."""
    return run_script(parse(arguments), measure, run, Console(width=170))


if __name__ == "__main__":
    sys.exit(main())
