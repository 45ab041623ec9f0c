"""An evaluation from files to the page: complete, the same for the same seed, and able to tell wrong showers."""

from __future__ import annotations

import base64
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nisampler.base.storage import read_json
from nisampler.calo.data.showers import Showers
from nisampler.calo.data.writer import ShowerWriter
from nisampler.calo.detector.geometries import geometry
from nisampler.calo.detector.geometry import Geometry, IncidentEnergy, Layer
from nisampler.calo.evaluation.evaluate import CONTROL, EvaluationOptions, evaluate
from nisampler.calo.evaluation.figures import FLOOR
from nisampler.calo.evaluation.table import table_rows
from nisampler.calo.simulation.simulator import simulate_file
from nisampler.errors import ConfigError, ShowerDataError, StorageError

TINY = Geometry(
    name="tiny",
    particle="electron",
    pdg=11,
    layers=tuple(Layer.polar(number, 4, (0, 5, 10, 20)) for number in range(3)),
    threshold=0.1,
    incident=IncidentEnergy("log-uniform", (1e3, 1e5)),
)
QUICK = EvaluationOptions(classifiers=(), distances=False, control=False, report=False)


def made(n: int, seed: int, scale: float = 1.0) -> Showers:
    """Showers whose cells share a fluctuation."""
    rng = np.random.default_rng(seed)
    incident = TINY.incident.sample(n, rng)
    shape = np.exp(-np.arange(TINY.n_voxels) / 6.0)
    cells = rng.lognormal(0.0, 0.2, (n, 1)) * shape * rng.lognormal(0.0, 0.1, (n, TINY.n_voxels))
    voxels = scale * 0.1 * incident[:, None] * cells * (rng.random(cells.shape) > 0.2)
    return Showers(incident, voxels.astype(np.float32))


def write(path: Path, showers: Showers) -> Path:
    with ShowerWriter(path, TINY) as writer:
        writer.append(showers)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("showers")
    return {
        "reference": write(folder / "reference.h5", made(1000, 1)),
        "same law": write(folder / "same.h5", made(500, 2)),
        "too bright": write(folder / "bright.h5", made(500, 3, 1.5)),
    }


