"""Settings of shower models as plain data, and the flows that they name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

from nisampler.base.checks import Count, Natural, NonNegative, Row, from_data, must_be, settings, to_data
from nisampler.base.rng import Streams
from nisampler.calo.models.vae import AutoencoderConfig
from nisampler.calo.preprocessing.preprocessing import PreprocessingConfig
from nisampler.calo.recipe import Recipe
from nisampler.errors import ConfigError, ModelError
from nisampler.flows import (
    ConvCouplingConfig,
    NetConfig,
    PointTransformerConfig,
    PointwiseConfig,
    Spline,
    VelocityConfig,
)


@settings
class FlowConfig:
    """One flow of a shower model, with a normal base and rational-quadratic or cubic splines with linear tails.

    Parameters
    ----------
    kind
        "coupling" (equally fast in both directions) or "maf" (fast density, sequential generation).
    blocks
        Number of blocks.
    net
        Conditioners; their context is set by the model.
    spline
        Must be on the line.
    order
        How the coordinates of a "maf" are reordered between blocks: "random", or "alternate" between the reversed and a
        random order.
    actnorm
        Normalise the coordinates before each coupling block.

    Raises
    ------
    ConfigError
        If a setting is unknown or out of range.

    Examples
    --------
    >>> FlowConfig("maf", blocks=0)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: blocks = 0: must be a whole number, at least 1
    """

    kind: Literal["coupling", "maf"] = "coupling"
    blocks: Count = 8
    net: NetConfig = field(default_factory=NetConfig)
    spline: Spline = field(default_factory=lambda: Spline(domain="line", bound=8.0))
    order: Literal["random", "alternate"] = "random"
    actnorm: bool = False

    def __post_init__(self) -> None:
        if self.spline.domain != "line":
            raise ConfigError("shower coordinates lie on the line: choose Spline(domain='line')")


AnyFlow = (
    FlowConfig | ConvCouplingConfig | VelocityConfig | PointwiseConfig | PointTransformerConfig | AutoencoderConfig
)
Kinds = tuple[type | tuple[type, ...], ...]

FAMILIES: dict[str, Kinds] = {
    "two-step": (FlowConfig, FlowConfig),
    "one-step": (FlowConfig,),
    "student": (FlowConfig, FlowConfig, FlowConfig),
    "chain": (FlowConfig, (FlowConfig, ConvCouplingConfig)),
    "inductive": (FlowConfig, FlowConfig, FlowConfig),
    "inductive-student": (FlowConfig,) * 5,
    "matching": (VelocityConfig, VelocityConfig),
    "matching-student": (VelocityConfig,) * 4,
    "clouds": (FlowConfig, PointwiseConfig),
    "clouds-onestep": (FlowConfig, PointwiseConfig, PointwiseConfig),
    "allshowers": (FlowConfig, PointTransformerConfig),
    "autoencoder": (AutoencoderConfig,),
}
"""The settings of the flows of each family; `nisampler.calo.models.register` adds one."""


@settings
class ModelConfig:
    """A shower model: everything that, with a geometry, determines it.

    Parameters
    ----------
    family
        "two-step" (CaloFlow), "one-step" (CaloINN), "student" (a distilled flow II on a two-step teacher), "chain"
        (L2LFlows: a flow for each layer), "inductive" (iCaloFlow: one flow from layer to layer), "inductive-student",
        "matching" (conditional flow matching in two steps), "matching-student" (that with students that take a step or
        two), "clouds" (CaloClouds: point clouds by diffusion), "clouds-onestep" (with a distilled student),
        "allshowers" (point clouds by flow matching), "autoencoder" (to compare with), or one of your own, see
        `nisampler.calo.models.register`.
    preprocessing
        From showers to coordinates; models of point clouds have their own way and do not look at it.
    flows
        Flow I and flow II; one flow; flow I, flow II and the student; that of the energies and that of a layer;
        iCaloFlow's three, and the students of the last two; velocities of the energies and of the voxels,
        and their students; that of the layers and the network of the points, and of its student.
    recipes
        One for each flow.
    symmetric
        Turn and mirror training showers at random.
    guided
        Distillation compares the intermediate steps and spline parameters too.
    history
        Of a chain: the number of layers before it that a layer is given.
    veto
        Generated layer energies that add up to more than so many incident energies are drawn again; 0 for none.
    spectrum
        Number of quantiles at which generated voxel energies are mapped to those of the training showers
        (2405.20407, appendix C); 0 for none.

    Raises
    ------
    ConfigError
        If the numbers of flows and recipes do not fit the family.

    Examples
    --------
    >>> config = ModelConfig("one-step", PreprocessingConfig(), (FlowConfig(),), (Recipe(10, 100, 1e-3),))
    >>> ModelConfig.from_dict(config.to_dict()) == config
    True
    """

    family: str
    preprocessing: PreprocessingConfig
    flows: Row[AnyFlow]
    recipes: Row[Recipe]
    symmetric: bool = False
    guided: bool = True
    history: Natural = 5
    veto: NonNegative = 0.0
    spectrum: Natural = 0

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ConfigError(must_be("family", self.family, Literal[tuple(FAMILIES)]))
        kinds = FAMILIES[self.family]
        if len(self.flows) != len(kinds) or len(self.recipes) != len(kinds):
            raise ConfigError(f"a {self.family} model has {len(kinds)} flows and recipes")
        for flow, known in zip(self.flows, kinds, strict=True):
            if not isinstance(flow, known):
                raise ConfigError(f"a {self.family} model cannot be made of {type(flow).__name__}")
        if self.spectrum == 1:
            raise ConfigError("spectrum = 1: a map needs at least two quantiles, 0 for none")

    @property
    def plain_flows(self) -> tuple[FlowConfig, ...]:
        """The flows over flat vectors: all of them in most families."""
        return tuple(flow for flow in self.flows if isinstance(flow, FlowConfig))

    def to_dict(self) -> dict[str, Any]:
        """JSON data that `from_dict` reads."""
        return to_data(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ModelConfig:
        """The settings that `to_dict` wrote.

        Raises
        ------
        ModelError
            If a setting is unknown, missing or wrong.
        """
        try:
            return from_data(cls, data)
        except ConfigError as error:
            raise ModelError(f"not the settings of a shower model: {error}") from error


def model_streams(settings: Mapping[str, Any], seed: int) -> Streams:
    """Random streams of a seed for models of this family and these flows, independent of those of all others.

    >>> config = ModelConfig("one-step", PreprocessingConfig(), (FlowConfig(),), (Recipe(10, 100, 1e-3),))
    >>> other = ModelConfig("one-step", PreprocessingConfig(), (FlowConfig(blocks=9),), (Recipe(10, 100, 1e-3),))
    >>> model_streams(config.to_dict(), 1) == model_streams(other.to_dict(), 1)
    False
    """
    text = json.dumps([settings.get("family"), settings.get("flows")], sort_keys=True)
    return Streams(seed).child(f"model {hashlib.sha256(text.encode()).hexdigest()}")
