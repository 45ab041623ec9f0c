"""The classifier over several samples: equal samples, samples far apart, and the one that is closest."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometries import geometry
from nisampler.calo.evaluation.classifiers import CLASSIFIERS
from nisampler.calo.evaluation.multiclass import multiclass
from nisampler.errors import ConfigError, GeometryError, ShowerDataError

TOY = geometry("toy")
CONFIG = replace(CLASSIFIERS["small-low"], hidden=(64, 64), epochs=10, batch=64)


def _showers(n: int, seed: int, scale: float = 1.0) -> Showers:
    """Independent log-normal cells that share the incident energy."""
    rng = np.random.default_rng(seed)
    incident = TOY.incident.sample(n, rng)
    voxels = scale * incident[:, None] / TOY.n_voxels * np.exp(rng.normal(0.0, 0.5, (n, TOY.n_voxels)))
    return Showers(incident, voxels.astype(np.float32))


def test_equal_samples_have_minus_log_n() -> None:
    samples = {name: _showers(1000, seed) for seed, name in enumerate("abc")}
    found = multiclass(_showers(400, 9), samples, TOY, CONFIG, seed=1)
    assert found.random == pytest.approx(-math.log(3))
    assert found.log_posterior == pytest.approx((found.random,) * 3, abs=0.1)
    assert found.accuracy == pytest.approx(1 / 3, abs=0.09)


@pytest.mark.parametrize("count", [2, 3])
def test_the_closest_sample_wins_and_the_confusion_is_diagonal(count: int) -> None:
    scales = {"low": 0.7, "right": 1.0, "high": 1.4}
    samples = {name: _showers(800, seed, scales[name]) for seed, name in enumerate(list(scales)[:count])}
    found = multiclass(_showers(300, 9), samples, TOY, CONFIG, seed=1)
    assert found.names == tuple(samples)
    assert found.log_posterior[1] == max(found.log_posterior)
    assert found.log_posterior[1] > -0.4
    assert found.log_posterior[0] < -2.0
    for row, posteriors in enumerate(found.confusion):
        assert np.argmax(posteriors) == row
    assert found.accuracy > 0.9


def test_result_is_reproducible_and_counts_everything() -> None:
    samples = {"a": _showers(100, 1), "b": _showers(130, 2, 1.2), "c": _showers(110, 3)}
    config = replace(CONFIG, epochs=2)
    first, again = (multiclass(_showers(50, 9), samples, TOY, config, seed=5) for _ in range(2))
    assert first == again
    assert (first.n_train, first.n_selection, first.n_test, first.unused) == (60, 20, 20, (0, 30, 10))
    assert (first.n_reference, first.classifier, first.version) == (50, config.name, config.version)
    assert json.loads(json.dumps(first.as_dict()))["names"] == ["a", "b", "c"]


def test_errors_name_what_is_wrong() -> None:
    good = _showers(100, 1)
    bad = Showers(good.incident, good.voxels.copy())
    bad.voxels[4, 7] = math.inf
    with pytest.raises(ConfigError, match="at least two models"):
        multiclass(good, {"a": good}, TOY, CONFIG, 0)
    with pytest.raises(ShowerDataError, match="b showers: event 4, voxel 7"):
        multiclass(good, {"a": good, "b": bad}, TOY, CONFIG, 0)
    with pytest.raises(ShowerDataError, match="no reference showers"):
        multiclass(good[:0], {"a": good, "b": good}, TOY, CONFIG, 0)
    with pytest.raises(GeometryError, match="reference showers have 240 cells, but ds1-photons has 368"):
        multiclass(good, {"a": good, "b": good}, geometry("ds1-photons"), CONFIG, 0)
    with pytest.raises(ShowerDataError, match="use more showers"):
        multiclass(good, {"a": good, "b": good[:20]}, TOY, CONFIG, 0)
