"""Jets in memory: constituents as masked sets, and the numbers of the whole jet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nisampler.errors import ConfigError, JetDataError, ShapeError

Floats = NDArray[np.float64]
Constituents = NDArray[np.float32]

TYPES = ("g", "q", "t", "w", "z")
"""Gluon, light quark, top quark, W and Z, numbered as in JetNet (2106.11535)."""
FEATURES = ("etarel", "phirel", "ptrel")
"""Of a constituent: its distance from the axis in pseudorapidity and azimuth, and its pT over that of the jet."""
RADIUS = 0.8
"""Of the anti-kT algorithm (0802.1189) in JetNet."""


def type_number(name: str) -> int:
    """The number of a type of jets.

    Raises
    ------
    ConfigError
        If there is no such type.

    Examples
    --------
    >>> type_number("t")
    2
    """
    if name not in TYPES:
        raise ConfigError(f"there are no jets of type {name!r}: types are {', '.join(TYPES)}")
    return TYPES.index(name)


@dataclass(frozen=True, eq=False)
class Jets:
    """Jets of one collection.

    Parameters
    ----------
    constituents
        etarel, phirel, ptrel, shape (n, m, 3); converted to float32, what the mask leaves out becomes zero.
    mask
        Which of the m places hold a constituent, shape (n, m).
    types
        Numbers of `TYPES`, shape (n,).
    pt, eta, mass
        Of the jets as they were clustered, shape (n,), in GeV but for the pseudorapidity.

    Raises
    ------
    ShapeError
        If the shapes do not belong together.
    JetDataError
        If a number is not finite, a pT is not positive, a mass is negative, a type unknown or a jet empty.

    Examples
    --------
    >>> one = np.array([[[0.1, 0.0, 0.6], [-0.1, 0.0, 0.4]]])
    >>> jets = Jets(one, np.ones((1, 2), dtype=bool), [0], [1000.0], [0.3], [98.0])
    >>> len(jets), jets.most, jets.count
    (1, 2, array([2]))
    """

    constituents: Constituents
    mask: NDArray[np.bool_]
    types: NDArray[np.int64]
    pt: Floats
    eta: Floats
    mass: Floats

    def __post_init__(self) -> None:
        mask = np.asarray(self.mask, dtype=bool)
        points = np.asarray(self.constituents, dtype=np.float32)
        if points.ndim != 3 or points.shape[2] != len(FEATURES) or mask.shape != points.shape[:2]:
            raise ShapeError(
                f"jets need constituents (n, m, {len(FEATURES)}) and a mask (n, m), got {points.shape} and {mask.shape}"
            )
        kinds = np.asarray(self.types)
        numbers = {name: np.asarray(getattr(self, name), dtype=np.float64) for name in ("pt", "eta", "mass")}
        for name, column in {"types": kinds, **numbers}.items():
            if column.shape != (len(points),):
                raise ShapeError(f"{len(points)} jets need {name} ({len(points)},), got {column.shape}")
        points = np.where(mask[..., None], points, np.float32(0.0))
        _refuse_malformed(points, mask, kinds, numbers)
        for name, value in {"constituents": points, "mask": mask, "types": kinds.astype(np.int64), **numbers}.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.mask)

    @property
    def most(self) -> int:
        """Places for constituents: 30 or 150 in JetNet."""
        return int(self.mask.shape[1])

    @property
    def count(self) -> NDArray[np.int64]:
        """Constituents of each jet, shape (n,)."""
        counts: NDArray[np.int64] = self.mask.sum(axis=1)
        return counts

    def __getitem__(self, rows: slice | NDArray[Any]) -> Jets:
        """The jets of a slice, an index array or a mask."""
        constituents, mask, types = self.constituents[rows], self.mask[rows], self.types[rows]
        return Jets(constituents, mask, types, self.pt[rows], self.eta[rows], self.mass[rows])

    def leading(self, most: int) -> Jets:
        """The same jets with their `most` hardest constituents, hardest first.

        >>> one = np.array([[[0.1, 0.0, 0.4], [-0.1, 0.0, 0.6]]])
        >>> Jets(one, np.ones((1, 2), dtype=bool), [0], [1e3], [0.3], [98.0]).leading(1).constituents[0, :, 2]
        array([0.6], dtype=float32)
        """
        hardness = np.where(self.mask, self.constituents[..., 2], -np.inf)
        order = np.argsort(-hardness, axis=1, kind="stable")[:, :most]
        points = np.take_along_axis(self.constituents, order[..., None], axis=1)
        mask = np.take_along_axis(self.mask, order, axis=1)
        return Jets(points, mask, self.types, self.pt, self.eta, self.mass)

    @classmethod
    def concatenate(cls, parts: Sequence[Jets]) -> Jets:
        """One after the other.

        Raises
        ------
        ShapeError
            If they have different numbers of places, or there are none.
        """
        places = {part.most for part in parts}
        if len(places) != 1:
            raise ShapeError(f"collections of jets need equal numbers of places to be put together, got {places or 0}")
        names = ("constituents", "mask", "types", "pt", "eta", "mass")
        columns: list[Any] = [np.concatenate([getattr(part, name) for part in parts]) for name in names]
        return cls(*columns)


def _refuse_malformed(
    points: Constituents, mask: NDArray[np.bool_], kinds: NDArray[Any], numbers: dict[str, Floats]
) -> None:
    """JetDataError for the first jet that cannot be one."""
    with np.errstate(invalid="ignore"):
        checks: dict[str, Any] = {
            "has constituents that are not finite": ~np.isfinite(points).all(axis=(1, 2)),
            "has a constituent of negative ptrel": (points[..., 2] < 0.0).any(axis=1),
            "has no constituent": ~mask.any(axis=1),
            "has a pt that is not positive": ~(numbers["pt"] > 0.0) | ~np.isfinite(numbers["pt"]),
            "has an eta that is not finite": ~np.isfinite(numbers["eta"]),
            "has a mass that is negative or not finite": ~(numbers["mass"] >= 0.0) | ~np.isfinite(numbers["mass"]),
            f"has a type beyond 0 to {len(TYPES) - 1}": ~np.isin(kinds, range(len(TYPES))),
        }
    for what, bad in checks.items():
        if bad.any():
            raise JetDataError(
                f"jet {int(np.argmax(bad))} {what}, as {int(bad.sum())} of {len(bad)} jets do: mend or drop them"
            )
