"""The command line: run, resume, generate, report, check, processes."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from nisampler._version import __version__
from nisampler.errors import CardError, NisamplerError

if TYPE_CHECKING:
    from nisampler.run.monitor import Monitor

app = typer.Typer(
    name="nisampler",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Learn a proposal for a density, integrate it, and write unweighted events.",
)


class Style(StrEnum):
    """Experiments whose style the report can take."""

    ATLAS = "atlas"
    CMS = "cms"
    LHCB = "lhcb"
    ALICE = "alice"


FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130

CardPath = Annotated[Path, typer.Argument(metavar="CARD", help="The run card, a TOML file.")]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing; the log file is written anyway.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed, instead of the card's.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda, instead of the card's.")]


def _console() -> Console:
    return Console(soft_wrap=not sys.stdout.isatty())


def _show_version(value: bool) -> None:
    if value:
        _console().print(f"nisampler {__version__}", highlight=False)
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


@contextmanager
def _errors(context: typer.Context, unfinished: Path | None = None) -> Iterator[None]:
    """Errors as one message on stderr and an exit code; `unfinished` is a run that can be resumed."""
    console = Console(stderr=True, soft_wrap=True)

    def fail(text: str, code: int) -> typer.Exit:
        if context.obj:
            console.print(traceback.format_exc(), markup=False, highlight=False)
        console.print(text, markup=False, highlight=False)
        return typer.Exit(code)

    try:
        yield
    except KeyboardInterrupt:
        resumable = unfinished is not None and (unfinished / "run.json").is_file()
        hint = f": `nisampler resume {unfinished}` continues" if resumable else ""
        raise fail(f"interrupted{hint}", INTERRUPTED) from None
    except NisamplerError as error:
        raise fail(f"error: {error}", WRONG_USE if isinstance(error, CardError) else FAILED) from error
    except (MemoryError, OSError) as error:
        raise fail(f"error: {type(error).__name__}: {error}", FAILED) from error
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        text = f"unexpected {type(error).__name__}: {error}\nnisampler --debug shows where; please report it"
        raise fail(text, FAILED) from error


@contextmanager
def _monitors(quiet: bool) -> Iterator[list[Monitor]]:
    """A progress bar in a terminal, plain lines elsewhere, nothing if `quiet`."""
    from nisampler.run.monitor import BarMonitor, PlainMonitor

    console = _console()
    if quiet:
        yield []
    elif console.is_terminal:
        with BarMonitor(console) as bar:
            yield [bar]
    else:
        yield [PlainMonitor(console)]


def _show(rows: list[tuple[str, str]], quiet: bool = False) -> None:
    """Names and values in two columns."""
    width = max(len(name) for name, _ in rows)
    console = Console(soft_wrap=True)
    for name, value in [] if quiet else rows:
        console.print(f"{name:<{width}}   {value}".rstrip(), markup=False, highlight=False)


@app.command()
def run(
    context: typer.Context,
    card: CardPath,
    output: Annotated[Path, typer.Option("--output", "-o", help="The run directory to make.")],
    seed: Seed = None,
    events: Annotated[int | None, typer.Option(min=0, help="Number of events, instead of the card's.")] = None,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Train, integrate, write events and a report, as a card says."""
    with _errors(context, output):
        from nisampler.run.pipeline import execute, start
        from nisampler.run.result import summary

        given: dict[str, Any] = {"seed": seed, "events.n": events, "device": device}
        overrides = {name: value for name, value in given.items() if value is not None}
        with _monitors(quiet) as monitors, start(card, output, overrides) as directory:
            result = execute(directory, monitors)
        _show(summary(result, output), quiet)


@app.command()
def resume(context: typer.Context, run: RunPath, quiet: Quiet = False) -> None:
    """Continue a run that was interrupted; it ends with the same bytes as an uninterrupted one."""
    with _errors(context, run):
        from nisampler.run.directory import RunDirectory
        from nisampler.run.pipeline import execute
        from nisampler.run.result import summary

        with _monitors(quiet) as monitors, RunDirectory.open(run) as directory:
            result = execute(directory, monitors)
        _show(summary(result, run), quiet)


@app.command()
def generate(
    context: typer.Context,
    run: RunPath,
    events: Annotated[int, typer.Option(min=1, help="Number of events.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed; another one than the run's gives other events.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the events; RUN/generated-SEED by default."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write more events with the frozen sampler of a finished run; started again, it continues."""
    with _errors(context):
        from nisampler.run.directory import RunDirectory
        from nisampler.run.generate import generate_events
        from nisampler.run.result import generation_summary

        target = output if output is not None else run / f"generated-{seed}"
        with _monitors(quiet) as monitors, RunDirectory.open(run) as directory:
            result = generate_events(directory, events, seed, target, monitors)
        _show(generation_summary(result, target), quiet)


@app.command()
def report(
    context: typer.Context,
    run: RunPath,
    style: Annotated[Style | None, typer.Option(help="Style of the figures, from mplhep.")] = None,
) -> None:
    """Draw the report of a finished run again."""
    with _errors(context):
        from nisampler.run.directory import RunDirectory
        from nisampler.run.pipeline import redraw

        with RunDirectory.open(run) as directory:
            path = redraw(directory, style)
        _console().print(f"wrote {path}", markup=False, highlight=False)


@app.command()
def processes(context: typer.Context) -> None:
    """List the processes that a card can name."""
    with _errors(context):
        from nisampler.run.lookup import available

        _show([*sorted(available().items()), ("module:object", "your own callable with an attribute dim")])


@app.command()
def check(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An event file: .lhe, .lhe.gz or .h5.")],
    tolerance: Annotated[
        float,
        typer.Option(min=0.0, help="Largest relative violation of momentum conservation and mass shell."),
    ] = 1e-8,
) -> None:
    """Check counts, finiteness, momentum conservation and mass shells of an event file."""
    with _errors(context):
        from nisampler.events import check_file

        found = check_file(file, tolerance)
        _show(found.rows())
        if not found.passed:
            console = Console(stderr=True, soft_wrap=True)
            for problem in found.problems:
                console.print(f"problem: {problem}", markup=False, highlight=False)
            raise typer.Exit(FAILED)


def main() -> None:
    """Entry point of the command `nisampler`."""
    app()
