"""What a point costs, and the seconds that a number of unweighted events will take.

N events of a sampler with unweighting efficiency e take N/e points; each costs an integrand call and the making of the
point. A flow raises e but has to be trained first, so that the best sampler depends on N and on the price of a call.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from nisampler.base import tuning
from nisampler.base.checks import Positive, settings


@settings
class Costs:
    """Seconds of everything that the choice of a sampler depends on; the defaults are those of one core of a server.

    No clock is read for them, so that a run can be repeated exactly: the costs of a run are in its result.

    Parameters
    ----------
    call
        Of one integrand call; by default those of a simple matrix element with parton densities. Of a function that
        states none, where no `Costs` are given, see `nisampler.base.tuning.LEAST_CALL`.
    grid, tree
        Of one point of VEGAS, and of a density tree behind any sampler.
    growth
        Of growing a density tree and trying it out, per point that it learns from.
    small, large
        Of one point of the small flow, and of the one that the configuration describes.
    small_training, large_training
        Of their training, per integrand call and without it.

    Raises
    ------
    ConfigError
        If a cost is not positive and finite.

    Examples
    --------
    >>> Costs(call=1e-3).grid
    2e-07
    """

    call: Positive = tuning.ASSUMED_CALL
    grid: Positive = 2e-7
    tree: Positive = 1e-7
    growth: Positive = 6e-6
    small: Positive = 4e-6
    small_training: Positive = 5e-5
    large: Positive = 7e-6
    large_training: Positive = 8e-5


@dataclass(frozen=True)
class Option:
    """A way to the events, as it was foreseen.

    Attributes
    ----------
    name
        "VEGAS", "VEGAS + tree", "flow 2x32" ...
    calls
        Integrand calls of its training, from the choice on.
    efficiency
        At 0.1 % overweight: measured for VEGAS, expected for a flow.
    seconds
        Of training, integration and generation.

    Examples
    --------
    >>> Option("VEGAS", 9000, 0.3, 12.5).seconds
    12.5
    """

    name: str
    calls: int
    efficiency: float
    seconds: float


@dataclass(frozen=True)
class Choice:
    """What was chosen for a number of events.

    Attributes
    ----------
    events
        Unweighted events that will be asked for; 0 for the integral alone.
    chosen
        Name of an option.
    reason
        Why, where it was not the number of seconds alone.
    options
        What was compared, the quickest first.
    costs
        Seconds that were measured or stated, by the names of `Costs`.
    measured
        Whether they were measured.

    Examples
    --------
    >>> Choice(1000, "VEGAS", "as told").line()
    'VEGAS for 1000 events; as told'
    """

    events: int
    chosen: str
    reason: str = ""
    options: list[Option] = field(default_factory=list)
    costs: dict[str, float] = field(default_factory=dict)
    measured: bool = False

    def line(self) -> str:
        """One line for a summary.

        >>> Choice(1000, "VEGAS", "", [Option("VEGAS", 0, 0.5, 2.0), Option("flow 2x32", 9000, 0.8, 31.0)]).line()
        'VEGAS for 1000 events; foreseen by stated costs: VEGAS 2 s, flow 2x32 31 s (flows within a factor 1.2)'
        """
        times = ", ".join(f"{option.name} {option.seconds:.2g} s" for option in self.options)
        source = "measured" if self.measured else "stated"
        foreseen = f"foreseen by {source} costs: {times}" if times else ""
        if any(option.name.startswith("flow") for option in self.options):
            foreseen += f" (flows within a factor {tuning.EFFICIENCY_WITHIN:.2g})"
        aim = f"{self.events} events" if self.events else "the integral"
        parts = [f"{self.chosen} for {aim}", foreseen, self.reason]
        return "; ".join(part for part in parts if part)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Choice:
        """The choice whose `dataclasses.asdict` this is."""
        return cls(**{**data, "options": [Option(**option) for option in data["options"]]})


class Meter:
    """Seconds per point of whatever is done again and again; the quickest of the last few times counts.

    What else runs on a machine can only make a measurement longer.

    >>> meter = Meter()
    >>> with meter.timed("call", 10):
    ...     pass
    >>> meter.seconds("call") < 1.0
    True
    """

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}

    @contextmanager
    def timed(self, name: str, points: int) -> Iterator[None]:
        """Measure what is done inside for so many points."""
        start = perf_counter()
        yield
        self.times[name] = [*self.times.get(name, []), (perf_counter() - start) / points][-tuning.COSTS_KEPT :]

    def seconds(self, name: str) -> float:
        """Seconds per point, rounded so that two measurements mostly agree."""
        return rounded(min(self.times[name]))


def rounded(seconds: float) -> float:
    """The nearest power of √2, and at least a nanosecond.

    >>> rounded(1.15e-4) == rounded(1.3e-4)
    True
    """
    return float(tuning.COST_STEP ** round(math.log(max(seconds, 1e-9), tuning.COST_STEP)))


def integration_calls(events: int, efficiency: float) -> int:
    """Integrand calls of the integration before `events` events are unweighted with this efficiency.

    As many as find w_max to the accuracy that 0.1 % overweight needs, which takes some points above it, and a tenth of
    those of the generation if that is more.

    >>> integration_calls(1_000_000, 0.5)
    200000
    """
    wanted = max(tuning.INTEGRATION_OF_POINTS * events, tuning.OVERWEIGHT_POINTS / tuning.OVERWEIGHT) / max(
        efficiency, 1e-9
    )
    return int(min(max(wanted, tuning.INTEGRATION_FEWEST), tuning.INTEGRATION_MOST))


def points_of(events: int, efficiency: float) -> float:
    """Points of the integration and the generation together.

    >>> points_of(100_000, 0.5)
    220000.0
    """
    return events / max(efficiency, 1e-9) + integration_calls(events, efficiency)


def flow_efficiency(vegas: float, calls: int, flows: int = 1, small: bool = False) -> float:
    """What a flow may reach after a training with `calls` calls, from the efficiency of VEGAS on the same integrand.

    `flows` share the calls in a multichannel sampler; a `small` one learns less from them. It is an expectation: what
    comes out is mostly within a factor `tuning.EFFICIENCY_WITHIN`.

    >>> round(flow_efficiency(0.01, 100_000), 3)
    0.398
    """
    half_way = tuning.HALF_WAY[small] * (flows * tuning.SHARED_HALF_WAY if flows > 1 else 1.0)
    return float(max(vegas, 1e-9) ** (1.0 / (1.0 + calls / half_way)))


def integral_gain(spread: float, dim: int, calls: int, flows: int = 1) -> float:
    """How many times more points VEGAS takes to the error of a flow that was trained with `calls` calls.

    Parameters
    ----------
    spread
        Variance of the weights of VEGAS over their squared mean.
    dim, calls, flows
        Coordinates; `flows` share the calls in a multichannel sampler.

    >>> round(integral_gain(30.0, dim=8, calls=1_000_000)), round(integral_gain(30.0, dim=8, calls=20_000), 1)
    (231, 7.4)
    """
    reached = tuning.FLOW_SPREAD + tuning.SPREAD_OF_CALLS * dim * dim * flows / max(1, calls)
    return spread / (tuning.EVENNESS * reached)


def flow_seconds(
    events: int,
    vegas: float,
    calls: int,
    call: float,
    point: float,
    training: float,
    flows: int = 1,
    small: bool = False,
) -> float:
    """Seconds of a flow's training with `calls` calls, the integration and `events` events.

    Parameters
    ----------
    events, vegas, calls, flows, small
        As for `flow_efficiency`.
    call, point, training
        Seconds of an integrand call, of a point of the flow, and of its training per call.

    Examples
    --------
    >>> round(flow_seconds(100_000, 0.01, 100_000, call=1e-4, point=1e-5, training=1e-4), 1)
    50.4
    """
    after = points_of(events, flow_efficiency(vegas, calls, flows, small))
    return calls * (call + training) + after * (call + point)


def best_flow_calls(
    events: int,
    vegas: float,
    most: int,
    call: float,
    point: float,
    training: float,
    flows: int = 1,
    small: bool = False,
) -> int:
    """The training calls with the least `flow_seconds`: `most` or a half, a quarter ... of it.

    >>> best_flow_calls(100_000, 0.01, 800_000, call=1e-4, point=1e-5, training=1e-4)
    100000
    """
    options = [most >> k for k in range(12) if most >> k >= tuning.LEAST_TRAINING] or [most]
    return min(options, key=lambda calls: flow_seconds(events, vegas, calls, call, point, training, flows, small))
