"""A variational autoencoder: its bound, that it learns, and that it is used like all models."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_models import generator, profile_showers, tensors
from tiny_model import bytes_of, write_file
from torch import Tensor

from nisampler.base.optim import Stepper, adamw
from nisampler.calo.detector.geometries import geometry
from nisampler.calo.detector.geometry import Geometry, IncidentEnergy, Layer
from nisampler.calo.fitting.fit import DataOptions, fit
from nisampler.calo.fitting.store import load_model
from nisampler.calo.models import ModelConfig, build_model, preset
from nisampler.calo.models.vae import Autoencoder, AutoencoderConfig, AutoencoderModel
from nisampler.calo.preprocessing.preprocessing import PreprocessingConfig
from nisampler.calo.recipe import FitOptions, Recipe
from nisampler.errors import ConfigError, ModelError
from nisampler.flows import VelocityConfig
from nisampler.ui.monitor import Monitor

GEOMETRY = Geometry(
    "small", "electron", 11, (Layer.polar(0, 4, (0, 1, 2)), Layer.polar(1, 4, (0, 1, 2))), 0.5,
    IncidentEnergy("log-uniform", (1e2, 1e3)),
)  # fmt: skip
CLEAR = PreprocessingConfig(
    threshold=0.5, noise="below-threshold", width=1.0, voxels="log", energies="log-sticks", scale=0.8, levels=4
)
SMALL = ModelConfig("autoencoder", CLEAR, (AutoencoderConfig(24, 2, 4),), (Recipe(2, 50, 1e-3),))


def correlated(n: int, seed: int, dim: int = 4, rho: float = 0.9) -> tuple[Tensor, Tensor]:
    """Normal numbers with one correlation, around a condition."""
    source = generator(seed)
    common, own = torch.randn(n, 1, generator=source), torch.randn(n, dim, generator=source)
    mean = torch.randn(n, 1, generator=source)
    return mean + math.sqrt(rho) * common + math.sqrt(1 - rho) * own, mean


def test_a_fresh_network_has_the_bound_of_normal_noise() -> None:
    """Its decoder says nothing and its latent numbers cost nothing: the bound is the density of a normal law."""
    x, context = correlated(50, 1)
    terms = Autoencoder(4, 1, AutoencoderConfig(8, 2, 2), generator(1)).loss(x, context, generator(2))
    assert torch.allclose(terms["loss"], (0.5 * x.square() + 0.5 * math.log(2 * math.pi)).sum(1), atol=1e-5)
    assert torch.allclose(terms["divergence"], torch.zeros(50), atol=1e-6)


def test_it_learns_the_correlation_and_stays_above_the_exact_loss() -> None:
    net = Autoencoder(4, 1, AutoencoderConfig(48, 2, 2), generator(1))
    stepper, source = Stepper(net, adamw(3e-3)), generator(4)
    for step in range(300):
        stepper.step(net.loss(*correlated(128, 10 + step), source)["loss"].mean(), step / 300)
    x, context = correlated(4000, 2)
    made = net.make(context, generator(5)).detach()
    found, expected = (torch.corrcoef((points - context).T)[0, 1].item() for points in (made, x))
    assert expected > 0.85 and found > 0.4
    # -log p of the exact law: 4/2 log(2 pi e) + 1/2 log det, with eigenvalues 1 + 3 rho and 1 - rho
    exact = 2 * math.log(2 * math.pi * math.e) + 0.5 * (math.log(1 + 3 * 0.9) + 3 * math.log(0.1))
    bound = net.loss(x, context, generator(6))["loss"].mean().item()
    without = 2 * math.log(2 * math.pi * math.e)  # of independent numbers, a floor without latent ones
    assert exact - 0.1 < bound < without - 1.0


def test_a_model_makes_showers_and_has_no_density() -> None:
    model, data = build_model(SMALL, GEOMETRY, 5), profile_showers(GEOMETRY, 300, 1)
    assert isinstance(model, AutoencoderModel)
    model.prepare(data, generator(2))
    voxels, incident = tensors(data)
    made, again = (model.eval().sample(incident, generator(1)) for _ in range(2))
    assert made.shape == voxels.shape and torch.equal(made, again) and ((made == 0) | (made >= 0.5)).all()
    with pytest.raises(ModelError, match="has no density, it makes showers only"):
        model.log_prob(voxels, incident, generator(1))
    (part,) = model.parts
    loss = part.loss(voxels, incident, generator(3))
    assert isinstance(loss, dict)
    loss["loss"].mean().backward()
    assert all(weight.grad is not None for weight in model.parameters())
    assert {id(p) for p in part.module.parameters()} == {id(p) for p in model.parameters()}


def test_a_fit_is_stored_and_resumed(tmp_path: Path) -> None:
    class Interrupt(Monitor):
        def progress(self, stage: str, done: int, total: int, figures: object) -> None:
            if done > 200:
                raise KeyboardInterrupt

    toy = geometry("toy")
    data = DataOptions(write_file(tmp_path / "data.h5", toy, 200))
    small = replace(preset("small-vae", toy), recipes=(Recipe(2, 100, 1e-3),))
    options = FitOptions(hidden=16, checkpoint_seconds=0.0)
    fit(data, toy, small, tmp_path / "once", options)
    with pytest.raises(KeyboardInterrupt):
        fit(data, toy, small, tmp_path / "twice", options, monitor=Interrupt())
    fit(data, toy, small, tmp_path / "twice", options, resume=True)
    assert bytes_of(tmp_path / "once") == bytes_of(tmp_path / "twice")
    assert load_model(tmp_path / "once", toy).sample(torch.full((3,), 1e4), generator(1)).shape == (3, toy.n_voxels)


def test_wrong_settings() -> None:
    with pytest.raises(ConfigError, match="latent = 0"):
        AutoencoderConfig(latent=0)
    with pytest.raises(ConfigError, match="cannot be made of VelocityConfig"):
        ModelConfig("autoencoder", CLEAR, (VelocityConfig(),), (Recipe(2, 50, 1e-3),))
