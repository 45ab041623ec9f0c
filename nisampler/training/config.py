"""What a training is told: its budget, and how flows, trees and channels are handled."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field, InstanceOf

from nisampler.base.checks import (
    Depth,
    Finite,
    Fraction,
    Natural,
    NonNegative,
    Positive,
    Several,
    Whole,
    Width,
    settings,
)
from nisampler.base.optim import OptimizerFactory
from nisampler.errors import ConfigError
from nisampler.training.costs import Costs
from nisampler.training.divergence import Divergence
from nisampler.training.divergences import divergence

# Between the hidden layers of a network, of which a flow has ten or more.
_MOST_WEIGHTS = 1 << 24


@settings
class FlowSettings:
    """The flows and their training: `[training.flow]`.

    Parameters
    ----------
    bins
        Of the splines.
    hidden, layers
        Width and number of hidden layers of the networks.
    fourier
        Fourier features of the networks; -1 decides by a short trial between none and four.
    vegas_start
        How a flow starts from the VEGAS grid of the survey. "bins": the cells become bins of its first splines, which
        go on learning. "under": the grid stays under the flow, exact to its narrowest cell. "never": not at all.
        "auto": "under" where a uniform start finds next to nothing, else "bins" for the flows of channels, and "never"
        for a single flow.
    batch
        Fresh points per step. By default calls/4000, from 128 to 1024; for channels calls/2000, from 128 to 512, and
        calls/800 with `events`.
    reuse
        Steps on stored points after each step on fresh ones. Costs time but no integrand calls. By default one; three
        for channels, as their flows share the calls, where a call is stated or taken to cost 8 microseconds, and with
        `events` = 0, where efficiency counts and not the time.
    buffer
        Number of points that are kept for reuse.
    learning_rate
        Peak of a cosine schedule.
    clip
        Largest norm of a gradient.
    weight_decay
        Of AdamW; 0 is plain Adam.
    divergence, tail_divergence
        Losses (see `nisampler.training.divergences`) after a short start with the forward KL divergence, and in the
        last quarter; "none" for no tail stage. The order of "renyi" follows the efficiency, from 4 to 30. In Python
        also a `Divergence` of one's own.
    optimizer
        In Python: a function that makes another optimizer than AdamW from parameters. Its own learning rates are then
        the peaks of the schedule, and `learning_rate` and `weight_decay` are not used.

    Examples
    --------
    >>> from functools import partial
    >>> import torch
    >>> FlowSettings(hidden=32, optimizer=partial(torch.optim.NAdam, lr=2e-3)).hidden
    32
    """

    bins: Annotated[Whole, Field(ge=3, le=1000)] = 10
    hidden: Width = 64
    layers: Depth = 3
    fourier: Annotated[Whole, Field(ge=-1, le=1000)] = -1
    vegas_start: Literal["auto", "bins", "under", "never"] = "auto"
    batch: Several | None = None
    reuse: Natural | None = None
    buffer: Annotated[Whole, Field(ge=1, le=100_000_000)] = 300_000
    learning_rate: Positive = 4e-3
    clip: Positive = 1.0
    weight_decay: NonNegative = 0.0
    divergence: str | InstanceOf[Divergence] = "exponential"
    tail_divergence: str | InstanceOf[Divergence] = "renyi"
    optimizer: OptimizerFactory | None = None

    def __post_init__(self) -> None:
        if self.hidden**2 * self.layers > _MOST_WEIGHTS:
            raise ConfigError(f"hidden = {self.hidden} and layers = {self.layers}: networks too large for a flow")
        for name in (self.divergence, self.tail_divergence):
            if isinstance(name, str) and (name != "none" or name is self.divergence):
                divergence(name)


@settings
class TreeSettings:
    """The density tree in the latent cube of a sampler: `[training.tree]`.

    Parameters
    ----------
    on
        Try one; it is kept if unseen points show a gain.
    leaves
        Largest number of leaves.

    Examples
    --------
    >>> TreeSettings(on=False).leaves
    50000
    """

    on: bool = True
    leaves: Annotated[Whole, Field(ge=1, le=1_000_000)] = 50_000


@settings
class ChannelSettings:
    """Weights and shares of several channels: `[training.channels]`. Without meaning for one channel.

    Parameters
    ----------
    learned_weights
        Train the weights of the channels; otherwise they stay at their prior.
    mixture
        After the training, try the weights α_i ∝ s_i g_i q_i of the trained flows q, see
        `nisampler.samplers.mixture.MixtureWeights`; they are kept if unseen points show a gain. They are the best
        ones and cost one evaluation of every channel for each point.
    freeze
        Fraction of the steps after which channel weights and shares stand still.
    drop
        Channels that together carry less than this fraction of the integral are dropped when the weights freeze; the
        others take over their part.

    Examples
    --------
    >>> ChannelSettings(drop=0.0).freeze
    0.75
    """

    learned_weights: bool = True
    mixture: bool = True
    freeze: Annotated[Finite, Field(gt=0.0, le=1.0)] = 0.75
    drop: Fraction = 1e-3


@settings
class ChoiceSettings:
    """How the sampler for a number of events is chosen: `[training.choice]`.

    Parameters
    ----------
    choose_by
        "calls": seconds are foreseen from numbers of calls, points and steps, and what each costs as it is stated: by
        `TrainingConfig.costs`, by the `seconds_per_call` of a process or function, and else as on one core of a server;
        a function that states none is taken for a quick one. The same seed gives the same bytes, however busy the
        machine is. "clock": what is not given by `TrainingConfig.costs` is measured, so that the choice suits this
        machine, and another run may choose otherwise.

    Examples
    --------
    >>> ChoiceSettings("clock").choose_by
    'clock'
    """

    choose_by: Literal["calls", "clock"] = "calls"


@settings
class TrainingConfig:
    """How a sampler adapts to an integrand: `[training]`. The defaults are meant to be good without tuning.

    Parameters
    ----------
    calls
        Integrand calls for the whole adaptation: survey, training, tree and validation; at least 100.
    sampler
        "auto" compares flow and VEGAS on unseen points; "flow" or "vegas" keeps to one.
    events
        Unweighted events that will be asked for. With a number, "auto" takes the sampler that makes them in the least
        time, training included, and trains it no longer than that needs, by the seconds that a call, a point and a
        training step cost; the decision is stored, and a resumed training does not take it again. "vegas" shortens its
        training likewise, by counting calls alone; "flow" spends them all. In a run card it is that of `[events]` by
        default. Without a number, in Python, it is the integral that counts: "auto" trains a flow only where VEGAS
        takes longer to the same error, by the same seconds, and no tree grows behind a grid, since it takes more from
        even points than it gives. 0 chooses by the efficiency alone.
    costs
        Seconds to choose by; see `ChoiceSettings` for what is taken where they are not given.
    choice, flow, tree, channels
        Settings of the parts.

    Examples
    --------
    >>> config = TrainingConfig(calls=100_000, flow=FlowSettings(hidden=32), tree=TreeSettings(on=False))
    >>> config.fresh_batch
    128
    """

    calls: Annotated[Whole, Field(ge=100, le=10**12)] = 1_000_000
    sampler: Literal["auto", "flow", "vegas"] = "auto"
    events: Natural | None = None
    costs: Costs | None = None
    choice: ChoiceSettings = ChoiceSettings()
    flow: FlowSettings = FlowSettings()
    tree: TreeSettings = TreeSettings()
    channels: ChannelSettings = ChannelSettings()

    def __post_init__(self) -> None:
        batch, most = self.flow.batch, self.calls // 20
        if batch is not None and batch > most:
            raise ConfigError(f"flow.batch must be at most calls/20 = {most}, got {batch}")
        if self.flow.buffer < self.fresh_batch:
            raise ConfigError(
                f"flow.buffer must hold at least one batch of {self.fresh_batch} points, got {self.flow.buffer}"
            )

    @property
    def fresh_batch(self) -> int:
        """Fresh points per step."""
        return self.flow.batch or min(1024, max(min(128, self.calls // 20), self.calls // 4000))

    def plain(self) -> dict[str, Any]:
        """The settings as JSON data, objects of one's own by their names, to be compared with those of a checkpoint."""
        plain: dict[str, Any] = _plain(self)
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, Divergence):
        return repr(value)
    if is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, partial):
        return repr([_plain(value.func), *value.args, value.keywords])
    return getattr(value, "__qualname__", type(value).__qualname__) if callable(value) else value
