"""Tiny runs that several tests look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nisampler.run.pipeline import execute, start

TRAINING = """
[training]
calls = 6000
sampler = "flow"
[training.flow]
fourier = 0
bins = 4
hidden = 8
layers = 1
buffer = 2000
[training.tree]
leaves = 50
[integration]
points = 3000
"""


def write_card(folder: Path, text: str, name: str = "card.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def make_run(card: Path, output: Path, **overrides: Any) -> dict[str, Any]:
    with start(card, output, overrides) as directory:
        return execute(directory)


@pytest.fixture(scope="session")
def points_card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A test function: points, no events."""
    folder = tmp_path_factory.mktemp("cards")
    events = "[events]\nn = 600\nshard_size = 250\n"
    text = 'process = "camel"\nseed = 3\nthreads = 1\n[parameters]\ndim = 2\n' + TRAINING + events
    return write_card(folder, text, "points.toml")


@pytest.fixture(scope="session")
def events_card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """e- e+ -> 3 jets, in three formats."""
    folder = tmp_path_factory.mktemp("cards")
    formats = 'formats = ["lhe.gz", "lhe", "h5"]\n'
    text = 'process = "ee_to_3jets"\nthreads = 1\n' + TRAINING + "[events]\nn = 300\nshard_size = 120\n" + formats
    return write_card(folder, text, "events.toml")


@pytest.fixture(scope="session")
def points_run(points_card: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of `points_card`; not to be changed."""
    path = tmp_path_factory.mktemp("runs") / "points"
    make_run(points_card, path)
    return path


@pytest.fixture(scope="session")
def events_run(events_card: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of `events_card`; not to be changed."""
    path = tmp_path_factory.mktemp("runs") / "events"
    make_run(events_card, path)
    return path
