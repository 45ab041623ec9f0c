"""`nisampler calo`: from showers in a file to a fitted model, new showers, and how good and fast they are."""

from __future__ import annotations

import typer

from nisampler.calo.commands import evaluate, export, fit, generate, lists, simulate, time

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

app.command(context_settings=_OPEN)(simulate.simulate)
app.command()(fit.fit)
app.command(context_settings=_OPEN)(generate.generate)
app.command()(evaluate.evaluate)
app.command("time")(time.time_command)
app.command()(export.export)
app.command()(lists.geometries)
app.command()(lists.models)
