"""Showers of the built-in simulator."""

from __future__ import annotations

from typing import Annotated

import typer

from nisampler.calo.commands.options import Bin, Energies, GeometryName, Quiet, Seed, ShowerFile, Showers, Threshold
from nisampler.calo.commands.words import size
from nisampler.ui.console import errors, show
from nisampler.ui.progress import monitor_for


def simulate(
    context: typer.Context,
    geometry: GeometryName,
    showers: Showers,
    output: ShowerFile,
    threshold: Threshold = None,
    energies: Energies = None,
    bin: Bin = None,
    points: Annotated[
        bool, typer.Option("--points", help="Write point clouds, in the layout of showerdata, instead of cells.")
    ] = False,
    finer: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Of --points: parts that the sides of a cell are cut in."),
    ] = 6,
    seed: Seed = 1,
    quiet: Quiet = False,
) -> None:
    """Write showers of the built-in reference simulator.

    Incident energies and conditions of the geometry may be said: --energy 50 (GeV), --theta 20:40, --theta 10,20.
    """
    with errors(context):
        from nisampler.base.outputs import new_file
        from nisampler.calo.data.particles import narrowed, spoken_options
        from nisampler.calo.given import given_geometry
        from nisampler.calo.simulation.points import simulate_points
        from nisampler.calo.simulation.simulator import simulate_file

        new_file(output)
        with monitor_for(not quiet) as monitor:
            cells = narrowed(given_geometry(geometry, threshold, energies, bin), spoken_options(context.args))
            if points:
                made = simulate_points(output, cells, showers, seed, finer, monitor)
            else:
                made = simulate_file(output, cells, showers, seed, monitor)
        show(
            [
                ("geometry", geometry),
                ("showers", f"{showers}, seed {seed}"),
                ("E_tot/E_inc", f"{made['energy_ratio']:.4f}"),
                ("points a shower", f"{made['points']:.1f}") if points else ("occupancy", f"{made['occupancy']:.4f}"),
                ("file", size(output)),
            ],
            quiet,
        )
