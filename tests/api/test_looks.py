"""How results look: on one line, as a table of a notebook, and in figures."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from training_settings import training

import nisampler
from nisampler import IntegrationConfig, Result
from nisampler.errors import ConfigError, MissingFunctionError
from nisampler.processes.functions.functions import camel
from nisampler.samplers.base import UniformSampler

QUICK: dict[str, Any] = {
    "training": training(calls=6000, sampler="vegas", on=False),
    "integration": IntegrationConfig(points=4096),
}
BOX = [(10.0, 12.0), (-1.0, 1.0)]


def slope(x: Tensor) -> Tensor:
    return (x[:, 0] - 10.0) * (2.0 + x[:, 1])


def signed(x: Tensor) -> dict[str, Tensor]:
    return {"<b>sine</b>": torch.sin(4.0 * x[:, 0]), "norm": x[:, 0]}


class Ring:
    """A channel with points (n, 2, 2), a component of which is the same for all of them."""

    name, dim = "ring", 2

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.stack([5.0 * u[:, 0], 7.0 * u[:, 1], 0.0 * u[:, 0] + 3.0, u[:, 0] - u[:, 1]], 1)
        return x.reshape(-1, 2, 2), torch.full_like(u[:, 0], -np.log(35.0))

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        u = x[:, 0] / torch.tensor([5.0, 7.0])
        return u, torch.full_like(u[:, 0], -np.log(35.0))


@pytest.fixture(scope="module")
def result() -> Result:
    return nisampler.integrate(slope, domain=BOX, **QUICK)


@pytest.fixture(scope="module")
def several() -> Result:
    return nisampler.integrate(signed, 1, **QUICK)


def test_everything_prints_on_one_short_line(result: Result, several: Result, tmp_path: Path) -> None:
    absent = nisampler.load(result.save(tmp_path / "kept"))
    shown = {
        name: repr(found)
        for name, found in {
            "result": result,
            "several": several,
            "training": result.training,
            "integration": several.integration,
            "distribution": result.distribution,
            "estimates": several.estimates,
            "estimate": result.estimate,
            "unit weights": result.unweight(1000),
            "weights": result.sample(1000),
            "no values": absent.sample(1000),
            "absent": absent,
            "figures": result.plot,
            "sampler": result.sampler,
            "uniform": UniformSampler(2),
        }.items()
    }
    assert [name for name, text in shown.items() if "\n" in text or len(text) > 170 or "tensor" in text] == []
    assert [name for name, text in shown.items() if re.search(r"\b_\w+=|object at", text)] == []
    calls = sum(result.calls[stage] for stage in ("detection", "training", "integration"))
    for part in (str(result.estimate), "relative error", result.sampler.describe(), "efficiency", f"{calls:,} calls"):
        assert part in shown["result"]
    assert shown["sampler"] == result.sampler.describe()
    assert "values unknown" in shown["no values"] and "mean weight" in shown["weights"]
    assert "sine" in shown["integration"] and "(1000, 2)" in shown["unit weights"]


class Cells(HTMLParser):
    """The cells of a table, and everything that asks for more than the table."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.cells: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


def table(result: Result) -> Cells:
    found = Cells()
    found.feed(result._repr_html_())
    return found


def test_notebooks_show_a_table(result: Result, several: Result) -> None:
    found = table(result)
    rows = dict(zip(found.cells[::2], found.cells[1::2], strict=True))
    assert rows["integral"] == f"{result.estimate:pm}"
    assert rows["sampler"] == result.sampler.describe()
    assert f"{result.calls['training']:,} training" in rows["calls"]
    assert f"{100 * result.efficiencies.at_0p1:.1f} % at 0.1 %" in rows["unweighting efficiency"]
    assert rows["χ²/dof"].startswith(f"{result.estimate.chi2_per_dof:.2f}")
    # Nothing is loaded, nothing runs, and names of the user stay text.
    more = table(several)
    for cells in (found, more):
        assert cells.tags == {"div", "table", "caption", "tr", "td"} and cells.attributes <= {"class", "style"}
    assert "<b>sine</b>" in more.cells and "norm" in more.cells


