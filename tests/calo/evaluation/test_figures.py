"""Every figure is drawn without a warning, for polar, ragged and rectangular cells, and shows what it should."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometries import GEOMETRIES, geometry
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.evaluation import comparison_figures, figures, shower_figures
from nisampler.calo.evaluation.correlations import layer_correlations
from nisampler.calo.evaluation.features import Features
from nisampler.calo.evaluation.histograms import Counts
from nisampler.calo.evaluation.measure import Measured, layer_separations, measure
from nisampler.calo.evaluation.published import GEANT4, PUBLISHED, Speed
from nisampler.calo.evaluation.quantities import quantities
from nisampler.ui.histograms import Axis
from nisampler.ui.plots import svg


def showers(known: Geometry, n: int, seed: int) -> Showers:
    rng = np.random.default_rng(seed)
    voxels = rng.lognormal(0.0, 2.0, (n, known.n_voxels)) * (rng.random((n, known.n_voxels)) > 0.7)
    return Showers(known.incident.sample(n, rng), voxels.astype(np.float32))


def samples(known: Geometry) -> tuple[Measured, Measured]:
    first, second = showers(known, 60, 0), showers(known, 60, 1)
    reference = measure("reference", "reference", "", first, known, None, first)
    return reference, measure("model", "candidate", "", second, known, reference, first)


def drawn(figure: Figure) -> None:
    assert ElementTree.fromstring(svg(figure)).tag.endswith("svg")


@pytest.mark.parametrize("name", ["toy", "ds1-pions", "calogan"])
def test_every_figure_is_drawn(name: str) -> None:
    known = geometry(name)
    reference, model = samples(known)
    others = {"model": model.features, figures.FLOOR: reference.features}
    drawn(figures.layer_profile(reference.features, others, known))
    drawn(figures.layer_occupancy(reference.features, others, known))
    drawn(figures.response(reference.features, others, known.incident))
    drawn(figures.correlations(reference.correlations, {"model": model.correlations}, known))
    drawn(figures.separations({"model": layer_separations(model, reference, known)}, known))
    drawn(shower_figures.average_showers(reference.mean, model.mean, "model", known))
    drawn(shower_figures.pairs(model.pairs, known))
    for quantity in quantities(reference.features, known)[:3]:
        counts = reference.counts[quantity.name], {"model": model.counts[quantity.name]}
        drawn(figures.histogram(*counts))
        drawn(figures.histogram(*counts, None))


def test_figures_of_many_layers_show_some_of_them() -> None:
    known = geometry("ds2")
    assert shower_figures.chosen_layers(known) == (0, 9, 18, 26, 35, 44)
    assert shower_figures.chosen_layers(geometry("toy")) == (0, 1, 2, 3, 4)
    reference, model = samples(known)
    figure = shower_figures.average_showers(reference.mean, model.mean, "model", known)
    meshes = [item for axis in figure.axes for item in axis.collections if isinstance(item, QuadMesh)]
    assert len([mesh for mesh in meshes if mesh.axes.get_aspect() == 1.0]) == 18
    drawn(figures.separations({"model": layer_separations(model, reference, known)}, known))


def test_a_histogram_has_a_step_for_each_sample_and_their_ratio() -> None:
    axis = Axis("x", "$x$", np.linspace(0.0, 1.0, 5))
    reference, other = Counts(axis), Counts(axis)
    reference.inside, other.inside = np.array([10, 20, 30, 0]), np.array([20, 20, 15, 5])
    main, lower = figures.histogram(reference, {"model": other}).axes
    assert [text.get_text() for text in main.get_legend().get_texts()] == ["reference", "model"]
    density = [patch.get_data().values for patch in main.patches]
    np.testing.assert_allclose(density[0], np.array([10, 20, 30, 0]) / 60 / 0.25)
    np.testing.assert_allclose(density[-1], np.array([20, 20, 15, 5]) / 60 / 0.25)
    np.testing.assert_allclose(lower.patches[-1].get_data().values, [2.0, 1.0, 0.5, np.nan])
    assert lower.get_xlabel() == "$x$"


def test_histograms_without_entries_are_drawn() -> None:
    axis = Axis("e", "E", np.geomspace(1.0, 1e3, 5), log=True)
    drawn(figures.histogram(Counts(axis), {"model": Counts(axis)}))


def test_samples_differ_in_colour_and_dashes_and_the_floor_is_grey() -> None:
    looks = figures.lines(["a", "b", figures.FLOOR, "c", "d"])
    assert len({(look["color"], str(look["linestyle"])) for look in looks.values()}) == 5
    assert len({look["color"] for look in looks.values()}) == len({str(look["linestyle"]) for look in looks.values()})
    assert looks[figures.FLOOR]["color"] == figures.SOFT
    many = figures.lines([*(str(i) for i in range(9)), figures.CONTROL])
    assert len({(look["color"], str(look["linestyle"])) for look in many.values()}) == 10
    assert many[figures.CONTROL]["color"] not in {look["color"] for name, look in many.items() if name.isdigit()}


def test_figures_of_a_layer_show_the_showers_that_reach_it() -> None:
    """A layer with energy in a quarter of the showers has no peak at zero, and bins that are wider than cells."""
    known = geometry("toy")
    data = showers(known, 200, 3)
    data.voxels[50:, known.slice(4)] = 0.0
    found = measure("reference", "reference", "", data, known, None, data)
    assert found.counts["eta_4"].inside.sum() == 200 and found.drawn["eta_4"].inside.sum() == 50
    assert len(found.drawn["eta_4"].inside) == 25 and len(found.drawn["eta_3"].inside) == 100
    assert found.drawn["sparsity_4"].total == 200
    figure = figures.layer_occupancy(found.features, {"model": found.features}, known)
    np.testing.assert_allclose(figure.axes[0].patches[0].get_data().values, [1, 1, 1, 1, 0.25])


def test_one_odd_loss_does_not_squash_the_others() -> None:
    history = [{"epoch": e, "loss": 20.0 - e, "validation": 42484.0 if e == 5 else 21.0 - e} for e in range(1, 11)]
    low, high = figures.training({"voxels": history}).axes[0].get_ylim()
    assert 9.0 < low < 10.0 and 20.0 < high < 22.0


def test_cells_are_drawn_where_they_are() -> None:
    known = geometry("toy")
    voxels = np.zeros(known.n_voxels)
    alpha, ring = 2, 3
    voxels[alpha * 6 + ring] = 7.0
    figure = shower_figures.average_showers(voxels, voxels, "model", known)
    mesh = next(item for item in figure.axes[0].collections if isinstance(item, QuadMesh))
    values = np.ma.filled(mesh.get_array(), 0.0)
    corners = np.asarray(mesh.get_coordinates())
    lit = corners[:-1, :-1][values.reshape(corners.shape[0] - 1, -1) == 7.0]
    angles, radii = np.arctan2(lit[:, 1], lit[:, 0]), np.hypot(lit[:, 0], lit[:, 1])
    low, high = known.layers[0].first[alpha : alpha + 2]
    assert (angles > low - 1e-9).all()
    assert (angles < high).all()
    np.testing.assert_allclose(radii, ring)


def test_scores_show_every_training() -> None:
    figure = comparison_figures.scores({"low": {"model": [0.6, 0.62], figures.FLOOR: [0.5]}, "high": {"model": [0.7]}})
    points = [x for line in figure.axes[0].lines if line.get_marker() == "o" for x in line.get_xdata()]
    assert sorted(points) == [0.5, 0.6, 0.62, 0.7]
    drawn(figure)


def timed(auc: float, error: float | None, device: str = "cpu") -> Speed:
    return Speed(auc, error, {(device, 1): 30.0, (device, 100): 2.0})


def points(figure: Figure, colour: str) -> set[tuple[float, float, str]]:
    """Time, AUC and marker of what is drawn in a colour."""
    found = set()
    for line in figure.axes[0].lines:
        if line.get_color() == colour and line.get_marker() in comparison_figures._MARKERS:
            found |= {(float(x), float(y), line.get_marker()) for x, y in zip(*line.get_data(), strict=True)}
    return found


def test_time_and_auc_of_each_model_are_drawn() -> None:
    models = {"teacher": timed(0.7, 0.02), "student": timed(0.8, None, "cuda")}
    figure = comparison_figures.auc_time(models, Speed(0.5, 0.01), "small-low")
    looks = figures.lines(list(models))
    assert points(figure, looks["teacher"]["color"]) == {(30.0, 0.7, "o"), (2.0, 0.7, "s")}
    assert points(figure, looks["student"]["color"]) == {(30.0, 0.8, "o"), (2.0, 0.8, "s")}
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["teacher", "student", "batch 1", "batch 100", "open: GPU"]
    assert figure.axes[0].get_xscale() == "log"
    assert any(list(line.get_ydata()) == [0.5, 0.5] for line in figure.axes[0].lines)
    low, high = figure.axes[0].get_ylim()
    assert low < 0.49 and high > 0.8
    drawn(figure)
    drawn(comparison_figures.auc_time({"one": Speed(0.9, None, {("cpu", 7): 5.0})}, Speed(0.5, None), "small-high"))


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_models_stand_beside_ones_own(name: str) -> None:
    assert name in GEOMETRIES
    figure = comparison_figures.auc_time({"own": timed(0.7, 0.02)}, Speed(0.5, 0.01), "low", PUBLISHED[name])
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert {f"{GEANT4}, published", *PUBLISHED[name]} - {GEANT4} <= set(shown)
    assert any("published" in text.get_text() for text in figure.legends[0].get_texts())
    fastest, slowest = figure.axes[0].get_xlim()
    times = [time for speed in PUBLISHED[name].values() for time in speed.milliseconds.values()]
    assert fastest < min(times) and max(times) < slowest
    drawn(figure)


def test_published_numbers() -> None:
    """A few of tables of 2410.21611."""
    assert PUBLISHED["ds1-photons"]["CaloINN"].auc == 0.6259
    assert PUBLISHED["ds1-pions"][GEANT4].auc == 0.6089
    assert PUBLISHED["ds2"]["conv. L2LFlows"].milliseconds == {
        ("cpu", 1): 1970,
        ("cpu", 100): 121,
        ("cpu", 10_000): 89.2,
    }
    assert ("cpu", 10_000) not in PUBLISHED["ds3"]["CaloDREAM"].milliseconds
    for table in PUBLISHED.values():
        aucs = [speed.auc for speed in table.values()]
        assert aucs == sorted(aucs)
        assert all(speed.error is not None and 0 < speed.error < 0.02 for speed in table.values())


@pytest.mark.parametrize("count", [2, 4, 12])
def test_posteriors_have_a_row_for_the_reference_and_each_sample(count: int) -> None:
    names = [f"a model called {letter}" for letter in "abcdefghijkl"[:count]]
    confusion = np.log(np.full((count, count), 0.1) + 0.8 * np.eye(count))
    figure = comparison_figures.posteriors(names, confusion[0], confusion)
    axis = figure.axes[0]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["reference", *names]
    assert [text.get_text() for text in axis.get_xticklabels()] == names
    numbers = [float(text.get_text()) for text in axis.texts]
    expected = np.vstack([confusion[:1], confusion]).ravel() if count < 12 else []
    np.testing.assert_allclose(numbers, expected, atol=0.006)
    drawn(figure)


def test_training_leaves_out_what_was_not_measured() -> None:
    history = [{"epoch": 1, "loss": 3.0, "validation": None}, {"epoch": 2, "loss": 2.0, "validation": 2.5}]
    figure = figures.training({"energies": history, "voxels": history[:1]})
    assert [len(axis.lines) for axis in figure.axes] == [2, 1]
    assert figure.axes[0].lines[1].get_xdata().tolist() == [2]
    drawn(figure)


def test_response_of_discrete_energies_has_a_point_for_each() -> None:
    known = geometry("ds1-photons")
    incident = np.repeat([256.0, 65536.0, 4194304.0], [20, 20, 5])
    voxels = np.zeros((45, known.n_voxels), dtype=np.float32)
    voxels[:, 100] = incident * np.tile([0.8, 1.0, 1.2, 1.0, 1.0], 9)
    features = Features.of(Showers(incident, voxels), known)
    figure = figures.response(features, {"model": features}, known.incident)
    x, y = figure.axes[0].lines[0].get_data()
    assert len(x) == 2
    np.testing.assert_allclose(y, 1.0, atol=1e-6)
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), np.std([0.8, 1.0, 1.2, 1.0, 1.0]), rtol=1e-5)
    assert layer_correlations(features.energy).shape == (5, 5)
