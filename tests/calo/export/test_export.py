"""Exported models make the showers of their models, from the same noise, in a program without nisampler."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from scipy.stats import kstest
from tiny_model import showers
from torch import Tensor
from typer.testing import CliRunner

from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometries import geometry
from nisampler.calo.detector.geometry import Geometry, IncidentEnergy, Layer
from nisampler.calo.export.check import BATCHES, check, runner
from nisampler.calo.export.formats import needed, write
from nisampler.calo.export.noise import normal_noise, philox
from nisampler.calo.export.plain import Matrix, PlainShowers
from nisampler.calo.export.targets import DdmlShowers, Par04Showers, Target, target_for
from nisampler.calo.models import FlowConfig, ModelConfig, ShowerModel, build_model
from nisampler.calo.models.presets.preset import clear_noise
from nisampler.calo.recipe import Recipe
from nisampler.cli import app
from nisampler.errors import ConfigError, MissingExtraError, ModelError
from nisampler.flows import LULinear, NetConfig, Spline

TOY = geometry("toy")
LAW = IncidentEnergy("log-uniform", (1e3, 1e5))
POLAR = Geometry("two", "electron", 11, tuple(Layer.polar(i, 3, (0, 20, 60)) for i in range(2)), 0.1, LAW)
SQUARE = Geometry(
    "square", "photon", 22, tuple(Layer(i, "rectangular", (0, 5, 10, 15), (0, 5, 10)) for i in range(2)), 0.1, LAW
)


def shaken(model: ShowerModel, seed: int = 1) -> ShowerModel:
    """A model with constants of simulated showers and weights away from their start, where it is the identity."""
    generator = torch.Generator().manual_seed(seed)
    data = showers(model.geometry, 400)
    empty = np.random.default_rng(1).random(data.voxels.shape) < 0.3
    model.prepare(Showers(data.incident, np.where(empty, 0.0, data.voxels)), generator)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.is_floating_point():
                scale = 0.2 / math.sqrt(weight.shape[-1] if weight.dim() > 1 else 4.0)
                weight.add_(scale * torch.randn(weight.shape, generator=generator))
    return model.eval()


FLOW = FlowConfig("coupling", 1, NetConfig(hidden=4, layers=1), Spline(bins=3, domain="line", bound=6.0))
RECIPE = Recipe(1, 10, 1e-3)


def tiny(cells: Geometry) -> ShowerModel:
    noise = replace(clear_noise(cells), levels=2)
    return shaken(build_model(ModelConfig("two-step", noise, (FLOW, FLOW), (RECIPE, RECIPE)), cells))


def one_block(cells: Geometry) -> ShowerModel:
    """The fewest operations, as tracing them takes long."""
    noise = replace(clear_noise(cells), levels=0)
    return shaken(build_model(ModelConfig("one-step", noise, (FLOW,), (RECIPE,)), cells))


def drawn(model: ShowerModel, sizes: tuple[int, ...], count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """The noise that a model draws, incident energies, and its showers."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.cat([torch.randn(count, size, generator=generator) for size in sizes], dim=1)
    incident = torch.logspace(3, 4.9, count)
    return noise, incident, model.sample(incident, torch.Generator().manual_seed(seed))


def single(target: Target, noise: Tensor, inputs: dict[str, Tensor]) -> Tensor:
    """Voxels in MeV of the first shower of a target's inputs, made by hand."""
    energy = inputs["particle"][:, 0] * 1e3
    found: Tensor = target.plain(noise, energy)[0]
    return found


# Noise


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_published_words(counter: tuple[int, ...], key: tuple[int, ...], words: str) -> None:
    """Known answers of Random123, the library of its authors."""
    given: Any = [torch.tensor([word]) for word in counter], [torch.tensor([word]) for word in key]
    assert " ".join(f"{int(word):08x}" for word in philox(*given)) == words


def test_noise_is_normal_and_belongs_to_the_shower() -> None:
    one = torch.ones(1, dtype=torch.long)
    noise = normal_noise(5 * one, 0 * one, 4000, 50)
    assert noise.shape == (4000, 50) and noise.dtype == torch.float32
    assert kstest(noise.flatten().numpy(), "norm").pvalue > 1e-3
    correlations = np.corrcoef(noise.numpy().T) - np.eye(50)
    assert np.abs(correlations).max() < 5 / math.sqrt(4000)
    assert kstest((noise + 0.02).flatten().numpy(), "norm").pvalue < 1e-3  # negative control
    assert torch.equal(normal_noise(5 * one, 3990 * one, 10, 50), noise[3990:])
    assert not torch.equal(normal_noise(6 * one, 0 * one, 1, 50), noise[:1])
    far = normal_noise((2**40 + 5) * one, 2**33 * one, 2, 50)
    assert torch.isfinite(far).all() and not torch.equal(far, noise[:2])


# Models with their noise as an argument


