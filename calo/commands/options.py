"""Options that several commands of `nisampler calo` have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

GeometryName = Annotated[
    str,
    typer.Option(
        "--geometry",
        metavar="NAME",
        help="A name of `nisampler calo geometries`, a .toml file of your own, an XML binning, or a model's folder.",
    ),
]
Threshold = Annotated[
    float | None, typer.Option("--threshold", min=0.0, metavar="MEV", help="Of a cell, instead of the geometry's.")
]
Energies = Annotated[
    str | None,
    typer.Option(
        "--energies",
        metavar="LAW:LOW:HIGH",
        help="Law of E_inc in GeV instead of the geometry's: log-uniform, uniform, or discrete:E1:E2...",
    ),
]
Bin = Annotated[str | None, typer.Option("--bin", metavar="NAME", help="Which particle of an XML binning.")]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same result.")]
Showers = Annotated[int, typer.Option("--showers", min=1, help="Number of showers.")]
ShowerFile = Annotated[Path, typer.Option("--output", "-o", help="The HDF5 file to make.")]
ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", help="Folder that `nisampler calo fit` made.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads of the CPU.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing.")]
