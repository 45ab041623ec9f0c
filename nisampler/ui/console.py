"""What every command of the command line shares: tables, errors, and the machine it computes on."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from nisampler.base.signals import Terminated, ending_signals_raise
from nisampler.errors import CardError, NisamplerError

if TYPE_CHECKING:
    import torch

FAILED, WRONG_USE = 1, 2
# Shells add this to the number of the signal that ended a command.
_SIGNAL = 128


@contextmanager
def errors(context: typer.Context, unfinished: Path | None = None, resume: str = "") -> Iterator[None]:
    """Errors, Ctrl-C and the system's request to end as one message on stderr and an exit code.

    Parameters
    ----------
    context
        Its `obj` says whether tracebacks are shown.
    unfinished, resume
        A file that is there if interrupted work can be continued, and the command that does so.

    Examples
    --------
    >>> context = typer.Context(typer.main.get_command(typer.Typer(callback=lambda: None)), obj=False)
    >>> with errors(context, resume="nisampler resume run"):
    ...     "all is well"
    'all is well'
    """
    console = Console(stderr=True, soft_wrap=True)

    def fail(text: str, code: int) -> typer.Exit:
        if context.obj:
            console.print(traceback.format_exc(), markup=False, highlight=False)
        console.print(text, markup=False, highlight=False)
        return typer.Exit(code)

    def ended(number: int) -> typer.Exit:
        how = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
        resumable = unfinished is not None and unfinished.is_file()
        return fail(f"{how}: {f'`{resume}` continues' if resumable else 'start the command again'}", _SIGNAL + number)

    received: list[int] = []
    try:
        with ending_signals_raise() as received:
            yield
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt as error:
        raise ended(error.number if isinstance(error, Terminated) else signal.SIGINT) from None
    except Exception as error:
        if received:
            raise ended(received[0]) from None
        if isinstance(error, NisamplerError):
            raise fail(f"error: {error}", WRONG_USE if isinstance(error, CardError) else FAILED) from error
        if isinstance(error, MemoryError | OSError):
            raise fail(f"error: {type(error).__name__}: {error}", FAILED) from error
        text = f"unexpected {type(error).__name__}: {error}\nnisampler --debug shows where; please report it"
        raise fail(text, FAILED) from error


@contextmanager
def machine(device: str, threads: int) -> Iterator[torch.device]:
    """The device of a name ("auto", "cpu", "cuda"), while torch uses `threads` threads of the CPU.

    Raises
    ------
    ConfigError
        If the device is not there, or the number of threads is not positive.

    Examples
    --------
    >>> with machine("cpu", threads=1) as place:
    ...     place.type
    'cpu'
    """
    from nisampler.base.device import cpu_threads, resolve_device

    place = resolve_device(device)
    with cpu_threads(threads):
        yield place


def show(rows: Sequence[tuple[str, str]], quiet: bool = False) -> None:
    """Names and values in two columns.

    >>> show([("integral", "1.02(1)"), ("points", "100")])
    integral   1.02(1)
    points     100
    """
    table([[name, f" {value}"] for name, value in rows], quiet)


def table(rows: Sequence[Sequence[str]], quiet: bool = False) -> None:
    """Cells in columns as wide as their longest cell, two spaces apart.

    >>> table([["name", "voxels"], ["toy", "240"]])
    name  voxels
    toy   240
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    console = Console(soft_wrap=True)
    for row in [] if quiet else rows:
        text = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        console.print(text.rstrip(), markup=False, highlight=False)
