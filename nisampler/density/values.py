"""How a user's function is called, and what it may return: one number for each point, or several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from nisampler.base.device import sharing_points
from nisampler.errors import IntegrandDtypeError, IntegrandShapeError

Kind = Literal["auto", "torch", "numpy", "scalar"]

_REAL = (torch.float32, torch.float64)
_EXACT = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def _call_torch(function: Callable[..., Any], x: Tensor) -> Any:
    with sharing_points(len(x)):
        return function(x)


def _call_numpy(function: Callable[..., Any], x: Tensor) -> Any:
    with sharing_points(len(x)):
        return function(x.detach().cpu().numpy())


def _call_scalar(function: Callable[..., Any], x: Tensor) -> Any:
    rows = [function(point) for point in x.detach().cpu().numpy()]
    if not rows or not isinstance(rows[0], Mapping):
        return np.array(rows)
    names = tuple(rows[0])
    if any(not isinstance(row, Mapping) or tuple(row) != names for row in rows):
        raise IntegrandShapeError(f"a function of one point must return the same names everywhere, first {names}")
    return {name: np.array([row[name] for row in rows]) for name in names}


def call_composed(function: Callable[..., Any], x: Tensor) -> Any:
    """Call a function that is composed of others, such as channels with the function of their points.

    >>> call_composed(torch.exp, torch.zeros(1))
    tensor([1.])
    """
    return function(x)


ADAPTERS: dict[str, Callable[[Callable[..., Any], Tensor], Any]] = {
    "torch": _call_torch,
    "numpy": _call_numpy,
    "scalar": _call_scalar,
}
"""How a function of each kind is called with points (n, ...), in the order in which they are tried."""


@dataclass(frozen=True)
class Values:
    """What a function returned for n points.

    Attributes
    ----------
    table
        One number for each point (n,), or several (n, k).
    names
        Of the several; empty for one.
    by_name
        Whether they came in a dictionary.

    Examples
    --------
    >>> values = Values.of("f", {"one": torch.ones(2), "two": [2.0, 2.0]}, 2)
    >>> values.names, values.table.tolist()
    (('one', 'two'), [[1.0, 2.0], [1.0, 2.0]])
    """

    table: Tensor
    names: tuple[str, ...] = ()
    by_name: bool = False

    @classmethod
    def of(cls, name: str, returned: Any, n: int) -> Values:
        """Check what a function called `name` returned for n points: (n,), (n, k), or a dictionary of (n,).

        Raises
        ------
        IntegrandShapeError, IntegrandDtypeError
            Saying what came back and what is wanted.
        """
        if isinstance(returned, Mapping):
            if not returned:
                raise IntegrandShapeError(
                    f"{name} returned an empty dictionary; return numbers of shape ({n},) by name"
                )
            columns = [_numbers(f"{name}[{key!r}]", column) for key, column in returned.items()]
            for key, column in zip(returned, columns, strict=True):
                _check_shape(f"{name}[{key!r}]", column, n, several=False)
            table = torch.stack([column.to(columns[0].device, torch.float64) for column in columns], 1)
            return cls(table, tuple(str(key) for key in returned), by_name=True)
        table = _numbers(name, returned)
        _check_shape(name, table, n, several=True)
        return cls(table) if table.dim() == 1 else cls(table, tuple(str(k) for k in range(table.shape[1])))

    @property
    def nonzero(self) -> Tensor:
        """Whether any number of a point is different from zero, (n,)."""
        found = self.table != 0.0
        return found if found.dim() == 1 else found.any(1)

    def scaled(self, factor: Tensor, rows: Tensor | None = None) -> Values:
        """All numbers of the points, or of some rows (m,), times a factor (n,) or (m,)."""
        factor = factor if self.table.dim() == 1 else factor.unsqueeze(1)
        if rows is None:
            return replace(self, table=self.table * factor)
        return replace(self, table=self.table.index_copy(0, rows, self.table[rows] * factor))

    def returned(self) -> Tensor | dict[str, Tensor]:
        """In the form that the function chose."""
        return dict(zip(self.names, self.table.unbind(1), strict=True)) if self.by_name else self.table


def _numbers(name: str, returned: Any) -> Tensor:
    try:
        values = returned if isinstance(returned, Tensor) else torch.as_tensor(np.asarray(returned))
    except (TypeError, ValueError) as error:
        raise IntegrandDtypeError(
            f"{name} returned {type(returned).__name__}; return one real number for each point"
        ) from error
    if values.dtype not in _REAL + _EXACT:
        raise IntegrandDtypeError(
            f"{name} returned {values.dtype}; return real numbers in float64 or float32 "
            "(half precision loses the digits an integral needs)"
        )
    return values


def _check_shape(name: str, values: Tensor, n: int, several: bool) -> None:
    if values.shape == (n,) or (several and values.dim() == 2 and len(values) == n and values.shape[1] > 0):
        return
    more = f"; several integrals: ({n}, k), or a dictionary" if several else ""
    raise IntegrandShapeError(
        f"{name} returned shape {tuple(values.shape)} for {n} points; return shape ({n},), one number for each "
        f"point{more}"
    )


def index_of(steer: str | int | None, names: Sequence[str]) -> int:
    """The position of the integral that steers, the first by default; -1 where there is no such name or number.

    >>> index_of("b", ["a", "b"]), index_of(None, []), index_of(2, ["a", "b"])
    (1, 0, -1)
    """
    if isinstance(steer, str):
        return list(names).index(steer) if steer in names else -1
    number = steer or 0
    return number if number < max(1, len(names)) else -1


def in_unit_cube(points: Tensor) -> bool:
    """Whether all points (n, dim) lie in the closed unit cube; NaN does not.

    >>> import math
    >>> in_unit_cube(torch.rand(3, 2)), in_unit_cube(torch.tensor([[math.nan, 0.5]])), in_unit_cube(torch.zeros(0, 2))
    (True, False, True)
    """
    if not points.numel():
        return True
    least, largest = torch.aminmax(points)
    return bool(least >= 0.0) and bool(largest <= 1.0)