@pytest.fixture(scope="module")
def evaluated(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    output = tmp_path_factory.mktemp("evaluation") / "deep" / "folder"
    candidates = {name: path for name, path in files.items() if name != "reference"}
    rows = [{"device": "cpu", "batch": 100, "generate": 0.25}, {"device": "cpu", "batch": 10_000, "generate": None}]
    timing = {"rows": rows, "parameters_generation": 1234, "machine": {"processor": "PDP-11", "threads": 2}}
    training = {"voxels": [{"epoch": 1, "loss": 2.0, "validation": 2.1}, {"epoch": 2, "loss": 1.0, "validation": 1.5}]}
    options = EvaluationOptions(
        classifiers=("small-high",),
        seeds=(1, 2),
        layers=1,
        neighbour_metrics=100,
        control_neighbours=None,
        multiclass="small-high",
        timing={"same law": timing},
        training=training,
        bands={"too bright": [files["too bright"], files["same law"]]},
    )
    return output, evaluate(files["reference"], candidates, TINY, output, options)


def test_json_is_what_was_returned(evaluated: tuple[Path, dict[str, Any]]) -> None:
    output, result = evaluated
    assert read_json(output / "evaluation.json") == json.loads(json.dumps(result))
    assert list(result["samples"]) == ["same law", "too bright", FLOOR, CONTROL]
    assert result["reference"]["showers"] == 500
    assert result["warnings"] == []
    assert result["samples"]["too bright"]["band"]["draws"] == 2


def test_a_right_sample_is_near_the_floor_and_wrong_ones_are_not(evaluated: tuple[Path, dict[str, Any]]) -> None:
    samples = evaluated[1]["samples"]
    auc = {name: sample["classifiers"]["small-high"]["auc"] for name, sample in samples.items()}
    assert auc[FLOOR] == pytest.approx(0.5, abs=0.08)
    assert auc["same law"] == pytest.approx(0.5, abs=0.08)
    assert auc["too bright"] > 0.7
    assert auc[CONTROL] > 0.9
    response = {name: sample["histograms"]["response"]["separation"] for name, sample in samples.items()}
    assert response["too bright"] > 3 * response["same law"]
    assert samples["too bright"]["summary"]["response_mean_ratio"] == pytest.approx(1.5, rel=0.05)
    assert samples["same law"]["summary"]["response_mean_ratio"] == pytest.approx(1.0, rel=0.05)
    assert samples["too bright"]["fpd"]["value"] > samples["same law"]["fpd"]["value"]
    assert samples[CONTROL]["correlations"]["mean_difference"] > samples[FLOOR]["correlations"]["mean_difference"]


def test_each_auc_has_the_version_of_its_classifier(evaluated: tuple[Path, dict[str, Any]]) -> None:
    result = evaluated[1]
    for sample in result["samples"].values():
        found = sample["classifiers"]["small-high"]
        assert found["version"]
        assert [training["seed"] for training in found["trainings"]] == [1, 2]
        assert {training["version"] for training in found["trainings"]} == {found["version"]}
    assert any(found["version"] in label for label, _ in table_rows(result))


def test_table_has_every_sample_and_figure(evaluated: tuple[Path, dict[str, Any]]) -> None:
    output, result = evaluated
    lines = (output / "table.md").read_text().splitlines()
    assert lines[2] == f"|  | same law | too bright | {FLOOR} | {CONTROL} |"
    text = "\n".join(lines)
    for word in ("AUC small-high", "excess over the floor", "JSD", "FPD × 1000", "KPD × 1000", "occupancy",
                 "separation E_tot/E_inc", "resolution at", "linearity at", "copies of reference",
                 "log-posterior", "coverage", "cpu, batch 100", "1,234"):  # fmt: skip
        assert word in text
    cells = [re.split(r"(?<!\\)\|", line) for line in lines[2:] if line.startswith("|")]
    assert {len(row) for row in cells} == {7}
    assert all(len(values) == 4 for _, values in table_rows(result))


def test_page_is_self_contained_and_has_every_figure(evaluated: tuple[Path, dict[str, Any]]) -> None:
    output, _ = evaluated
    page = (output / "report.html").read_text()
    names = re.findall(r'<figure id="([^"]+)"', page)
    assert len(names) == len(set(names))
    for name in ("scores", "auc_time", "multiclass", "separations", "response_energy", "layer_profile", "correlations",
                 "average_0", "average_1", "copies_0", "layer_occupancy",
                 "voxels", "response", "energy_0", "eta_0", "phi_width_0",
                 "r_width_0", "sparsity_0", "training"):  # fmt: skip
        assert name in names
    for source in re.findall(r'<img src="([^"]+)"', page):
        assert source.startswith("data:image/svg+xml;base64,")
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]*", "", page)
    assert "<script" not in page
    for name in names:
        content = (output / "figures" / f"{name}.svg").read_bytes()
        assert ElementTree.fromstring(content).tag.endswith("svg")
        assert base64.b64encode(content).decode() in page
    assert "same law on 2 thread(s) of PDP-11" in page
    assert "of which the classifier recognises" in page
    assert "standard deviation between draws of the weights, 2 of too bright." in page
    assert page.count("<div") == page.count("</div>")
    assert page.count("<td") == page.count("</td")


def test_the_control_is_in_no_figure_of_physics(evaluated: tuple[Path, dict[str, Any]]) -> None:
    output, _ = evaluated
    for name in ("response", "energy_0", "voxels"):
        text = (output / "figures" / f"{name}.svg").read_text()
        assert "too bright" in text and CONTROL not in text
    captions = re.findall("<figcaption>([^<]*)", (output / "report.html").read_text())
    assert any("Separation power" in caption for caption in captions)
    assert not any(CONTROL in caption for caption in captions)


def test_a_report_is_small(tmp_path: Path) -> None:
    toy = geometry("toy")
    for seed, name in enumerate(("reference", "a", "b")):
        simulate_file(tmp_path / f"{name}.h5", toy, 400, seed)
    files = {name: tmp_path / f"{name}.h5" for name in ("a", "b")}
    evaluate(
        tmp_path / "reference.h5", files, toy, tmp_path / "out", EvaluationOptions(classifiers=(), distances=False)
    )
    assert (tmp_path / "out" / "report.html").stat().st_size < 3e6