@pytest.mark.filterwarnings("ignore::nisampler.errors.ScalarFunctionWarning")
def test_the_table_has_the_warnings() -> None:
    found = nisampler.integrate(lambda x: float(x[0]), 1, kind="scalar", **QUICK)
    cells = table(found).cells
    assert [cells[i + 1] for i, name in enumerate(cells) if name == "warning"] == found.warnings != []


def drawn(figure: Figure, path: Path) -> Any:
    """The figure as an image (h, w, 3); stored without anything else than matplotlib, as a user does."""
    figure.savefig(path / "figure.png")
    with Image.open(path / "figure.png") as image:
        return np.asarray(image.convert("RGB"))


def test_figures_of_a_result(result: Result, tmp_path: Path) -> None:
    figures = {
        "training": result.plot.training(),
        "weights": result.plot.weights(),
        "marginals": result.plot.marginals(2000),
    }
    for name, figure in figures.items():
        pixels = drawn(figure, tmp_path)
        assert (pixels != 255).any(2).mean() > 0.03, f"the figure {name} is nearly empty"
        # Nothing is cut off at the edges.
        assert (pixels[[0, -1]] == 255).all() and (pixels[:, [0, -1]] == 255).all(), f"the figure {name} is cut"
        assert figure._repr_png_().startswith(b"\x89PNG")
        assert figure.texts and figure.texts[0].get_text()
    assert figures["training"].axes[-1].get_xlabel() == "integrand calls"
    assert figures["weights"].axes[0].get_xscale() == "log"


def test_marginals_lie_in_the_domain(result: Result, several: Result) -> None:
    calls = result.integrand.calls
    figure = result.plot.marginals(3000, labels=["$a$", "$b$"])
    assert result.integrand.calls == calls + 3000
    assert [axis.get_xlim() for axis in figure.axes[::3]] == BOX
    assert [axis.get_xlabel() for axis in figure.axes] == ["", "", "$a$", "$b$"]
    only = result.plot.marginals(1000, coordinates=[1])
    assert len(only.axes) == 1 and only.axes[0].get_xlabel() == "$x_{2}$"
    assert "|f|" not in only.legends[0].get_texts()[0].get_text()
    assert "|f|" in several.plot.marginals(1000).legends[0].get_texts()[0].get_text()


def test_marginals_of_channels_show_what_differs() -> None:
    function = nisampler.Multichannel(lambda x: x[:, 0, 0], [Ring()])
    figure = nisampler.integrate(function, **QUICK).plot.marginals(1000)
    assert [axis.get_xlabel() for axis in figure.axes[6:]] == ["$x_{1}$", "$x_{2}$", "$x_{4}$"]
    low, high = figure.axes[0].get_xlim()
    assert 0.0 <= low < 1.0 and 4.5 < high <= 5.0


def test_what_marginals_refuse(result: Result) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"coordinates": [0, 2]}, r"coordinates = \[0, 2\]: choose different ones among \[0, 1\]"),
        ({"coordinates": [1, 1]}, "choose different ones"),
        ({"coordinates": []}, "choose different ones"),
        ({"labels": ["a"]}, "1 labels for 2 coordinates: give one for each"),
        ({"n": 0}, "n = 0"),
    ]
    for options, message in wrong:
        with pytest.raises(ConfigError, match=message):
            result.plot.marginals(**({"n": 100} | options))


def test_without_its_function_a_result_draws_what_it_can(result: Result, tmp_path: Path) -> None:
    absent = nisampler.load(result.save(tmp_path / "kept"))
    for name in ("training", "weights"):
        known, found = (drawn(getattr(one.plot, name)(), tmp_path) for one in (result, absent))
        assert np.array_equal(known, found)
    with pytest.raises(MissingFunctionError, match=r"needs the function slope.*nisampler\.load\(folder, function\)"):
        absent.plot.marginals(100)


def test_a_sampler_that_needed_no_training_has_figures_too(tmp_path: Path) -> None:
    found = nisampler.integrate(camel(2), sampler=UniformSampler(2), integration=QUICK["integration"])
    assert drawn(found.plot.training(), tmp_path).size and drawn(found.plot.weights(), tmp_path).size
