"""A model fitted to showers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from nisampler.calo.commands.options import Bin, Device, Energies, GeometryName, Quiet, Seed, Threads, Threshold
from nisampler.errors import command
from nisampler.ui.console import errors, machine, show
from nisampler.ui.progress import monitor_for


def fit(
    context: typer.Context,
    geometry: GeometryName,
    data: Annotated[Path, typer.Option(help="Showers to learn from, HDF5.")],
    model: Annotated[str, typer.Option(metavar="PRESET", help="A name of `nisampler calo models`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the model to make.")],
    condition: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=KIND]",
            help="A column of the data that the model depends on: a number, or =deg, =rad, =category; repeatable.",
        ),
    ] = None,
    threshold: Threshold = None,
    energies: Energies = None,
    bin: Bin = None,
    seed: Seed = 1,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the preset's, for every part.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Instead of the preset's, for every part.")] = None,
    patience: Annotated[
        int | None, typer.Option(min=0, help="Epochs without gain after which a part ends, 0 for none.")
    ] = None,
    symmetry: Annotated[
        Literal["auto", "on", "off"],
        typer.Option(help="Turn and mirror training showers: auto tests whether they look alike from all sides."),
    ] = "auto",
    showers: Annotated[int | None, typer.Option(min=1, help="Only the first showers of the file.")] = None,
    validation: Annotated[float, typer.Option(help="Share of the showers kept for validation.")] = 0.1,
    memory: Annotated[float, typer.Option(help="GB of showers to hold; what is larger is streamed.")] = 4.0,
    device: Device = "auto",
    threads: Threads = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted fit.")] = False,
    quiet: Quiet = False,
) -> None:
    """Fit a model to showers and store it; an interrupted fit can be continued and gives the same bytes.

    `torchrun --nproc-per-node K -m nisampler calo fit ...` shares out its parts among K processes or GPUs.
    """
    words = ["--geometry", geometry, "--data", data, "--model", model, "--output", output, "--seed", seed]
    sized: dict[str, object] = {"epochs": epochs, "batch": batch, "patience": patience, "symmetry": symmetry}
    sized |= {"threshold": threshold, "energies": energies, "bin": bin}
    sized |= {"showers": showers, "validation": validation, "memory": memory}
    words += [word for text in condition or [] for word in ("--condition", text)]
    words += [word for name, value in sized.items() if value is not None for word in (f"--{name}", value)]
    words += ["--device", device, "--threads", threads, "--resume"]
    with errors(context, output / "model.json", command("calo", "fit", *words)):
        from dataclasses import replace

        from nisampler.calo.data.particles import conditions_of
        from nisampler.calo.fitting.fit import DataOptions, fit
        from nisampler.calo.fitting.ranks import is_first
        from nisampler.calo.given import given_geometry
        from nisampler.calo.recipe import FitOptions
        from nisampler.calo.timing import count_parameters

        quiet = quiet or not is_first()
        options = FitOptions(seed, epochs, batch, patience, symmetry)
        wanted = DataOptions(data, validation, showers, 1e9 * memory)
        with monitor_for(not quiet) as monitor, machine(device, threads) as place:
            cells = given_geometry(geometry, threshold, energies, bin)
            if condition:
                cells = replace(cells, conditions=(*cells.conditions, *conditions_of(data, condition)))
            fitted = fit(wanted, cells, model, output, options, place, monitor, resume)
        training, generation = count_parameters(fitted.model)
        shared = f" in the first of {fitted.processes} processes" if fitted.processes > 1 else ""
        show(
            [
                ("model", f"{model} for {geometry}, seed {seed}, {place}, {threads} thread(s)"),
                ("parameters", f"{training} trained, {generation} for generation"),
                *(
                    (
                        f"part {part.name}",
                        f"validation loss {part.best_loss:.6g} after epoch {part.best_epoch} of {len(part.history)}",
                    )
                    for part in fitted.parts
                ),
                *([] if fitted.symmetry is None else [("symmetry", fitted.symmetry.text)]),
                ("time", f"{fitted.seconds:.0f} s, {fitted.cpu_seconds / 60:.1f} CPU-minutes{shared}"),
                ("folder", str(output)),
                *(("warning", text) for text in fitted.warnings),
                *(("warning", text) for part in fitted.parts for text in part.warnings),
            ],
            quiet,
        )
