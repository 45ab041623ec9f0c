"""`nisampler calo`: from showers in a file to a fitted model, new showers, and how good and fast they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nisampler.calo.options import (
    Bin,
    Device,
    Energies,
    GeometryName,
    ModelPath,
    Quiet,
    Seed,
    ShowerFile,
    Showers,
    Threads,
    Threshold,
)
from nisampler.errors import command
from nisampler.ui.console import errors, machine, show, table
from nisampler.ui.progress import monitor_for

if TYPE_CHECKING:
    from nisampler.calo.detector.geometry import Geometry

app = typer.Typer(
    name="calo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Calorimeter showers: simulate, fit, generate, evaluate, time, export.",
)

# Conditions of a model are options of their own: --theta 30
_OPEN = {"allow_extra_args": True, "ignore_unknown_options": True}
_TIME = "`nisampler calo time MODEL -o FILE` makes one"


def _geometry(
    name: str, threshold: float | None = None, energies: str | None = None, particle: str | None = None
) -> Geometry:
    """As `nisampler.calo.given.given_geometry`."""
    from nisampler.calo.given import given_geometry

    return given_geometry(name, threshold, energies, particle)


def _groups(option: str, given: list[str]) -> dict[str, list[Path]]:
    """Files by name from NAME=FILE."""
    from nisampler.errors import ConfigError

    found: dict[str, list[Path]] = {}
    for text in given:
        name, equals, file = text.partition("=")
        if not (name and equals and file):
            raise ConfigError(f"{option} must be NAME=FILE, got {text!r}")
        found.setdefault(name, []).append(Path(file))
    return found


def _pairs(option: str, given: list[str]) -> dict[str, Path]:
    """A file by name from NAME=FILE, each name once."""
    from nisampler.errors import ConfigError

    found = _groups(option, given)
    for name, files in found.items():
        if len(files) > 1:
            raise ConfigError(f"{option} must be NAME=FILE with names that differ, got {name!r} {len(files)} times")
    return {name: file for name, (file,) in found.items()}


def _size(path: Path) -> str:
    return f"{path} ({path.stat().st_size / 1e6:.1f} MB)"


@app.command(context_settings=_OPEN)
def simulate(
    context: typer.Context,
    geometry: GeometryName,
    showers: Showers,
    output: ShowerFile,
    threshold: Threshold = None,
    energies: Energies = None,
    bin: Bin = None,
    seed: Seed = 1,
    quiet: Quiet = False,
) -> None:
    """Write showers of the built-in reference simulator.

    Incident energies and conditions of the geometry may be said: --energy 50 (GeV), --theta 20:40, --theta 10,20.
    """
    with errors(context):
        from nisampler.base.outputs import new_file
        from nisampler.calo.data.particles import narrowed, spoken_options
        from nisampler.calo.simulation.simulator import simulate_file

        new_file(output)
        with monitor_for(not quiet) as monitor:
            cells = narrowed(_geometry(geometry, threshold, energies, bin), spoken_options(context.args))
            made = simulate_file(output, cells, showers, seed, monitor)
        show(
            [
                ("geometry", geometry),
                ("showers", f"{showers}, seed {seed}"),
                ("E_tot/E_inc", f"{made['energy_ratio']:.4f}"),
                ("occupancy", f"{made['occupancy']:.4f}"),
                ("file", _size(output)),
            ],
            quiet,
        )


@app.command()
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
        from nisampler.calo.recipe import FitOptions
        from nisampler.calo.timing import count_parameters

        quiet = quiet or not is_first()
        options = FitOptions(seed, epochs, batch, patience, symmetry)
        wanted = DataOptions(data, validation, showers, 1e9 * memory)
        with monitor_for(not quiet) as monitor, machine(device, threads) as place:
            cells = _geometry(geometry, threshold, energies, bin)
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


@app.command(context_settings=_OPEN)
def generate(
    context: typer.Context,
    model: ModelPath,
    output: ShowerFile,
    showers: Annotated[
        int | None, typer.Option("--showers", min=1, help="Number of showers; by default as many as in --incident.")
    ] = None,
    incident: Annotated[
        Path | None,
        typer.Option(
            help="Take incident energies and conditions from this file of showers or CSV, from its beginning."
        ),
    ] = None,
    geometry: Annotated[str | None, typer.Option(metavar="NAME", help="Refuse a model of other cells.")] = None,
    posterior_draw: Annotated[
        int | None,
        typer.Option(min=0, metavar="K", help="Draw number K of variational weights, for `evaluate --band`."),
    ] = None,
    seed: Seed = 1,
    batch: Annotated[int, typer.Option(min=1, help="Showers made at once; belongs to the seed.")] = 1000,
    device: Device = "auto",
    threads: Threads = 1,
    quiet: Quiet = False,
) -> None:
    """Write new showers of a fitted model.

    Incident energies and conditions may be said: --energy 50 (GeV), --theta 20:40, --theta 10,20, --particle photon.
    """
    with errors(context):
        from nisampler.base.outputs import new_file
        from nisampler.calo.data.particles import narrowed, read_particles, spoken_options
        from nisampler.calo.fitting.store import load_model
        from nisampler.calo.generation import freeze_draw, generate
        from nisampler.errors import ConfigError

        new_file(output)
        wanted = None if geometry is None else _geometry(geometry)
        with monitor_for(not quiet) as monitor, machine(device, threads) as place:
            loaded = load_model(model, wanted, place)
            if posterior_draw is not None:
                freeze_draw(loaded, seed, posterior_draw)
            said = spoken_options(context.args)
            if said and incident is not None:
                raise ConfigError(f"particles come from {incident} or from --{' --'.join(said)}: give one of the two")
            energies = None if incident is None else read_particles(incident, loaded.geometry, showers)
            laws = narrowed(loaded.geometry, said)
            count = showers if energies is None else len(energies)
            if count is None:
                raise ConfigError("say how many showers with --showers, or give energies with --incident")
            made = generate(loaded, count, output, seed, energies, batch, monitor, laws)
        show(
            [
                ("model", f"{model} for {loaded.geometry.name}"),
                *([] if posterior_draw is None else [("weights", f"draw {posterior_draw} of their posterior")]),
                ("showers", f"{made.showers}, seed {seed}"),
                ("drawn again", str(made.redrawn)),
                ("empty", str(made.empty)),
                *(("warning", text) for text in made.warnings),
                ("E_tot/E_inc", f"{made.energy_ratio:.4f}"),
                ("occupancy", f"{made.occupancy:.4f}"),
                ("time", f"{made.seconds:.1f} s, {1e3 * made.seconds / made.showers:.3g} ms/shower with writing"),
                ("file", _size(output)),
            ],
            quiet,
        )


@app.command()
def evaluate(
    context: typer.Context,
    reference: Annotated[Path, typer.Option(help="File of reference showers that no model has seen.")],
    candidate: Annotated[list[str], typer.Option(metavar="NAME=FILE", help="Generated showers; may be repeated.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the report to make.")],
    geometry: Annotated[
        str | None, typer.Option("--geometry", metavar="NAME", help="As for `fit`; by default that of --model.")
    ] = None,
    threshold: Threshold = None,
    energies: Energies = None,
    bin: Bin = None,
    classifier: Annotated[list[str] | None, typer.Option(metavar="NAME", help="May be repeated.")] = None,
    multiclass: Annotated[
        str | None, typer.Option(metavar="CLASSIFIER", help="Train it over all candidates at once, too.")
    ] = None,
    trainings: Annotated[int, typer.Option(min=0, help="Of each classifier; 0 for no classifiers.")] = 3,
    showers: Annotated[int | None, typer.Option(min=2, help="At most so many of each sample.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="Show how this model was trained, too; its geometry is used without --geometry.")
    ] = None,
    timing: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help="What `time` wrote; may be repeated.")
    ] = None,
    band: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="Showers of a posterior draw of a candidate, at least twice."),
    ] = None,
    seed: Seed = 1,
    device: Device = "auto",
    threads: Threads = 1,
    quiet: Quiet = False,
) -> None:
    """Compare generated showers with reference showers: classifiers, distances, histograms, a report."""
    with errors(context):
        from nisampler.base.outputs import new_folder
        from nisampler.base.storage import read_sealed
        from nisampler.calo.evaluation.conditions import condition_rows
        from nisampler.calo.evaluation.evaluate import EvaluationOptions, evaluate
        from nisampler.calo.evaluation.table import energy_rows, table_rows
        from nisampler.calo.fitting.store import training_records
        from nisampler.errors import ConfigError

        named = geometry or model
        if named is None:
            raise ConfigError("say which cells the showers have: --geometry NAME, or --model FOLDER for a model's")
        cells = _geometry(str(named), threshold, energies, bin)
        new_folder(output, ("evaluation.json", "table.md", "report.html", "figures"))
        with monitor_for(not quiet) as monitor, machine(device, threads) as place:
            usual = EvaluationOptions()
            options = EvaluationOptions(
                classifiers=(tuple(classifier) if classifier else usual.classifiers) if trainings else (),
                seeds=tuple(range(seed, seed + max(trainings, 1))),
                showers=showers,
                multiclass=multiclass,
                seed=seed,
                device=str(place),
                timing={name: read_sealed(path, mend=_TIME) for name, path in _pairs("--timing", timing or []).items()},
                training={} if model is None else training_records(model),
                bands=_groups("--band", band or []),
            )
            files = _pairs("--candidate", candidate)
            result = evaluate(reference, files, cells, output, options, monitor)
        for rows in filter(None, (table_rows(result), energy_rows(result), condition_rows(result))):
            table([["", *result["samples"]], *([name, *values] for name, values in rows)], quiet)
        show([("report", str(output / "report.html"))], quiet)


@app.command("time")
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


@app.command()
def export(
    context: typer.Context,
    model: ModelPath,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to make.")],
    form: Annotated[
        Literal["onnx", "torch-export", "aoti"], typer.Option("--format", help="ONNX, or a package of torch.")
    ] = "onnx",
    target: Annotated[
        Literal["showers", "par04", "ddml"],
        typer.Option(help="Voxels in MeV, or what Geant4's example Par04 or Key4hep's DDML loads."),
    ] = "showers",
    noise: Annotated[
        Literal["input", "seed"], typer.Option(help="Give normal noise, or a seed and the number of a shower.")
    ] = "input",
    seed: Annotated[int | None, typer.Option(min=0, help="Of the noise that a file for ddml draws.")] = None,
    highest: Annotated[float, typer.Option(metavar="GEV", help="Energy that is 1 in the input of par04.")] = 1024.0,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Compare the file with the model.")] = True,
    quiet: Quiet = False,
) -> None:
    """Write a fitted model to a file that programs without nisampler, or without Python, load."""
    with errors(context):
        from nisampler.base.outputs import new_file
        from nisampler.calo.export.check import check as compare
        from nisampler.calo.export.check import runner
        from nisampler.calo.export.formats import write
        from nisampler.calo.export.targets import target_for
        from nisampler.calo.fitting.store import load_model

        new_file(output)
        with machine("cpu", 1):
            made = target_for(load_model(model), target, noise, 1e3 * highest)
            write(made, output, form, seed)
            rows = compare(made, runner(output, form)) if check else []
        inputs = made.inputs(1, seed=1).items()
        show(
            [
                ("inputs", ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in inputs)),
                ("output", f"{made.output}, for {'any number of showers' if made.any_batch else 'one shower'}"),
                ("file", _size(output)),
            ],
            quiet,
        )
        if rows:
            cells = [[f"{r.batch}", f"{r.difference:.1e}", f"{r.milliseconds:.3g}", f"{r.torch:.3g}"] for r in rows]
            table([["showers", "largest difference", "ms/shower", "torch"], *cells], quiet)


@app.command()
def geometries(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[GEOMETRY]", help="Show the layers of this one, as --geometry names it.")
    ] = None,
) -> None:
    """List the calorimeters, or the layers of one."""
    with errors(context):
        from nisampler.calo.detector.geometries import GEOMETRIES
        from nisampler.calo.given import geometry_table, layer_table

        chosen = list(GEOMETRIES.values()) if name is None else [_geometry(name)]
        table(geometry_table(chosen))
        if name is not None:
            table(layer_table(*chosen))


@app.command()
def models(context: typer.Context) -> None:
    """List the presets of shower models."""
    with errors(context):
        from nisampler.calo.models import PRESETS

        rows = [[name, preset.geometry or "any", preset.text] for name, preset in PRESETS.items()]
        table([["name", "geometry", "model"], *rows])
