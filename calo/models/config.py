"""Settings of shower models as plain data, and the flows that they name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from nisampler.calo.preprocessing import PreprocessingConfig
from nisampler.calo.recipe import Recipe
from nisampler.errors import ConfigError, ModelError
from nisampler.flows import NetConfig, Spline


@dataclass(frozen=True)
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
    """

    kind: Literal["coupling", "maf"] = "coupling"
    blocks: int = 8
    net: NetConfig = field(default_factory=NetConfig)
    spline: Spline = field(default_factory=lambda: Spline(domain="line", bound=8.0))
    order: Literal["random", "alternate"] = "random"
    actnorm: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("coupling", "maf"):
            raise ConfigError(f"a flow is 'coupling' or 'maf', got {self.kind!r}")
        if self.blocks < 1:
            raise ConfigError(f"a flow needs at least one block, got {self.blocks}")
        if self.spline.domain != "line":
            raise ConfigError("shower coordinates lie on the line: choose Spline(domain='line')")


@dataclass(frozen=True)
class ModelConfig:
    """A shower model: everything that, with a geometry, determines it.

    Parameters
    ----------
    family
        "two-step" (CaloFlow), "one-step" (CaloINN) or "student" (a distilled flow II on a two-step teacher).
    preprocessing
        From showers to coordinates.
    flows
        Flow I and flow II; one flow; flow I, flow II and the student.
    recipes
        One for each flow.
    symmetric
        Turn and mirror training showers at random.
    guided
        Distillation compares the intermediate steps and spline parameters too.

    Raises
    ------
    ConfigError
        If the numbers of flows and recipes do not fit the family.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")  # of all settings inside, too

    family: Literal["two-step", "one-step", "student"]
    preprocessing: PreprocessingConfig
    flows: tuple[FlowConfig, ...]
    recipes: tuple[Recipe, ...]
    symmetric: bool = False
    guided: bool = True

    def __post_init__(self) -> None:
        count = {"two-step": 2, "one-step": 1, "student": 3}.get(self.family)
        if count is None:
            raise ConfigError(f"a family is 'two-step', 'one-step' or 'student', got {self.family!r}")
        if len(self.flows) != count or len(self.recipes) != count:
            raise ConfigError(f"a {self.family} model has {count} flows and recipes")

    def to_dict(self) -> dict[str, Any]:
        """JSON data that `from_dict` reads."""
        data: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ModelConfig:
        """The settings that `to_dict` wrote.

        Raises
        ------
        ModelError
            If a setting is unknown, missing or wrong.
        """
        try:
            return _ADAPTER.validate_python(data)
        except ValidationError as error:
            raise ModelError(f"not the settings of a shower model: {error}") from error


_ADAPTER = TypeAdapter(ModelConfig)
