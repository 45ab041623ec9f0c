"""The command line: the commands of runs and event files, and those of installed packages."""

from __future__ import annotations

from enum import StrEnum
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from nisampler._version import __version__
from nisampler.errors import command
from nisampler.run import explaining
from nisampler.run.advice import commands as advice
from nisampler.run.plotting import command as plotting
from nisampler.run.plotting.command import Style as Style
from nisampler.ui.console import FAILED, errors, show
from nisampler.ui.progress import make_console, monitor_for

GROUP = "nisampler.commands"


class _Commands(TyperGroup):
    """The commands below and those that installed packages offer through the entry-point group of sub-commands.

    They are found by name when they are called or listed, so that the core imports none of them.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Own commands first."""
        return [*super().list_commands(ctx), *sorted(entry_points(group=GROUP).names)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """None if there is no such command."""
        own = super().get_command(ctx, cmd_name)
        found = () if own else tuple(entry_points(group=GROUP, name=cmd_name))
        return typer.main.get_command(found[0].load()) if found else own


app = typer.Typer(
    name="nisampler",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Learn a proposal for a density, integrate it, and write unweighted events.",
)


class Crews(StrEnum):
    """Who shares work that is waited for.

    >>> [crew.value for crew in Crews]
    ['processes', 'dask', 'mpi']
    """

    PROCESSES = "processes"
    DASK = "dask"
    MPI = "mpi"


class Scheduler(StrEnum):
    """Who makes events of a submission.

    >>> [scheduler.value for scheduler in Scheduler]
    ['dask', 'mpi', 'slurm', 'htcondor']
    """

    DASK = "dask"
    MPI = "mpi"
    SLURM = "slurm"
    HTCONDOR = "htcondor"


CardPath = Annotated[Path, typer.Argument(metavar="CARD", help="The run card, a TOML file.")]
PackPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, a pack, or the folder of one.")]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing; the log file is written anyway.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed, instead of the card's.")]
OtherSeed = Annotated[int, typer.Option(min=0, help="Seed; another one than the run's gives other events.")]
Events = Annotated[int, typer.Option(min=1, help="Number of events.")]
CardEvents = Annotated[int | None, typer.Option("--events", min=0, help="Number of events, instead of the card's.")]
ShardSize = Annotated[
    int | None, typer.Option(min=1, help="Events in a shard, the same in all jobs; that of the card by default.")
]
Formats = Annotated[
    list[str] | None,
    typer.Option("--format", help="lhe.gz, lhe.zst, lhe or h5, instead of the card's; may be repeated."),
]
Workers = Annotated[int, typer.Option("--workers", "-w", min=1, help="Processes that work side by side.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda, instead of the card's.")]


def _show_version(value: bool) -> None:
    if value:
        make_console().print(f"nisampler {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Learn a proposal for a density, integrate it, and write unweighted events."""
    context.obj = debug


@app.command()
def run(
    context: typer.Context,
    card: CardPath,
    output: Annotated[Path, typer.Option("--output", "-o", help="The run directory to make.")],
    seed: Seed = None,
    events: CardEvents = None,
    device: Device = None,
    workers: Workers = 1,
    quiet: Quiet = False,
) -> None:
    """Train, integrate, write events and a report, as a card says."""
    with errors(context, output / "run.json", command("resume", output)):
        from nisampler.run.pipeline import execute, start
        from nisampler.run.report.summary import summary

        given: dict[str, Any] = {"seed": seed, "events.n": events, "device": device}
        overrides = {name: value for name, value in given.items() if value is not None}
        with monitor_for(not quiet) as monitor, start(card, output, overrides, monitor) as directory:
            result = execute(directory, monitor, workers=workers)
        show(summary(result, output), quiet)


@app.command()
def resume(context: typer.Context, run: RunPath, workers: Workers = 1, quiet: Quiet = False) -> None:
    """Continue a run that was interrupted; it ends with the same bytes as an uninterrupted one."""
    with errors(context, run / "run.json", command("resume", run)):
        from nisampler.run.directory import RunDirectory
        from nisampler.run.lookup import announce
        from nisampler.run.pipeline import execute
        from nisampler.run.report.summary import summary

        with monitor_for(not quiet) as monitor, RunDirectory.open(run) as directory:
            announce(directory.settings["process"], directory.card.parameters, monitor)
            result = execute(directory, monitor, workers=workers)
        show(summary(result, run), quiet)


@app.command()
def generate(
    context: typer.Context,
    run: PackPath,
    events: Events,
    seed: OtherSeed,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the events; RUN/generated-SEED by default."),
    ] = None,
    job: Annotated[str, typer.Option(help="K/N: only the share of job K of N; `merge` joins them.")] = "1/1",
    shard_size: ShardSize = None,
    formats: Formats = None,
    shards_only: Annotated[bool, typer.Option("--shards-only", help="Write no file but what `merge` joins.")] = False,
    workers: Workers = 1,
    quiet: Quiet = False,
) -> None:
    """Write more events with the frozen sampler of a finished run; started again, it continues."""
    target = output if output is not None else (run if run.is_dir() else Path()) / f"generated-{seed}"
    given = {"--output": output, "--job": None if job == "1/1" else job, "--shard-size": shard_size}
    more = [word for name, value in given.items() if value is not None for word in (name, value)]
    more += [word for name in formats or () for word in ("--format", name)] + ["--shards-only"] * shards_only
    again = command("generate", run, "--events", events, "--seed", seed, *more)
    with errors(context, target / "order.json", again):
        from nisampler.run.generation.generate import generate_events
        from nisampler.run.generation.order import share
        from nisampler.run.packing.pack import opened
        from nisampler.run.report.summary import generation_summary

        with monitor_for(not quiet) as monitor, opened(run) as directory:
            result = generate_events(
                directory,
                events,
                seed,
                target,
                monitor,
                part=share(job),
                workers=workers,
                shard_size=shard_size,
                formats=formats,
                shards_only=shards_only,
            )
        show(generation_summary(result, target), quiet)


