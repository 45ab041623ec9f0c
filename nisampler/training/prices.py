"""Seconds of calls, points and training steps as far as they are known, measured once or stated."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict

from nisampler.base import tuning
from nisampler.samplers.base import Sampler
from nisampler.training.config import TrainingConfig
from nisampler.training.costs import Costs, Meter, rounded


class Prices:
    """What points cost, by the names of `Costs`.

    Parameters
    ----------
    config
        `costs` if they are given; otherwise they are measured where `choice` asks for the clock and a sampler is to be
        chosen by seconds.
    call
        Seconds of an integrand call, as the integrand states it or as they are assumed.

    Attributes
    ----------
    measures
        Whether a clock is read: only if asked for, and not for a sampler that is named, nor where costs are given.
    told
        Whether seconds of candidates are shown.
    known
        Seconds, as far as they are known.
    flow
        The name of the flow in use, "small" or "large".

    Examples
    --------
    >>> from nisampler.samplers.base import UniformSampler
    >>> prices = Prices(TrainingConfig(costs=Costs(1e-3, grid=1e-6)))
    >>> round(prices.point(UniformSampler(2)), 9)
    0.001001
    """

    def __init__(self, config: TrainingConfig, call: float = tuning.ASSUMED_CALL) -> None:
        chooses = config.sampler == "auto" and config.events != 0
        self.measures = chooses and config.costs is None and config.choice.choose_by == "clock"
        self.told = chooses or config.costs is not None
        given = config.costs or Costs(call)
        self.known: dict[str, float] = {} if self.measures else asdict(given)
        self.meter, self.flow = Meter(), "large"

    def timed(self, name: str, points: int) -> AbstractContextManager[None]:
        """Measure what is done inside for so many points, where a clock is read at all."""
        return self.meter.timed(name, points) if self.measures else nullcontext()

    def note(self, *names: str) -> None:
        """Take these costs from the meter, unless they are known already."""
        for name in names:
            if name not in self.known:
                whole = self.meter.seconds(name)
                call = self.known["call"] if name.endswith("_training") else 0.0
                self.known[name] = rounded(max(whole - call, 0.1 * whole))

    def settled(self) -> dict[str, float]:
        """All costs: those of calls and grids from the meter, if there is one, and the others as they are stated."""
        if self.measures:
            self.note("call", "grid")
            self.known = asdict(Costs(self.known["call"])) | self.known
        return dict(self.known)

    def call(self) -> float:
        """Seconds of an integrand call, as far as they are known."""
        return self.meter.seconds("call") if self.measures else self.known["call"]

    def point(self, sampler: Sampler) -> float:
        """Seconds of an integrand call at a point of this sampler."""
        grid, flow = self.known["grid"], self.known.get(self.flow, 0.0)
        return self.known["call"] + sampler.cost({"grid": grid, "tree": self.known.get("tree", grid), "flow": flow})

    def growth(self) -> float:
        """Seconds of growing a tree per point; until it was measured, as on a quick machine."""
        return self.known.get("growth", Costs(1.0).growth / tuning.QUICK_MACHINE)
