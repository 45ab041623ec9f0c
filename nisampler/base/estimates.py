"""Several numbers with one covariance matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nisampler.base.covariance import Source, as_gvar, correlation_of, covariance_of
from nisampler.base.estimate import Estimate
from nisampler.errors import ConfigError, ShapeError


class Estimates(Mapping[str, Estimate]):
    """Estimates by name or number, which know what they have in common.

    Parameters
    ----------
    members
        Names and estimates. What comes from one integration stays correlated.

    Examples
    --------
    >>> both = Estimates.correlated({"x": Estimate(2.0, 0.1, 50), "y": Estimate(4.0, 0.2, 50)}, [[1, 0.9], [0.9, 1]])
    >>> print(both["y"] / both["x"], both[0] - 2)
    2.00(4) 0.00(10)
    >>> both.covariance.round(3).tolist()
    [[0.01, 0.018], [0.018, 0.04]]
    >>> Estimates({"sum": both["x"] + both["y"], "x": both["x"]}).correlation.round(3).tolist()
    [[1.0, 0.955], [0.955, 1.0]]
    """

    def __init__(self, members: Mapping[str, Estimate]) -> None:
        self._members = dict(members)
        self.names = tuple(self._members)

    @classmethod
    def correlated(
        cls, members: Mapping[str, Estimate], correlation: NDArray[np.float64] | Sequence[Sequence[float]]
    ) -> Estimates:
        """The same values and errors, with this matrix of correlations (k, k) between them.

        Raises
        ------
        ShapeError
            If the matrix does not fit.
        """
        matrix = np.asarray(correlation, dtype=np.float64)
        if matrix.shape != (len(members), len(members)):
            raise ShapeError(f"{len(members)} estimates need as many rows and columns, got shape {matrix.shape}")
        error = np.array([member.error for member in members.values()])
        source = Source(error, matrix, max((member.n for member in members.values()), default=0))
        unit = np.eye(len(members))
        return cls({name: member.depending({source: unit[k]}) for k, (name, member) in enumerate(members.items())})

    @classmethod
    def combine(cls, parts: Sequence[Estimates]) -> Estimates:
        """One set from independent ones of the same quantities, weighted as `Estimate.combine` does.

        Raises
        ------
        ConfigError
            Without parts, or if their names or numbers of points differ.
        """
        if not parts or len({part.names for part in parts}) > 1:
            raise ConfigError(f"cannot combine estimates of different names: {[list(part.names) for part in parts]}")
        if len(parts) == 1:
            return parts[0]
        members = {name: Estimate.combine([part[name] for part in parts]) for name in parts[0]}
        points = [max((estimate.n for estimate in part.values()), default=0) for part in parts]
        error = np.array([member.error for member in members.values()])
        size = np.where(np.isfinite(error) & (error > 0.0), error, np.inf)
        steps = [count / sum(points) * part.error / size for count, part in zip(points, parts, strict=True)]
        matrices = [part.correlation * step * step[:, None] for part, step in zip(parts, steps, strict=True)]
        return cls.correlated(members, _with_ones(np.sum(matrices, axis=0)))

    def __getitem__(self, key: str | int) -> Estimate:
        if isinstance(key, int) and -len(self.names) <= key < len(self.names):
            return self._members[self.names[key]]
        try:
            return self._members[str(key)]
        except KeyError:
            raise KeyError(f"no integral {key!r}; there are {', '.join(self.names)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        return ", ".join(f"{name} = {member}" for name, member in self.items())

    def __repr__(self) -> str:
        return f"Estimates({self})"

    @property
    def value(self) -> NDArray[np.float64]:
        """The values (k,)."""
        return np.array([member.value for member in self.values()])

    @property
    def error(self) -> NDArray[np.float64]:
        """Their standard errors (k,)."""
        return np.array([member.error for member in self.values()])

    @property
    def covariance(self) -> NDArray[np.float64]:
        """The covariance matrix (k, k)."""
        return covariance_of([member.gradient for member in self.values()])

    @property
    def correlation(self) -> NDArray[np.float64]:
        """The matrix of correlations (k, k), 0 beside a number that is exact."""
        return correlation_of([member.gradient for member in self.values()])

    def gvar(self) -> NDArray[np.object_]:
        """The numbers as an array (k,) of `gvar.GVar` with this covariance.

        Raises
        ------
        MissingExtraError
            If gvar is not installed.
        """
        return np.array([as_gvar(member.value, member.gradient) for member in self.values()], dtype=object)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file; `from_dict` gives back equal numbers."""
        estimates = {name: member.to_dict() for name, member in self.items()}
        return {"estimates": estimates, "correlation": self.correlation.tolist()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Estimates:
        """What `to_dict` wrote."""
        members = {name: Estimate.from_dict(fields) for name, fields in data["estimates"].items()}
        return cls.correlated(members, np.array(data["correlation"], dtype=np.float64).reshape(len(members), -1))


def _with_ones(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlations, 1 on the diagonal and 0 where nothing is known."""
    found = np.nan_to_num(matrix, nan=0.0)
    np.fill_diagonal(found, 1.0)
    return found
