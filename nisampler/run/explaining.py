"""The command `explain`: what the largest weights of a finished run have in common, as tables, a list and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nisampler.ui.console import errors, show, table
from nisampler.ui.progress import monitor_for

if TYPE_CHECKING:
    from nisampler.unweighting.explanation import Explanation

FIGURE, LOSSES, LIST = "explained.svg", "losses.svg", "explained.csv"


app = typer.Typer()


@app.command()
def explain(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run, a pack, or the folder of one.")],
    points: Annotated[int, typer.Option(min=1, help="Fresh points of the frozen sampler, each a call.")] = 100_000,
    worst: Annotated[int, typer.Option(min=1, help="How many of them count as the worst.")] = 100,
    shard: Annotated[int, typer.Option(min=0, help="Another number draws other points.")] = 0,
    pairs: Annotated[
        list[str] | None,
        typer.Option("--pair", help="A quantity of the picture of pairs, coordinates by default; repeatable."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the pictures and the list; RUN by default.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing.")] = False,
) -> None:
    """Show what the points with the largest weights have in common: coordinates, channels, momenta, edges of cuts."""
    with errors(context):
        from nisampler.base.storage import atomic_write, make_folder
        from nisampler.run.generation.generate import generator_of
        from nisampler.run.packing.pack import opened
        from nisampler.ui.plots import svg

        with monitor_for(not quiet) as monitor, opened(run) as directory:
            directory.require_integral()
            found = generator_of(directory, 0, monitor)[2].explain(points, worst, shard)
            pictures = {FIGURE: svg(found.figure()), LOSSES: svg(found.losses(pairs or ()))}
            folder = make_folder(output or (run if run.is_dir() else Path()))
            for name, drawn in pictures.items():
                with atomic_write(folder / name, "wb") as picture:
                    picture.write(drawn)
            with atomic_write(folder / LIST, "w") as handle:
                handle.write(listed(found))
        for rows in (found.rows(), found.channel_rows()):
            if rows:
                table([*rows, [""] * len(rows[0])], quiet)
        show(
            [("", found.line()), ("wrote", str(folder / FIGURE)), ("", str(folder / LOSSES)), ("", str(folder / LIST))],
            quiet,
        )


def listed(found: Explanation) -> str:
    """The worst points as text with commas: number, weight over its mean, and every quantity.

    >>> import torch
    >>> from nisampler.unweighting.explanation import explain as explained
    >>> u = torch.linspace(0.0, 1.0, 101, dtype=torch.float64)[:, None]
    >>> listed(explained(u, u[:, 0], {"u1": u[:, 0]}, worst=10)).splitlines()[:2]
    ['point,weight / mean,u1', '100,2,1']
    """
    names = list(found.quantities)
    lines = [",".join(["point", "weight / mean", *(name.replace(",", " ") for name in names)])]
    for k in found.order.tolist():
        values = (found.weights, *found.quantities.values())
        lines.append(",".join([str(k), *(f"{float(value[k]):.10g}" for value in values)]))
    return "\n".join(lines) + "\n"
