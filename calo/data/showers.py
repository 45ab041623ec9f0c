"""Showers in memory: incident energies and the voxels they lit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nisampler.calo.detector.geometry import Floats
from nisampler.errors import ShapeError

Voxels = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Showers:
    """Incident energies and the voxels they lit.

    Parameters
    ----------
    incident
        Energies of the incident particles in MeV, shape (n,); converted to float64.
    voxels
        Energies in MeV, shape (n, n_voxels), layer after layer; converted to float32.
    conditions
        What they depend on beside the incident energy, shape (n, k); none by default.

    Raises
    ------
    ShapeError
        If the shapes are not (n,), (n, n_voxels) and (n, k).

    Examples
    --------
    >>> showers = Showers(np.array([1e3, 2e3]), np.ones((2, 4), dtype=np.float32))
    >>> len(showers), showers.empty, showers[1:].incident
    (2, 0, array([2000.]))
    """

    incident: Floats
    voxels: Voxels
    conditions: Floats = field(default_factory=lambda: np.empty((0, 0)))

    def __post_init__(self) -> None:
        object.__setattr__(self, "incident", np.asarray(self.incident, dtype=np.float64))
        object.__setattr__(self, "voxels", np.asarray(self.voxels, dtype=np.float32))
        if self.incident.ndim != 1 or self.voxels.ndim != 2 or len(self.voxels) != len(self.incident):
            raise ShapeError(
                "showers need incident energies (n,) and voxels (n, n_voxels), "
                f"got {self.incident.shape} and {self.voxels.shape}"
            )
        conditions = np.asarray(self.conditions, dtype=np.float64)
        conditions = conditions if conditions.size else np.empty((len(self.incident), 0))
        if conditions.ndim != 2 or len(conditions) != len(self.incident):
            raise ShapeError(f"conditions of {len(self.incident)} showers need a row for each, got {conditions.shape}")
        object.__setattr__(self, "conditions", conditions)

    def __len__(self) -> int:
        return len(self.incident)

    @property
    def empty(self) -> int:
        """Number of showers without energy."""
        return len(self) - int(np.count_nonzero(self.voxels.any(axis=1)))

    @property
    def totals(self) -> Floats:
        """Energy of each shower, shape (n,), MeV."""
        sums: Floats = self.voxels.sum(axis=1, dtype=np.float64)
        return sums

    def __getitem__(self, index: slice | NDArray[Any]) -> Showers:
        """The showers of a slice, an index array or a mask."""
        return Showers(self.incident[index], self.voxels[index], self.conditions[index])

    @property
    def particles(self) -> Floats:
        """What a model is given: (n,) incident energies, or (n, 1 + k) with the conditions."""
        return particles(self.incident, self.conditions)

    @classmethod
    def concatenate(cls, parts: Sequence[Showers]) -> Showers:
        """One after the other.

        Raises
        ------
        ShapeError
            If there is nothing to join, or the numbers of voxels differ.
        """
        if len({part.voxels.shape[1] for part in parts}) != 1:
            counts = sorted({part.voxels.shape[1] for part in parts})
            raise ShapeError(f"showers to join must have one number of voxels, got {counts or 'no showers'}")
        incident = np.concatenate([part.incident for part in parts])
        conditions = np.concatenate([part.conditions for part in parts])
        return cls(incident, np.concatenate([part.voxels for part in parts]), conditions)


def particles(incident: Floats, conditions: Floats) -> Floats:
    """Incident energies (n,) and conditions (n, k) as models take them: (n,) without conditions, else (n, 1 + k).

    >>> particles(np.ones(3), np.ones((3, 2))).shape, particles(np.ones(3), np.ones((3, 0))).shape
    ((3, 3), (3,))
    """
    return np.column_stack([incident, conditions]) if conditions.shape[1] else incident
