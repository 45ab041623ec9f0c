"""Flow matching of showers: the model, its laws, and the published settings."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from small_models import disturb, generator, learn, tensors
from torch import Tensor

from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometries import geometry as registered
from nisampler.calo.detector.geometry import Geometry, IncidentEnergy, Layer
from nisampler.calo.models.config import FlowConfig, ModelConfig
from nisampler.calo.models.matching import MatchingModel, build_matching
from nisampler.calo.models.presets.matching import MATCHING
from nisampler.calo.preprocessing.preprocessing import PreprocessingConfig
from nisampler.calo.recipe import Recipe
from nisampler.errors import ConfigError, ModelError
from nisampler.flows import VelocityConfig

THRESHOLD, ENERGY = 0.5, 250.0
LAW = IncidentEnergy("log-uniform", (1e2, 1e3))
GEOMETRY = Geometry(
    "small", "electron", 11, (Layer.polar(0, 4, (0, 1, 2)), Layer.polar(1, 4, (0, 1, 2))), THRESHOLD, LAW
)
UNLIKE = Geometry("unlike", "electron", 11, (Layer.polar(0, 4, (0, 1)), Layer.polar(1, 2, (0, 1))), THRESHOLD, LAW)
PAIR = Geometry("pair", "electron", 11, (Layer.polar(0, 1, (0, 1, 2)),), THRESHOLD, LAW)
NET = VelocityConfig(hidden=24, layers=2, frequencies=2, solver="rk4", steps=8)
VIT = replace(NET, kind="velocity-vit", patch=(1, 2, 1), heads=2, expansion=2, divergence="hutchinson")
CLEAR = PreprocessingConfig(
    threshold=THRESHOLD, noise="below-threshold", width=1.0, voxels="log", energies="log-sticks", scale=0.8, levels=4
)
# two voxels, where the density is known: no noise to speak of, and the line without ends
PLAIN = PreprocessingConfig(width=1e-3, voxels="shifted-log", alpha=1e-8, energies="log-sticks", scale=0.5)
RECIPE = Recipe(2, 100, 1e-3)
CONFIGS = {
    "mlp": ModelConfig("matching", CLEAR, (NET, NET), (RECIPE, RECIPE), symmetric=True),
    "vit": ModelConfig("matching", CLEAR, (NET, VIT), (RECIPE, RECIPE)),
}


def showers(n: int, seed: int, correlated: bool = True) -> Showers:
    """0.7 of the incident energy; the share of the first layer goes with the share of its inner ring."""
    rng = np.random.default_rng(seed)
    incident = LAW.sample(n, rng)
    common = rng.standard_normal(n)
    inner = common if correlated else rng.standard_normal(n)
    first, ring = (1 / (1 + np.exp(-0.8 * x))[:, None] for x in (common, inner))
    layers = np.concatenate([np.repeat(first, 8, 1), np.repeat(1 - first, 8, 1)], axis=1)
    rings = np.tile(np.concatenate([ring, 1 - ring], axis=1), (1, 8))
    shares = layers * rings * rng.gamma(4.0, size=(n, 16)) / 16
    voxels = (0.7 * incident[:, None] * shares / shares.sum(1, keepdims=True)).astype(np.float32)
    return Showers(incident, np.where(voxels < THRESHOLD, np.float32(0), voxels))


def make(name: str, scale: float = 0.05) -> MatchingModel:
    """A prepared model whose velocities are disturbed."""
    model = build_matching(CONFIGS[name], GEOMETRY, generator(5))
    assert isinstance(model, MatchingModel)
    model.prepare(showers(600, 1), generator(2))
    disturb(model, scale)
    return model.eval()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_parts_hold_all_weights_and_each_loss_reaches_its_own(name: str) -> None:
    model = make(name)
    voxels, incident = tensors(showers(9, 2))
    assert [part.name for part in model.parts] == ["energies", "voxels"]
    for part in model.parts:
        loss = part.loss(voxels, incident, generator(1))
        assert isinstance(loss, Tensor)
        assert loss.shape == (9,)
        assert torch.isfinite(loss).all()
        model.zero_grad()
        loss.sum().backward()
        touched = {id(p) for p in model.parameters() if p.grad is not None and bool((p.grad != 0).any())}
        assert touched <= {id(p) for p in part.module.parameters()}
        assert touched
    assert {id(p) for part in model.parts for p in part.module.parameters()} == {id(p) for p in model.parameters()}


@pytest.mark.parametrize("name", CONFIGS)
def test_samples_are_showers_of_the_seed(name: str) -> None:
    model, incident = make(name), torch.from_numpy(showers(200, 5).incident).float()
    state = torch.random.get_rng_state()
    voxels, again, other = (model.sample(incident, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(voxels, again)
    assert not torch.equal(voxels, other)
    assert voxels.shape == (200, GEOMETRY.n_voxels)
    assert ((voxels == 0) | (voxels >= THRESHOLD)).all()
    assert 0.5 < (voxels.sum(1) / incident).median() < 0.9


@pytest.mark.parametrize("name", CONFIGS)
def test_the_state_restores_the_model(name: str) -> None:
    model, other = make(name), build_matching(CONFIGS[name], GEOMETRY, generator(6)).eval()
    incident = torch.full((20,), 300.0)
    fresh = other.sample(incident, generator(1))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.sample(incident, generator(1)), model.sample(incident, generator(1)))
    assert not torch.equal(other.sample(incident, generator(1)), fresh)


@pytest.mark.parametrize("name", CONFIGS)
def test_densities_are_finite_and_differ_between_showers(name: str) -> None:
    model = make(name)
    voxels, incident = tensors(showers(10, 6))
    log_prob = model.log_prob(voxels, incident, generator(1)).detach()
    assert log_prob.shape == (10,)
    assert torch.isfinite(log_prob).all()
    assert log_prob.std() > 0
    assert torch.equal(model.log_prob(voxels, incident, generator(1)).detach(), log_prob)


@pytest.mark.parametrize("name", CONFIGS)
def test_fresh_velocities_leave_independent_normal_coordinates(name: str) -> None:
    model = make(name, scale=0.0)
    voxels, incident = tensors(showers(50, 6))
    y, log_det = model.coordinates(voxels, incident, generator(1))
    normal = (-0.5 * y.square() - 0.5 * math.log(2 * math.pi)).sum(1)
    found = model.log_prob(voxels, incident, generator(1)).detach()
    torch.testing.assert_close(found, normal + log_det, rtol=1e-4, atol=0.1)


def two_voxels(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Showers of a known law, their incident energies, and their exact log-density in 1/MeV^2."""
    source = generator(seed)
    logs, noise = (torch.randn(n, generator=source) for _ in range(2))
    odds = 2 * torch.tanh(3 * logs) + 0.3 * noise  # a curve in the plane
    total, share = torch.exp(5 + 0.2 * logs), torch.sigmoid(odds)
    voxels = torch.stack([total * share, total * (1 - share)], dim=1)
    normal = -0.5 * (logs**2 + noise**2) - math.log(2 * math.pi * 0.2 * 0.3)
    return voxels, torch.full((n,), ENERGY), normal - (total * share * (1 - share)).log() - total.log()


