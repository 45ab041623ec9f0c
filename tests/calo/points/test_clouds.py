"""Models of point clouds: sets without order, padding that is not seen, calibration, and learning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nisampler.calo.data.points import PointShowers
from nisampler.calo.detector.geometries import geometry
from nisampler.calo.detector.geometry import IncidentEnergy
from nisampler.calo.fitting.fit import DataOptions, fit
from nisampler.calo.fitting.store import load_model, training_records
from nisampler.calo.generation import generate
from nisampler.calo.models import ModelConfig, build_model
from nisampler.calo.models.clouds.base import PointModel, PointScale
from nisampler.calo.models.clouds.layers import Summary, summary_of
from nisampler.calo.models.presets.catalogue import preset
from nisampler.calo.recipe import FitOptions
from nisampler.calo.simulation.points import PointSimulator, simulate_points
from nisampler.errors import ConfigError, ModelError, ShowerDataError

TOY = replace(geometry("toy"), incident=IncidentEnergy("log-uniform", (1e3, 4e3)))
PRESETS = ["small-clouds", "small-clouds-onestep", "small-allshowers"]


def simulated(n: int = 60, seed: int = 1) -> PointShowers:
    rng = np.random.default_rng(seed)
    return PointSimulator(TOY, 2).simulate(TOY.incident.sample(n, rng), rng)


CLOUDS = simulated()


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def prepared(name: str = "small-clouds", symmetric: bool = False) -> Any:
    """A model with the constants of its standardisation, and weights that do something."""
    model = build_model(name, TOY)
    assert isinstance(model, PointModel)
    model.turn(symmetric)
    model.prepare(CLOUDS, generator())
    with torch.no_grad():
        for weight in model.parameters():
            if not weight.any():
                weight.normal_(0, 0.05, generator=generator())
    return model.eval()


def batch(n: int = 12) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(CLOUDS[:n].padded()), torch.as_tensor(CLOUDS.incident[:n], dtype=torch.float32)


def shuffled(points: Tensor) -> Tensor:
    order = torch.rand(points.shape[:2], generator=generator(5)).argsort(1)
    return points.gather(1, order.unsqueeze(2).expand_as(points))


def test_a_summary_knows_no_order_and_no_padding() -> None:
    points, _ = batch()
    found = summary_of(points, 5)
    numbers, energies = CLOUDS[:12].layer_sums(TOY)
    np.testing.assert_array_equal(found.numbers.numpy(), numbers)
    np.testing.assert_allclose(found.energies.numpy(), energies, rtol=1e-5, atol=1e-5)
    wider = torch.cat([points, torch.zeros(12, 9, 4)], dim=1)
    for other in (shuffled(points), wider):
        for part, known in zip(summary_of(other, 5), found, strict=True):
            assert torch.allclose(part, known, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", PRESETS)
def test_losses_do_not_see_padding(name: str) -> None:
    model = prepared(name)
    points, incident = batch()
    wider = torch.cat([points, torch.zeros(12, 9, 4)], dim=1)
    for part in model.parts:
        narrow, wide = (part.loss(found, incident, generator(3)) for found in (points, wider))
        assert narrow.shape == (12,) and torch.allclose(narrow, wide, rtol=1e-4, atol=1e-5)
        other = part.loss(points, incident.flip(0), generator(3))
        assert not torch.allclose(narrow, other, rtol=1e-3)


def test_points_keep_what_they_are_whatever_their_order() -> None:
    """The coordinates and contexts of shuffled points are the shuffled ones."""
    model = prepared()
    points, incident = batch()
    mixed = shuffled(points)
    (y, groups), (z, others) = (model.learned(found, incident, generator()) for found in (points, mixed))
    assert torch.allclose(groups.context, others.context, atol=1e-5)
    whole = [torch.cat([part.rows.unsqueeze(1).float(), x], dim=1) for x, part in ((y, groups), (z, others))]
    first, second = (found[np.lexsort(found.detach().numpy().T[::-1])] for found in whole)
    assert torch.allclose(first, second, atol=1e-5)


def test_coordinates_are_those_of_edm() -> None:
    model = prepared()
    points, incident = batch(60)
    y, groups = model.learned(points, incident, generator())
    assert y.std(0).sub(0.5).abs().max() < 0.05 and y.mean(0).abs().max() < 0.05
    flat = points[points[:, :, 3] > 0]
    back = model.scale.inverse(y, groups.layer)
    assert torch.allclose(back, flat[:, (0, 1, 3)], rtol=1e-3, atol=1e-3)


def test_scale_of_points_on_the_axis() -> None:
    scale, layer = PointScale(1), torch.zeros(3, dtype=torch.long)
    points = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 2.0], [0.0, 2.0, 3.0]])
    scale.fit(points, layer)
    assert torch.isfinite(scale(points, layer)).all()


@pytest.mark.parametrize("name", PRESETS)
def test_generated_clouds_are_calibrated(name: str) -> None:
    model = prepared(name)
    incident = torch.linspace(1e3, 4e3, 20)
    with torch.inference_mode():
        wanted = model.layer_flow.draw(model.condition(incident), generator(4))
    made = summary_of(model.sample(incident, generator(4)), 5)
    assert torch.equal(made.numbers, wanted.numbers)
    assert torch.allclose(made.energies, wanted.energies, rtol=1e-4)
    lit = wanted.numbers.sum(1) > 0
    assert lit.sum() > 10 and torch.allclose(made.centre[lit], wanted.centre[lit], atol=1e-3)
    again = model.sample(incident, generator(4))
    assert torch.equal(again, model.sample(incident, generator(4)))


def test_the_calibration_of_the_centre_leaves_the_core_alone() -> None:
    """Points near the axis move by less than a tenth of the way that far ones move."""
    model = prepared()
    numbers = torch.tensor([[3.0, 0.0, 0.0, 0.0, 0.0]])
    summary = Summary(numbers, 6.0 * (numbers > 0), torch.tensor([[1.0, -0.5]]))
    groups = model.groups(summary, torch.tensor([2e3]), torch.zeros(3, dtype=torch.long))
    far = 20 * float(model.scale.length)
    points = torch.tensor([[0.1, 0.0, 1.0], [far, 0.0, 1.0], [-far, 0.0, 4.0]])
    move = (model._calibrated(points, summary, groups) - points)[:, :2].norm(dim=1)
    assert move[0] < 0.1 * move[1] and move[1] > 0.5


def test_numbers_of_a_flow_and_back() -> None:
    """Coordinates of a summary are drawn back to it where the flow hands them through."""
    model = prepared()
    points, incident = batch(40)
    known, condition = summary_of(points, 5), model.condition(incident)
    flow = model.layer_flow
    y = flow.coordinates(known, condition, generator())
    flow.flow.sample = lambda n, context, generator: (y, None)
    found = flow.draw(condition, generator())
    assert torch.equal(found.numbers, known.numbers)
    assert torch.allclose(found.energies, known.energies, rtol=1e-3)
    assert torch.allclose(found.centre, known.centre, atol=1e-4)


def test_turns_keep_radii_and_layers() -> None:
    points, _ = batch()
    turned, same = (prepared(symmetric=on).turned(points, generator()) for on in (True, False))
    assert torch.equal(same, points) and not torch.allclose(turned[..., :2], points[..., :2], atol=0.1)
    assert torch.allclose(turned[..., :2].norm(dim=2), points[..., :2].norm(dim=2), atol=1e-3)
    assert torch.equal(turned[..., 2:], points[..., 2:])


def test_too_few_showers_to_prepare() -> None:
    with pytest.raises(ModelError, match="at least 3 training showers, got 2"):
        build_model("small-clouds", TOY).prepare(CLOUDS[:2], generator())


def test_wrong_flows_are_refused() -> None:
    config = preset("small-clouds", TOY)
    with pytest.raises(ConfigError, match="cannot be made of"):
        replace(config, flows=(config.flows[0], config.flows[0]))
    assert ModelConfig.from_dict(config.to_dict()) == config


# Learning


def small(name: str) -> ModelConfig:
    """A preset that is trained in a second."""
    config = preset(name, TOY)
    net = replace(config.flows[1], hidden=32, layers=2)
    flow = replace(config.flows[0], blocks=3, net=replace(config.flows[0].net, hidden=32))
    recipes = [replace(recipe, epochs=6, batch=50, learning_rate=5e-3, ema=0.0) for recipe in config.recipes]
    return replace(config, flows=(flow, net, net)[: len(config.flows)], recipes=tuple(recipes))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("points")
    simulate_points(folder / "train.h5", TOY, 600, 1, 2)
    fit(DataOptions(folder / "train.h5"), TOY, small("small-clouds-onestep"), folder / "model")
    return folder


def test_fitted_clouds_are_nearer_than_fresh_ones(files: Path) -> None:
    model: Any = load_model(files / "model")
    losses = [record["validation"] for record in training_records(files / "model")["onestep"]]
    assert losses[-1] < 0.6 * losses[0]
    # a student needs more steps than a test has: points of the teacher
    model._draw = lambda groups, source: model._draw_with(model.denoiser, groups, source)
    truth = simulated(400, 7)
    incident = torch.as_tensor(truth.incident, dtype=torch.float32)
    radius = np.median(np.hypot(truth.points[:, 0], truth.points[:, 1]))

    def distance(found: Any) -> float:
        made = found.sample(incident, generator())
        points = made[made[..., 3] > 0]
        other = points[:, :2].norm(dim=1).median().item() / radius
        return abs(np.log(other)) + abs(np.log((made[..., 3] > 0).sum().item() / len(truth.points)))

    fresh = build_model(small("small-clouds-onestep"), TOY)
    fresh.prepare(simulated(600), generator())
    assert distance(model) < 0.3 and distance(model) < 0.5 * distance(fresh.eval())


def test_same_seed_same_file_and_cells(files: Path) -> None:
    model = load_model(files / "model")
    made = [
        generate(model, 30, files / f"{name}.h5", 4, shard=20, projected=files / f"{name}_cells.h5") for name in "ab"
    ]
    assert (files / "a_cells.h5").read_bytes() == (files / "b_cells.h5").read_bytes()
    assert made[0].occupancy == made[1].occupancy > 10 and made[0].beside is not None


def test_an_interrupted_fit_ends_alike(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nisampler.calo.models.clouds.diffusion import OneStepCloudsModel

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    arguments = (DataOptions(files / "train.h5"), TOY, small("small-clouds-onestep"), tmp_path / "model")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(OneStepCloudsModel, "_begin", stop)
        fit(*arguments)
    fit(*arguments, resume=True)
    for place in ("base", "parts/layers", "parts/points", "parts/onestep"):
        names = [path.name for path in (files / "model" / place).glob("*.safetensors")]
        assert names
        for name in names:
            assert (files / "model" / place / name).read_bytes() == (tmp_path / "model" / place / name).read_bytes()


def test_the_wrong_kind_of_showers(files: Path, tmp_path: Path) -> None:
    from nisampler.calo.simulation.simulator import simulate_file

    simulate_file(tmp_path / "cells.h5", TOY, 20, 1)
    with pytest.raises(ShowerDataError, match="holds voxels, and this model learns from points"):
        fit(DataOptions(tmp_path / "cells.h5"), TOY, "small-clouds", tmp_path / "a")
    with pytest.raises(ShowerDataError, match="holds points, and this model learns from voxels"):
        fit(DataOptions(files / "train.h5"), TOY, "small", tmp_path / "b")
    with pytest.raises(ConfigError, match="only point clouds are projected"):
        generate(build_model("small-inn", TOY).eval(), 2, tmp_path / "c.h5", projected=tmp_path / "d.h5")
    from nisampler.calo.export.targets import target_for

    with pytest.raises(ModelError, match="point clouds are not exported"):
        target_for(build_model("small-clouds", TOY))


def test_malformed_clouds_are_drawn_again_with_room_for_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = prepared()
    good, calls = model.sample, []

    def sample(incident: Tensor, source: torch.Generator) -> Tensor:
        found = good(incident, source).clone()
        calls.append(len(incident))
        if len(calls) == 1:
            found[2, 0, 3] = torch.nan
            return found
        return torch.cat([found, torch.zeros(len(found), 50, 4)], dim=1)

    monkeypatch.setattr(model, "sample", sample)
    made = generate(model, 10, tmp_path / "a.h5")
    assert calls == [10, 1] and made.redrawn == 1
    monkeypatch.setattr(model, "sample", lambda incident, source: torch.full((len(incident), 1, 4), torch.nan))
    with pytest.raises(ModelError, match="too many showers that are not finite or have negative points"):
        generate(model, 10, tmp_path / "b.h5")


def test_summary_of_nothing() -> None:
    empty = summary_of(torch.zeros(2, 0, 4), 5)
    assert isinstance(empty, Summary) and empty.numbers.sum() == 0 and torch.isfinite(empty.centre).all()


def test_a_fit_of_the_command_line_is_the_same(files: Path) -> None:
    """The recipe of a preset may be changed as that of every other model."""
    assert FitOptions(epochs=1, batch=20).recipe(build_model("small-clouds", TOY).parts[1]).epochs == 1
