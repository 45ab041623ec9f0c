"""Presets of L2LFlows (2302.11594, 2405.20407): a flow for each layer.

The published ones take flows, noise and schedules from the papers. Layer energies go through `LogSticks`, which has no
upper bound, instead of a logit of E_i over the largest one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.models.config import AnyFlow, FlowConfig, ModelConfig
from nisampler.calo.models.presets.preset import SMALL_ENERGIES, Preset, clear_noise, turns
from nisampler.calo.preprocessing.preprocessing import PreprocessingConfig
from nisampler.calo.recipe import Recipe
from nisampler.flows import ConvCouplingConfig, NetConfig, Spline, UNetConfig

_FEW_BINS = Spline(bins=4, domain="line", bound=6.0)

# The flow of the energies of 2405.20407, table 3.
_ENERGIES = FlowConfig(
    "maf",
    6,
    NetConfig(hidden=64, layers=1, activation="relu"),
    Spline(bins=8, domain="line", bound=math.log(1e6 - 1)),
    "random",
)


def _smallest_factor(side: int) -> int:
    """The smallest prime factor; one for one."""
    return next((factor for factor in range(2, side + 1) if side % factor == 0), 1)


def _small(geometry: Geometry, flow: AnyFlow, recipe: Recipe) -> ModelConfig:
    first = Recipe(20, 256, 2e-3, warm_up=0.2, clip=5.0, ema=0.99)
    return ModelConfig(
        "chain", clear_noise(geometry), (SMALL_ENERGIES, flow), (first, recipe), turns(geometry), history=2
    )


def _small_convolutional(geometry: Geometry) -> ModelConfig:
    layer = geometry.layers[0]
    factor = (_smallest_factor(layer.shape[0]), _smallest_factor(layer.shape[1]))
    kernel = (_smallest_factor(layer.shape[0] // factor[0]), _smallest_factor(layer.shape[1] // factor[1]))
    unet = UNetConfig(12, (kernel,), 0 if layer.kind == "polar" else None, "none", "silu")
    flow = ConvCouplingConfig(unet, factor, 2, _FEW_BINS, embedding=8)
    return _small(geometry, flow, Recipe(4, 128, 2e-3, warm_up=0.2, clip=5.0, ema=0.998))


def _small_flat(geometry: Geometry) -> ModelConfig:
    flow = FlowConfig("coupling", 4, NetConfig(hidden=64, layers=2), _FEW_BINS)
    return _small(geometry, flow, Recipe(5, 128, 2e-3, warm_up=0.2, clip=5.0, ema=0.998))


def _log_normal_noise(geometry: Geometry, threshold: bool) -> PreprocessingConfig:
    """Of 2405.20407, appendix B; with a threshold, generated voxels above it add up to the energy of their layer."""
    return PreprocessingConfig(
        threshold=geometry.threshold if threshold else 0.0,
        noise="log-normal",
        width=1e-3,
        unit="maximum",
        voxels="log-logit",
        energies="log-sticks",
        alpha=1e-2,
        output_cut=geometry.threshold,
    )


def _getting_high(geometry: Geometry) -> ModelConfig:
    flows = (_ENERGIES, ConvCouplingConfig(UNetConfig(32, ((3, 3), (5, 5)))))
    recipes = (
        Recipe(200, 1024, 1e-3, "exponential"),
        Recipe(200, 1024, 1e-4, "one-cycle", weight_decay=0.1, clip=800.0),
    )
    return ModelConfig("chain", _log_normal_noise(geometry, threshold=True), flows, recipes, spectrum=128)


def _challenge(unet: UNetConfig, squeeze: tuple[int, int], geometry: Geometry) -> ModelConfig:
    """Recipes of data set 3, for data set 2 too."""
    recipes = (Recipe(2000, 1024, 1e-3, "exponential"), Recipe(800, 1024, 6e-4, "one-cycle", clip=100.0))
    flows, noise = (_ENERGIES, ConvCouplingConfig(unet, squeeze)), _log_normal_noise(geometry, threshold=False)
    return ModelConfig("chain", noise, flows, recipes, symmetric=True, veto=2.6)


def _autoregressive(geometry: Geometry) -> ModelConfig:
    """Width and number of the blocks are ours: they meet the published number of parameters (2410.21611)."""
    net = NetConfig(hidden=68, layers=2, activation="relu")
    layers = FlowConfig("maf", 8, net, Spline(bins=8, domain="line", bound=14.0), "random")
    noise = PreprocessingConfig(noise="uniform", energies="log-sticks", output_cut=geometry.threshold)
    recipes = (Recipe(2000, 1024, 1e-3, "exponential"), Recipe(200, 1024, 1e-3, "one-cycle"))
    return ModelConfig("chain", noise, (_ENERGIES, layers), recipes, symmetric=True)


CHAIN: Mapping[str, Preset] = MappingProxyType(
    {
        "small-convl2l": Preset("convolutional L2LFlows for a CPU, for equal layers", _small_convolutional),
        "small-l2lflows": Preset("L2LFlows of couplings for a CPU", _small_flat),
        "convl2l-getting-high": Preset(
            "convolutional L2LFlows (2405.20407): 8 couplings with U-Nets for each of 30 layers",
            _getting_high,
            "getting-high",
        ),
        "convl2l-ds2": Preset(
            "convolutional L2LFlows (2410.21611): 8 couplings with U-Nets for each of 45 layers",
            lambda geometry: _challenge(UNetConfig(32, ((1, 3), (4, 3)), 0), (4, 1), geometry),
            "ds2",
        ),
        "convl2l-ds3": Preset(
            "convolutional L2LFlows (2405.20407): 8 couplings with U-Nets for each of 45 layers",
            lambda geometry: _challenge(UNetConfig(32, ((5, 3), (5, 3)), 0), (2, 2), geometry),
            "ds3",
        ),
        "l2lflows-ds3": Preset(
            "L2LFlows (2302.11594, 2410.21611): 8 MADE blocks of 68 for each of 45 layers", _autoregressive, "ds3"
        ),
    }
)