def test_training_finds_the_density_of_two_voxels() -> None:
    """In MeV: a bound from below, tight within half a nat; the untrained model is the control."""
    voxels, incident, _ = two_voxels(4000, 1)
    net = replace(NET, hidden=48)
    config = ModelConfig("matching", PLAIN, (net, net), (RECIPE, RECIPE))
    model = build_matching(config, PAIR, generator(5))
    model.prepare(Showers(incident.double().numpy(), voxels.numpy()), generator(2))
    test = two_voxels(200, 2)
    before = float((model.log_prob(test[0], test[1], generator(3), 2).detach() - test[2]).mean())
    for part in model.parts:
        learn(part, voxels, incident, 200, rate=3e-3, size=128)
    after = float((model.log_prob(test[0], test[1], generator(3), 2).detach() - test[2]).mean())
    assert before < -1.0
    assert -0.5 < after < 0.1


def test_training_learns_what_goes_with_what() -> None:
    """The inner ring goes with the first layer; controls: the untrained model, and one of independent showers."""

    def correlation(voxels: Tensor) -> float:
        inner = voxels[:, 0::2].sum(1) / voxels.sum(1)
        first = voxels[:, :8].sum(1) / voxels.sum(1)
        return float(torch.corrcoef(torch.stack([inner, first]))[0, 1])

    found = {}
    incident = torch.from_numpy(showers(2000, 8).incident).float()
    for correlated in (True, False):
        data = showers(3000, 7, correlated)
        model = build_matching(CONFIGS["mlp"], GEOMETRY, generator(5))
        model.prepare(data, generator(2))
        found["untrained"] = correlation(model.sample(incident, generator(1)))
        for part in model.parts:
            learn(part, *tensors(data), steps=120, rate=3e-3, size=128)
        found[f"trained {correlated}"] = correlation(model.sample(incident, generator(1)))
    truth = correlation(tensors(showers(3000, 9))[0])
    assert truth > 0.8
    assert found["trained True"] > truth - 0.15
    assert abs(found["trained False"]) < 0.2
    assert abs(found["untrained"]) < 0.4