@pytest.mark.parametrize(
    "name", ["small", "small-student", "small-convl2l", "small-matching", "small-icaloflow", "small-inn-bayesian"]
)
def test_given_noise_makes_the_showers_of_the_model(name: str) -> None:
    model = shaken(build_model(name, TOY))
    plain = PlainShowers(model)
    noise, incident, expected = drawn(model, plain.sizes, 5, seed=3)
    with torch.no_grad():
        found = plain(noise, incident)
    assert (expected > 0).any() and torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.max()))
    assert not torch.allclose(plain(noise.flip(0), incident), expected, rtol=1e-2)
    assert noise.shape == (5, plain.noise) and plain.noise >= TOY.n_voxels + (name != "small-inn-bayesian")


def test_the_inverse_of_a_linear_map_is_one_product() -> None:
    linear = LULinear(4)
    with torch.no_grad():
        for weight in linear.parameters():
            weight.add_(torch.linspace(-0.5, 0.7, weight.numel()))
    y = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(Matrix(linear).inverse(y)[0], linear.inverse(y)[0], atol=1e-5)
    with pytest.raises(ModelError, match="one direction only"):
        Matrix(linear)(y)


def test_weights_that_generation_does_not_need_are_left_out() -> None:
    model = build_model("small-student", TOY).eval()
    count = sum(weight.numel() for weight in PlainShowers(model).parameters())
    assert count == sum(weight.numel() for part in model.generation_modules() for weight in part.parameters())
    assert count < sum(weight.numel() for weight in model.parameters())


def test_long_sequences_are_refused() -> None:
    with pytest.raises(ModelError, match=r"240 coordinates one after the other.*export its student"):
        PlainShowers(build_model("small-teacher", TOY))


# Targets


def test_par04_has_its_order_and_its_units() -> None:
    model = tiny(POLAR)
    target = target_for(model, "par04", highest=2e5)
    noise, incident, expected = drawn(model, target.plain.sizes, 3, seed=4)
    rows = torch.cat([noise, incident.unsqueeze(1) / 2e5, torch.tensor([[0.3, 0.0, 1.0]]).expand(3, 3)], dim=1)
    found = target(rows).reshape(3, 2, 3, 2) * incident.reshape(-1, 1, 1, 1)
    for layer, angle, radius in np.ndindex(2, 3, 2):
        voxel = expected[:, (layer * 3 + angle) * 2 + radius]
        assert torch.allclose(found[:, radius, angle, layer], voxel, rtol=1e-4, atol=1e-2)


def test_ddml_has_its_order_and_its_units() -> None:
    target = target_for(tiny(SQUARE), "ddml")
    inputs = target.inputs(1, seed=2)
    torch.manual_seed(5)
    found = target(inputs["particle"])
    torch.manual_seed(5)
    expected = single(target, torch.randn(1, target.plain.noise), inputs)
    assert found.shape == (2, 3, 2) and torch.equal(found.flatten(), expected / 1e3)
    assert found.sum() > 0


def test_showers_that_are_not_finite_come_out_empty_where_nobody_draws_them_again() -> None:
    target = target_for(tiny(POLAR), "par04")
    inputs = target.inputs(3, seed=2)
    voxels = target.plain(inputs["input"][:, : target.plain.noise], torch.full((3,), 1e4)).clone()
    voxels[1, 4] = math.nan
    target.plain.forward = lambda noise, incident: voxels  # type: ignore[method-assign]
    assert (target(*inputs.values()).sum(1) > 0).tolist() == [True, False, True]


def test_geometries_that_do_not_fit_are_refused() -> None:
    plain = PlainShowers(tiny(SQUARE))
    with pytest.raises(ModelError, match="par04 takes equal layers of polar cells, which square has not"):
        Par04Showers(plain, 1e6)
    with pytest.raises(ModelError, match="ddml takes equal layers of rectangular cells, which two has not"):
        DdmlShowers(PlainShowers(tiny(POLAR)))
    with pytest.raises(ConfigError, match="ddml gives no seed"):
        target_for(tiny(SQUARE), "ddml", noise="seed")


# Files


class NoiseAlone(Target):
    """The noise of showers as their voxels."""

    def inputs(self, count: int, seed: int) -> dict[str, Tensor]:
        return {"incident": torch.ones(count), "seed": torch.tensor([seed]), "first": torch.tensor([2**33])}

    def forward(self, incident: Tensor, seed: Tensor, first: Tensor) -> Tensor:
        return normal_noise(seed, first, incident.shape[0], 11) + 9.0


