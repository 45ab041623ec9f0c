"""Observables: a number for each event, with the binning and the label of its histogram."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nisampler.base.checks import Count, Finite, settings
from nisampler.errors import ConfigError, ShapeError
from nisampler.events.batch import EventBatch


@settings
class Observable:
    """A function of an event batch and how to draw it.

    Parameters
    ----------
    name
        A short identifier, e.g. ``"thrust"``.
    label
        Axis label in matplotlib's mathtext, with the unit.
    low, high
        Range of the histogram.
    bins
        Number of bins.
    function
        Maps a batch of n events to an array (n,).
    log
        Bins of equal width in the logarithm.

    Raises
    ------
    ConfigError
        If the range is empty or without bins, or not positive with `log`.

    Examples
    --------
    >>> from nisampler.events.batch import EventBatch
    >>> energy = Observable("e", "$E$ [GeV]", 1.0, 100.0, 2, lambda batch: batch.momenta[:, 2, 0], log=True)
    >>> energy.edges().tolist(), energy(EventBatch.empty(3)).shape
    ([1.0, 10.0, 100.0], (0,))
    """

    name: str
    label: str
    low: Finite
    high: Finite
    bins: Count
    function: Callable[[EventBatch], NDArray[np.float64]]
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ConfigError(f"observable {self.name}: need low < high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ConfigError(f"observable {self.name}: logarithmic bins need low > 0, got {self.low}")

    def edges(self) -> NDArray[np.float64]:
        """(bins + 1,) bin edges."""
        if self.log:
            return np.geomspace(self.low, self.high, self.bins + 1)
        return np.linspace(self.low, self.high, self.bins + 1)

    def __call__(self, batch: EventBatch) -> NDArray[np.float64]:
        """(n,) values.

        Raises
        ------
        ShapeError
            If the function does not return one number for each event.
        """
        values = np.asarray(self.function(batch), dtype=np.float64)
        if values.shape != (len(batch),):
            raise ShapeError(f"observable {self.name} must return shape ({len(batch)},), got {values.shape}")
        return values
