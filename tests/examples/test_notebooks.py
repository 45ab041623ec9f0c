"""Every notebook is stored without outputs, runs without an error, and shows what it says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from notebooks import FOLDER, kernel_place, outputs_of, pictures, printed

NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
shower = pytest.mark.skipif(importlib.util.find_spec("pythia8mc") is None, reason="needs the extra shower")


@pytest.mark.parametrize("name", NAMES)
def test_stored_notebooks_are_valid_and_have_no_outputs(name: str) -> None:
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    assert len(notebook.cells) > 9 and notebook.cells[0].source.startswith("# ")


def executed(name: str, folder: Path, figures: int) -> tuple[str, Path]:
    """What a notebook printed, and where it ran; no cell fails, nothing goes to stderr, and its figures have ink."""
    with kernel_place(folder) as place:
        outputs: dict[str, list[Any]] = outputs_of(name, place)
    kinds = [(source, out.output_type, out.get("name")) for source, shown in outputs.items() for out in shown]
    assert [kind for kind in kinds if kind[1] == "error" or kind[2] == "stderr"] == []
    found = pictures(outputs)
    assert len(found) == figures
    for pixels in found:
        assert 200 <= pixels.shape[0] <= 1200 and 400 <= pixels.shape[1] <= 1300
        assert 0.02 < (pixels < 250).mean() < 0.75
    return printed(outputs), place / "work"


def numbers(pattern: str, text: str) -> list[float]:
    """The numbers of the one line that fits."""
    (found,) = re.findall(pattern, text)
    return [float(number) for number in ([found] if isinstance(found, str) else found)]


def test_calibration(tmp_path: Path) -> None:
    """Pulls of known integrals are normal, and where they cannot be, every result carries its mark."""
    text, _ = executed("functions", tmp_path, figures=1)
    rows = re.findall(r"^(\w+) +[\d.]+\(\d+\) +([\d.]+) +(-?[\d.]+) +([\d.]+)$", text, re.MULTILINE)
    assert len(rows) == 6 and all(abs(float(pull)) < 4 and 0 < float(worth) <= 1 for *_, pull, worth in rows)
    pulls = r"mean (-?[\d.]+) ± ([\d.]+), width ([\d.]+) ± ([\d.]+), (\d+) of 100 trusted"
    mean, error, width, spread, trusted = numbers("camel4: " + pulls, text)
    assert abs(mean) < 3 * error and abs(width - 1) < 3 * spread and trusted > 90
    mean, error, width, spread, trusted = numbers("camel8: " + pulls, text)
    assert width > 3 and trusted == 0
    assert "(?), truth 0.92863" in text and text.count("\n- ") >= 1


@shower
def test_channel_weights(tmp_path: Path) -> None:
    """All three agree with the integral of benchmarks/results/multichannel.md, and flows are worth more than grids."""
    text, _ = executed("z_prime", tmp_path, figures=2)
    rows = re.findall(r"^(.+?) +([\d.]+)\((\d+)\) pb, efficiency at 0.1 % overweight ([\d.]+)$", text, re.MULTILINE)
    assert [name for name, *_ in rows] == ["VEGAS, prior weights", "flows, prior weights", "flows, learned weights"]
    assert all(abs(float(value) - 1928.09) < 5 * 0.1 * int(error) for _, value, error, _ in rows)
    grid, *flows = (float(worth) for *_, worth in rows)
    assert min(flows) > 1.3 * grid
    (sum_of_weights,) = numbers(r"sum of the weights - 1: (\S+)", text)
    assert sum_of_weights < 1e-12


@shower
def test_card_to_shower(tmp_path: Path) -> None:
    """Pythia takes every event, and the cut of the card holds before the shower."""
    text, work = executed("w_jets_shower", tmp_path, figures=1)
    assert "1500 of 1500 events showered" in text
    assert numbers(r"1500 events, p_T\(W\) from ([\d.]+) to", text)[0] >= 30.0
    assert (work / "run" / "report.html").is_file() and (work / "run" / "events.lhe.gz").is_file()


def test_caloflow(tmp_path: Path) -> None:
    """Means of what was generated are those of the simulation."""
    text, _ = executed("caloflow", tmp_path, figures=3)
    rows = re.findall(r"mean ([\d.]+) and ([\d.]+)", text)
    assert len(rows) == 3
    for truth, learned in rows:
        assert float(learned) == pytest.approx(float(truth), rel=0.06)
    assert "1500 showers" in text and "(1500, 240)" in text


def test_comparison(tmp_path: Path) -> None:
    """Integrals are right, and a table and a figure are stored."""
    text, work = executed("compare_samplers", tmp_path, figures=1)
    assert numbers(r"largest pull ([\d.]+) of 18", text)[0] < 4
    table = (work / "samplers.tex").read_text()
    assert table in text and table.count(r" \\") == 7
    assert (work / "samplers.pdf").read_bytes().startswith(b"%PDF")
