"""Published settings of CaloDREAM (2405.09629), and small ones, for models of flow matching."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.models.config import ModelConfig
from nisampler.calo.models.presets.preset import Preset, clear_noise, turns
from nisampler.calo.preprocessing.preprocessing import PreprocessingConfig
from nisampler.calo.recipe import Recipe
from nisampler.flows import VelocityConfig

# In place of CaloDREAM's autoregressive transformer of the energies: about as many weights.
_ENERGIES = VelocityConfig(hidden=512, layers=4, frequencies=64, solver="rk4", steps=50)
_ENERGY_RECIPE = Recipe(500, 4000, 2e-3, "one-cycle")

# Of a student: evaluations for each shower, in place of 32.
_JUMPS = 1


def _calodream(
    shape: VelocityConfig, epochs: int, clip: float, weight_decay: float
) -> Callable[[Geometry], ModelConfig]:
    """A transformer of the shapes, of layers normalised to one, whose voxels below 1e-7 are noise."""
    recipe = Recipe(epochs, 64, 1e-3, "cosine", weight_decay=weight_decay, clip=clip)

    def config(geometry: Geometry) -> ModelConfig:
        noise = PreprocessingConfig(
            noise="relative", width=1e-7, alpha=1e-6, largest_ratio=1 / 0.35, output_cut=geometry.threshold
        )
        return ModelConfig("matching", noise, (_ENERGIES, shape), (_ENERGY_RECIPE, recipe))

    return config


def _transformer(patch: tuple[int, int, int], hidden: int, expansion: int) -> VelocityConfig:
    """Six blocks of six heads, integrated in steps of 0.02."""
    return VelocityConfig(
        "velocity-vit", hidden, 6, frequencies=64, patch=patch, heads=6, expansion=expansion, solver="rk4", steps=50,
        divergence="hutchinson",
    )  # fmt: skip


def _small(geometry: Geometry) -> ModelConfig:
    """Residual networks; noise and marginals cost more than velocities, so that a shower serves four times."""
    energies = VelocityConfig(hidden=128, layers=3, frequencies=4)
    voxels = VelocityConfig(hidden=384, layers=3, divergence="hutchinson", pairs=4)
    recipes = (
        Recipe(12, 256, 2e-3, warm_up=0.2, clip=5.0, ema=0.99),
        Recipe(10, 64, 1e-3, warm_up=0.1, clip=5.0, ema=0.998),
    )
    return ModelConfig("matching", clear_noise(geometry), (energies, voxels), recipes, turns(geometry))


def _onestep(geometry: Geometry) -> ModelConfig:
    """The same, and students that jump along the ways of its velocities."""
    taught = _small(geometry)
    energies, voxels = (replace(flow, steps=_JUMPS) for flow in taught.flows if isinstance(flow, VelocityConfig))
    recipes = (
        Recipe(8, 256, 1e-3, warm_up=0.1, clip=5.0, ema=0.99),
        Recipe(5, 64, 7e-4, warm_up=0.1, clip=5.0, ema=0.998),
    )
    return replace(
        taught, family="matching-student", flows=(*taught.flows, energies, voxels), recipes=(*taught.recipes, *recipes)
    )


MATCHING: Mapping[str, Preset] = MappingProxyType(
    {
        "small-matching": Preset("two-step flow matching for a CPU: residual networks", _small),
        "small-matching-onestep": Preset("the same with students that take one step (MeanFlow, 2505.13447)", _onestep),
        "calodream-ds2": Preset(
            "CaloDREAM (2405.09629): transformer of 135 patches, width 480",
            _calodream(_transformer((3, 16, 1), 480, 4), 800, 100.0, 1e-5),
            "ds2",
        ),
        "calodream-ds3": Preset(
            "CaloDREAM (2405.09629): transformer of 1350 patches, width 240",
            _calodream(_transformer((3, 5, 2), 240, 3), 600, 50.0, 1e-5),
            "ds3",
        ),
    }
)
