"""Flows, phase space, parton densities and event files beside MadSpace, the engine of MadGraph7 (2602.06895).

    pip install -c constraints.txt -c benchmarks/constraints.txt ".[bench,fast,shower]"
    python benchmarks/beside_madspace.py --output benchmarks/results/madspace.json

Both work in one process on one thread, in turns, on the same points where they can. Rows are kept in a JSON file, with
the table beside it. MadSpace comes as compiled code that computes in double precision; ours is torch and numba.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import madspace_events
import torch
from event_files import events_of, info_of
from flow_libraries import FlowShape, build, library
from measurements import Row, Script, add_output_options, markdown, run_script, wide_console
from rich.console import Console
from rich.table import Table
from roofline import interleaved
from torch import Tensor

from nisampler import integrate
from nisampler.errors import ConfigError, MissingExtraError
from nisampler.events import InitInfo, ProcessInfo, write_events
from nisampler.processes.partons.pdf import load_pdf
from nisampler.processes.partons.sets import member_path
from nisampler.processes.phase_space import (
    Boson,
    BreitWigner,
    Cluster,
    JetRegion,
    MomentumFractions,
    PowerLaw,
    TopologyChannel,
    chili_channels,
)
from nisampler.processes.phase_space.densities import TopologyDensities
from nisampler.processes.phase_space.rambo import RamboOnDiet
from nisampler.processes.registry import create

SCRIPT = "benchmarks/beside_madspace.py"
KEY = ("part", "batch", "threads")
OURS, PEER = "nisampler", "madspace"
COLUMNS = ("part", "what", "at a time", "nisampler, μs", "MadSpace, μs", "MadSpace / nisampler")
NOTE = (
    "CPU-microseconds for each point or event: medians of repeats in which both take turns. The last column is the "
    "median of the ratios within a repeat; above one, nisampler is faster. Flows: d = 8, six blocks of 3x64, 10 bins; "
    "a training step is log_prob, gradients and Adam; ours in single precision, MadSpace has double precision alone. "
    "RAMBO: four massless particles. Chili and tree: one channel of W and two jets at 13 TeV; in Chili MadSpace draws "
    "the leptons like jets. Weights: of four trees that differ in their order; ours are their exact densities, those "
    "of MadSpace products of propagators. Densities: all flavours of a point. Event files: six particles, LHE without "
    "compression; the objects that MadSpace writes are made beforehand. Drell-Yan: events of unit weight at a fixed "
    "scale with a lepton pair above 50 GeV, adaptation included. Overweight events carry .1 % of the integral here, up "
    "to 1 % by default in MadSpace, whose matrix element is compiled for this. -: no such thing here. n/a: MadSpace is "
    "not installed, or for Drell-Yan there is no C compiler."
)
_WIDTH = 130
_SQRT_S, _PT_MIN, _ETA_MAX, _W = 13000.0, 20.0, 5.0, (80.379, 2.085)
_SET, _PIDS = "NNPDF31_lo_as_0118", [-5, -4, -3, -2, -1, 21, 1, 2, 3, 4, 5]
_SHAPE = FlowShape(8)
_STEP, _EVENTS = 512, 10

Actions = dict[str, dict[str, Callable[[], object]]]


def peer() -> Any:
    """The package of MadSpace, None where it is not installed."""
    try:
        return library(PEER)
    except MissingExtraError:
        return None


class Compiled:
    """A function of MadSpace on one thread of the CPU, from tensors to tensors."""

    def __init__(self, ms: Any, function: Any, context: Any = None) -> None:
        self._runtime = ms.FunctionRuntime(function, context or ms.Context(ms.cpu_device(), 1))

    def __call__(self, *arguments: Tensor) -> list[Tensor]:
        return [torch.from_dlpack(part) for part in self._runtime.call(list(arguments))]


def points(n: int, dim: int) -> Tensor:
    """Cube points (n, dim) in double precision."""
    return torch.rand(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def flow(batch: int) -> Actions:
    """Sampling, densities, gradients and training steps of a flow."""
    ours, x = build(OURS, _SHAPE), points(batch, _SHAPE.dim)
    found: Actions = {
        "sample": {OURS: _frozen(lambda: ours.sample(batch))},
        "log_prob": {OURS: _frozen(partial(ours.log_prob, x.float()))},
        "log_prob with gradients": {OURS: _step(ours.module, ours.log_prob, x.float())},
        f"training step of {_STEP}": {OURS: _step(ours.module, ours.log_prob, x[:_STEP].float(), 1e-3)},
    }
    ms = peer()
    if ms is None:
        return found
    context = ms.Context(ms.cpu_device(), 1)
    theirs = ms.Flow(_SHAPE.dim, 0, "flow", _SHAPE.bins, _SHAPE.hidden, _SHAPE.layers + 1)
    theirs.initialize_globals(context, 1)
    forward, inverse = (Compiled(ms, f(), context) for f in (theirs.forward_function, theirs.inverse_function))
    module = library("madspace.torch").FunctionModule(theirs.inverse_function(), context)

    def log_prob(x: Tensor) -> Tensor:
        return torch.log(module(x)[1])

    found["sample"][PEER] = lambda: forward(torch.rand(batch, _SHAPE.dim, dtype=torch.float64))
    found["log_prob"][PEER] = lambda: inverse(x)
    found["log_prob with gradients"][PEER] = _step(module, log_prob, x)
    found[f"training step of {_STEP}"][PEER] = _step(module, log_prob, x[:_STEP].contiguous(), 1e-3)
    return found


def _frozen(action: Callable[[], object]) -> Callable[[], object]:
    def frozen() -> None:
        with torch.inference_mode():
            action()

    return frozen


def _step(
    module: torch.nn.Module, log_prob: Callable[[Tensor], Tensor], x: Tensor, rate: float | None = None
) -> Callable[[], object]:
    """A likelihood with its gradients, and a step of Adam where there is a rate."""
    optimizer = None if rate is None else torch.optim.Adam(module.parameters(), lr=rate)

    def step() -> None:
        module.zero_grad(set_to_none=True)
        loss = -log_prob(x).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        if optimizer is not None:
            optimizer.step()

    return step


def phase_space(batch: int) -> Actions:
    """Maps to momenta and back, and weights of channels."""
    rambo, region = RamboOnDiet([0.0] * 4), JetRegion(_PT_MIN, _ETA_MAX)
    chili = chili_channels(Boson(BreitWigner(*_W), 10.0), 2, region=region, sqrt_s=_SQRT_S)[0][0]
    trees = [_tree(order) for order in ((2, None, 3), (3, None, 2), (None, 2, 3), (2, 3, None))]
    maps = {"Chili": chili, "tree": trees[0]}
    u = points(batch, rambo.dim)
    found: Actions = {"RAMBO": {OURS: lambda: rambo.forward(u, 500.0)}}
    momenta = rambo.forward(u, 500.0)[0]
    found["RAMBO, inverse"] = {OURS: lambda: rambo.inverse(momenta)}
    for name, channel in maps.items():
        cube = points(batch, channel.dim)
        found[name] = {OURS: partial(channel.forward, cube)}
        found[f"{name}, inverse"] = {OURS: partial(channel.inverse, channel.forward(cube)[0])}
    x, densities = trees[0].forward(points(batch, trees[0].dim))[0], TopologyDensities(trees)
    found["weights of 4 trees"] = {OURS: lambda: torch.softmax(densities(x), 1)}
    ms = peer()
    if ms is not None:
        for name, action in _phase_space_of(ms, batch).items():
            found[name][PEER] = action
    return found


def _tree(order: Sequence[int | None]) -> TopologyChannel:
    """Jets and a boson (None), from beam 1 to beam 2."""
    boson = Cluster(0, 1, BreitWigner(*_W), 10.0)
    first, second, third = (boson if leg is None else leg for leg in order)
    transfer, invariant = PowerLaw(1.0, offset=_PT_MIN**2), PowerLaw(1.0, offset=0.1 * _PT_MIN**2)
    root = Cluster(first, Cluster(second, third, invariant, exchange=transfer), exchange=transfer)
    return TopologyChannel(root, (0.0,) * 4, MomentumFractions(_SQRT_S, 10.0 + 2 * _PT_MIN, PowerLaw(1.5)))


def _phase_space_of(ms: Any, batch: int) -> dict[str, Callable[[], object]]:
    """The same of MadSpace."""
    codes, jets = [1, -2, -11, 12, 21, 21], [[21]]
    cuts = ms.Cuts(
        [
            ms.CutItem(ms.Observable(codes, ms.Observable.obs_pt, jets), _PT_MIN),
            ms.CutItem(ms.Observable(codes, ms.Observable.obs_eta, jets), -_ETA_MAX, _ETA_MAX),
        ]
    )
    topologies = [_topology(ms, order) for order in ((2, None, 3), (3, None, 2), (None, 2, 3), (2, 3, None))]
    kind = ms.PhaseSpaceMapping
    maps = {
        "RAMBO": kind([0.0] * 6, 500.0, True, 0.8, kind.rambo),
        "Chili": kind([0.0] * 6, _SQRT_S, False, 0.8, kind.chili, cuts),
        "tree": kind(topologies[0], _SQRT_S),
    }
    found: dict[str, Callable[[], object]] = {}
    made: list[Tensor] = []
    for name, mapping in maps.items():
        forward, inverse = (Compiled(ms, f()) for f in (mapping.forward_function, mapping.inverse_function))
        cube = points(batch, mapping.random_dim())
        made = forward(cube)[:-1]
        found[name] = partial(forward, cube)
        found[f"{name}, inverse"] = partial(inverse, *made)
    numbers = [[place] for place in range(len(topologies))]
    weights = ms.PropagatorChannelWeights(topologies, [[list(range(6))]] * len(topologies), numbers)
    found["weights of 4 trees"] = partial(Compiled(ms, weights.function()), made[0])
    return found


def _topology(ms: Any, order: Sequence[int | None]) -> Any:
    """A chain of exchanges that emits jets and a boson (None) in this order."""
    lines = ["p1" if leg is None else f"o{leg}" for leg in order]
    chain = [["i0", lines[0], "p0"], ["p0", lines[1], "p2"], ["p2", lines[2], "i1"], ["p1", "o0", "o1"]]
    propagators = [ms.Propagator(), ms.Propagator(*_W), ms.Propagator()]
    vertices = [[ms.LineRef(line) for line in vertex] for vertex in chain]
    return ms.Topology(ms.Diagram([0.0] * 2, [0.0] * 4, propagators, vertices))


def densities(batch: int) -> Actions:
    """Parton densities and the coupling."""
    pdf = load_pdf(_SET)
    u = points(batch, 2)
    x, scale = torch.exp(-9 * u[:, 0]), torch.exp(2.0 + 4 * u[:, 1])
    q2 = scale.square()
    found: Actions = {
        "densities": {OURS: lambda: pdf.xf(x, q2)},
        "densities at one scale": {OURS: lambda: pdf.xf(x, 91.2**2)},
        "coupling": {OURS: lambda: pdf.alpha_s(q2)},
    }
    ms = peer()
    if ms is not None:
        grid, context = ms.PdfGrid(str(member_path(_SET))), ms.Context(ms.cpu_device(), 1)
        grid.initialize_globals(context)
        function = Compiled(ms, ms.PartonDensity(grid, _PIDS).function(), context)
        one = torch.full_like(scale, 91.2)
        found["densities"][PEER] = lambda: function(x, scale)
        found["densities at one scale"][PEER] = lambda: function(x, one)
    return found


def event_files(batch: int, folder: str) -> Actions:
    """Events to an LHE file in this folder."""
    events, info = events_of(batch, 1), info_of()
    found: Actions = {"LHE": {OURS: lambda: write_events(Path(folder, "ours.lhe"), [events], info)}}
    ms = peer()
    if ms is not None:
        process = ms.LHEProcess(1234.5, 0.6, 1234.5678901234567, 1)
        meta = ms.LHEMeta(-11, 11, 45.59, 45.59, 0, 0, 0, 0, 3, [process])
        objects = [_object(ms, events, place) for place in range(batch)]

        def write() -> None:
            writer = ms.LHEFileWriter(str(Path(folder, "theirs.lhe")), meta)
            for item in objects:
                writer.write(item)

        found["LHE"][PEER] = write
    return found


def _object(ms: Any, events: Any, place: int) -> Any:
    particles = []
    for leg in range(events.pdg_ids.shape[1]):
        energy, *space = events.momenta[place, leg].tolist()
        heads = (events.pdg_ids, events.status, events.mothers, events.colours)
        numbers = [int(number) for head in heads for number in head[place, leg].reshape(-1)]
        particles.append(ms.LHEParticle(*numbers, *space, energy, float(events.masses[place, leg]), 0.0, 9.0))
    return ms.LHEEvent(1, float(events.weights[place]), float(events.scales[place]), 1 / 128, 0.118, particles)


def drell_yan(batch: int, folder: str) -> Actions:
    """Ten times as many events of unit weight, from nothing, without and with their file."""
    events = _EVENTS * batch

    def ours() -> tuple[Any, Any]:
        process = create("drell_yan", m_min=madspace_events.LEAST_MASS, scale=madspace_events.SCALE, pdf=_SET)
        result = integrate(process, events=events, progress=False, seed=1)
        return process, result.unweight(events)

    def to_file() -> None:
        process, found = ours()
        batch_of = process.events(found.u, found.weights, torch.Generator().manual_seed(1))
        groups = tuple(ProcessInfo(1.0, 1.0, 1.0, code) for code in process.event_groups)
        info = InitInfo((2212, 2212), (6500.0, 6500.0), groups, strategy=3)
        write_events(Path(folder, "ours.lhe"), [batch_of], info)

    found: Actions = {"unit weights": {OURS: ours}, "and records to LHE": {OURS: to_file}}
    ms, element = peer(), madspace_events.compiled(Path(folder))
    if ms is not None and element is not None:
        theirs = madspace_events.DrellYan(ms, element, member_path(_SET), Path(folder))
        found["unit weights"][PEER] = partial(theirs.points, events)
        found["and records to LHE"][PEER] = theirs.to_file(events)
    return found


PARTS: dict[str, Callable[[int, str], Actions]] = {
    "flow": lambda batch, folder: flow(batch),
    "phase space": lambda batch, folder: phase_space(batch),
    "densities": lambda batch, folder: densities(batch),
    "event files": event_files,
    "Drell-Yan": drell_yan,
}


def measure(job: Row) -> Row:
    """One row in this process: seconds of both in every repeat, by what they do."""
    with suppress(ImportError):
        importlib.import_module("numba")  # compiled code is used from the first point on
    times = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, actions in PARTS[job["part"]](job["batch"], folder).items():
            for action in actions.values():
                action()
            times[name] = interleaved(actions, dict.fromkeys(actions, job["repeats"]), "cpu")
    versions = {"torch": torch.__version__, PEER: None if peer() is None else version(PEER)}
    return job | {"times": times, "versions": versions}


def lines_of(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """A line for each thing that was timed."""
    lines = []
    for row in rows:
        for name, times in row["times"].items():
            count = row["batch"] * (_EVENTS if row["part"] == "Drell-Yan" else 1)
            count = _STEP if name.startswith("training") else count
            each = {who: 1e6 * statistics.median(spent) / count for who, spent in times.items()}
            pairs = zip(times[OURS], times.get(PEER, []), strict=False)
            ratios = [theirs / ours for ours, theirs in pairs]
            missing = "-" if row["versions"][PEER] else "n/a"
            told = [figure(each[who]) if who in each else missing for who in (OURS, PEER)]
            ratio = figure(statistics.median(ratios)) if ratios else missing
            lines.append((row["part"], name, f"{count:,}", *told, ratio))
    return lines


def figure(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def show(console: Console, rows: Sequence[Row], output: Path | None) -> None:
    """Print the table, and write it beside the rows."""
    rows = sorted(rows, key=lambda row: (list(PARTS).index(row["part"]), row["batch"]))
    lines = lines_of(rows)
    table = Table(title="nisampler and MadSpace", caption=NOTE)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in COLUMNS[:2] else "right")
    for line in lines:
        table.add_row(*line)
    console.print(table)
    if output and lines:
        places = sorted({f"{row['hardware']}, {row['threads']} thread(s)" for row in rows})
        versions = sorted({f"{PEER} {row['versions'][PEER]}, torch {row['versions']['torch']}" for row in rows})
        text = f"{'; '.join(places)}; {'; '.join(versions)}; {max(row['date'] for row in rows)[:10]}."
        page = markdown("Beside MadSpace", [text, NOTE], COLUMNS, lines)
        output.with_suffix(".md").write_text(page, encoding="utf-8")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--batch", nargs="+", type=int, default=[10_000])
    parser.add_argument("--repeats", type=int, default=7, help="interleaved repeats")
    add_output_options(parser)
    return parser.parse_args(arguments)


def jobs_of(options: argparse.Namespace) -> list[Row]:
    """The rows to measure.

    Raises
    ------
    ConfigError
        If a number is not positive.
    """
    if min(*options.batch, options.repeats, options.threads) < 1:
        raise ConfigError("--batch, --repeats and --threads must be positive")
    return [
        {"part": part, "batch": batch, "threads": options.threads, "repeats": options.repeats}
        for part in options.part
        for batch in options.batch
    ]


def label(job: Row) -> str:
    """What a row is called."""
    return f"{job['part']}, {job['batch']} at a time"


def brief(row: Row) -> str:
    """What is said of a row when it has been measured."""
    return ", ".join(f"{name} {line}" for _, name, _, line, _, _ in lines_of([row]))


TABLE = Script(__file__, SCRIPT, KEY, jobs_of, label, brief, show)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; 0 if every row could be measured."""
    return run_script(parse(arguments), measure, TABLE.run, wide_console(_WIDTH))


if __name__ == "__main__":
    sys.exit(main())