def test_one_outlier_does_not_rule_a_loss() -> None:
    """A shower far from all others; without a limit its loss would be a thousand or more."""
    model = make("mlp")
    voxels, incident = tensors(showers(64, 3))
    voxels[0] = 1e-3 * voxels[0].clamp_min(THRESHOLD)
    voxels[0, 0] = 600 * incident[0]
    for part in model.parts:
        loss = part.loss(voxels, incident, generator(1))
        assert isinstance(loss, Tensor)
        assert float(loss[0].detach()) < 100.0
    y, _ = model.coordinates(voxels[:1], incident[:1], generator(1))
    assert float(y.abs().max()) > 50.0


# --- settings


def home(name: str) -> Geometry:
    return registered(MATCHING[name].geometry or "toy")


def millions(name: str, **changes: Any) -> tuple[float, float]:
    config = MATCHING[name].config(home(name))
    config = replace(config, flows=(config.flows[0], replace(config.flows[1], **changes)))  # type: ignore[type-var]
    parts = build_matching(config, home(name), generator(1)).parts
    energies, voxels = (sum(p.numel() for p in part.module.parameters()) / 1e6 for part in parts)
    return energies, voxels


@pytest.mark.parametrize(("name", "published"), [("calodream-ds2", 28.4), ("calodream-ds3", 8.25)])
def test_published_numbers_of_weights_are_met_within_two_per_cent(name: str, published: float) -> None:
    """Of both networks; ours of the energies is a residual one. The control: two blocks more."""
    assert sum(millions(name)) == pytest.approx(published, rel=0.02)
    assert sum(millions(name, layers=8)) > 1.1 * published


def test_published_presets_run_forward_backward_and_back() -> None:
    """One shower of data set 2 and a loss with its gradient; in one step, as the solver takes 50."""
    config = MATCHING["calodream-ds2"].config(registered("ds2"))
    flows = tuple(replace(flow, solver="euler", steps=1) for flow in config.flows)  # type: ignore[type-var]
    model = build_matching(replace(config, flows=flows), registered("ds2"), generator(1))
    voxels = torch.rand(2, model.geometry.n_voxels, generator=generator(2)) + 0.1
    incident = voxels.sum(1)
    for part in model.parts:
        loss = part.loss(voxels, incident, generator(3))
        assert isinstance(loss, Tensor)
        loss.mean().backward()
        assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in part.module.parameters())
    assert torch.isfinite(model.sample(incident, generator(4))).all()


@pytest.mark.parametrize("name", MATCHING)
def test_presets_survive_json(name: str) -> None:
    config = MATCHING[name].config(home(name))
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict(), allow_nan=False))) == config
    assert config.family == ("matching-student" if name.endswith("onestep") else "matching")
    assert MATCHING[name].text


@pytest.mark.parametrize("name", ["toy", "ds1-photons", "calogan"])
def test_the_small_preset_fits_every_geometry(name: str) -> None:
    known = registered(name)
    model = build_matching(MATCHING["small-matching"].config(known), known, generator(1))
    assert model.geometry == known
    assert sum(p.numel() for p in model.parameters()) < 5e6


def test_patches_need_layers_that_are_alike() -> None:
    with pytest.raises(ConfigError, match="needs a grid of 6 cells, got None"):
        build_matching(CONFIGS["vit"], UNLIKE, generator(1))
    with pytest.raises(ConfigError, match="do not fill a grid"):
        flows = (NET, replace(VIT, patch=(1, 3, 1)))
        build_matching(replace(CONFIGS["vit"], flows=flows), GEOMETRY, generator(1))


def test_flows_without_a_velocity_are_refused() -> None:
    with pytest.raises((ModelError, ConfigError), match=r"velocit|cannot be made of"):
        build_matching(replace(CONFIGS["mlp"], flows=(NET, FlowConfig())), GEOMETRY, generator(1))
