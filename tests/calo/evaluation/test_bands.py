"""Bands: the spread over draws of the weights, of counts that only fluctuate and of showers that differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.patches import StepPatch

from nisampler.base.storage import read_json
from nisampler.calo.data.files import ShowerReader, read_showers
from nisampler.calo.data.showers import Showers
from nisampler.calo.data.writer import ShowerWriter
from nisampler.calo.detector.geometry import Geometry, IncidentEnergy, Layer
from nisampler.calo.evaluation import bands, figures
from nisampler.calo.evaluation.bands import VOXELS, Band, Bands, measure_bands
from nisampler.calo.evaluation.evaluate import EvaluationOptions, evaluate
from nisampler.calo.evaluation.features import Features
from nisampler.calo.evaluation.histograms import Counts
from nisampler.calo.evaluation.quantities import quantities, spectrum_axis
from nisampler.calo.evaluation.report import table_rows
from nisampler.errors import ConfigError, GeometryError, ShowerDataError, StorageError
from nisampler.ui.histograms import Axis

TINY = Geometry(
    name="tiny",
    particle="electron",
    pdg=11,
    layers=tuple(Layer.polar(number, 4, (0, 5, 10)) for number in range(2)),
    threshold=0.1,
    incident=IncidentEnergy("log-uniform", (1e3, 1e5)),
)
OTHER = replace(TINY, name="other", layers=(*TINY.layers[:1], Layer.polar(1, 4, (0, 5, 11))))
QUICK = EvaluationOptions(classifiers=(), distances=False, control=False, report=False)
AXIS = Axis("x", "$x$", np.linspace(0.0, 2.0, 5))


def made(n: int, seed: int, scale: float = 1.0) -> Showers:
    rng = np.random.default_rng(seed)
    incident = TINY.incident.sample(n, rng)
    cells = rng.lognormal(0.0, 0.3, (n, 1)) * rng.lognormal(0.0, 0.5, (n, TINY.n_voxels))
    voxels = scale * 0.05 * incident[:, None] * cells * (rng.random(cells.shape) > 0.3)
    return Showers(incident, voxels.astype(np.float32))


def write(path: Path, showers: Showers, geometry: Geometry = TINY) -> Path:
    with ShowerWriter(path, geometry) as writer:
        writer.append(showers)
    return path


def counts(*inside: int) -> Counts:
    found = Counts(AXIS)
    found.inside = np.array(inside)
    return found


def draws(folder: Path, scales: Sequence[float], seeds: Sequence[int]) -> list[Path]:
    return [
        write(folder / f"draw{k}.h5", made(500, seed, scale))
        for k, (scale, seed) in enumerate(zip(scales, seeds, strict=True))
    ]


@pytest.fixture(scope="module")
def reference() -> Features:
    return Features.of(made(800, 1), TINY)


def test_a_band_by_hand() -> None:
    band = Band.between([counts(10, 20, 10, 0), counts(20, 20, 0, 0)])
    # densities per bin of width 1/2: (1/2, 1, 1/2, 0) and (1, 1, 0, 0)
    np.testing.assert_allclose(band.deviation, [0.5 / np.sqrt(2), 0.0, 0.5 / np.sqrt(2), 0.0])
    errors = np.sqrt([[10, 20, 10, 0], [20, 20, 0, 0]]) / 40 / 0.5
    np.testing.assert_allclose(band.counting, np.sqrt((errors**2).mean(axis=0)))


def test_draws_of_one_law_differ_by_their_counting_errors() -> None:
    rng = np.random.default_rng(0)
    same = [counts(*rng.poisson([400, 900, 100, 2500])) for _ in range(400)]
    band = Band.between(same)
    np.testing.assert_allclose(band.deviation[[0, 2]], band.counting[[0, 2]], rtol=0.15)
    assert (band.deviation < 1.15 * band.counting).all()
    spread = [counts(*rng.poisson(np.array([400, 900, 100, 2500]) * rng.lognormal(0, 0.3, 4))) for _ in range(400)]
    assert (Band.between(spread).deviation > 1.5 * Band.between(spread).counting)[[0, 1, 3]].all()


def test_counts_are_those_of_the_whole_files(
    tmp_path: Path, reference: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, sizes = ShowerReader.read, []

    def watched(reader: ShowerReader, start: int, stop: int, *rest: Any) -> Showers:
        sizes.append(stop - start)
        return read(reader, start, stop, *rest)

    monkeypatch.setattr(ShowerReader, "read", watched)
    monkeypatch.setattr(bands, "CHUNK", 70)
    files = draws(tmp_path, (1.0, 1.3, 0.8), (3, 4, 5))
    found = measure_bands("model", files, TINY, reference)
    assert max(sizes) == 70
    assert sum(sizes) == 1500
    known = quantities(reference, TINY)
    assert set(found.histograms) == {VOXELS, *(quantity.name for quantity in known)}
    samples = [read_showers(path, TINY) for path in files]
    for quantity in (known[0], known[-1]):
        density = []
        for showers in samples:
            whole = Counts(quantity.axis)
            whole.fill(quantity.values(Features.of(showers, TINY)))
            density.append(whole.density()[0])
        np.testing.assert_allclose(found.histograms[quantity.name].deviation, np.std(density, axis=0, ddof=1))
    spectra = []
    for showers in samples:
        whole = Counts(spectrum_axis(reference, TINY))
        whole.fill(showers.voxels[showers.voxels >= TINY.threshold])
        spectra.append(whole.density()[0])
    np.testing.assert_allclose(found.histograms[VOXELS].deviation, np.std(spectra, axis=0, ddof=1))


def test_how_far_draws_differ_in_counting_errors(tmp_path: Path, reference: Features) -> None:
    def measured(folder: str, scales: Sequence[float], seeds: Sequence[int]) -> Bands:
        (tmp_path / folder).mkdir()
        return measure_bands("model", draws(tmp_path / folder, scales, seeds), TINY, reference)

    same_law = measured("law", (1.0,) * 8, range(8))
    assert same_law.over_counting() == pytest.approx(1.0, abs=0.1)
    assert same_law.as_dict()["draws"] == 8
    assert same_law.showers == (500,) * 8
    assert measured("copies", (1.0,) * 3, (7, 7, 7)).over_counting() < 1e-9
    assert measured("apart", (0.3, 1.0, 3.0), (1, 2, 3)).over_counting() > 1.5


def test_bands_go_into_the_result_and_the_table(tmp_path: Path) -> None:
    files = draws(tmp_path, (0.9, 1.0, 1.1), (3, 4, 5))
    truth, model = write(tmp_path / "truth.h5", made(1000, 1)), write(tmp_path / "model.h5", made(500, 2))
    options = replace(QUICK, bands={"model": files})
    result = evaluate(truth, {"model": model, "plain": model}, TINY, tmp_path / "out", options)
    stored = read_json(tmp_path / "out" / "evaluation.json")["samples"]
    assert stored["model"]["band"]["files"] == [str(path) for path in files]
    for name, histogram in stored["model"]["histograms"].items():
        band = histogram["band"]
        assert len(band["edges"]) - 1 == len(band["density"]) == len(band["deviation"]) == len(band["counting"]), name
    response = stored["model"]["histograms"]["response"]["band"]
    assert sum(response["density"]) * (response["edges"][1] - response["edges"][0]) == pytest.approx(1.0, abs=0.05)
    assert all("band" not in histogram for histogram in stored["plain"]["histograms"].values())
    rows = dict(table_rows(result))
    cells = rows["spread over draws of the weights, in counting errors"]
    assert "(3 draws)" in cells[0]
    assert cells[1:] == ["–", "–"]
    assert "bands" not in result["options"]
    assert result["warnings"] == []


def test_equal_draws_are_reported(tmp_path: Path) -> None:
    files = draws(tmp_path, (1.0, 1.0), (3, 3))
    truth = write(tmp_path / "truth.h5", made(1000, 1))
    result = evaluate(truth, {"model": files[0]}, TINY, tmp_path / "out", replace(QUICK, bands={"model": files}))
    assert any("the draws of model are the same showers" in note for note in result["warnings"])


def test_a_histogram_shows_the_band_around_the_line() -> None:
    reference, other = counts(10, 20, 30, 0), counts(20, 20, 15, 5)
    band = Band(np.array([0.1, 0.2, 0.05, 3.0]), np.ones(4))
    figure = figures.histogram(reference, {"model": other, "plain": other}, bands={"model": band})
    main, lower = figure.axes
    assert [text.get_text() for text in main.get_legend().get_texts()] == ["reference", "model ± its draws", "plain"]
    density, truth = other.density()[0], reference.density()[0]

    def filled(axis: Any) -> StepPatch:
        return next(patch for patch in axis.patches[1:] if patch.get_fill() and patch.get_linewidth() == 0)

    values, _, low = filled(main).get_data()
    np.testing.assert_allclose(values, density + band.deviation)
    np.testing.assert_allclose(low, np.maximum(density - band.deviation, 0.0))
    values, _, low = filled(lower).get_data()
    np.testing.assert_allclose(values[:3], ((density + band.deviation) / np.where(truth > 0, truth, 1.0))[:3])
    assert np.isnan(values[3])


def test_wrong_bands_are_refused(tmp_path: Path, reference: Features) -> None:
    files = draws(tmp_path, (1.0, 1.1), (3, 4))
    truth = write(tmp_path / "truth.h5", made(40, 1))
    with pytest.raises(ConfigError, match="a band belongs to 'ghost', the candidates are model"):
        evaluate(truth, {"model": files[0]}, TINY, tmp_path / "out", replace(QUICK, bands={"ghost": files}))
    for few in ([], files[:1], [files[0], files[0]]):
        with pytest.raises(ConfigError, match="at least two draws, all different"):
            measure_bands("model", few, TINY, reference)
    other = write(tmp_path / "other.h5", made(20, 1), OTHER)
    with pytest.raises(GeometryError, match="whose cells are not those of tiny"):
        measure_bands("model", [files[0], other], TINY, reference)
    more = replace(TINY, layers=(*TINY.layers, Layer.polar(2, 4, (0, 5, 10))))
    with pytest.raises(ShowerDataError, match="has the shape"):
        measure_bands("model", files, more, Features.of(Showers(np.ones(2), np.ones((2, 24))), more))
    with pytest.raises(StorageError, match="no such file"):
        measure_bands("model", [files[0], tmp_path / "none.h5"], TINY, reference)