def test_same_seed_gives_the_same_bytes(files: dict[str, Path], tmp_path: Path) -> None:
    options = replace(QUICK, classifiers=("small-high",), seeds=(3,), control=True)
    for name in ("first", "second"):
        evaluate(files["reference"], {"model": files["same law"]}, TINY, tmp_path / name, options)
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == ["evaluation.json", "table.md"]
    for name in ("evaluation.json", "table.md"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_order_of_a_file_does_not_matter(files: dict[str, Path], tmp_path: Path) -> None:
    showers = made(1000, 1)
    ordered = write(tmp_path / "sorted.h5", showers[np.argsort(showers.incident)])
    options = replace(QUICK, showers=300)
    result = evaluate(ordered, {"model": ordered}, TINY, tmp_path / "out", options)
    assert result["reference"]["showers"] == 300
    assert not any("law" in note for note in result["warnings"])


def test_copies_and_other_energies_are_reported(files: dict[str, Path], tmp_path: Path) -> None:
    showers = made(1000, 1)
    copies = write(tmp_path / "copies.h5", showers)
    low = write(tmp_path / "low.h5", showers[showers.incident < 5e3])
    result = evaluate(files["reference"], {"copy": copies, "low": low}, TINY, tmp_path / "out", QUICK)
    text = "\n".join(result["warnings"])
    assert re.search(r"\d+ of 200 showers of copy are copies", text)
    assert "incident energies of low follow another law" in text
    assert "low has" in text
    assert FLOOR not in text
    assert "follow another law" in (tmp_path / "out" / "table.md").read_text()


def test_a_name_is_escaped(files: dict[str, Path], tmp_path: Path) -> None:
    options = replace(QUICK, report=True, layers=1)
    evaluate(files["reference"], {"<b>|&": files["same law"]}, TINY, tmp_path, options)
    page = (tmp_path / "report.html").read_text()
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    assert "<b>\\|&" in (tmp_path / "table.md").read_text()


def test_wrong_options_and_files_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    for wrong in ({"classifiers": ("none",)}, {"multiclass": "none"}, {"seeds": ()}, {"seeds": (1, 1)},
                  {"showers": 1}, {"neighbour_metrics": -1}, {"layers": 0}):  # fmt: skip
        with pytest.raises(ConfigError):
            EvaluationOptions(**wrong)
    with pytest.raises(ConfigError, match="cannot be called"):
        evaluate(files["reference"], {FLOOR: files["same law"]}, TINY, tmp_path, QUICK)
    alone = EvaluationOptions(classifiers=(), multiclass="small-high")
    with pytest.raises(ConfigError, match="two candidates"):
        evaluate(files["reference"], {"model": files["same law"]}, TINY, tmp_path, alone)
    with pytest.raises(ShowerDataError):
        evaluate(files["reference"], {"model": files["same law"]}, geometry("toy"), tmp_path, QUICK)
    few = write(tmp_path / "few.h5", made(3, 1))
    with pytest.raises(ShowerDataError, match="at least four"):
        evaluate(few, {"model": files["same law"]}, TINY, tmp_path, QUICK)
    row = {"device": "cpu", "batch": 1}
    for wrong, message in (
        ({"ghost": {"rows": []}}, "a timing belongs to 'ghost', the candidates are model"),
        ({"model": {"rows": [row]}}, "the timing of model is not what"),
        ({"model": []}, "the timing of model is not what"),
        ({"model": {}}, "the timing of model is not what"),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluate(files["reference"], {"model": files["same law"]}, TINY, tmp_path, replace(QUICK, timing=wrong))
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot make"):
        evaluate(files["reference"], {}, TINY, tmp_path / "file" / "out", QUICK)


def test_the_reference_alone_gives_a_floor(files: dict[str, Path], tmp_path: Path) -> None:
    result = evaluate(files["reference"], {}, TINY, tmp_path, QUICK)
    assert list(result["samples"]) == [FLOOR]
    assert result["samples"][FLOOR]["kind"] == "floor"
