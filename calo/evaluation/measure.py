"""What is measured of one sample of showers, and how it differs from the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.evaluation.bands import VOXELS, Band
from nisampler.calo.evaluation.conditions import compared_by_condition
from nisampler.calo.evaluation.correlations import layer_correlations, mean_difference, rank_correlations
from nisampler.calo.evaluation.energies import compared, gev, responses
from nisampler.calo.evaluation.features import CHUNK, Features
from nisampler.calo.evaluation.histograms import Counts, Difference, wasserstein
from nisampler.calo.evaluation.neighbours import Neighbours, nearest
from nisampler.calo.evaluation.quantities import FAMILIES, Quantity, quantities, spectrum_axis
from nisampler.errors import ShowerDataError
from nisampler.ui.histograms import Axis

Floats = NDArray[np.float64]
Kind = Literal["reference", "candidate", "floor", "control"]

_WATCHED = 200
"""Showers whose nearest reference shower is looked for."""

_SHOWN = (0.25, 0.6, 0.95)
"""Those at these quantiles of the incident energy are drawn."""


@dataclass(frozen=True)
class Measured:
    """A sample without its showers.

    Attributes
    ----------
    name, kind, source
        What figures call it, what it is for, and the file it came from.
    features
        Of all its showers.
    mean
        (n_voxels,) average shower in MeV.
    counts, drawn
        Histograms of the quantities by name: of all showers in the bins of the CaloChallenge, and as figures show them.
    spectrum
        Energies of the voxels that are not empty.
    correlations
        (L, L) rank correlations of the layer energies.
    neighbours
        Of the first showers; None of the reference itself.
    pairs
        Label and voxels of a few showers, each followed by its neighbour.
    bands
        Spread of the histograms over draws of the weights, by name; empty where there are none.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> showers = Showers(np.array([1e3, 2e3]), np.random.default_rng(0).random((2, 240)))
    >>> measure("reference", "reference", "a.h5", showers, geometry("toy"), None, showers).mean.shape
    (240,)
    """

    name: str
    kind: Kind
    source: str
    features: Features
    mean: Floats
    counts: dict[str, Counts]
    drawn: dict[str, Counts]
    spectrum: Counts
    correlations: Floats
    neighbours: Neighbours | None = None
    pairs: tuple[tuple[str, NDArray[np.float32]], ...] = ()
    bands: Mapping[str, Band] = field(default_factory=dict)


def measure(
    name: str,
    kind: Kind,
    source: str,
    showers: Showers,
    geometry: Geometry,
    reference: Measured | None,
    against: Showers,
) -> Measured:
    """Measure a sample.

    Parameters
    ----------
    name, kind, source, showers
        The sample.
    geometry
        Its cells; those below the threshold count as empty.
    reference
        Its histograms give the bins; None measures the reference itself.
    against
        Showers of the reference, among which neighbours are looked for.

    Raises
    ------
    ShowerDataError
        If there are fewer than two showers.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> showers = Showers(np.array([1e3, 2e3]), np.random.default_rng(0).random((2, 240)))
    >>> reference = measure("reference", "reference", "a.h5", showers, geometry("toy"), None, showers)
    >>> model = measure("model", "candidate", "b.h5", showers, geometry("toy"), reference, showers)
    >>> model.neighbours.distance
    array([0., 0.])
    """
    if len(showers) < 2:
        raise ShowerDataError(f"{name} has {len(showers)} showers; an evaluation needs at least two, better thousands")
    features = Features.of(showers, geometry)
    base = features if reference is None else reference.features
    counts, drawn = {}, {}
    for quantity in quantities(base, geometry):
        counts[quantity.name] = Counts(quantity.axis)
        counts[quantity.name].fill(quantity.values(features))
        drawn[quantity.name] = Counts(quantity.drawn_axis(base))
        drawn[quantity.name].fill(quantity.drawn(features))
    mean, spectrum = _voxels(showers, geometry, spectrum_axis(base, geometry))
    matrix = rank_correlations(features.energy)
    if reference is None:
        return Measured(name, kind, source, features, mean, counts, drawn, spectrum, matrix)
    watched = showers[:_WATCHED]
    near = nearest(watched, against, geometry)
    order = np.argsort(watched.incident, kind="stable")
    pairs = []
    for quantile in _SHOWN:
        index = int(order[int(quantile * (len(watched) - 1))])
        other = int(near.index[index])
        pairs.append((f"{name}\n{gev(watched.incident[index])}", watched.voxels[index]))
        pairs.append((f"nearest\n{gev(against.incident[other])}", against.voxels[other]))
    return Measured(name, kind, source, features, mean, counts, drawn, spectrum, matrix, near, tuple(pairs))


def _voxels(showers: Showers, geometry: Geometry, axis: Axis) -> tuple[Floats, Counts]:
    """The average shower and the spectrum of the voxels that are not empty."""
    total, spectrum = np.zeros(geometry.n_voxels), Counts(axis)
    for start in range(0, len(showers), CHUNK):
        block = showers.voxels[start : start + CHUNK]
        lit = np.where(block >= geometry.threshold, block, 0.0)
        total += lit.sum(axis=0, dtype=np.float64)
        spectrum.fill(lit[lit > 0])
    return total / len(showers), spectrum


def differences(sample: Measured, reference: Measured, geometry: Geometry) -> dict[str, Any]:
    """How far a sample is from the reference in everything but classifiers and distances, as JSON data.

    >>> from nisampler.calo.detector.geometries import geometry
    >>> showers = Showers(np.array([1e3, 2e3]), np.random.default_rng(0).random((2, 240)))
    >>> reference = measure("reference", "reference", "a.h5", showers, geometry("toy"), None, showers)
    >>> model = measure("model", "candidate", "b.h5", showers, geometry("toy"), reference, showers)
    >>> differences(model, reference, geometry("toy"))["separation"]["total"]
    {'mean': 0.0, 'largest': 0.0}
    """
    found = _compared(sample, reference, geometry)
    families: dict[str, list[float]] = {}
    histograms: dict[str, Any] = {VOXELS: _as_json(Difference.between(reference.spectrum, sample.spectrum))}
    for quantity, difference in found:
        distance, scaled = wasserstein(quantity.values(reference.features), quantity.values(sample.features))
        shares = {"wasserstein": distance, "wasserstein_scaled": scaled}
        histograms[quantity.name] = _as_json(difference) | shares
        families.setdefault(quantity.family, []).append(difference.separation)
    for name, band in sample.bands.items():
        histograms[name]["band"] = _band_json(band, sample.spectrum if name == VOXELS else sample.counts[name])
    return {
        "histograms": histograms,
        "separation": {name: {"mean": float(np.mean(row)), "largest": max(row)} for name, row in families.items()},
        "correlations": {
            "mean_difference": mean_difference(reference.correlations, sample.correlations),
            "mean_difference_pearson": mean_difference(
                layer_correlations(reference.features.energy), layer_correlations(sample.features.energy)
            ),
        },
        "summary": _summary(sample.features, reference.features, geometry),
        "energies": compared(
            responses(sample.features, geometry.incident), responses(reference.features, geometry.incident)
        ),
        **_by_condition(sample.features, reference.features, geometry),
        "filled": _filled(sample.features, reference.features),
        "copies": _copies(sample),
    }


def _by_condition(sample: Features, reference: Features, geometry: Geometry) -> dict[str, Any]:
    return {"conditions": compared_by_condition(sample, reference, geometry)} if geometry.conditions else {}


def layer_separations(sample: Measured, reference: Measured, geometry: Geometry) -> dict[str, dict[int, float]]:
    """Separation power by family and position of the layer.

    >>> from nisampler.calo.detector.geometries import geometry
    >>> showers = Showers(np.array([1e3, 2e3]), np.random.default_rng(0).random((2, 240)))
    >>> reference = measure("reference", "reference", "a.h5", showers, geometry("toy"), None, showers)
    >>> layer_separations(reference, reference, geometry("toy"))["energy"]
    {0: 0.0, 1: 0.0, 2: 0.0, 3: 0.0, 4: 0.0}
    """
    table: dict[str, dict[int, float]] = {family: {} for family in FAMILIES}
    for quantity, difference in _compared(sample, reference, geometry):
        if quantity.layer is not None:
            table[quantity.family][quantity.layer] = difference.separation
    return table


def _compared(sample: Measured, reference: Measured, geometry: Geometry) -> list[tuple[Quantity, Difference]]:
    return [
        (quantity, Difference.between(reference.counts[quantity.name], sample.counts[quantity.name]))
        for quantity in quantities(reference.features, geometry)
    ]


def _as_json(found: Difference) -> dict[str, Any]:
    return {
        "separation": found.separation,
        "chi2": found.chi2,
        "degrees_of_freedom": found.degrees,
        "outside_reference": found.outside[0],
        "outside": found.outside[1],
    }


def _band_json(band: Band, counts: Counts) -> dict[str, list[float]]:
    """A band with the histogram that it belongs to."""
    return {
        "edges": counts.axis.edges.tolist(),
        "density": counts.density()[0].tolist(),
        "deviation": band.deviation.tolist(),
        "counting": band.counting.tolist(),
    }


def _summary(features: Features, reference: Features, geometry: Geometry) -> dict[str, float]:
    """Mean and width of E_tot/E_inc and occupancy, and their ratios to the reference."""
    occupancy = features.occupancy(geometry).mean(), reference.occupancy(geometry).mean()
    mean, width = features.response.mean(), features.response.std()
    true_mean, true_width = reference.response.mean(), reference.response.std()
    return {
        "response_mean": float(mean),
        "response_width": float(width),
        "occupancy": float(occupancy[0]),
        "response_mean_ratio": float(mean / true_mean) if true_mean else 0.0,
        "response_width_ratio": float(width / true_width) if true_width else 0.0,
        "occupancy_ratio": float(occupancy[0] / occupancy[1]) if occupancy[1] else 0.0,
    }


def _filled(features: Features, reference: Features) -> dict[str, Any]:
    """Share of the showers with energy in each layer, and its largest difference to the reference."""
    shares, true = features.filled.mean(axis=0), reference.filled.mean(axis=0)
    return {
        "layers": shares.tolist(),
        "reference": true.tolist(),
        "largest_difference": float(np.abs(shares - true).max()),
    }


def _copies(sample: Measured) -> dict[str, float] | None:
    """How close the nearest reference showers are: a model that copies has some at zero, the floor has none.

    It tells copies from showers of their own, not good ones from bad ones; empty showers are no copies.
    """
    if sample.neighbours is None:
        return None
    distance = sample.neighbours.distance
    copies = (distance == 0.0) & (sample.features.total[: len(distance)] > 0.0)
    return {
        "showers": len(distance),
        "copies": int(np.count_nonzero(copies)),
        "median_distance": float(np.median(distance)),
        "smallest_distance": float(distance.min()),
    }