class MarginalsAlone(Target):
    """Coordinates behind their marginals as voxels."""

    def inputs(self, count: int, seed: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return {"y": torch.randn(count, 12, generator=generator), "logs": 3 * torch.rand(count, 2, generator=generator)}

    def forward(self, y: Tensor, logs: Tensor) -> Tensor:
        step = self.plain.model.preprocessing.cells.marginals
        assert step is not None
        return step.inverse(y, logs)[0].exp()


@pytest.fixture(scope="module")
def one_step(tmp_path_factory: pytest.TempPathFactory) -> tuple[Target, Path]:
    """A target and its ONNX file: flows, layer energies and cells."""
    path = tmp_path_factory.mktemp("export") / "tiny.onnx"
    target = target_for(one_block(POLAR))
    write(target, path)
    return target, path


def test_onnx_makes_the_same_showers_at_any_batch(one_step: tuple[Target, Path]) -> None:
    target, path = one_step
    rows = check(target, runner(path), repeats=1)
    assert [row.batch for row in rows] == list(BATCHES)
    assert all(row.difference < 1e-5 and row.beyond < 1e-2 for row in rows)


@pytest.mark.parametrize("kind", [NoiseAlone, MarginalsAlone])
def test_onnx_has_the_same_steps(kind: type[Target], tmp_path: Path) -> None:
    """What the target above leaves out."""
    target = kind(PlainShowers(tiny(POLAR)))
    write(target, tmp_path / "step.onnx")
    assert all(row.difference < 1e-5 for row in check(target, runner(tmp_path / "step.onnx"), repeats=1))


def test_onnx_has_plain_operations_and_says_whose_it_is(one_step: tuple[Target, Path]) -> None:
    model = onnx.load(one_step[1])
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""} and not model.functions
    assert not [node.op_type for node in model.graph.node if node.op_type.startswith("Random")]
    assert {item.key: item.value for item in model.metadata_props} == {"geometry": "two", "cells": POLAR.digest}
    assert [item.name for item in model.graph.input] == ["noise", "incident"]


def test_a_file_of_another_model_does_not_pass(one_step: tuple[Target, Path]) -> None:
    other = target_for(shaken(one_step[0].plain.model, seed=2))
    with pytest.raises(ModelError, match="does not make the showers of its model"):
        check(other, runner(one_step[1]), repeats=1)


def test_missing_packages_are_named() -> None:
    with pytest.raises(MissingExtraError, match="need nowhere_at_all: pip install"):
        needed("math", "nowhere_at_all")


# The command


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> ShowerModel:
    """What the command finds in a folder."""
    model = one_block(SQUARE)
    monkeypatch.setattr("nisampler.calo.fitting.store.load_model", lambda folder: model)
    return model


def call(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["calo", "export", "model", *(str(argument) for argument in arguments)])
    assert "Traceback" not in done.stderr
    return done.exit_code, done.stdout, done.stderr


def test_command(stored: ShowerModel, tmp_path: Path) -> None:
    code, out, err = call("--output", tmp_path / "a.pt2", "--format", "torch-export")
    assert (code, err) == (0, "")
    shown = dict(line.split("  ", 1) for line in out.splitlines())
    assert shown["inputs"].strip() == "noise (1, 14), incident (1,)"
    assert [int(line.split()[0]) for line in out.splitlines()[-3:]] == list(BATCHES)
    assert all(float(line.split()[1]) < 1e-5 for line in out.splitlines()[-3:])
    code, _, err = call("--output", tmp_path / "a.pt2")
    assert code == 1 and "exists" in err


def test_command_refuses_what_cannot_be(stored: ShowerModel, tmp_path: Path) -> None:
    code, _, err = call("--output", tmp_path / "a.onnx", "--target", "par04")
    assert code == 1 and "par04 takes equal layers of polar cells" in err
    code, _, err = call("--output", tmp_path / "none" / "a.onnx")
    assert code == 1 and "there is no folder" in err
    assert not list(tmp_path.iterdir())


def test_command_for_ddml(stored: ShowerModel, tmp_path: Path) -> None:
    """The noise that the runtime draws is made an input, to compare with the same noise in torch."""
    path = tmp_path / "ddml.onnx"
    code, out, _ = call("--output", path, "--target", "ddml", "--seed", 5)
    assert code == 0 and "one shower" in out
    model, target = onnx.load(path), target_for(stored, "ddml")
    (random,) = [node for node in model.graph.node if node.op_type.startswith("RandomNormal")]
    assert {item.name: item.f for item in random.attribute}["seed"] == 5.0
    particle = target.inputs(1, seed=2)["particle"]
    first, again = runner(path), runner(path)
    runs = [run({"particle": particle}) for run in (first, first, again)]
    assert runs[0].shape == (2, 3, 2) and np.array_equal(runs[0], runs[2]) and not np.array_equal(runs[0], runs[1])
    model.graph.input.append(onnx.helper.make_tensor_value_info(random.output[0], onnx.TensorProto.FLOAT, (1, 14)))
    model.graph.node.remove(random)
    onnx.save(model, tmp_path / "given.onnx")
    noise = torch.randn(1, 14, generator=torch.Generator().manual_seed(7))
    found = runner(tmp_path / "given.onnx")({"particle": particle, random.output[0]: noise})
    expected = single(target, noise, {"particle": particle}).numpy() / 1e3
    assert np.allclose(found.ravel(), expected, rtol=1e-4, atol=1e-6 * expected.max())
