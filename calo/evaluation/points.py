"""What cells do not show of point clouds: numbers and energies of points, radial profile, centre of gravity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nisampler.calo.data.files import split
from nisampler.calo.data.point_files import PointReader, holds_points
from nisampler.calo.data.points import ENERGY, PointShowers, X, Y, project
from nisampler.calo.detector.geometry import Floats, Geometry

BINS = 10
"""Bins of radii and of energies of points that hold equal shares of the reference."""
# Layers with a smaller share of the points or the energy of the reference are not compared.
_SHARE = 0.01


@dataclass(frozen=True, eq=False)
class PointFeatures:
    """Point clouds as numbers.

    Attributes
    ----------
    clouds
        The points.
    numbers, energies
        Points and energy of each layer, each (n, n_layers).
    centre
        Centre of gravity of each shower, (n, 2) in mm.
    beside
        Shares of the points and of the energy that lie beside all cells.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> clouds = PointShowers(np.array([1e3]), np.array([[3, 4, 0, 5], [3, 4, 1, 5]]), np.array([2]))
    >>> found = PointFeatures.of(clouds, geometry("toy"))
    >>> found.radii, found.centre, found.beside
    (array([5., 5.]), array([[3., 4.]]), (0.0, 0.0))
    """

    clouds: PointShowers
    numbers: Floats
    energies: Floats
    centre: Floats
    beside: tuple[float, float]

    @classmethod
    def of(cls, clouds: PointShowers, geometry: Geometry) -> PointFeatures:
        """Those of clouds."""
        numbers, energies = clouds.layer_sums(geometry)
        weights, totals = clouds.points[:, ENERGY], np.maximum(clouds.totals, 1e-30)
        sums = [np.bincount(clouds.owners, weights * clouds.points[:, k], len(clouds)) for k in (X, Y)]
        found = project(clouds, geometry)
        points = float(found.outside.sum() / max(len(clouds.points), 1))
        energy = float(found.energy_outside.sum() / max(clouds.totals.sum(), 1e-30))
        return cls(clouds, numbers, energies, np.column_stack(sums) / totals[:, None], (points, energy))

    @property
    def radii(self) -> Floats:
        """Distances of the points from the axis, (m,) in mm."""
        return np.hypot(self.clouds.points[:, X], self.clouds.points[:, Y]).astype(np.float64)

    @property
    def weights(self) -> Floats:
        """Energies of the points, (m,) in MeV."""
        return self.clouds.points[:, ENERGY].astype(np.float64)

    def against(self, reference: PointFeatures) -> dict[str, float]:
        """How they differ from those of the reference, as JSON data.

        Deviations are largest |ratio - 1|: of means over layers with at least 1 % of all, and of bins that hold equal
        shares of the energy (radii) or of the points (energies) of the reference.
        """
        own, other = self.numbers.sum(axis=1), reference.numbers.sum(axis=1)
        centre, usual = self.centre.std(axis=0).mean(), reference.centre.std(axis=0).mean()
        radial = shares(self.radii, reference.radii, self.weights, reference.weights)
        spectrum = shares(self.weights, reference.weights)
        return {
            "number": _ratio(own.mean(), other.mean()),
            "number_width": _ratio(own.std(), other.std()),
            "layer_numbers": _deviation(self.numbers.mean(axis=0), reference.numbers.mean(axis=0)),
            "layer_energies": _deviation(self.energies.mean(axis=0), reference.energies.mean(axis=0)),
            "radial_profile": float(np.abs(BINS * radial - 1).max()),
            "spectrum": float(np.abs(BINS * spectrum - 1).max()),
            "centre_width": _ratio(centre, usual),
            "beside_points": self.beside[0],
            "beside_energy": self.beside[1],
        }


def shares(values: Floats, reference: Floats, weights: Floats | None = None, others: Floats | None = None) -> Floats:
    """Shares of weighted values (m,) in `BINS` bins that hold equal shares of the reference.

    >>> shares(np.arange(20.0), np.arange(20.0)).round(2).tolist()
    [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    """
    edges = quantiles(reference, others)
    index = np.searchsorted(edges, values, side="right")
    sums = np.bincount(index, weights, BINS)
    return sums / max(float(sums.sum()), 1e-30)


def quantiles(values: Floats, weights: Floats | None = None) -> Floats:
    """The `BINS` - 1 edges (float64) between bins of equal weight, of values (n,), each with weight 1 by default.

    >>> len(quantiles(np.arange(100.0))) == BINS - 1
    True
    """
    order = np.argsort(values)
    total = np.cumsum(np.ones(len(values)) if weights is None else weights[order])
    places = np.searchsorted(total, total[-1] * np.arange(1, BINS) / BINS)
    # half-way to the next value, so that equal samples have equal shares
    following = np.minimum(places + 1, len(values) - 1)
    found: Floats = 0.5 * (values[order[places]] + values[order[following]])
    return found


def _ratio(value: float, reference: float) -> float:
    return float(value / reference) if reference > 0 else float("nan")


def _deviation(means: Floats, reference: Floats) -> float:
    known = reference >= _SHARE * reference.sum()
    return float(np.abs(means[known] / reference[known] - 1).max()) if known.any() else float("nan")


@dataclass(frozen=True)
class PointSamples:
    """Point clouds of an evaluation: the first half of the reference, its second half, and candidates, by name.

    >>> PointSamples(None, {}).metrics()
    {}
    """

    reference: PointFeatures | None
    samples: Mapping[str, PointFeatures]

    @classmethod
    def read(
        cls,
        reference: str | Path,
        floor: str,
        candidates: Mapping[str, str | Path],
        geometry: Geometry,
        size: int,
        seed: int,
    ) -> PointSamples:
        """Those of files of points, the same showers that are compared in cells; nothing unless the reference has some.

        Parameters
        ----------
        reference, candidates, geometry
            As for `nisampler.calo.evaluation.evaluate.evaluate`.
        floor
            Name of the second half.
        size, seed
            Showers of a half, and the seed of their choice.
        """
        if not holds_points(reference):
            return cls(None, {})
        with PointReader(reference, geometry) as reader:
            halves = split(len(reader), (size / len(reader), size / len(reader)), seed)
            first, second = (PointFeatures.of(reader.select(rows), geometry) for rows in halves)
        samples = {}
        for name, path in candidates.items():
            if holds_points(path):
                with PointReader(path, geometry) as reader:
                    (rows,) = split(len(reader), (min(size, len(reader)) / len(reader),), seed)
                    samples[name] = PointFeatures.of(reader.select(rows), geometry)
        return cls(first, samples | {floor: second})

    def metrics(self) -> dict[str, dict[str, float]]:
        """How each sample differs from the reference."""
        if self.reference is None:
            return {}
        return {name: found.against(self.reference) for name, found in self.samples.items()}