@app.command()
def submit(
    context: typer.Context,
    run: PackPath,
    events: Events,
    seed: OtherSeed,
    backend: Annotated[Scheduler, typer.Option(help="Who makes them; start `--backend mpi` under mpiexec.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the events, which all machines see.")],
    workers: Workers = 1,
    cluster: Annotated[
        str | None,
        typer.Option(help="Of Dask: local, slurm, htcondor, pbs, sge, tcp://host:8786 or the file of a scheduler."),
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Jobs of Slurm or HTCondor; at most 100 by default.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for Slurm or HTCondor, such as time=02:00:00; repeatable.")
    ] = None,
    setup: Annotated[str, typer.Option(help="Shell line at the start of each job of Slurm or HTCondor.")] = "",
    shard_size: ShardSize = None,
    formats: Formats = None,
    quiet: Quiet = False,
) -> None:
    """Let a cluster write more events: Dask and MPI now, Slurm and HTCondor by scripts that this command writes."""
    with errors(context):
        from nisampler.run.report.summary import generation_summary
        from nisampler.run.submission.submit import Submission, submitted, write_scripts

        order = Submission(run, events, seed, output, shard_size=shard_size, formats=formats)
        with monitor_for(not quiet) as monitor:
            if backend in (Scheduler.SLURM, Scheduler.HTCONDOR):
                rows = write_scripts(order, backend.value, jobs, workers, option or (), setup)
            else:
                result = submitted(order, backend.value, workers, cluster, monitor)
                rows = [] if result is None else generation_summary(result, output)
        show(rows, quiet)


