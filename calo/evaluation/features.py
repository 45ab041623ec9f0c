"""The high-level features of showers: layer energies, centres of energy, widths, sparsity (2410.21611, sec. 4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometry import Geometry
from nisampler.errors import ShapeError, ShowerDataError

Floats = NDArray[np.float64]

CHUNK = 2000
"""Showers whose features are computed at once; bounds the memory."""

_EMPTY = 1e-16
_LOG_OFFSET = 1e-8


def angular_layers(geometry: Geometry) -> tuple[int, ...]:
    """Positions of the layers with centres and widths in eta and phi: all but polar ones with one angular bin.

    >>> from nisampler.calo.detector.geometries import geometry
    >>> angular_layers(geometry("toy"))
    (0, 1, 2, 3, 4)
    """
    return tuple(
        position
        for position, layer in enumerate(geometry.layers)
        if layer.kind != "polar" or layer.shape[0] > 1
    )  # fmt: skip


@dataclass(frozen=True)
class Features:
    r"""The features of n showers in L layers, of which A resolve the angle (`angular_layers`).

    With :math:`E_l` the energy of layer l and :math:`x` the coordinate of the cell centres, the centre of energy is
    :math:`\langle x\rangle = \sum x E / (E_l + 10^{-16})`, the width
    :math:`\sqrt{\max(\langle x^2\rangle - \langle x\rangle^2, 0)}`; both are zero in a layer without energy.

    Attributes
    ----------
    incident
        (n,) incident energies, MeV.
    energy
        (n, L) layer energies, MeV.
    eta, phi, eta_width, phi_width
        (n, A) in mm: r cos α and r sin α of polar cells, x and y of others.
    r, r_width
        (n, L) the same of the distance from the axis, mm.
    sparsity
        (n, L) share of the cells without energy.
    hottest
        (n,) largest energy in a cell, MeV.
    conditions
        (n, k) what else the showers depend on.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> features = Features.of(Showers(np.array([1e3]), np.ones((1, 240), dtype=np.float32)), geometry("toy"))
    >>> features.total, features.response
    (array([240.]), array([0.24]))
    """

    incident: Floats
    energy: Floats
    eta: Floats
    phi: Floats
    eta_width: Floats
    phi_width: Floats
    r: Floats
    r_width: Floats
    sparsity: Floats
    hottest: Floats
    conditions: Floats = field(default_factory=lambda: np.empty((0, 0)))

    def __len__(self) -> int:
        return len(self.incident)

    @property
    def total(self) -> Floats:
        """(n,) energy of all cells, MeV."""
        return np.asarray(self.energy.sum(axis=1))

    @property
    def response(self) -> Floats:
        """(n,) energy of all cells over the incident energy."""
        return self.total / self.incident

    @property
    def filled(self) -> NDArray[np.bool_]:
        """(n, L) whether a layer has energy."""
        return self.energy > 0

    def occupancy(self, geometry: Geometry) -> Floats:
        """(n,) share of all cells with energy."""
        return np.asarray((1.0 - self.sparsity) @ np.asarray(geometry.sizes) / geometry.n_voxels)

    def high_level_vector(self) -> Floats:
        """(n, d) input of the high-level classifier and of FPD and KPD: d = 2 + 4 L + 4 A.

        log10 E_inc, log10(E_l + 1e-8), (eta, phi, their widths)/100, log10(E_tot + 1e-8), sparsity, (r, width)/100;
        energies in MeV, lengths in mm. The CaloChallenge added sparsity and r in 2023: AUCs of earlier papers are
        of a shorter vector.
        """
        return np.hstack(
            [
                np.log10(self.incident)[:, None],
                np.log10(self.energy + _LOG_OFFSET),
                *(part / 100.0 for part in (self.eta, self.phi, self.eta_width, self.phi_width)),
                np.log10(self.total + _LOG_OFFSET)[:, None],
                self.sparsity,
                self.r / 100.0,
                self.r_width / 100.0,
            ]
        )

    @classmethod
    def of(cls, showers: Showers, geometry: Geometry, threshold: float | None = None) -> Features:
        """Compute them, `CHUNK` showers at a time.

        Parameters
        ----------
        showers
            n of them.
        geometry
            Their cells.
        threshold
            Cells below it, in MeV, count as empty; that of the geometry for None.

        Raises
        ------
        ShapeError
            If the showers have another number of cells.
        ShowerDataError
            If an energy is not finite, or an incident energy not positive.
        """
        geometry.check(showers.voxels)
        if not np.all(np.isfinite(showers.incident) & (showers.incident > 0)):
            raise ShowerDataError("features need positive, finite incident energies: check them when reading the file")
        cut = geometry.threshold if threshold is None else threshold
        starts = range(0, max(len(showers), 1), CHUNK)
        return cls.concatenate([_features(showers[start : start + CHUNK], geometry, cut) for start in starts])

    @classmethod
    def stream(cls, chunks: Iterable[Showers], geometry: Geometry, threshold: float | None = None) -> Features:
        """The features of showers that come in pieces, of which one at a time is held in memory."""
        return cls.concatenate([cls.of(chunk, geometry, threshold) for chunk in chunks])

    @classmethod
    def concatenate(cls, parts: Sequence[Features]) -> Features:
        """One after the other.

        Raises
        ------
        ShapeError
            If there is none, or they belong to different geometries.
        """
        if len({(part.energy.shape[1], part.eta.shape[1]) for part in parts}) != 1:
            raise ShapeError("only features of at least one sample and of one geometry can be concatenated")
        return cls(**{item.name: np.concatenate([getattr(p, item.name) for p in parts]) for item in fields(cls)})


def _features(showers: Showers, geometry: Geometry, threshold: float) -> Features:
    n, layers, angular = len(showers), geometry.n_layers, angular_layers(geometry)
    energy, sparsity, r, r_width = (np.empty((n, layers)) for _ in range(4))
    eta, phi, eta_width, phi_width = (np.empty((n, len(angular))) for _ in range(4))
    hottest = np.zeros(n)
    place = {position: column for column, position in enumerate(angular)}
    for position, layer in enumerate(geometry.layers):
        cells = showers.voxels[:, geometry.slice(position)].astype(np.float64)
        cells[cells < threshold] = 0.0
        x, y = layer.centres()
        energy[:, position] = cells.sum(axis=1)
        if not np.isfinite(energy[:, position]).all():
            bad = int(np.flatnonzero(~np.isfinite(energy[:, position]))[0])
            raise ShowerDataError(f"shower {bad} has an energy that is not finite in layer {layer.id}")
        sparsity[:, position] = 1.0 - np.count_nonzero(cells, axis=1) / layer.n_voxels
        np.maximum(hottest, cells.max(axis=1), out=hottest)
        r[:, position], r_width[:, position] = _moments(cells, energy[:, position], layer.radii())
        if position in place:
            column = place[position]
            eta[:, column], eta_width[:, column] = _moments(cells, energy[:, position], x)
            phi[:, column], phi_width[:, column] = _moments(cells, energy[:, position], y)
    incident = np.asarray(showers.incident, dtype=np.float64)
    return Features(incident, energy, eta, phi, eta_width, phi_width, r, r_width, sparsity, hottest, showers.conditions)


def _moments(cells: Floats, energy: Floats, coordinate: Floats) -> tuple[Floats, Floats]:
    """Centre of energy and width along a coordinate, (n,) each."""
    mean = cells @ coordinate / (energy + _EMPTY)
    square = cells @ coordinate**2 / (energy + _EMPTY)
    return mean, np.sqrt(np.maximum(square - mean**2, 0.0))
