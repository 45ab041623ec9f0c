"""L2LFlows: layers one after the other, each given only what it may see, and the published sizes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import disturb, generator, profile_showers, tensors
from torch import Tensor

from nisampler.calo.data.batches import MemorySource
from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometries import geometry as registered
from nisampler.calo.detector.geometry import Geometry, IncidentEnergy, Layer
from nisampler.calo.generation import generate
from nisampler.calo.models import PRESETS, FlowConfig, ModelConfig, build_model
from nisampler.calo.models.build import build_flow
from nisampler.calo.models.chain import ChainModel, HistoryEmbedding, layer_context, layer_flow
from nisampler.calo.models.presets.catalogue import preset
from nisampler.calo.preprocessing.preprocessing import PreprocessingConfig, VoxelPreprocessing
from nisampler.calo.recipe import Recipe
from nisampler.errors import ConfigError, ModelError
from nisampler.flows import ConvCouplingConfig, Flow, NetConfig, Spline, UNetConfig, VelocityConfig

THRESHOLD = 0.5
LAW = IncidentEnergy("log-uniform", (1e2, 1e3))
EQUAL = Geometry("equal", "electron", 11, tuple(Layer.polar(i, 4, (0, 1, 2)) for i in range(4)), THRESHOLD, LAW)
UNEQUAL = Geometry(
    "unequal", "electron", 11, (Layer.polar(0, 4, (0, 1, 2)), Layer.polar(1, 2, (0, 1)), Layer.polar(4, 1, (0, 1, 2))),
    THRESHOLD, LAW,
)  # fmt: skip
SPLINE = Spline(bins=4, domain="line", bound=4.0)
COUPLING = FlowConfig("coupling", 2, NetConfig(hidden=12, layers=1), SPLINE)
MAF = FlowConfig("maf", 2, NetConfig(hidden=12, layers=1), SPLINE)
IMAGES = ConvCouplingConfig(UNetConfig(4, ((2, 1),), 0, "none", "silu"), (2, 2), 2, SPLINE, embedding=2)
RECIPE = Recipe(2, 100, 1e-3)
CLEAR = PreprocessingConfig(
    threshold=THRESHOLD, noise="below-threshold", width=1.0, voxels="log", energies="log-sticks", scale=0.8, levels=4
)
NOISY = PreprocessingConfig(noise="uniform", width=1e-3, energies="log-sticks", output_cut=0.01)
FILLED = PreprocessingConfig(
    noise="log-normal", unit="maximum", voxels="log-logit", energies="log-sticks", alpha=1e-2, output_cut=0.01
)
MODELS = {
    "coupling": (UNEQUAL, ModelConfig("chain", CLEAR, (COUPLING, COUPLING), (RECIPE,) * 2, history=1)),
    "maf": (EQUAL, ModelConfig("chain", NOISY, (COUPLING, MAF), (RECIPE,) * 2, history=2)),
    "images": (EQUAL, ModelConfig("chain", CLEAR, (COUPLING, IMAGES), (RECIPE,) * 2, history=2)),
    "filled": (EQUAL, ModelConfig("chain", FILLED, (COUPLING, IMAGES), (RECIPE,) * 2, history=5)),
    "alone": (UNEQUAL, ModelConfig("chain", CLEAR, (COUPLING, COUPLING), (RECIPE,) * 2, history=0)),
}

# Millions of parameters of 2405.20407 and of the CaloChallenge submissions (2410.21611).
PUBLISHED = {"convl2l-getting-high": 163.27, "convl2l-ds2": 158.0, "convl2l-ds3": 194.96, "l2lflows-ds3": 556.5}


def make(name: str | tuple[Geometry, ModelConfig]) -> ChainModel:
    """A prepared model whose flows are the identity plus noise."""
    geometry, config = MODELS[name] if isinstance(name, str) else name
    model = build_model(config, geometry)
    assert isinstance(model, ChainModel)
    model.prepare(profile_showers(geometry, 600, 1), generator(2))
    disturb(model, 0.1)
    return model.eval()


def window(model: ChainModel, index: int, voxels: Tensor) -> Tensor:
    """The voxels that the training loop gives to a part."""
    first, last = model.parts[index].layers or (0, model.geometry.n_layers)
    return voxels[:, model.geometry.starts[first] : model.geometry.starts[last]]


def losses(model: ChainModel, voxels: Tensor, incident: Tensor, seed: int = 1) -> list[Tensor]:
    found = []
    for index, part in enumerate(model.parts):
        loss = part.loss(window(model, index, voxels), incident, generator(seed))
        assert isinstance(loss, Tensor)
        found.append(loss)
    return found


def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise and auxiliary scales that depend on the voxels alone, not on how many layers are asked for."""

    def augment(self: VoxelPreprocessing, voxels: Tensor, source: torch.Generator) -> Tensor:
        empty = self.config.threshold * torch.exp(-self.config.gap - 0.1 - 0.01 * voxels)
        filled = torch.where(voxels < self.config.threshold, empty, voxels + 1e-3 * (1 + voxels.sin() ** 2))
        scales = torch.full((len(voxels), self.geometry.n_layers), 0.5 * (1 + self.config.scale))
        return torch.cat([filled, scales.to(voxels.dtype)], dim=1)

    monkeypatch.setattr(VoxelPreprocessing, "augment", augment)


