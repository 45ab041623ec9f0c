"""Settings of models of point clouds, for a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.models.config import ModelConfig
from nisampler.calo.models.presets.preset import SMALL_ENERGIES, Preset, clear_noise, turns
from nisampler.calo.recipe import Recipe
from nisampler.flows import PointTransformerConfig, PointwiseConfig

_LAYERS = Recipe(15, 128, 2e-3, warm_up=0.2, clip=5.0, ema=0.99)
_POINTS = Recipe(12, 64, 3e-3, warm_up=0.1, clip=5.0, ema=0.995)
_ONE_STEP = Recipe(10, 64, 1e-3, warm_up=0.1, clip=5.0, ema=0.995)

_WHOLE = Recipe(4, 32, 2e-3, warm_up=0.1, clip=1.0, ema=0.99)


def _small(geometry: Geometry, one_step: bool) -> ModelConfig:
    net = PointwiseConfig(hidden=64, layers=3, points=4096)
    if not one_step:
        flows = (SMALL_ENERGIES, net)
        return ModelConfig("clouds", clear_noise(geometry), flows, (_LAYERS, _POINTS), turns(geometry))
    distilled, recipes = (SMALL_ENERGIES, net, net), (_LAYERS, _POINTS, _ONE_STEP)
    return ModelConfig("clouds-onestep", clear_noise(geometry), distilled, recipes, turns(geometry))


def _allshowers(geometry: Geometry) -> ModelConfig:
    flows = (SMALL_ENERGIES, PointTransformerConfig(steps=8))
    return ModelConfig("allshowers", clear_noise(geometry), flows, (_LAYERS, _WHOLE), turns(geometry))


CLOUDS: Mapping[str, Preset] = MappingProxyType(
    {
        "small-clouds": Preset("point clouds like CaloClouds II for a CPU: 18 Heun steps", lambda g: _small(g, False)),
        "small-clouds-onestep": Preset("the same distilled into one step", lambda g: _small(g, True)),
        "small-allshowers": Preset("point clouds like AllShowers for a CPU: flow matching, 4 x 64", _allshowers),
    }
)
