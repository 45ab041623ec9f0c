"""Generated showers beside reference showers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nisampler.calo.commands.options import Bin, Device, Energies, Quiet, Seed, Threads, Threshold
from nisampler.calo.commands.words import groups, pairs
from nisampler.ui.console import errors, machine, show, table
from nisampler.ui.progress import monitor_for

_TIME = "`nisampler calo time MODEL -o FILE` makes one"


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
        from nisampler.calo.given import given_geometry
        from nisampler.errors import ConfigError

        named = geometry or model
        if named is None:
            raise ConfigError("say which cells the showers have: --geometry NAME, or --model FOLDER for a model's")
        cells = given_geometry(str(named), threshold, energies, bin)
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
                timing={name: read_sealed(path, mend=_TIME) for name, path in pairs("--timing", timing or []).items()},
                training={} if model is None else training_records(model),
                bands=groups("--band", band or []),
            )
            files = pairs("--candidate", candidate)
            result = evaluate(reference, files, cells, output, options, monitor)
        for rows in filter(None, (table_rows(result), energy_rows(result), condition_rows(result))):
            table([["", *result["samples"]], *([name, *values] for name, values in rows)], quiet)
        show([("report", str(output / "report.html"))], quiet)
