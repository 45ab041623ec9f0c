"""New showers of a fitted model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nisampler.calo.commands.options import Device, ModelPath, Quiet, Seed, ShowerFile, Threads
from nisampler.calo.commands.words import beside, size
from nisampler.ui.console import errors, machine, show
from nisampler.ui.progress import monitor_for


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
    projected: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of point clouds: write the showers in cells to this file, too.")
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
        from nisampler.calo.given import given_geometry
        from nisampler.errors import ConfigError

        new_file(output)
        if projected is not None:
            new_file(projected)
        wanted = None if geometry is None else given_geometry(geometry)
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
            made = generate(loaded, count, output, seed, energies, batch, monitor, laws, projected)
        show(
            [
                ("model", f"{model} for {loaded.geometry.name}"),
                *([] if posterior_draw is None else [("weights", f"draw {posterior_draw} of their posterior")]),
                ("showers", f"{made.showers}, seed {seed}"),
                ("drawn again", str(made.redrawn)),
                ("empty", str(made.empty)),
                *(("warning", text) for text in made.warnings),
                ("E_tot/E_inc", f"{made.energy_ratio:.4f}"),
                (loaded.kind.filling, f"{made.occupancy:.4f}"),
                *([] if made.beside is None else [("beside all cells", beside(*made.beside))]),
                ("time", f"{made.seconds:.1f} s, {1e3 * made.seconds / made.showers:.3g} ms/shower with writing"),
                ("file", size(output)),
                *([] if projected is None else [("file in cells", size(projected))]),
            ],
            quiet,
        )
