"""Distributions of processes from strings beside Pythia's: a small run of the script, and its arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("pythia8mc")


@pytest.fixture
def script(imported: Callable[[str], ModuleType]) -> ModuleType:
    return imported("string_events")


def test_values_of_an_event(script: ModuleType) -> None:
    def gluons(along: int) -> list[object]:
        return [(21, (501 + (along < 0), 503), (5.0, 0, 0, 5.0)), (21, (502 - (along < 0), 501), (5.0, 0, 0, -5.0))]

    tops = [(6, (501, 0), (5.0, 0, 3, 1.0)), (-6, (0, 503), (5.0, 0, -3, -1.0))]
    expected = 2 * math.atanh(0.2)
    assert script.ordered_rapidity([*gluons(1), *tops]) == pytest.approx(expected)
    assert script.ordered_rapidity([*gluons(-1), *tops]) == pytest.approx(-expected)
    assert math.isnan(script.ordered_rapidity([(2, (501, 0), (5.0, 0, 0, 5.0)), *gluons(1)[1:], *tops]))
    leptons = [(-11, (0, 0), (1.0, 1, 0, 0)), (12, (0, 0), (1.0, 0, -1, 0)), (13, (0, 0), (1.0, 0, 1, 0))]
    assert script.azimuth(leptons) == pytest.approx(math.pi / 2)
    assert script.azimuth_without_spin(leptons) == pytest.approx(math.pi)
    jets = [(2, (0, 0), (5.0, 3, 0, 4)), (1, (0, 0), (5.0, 0, 3, -4)), (25, (0, 0), (125.0, 0, 0, 0))]
    assert script.separation([*gluons(1), *jets]) == pytest.approx(2 * math.asinh(4 / 3))


def test_distances_of_shapes(script: ModuleType) -> None:
    generator = np.random.default_rng(3)
    edges = np.linspace(0, 1, 9)
    one, two, other = generator.random(20_000), generator.random(30_000), generator.random(30_000) ** 1.2
    flat, also, far = (script.shape(values, np.full(len(values), 2.0), edges) for values in (one, two, other))
    assert flat[0].sum() == pytest.approx(1.0)
    assert script.distance(flat, also) < 2.5 < script.distance(flat, far)


def test_a_small_run(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, picture = tmp_path / "page.md", tmp_path / "picture.png"
    given = ["--points", "20000", "--events", "1500", "--output", str(output), "--picture", str(picture)]
    assert script.main(given) == 0
    rows = [line.split(" | ") for line in output.read_text().splitlines() if line.startswith(("| p p", "| g g"))]
    assert len(rows) == 3
    assert all(float(row[4]) < 4 < float(row[5].strip(" |")) for row in rows)
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert "Shapes beside Pythia" in capsys.readouterr().out


def test_wrong_use(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--points", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err
