"""`nisampler jets`: from jets in files to a fitted model, new jets, and how good they are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nisampler.errors import command
from nisampler.ui.console import errors, machine, show, table
from nisampler.ui.progress import monitor_for

app = typer.Typer(
    name="jets",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Jets as sets of constituents: fit, generate, evaluate.",
)

Seed = Annotated[int, typer.Option(min=0, help="Same seed, same result.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads of the CPU.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing.")]


@app.command()
def fit(
    context: typer.Context,
    data: Annotated[list[Path], typer.Option(help="Jets to learn from, in JetNet's layout; may be repeated.")],
    model: Annotated[str, typer.Option(metavar="PRESET", help="A name of `nisampler jets models`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the model to make.")],
    constituents: Annotated[
        int | None, typer.Option(min=1, help="Only the hardest of each jet; by default all that the files hold.")
    ] = None,
    seed: Seed = 1,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the preset's, for both parts.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Instead of the preset's, for both parts.")] = None,
    patience: Annotated[
        int | None, typer.Option(min=0, help="Epochs without gain after which a part ends, 0 for none.")
    ] = None,
    jets: Annotated[int | None, typer.Option(min=1, help="Only the first jets of each file.")] = None,
    validation: Annotated[float, typer.Option(help="Share of the jets kept for validation.")] = 0.1,
    device: Device = "auto",
    threads: Threads = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted fit.")] = False,
    quiet: Quiet = False,
) -> None:
    """Fit a model to jets and store it; an interrupted fit can be continued and gives the same bytes."""
    words: list[object] = [word for path in data for word in ("--data", path)]
    words += ["--model", model, "--output", output, "--seed", seed, "--validation", validation]
    sized = {"constituents": constituents, "epochs": epochs, "batch": batch, "patience": patience, "jets": jets}
    words += [word for name, value in sized.items() if value is not None for word in (f"--{name}", value)]
    words += ["--device", device, "--threads", threads, "--resume"]
    with errors(context, output / "jets.json", command("jets", "fit", *words)):
        from nisampler.calo.jets.fit import JetData, fit
        from nisampler.calo.recipe import FitOptions

        options = FitOptions(seed=seed, epochs=epochs, batch=batch, patience=patience)
        wanted = JetData(tuple(data), constituents, validation, jets)
        with monitor_for(not quiet) as monitor, machine(device, threads) as place:
            fitted = fit(wanted, model, output, options, place, monitor, resume)
        weights = sum(parameter.numel() for parameter in fitted.model.parameters())
        show(
            [
                ("model", f"{model}, seed {seed}, {place}, {threads} thread(s)"),
                ("jets", f"{', '.join(fitted.model.types)}, up to {fitted.model.most} constituents"),
                ("parameters", str(weights)),
                *(
                    (
                        f"part {part.name}",
                        f"validation loss {part.best_loss:.6g} after epoch {part.best_epoch} of {len(part.history)}",
                    )
                    for part in fitted.parts
                ),
                ("time", f"{fitted.seconds:.0f} s, {fitted.cpu_seconds / 60:.1f} CPU-minutes"),
                ("folder", str(output)),
                *(("warning", text) for part in fitted.parts for text in part.warnings),
            ],
            quiet,
        )


@app.command()
def generate(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder that `nisampler jets fit` made.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The HDF5 file to make.")],
    jets: Annotated[
        int | None, typer.Option("--jets", min=1, help="Number of jets; by default as many as in --like.")
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option("--type", metavar="TYPE", help="g, q, t, w or z; may be repeated.")
    ] = None,
    like: Annotated[
        Path | None, typer.Option(help="Take types, pT, mass and numbers of constituents from the jets of this file.")
    ] = None,
    seed: Seed = 1,
    batch: Annotated[int, typer.Option(min=1, help="Jets made at once; belongs to the seed.")] = 1000,
    device: Device = "auto",
    threads: Threads = 1,
    quiet: Quiet = False,
) -> None:
    """Write new jets of a fitted model."""
    with errors(context):
        from nisampler.base.outputs import new_file
        from nisampler.calo.jets.files import read_jets
        from nisampler.calo.jets.generation import generate
        from nisampler.calo.jets.store import load_model

        new_file(output)
        given = None if like is None else read_jets(like)
        with monitor_for(not quiet) as monitor, machine(device, threads) as place:
            loaded = load_model(model, place)
            made = generate(loaded, jets, output, seed, tuple(kind or ()), given, batch, monitor)
        show(
            [
                ("model", f"{model} for {', '.join(loaded.types)}"),
                ("jets", f"{made.jets}, seed {seed}"),
                ("mean pT", f"{made.pt:.1f} GeV"),
                ("mean mass", f"{made.mass:.1f} GeV"),
                ("constituents", f"{made.count:.1f} a jet"),
                ("time", f"{made.seconds:.1f} s, {1e3 * made.seconds / made.jets:.3g} ms/jet with writing"),
                ("file", f"{output} ({output.stat().st_size / 1e6:.1f} MB)"),
            ],
            quiet,
        )


@app.command()
def evaluate(
    context: typer.Context,
    reference: Annotated[Path, typer.Option(help="File of reference jets that no model has seen.")],
    candidate: Annotated[list[str], typer.Option(metavar="NAME=FILE", help="Generated jets; may be repeated.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the report to make.")],
    jets: Annotated[int | None, typer.Option(min=2, help="At most so many of each file.")] = None,
    seed: Seed = 1,
    quiet: Quiet = False,
) -> None:
    """Compare generated jets with reference jets: W1 distances beside their floor, FPD, KPD, a report."""
    with errors(context):
        from nisampler.base.outputs import new_folder
        from nisampler.calo.commands.words import pairs
        from nisampler.calo.jets import evaluation

        files = pairs("--candidate", candidate)
        new_folder(output, evaluation.OWN)
        with monitor_for(not quiet) as monitor, machine("cpu", 1):
            result = evaluation.evaluate(reference, files, output, seed, jets, monitor)
        table(evaluation.table_rows(result), quiet)
        warnings = [("warning", text) for text in result["warnings"]]
        show([("report", str(output / "report.html")), *warnings], quiet)


@app.command()
def models(context: typer.Context) -> None:
    """List the presets of models of jets."""
    with errors(context):
        from nisampler.calo.jets.presets import PRESETS

        rows = [[name, preset.text] for name, preset in PRESETS.items()]
        table([["name", "model"], *rows])