# --- densities


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_the_losses_of_the_parts_add_up_to_the_nll(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(name)
    voxels, incident = tensors(profile_showers(model.geometry, 20, 2))
    quiet(monkeypatch)
    parts = torch.stack(losses(model, voxels, incident))
    assert torch.isfinite(parts).all()
    total = -model.log_prob(voxels, incident, generator(1))
    torch.testing.assert_close(parts.sum(0), total, rtol=1e-4, atol=1e-3)
    # the control: each part counts
    assert (parts.abs() > 0.1).any(1).all()


@torch.no_grad()
def test_every_factor_of_a_chain_of_single_voxels_integrates_to_one() -> None:
    """p(E_1, E_2 | E_inc) over both energies, and p(s_i | E_i, the layer before) over the scale of a layer."""
    geometry = Geometry("pair", "electron", 11, tuple(Layer.polar(i, 1, (0, 1)) for i in range(2)), THRESHOLD, LAW)
    plain = PreprocessingConfig(width=1e-3, voxels="shifted-log", alpha=1e-8, energies="log-sticks", scale=0.5)
    model = build_model(ModelConfig("chain", plain, (COUPLING, MAF), (RECIPE,) * 2), geometry)
    assert isinstance(model, ChainModel)
    data = torch.exp(4 + 0.3 * torch.randn(2000, 2, generator=generator(1)))
    model.prepare(Showers(np.full(2000, 250.0), data.numpy()), generator(2))
    disturb(model, 0.1)
    model = model.double().eval()
    logs = 2.2 + 3.6 * (torch.arange(80, dtype=torch.float64) + 0.5) / 80
    points = torch.cartesian_prod(logs, logs).exp()
    incident = torch.full((len(points),), 250.0, dtype=torch.float64)
    y, log_det = model.preprocessing.energy_coordinates(points, incident.unsqueeze(1))
    density = (model.energy_flow.log_prob(y, model.condition(incident)) + log_det).exp()
    assert float((density * points.prod(1)).sum() * 0.045**2) == pytest.approx(1.0, abs=0.01)

    steps = torch.linspace(-4, 3, 1401, dtype=torch.float64).exp()
    for before, own in ((30.0, 60.0), (90.0, 20.0)):
        energies = torch.full((len(steps), 1), own, dtype=torch.float64)
        given = torch.full((len(steps), 1), before, dtype=torch.float64)
        for layer, flow in enumerate(model.layer_flows):
            context = model.layer_condition(layer, given[:, :layer], energies, incident[: len(steps)])
            cells = model.preprocessing.cells.window(layer, layer + 1)
            z, log_det = cells(torch.stack([energies[:, 0], steps], dim=1))
            density = (flow.log_prob(z[:, :1], context) + log_det).exp()
            assert float((density * steps).sum() * 0.005) == pytest.approx(1.0, abs=0.01)


# --- what a layer may see


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_the_loss_of_a_layer_is_given_its_history_and_no_later_layer(name: str) -> None:
    geometry, config = MODELS[name]
    model = make(name)
    assert [part.name for part in model.parts] == ["energies", *(f"layer-{i:02d}" for i in range(geometry.n_layers))]
    assert [part.layers for part in model.parts] == [
        None, *((max(0, i - config.history), i + 1) for i in range(geometry.n_layers)),
    ]  # fmt: skip
    assert [part.recipe for part in model.parts] == [RECIPE] * (geometry.n_layers + 1)
    weights = {id(p) for part in model.parts for p in part.module.parameters()}
    assert weights == {id(p) for p in model.parameters()}
    assert sum(1 for part in model.parts for _ in part.module.parameters()) == len(weights)


@pytest.mark.parametrize("name", ["coupling", "maf", "images"])
@torch.no_grad()
def test_every_layer_of_the_history_matters(name: str) -> None:
    model = make(name)
    voxels, incident = tensors(profile_showers(model.geometry, 50, 2))
    layer = model.geometry.n_layers - 1
    part = model.parts[-1]
    assert part.layers is not None
    first, last = part.layers
    given = window(model, layer + 1, voxels)
    expected = part.loss(given, incident, generator(1))
    starts = model.geometry.starts
    for changed in range(first, last):
        other = given.clone()
        other[:, starts[changed] - starts[first] : starts[changed + 1] - starts[first]] += 3.0
        assert not torch.allclose(part.loss(other, incident, generator(1)), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_drawn_layers_do_not_depend_on_later_flows_or_on_layers_beyond_the_history(name: str) -> None:
    model = make(name)
    incident = torch.full((40,), 300.0)
    before = model.sample(incident, generator(1))
    starts, count = model.geometry.starts, model.geometry.n_layers
    for layer in range(count):
        other = make(name)
        for parameter in other.layer_flows[layer].parameters():
            parameter += 0.3
        same = (other.sample(incident, generator(1)) == before).all(0)
        # its own layer changes, those before it do not, nor those that are not given it, directly or through others
        assert not same[starts[layer] : starts[layer + 1]].all()
        assert same[: starts[layer]].all()
        if model.history == 0:
            assert same[starts[layer + 1] :].all()
        elif layer + 1 < count:
            assert not same[starts[layer + 1] : starts[layer + 2]].all()


@torch.no_grad()
def test_the_condition_holds_voxels_without_noise_then_energies() -> None:
    model = make("images")
    voxels, incident = tensors(profile_showers(EQUAL, 30, 2))
    energies = EQUAL.layer_sums(voxels)
    size = EQUAL.sizes[0]
    context = model.layer_condition(3, voxels[:, size : 3 * size], energies[:, 3:], incident)
    assert context.shape == (30, layer_context(EQUAL, 3, 2)) == (30, 2 * size + 2)
    torch.testing.assert_close(context[:, -1:], model.condition(incident))
    own = (energies[:, 3].log() - model.log_energies.mean[3]) / model.log_energies.spread[3]
    torch.testing.assert_close(context[:, -2], own)
    # below the threshold there is nothing to see
    faint = torch.where(voxels > 0, voxels, 0.9 * THRESHOLD)
    again = model.layer_condition(3, faint[:, size : 3 * size], energies[:, 3:], incident)
    assert torch.equal(again, context)
    levels = (1 + voxels[:, size : 2 * size] / THRESHOLD).log()
    expected = (levels - model.seen.mean[1]) / model.seen.spread[1]
    torch.testing.assert_close(context[:, :size], expected)


# --- showers


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_samples_are_showers_with_the_energies_that_were_drawn(name: str) -> None:
    model = make(name)
    incident = torch.from_numpy(profile_showers(model.geometry, 300, 5).incident).float()
    voxels = model.sample(incident, generator(1))
    config = model.preprocessing.config
    cut = config.threshold or config.output_cut
    assert voxels.shape == (300, model.geometry.n_voxels)
    assert torch.isfinite(voxels).all()
    assert ((voxels == 0) | (voxels >= cut)).all()
    assert torch.equal(model.sample(incident, generator(1)), voxels)
    drawn, _ = model.energy_flow.sample(300, model.condition(incident), generator(1))
    wanted, _ = model.preprocessing.layer_energies(drawn, incident.unsqueeze(1))
    sums = model.geometry.layer_sums(voxels)
    filled = wanted >= config.threshold
    slack = cut * torch.tensor(model.geometry.sizes)
    assert ((sums - wanted).abs() <= slack + 1e-4 * wanted)[filled].all()
    assert (((sums - wanted).abs() <= 1e-4 * wanted + 0.01)[filled]).double().mean() > 0.4


@torch.no_grad()
def test_turned_showers_are_those_of_the_table_and_all_their_layers_turn_alike() -> None:
    geometry, config = MODELS["images"]
    model = make((geometry, replace(config, symmetric=True)))
    for layer in range(geometry.n_layers):
        before = model._first(layer)
        first, last = model.geometry.starts[before], model.geometry.starts[layer + 1]
        numbers = torch.arange(first, last).expand(200, -1)
        allowed = {tuple(row[first:last].tolist()) for row in model.symmetries}
        found = {tuple(row.tolist()) for row in model.turned(numbers, generator(1), before)}
        assert found == allowed
        assert len(found) == 8


@torch.no_grad()
def test_a_symmetric_model_trains_on_turned_showers(monkeypatch: pytest.MonkeyPatch) -> None:
    geometry, config = MODELS["images"]
    quiet(monkeypatch)
    model = make((geometry, replace(config, symmetric=True)))
    voxels, incident = tensors(profile_showers(geometry, 1, 2))
    found = model.parts[-1].loss(window(model, 4, voxels.expand(400, -1)), incident.expand(400), generator(1))
    model.symmetric = False
    turned = [window(model, 4, voxels[:, turn]) for turn in model.symmetries]
    expected = [model.parts[-1].loss(given, incident, generator(1)) for given in turned]
    assert isinstance(found, Tensor)
    gaps = (found.unsqueeze(1) - torch.cat(expected)).abs()  # type: ignore[arg-type]
    assert (gaps.amin(1) < 1e-3).all()
    assert len(set(gaps.argmin(1).tolist())) > 4


def test_refused_energies_are_counted_and_drawn_again(tmp_path: Path) -> None:
    geometry, config = MODELS["coupling"]
    free = make((geometry, config))
    incident = LAW.sample(400, np.random.default_rng(1))
    energies = torch.from_numpy(incident).float()
    ratio = torch.sort(free.sample(energies, generator(1)).sum(1) / energies).values
    veto = float(ratio[-3])
    model = make((geometry, replace(config, veto=veto)))
    drawn = model.sample(energies, generator(1))
    refused = torch.isnan(drawn).all(1)
    assert torch.equal(refused, torch.isnan(drawn).any(1))
    assert 1 <= int(refused.sum()) <= 10
    result = generate(model, 400, tmp_path / "new.h5", seed=3, incident=incident)
    assert result.showers == 400
    assert result.redrawn >= 1
    assert generate(free, 400, tmp_path / "free.h5", seed=3, incident=incident).redrawn == 0
    with pytest.raises(ModelError, match="too many showers"):
        generate(make((geometry, replace(config, veto=1e-3))), 400, tmp_path / "none.h5", incident=incident)


# --- the spectrum of the voxels


def test_a_finished_chain_has_the_voxel_spectrum_of_its_training() -> None:
    geometry, config = MODELS["coupling"]
    model = make((geometry, replace(config, spectrum=16)))
    data = profile_showers(geometry, 3000, 1)
    incident = torch.from_numpy(data.incident).float()
    before = model.sample(incident, generator(9))
    model.finish(MemorySource(data, "cpu"), generator(4))
    after = model.sample(incident, generator(9))
    assert torch.equal(before > 0, after > 0)
    assert (after[after > 0] >= THRESHOLD).all()
    wanted = torch.from_numpy(data.voxels[data.voxels > 0]).log()
    gaps = [
        float((voxels[voxels > 0].log().quantile(shares) - wanted.quantile(shares)).abs().mean())
        for shares in [torch.linspace(0.05, 0.95, 19)]
        for voxels in (before, after)
    ]
    assert gaps[1] < 0.5 * gaps[0]
    other = build_model(replace(config, spectrum=16), geometry).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.sample(incident, generator(9)), after)
    plain = make((geometry, config))
    plain.finish(MemorySource(data, "cpu"), generator(4))
    assert torch.equal(plain.sample(incident, generator(9)), before)


# --- published sizes, and what they are made of


def numbers(modules: list[Flow]) -> list[int]:
    return [sum(p.numel() for p in module.parameters()) for module in modules]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers_of_parameters_are_met_within_two_per_cent(name: str) -> None:
    """Layers beyond the history are alike: six flows and that of the energies give the number."""
    geometry = registered(PRESETS[name].geometry or "")
    config = preset(name, geometry)
    with torch.device("meta"):
        flows = [layer_flow(geometry, i, config.history, config.flows[1], generator(1)) for i in range(6)]
        energies = build_flow(geometry.n_layers, config.plain_flows[0], 1, generator(1))
    *first, last = numbers(flows)
    total = sum(first) + last * (geometry.n_layers - 5) + numbers([energies])[0]
    assert total / 1e6 == pytest.approx(PUBLISHED[name], rel=0.02)


def test_the_whole_published_chain_is_what_its_flows_add_up_to() -> None:
    with torch.device("meta"):
        model = build_model("l2lflows-ds3", registered("ds3"))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(PUBLISHED["l2lflows-ds3"], rel=0.02)
    assert len(model.parts) == 46


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_layer_learns_and_is_inverted_in_single_precision(name: str) -> None:
    """One flow with a full history, at its size: forward, back, a step of the optimizer, forward again."""
    geometry = registered(PRESETS[name].geometry or "")
    config = preset(name, geometry)
    flow = layer_flow(geometry, 5, config.history, config.flows[1], generator(1))
    x = torch.randn(2, geometry.sizes[5], generator=generator(2))
    context = torch.randn(2, flow.context_dim, generator=generator(3))
    optimizer = torch.optim.AdamW(flow.parameters(), lr=config.recipes[1].learning_rate)
    flow.train()
    loss = -flow.log_prob(x, context).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert math.isfinite(float(loss.detach()))
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in flow.parameters())
    assert any(p.grad is not None and bool((p.grad != 0).any()) for p in flow.parameters())
    flow.eval()
    with torch.no_grad():
        z, _ = flow.to_latent(x, context)
        assert torch.isfinite(z).all()
        torch.testing.assert_close(flow.from_latent(z, context)[0], x, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_first_layers_of_a_published_chain_learn_from_showers(name: str) -> None:
    """With the noise and the coordinates of the paper, in single precision; energies from keV to GeV, and gaps."""
    geometry = registered(PRESETS[name].geometry or "").window(0, 2)
    model = build_model(name, geometry)
    rng = np.random.default_rng(1)
    incident = geometry.incident.sample(60, rng).astype(np.float32)
    voxels = np.exp(rng.normal(-1.0, 2.5, (60, geometry.n_voxels))).astype(np.float32)
    voxels[voxels < geometry.threshold] = 0.0
    voxels[0, : geometry.sizes[0]] = 0.0  # a layer without energy
    data = Showers(incident, voxels)
    model.prepare(data, generator(1))
    few, energies = tensors(data[:2])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    assert isinstance(model, ChainModel)
    model.train()
    for _ in range(2):
        total = torch.stack(losses(model, few, energies)).mean()
        assert math.isfinite(float(total.detach()))
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)
        optimizer.step()
    if isinstance(preset(name, geometry).flows[1], ConvCouplingConfig):
        new = model.eval().sample(energies, generator(2))
        assert new.shape == few.shape
        assert bool(((new == 0) | (new >= geometry.threshold)).all())


