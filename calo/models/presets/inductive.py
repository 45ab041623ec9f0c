"""Published settings of iCaloFlow (2305.11934), and small ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.models.config import FlowConfig, ModelConfig
from nisampler.calo.models.presets.preset import SMALL_ENERGIES, Preset, clear_noise, turns
from nisampler.calo.preprocessing.preprocessing import PreprocessingConfig
from nisampler.calo.recipe import Recipe
from nisampler.flows import NetConfig, Spline

_LINE = Spline(bins=8, domain="line", bound=14.0)

# 1000 pairs of layers, of which a shower has 44.
_PAIRS = 23

# Showers of data sets 2 and 3 hold up to 2.6 times the incident energy (2405.20407).
_NOISE = PreprocessingConfig(noise="uniform", width=5e-3, largest_ratio=3.0, output_cut=0.015)


def _maf(layers: int, hidden: int = 256) -> FlowConfig:
    """Eight blocks whose networks have `layers` hidden layers after the first one, as MADE counts them there."""
    return FlowConfig("maf", 8, NetConfig(hidden=hidden, layers=layers + 1, activation="relu"), _LINE, "alternate")


def _published(
    teacher: tuple[Recipe, Recipe, Recipe], layers: int, students: tuple[Recipe, Recipe] | None, hidden: int = 256
) -> Callable[[Geometry], ModelConfig]:
    """iCaloFlow with `layers` hidden layers in the last flow, and the width of its student."""
    flows = (_maf(1), _maf(2), _maf(layers))
    if students is None:
        return lambda geometry: ModelConfig("inductive", _NOISE, flows, teacher)
    flows_of_five, recipes = (*flows, _maf(2), _maf(layers, hidden)), (*teacher, *students)
    return lambda geometry: ModelConfig("inductive-student", _NOISE, flows_of_five, recipes)


_HALVED = (400 / 750, 500 / 750)
_DS2 = (
    Recipe(500, 1000, 1e-4, "one-cycle"),
    Recipe(200, 1000, 1e-3, "one-cycle"),
    Recipe(60, _PAIRS, 1e-3, "one-cycle"),
)
_DS3 = (
    Recipe(750, 1000, 1e-4, "milestones", milestones=_HALVED),
    Recipe(750, 1000, 1e-4, "milestones", milestones=_HALVED),
    Recipe(20, _PAIRS, 1e-4, "constant"),
)
_DS2_STUDENTS = (Recipe(400, 1000, 1e-3, "one-cycle"), Recipe(100, _PAIRS, 5e-4, "one-cycle"))
_DS3_STUDENTS = (Recipe(400, 1000, 1e-3, "one-cycle"), Recipe(15, _PAIRS, 1e-4, "constant"))


def _small(geometry: Geometry, student: bool) -> ModelConfig:
    """For a CPU: two blocks, which generate a layer coordinate by coordinate in a second."""
    spline = Spline(bins=6, domain="line", bound=6.0)
    voxels = FlowConfig("maf", 2, NetConfig(hidden=128, layers=2), spline, "alternate")
    recipes = (
        Recipe(30, 256, 2e-3, warm_up=0.2, clip=5.0, ema=0.99),
        Recipe(6, 128, 1.5e-3, warm_up=0.2, clip=5.0, ema=0.99),
        Recipe(4, 32, 1.5e-3, warm_up=0.2, clip=5.0, ema=0.998),
    )
    if not student:
        return ModelConfig(
            "inductive", clear_noise(geometry), (SMALL_ENERGIES, voxels, voxels), recipes, turns(geometry)
        )
    distilled = (
        Recipe(6, 128, 1e-3, warm_up=0.2, clip=50.0, ema=0.99),
        Recipe(3, 32, 1e-3, warm_up=0.2, clip=50.0, ema=0.998),
    )
    flows = (SMALL_ENERGIES, voxels, voxels, voxels, voxels)
    return ModelConfig("inductive-student", clear_noise(geometry), flows, (*recipes, *distilled), turns(geometry))


INDUCTIVE: Mapping[str, Preset] = MappingProxyType(
    {
        "small-icaloflow": Preset(
            "iCaloFlow for a CPU: 2 MADE blocks of 128", lambda geometry: _small(geometry, False)
        ),
        "small-icaloflow-student": Preset(
            "the same with students of its voxel flows", lambda geometry: _small(geometry, True)
        ),
        "icaloflow-ds2": Preset(
            "iCaloFlow teacher (2305.11934): 8 MADE blocks of 256", _published(_DS2, 2, None), "ds2"
        ),
        "icaloflow-ds3": Preset(
            "iCaloFlow teacher (2305.11934): 8 MADE blocks of 256", _published(_DS3, 1, None), "ds3"
        ),
        "icaloflow-ds2-student": Preset(
            "iCaloFlow student (2305.11934): 8 inverse blocks of 256 and of 384",
            _published(_DS2, 2, _DS2_STUDENTS, 384),
            "ds2",
        ),
        "icaloflow-ds3-student": Preset(
            "iCaloFlow student (2305.11934): 8 inverse blocks of 256", _published(_DS3, 1, _DS3_STUDENTS), "ds3"
        ),
    }
)
