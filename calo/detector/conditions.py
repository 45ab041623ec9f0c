"""What showers depend on beside the incident energy: named numbers, azimuths and categories of the particle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nisampler.errors import GeometryError

Floats = NDArray[np.float64]
ConditionKind = Literal["number", "azimuth", "category"]
Unit = Literal["", "deg", "rad", "mm"]

RESERVED = frozenset(
    "energy energies showers seed batch output geometry incident device threads quiet threshold bin help "
    "posterior_draw overflow incident_energies".split()
)
"""Names that options and datasets have already."""

# Values so much of the range beyond it still count as inside; azimuths in so much of a turn have all of it.
_EDGE, _WHOLE = 0.01, 0.98
_FLAT = math.sqrt(3.0)  # standard deviation one of a flat law in ±√3


@dataclass(frozen=True)
class Condition:
    """A column beside the incident energy.

    Parameters
    ----------
    name
        Of the dataset in files, and of the option.
    kind
        "number"; "azimuth", an angle that comes round; "category", one of some codes, such as PDG codes.
    values
        The ends between which a number or an azimuth is drawn uniformly, or all values where it is `discrete`; the
        codes of a category.
    labels
        Names of the codes of a category; by default the codes.
    unit
        "deg", "rad", "mm" or "" for none; an azimuth needs one of the first two.
    discrete
        Values are drawn from the list, each as often.

    Raises
    ------
    GeometryError
        If a name is taken, values do not increase or are not finite, or labels or units do not fit.

    Examples
    --------
    >>> Condition("theta", "number", (0.0, 40.0), unit="deg").shown(30.0)
    'theta = 30 deg'
    """

    name: str
    kind: ConditionKind
    values: tuple[float, ...]
    labels: tuple[str, ...] = ()
    unit: Unit = ""
    discrete: bool = False

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name in RESERVED:
            raise GeometryError(f"a condition cannot be called {self.name!r}: choose a word that no option has")
        if self.kind not in get_args(ConditionKind) or self.unit not in get_args(Unit):
            raise GeometryError(
                f"condition {self.name}: kinds are {', '.join(get_args(ConditionKind))}, units deg, rad and mm; "
                f"got {self.kind!r} and {self.unit!r}"
            )
        values = self.values
        falling = any(b <= a for a, b in pairwise(values))
        if not values or not all(map(math.isfinite, values)) or falling:
            raise GeometryError(f"condition {self.name}: values must be finite and increase, got {values}")
        if self.kind != "category" and not self.discrete and len(values) > 2:
            raise GeometryError(f"condition {self.name}: a range has two ends; a list of values is discrete = true")
        if self.kind == "azimuth" and self.unit not in ("deg", "rad"):
            raise GeometryError(f"condition {self.name}: an azimuth has the unit deg or rad, got {self.unit!r}")
        if self.labels and (self.kind != "category" or len(set(self.labels)) != len(values)):
            raise GeometryError(f"condition {self.name}: labels name each code of a category, got {self.labels}")

    @property
    def names(self) -> tuple[str, ...]:
        """Labels of the values of a category or a list."""
        return self.labels or tuple(f"{value:g}" for value in self.values)

    @property
    def width(self) -> int:
        """How many numbers a model is given."""
        return {"number": 1, "azimuth": 2, "category": len(self.values)}[self.kind]

    def radians(self, values: Floats) -> Floats:
        """Angles in radians."""
        return np.deg2rad(values) if self.unit == "deg" else values

    def encode(self, values: Tensor) -> Tensor:
        """What a model is given of values (n,): (n, width), each number of about unit variance."""
        if self.kind == "category":
            return (values[:, None] == torch.as_tensor(self.values, dtype=values.dtype, device=values.device)).to(
                values.dtype
            )
        if self.kind == "azimuth":
            turns = values * (math.pi / 180.0 if self.unit == "deg" else 1.0)
            return math.sqrt(2.0) * torch.stack([turns.cos(), turns.sin()], dim=1)
        low, high = self.values[0], self.values[-1]
        half = 0.5 * (high - low) or 1.0
        return (_FLAT * (values - 0.5 * (low + high)) / half)[:, None]

    def sample(self, n: int, rng: np.random.Generator) -> Floats:
        """Draw `n` values."""
        if self.kind == "category" or self.discrete or len(self.values) == 1:
            return rng.choice(np.asarray(self.values), size=n)
        return rng.uniform(self.values[0], self.values[-1], n)

    def trained(self, values: Floats) -> list[float]:
        """What is remembered of the values (n,) that a model learns from: the codes of a category, or the extremes."""
        return [float(v) for v in (np.unique(values) if self.kind == "category" else (values.min(), values.max()))]

    def outside(self, values: Floats, trained: Sequence[float]) -> int:
        """How many of the values (n,) lie beyond those that a model learned from, as `trained` gave them."""
        if self.kind == "category":
            return int(np.count_nonzero(~np.isin(values, trained)))
        low, high = trained[0], trained[-1]
        period = 360.0 if self.unit == "deg" else 2 * math.pi
        if self.kind == "azimuth" and high - low >= _WHOLE * period:
            return 0
        margin = _EDGE * (high - low)
        return int(np.count_nonzero((values < low - margin) | (values > high + margin)))

    def check(self, values: Floats, where: object) -> None:
        """Refuse values (n,) that are not finite, or none of the codes.

        Raises
        ------
        GeometryError
            The message names the first one.
        """
        good = np.isin(values, self.values) if self.kind == "category" else np.isfinite(values)
        wrong = np.flatnonzero(~good)
        if len(wrong):
            known = f"one of {', '.join(map('{:g}'.format, self.values))}" if self.kind == "category" else "finite"
            raise GeometryError(
                f"{where}: {self.name} of shower {wrong[0]} is {values[wrong[0]]:g} and must be {known} "
                f"({len(wrong)} such showers)"
            )

    @property
    def _codes(self) -> dict[str, float]:
        """Codes of a category by label, and as they are written."""
        return dict(zip(self.names, self.values, strict=True)) | {f"{value:g}": value for value in self.values}

    def read(self, word: str) -> float:
        """The value of a word of a table: a number, or the label of a category; ValueError if it is neither."""
        code = self._codes.get(word.strip()) if self.kind == "category" else None
        return float(word) if code is None else code

    def parse(self, text: str) -> Condition:
        """The same column with what a text says: "30", "20:40", "10,20,30", or labels of a category.

        Raises
        ------
        GeometryError
            If it says none of these.
        """
        if self.kind == "category":
            chosen = [self._codes.get(word.strip()) for word in text.split(",")]
            found = sorted({code for code in chosen if code is not None})
            if None in chosen:
                raise GeometryError(f"--{self.name} is one of {', '.join(self.names)}, or several, got {text!r}")
            labels = tuple(self.names[self.values.index(code)] for code in found)
            return Condition(self.name, self.kind, tuple(found), labels, self.unit)
        values, discrete = spoken(text, self.name)
        return Condition(self.name, self.kind, values, (), self.unit, discrete)

    def shown(self, value: float) -> str:
        """A value with its name."""
        if self.kind == "category":
            return f"{self.name} = {self.names[self.values.index(value)]}"
        return f"{self.name} = {value:.4g} {self.unit}".rstrip()


def spoken(text: str, name: str) -> tuple[tuple[float, ...], bool]:
    """Values of a text, and whether they are a list: "30", "10,20,30", or the range "20:40".

    Raises
    ------
    GeometryError
        If it is none of them.

    Examples
    --------
    >>> spoken("20:40", "theta"), spoken("30", "theta")
    (((20.0, 40.0), False), ((30.0,), True))
    """
    parts = text.split(":" if ":" in text else ",")
    try:
        values = tuple(float(part) for part in parts)
    except ValueError:
        values = ()
    if not values or not all(map(math.isfinite, values)) or (":" in text and len(values) != 2):
        raise GeometryError(f"--{name} is a number, a range LOW:HIGH or a list A,B,..., got {text!r}")
    return (values, False) if ":" in text else (tuple(sorted(set(values))), True)


def encode(conditions: Sequence[Condition], values: Tensor) -> Tensor:
    """What models and classifiers are given of the columns (n, k): (n, w).

    >>> encode([Condition("theta", "number", (0.0, 40.0))], torch.tensor([[20.0]]))
    tensor([[0.]])
    """
    return torch.cat([known.encode(column) for known, column in zip(conditions, values.unbind(1), strict=True)], dim=1)
