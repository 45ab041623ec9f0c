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


def models(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[PRESET]", help="Print the settings of this one, TOML for `fit --model`."),
    ] = None,
    geometry: Annotated[
        str | None, typer.Option("--geometry", metavar="NAME", help="For these cells; needed by presets that fit any.")
    ] = None,
) -> None:
    """List the presets of shower models, or the settings of one."""
    with errors(context):
        from nisampler.calo.given import given_geometry
        from nisampler.calo.models import PRESETS, model_config, model_toml
        from nisampler.errors import ConfigError

        if name is not None:
            cells = geometry or (PRESETS[name].geometry if name in PRESETS else "toy")
            if cells is None:
                raise ConfigError(f"the settings of {name} depend on the cells: say which with --geometry")
            typer.echo(model_toml(model_config(name, given_geometry(cells))), nl=False)
            return
        rows = [[name, preset.geometry or "any", preset.text] for name, preset in PRESETS.items()]
        table([["name", "geometry", "model"], *rows])
