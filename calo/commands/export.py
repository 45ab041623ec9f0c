"""A model as a file for programs without nisampler."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from nisampler.calo.commands.options import ModelPath, Quiet
from nisampler.calo.commands.words import size
from nisampler.ui.console import errors, machine, show, table


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
                ("file", size(output)),
            ],
            quiet,
        )
        if rows:
            cells = [[f"{r.batch}", f"{r.difference:.1e}", f"{r.milliseconds:.3g}", f"{r.torch:.3g}"] for r in rows]
            table([["showers", "largest difference", "ms/shower", "torch"], *cells], quiet)
