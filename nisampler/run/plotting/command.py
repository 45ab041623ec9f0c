"""The command `plot`: observables of event files, several files over each other, with bands of their variations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nisampler.errors import ConfigError
from nisampler.ui.console import errors, show, table
from nisampler.ui.progress import monitor_for

if TYPE_CHECKING:
    from nisampler.run.plotting.filling import Filled
    from nisampler.ui.drawing import Drawing
    from nisampler.ui.plots import Sheet

_COMMA = re.compile(r",(?![^(]*\))")

app = typer.Typer()


class Style(StrEnum):
    """Experiments whose style figures can take.

    >>> [style.value for style in Style]
    ['atlas', 'cms', 'lhcb', 'alice']
    """

    ATLAS = "atlas"
    CMS = "cms"
    LHCB = "lhcb"
    ALICE = "alice"


class Format(StrEnum):
    """Formats of figures.

    >>> [item.value for item in Format]
    ['svg', 'png', 'pdf']
    """

    SVG = "svg"
    PNG = "png"
    PDF = "pdf"


@app.command()
def plot(
    context: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Event files, or run directories; ratios are to the first one."),
    ],
    observables: Annotated[
        list[str] | None,
        typer.Option(
            "--observable",
            "-x",
            help="Such as pt_j1, m_ll, 'dr(j1, j2)', met:0:200:40 or pt_j1:20:500:log; repeatable, or with commas.",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A folder, or a file that ends in .svg, .png or .pdf.")
    ] = Path("plots"),
    formats: Annotated[
        list[Format] | None, typer.Option("--format", help="Of the figures in a folder, svg by default; repeatable.")
    ] = None,
    labels: Annotated[list[str] | None, typer.Option("--label", help="Of each file in the legend.")] = None,
    bins: Annotated[int | None, typer.Option(min=1, max=10_000, help="Of each distribution, 40 by default.")] = None,
    shape: Annotated[bool, typer.Option("--shape", help="Unit area instead of cross-sections.")] = False,
    bands: Annotated[bool, typer.Option(help="Bands of scales and parton densities, where files have weights.")] = True,
    style: Annotated[Style | None, typer.Option(help="Of an experiment, from mplhep.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing.")] = False,
) -> None:
    """Draw observables of event files, several files over each other, with ratios and bands of their variations."""
    with errors(context):
        from nisampler.run.plotting.filling import fill
        from nisampler.ui.overlays import overlay
        from nisampler.ui.plots import style_sheet

        names = [name.strip() for text in observables or () for name in _COMMA.split(text)]
        single = output.suffix.lower().removeprefix(".") in list(Format)
        if single and formats:
            raise ConfigError(f"--format is for a folder: {output} says its format itself")
        sheet = style_sheet(style)
        with monitor_for(not quiet) as monitor:
            filled = fill(files, names, bins, labels or (), bands, shape, monitor)
        unit = "" if shape else "pb"
        figures = {
            column[0].histogram.axis.name: overlay(
                column[0].histogram.axis, [item.layer(unit) for item in column], unit, sheet
            )
            for column in filled
        }
        endings = [item.value for item in formats or [Format.SVG]]
        written = _one(output, figures, sheet) if single else _folder(output, figures, endings, sheet)
        table([*_counts(filled), [""] * 6], quiet)
        show([("" if number else "wrote", str(path)) for number, path in enumerate(written)], quiet)


def _one(path: Path, figures: Mapping[str, Drawing], sheet: Sheet) -> list[Path]:
    """All figures in one file, which only a PDF can hold several of."""
    from nisampler.base.storage import atomic_write
    from nisampler.ui.plots import image, pages

    ending = path.suffix.lower().removeprefix(".")
    if ending != Format.PDF and len(figures) > 1:
        raise ConfigError(f"{path} holds one figure and there are {len(figures)}: give a folder or a .pdf as --output")
    drawn = list(figures.values())
    with atomic_write(path, "wb") as handle:
        handle.write(pages(drawn, sheet) if ending == Format.PDF else image(drawn[0], ending, sheet))
    return [path]


def _folder(path: Path, figures: Mapping[str, Drawing], endings: Sequence[str], sheet: Sheet) -> list[Path]:
    """A file for each figure and format."""
    from nisampler.base.storage import atomic_write, make_folder
    from nisampler.ui.plots import image

    written = [(make_folder(path) / f"{_stem(name)}.{end}", name, end) for name in figures for end in endings]
    for target, name, ending in written:
        with atomic_write(target, "wb") as handle:
            handle.write(image(figures[name], ending, sheet))
    return [target for target, _, _ in written]


def _stem(name: str) -> str:
    """The name of a file of an observable.

    >>> _stem("dr(j1, j2)"), _stem("m_e+e-")
    ('dr_j1_j2', 'm_e+e-')
    """
    return re.sub(r"[^A-Za-z0-9+~-]+", "_", name).strip("_")


def _counts(columns: Iterable[Sequence[Filled]]) -> Iterator[list[str]]:
    """Cells of a table: how many events of each file are in a distribution and outside of it."""
    yield ["observable", "events of", "in range", "below", "above", "without it"]
    for column in columns:
        for number, item in enumerate(column):
            found = item.histogram
            inside = found.count - found.under - found.over
            counts = [f"{count:,}" for count in (inside, found.under, item.above, item.absent)]
            yield ["" if number else found.axis.name, item.label, *counts]
