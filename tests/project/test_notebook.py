"""The notebook of the examples runs in a kernel of its own, and shows what it should."""

from __future__ import annotations

import base64
import io
import os
import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "first_steps.ipynb"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder for the kernel, which neither reads nor writes what belongs to the user."""
    folder = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR", "TMPDIR"):
            (folder / name).mkdir()
            patch.setenv(name, str(folder / name))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("NIS_ROOT", os.environ.get("NIS_ROOT", str(NOTEBOOK.parents[1])))
        yield folder


def run(notebook: Any, place: Path) -> Any:
    """The notebook with the outputs of its cells."""
    (place / "work").mkdir(exist_ok=True)
    where = {"metadata": {"path": str(place / "work")}}
    return NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()


@pytest.fixture(scope="module")
def outputs(place: Path) -> dict[str, list[Any]]:
    """What each cell with code has put out, by its source."""
    notebook = run(nbformat.read(NOTEBOOK, as_version=4), place)
    return {cell.source: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}


def of(outputs: dict[str, list[Any]], word: str) -> list[Any]:
    (found,) = [shown for source, shown in outputs.items() if word in source]
    return found


def test_the_stored_notebook_is_valid_and_has_no_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    assert len(notebook.cells) > 10 and notebook.cells[0].source.startswith("# ")


def test_nothing_goes_to_stderr_and_no_cell_fails(outputs: dict[str, list[Any]]) -> None:
    kinds = [(source, out.output_type, out.get("name")) for source, shown in outputs.items() for out in shown]
    assert [kind for kind in kinds if kind[1] == "error" or kind[2] == "stderr"] == []
    assert len(kinds) >= 10


def test_a_result_is_a_table(outputs: dict[str, list[Any]]) -> None:
    for word in ("result = nisampler.integrate", "nisampler.load"):
        data = of(outputs, word)[-1].data
        assert data["text/html"].count("<tr>") >= 7 and "sampler" in data["text/html"]
        assert re.fullmatch(r"Result\(2\.4\d+\(\d+\), .* calls\)", data["text/plain"])
    (printed,) = of(outputs, "summary()")
    assert re.match(r"2\.4\d+\(\d+\)\nvalue ", printed.text)


def test_figures_are_images(outputs: dict[str, list[Any]]) -> None:
    """Ink in each of them, white edges, a plausible size."""
    for word in ("plot.training", "plot.weights", "plot.marginals"):
        (shown,) = of(outputs, word)
        with Image.open(io.BytesIO(base64.b64decode(shown.data["image/png"]))) as image:
            pixels = np.asarray(image.convert("L"))
        assert 500 <= pixels.shape[0] <= 1200 and 700 <= pixels.shape[1] <= 1200, word
        assert 0.03 < (pixels < 250).mean() < 0.7, word
        assert pixels[0].min() == pixels[-1].min() == pixels[:, -1].min() == 255, word


def test_the_bar_leaves_one_clean_line_for_each_stage(outputs: dict[str, list[Any]]) -> None:
    for word in ("result = nisampler.integrate", "both = nisampler.integrate"):
        (bar,) = [shown for shown in of(outputs, word) if shown.output_type == "display_data"]
        lines = bar.data["text/plain"].split("\n")
        assert [line.split()[0] for line in lines] == ["training", "integration"]
        assert all(re.fullmatch(r"\w+ +█{24} 100 % .*error \d\.\de-\d\d.*", line) for line in lines)
        assert re.search(r"calls 1[12],\d\d\d ", lines[0]) and "efficiency" in lines[0]
    assert not re.search(r"[\r\x1b]", str(outputs.values()))


def test_points_and_ratios(outputs: dict[str, list[Any]]) -> None:
    """The mean of an exponential spectrum cut at 4 is 0.9254."""
    (shown,) = of(outputs, "unweight")
    assert shown.data["text/plain"].startswith("UnweightedPoints(x (5000, 3), ")
    (mean,) = of(outputs, "points.weights")
    assert float(mean.text.split(":")[1]) == pytest.approx(0.9254, abs=0.06)
    text = "".join(shown.text for shown in of(outputs, "both =") if shown.output_type == "stream")
    found = re.search(r"mean energy: (0\.\d+)\((\d+)\)\n", text)
    assert found, text
    error = int(found[2]) * 10.0 ** -(len(found[1]) - 2)
    assert float(found[1]) == pytest.approx(0.92537, abs=5 * error) and error < 3e-3


def test_a_cell_that_fails_is_seen(place: Path) -> None:
    """Negative control."""
    cell = nbformat.v4.new_code_cell("1 / 0")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        run(nbformat.v4.new_notebook(cells=[cell]), place)
