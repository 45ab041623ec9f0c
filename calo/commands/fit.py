"""A model fitted to showers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nisampler.calo.commands.options import Bin, Device, Energies, GeometryName, Quiet, Seed, Threads, Threshold
from nisampler.errors import command
from nisampler.ui.console import errors, machine, show
from nisampler.ui.progress import monitor_for

if TYPE_CHECKING:
    from nisampler.calo.fitting.fit import Fitted

_INSTEAD = "Instead of the preset's, for every part."


def fit(
    context: typer.Context,
    geometry: GeometryName,
    data: Annotated[list[Path], typer.Option(help="Showers to learn from, HDF5; may be repeated.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the model to make.")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET", help="A name of `nisampler calo models`, or a .toml file; by default that of --from."
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option("--from", metavar="MODEL", help="Begin with the weights of this one, as far as they fit."),
    ] = None,
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
    epochs: Annotated[int | None, typer.Option(min=1, help=_INSTEAD)] = None,
    batch: Annotated[int | None, typer.Option(min=1, help=_INSTEAD)] = None,
    learning_rate: Annotated[float | None, typer.Option(help=f"The largest one, {_INSTEAD.lower()}")] = None,
    hidden: Annotated[int | None, typer.Option(min=1, help=f"Width of the networks, {_INSTEAD.lower()}")] = None,
    patience: Annotated[
        int | None, typer.Option(min=0, help="Epochs without gain after which a part ends, 0 for none.")
    ] = None,
    symmetry: Annotated[
        Literal["auto", "on", "off"],
        typer.Option(help="Turn and mirror training showers: auto tests whether they look alike from all sides."),
    ] = "auto",
    showers: Annotated[int | None, typer.Option(min=1, help="Only the first showers of the files.")] = None,
    validation: Annotated[float, typer.Option(help="Share of the showers kept for validation.")] = 0.1,
    memory: Annotated[float, typer.Option(help="GB of showers to hold; what is larger is streamed.")] = 4.0,
    device: Device = "auto",
    threads: Threads = 1,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write the losses for TensorBoard beside losses.csv.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted fit.")] = False,
    quiet: Quiet = False,
) -> None:
    """Fit a model to showers and store it; an interrupted fit can be continued and gives the same bytes.

    `torchrun --nproc-per-node K -m nisampler calo fit ...` shares out its parts among K processes or GPUs.
    """
    said: dict[str, object] = {"model": model, "from": start, "epochs": epochs, "batch": batch, "patience": patience}
    said |= {"learning-rate": learning_rate, "hidden": hidden, "symmetry": symmetry, "threshold": threshold}
    said |= {"energies": energies, "bin": bin, "showers": showers, "validation": validation, "memory": memory}
    words: list[object] = ["--geometry", geometry, *(word for path in data for word in ("--data", path))]
    words += ["--output", output, "--seed", seed]
    words += [word for text in condition or [] for word in ("--condition", text)]
    words += [word for name, value in said.items() if value is not None for word in (f"--{name}", value)]
    words += ["--device", device, "--threads", threads, *(["--tensorboard"] if tensorboard else []), "--resume"]
    with errors(context, output / "model.json", command("calo", "fit", *words)):
        from dataclasses import replace

        from nisampler.calo.data.particles import conditions_of
        from nisampler.calo.fitting.fit import DataOptions, fit
        from nisampler.calo.fitting.ranks import is_first
        from nisampler.calo.fitting.start import settings_of
        from nisampler.calo.given import given_geometry
        from nisampler.calo.recipe import FitOptions
        from nisampler.errors import ConfigError

        if model is None and start is None:
            raise ConfigError("say which model with --model, or with --from the fitted one to begin with")
        quiet = quiet or not is_first()
        options = FitOptions(
            seed, epochs, batch, patience, symmetry, learning_rate, hidden, start, tensorboard=tensorboard
        )
        wanted = DataOptions(tuple(data), validation, showers, 1e9 * memory)
        with monitor_for(not quiet) as monitor, machine(device, threads) as place:
            cells = given_geometry(geometry, threshold, energies, bin)
            if condition:
                cells = replace(cells, conditions=(*cells.conditions, *conditions_of(data, condition)))
            preset = settings_of(start, cells.digest) if model is None and start is not None else model or ""
            fitted = fit(wanted, cells, preset, output, options, place, monitor, resume)
        told = f"{model or start} for {geometry}, seed {seed}, {place}, {threads} thread(s)"
        show([("model", told), *_rows(fitted, start, output)], quiet)


def _rows(fitted: Fitted, start: Path | None, output: Path) -> Iterator[tuple[str, str]]:
    """What is said of a finished fit."""
    from nisampler.calo.timing import count_parameters

    training, generation = count_parameters(fitted.model)
    yield "parameters", f"{training} trained, {generation} for generation"
    if fitted.start is not None:
        yield "weights", f"those of {start} for {fitted.start.text}"
        yield from (("fresh", f"{name}: {why}") for name, why in fitted.start.fresh.items())
    for part in fitted.parts:
        epochs = f"{part.best_epoch} of {len(part.history)}"
        yield f"part {part.name}", f"validation loss {part.best_loss:.6g} after epoch {epochs}"
    if fitted.symmetry is not None:
        yield "symmetry", fitted.symmetry.text
    shared = f" in the first of {fitted.processes} processes" if fitted.processes > 1 else ""
    yield "time", f"{fitted.seconds:.0f} s, {fitted.cpu_seconds / 60:.1f} CPU-minutes{shared}"
    yield "folder", str(output)
    yield from (("warning", text) for text in fitted.warnings)
    yield from (("warning", text) for part in fitted.parts for text in part.warnings)