# --- names, and what is refused


def test_layers_with_different_cells_cannot_be_images() -> None:
    config = replace(MODELS["coupling"][1], flows=(COUPLING, IMAGES))
    with pytest.raises(ModelError, match=r"unequal are no grids with equal numbers of cells.*small-l2lflows"):
        build_model(config, UNEQUAL)
    with pytest.raises(ModelError, match="no grids with equal numbers of cells"):
        build_model("small-convl2l", registered("ds1-photons"))


def test_images_that_cannot_be_squeezed_are_refused() -> None:
    config = replace(MODELS["images"][1], flows=(COUPLING, replace(IMAGES, squeeze=(3, 1))))
    with pytest.raises(ConfigError, match="cannot be squeezed"):
        build_model(config, EQUAL)


def test_a_layer_needs_a_flow_with_a_density() -> None:
    with pytest.raises(ModelError, match="got VelocityConfig"):
        layer_flow(EQUAL, 1, 1, VelocityConfig(), generator(1))
    with pytest.raises(ConfigError, match="a chain model cannot be made of VelocityConfig"):
        replace(MODELS["coupling"][1], flows=(COUPLING, VelocityConfig()))


def test_flows_that_do_not_fit_are_named() -> None:
    flows = [build_flow(3, COUPLING, 1, generator(1)), *(build_flow(8, COUPLING, 2, generator(1)) for _ in range(3))]
    with pytest.raises(ModelError, match=r"a chain of unequal needs flows .*\(8, 2\), \(2, 10\)"):
        ChainModel(UNEQUAL, CLEAR, flows, (RECIPE, RECIPE), history=1)


def test_an_embedding_keeps_the_numbers() -> None:
    embedding = HistoryEmbedding(4, 2, NetConfig(hidden=6, layers=2), generator(1))
    context = torch.randn(5, 6, generator=generator(2))
    result = embedding(context)
    assert result.shape == (5, embedding.d_out) == (5, 8)
    assert torch.equal(result[:, 6:], context[:, 4:])


@pytest.mark.parametrize("name", ["small-convl2l", "small-l2lflows"])
def test_small_presets_fit_geometries_without_a_name(name: str) -> None:
    for known in ("toy", "ds2-reduced", *(("ds1-photons", "calogan") if name == "small-l2lflows" else ())):
        config = preset(name, registered(known))
        assert config.family == "chain"
        assert config.symmetric == (known != "calogan")
        assert ModelConfig.from_dict(config.to_dict()) == config
        model = build_model(name, registered(known))
        assert sum(p.numel() for p in model.parameters()) < 5e6
