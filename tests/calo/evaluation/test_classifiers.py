"""Inputs, training and figures of merit of the binary classifiers, on simulated showers of the toy calorimeter."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from nisampler.base.rng import Streams
from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometries import geometry
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.evaluation.classifiers import (
    CLASSIFIERS,
    classifier_config,
    classify,
    classify_many,
)
from nisampler.calo.evaluation.controls import shuffle_voxels
from nisampler.calo.evaluation.features import Features
from nisampler.calo.evaluation.fitting import Classifier, ClassifierConfig
from nisampler.calo.evaluation.inputs import INPUTS, input_kind, input_vectors
from nisampler.calo.evaluation.splitting import split_classes
from nisampler.calo.simulation.simulator import simulator
from nisampler.errors import ConfigError, GeometryError, ShowerDataError, TrainingDivergedError
from nisampler.ui.monitor import Monitor

TOY = geometry("toy")
SMALL = replace(CLASSIFIERS["small-low"], hidden=(64, 64), epochs=8, batch=128)


def _simulate(n: int, seed: int) -> Showers:
    rng = np.random.default_rng(seed)
    incident = TOY.incident.sample(n, rng)
    return Showers(incident, simulator(TOY).simulate(incident, rng))


@pytest.fixture(scope="module")
def samples() -> tuple[Showers, Showers]:
    return _simulate(3000, 1), _simulate(3000, 2)


def _showers(cells: Mapping[int, float], incident: float = 1000.0) -> Showers:
    voxels = np.zeros((1, TOY.n_voxels), dtype=np.float32)
    for voxel, energy in cells.items():
        voxels[0, voxel] = energy
    return Showers(np.array([incident]), voxels)


def test_low_level_inputs_by_hand() -> None:
    x = input_vectors(_showers({0: 30.0, 5: 10.0, 48: 5.0, 50: 0.9 * TOY.threshold}), TOY, "low")[0]
    assert x.shape == (1 + TOY.n_voxels,)
    assert x[0] == pytest.approx(3.0)
    assert [float(x[1 + k]) for k in (0, 5, 48, 50)] == pytest.approx([0.03, 0.01, 0.005, 0.0])


def test_normalised_inputs_by_hand() -> None:
    x = input_vectors(_showers({0: 30.0, 5: 10.0, 48: 5.0}), TOY, "low-normed")[0]
    assert x.shape == (1 + TOY.n_voxels + TOY.n_layers,)
    assert [float(x[1 + k]) for k in (0, 5, 48)] == pytest.approx([0.75, 0.25, 1.0])
    assert x[1 + TOY.n_voxels :].tolist() == pytest.approx([math.log10(40 + 1e-8), math.log10(5 + 1e-8), -8, -8, -8])


def test_logarithmic_inputs_by_hand() -> None:
    shower = _showers({0: 30.0, 5: 10.0, 50: 0.9 * TOY.threshold})
    floor = math.log10(0.5 * TOY.threshold)
    x = input_vectors(shower, TOY, "log-low")[0]
    assert [float(x[k]) for k in (0, 1, 6, 51)] == pytest.approx([3.0, math.log10(30), 1.0, floor], abs=1e-6)
    x = input_vectors(shower, TOY, "log-hits")[0]
    assert x.shape == (2 + 2 * TOY.n_voxels + TOY.n_layers,)
    unit = math.log10(TOY.threshold)
    expected = [3.0, math.log10(30) - unit, 1.0 - unit, 0.0, 0.0]
    assert [float(x[k]) for k in (0, 1, 6, 7, 51)] == pytest.approx(expected, abs=1e-6)
    hits = x[1 + TOY.n_voxels : 1 + 2 * TOY.n_voxels]
    assert torch.nonzero(hits)[:, 0].tolist() == [0, 5]
    ratios = [math.log10(0.04), *[floor - 3] * 4, math.log10(0.04)]
    assert x[1 + 2 * TOY.n_voxels :].tolist() == pytest.approx(ratios, abs=1e-6)
    y = input_vectors(shower, TOY, "high-ratios")[0]
    assert y[-len(ratios) :].tolist() == pytest.approx(ratios, abs=1e-6)


@pytest.mark.parametrize(("name", "columns"), [("ds1-photons", 30), ("ds1-pions", 46), ("ds2", 362)])
def test_high_level_inputs_have_the_published_length(name: str, columns: int) -> None:
    cells = geometry(name)
    showers = Showers(np.array([2000.0]), np.ones((1, cells.n_voxels), dtype=np.float32))
    x = input_vectors(showers, cells, "high")
    assert x.shape == (1, columns)
    np.testing.assert_array_equal(x.numpy(), Features.of(showers, cells).high_level_vector())


@pytest.mark.parametrize("name", INPUTS)
def test_empty_showers_and_empty_layers_give_finite_inputs(name: str) -> None:
    assert torch.isfinite(input_vectors(_showers({}), TOY, name)).all()


def test_the_precision_of_the_incident_energy_cannot_be_learnt() -> None:
    rounded = float(np.float32(1234.56789))
    for name in INPUTS:
        x, y = (input_vectors(_showers({3: 1.0}, energy), TOY, name) for energy in (1234.56789, rounded))
        assert torch.equal(x, y)


def test_published_networks() -> None:
    for name, geometry_name, millions in (("challenge-low", "ds1-photons", 9.15), ("challenge-low", "ds1-pions", 9.49),
                                          ("challenge-low", "ds2", 21.7)):  # fmt: skip
        cells = geometry(geometry_name)
        inputs = Showers(np.array([2000.0]), np.ones((1, cells.n_voxels), dtype=np.float32))
        columns = input_kind("low").columns(inputs, cells)
        network = Classifier(cells, CLASSIFIERS[name], [columns, columns], Streams(0)).network
        assert sum(weight.numel() for weight in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_split_is_disjoint_reproducible_and_balanced() -> None:
    parts = split_classes([100, 130], (0.6, 0.2, 0.2), Streams(3))
    again = split_classes([100, 130], (0.6, 0.2, 0.2), Streams(3))
    for part, same, size in zip(parts, again, (100, 130), strict=True):
        rows = np.concatenate([part.train, part.selection, part.test])
        assert [len(part.train), len(part.selection), len(part.test)] == [60, 20, 20]
        assert len(set(rows.tolist())) == 100 and rows.max() < size
        np.testing.assert_array_equal(part.train, same.train)


def test_shuffled_voxels_are_found_and_the_floor_is_half(samples: tuple[Showers, Showers]) -> None:
    reference, other = samples
    shuffled = shuffle_voxels(other, TOY, np.random.default_rng(3), None)
    broken = classify(reference, shuffled, TOY, SMALL, seed=1)
    assert broken.auc > 0.9
    assert 0.3 < broken.jsd <= 1.0
    assert broken.accuracy > 0.8
    equal = classify(reference, other, TOY, SMALL, seed=1)
    assert equal.auc == pytest.approx(0.5, abs=0.06)  # 3 standard deviations for 600 + 600 showers
    assert equal.jsd < 0.05  # with 600 + 600 showers the calibration costs more than it gains
    assert equal.log_loss == pytest.approx((1 - equal.jsd) * math.log(2))


def test_a_wrong_energy_scale_is_found_by_the_sums(samples: tuple[Showers, Showers]) -> None:
    reference, other = samples
    scaled = Showers(other.incident, other.voxels * np.float32(1.2))
    assert classify(reference, scaled, TOY, SMALL, seed=1).auc > 0.7


def test_high_level_classifier(samples: tuple[Showers, Showers]) -> None:
    reference, other = samples
    config = replace(CLASSIFIERS["small-high"], hidden=(32, 32), epochs=8, batch=128)
    shuffled = shuffle_voxels(other, TOY, np.random.default_rng(3), None)
    assert classify(reference, shuffled, TOY, config, seed=1).auc > 0.9
    assert classify(reference, other, TOY, config, seed=1).auc == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_runs_and_names_itself(name: str, samples: tuple[Showers, Showers]) -> None:
    config = replace(CLASSIFIERS[name], epochs=1, hidden=(16,) if CLASSIFIERS[name].hidden else ())
    found = classify(samples[0][:200], samples[1][:150], TOY, config, seed=0)
    assert (found.name, found.version, found.seed) == (name, config.version, 0)
    assert (found.n_train, found.n_selection, found.n_test) == (90, 30, 30)
    assert (found.unused_reference, found.unused_generated) == (50, 0)
    assert (found.epochs_run, found.best_epoch) == (1, 1)
    assert 0.0 <= found.auc <= 1.0
    assert json.loads(json.dumps(found.as_dict()))["auc"] == found.auc


def test_the_seed_determines_the_result(samples: tuple[Showers, Showers]) -> None:
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    config = replace(SMALL, epochs=2)
    first, again, other = (classify(*(s[:400] for s in samples), TOY, config, seed) for seed in (4, 4, 5))
    assert first == again
    assert first.auc != other.auc
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)


def test_several_trainings(samples: tuple[Showers, Showers]) -> None:
    config = replace(SMALL, epochs=2)
    found = classify_many(samples[0][:300], samples[1][:300], TOY, config, [1, 2, 3])
    aucs = [result.auc for result in found.results]
    assert found.mean("auc") == pytest.approx(np.mean(aucs))
    assert found.std("auc") == pytest.approx(np.std(aucs, ddof=1))
    assert json.loads(json.dumps(found.as_dict()))["jsd_std"] == pytest.approx(found.std("jsd"))
    single = classify_many(samples[0][:300], samples[1][:300], TOY, config, [1])
    assert single.as_dict()["auc_std"] is None
    assert single.mean("auc") == aucs[0]


def test_early_stopping_keeps_the_best_epoch(samples: tuple[Showers, Showers]) -> None:
    class Recorder(Monitor):
        epochs: list[tuple[int, int]] = []  # noqa: RUF012

        def line(self, text: str) -> None:
            raise AssertionError(text)

        def progress(self, stage: str, done: int, total: int, figures: Mapping[str, str]) -> None:
            self.epochs.append((done, total))

    config = replace(SMALL, epochs=40, patience=2, dropout=0.0, schedule="constant")
    found = classify(samples[0][:400], samples[1][:400], TOY, config, 1, monitor=Recorder())
    assert found.best_epoch + 2 == found.epochs_run < 40
    assert Recorder.epochs[-1] == (40, 40)


def test_wrong_showers_are_refused(samples: tuple[Showers, Showers]) -> None:
    reference, generated = (sample[:200] for sample in samples)
    nan = Showers(generated.incident, generated.voxels.copy())
    nan.voxels[17, 3] = math.nan
    with pytest.raises(ShowerDataError, match="generated showers: event 17, voxel 3"):
        classify(reference, nan, TOY, SMALL, 0)
    cold = Showers(np.zeros(200), reference.voxels)
    with pytest.raises(ShowerDataError, match="reference showers: event 0 has the incident energy 0"):
        classify(cold, generated, TOY, SMALL, 0)
    with pytest.raises(GeometryError, match="generated showers have 239 cells, but toy has 240"):
        classify(reference, Showers(generated.incident, generated.voxels[:, 1:]), TOY, SMALL, 0)
    with pytest.raises(ShowerDataError, match="use more showers"):
        classify(reference, generated[:40], TOY, SMALL, 0)


def test_the_convolutional_classifier_needs_a_grid() -> None:
    cells: Geometry = geometry("ds1-photons")
    showers = Showers(np.full(60, 2000.0), np.ones((60, cells.n_voxels), dtype=np.float32))
    with pytest.raises(GeometryError, match="same cells in every layer"):
        classify(showers, showers, cells, CLASSIFIERS["cnn-resnet"], 0)


def test_divergence_is_reported(samples: tuple[Showers, Showers]) -> None:
    config = replace(SMALL, learning_rate=1e30, schedule="constant")
    with pytest.raises(TrainingDivergedError, match="lower learning_rate"):
        classify(samples[0][:200], samples[1][:200], TOY, config, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": "voxels"}, "inputs must be one of low"),
        ({"network": "tree"}, "network = .*mlp"),
        ({"epochs": 0}, "epochs = 0: must be .*at least 1"),
        ({"batch": 1}, "batch = 1: must be .*at least 2"),
        ({"hidden": ()}, "width of each hidden layer"),
        ({"network": "resnet"}, "takes the inputs 'low'"),
        ({"learning_rate": 0.0}, "learning_rate = 0.*more than 0"),
        ({"dropout": 1.0}, "dropout = 1.*less than 1"),
        ({"split": (0.5, 0.5, 0.5)}, "split must be three positive shares"),
    ],
)
def test_wrong_settings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(SMALL, **change)


def test_unknown_classifier_and_seeds(samples: tuple[Showers, Showers]) -> None:
    with pytest.raises(ConfigError, match="classifier must be one of challenge-low"):
        classifier_config("best")
    assert isinstance(classifier_config("small-low"), ClassifierConfig)
    for seeds in ([], [1, 1]):
        with pytest.raises(ConfigError, match="seeds must be at least one"):
            classify_many(*samples, TOY, SMALL, seeds)
