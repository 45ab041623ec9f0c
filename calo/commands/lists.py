"""What there is: calorimeters, and presets of models."""

from __future__ import annotations

from typing import Annotated

import typer

from nisampler.ui.console import errors, table


def geometries(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[GEOMETRY]", help="Show the layers of this one, as --geometry names it.")
    ] = None,
) -> None:
    """List the calorimeters, or the layers of one."""
    with errors(context):
        from nisampler.calo.detector.geometries import GEOMETRIES
        from nisampler.calo.given import geometry_table, given_geometry, layer_table

        chosen = list(GEOMETRIES.values()) if name is None else [given_geometry(name)]
        table(geometry_table(chosen))
        if name is not None:
            table(layer_table(*chosen))


def models(context: typer.Context) -> None:
    """List the presets of shower models."""
    with errors(context):
        from nisampler.calo.models import PRESETS

        rows = [[name, preset.geometry or "any", preset.text] for name, preset in PRESETS.items()]
        table([["name", "geometry", "model"], *rows])
