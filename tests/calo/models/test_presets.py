"""Presets: each builds, is plain data, and has as many parameters as was published."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from nisampler.calo.detector.geometries import GEOMETRIES, geometry
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.models import PRESETS, FlowConfig, ModelConfig, ShowerModel, build_model
from nisampler.calo.models.base import OneStepModel, TwoStepModel
from nisampler.calo.models.chain import ChainModel
from nisampler.calo.models.clouds.diffusion import CloudsModel, OneStepCloudsModel
from nisampler.calo.models.clouds.matching import AllShowersModel
from nisampler.calo.models.inductive import InductiveModel, InductiveStudentModel
from nisampler.calo.models.matching import MatchingModel
from nisampler.calo.models.onestep import OneStepMatchingModel
from nisampler.calo.models.presets.catalogue import preset
from nisampler.calo.models.student import StudentModel
from nisampler.calo.models.vae import AutoencoderModel
from nisampler.calo.preprocessing.preprocessing import PreprocessingConfig
from nisampler.calo.recipe import Recipe
from nisampler.errors import ConfigError, ModelError
from nisampler.flows import NetConfig, Spline

FAMILIES = {
    "two-step": TwoStepModel,
    "one-step": OneStepModel,
    "student": StudentModel,
    "chain": ChainModel,
    "inductive": InductiveModel,
    "inductive-student": InductiveStudentModel,
    "matching": MatchingModel,
    "matching-student": OneStepMatchingModel,
    "clouds": CloudsModel,
    "clouds-onestep": OneStepCloudsModel,
    "allshowers": AllShowersModel,
    "autoencoder": AutoencoderModel,
}
SMALL = [name for name, entry in PRESETS.items() if entry.geometry is None]
# Families whose networks need no storage to be built: their largest would take gigabytes.
LIGHT = ("one-step", "chain", "matching")
# Presets that need layers with the same cells.
ALIKE = ("small-convl2l", "small-icaloflow", "small-icaloflow-student")

# Millions of parameters of the CaloChallenge submissions (2410.21611), in training and in generation.
PUBLISHED = {
    "caloflow-ds1-photons": (28.04, 28.04),
    "caloflow-ds1-photons-student": (84.50, 56.55),
    "caloflow-ds1-pions": (57.08, 57.08),
    "caloflow-ds1-pions-student": (110.4, 53.43),
    "caloinn-ds1-photons": (18.8, 18.8),
    "caloinn-ds1-pions": (26.6, 26.6),
}


def home(name: str) -> Geometry:
    return geometry(PRESETS[name].geometry or "toy")


def built(name: str, known: Geometry | None = None) -> ShowerModel:
    """The model of a preset, without storage where that is possible."""
    known = known or home(name)
    with torch.device("meta" if preset(name, known).family in LIGHT else "cpu"):
        return build_model(name, known)


def count(modules: Any) -> float:
    """Millions of different parameters."""
    return sum({id(p): p.numel() for module in modules for p in module.parameters()}.values()) / 1e6


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_the_model_it_names(name: str) -> None:
    config, model = preset(name, home(name)), built(name)
    assert type(model) is FAMILIES[config.family]
    assert model.geometry == home(name)
    assert model.config == config.to_dict()
    recipes = [part.recipe for part in model.parts]
    assert recipes[: len(config.recipes)] == list(config.recipes)
    assert set(recipes) == set(config.recipes)
    assert count(part.module for part in model.parts) == count([model])
    assert PRESETS[name].text


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers_of_parameters_are_met_within_one_per_cent(name: str) -> None:
    model = built(name)
    training, generation = PUBLISHED[name]
    assert count([model]) == pytest.approx(training, rel=0.01)
    assert count(model.generation_modules()) == pytest.approx(generation, rel=0.01)


def test_another_width_misses_the_published_number() -> None:
    """The control: one unit in ten more."""
    data = preset("caloflow-ds1-photons", home("caloflow-ds1-photons")).to_dict()
    data["flows"][1]["net"]["hidden"] = 416
    assert count([build_model(data, home("caloflow-ds1-photons"))]) > 1.05 * 28.04


@pytest.mark.parametrize("name", PRESETS)
def test_settings_survive_json(name: str) -> None:
    config = preset(name, home(name))
    again = ModelConfig.from_dict(json.loads(json.dumps(config.to_dict(), allow_nan=False)))
    assert again == config
    assert again.to_dict() == config.to_dict()


@pytest.mark.parametrize("name", SMALL)
def test_small_presets_fit_the_geometries_they_are_for(name: str) -> None:
    for known in ("toy", "ds2-reduced") if name in ALIKE else ("toy", "ds1-photons", "calogan"):
        config = preset(name, geometry(known))
        assert config.preprocessing.threshold == geometry(known).threshold
        assert config.symmetric == (known != "calogan")
        assert count([built(name, geometry(known))]) < 20


def test_a_model_is_the_same_from_its_name_its_settings_and_their_json() -> None:
    known = geometry("toy")
    config = preset("small-teacher", known)
    models = [build_model(settings, known) for settings in ("small-teacher", config, config.to_dict())]
    first = models[0].state_dict()
    for model in models[1:]:
        state = model.state_dict()
        assert first.keys() == state.keys()
        assert all(torch.equal(first[key], state[key]) for key in first)


def test_a_student_keeps_its_guidance() -> None:
    for name, guided in (("caloflow-ds1-photons-student", True), ("caloflow-ds1-pions-student", False)):
        model = built(name)
        assert isinstance(model, StudentModel)
        assert (model.distillation.steps, model.distillation.parameters) == (guided, guided)


def test_published_presets_belong_to_registered_geometries() -> None:
    assert {entry.geometry for entry in PRESETS.values()} - {None} <= set(GEOMETRIES)


def test_an_unknown_preset_is_named_with_those_that_are_known() -> None:
    with pytest.raises(ModelError, match=r"no preset is called 'calodream'; known: small, "):
        build_model("calodream", geometry("toy"))


def test_a_preset_of_another_geometry_is_refused() -> None:
    with pytest.raises(ModelError, match="published for ds1-photons, not for toy"):
        build_model("caloflow-ds1-photons", geometry("toy"))


def changed(**changes: Any) -> dict[str, Any]:
    return {**preset("small", geometry("toy")).to_dict(), **changes}


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"family": "two-step"},
        changed(family="three-step"),
        changed(flows=[]),
        changed(recipes=changed()["recipes"][:1]),
        changed(preprocessing={"threshold": -1.0}),
        changed(preprocessing={"threshold": "low"}),
        changed(preprocessing={"colour": "red"}),
        changed(flows=[{"kind": "glow"}] * 2),
        changed(flows=[{"spline": {"domain": "unit"}}] * 2),
        changed(recipes=[{"epochs": 0, "batch": 1, "learning_rate": 1.0}] * 2),
        changed(colour="red"),
        changed(flows=[{"net": {"hiden": 8}}] * 2),
    ],
)
def test_malformed_settings_are_named(data: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="not the settings of a shower model"):
        build_model(data, geometry("toy"))


def test_settings_that_no_network_has_are_named() -> None:
    """A Bayesian MAF, and Fourier features in one."""
    for net in (NetConfig("bayesian", hidden=8), NetConfig(fourier=2)):
        flows = (FlowConfig(), FlowConfig("maf", net=net))
        recipes = (Recipe(1, 10, 1e-3),) * 2
        with pytest.raises(ConfigError, match="for coupling flows"):
            build_model(ModelConfig("two-step", PreprocessingConfig(), flows, recipes), geometry("toy"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "glow"}, '"coupling" or "maf"'),
        ({"blocks": 0}, "blocks = 0: must be a whole number, at least 1"),
        ({"spline": Spline(domain="unit")}, "lie on the line"),
    ],
)
def test_a_wrong_flow_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FlowConfig(**change)


@pytest.mark.parametrize(("family", "flows", "recipes"), [("two-step", 1, 2), ("student", 3, 2), ("diffusion", 1, 1)])
def test_a_family_has_its_number_of_flows(family: Any, flows: int, recipes: int) -> None:
    with pytest.raises(ConfigError, match=r"flows and recipes|family = "):
        ModelConfig(family, PreprocessingConfig(), (FlowConfig(),) * flows, (Recipe(1, 10, 1e-3),) * recipes)
