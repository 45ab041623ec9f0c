"""One axis of a panel: its limits, and where they put a number."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nisampler.ui.sketch.ticks import Kind, labels, linear_ticks, log_ticks

Floats = NDArray[np.float64]
_FAR = 3.0
"""In units of the axis, beyond which nothing is drawn."""


class Scale:
    """A linear or logarithmic axis.

    Attributes
    ----------
    limits
        Its ends; what was seen, with a margin, where they are not set.
    log
        Whether it is logarithmic.
    kind
        Of the ticks.
    margin
        Share of the range that is left free at each end.
    ticks
        Where they are, if that is set.

    Examples
    --------
    >>> scale = Scale()
    >>> scale.see([0.0, 1.0])
    >>> scale.ends(), scale.shares([0.0]).round(3)
    ((-0.05, 1.05), array([0.045]))
    """

    def __init__(self) -> None:
        self.limits: tuple[float, float] | None = None
        self.log, self.margin = False, 0.05
        self.kind: Kind = "plain"
        self.ticks: list[float] | None = None
        self._low, self._high = math.inf, -math.inf

    def see(self, values: ArrayLike) -> None:
        """Numbers that the axis should reach."""
        found = np.asarray(values, dtype=np.float64)
        found = found[np.isfinite(found) & ((found > 0) | (not self.log))]
        if found.size:
            self._low, self._high = min(self._low, float(found.min())), max(self._high, float(found.max()))

    def ends(self) -> tuple[float, float]:
        """The limits."""
        if self.limits is not None:
            return self.limits
        low, high = (self._low, self._high) if self._low <= self._high else (0.0, 1.0)
        if self.log:
            room = (high / low) ** self.margin if high > low > 0 else 10.0
            return low / room, high * room
        room = self.margin * (high - low) or 0.05 * abs(high) or 0.05
        return low - room, high + room

    def shares(self, values: ArrayLike) -> Floats:
        """Where numbers lie, 0 at the lower end and 1 at the upper one; NaN stays NaN."""
        found = np.asarray(values, dtype=np.float64)
        low, high = self.ends()
        if self.log:
            with np.errstate(divide="ignore", invalid="ignore"):
                found = np.where(found <= 0.0, -math.inf, np.log10(found))
            low, high = math.log10(low), math.log10(high)
        share: Floats = np.clip((found - low) / (high - low), 1.0 - _FAR, _FAR)
        return share

    def marks(self, most: int) -> tuple[list[float], list[str], str]:
        """Places and texts of at most about so many ticks, and a factor of all."""
        low, high = self.ends()
        if self.log:
            return *log_ticks(low, high, most), ""
        places = self.ticks
        if places is None:
            places = linear_ticks(low, high, 4 if self.kind == "few" else most, self.kind == "whole")
        if self.kind == "few":
            near = 0.02 * (high - low)
            places = [place for place in places if low + near < place < high - near]
        inside = [place for place in places if low - 1e-9 * (high - low) <= place <= high + 1e-9 * (high - low)]
        return inside, *labels(inside, self.kind)
