"""Published settings and small ones, by name.

The published presets take sizes, splines, noise and schedules from the papers and their code; layer energies and voxels
go through `Preprocessing`, whose auxiliary scales make every likelihood one of showers. Small presets train on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.models.config import FlowConfig, ModelConfig
from nisampler.calo.models.presets.chain import CHAIN
from nisampler.calo.models.presets.clouds import CLOUDS
from nisampler.calo.models.presets.inductive import INDUCTIVE
from nisampler.calo.models.presets.matching import MATCHING
from nisampler.calo.models.presets.preset import SMALL_ENERGIES, Preset, clear_noise, turns
from nisampler.calo.models.vae import AutoencoderConfig
from nisampler.calo.preprocessing.preprocessing import PreprocessingConfig
from nisampler.calo.recipe import Recipe
from nisampler.errors import ModelError
from nisampler.flows import NetConfig, Spline


def preset(name: str, geometry: Geometry) -> ModelConfig:
    """The settings of a preset for a geometry.

    Raises
    ------
    ModelError
        If there is no such preset, or it was published for another geometry.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> preset("small", geometry("toy")).family
    'two-step'
    """
    if name not in PRESETS:
        raise ModelError(f"no preset is called {name!r}; known: {', '.join(PRESETS)}")
    found = PRESETS[name]
    if found.geometry not in (None, geometry.name):
        raise ModelError(
            f"preset {name} was published for {found.geometry}, not for {geometry.name}: choose a small one"
        )
    return found.config(geometry)


_LINE = Spline(bins=8, domain="line", bound=14.0)


def _caloflow_noise(largest_ratio: float, width: float = 1e-3) -> PreprocessingConfig:
    return PreprocessingConfig(noise="uniform", width=width, largest_ratio=largest_ratio, output_cut=0.01)


def _energy_maf(hidden: int = 64, layers: int = 3) -> FlowConfig:
    """Flow I of CaloFlow: six blocks, and as many hidden layers as MADE of two 'blocks' has."""
    return FlowConfig("maf", 6, NetConfig(hidden=hidden, layers=layers, activation="relu"), _LINE, "random")


def _voxel_maf(hidden: int, blocks: int = 8) -> FlowConfig:
    return FlowConfig("maf", blocks, NetConfig(hidden=hidden, layers=2, activation="relu"), _LINE, "alternate")


def _caloflow_ds1(hidden: int, student: int | None, pions: bool) -> Callable[[Geometry], ModelConfig]:
    """CaloFlow for CaloChallenge data set 1 (2210.14245)."""
    batch = 500 if pions else 200
    first = Recipe(100, batch, 1e-3, "one-cycle", warm_up=0.4)
    teacher = Recipe(100, batch, 1e-3 if pions else 2e-3, "one-cycle", warm_up=0.45 if pions else 0.3)
    flows: tuple[FlowConfig, ...] = (_energy_maf(), _voxel_maf(hidden))
    noise = _caloflow_noise(6.93 if pions else 2.42)
    if student is None:
        return lambda geometry: ModelConfig("two-step", noise, flows, (first, teacher))
    recipes = (first, teacher, Recipe(150 if pions else 100, batch if pions else 175, 1e-3, "one-cycle"))
    distilled = (*flows, _voxel_maf(student))
    return lambda geometry: ModelConfig("student", noise, distilled, recipes, guided=not pions)


def _caloflow_calogan(hidden: int, student: int | None) -> Callable[[Geometry], ModelConfig]:
    """CaloFlow for the CaloGAN data (2106.05285, 2110.11377)."""
    first = Recipe(75, 200, 1e-4, "milestones", milestones=(5 / 75, 15 / 75, 40 / 75, 60 / 75))
    teacher = Recipe(100, 200, 1e-4, "milestones", milestones=(0.5,))
    flows: tuple[FlowConfig, ...] = (_energy_maf(), _voxel_maf(hidden))
    noise = _caloflow_noise(1.05)
    if student is None:
        return lambda geometry: ModelConfig("two-step", noise, flows, (first, teacher))
    recipes = (first, teacher, Recipe(100, 175, 1e-4, "milestones", milestones=(0.1, 0.4, 0.7)))
    distilled = (*flows, _voxel_maf(student))
    return lambda geometry: ModelConfig("student", noise, distilled, recipes)


def _caloinn(
    blocks: int,
    layers: int,
    spline: Spline,
    noise: PreprocessingConfig,
    recipe: Recipe,
    kind: Literal["mlp", "bayesian"] = "mlp",
) -> Callable[[Geometry], ModelConfig]:
    """CaloINN (2312.09290): blocks of an activation norm and a coupling over voxels and layer energies together."""
    net = NetConfig(
        kind="bayesian" if kind == "bayesian" else "mlp", hidden=256, layers=layers, activation="leaky_relu"
    )
    flow = FlowConfig("coupling", blocks, net, spline, actnorm=True)
    return lambda geometry: ModelConfig("one-step", noise, (flow,), (recipe,))


def _caloinn_noise(alpha: float, width: float, largest_ratio: float) -> PreprocessingConfig:
    """Noise relative to the layer, and log(x + alpha)."""
    return PreprocessingConfig(
        noise="relative", width=width, voxels="shifted-log", alpha=alpha, largest_ratio=largest_ratio, output_cut=0.01
    )


def _small_coupling(geometry: Geometry) -> ModelConfig:
    voxels = FlowConfig("coupling", 10, NetConfig(hidden=128, layers=2), Spline(bins=4, domain="line", bound=6.0))
    recipes = (
        Recipe(30, 256, 2e-3, warm_up=0.2, clip=5.0, ema=0.99),
        Recipe(14, 128, 1.5e-3, warm_up=0.2, clip=5.0, ema=0.998, weight_decay=1e-4),
    )
    return ModelConfig("two-step", clear_noise(geometry), (SMALL_ENERGIES, voxels), recipes, symmetric=turns(geometry))


def _small_maf(geometry: Geometry, student: bool) -> ModelConfig:
    """A teacher for a CPU, or with its student."""
    voxels = FlowConfig(
        "maf", 2, NetConfig(hidden=128, layers=2), Spline(bins=6, domain="line", bound=6.0), "alternate"
    )
    recipes = (
        Recipe(15, 256, 2e-3, warm_up=0.2, clip=5.0, ema=0.99),
        Recipe(10, 128, 2e-3, warm_up=0.2, clip=5.0, ema=0.998),
    )
    if not student:
        return ModelConfig("two-step", clear_noise(geometry), (SMALL_ENERGIES, voxels), recipes, turns(geometry))
    distilled = Recipe(8, 128, 1e-3, warm_up=0.2, clip=50.0, ema=0.998)
    flows, recipes_of_three = (SMALL_ENERGIES, voxels, voxels), (*recipes, distilled)
    return ModelConfig("student", clear_noise(geometry), flows, recipes_of_three, turns(geometry))


def _small_inn(geometry: Geometry, kind: Literal["mlp", "bayesian"]) -> ModelConfig:
    net = NetConfig(kind=kind, hidden=256, layers=2)
    flow = FlowConfig("coupling", 8, net, Spline(bins=4, domain="line", bound=6.0))
    recipe = Recipe(20, 128, 1e-3, warm_up=0.2, clip=5.0, ema=0.998)
    return ModelConfig("one-step", clear_noise(geometry), (flow,), (recipe,), turns(geometry))


def _small_vae(geometry: Geometry) -> ModelConfig:
    recipe = Recipe(12, 128, 1e-3, warm_up=0.1, clip=100.0, ema=0.998)
    return ModelConfig("autoencoder", clear_noise(geometry), (AutoencoderConfig(),), (recipe,), turns(geometry))


_CALOINN_RECIPE = Recipe(450, 512, 1e-4, "one-cycle", weight_decay=0.01)

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "small": Preset("two-step coupling CaloFlow for a CPU", _small_coupling),
        "small-teacher": Preset("CaloFlow teacher for a CPU: 2 MADE blocks of 128", lambda g: _small_maf(g, False)),
        "small-student": Preset("the same with its distilled student", lambda g: _small_maf(g, True)),
        "small-inn": Preset("one-step coupling CaloINN for a CPU", lambda g: _small_inn(g, "mlp")),
        "small-inn-bayesian": Preset("the same with variational networks", lambda g: _small_inn(g, "bayesian")),
        "small-vae": Preset("variational autoencoder for a CPU, to compare with", _small_vae),
        "caloflow-ds1-photons": Preset(
            "CaloFlow teacher (2210.14245): 8 MADE blocks of 378", _caloflow_ds1(378, None, False), "ds1-photons"
        ),
        "caloflow-ds1-photons-student": Preset(
            "CaloFlow student (2210.14245): 8 inverse blocks of 736", _caloflow_ds1(378, 736, False), "ds1-photons"
        ),
        "caloflow-ds1-pions": Preset(
            "CaloFlow teacher (2210.14245): 8 MADE blocks of 533", _caloflow_ds1(533, None, True), "ds1-pions"
        ),
        "caloflow-ds1-pions-student": Preset(
            "CaloFlow student (2210.14245): 8 inverse blocks of 500", _caloflow_ds1(533, 500, True), "ds1-pions"
        ),
        "caloflow-calogan": Preset(
            "CaloFlow teacher (2106.05285): 8 MADE blocks of 378", _caloflow_calogan(378, None), "calogan"
        ),
        "caloflow-calogan-student": Preset(
            "CaloFlow student (2110.11377): 8 inverse blocks of 504", _caloflow_calogan(378, 504), "calogan"
        ),
        "caloinn-ds1-photons": Preset(
            "CaloINN (2312.09290): 12 couplings, 4 x 256",
            _caloinn(
                12, 3, Spline(bins=10, domain="line", bound=18.0), _caloinn_noise(1e-8, 5e-6, 2.42), _CALOINN_RECIPE
            ),
            "ds1-photons",
        ),
        "caloinn-ds1-pions": Preset(
            "CaloINN (2312.09290): 12 couplings, 4 x 256",
            _caloinn(
                12, 3, Spline(bins=10, domain="line", bound=18.0), _caloinn_noise(1e-8, 5e-6, 6.93), _CALOINN_RECIPE
            ),
            "ds1-pions",
        ),
        "caloinn-ds2": Preset(
            "CaloINN (2312.09290): 14 cubic couplings, 3 x 256",
            _caloinn(
                14,
                2,
                Spline("cubic", 10, "line", 18.0),
                _caloinn_noise(1e-8, 5e-6, 2.0),
                Recipe(200, 256, 1e-4, "one-cycle"),
            ),
            "ds2",
        ),
        "caloinn-calogan": Preset(
            "CaloINN (2312.09290): 10 cubic couplings, 3 x 256",
            _caloinn(
                10,
                2,
                Spline("cubic", 10, "line", 20.0),
                _caloinn_noise(2e-7, 8e-7, 1.05),
                Recipe(50, 512, 3e-4, "one-cycle"),
            ),
            "calogan",
        ),
        "caloinn-calogan-bayesian": Preset(
            "CaloINN with variational networks (2312.09290)",
            _caloinn(
                10,
                2,
                Spline("cubic", 10, "line", 20.0),
                _caloinn_noise(2e-8, 8e-8, 1.05),
                Recipe(600, 512, 1e-3, "one-cycle"),
                kind="bayesian",
            ),
            "calogan",
        ),
        **CHAIN,
        **INDUCTIVE,
        **MATCHING,
        **CLOUDS,
    }
)
