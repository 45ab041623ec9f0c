"""Draws architecture.svg: the way of a weight from a callable to an LHE file, and of a shower from file to file.

Run it with the folder to write to: python docs/figures/architecture.py docs/figures
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

WEIGHT = [
    ("1  your function", "or processes/", "processes"),
    ("2  Integrand", "density/", "nisampler"),
    ("3  survey", "training/", "nisampler"),
    ("4  flow learns", "training/", "nisampler"),
    ("5  best sampler", "samplers/", "nisampler"),
    ("6  integral", "integration/", "nisampler"),
    ("7  unit weights", "unweighting/", "nisampler"),
    ("8  LHE, report", "events/, run/", "nisampler"),
]
SHOWER = [
    ("1  showers.h5", "calo/data/", "calo"),
    ("2  geometry", "calo/detector/", "calo"),
    ("3  vectors", "calo/preprocessing/", "calo"),
    ("4  model", "calo/models/", "calo"),
    ("5  fit", "calo/fitting/", "calo"),
    ("6  new showers", "calo/generation.py", "calo"),
    ("7  new.h5", "calo/data/", "calo"),
    ("8  evaluation", "calo/evaluation/", "calo"),
]
SHARED = [
    ("flows/", "transforms, splines, networks; value and log-det together", 0.1, 4.5),
    ("base/", "random streams, checked files, estimates, gradient step", 4.75, 4.5),
    ("ui/", "progress, pages, figures", 9.4, 2.45),
]
COLOURS = {"nisampler": "#dbe9f6", "processes": "#fde9d0", "calo": "#e2f0d9", "shared": "#eeeeee"}
WIDTH, HEIGHT, STEP = 1.32, 0.92, 1.5


def box(axes: plt.Axes, left: float, bottom: float, width: float, height: float, colour: str) -> None:
    style = "round,pad=0.02,rounding_size=0.08"
    axes.add_patch(FancyBboxPatch((left, bottom), width, height, boxstyle=style, facecolor=colour, edgecolor="#555555"))


def lane(axes: plt.Axes, title: str, rooms: list[tuple[str, str, str]], bottom: float) -> None:
    """One row of rooms with arrows from each to the next."""
    axes.text(0.05, bottom + HEIGHT + 0.16, title, fontsize=11, weight="bold")
    for number, (name, folder, package) in enumerate(rooms):
        left = 0.1 + number * STEP
        box(axes, left, bottom, WIDTH, HEIGHT, COLOURS[package])
        axes.text(left + WIDTH / 2, bottom + 0.6 * HEIGHT, name, ha="center", va="center", fontsize=8.6)
        place = {"ha": "center", "va": "center"}
        axes.text(left + WIDTH / 2, bottom + 0.25 * HEIGHT, folder, **place, fontsize=6.8, family="monospace")
        if number:
            start, end = (left - STEP + WIDTH + 0.02, bottom + HEIGHT / 2), (left - 0.02, bottom + HEIGHT / 2)
            axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "#333333"})


def draw(folder: Path) -> None:
    figure, axes = plt.subplots(figsize=(12.3, 5.2))
    lane(axes, "A weight: from a callable to an LHE file", WEIGHT, 3.2)
    lane(axes, "A shower: from file to file", SHOWER, 0.25)
    for name, text, left, width in SHARED:
        box(axes, left, 1.75, width, 0.72, COLOURS["shared"])
        axes.text(left + width / 2, 2.25, name, ha="center", va="center", fontsize=9.5, family="monospace")
        axes.text(left + width / 2, 1.98, text, ha="center", va="center", fontsize=7)
    axes.text(0.05, 2.62, "Used by both", fontsize=11, weight="bold")
    axes.set_xlim(0, 12.1)
    axes.set_ylim(0.1, 4.6)
    axes.axis("off")
    figure.savefig(folder / "architecture.svg", bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
