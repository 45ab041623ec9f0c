"""How fast a model is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nisampler.calo.commands.options import ModelPath, Quiet, Threads
from nisampler.ui.console import errors, machine, show, table
from nisampler.ui.progress import monitor_for


def time_command(
    context: typer.Context,
    model: ModelPath,
    device: Annotated[list[str] | None, typer.Option(help="cpu or cuda; may be repeated.")] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Showers at once; may be repeated.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed batches of each size.")] = 10,
    budget: Annotated[float, typer.Option(help="Seconds for each batch size.")] = 600.0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON file to make.")] = None,
    threads: Threads = 1,
    quiet: Quiet = False,
) -> None:
    """Milliseconds for each shower, by default in batches of 1, 100 and 10000, and parameter counts."""
    with errors(context):
        from nisampler.base.outputs import new_file
        from nisampler.base.storage import write_sealed
        from nisampler.calo.timing import BATCHES, time_model

        if output is not None:
            new_file(output)
        with monitor_for(not quiet) as monitor, machine("cpu", threads):
            timing = time_model(model, device or ["cpu"], batch or BATCHES, repeats, budget, monitor)
        if output is not None:
            write_sealed(output, timing.to_dict())
        table(timing.table(), quiet)
        loading = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in timing.load_seconds.items())
        show(
            [
                ("loading", loading),
                ("parameters", f"{timing.parameters_training} trained, {timing.parameters_generation} for generation"),
                ("machine", ", ".join(f"{name} {value}" for name, value in timing.machine.items() if value)),
            ],
            quiet,
        )
