"""Settings of models of jets, and the ones that have a name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from nisampler.base.checks import Count, Depth, Positive, Width, checked, from_data, settings
from nisampler.calo.recipe import Recipe
from nisampler.errors import ConfigError, ModelError
from nisampler.flows.nets.epic import EpicConfig


@settings
class JetConfig:
    """A model of jets.

    Parameters
    ----------
    kind
        How constituents are made of noise: "matching" (EPiC-FM) or "diffusion" (EPiC-JeDi).
    net, recipe
        Their network, and how it is trained.
    steps
        Steps of the midpoint solver, of two evaluations each.
    spread
        Standard deviation of the coordinates beside noise of unit variance.
    calibrate
        Give the constituents the pT and mass that the first flow drew.
    blocks, hidden, properties
        Blocks, width and recipe of the flow of type, pT, mass and number of constituents.

    Raises
    ------
    ConfigError
        If a setting is unknown or out of range.

    Examples
    --------
    >>> JetConfig(steps=16).kind
    'matching'
    """

    kind: Literal["matching", "diffusion"] = "matching"
    net: EpicConfig = field(default_factory=EpicConfig)
    recipe: Recipe = field(
        default_factory=lambda: Recipe(
            10_000, 1024, 1e-3, warm_up=0.1, weight_decay=5e-5, clip=0.5, ema=0.999
        )
    )  # fmt: skip
    steps: Count = 100
    spread: Positive = 1.0
    calibrate: bool = False
    blocks: Depth = 6
    hidden: Width = 64
    properties: Recipe = field(default_factory=lambda: Recipe(100, 512, 1e-3, ema=0.99, clip=1.0))


@dataclass(frozen=True)
class Preset:
    """A configuration with what it is.

    >>> PRESETS["epic-fm"].config.net.layers
    6
    """

    config: JetConfig
    text: str


_SMALL_NET = EpicConfig(layers=4, hidden=64, shared=10)
_SMALL = Recipe(60, 256, 2e-3, warm_up=0.1, weight_decay=5e-5, clip=0.5, ema=0.999)
_FIRST = Recipe(40, 512, 2e-3, ema=0.99, clip=1.0)

PRESETS: dict[str, Preset] = {
    "epic-fm": Preset(JetConfig(spread=5.0), "EPiC layers, flow matching, as published (2310.00049)"),
    "epic-jedi": Preset(JetConfig("diffusion"), "EPiC layers, diffusion with a score, as published (2310.00049)"),
    "small-epic-fm": Preset(
        JetConfig("matching", _SMALL_NET, _SMALL, 24, calibrate=True, properties=_FIRST),
        "the same for a CPU, with pT and mass set after generation",
    ),
    "small-epic-jedi": Preset(
        JetConfig("diffusion", _SMALL_NET, _SMALL, 24, calibrate=True, properties=_FIRST),
        "the same for a CPU, with pT and mass set after generation",
    ),
}  # fmt: skip
"""Models by name."""


def preset(name: str) -> JetConfig:
    """The settings of a name.

    Raises
    ------
    ConfigError
        If there is none of that name.

    Examples
    --------
    >>> preset("small-epic-jedi").kind
    'diffusion'
    """
    if name not in PRESETS:
        raise ConfigError(f"there is no model of jets called {name!r}: choose {', '.join(PRESETS)}")
    return PRESETS[name].config


def stored_config(data: object) -> JetConfig:
    """Settings from the JSON of a model's folder.

    Raises
    ------
    ModelError
        If this release cannot read them.

    Examples
    --------
    >>> stored_config({"kind": "unknown"})
    Traceback (most recent call last):
    ...
    nisampler.errors.ModelError: settings of another release: kind = "unknown": must be "matching" or "diffusion"
    """
    try:
        config: JetConfig = checked("config", from_data(JetConfig, data), JetConfig)
    except ConfigError as error:
        raise ModelError(f"settings of another release: {error}") from error
    return config
