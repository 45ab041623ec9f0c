"""The first notebook runs in a kernel of its own, and shows what it should."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from notebooks import kernel_place, of, outputs_of, pictures, run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with kernel_place(tmp_path_factory.mktemp("notebook")) as folder:
        yield folder


@pytest.fixture(scope="module")
def outputs(place: Path) -> dict[str, list[Any]]:
    return outputs_of("first_steps", place)


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
        (pixels,) = pictures({word: of(outputs, word)})
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