@app.command()
def scan(
    context: typer.Context,
    card: CardPath,
    values: Annotated[
        list[str],
        typer.Option(
            "--set",
            help="KEY=VALUE,VALUE...: a run for each, or each combination; repeatable.",
            autocompletion=advice.complete_key,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of the runs.")],
    seed: Seed = None,
    events: CardEvents = None,
    backend: Annotated[Crews, typer.Option(help="Who runs; start `--backend mpi` under mpiexec.")] = Crews.PROCESSES,
    workers: Workers = 1,
    cluster: Annotated[str | None, typer.Option(help="Of Dask, as for `submit`.")] = None,
    quiet: Quiet = False,
) -> None:
    """Run a card for several values of its keys, side by side; started again, it continues."""
    with errors(context):
        from nisampler.run.submission.clusters import crew_of
        from nisampler.run.submission.scan import Scan, scan_summary, settings_of
        from nisampler.run.submission.scan import scan as run_all

        given: dict[str, Any] = {"seed": seed, "events.n": events}
        overrides = {name: value for name, value in given.items() if value is not None}
        order = Scan(card, settings_of(values), overrides)
        with monitor_for(not quiet) as monitor, crew_of(backend.value, workers, cluster, monitor) as crew:
            result = None if crew is None else run_all(order, output, crew, monitor)
        if result is not None:
            show(scan_summary(result, output), quiet)
            if any("error" in point for point in result["points"]):
                raise typer.Exit(FAILED)


@app.command()
def pack(
    context: typer.Context,
    run: RunPath,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to make, such as w2j.nispack.")],
    without_pdf: Annotated[bool, typer.Option("--without-pdf", help="Only name the parton densities.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write a finished run and all that it needs to one file, from which `generate` works on other machines."""
    with errors(context):
        from nisampler.run.directory import RunDirectory
        from nisampler.run.lookup import announce
        from nisampler.run.packing.pack import pack as write_pack
        from nisampler.run.report.summary import pack_summary

        directory = RunDirectory.read(run)
        with monitor_for(not quiet) as monitor:
            announce(directory.settings["process"], directory.card.parameters, monitor)
        show(pack_summary(write_pack(directory, output, not without_pdf), output), quiet)


@app.command()
def warmup(
    context: typer.Context,
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="A finished run, a pack, or the folder of one.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Do beforehand what takes long on a new machine: compile kernels, and with a run read what its jobs will need."""
    with errors(context):
        from contextlib import nullcontext

        from nisampler.run.packing.pack import opened
        from nisampler.run.warmup import warm_up

        with monitor_for(not quiet) as monitor, nullcontext() if run is None else opened(run) as directory:
            warm_up(directory, monitor)


@app.command()
def merge(
    context: typer.Context,
    jobs: Annotated[list[Path], typer.Argument(metavar="JOBS...", help="Folders that `generate` made.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The event file to make; its ending says the format.")],
    partial: Annotated[bool, typer.Option("--partial", help="Take what is there; count what is missing.")] = False,
    quiet: Quiet = False,
) -> None:
    """Join the events of many jobs in one file, none missing, none twice, and say what they are."""
    with errors(context):
        from nisampler.run.generation.merge import merge as join
        from nisampler.run.report.summary import merge_summary

        with monitor_for(not quiet) as monitor:
            result = join(jobs, output, partial, monitor)
        show(merge_summary(result, output), quiet)


@app.command()
def report(
    context: typer.Context,
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="A run directory; several with --compare.")],
    compare: Annotated[bool, typer.Option("--compare", help="One page of several runs beside each other.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The page to write; RUN/report.html or comparison.html by default."),
    ] = None,
    labels: Annotated[list[str] | None, typer.Option("--label", help="Of each run that is compared.")] = None,
    style: Annotated[Style | None, typer.Option(help="Style of the figures, from mplhep.")] = None,
) -> None:
    """Draw the report of a finished run again, and check its events; or one report that compares several runs."""
    with errors(context):
        from nisampler.base.outputs import new_file
        from nisampler.errors import ConfigError
        from nisampler.run.directory import RunDirectory
        from nisampler.run.report.drawing import redraw

        target = None if output is None else new_file(output)
        if compare:
            from nisampler.run.plotting.comparing import compare as write_comparison

            target = target or new_file("comparison.html")
            write_comparison(runs, target, labels or (), style)
            show([("wrote", str(target))])
            return
        if len(runs) > 1 or labels:
            raise ConfigError("several runs, and their labels, are for --compare")
        directory = RunDirectory.read(runs[0])
        wrong = redraw(directory, style, target)
        show([("wrote", str(target or directory.report)), *(("warning", text) for text in wrong)])


app.add_typer(explaining.app)
app.add_typer(plotting.app)
app.add_typer(advice.app)


@app.command()
def check(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An event file: .lhe, .lhe.gz, .lhe.zst or .h5.")],
    tolerance: Annotated[
        float,
        typer.Option(min=0.0, help="Largest relative violation of momentum conservation and mass shell."),
    ] = 1e-8,
) -> None:
    """Check counts, finiteness, momentum conservation and mass shells of an event file."""
    with errors(context):
        from nisampler.events import check_file

        found = check_file(file, tolerance)
        show(found.rows())
        if not found.passed:
            console = Console(stderr=True, soft_wrap=True)
            for problem in found.problems:
                console.print(f"problem: {problem}", markup=False, highlight=False)
            raise typer.Exit(FAILED)


@app.command()
def reweight(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An event file of a hadron process.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    scales: Annotated[
        list[str] | None,
        typer.Option(help="7-point, 9-point, or factors such as 0.5,2 of mu_R and mu_F; repeatable."),
    ] = None,
    pdfs: Annotated[
        list[str] | None, typer.Option(help="Members of a set: SET/all, SET/0-42 or SET/3; several times.")
    ] = None,
    alpha_s: Annotated[bool, typer.Option(help="Each member brings its own coupling.")] = True,
    quiet: Quiet = False,
) -> None:
    """Add weights of other scales and parton densities to the events of a file."""
    with errors(context):
        from nisampler.run.reweight import factors, reweight

        with monitor_for(not quiet) as monitor:
            groups = reweight(file, output, factors(scales or ()), pdfs or (), alpha_s, monitor)
        rows = [(group.name or "no group", f"{len(group.weights)} weights") for group in groups]
        show([*rows, ("wrote", str(output))], quiet)


@app.command()
def uncertainty(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An event file with named weights.")],
) -> None:
    """Show the cross-section of an event file with its scale envelope and the uncertainties of its PDF sets."""
    with errors(context):
        from nisampler.events.uncertainty import uncertainties

        show(uncertainties(file).rows())


@app.command()
def info(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An event file: .lhe, .lhe.gz, .lhe.zst or .h5.")],
) -> None:
    """Show what an event file tells of itself: events, cross-section, weights, card and versions."""
    with errors(context):
        from nisampler.events.story import story

        show(story(file))


def main() -> None:
    """Entry point of the command `nisampler`.

    >>> from contextlib import suppress
    >>> from unittest.mock import patch
    >>> with patch("sys.argv", ["nisampler", "--version"]), suppress(SystemExit):
    ...     main()
    nisampler 0...
    """
    app()
