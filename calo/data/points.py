"""Showers as clouds of points: places finer than any cell, each with its layer and energy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nisampler.calo.data.showers import Showers, particles
from nisampler.calo.detector.geometry import Floats, Geometry
from nisampler.calo.detector.places import cells_at
from nisampler.errors import ShapeError, ShowerDataError

Cloud = NDArray[np.float32]
X, Y, LAYER, ENERGY = range(4)
"""Columns of a point."""

_MOST_ENERGY = 1e15
_MOST_PLACE = 1e6  # mm


@dataclass(frozen=True, eq=False)
class PointShowers:
    """Incident energies and the points of each shower, one shower after the other.

    Parameters
    ----------
    incident
        Energies of the incident particles in MeV, shape (n,).
    points
        All points, shape (m, 4): x and y in mm, position 0..L-1 of the layer, energy in MeV; converted to float32.
    counts
        Points of each shower, shape (n,), of sum m.
    conditions
        What they depend on beside the incident energy, shape (n, k); none by default.

    Raises
    ------
    ShapeError
        If the shapes are not those, or the counts are negative or do not sum to m.

    Examples
    --------
    >>> clouds = PointShowers(np.array([1e3, 2e3]), np.array([[0, 1, 0, 5], [2, 0, 1, 7]]), np.array([2, 0]))
    >>> len(clouds), clouds.empty, clouds[:1].points.shape, clouds.totals
    (2, 1, (2, 4), array([12.,  0.]))
    """

    incident: Floats
    points: Cloud
    counts: NDArray[np.int64]
    conditions: Floats = field(default_factory=lambda: np.empty((0, 0)))

    def __post_init__(self) -> None:
        object.__setattr__(self, "incident", np.asarray(self.incident, dtype=np.float64))
        object.__setattr__(self, "points", np.asarray(self.points, dtype=np.float32))
        object.__setattr__(self, "counts", np.asarray(self.counts, dtype=np.int64))
        n, shape = len(self.incident), self.points.shape
        if self.incident.ndim != 1 or self.counts.shape != (n,) or len(shape) != 2 or shape[1] != 4:
            raise ShapeError(
                "clouds need incident energies (n,), points (m, 4) and counts (n,), got "
                f"{self.incident.shape}, {shape} and {self.counts.shape}"
            )
        if np.any(self.counts < 0) or self.counts.sum() != shape[0]:
            raise ShapeError(f"counts of points must not be negative and sum to {shape[0]}, got {self.counts.sum()}")
        conditions = np.asarray(self.conditions, dtype=np.float64)
        conditions = conditions if conditions.size else np.empty((n, 0))
        if conditions.ndim != 2 or len(conditions) != n:
            raise ShapeError(f"conditions of {n} showers need a row for each, got {conditions.shape}")
        object.__setattr__(self, "conditions", conditions)

    def __len__(self) -> int:
        return len(self.incident)

    @property
    def owners(self) -> NDArray[np.int64]:
        """Number of the shower that each point belongs to, shape (m,)."""
        return np.repeat(np.arange(len(self)), self.counts)

    @property
    def empty(self) -> int:
        """Number of showers without energy."""
        return int(np.count_nonzero(self.totals == 0.0))

    @property
    def totals(self) -> Floats:
        """Energy of each shower, shape (n,), MeV."""
        return np.bincount(self.owners, self.points[:, ENERGY], minlength=len(self)).astype(np.float64)

    @property
    def particles(self) -> Floats:
        """What a model is given: (n,) incident energies, or (n, 1 + k) with the conditions."""
        return particles(self.incident, self.conditions)

    def __getitem__(self, index: slice | NDArray[Any]) -> PointShowers:
        """The showers of a slice, an index array or a mask."""
        rows = np.arange(len(self))[index]
        ends = np.cumsum(self.counts)
        counts = self.counts[rows]
        shift = np.repeat(ends[rows] - counts - (np.cumsum(counts) - counts), counts)
        points = self.points[np.arange(len(shift)) + shift]
        return PointShowers(self.incident[rows], points, counts, self.conditions[rows])

    def padded(self) -> Cloud:
        """Points (n, P, 4) with zeros behind those of each shower; P is the largest number of points."""
        found = np.zeros((len(self), int(self.counts.max(initial=0)), 4), dtype=np.float32)
        starts = np.cumsum(self.counts) - self.counts
        owners = self.owners
        found[owners, np.arange(len(owners)) - starts[owners]] = self.points
        return found

    @classmethod
    def unpadded(cls, incident: Floats, points: Cloud, conditions: Floats | None = None) -> PointShowers:
        """Clouds of padded points (n, P, 4), of which those with energy are kept.

        Raises
        ------
        ShapeError
            If the shapes do not fit.
        """
        if points.ndim != 3 or points.shape[2] != 4:
            raise ShapeError(f"padded points must be (n, P, 4), got {points.shape}")
        there = points[:, :, ENERGY] > 0.0
        none = np.empty((0, 0))
        return cls(incident, points[there], there.sum(axis=1), none if conditions is None else conditions)

    def layer_sums(self, geometry: Geometry) -> tuple[Floats, Floats]:
        """Numbers of points and energies of the layers, each (n, n_layers)."""
        flat = self.owners * geometry.n_layers + self.points[:, LAYER].astype(np.int64)
        size = len(self) * geometry.n_layers
        sums = (np.bincount(flat, weights, size) for weights in (None, self.points[:, ENERGY]))
        numbers, energies = (part.reshape(len(self), -1).astype(np.float64) for part in sums)
        return numbers, energies

    def check(self, geometry: Geometry, where: object, first: int = 0) -> None:
        """Refuse points that no calorimeter has.

        Raises
        ------
        ShowerDataError
            If an energy is not positive or above 1e15 MeV, a place is not finite or beyond a kilometre, or a layer is
            none of the geometry; the message names the first such shower, counted from `first`.
        """
        x, y, layer, energy = self.points.T
        good = (energy > 0.0) & (energy <= _MOST_ENERGY) & (np.abs(x) < _MOST_PLACE) & (np.abs(y) < _MOST_PLACE)
        good &= (layer >= 0) & (layer < geometry.n_layers) & (layer == np.floor(layer))
        wrong = np.flatnonzero(~good)
        if len(wrong):
            values = ", ".join(f"{value:g}" for value in self.points[wrong[0]])
            raise ShowerDataError(
                f"{where}: shower {first + self.owners[wrong[0]]} has the point ({values}): it needs finite x and y in "
                f"mm, a layer 0 to {geometry.n_layers - 1} and a positive energy in MeV ({len(wrong)} such points)"
            )


@dataclass(frozen=True, eq=False)
class Projected:
    """Showers in cells, and what of their points fell beside them: numbers and energies (n,) in MeV.

    >>> from nisampler.calo.detector.geometries import geometry
    >>> points = np.array([[1, 0, 0, 5], [1e3, 0, 0, 2]])
    >>> made = project(PointShowers(np.array([1e3]), points, np.array([2])), geometry("toy"))
    >>> made.showers.voxels.sum(), made.outside, made.energy_outside
    (np.float32(5.0), array([1]), array([2.]))
    """

    showers: Showers
    outside: NDArray[np.int64]
    energy_outside: Floats


def project(clouds: PointShowers, geometry: Geometry) -> Projected:
    """Add up the energies of the points in each cell; energies below the threshold of a layer are set to zero then.

    Raises
    ------
    ShowerDataError
        If points are malformed.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> cloud = PointShowers(np.array([1e3]), np.array([[1, 0, 0, 5], [1.5, 0, 0, 2]]), np.array([2]))
    >>> project(cloud, geometry("toy")).showers.voxels.max()
    np.float32(7.0)
    """
    clouds.check(geometry, "the points to project")
    n, owners, energies = len(clouds), clouds.owners, clouds.points[:, ENERGY]
    cells = np.full(len(owners), -1, dtype=np.int64)
    for position, layer in enumerate(geometry.layers):
        here = np.flatnonzero(clouds.points[:, LAYER] == position)
        found = cells_at(layer, clouds.points[here, X], clouds.points[here, Y])
        cells[here] = np.where(found >= 0, found + geometry.starts[position], -1)
    inside = cells >= 0
    flat = owners[inside] * geometry.n_voxels + cells[inside]
    voxels = np.bincount(flat, energies[inside], n * geometry.n_voxels).reshape(n, -1).astype(np.float32)
    geometry.suppress(voxels)
    outside = np.bincount(owners[~inside], minlength=n)
    beside = np.bincount(owners[~inside], energies[~inside], n).astype(np.float64)
    return Projected(Showers(clouds.incident, voxels, clouds.conditions), outside, beside)
