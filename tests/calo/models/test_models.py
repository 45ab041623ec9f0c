"""Shower models: a density of showers in MeV, showers above the threshold, symmetries, and a training that helps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import disturb, generator, learn, profile_showers, tensors
from torch import Tensor

from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometries import geometry as registered
from nisampler.calo.detector.geometry import Geometry, IncidentEnergy, Layer
from nisampler.calo.generation import ShowerGenerator
from nisampler.calo.models import FlowConfig, ModelConfig, ShowerModel, build_model
from nisampler.calo.models.base import OneStepModel, TwoStepModel, symmetry_table, voxel_context
from nisampler.calo.models.build import build_flow
from nisampler.calo.preprocessing.preprocessing import PreprocessingConfig
from nisampler.calo.preprocessing.transforms import LayerScale
from nisampler.calo.recipe import Recipe
from nisampler.errors import ModelError, ShapeError
from nisampler.flows import NetConfig, Spline, use_map

THRESHOLD = 0.5
ENERGY = 250.0  # of showers of two voxels
LAW = IncidentEnergy("log-uniform", (1e2, 1e3))
GEOMETRY = Geometry(
    "small", "electron", 11, (Layer.polar(0, 4, (0, 1, 2)), Layer.polar(1, 2, (0, 1)), Layer.polar(4, 1, (0, 1, 2))),
    THRESHOLD, LAW,
)  # fmt: skip
PAIR = Geometry("pair", "electron", 11, (Layer.polar(0, 1, (0, 1, 2)),), THRESHOLD, LAW)
SPLINE = Spline(bins=5, domain="line", bound=4.0)
COUPLING = FlowConfig("coupling", 4, NetConfig(hidden=16, layers=2), SPLINE)
MAF = FlowConfig("maf", 3, NetConfig(hidden=24, layers=2), SPLINE, "alternate")
BAYESIAN = FlowConfig("coupling", 4, NetConfig("bayesian", hidden=16, layers=2), SPLINE, actnorm=True)
RECIPE = Recipe(2, 100, 1e-3)
CLEAR = PreprocessingConfig(
    threshold=THRESHOLD, noise="below-threshold", width=1.0, voxels="log", energies="log-sticks", scale=0.8, levels=4
)
NOISY = PreprocessingConfig(noise="uniform", width=1e-3, largest_ratio=2.0, output_cut=0.01)
RELATIVE = PreprocessingConfig(noise="relative", width=5e-6, voxels="shifted-log", alpha=1e-8, output_cut=0.01)
# two voxels, where the density can be integrated: no noise to speak of, and the line without ends
PLAIN = PreprocessingConfig(width=1e-3, voxels="shifted-log", alpha=1e-8, energies="log-sticks", scale=0.5)


def one_step(preprocessing: PreprocessingConfig, flow: FlowConfig = COUPLING, symmetric: bool = False) -> ModelConfig:
    return ModelConfig("one-step", preprocessing, (flow,), (RECIPE,), symmetric)


def two_step(preprocessing: PreprocessingConfig, flow: FlowConfig = COUPLING, symmetric: bool = False) -> ModelConfig:
    return ModelConfig("two-step", preprocessing, (COUPLING, flow), (RECIPE, RECIPE), symmetric)


def student(preprocessing: PreprocessingConfig) -> ModelConfig:
    return ModelConfig("student", preprocessing, (COUPLING, MAF, MAF), (RECIPE,) * 3)


MODELS = {
    "one-step": one_step(CLEAR, symmetric=True),
    "one-step-relative": one_step(RELATIVE),
    "bayesian": one_step(CLEAR, BAYESIAN, symmetric=True),
    "two-step": two_step(CLEAR, symmetric=True),
    "two-step-noisy": two_step(NOISY),
    "teacher": two_step(CLEAR, MAF),
    "student": student(CLEAR),
}
PARTS = {"one-step": ["showers"], "two-step": ["energies", "voxels"], "student": ["energies", "voxels", "student"]}


def showers(n: int, seed: int) -> Showers:
    return profile_showers(GEOMETRY, n, seed)


def make(name: str | ModelConfig) -> ShowerModel:
    """A model whose constants are prepared; its flows are the identity plus noise."""
    model = build_model(MODELS[name] if isinstance(name, str) else name, GEOMETRY)
    model.prepare(showers(600, 1), generator(2))
    disturb(model, 0.05)
    return model.eval()


def two_voxels(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Showers of a known law, their incident energies, and their exact log-density in 1/MeV²."""
    source = generator(seed)
    logs, odds = (torch.randn(n, generator=source) for _ in range(2))
    total, share = torch.exp(5 + 0.2 * logs), torch.sigmoid(1 + odds)
    voxels = torch.stack([total * share, total * (1 - share)], dim=1)
    normal = -0.5 * (logs**2 + odds**2) - math.log(2 * math.pi * 0.2)
    return voxels, torch.full((n,), ENERGY), normal - (total * share * (1 - share)).log() - total.log()


def make_pair(config: ModelConfig) -> ShowerModel:
    """The same for two voxels, in double precision."""
    voxels, incident, _ = two_voxels(4000, 1)
    model = build_model(config, PAIR)
    model.prepare(Showers(incident.numpy(), voxels.numpy()), generator(2))
    disturb(model, 0.15)
    return model.double().eval()


# --- the density of showers, in two dimensions


def log_density(model: ShowerModel, points: Tensor) -> Tensor:
    """log p(v1, v2, s) of a pair of voxels and its auxiliary scale."""
    incident = torch.full((len(points),), ENERGY, dtype=points.dtype)
    y, log_det = model.preprocessing(points, incident.unsqueeze(1))
    return model._log_prob(y, incident) + log_det


def drawn(model: ShowerModel, n: int) -> Tensor:
    incident = torch.full((n,), ENERGY, dtype=torch.float64)
    return model.preprocessing.inverse(model._sample(incident, generator(5)), incident.unsqueeze(1))[0]


def total_probability(model: ShowerModel, cells: int = 64) -> float:
    """The density of (v1, v2, s), summed over a grid in log(v1 + v2), log(v1 / v2) and log s."""
    points = drawn(model, 20_000)
    place = torch.stack([points[:, :2].sum(1), points[:, 0] / points[:, 1], points[:, 2]], dim=1).log()
    low, high = place.mean(0) - 7 * place.std(0), place.mean(0) + 7 * place.std(0)
    steps = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    sums, ratios, scales = torch.cartesian_prod(*(low[k] + (high - low)[k] * steps for k in range(3))).unbind(1)
    share = torch.sigmoid(ratios)
    grid = torch.stack([sums.exp() * share, sums.exp() * (1 - share), scales.exp()], dim=1)
    # dv1 dv2 ds = v1 v2 s d(log sum) d(log ratio) d(log s)
    return float((log_density(model, grid) + grid.log().sum(1)).exp().sum() * ((high - low) / cells).prod())


TWO_VOXELS: dict[str, Callable[[PreprocessingConfig], ModelConfig]] = {"one-step": one_step, "two-step": two_step}


@pytest.mark.parametrize("family", TWO_VOXELS)
@pytest.mark.parametrize("preprocessing", [CLEAR, PLAIN], ids=["clear", "plain"])
@torch.no_grad()
def test_the_density_of_two_voxels_and_their_scale_integrates_to_one(
    family: str, preprocessing: PreprocessingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_pair(TWO_VOXELS[family](preprocessing))
    assert total_probability(model) == pytest.approx(1.0, abs=0.02)
    # the control: without the log-determinant of the layer scale it does not
    monkeypatch.setattr(LayerScale, "_log_det", lambda self, scales, energies: torch.zeros(len(scales)))
    assert abs(total_probability(model) - 1.0) > 0.5


@pytest.mark.parametrize("family", TWO_VOXELS)
@pytest.mark.parametrize("preprocessing", [CLEAR, PLAIN], ids=["clear", "plain"])
@torch.no_grad()
def test_the_nll_of_two_voxels_is_how_often_samples_fall_into_a_cell(
    family: str, preprocessing: PreprocessingConfig
) -> None:
    """exp(log_prob), averaged over a cell and times its area in MeV², against a histogram of the model's own draws."""
    model = make_pair(TWO_VOXELS[family](preprocessing))
    n = 100_000
    points = drawn(model, n)
    # showers carry scales between `scale` and one; the flow knows that only after its training
    points = points[(points[:, 2] >= preprocessing.scale) & (points[:, 2] <= 1)][:, :2]
    low, high = (torch.quantile(points[points[:, 1] >= THRESHOLD], share, dim=0) for share in (0.4, 0.75))
    low = low.clamp_min(THRESHOLD)
    share = float(((points >= low) & (points < high)).all(1).sum()) / n
    inside = low + (high - low) * torch.rand(20_000, 2, generator=generator(6), dtype=torch.float64)
    log_prob = model.log_prob(inside, torch.full((20_000,), ENERGY, dtype=torch.float64), generator(7))
    expected = float(log_prob.exp().mean() * (high - low).prod())
    error = math.hypot(math.sqrt(share / n), float((high - low).prod() * log_prob.exp().std()) / math.sqrt(20_000))
    assert share > 0.005
    assert abs(share - expected) < 4 * error
    # the control: the density per unit of voxels relative to their layer would be another number
    relative = log_prob + inside.sum(1).log()
    assert abs(share - float(relative.exp().mean() * (high - low).prod())) > 20 * error


@pytest.mark.parametrize("family", TWO_VOXELS)
def test_a_trained_model_has_the_nll_of_a_known_law(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(TWO_VOXELS[family](PLAIN), PAIR)
    voxels, incident, _ = two_voxels(20_000, 1)
    model.prepare(Showers(incident.numpy(), voxels.numpy()), generator(2))
    for part in model.parts:
        learn(part, voxels, incident, 300)
    voxels, incident, exact = two_voxels(4000, 77)
    with torch.no_grad():
        nll = -float(model.log_prob(voxels, incident, generator(5), draws=16).mean())
        truth = -float(exact.mean())
        # the relative entropy of a good model: not below zero, and small
        assert -0.01 < nll - truth < 0.1
        monkeypatch.setattr(LayerScale, "_log_det", lambda self, scales, energies: torch.zeros(len(scales)))
        careless = -float(model.log_prob(voxels, incident, generator(5)).mean())
        assert abs(careless - truth) > 1


# --- what every model does


@pytest.mark.parametrize("name", MODELS)
def test_parts_have_names_weights_recipes_and_a_loss_per_shower(name: str) -> None:
    model = make(name)
    voxels, incident = tensors(showers(9, 2))
    assert [part.name for part in model.parts] == PARTS[MODELS[name].family]
    for part in model.parts:
        assert part.recipe == RECIPE
        part.begin()
        loss = part.loss(voxels, incident, generator(1))
        if part.name == "student":
            assert isinstance(loss, dict)
            continue
        assert isinstance(loss, Tensor)
        assert loss.shape == (9,)
        assert torch.isfinite(loss).all()
        loss.sum().backward()
        assert any(p.grad is not None and bool((p.grad != 0).any()) for p in part.module.parameters())
    weights = {id(p) for part in model.parts for p in part.module.parameters()}
    assert weights == {id(p) for p in model.parameters()}


@pytest.mark.parametrize("name", ["one-step", "two-step", "two-step-noisy", "teacher"])
def test_the_losses_of_the_parts_add_up_to_the_nll(name: str) -> None:
    model = make(replace(MODELS[name], symmetric=False))
    voxels, incident = tensors(showers(20, 2))
    losses = [part.loss(voxels, incident, generator(1)) for part in model.parts]
    total = torch.stack([loss for loss in losses if isinstance(loss, Tensor)]).sum(0)
    torch.testing.assert_close(-model.log_prob(voxels, incident, generator(1)), total, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_samples_are_showers(name: str) -> None:
    model = make(name)
    incident = torch.from_numpy(showers(200, 5).incident).float()
    voxels = model.sample(incident, generator(1))
    cut = MODELS[name].preprocessing.threshold or MODELS[name].preprocessing.output_cut
    assert voxels.shape == (200, GEOMETRY.n_voxels)
    assert torch.isfinite(voxels).all()
    assert ((voxels == 0) | (voxels >= cut)).all()
    assert (voxels > 0).any(0).all()
    ratio = voxels.sum(1) / incident
    assert 0.4 < ratio.median() < 1.0  # 0.7 in the showers that prepared the model


@pytest.mark.parametrize("name", ["one-step", "two-step", "one-step-relative"])
def test_layers_have_the_energies_of_their_coordinates(name: str) -> None:
    model = make(name)
    incident = torch.from_numpy(showers(300, 5).incident).float()
    with torch.inference_mode():
        y = model._sample(incident, generator(1))[:, GEOMETRY.n_voxels :]
        wanted, _ = model.preprocessing.layer_energies(y, incident.unsqueeze(1))
    sums = GEOMETRY.layer_sums(model.sample(incident, generator(1)))
    config = MODELS[name].preprocessing
    # voxels that are cut, or raised to the threshold, are each a threshold wrong at most
    slack = (config.threshold or config.output_cut) * torch.tensor(GEOMETRY.sizes)
    filled = wanted >= config.threshold
    assert ((sums - wanted).abs() <= slack + 1e-4 * wanted)[filled].all()
    assert (((sums - wanted).abs() <= 1e-4 * wanted)[filled]).double().mean() > 0.4
    assert (sums[~filled] == 0).all()


@pytest.mark.parametrize("name", MODELS)
def test_a_seed_gives_its_showers_and_leaves_the_global_state_alone(name: str) -> None:
    model, incident = make(name), torch.full((20,), 300.0)
    state = torch.random.get_rng_state()
    first, second, other = (model.sample(incident, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", ["one-step", "two-step", "two-step-noisy", "one-step-relative"])
@torch.no_grad()
def test_more_draws_average_the_density_which_tightens_the_bound(name: str) -> None:
    model = make(name)
    voxels, incident = tensors(showers(400, 6))
    source = generator(8)
    single = torch.stack([model.log_prob(voxels, incident, source) for _ in range(8)])
    together = model.log_prob(voxels, incident, generator(8), draws=8)
    assert torch.isfinite(single).all()
    torch.testing.assert_close(together.double(), single.double().logsumexp(0) - math.log(8), rtol=1e-5, atol=1e-4)
    gain = together - single.mean(0)
    assert (gain > -1e-3).all()
    assert gain.median() > 0.1


@pytest.mark.parametrize("name", MODELS)
def test_the_state_restores_the_model(name: str) -> None:
    model, other = make(name), build_model(MODELS[name], GEOMETRY, seed=9).eval()
    voxels, incident = tensors(showers(10, 6))
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        expected = model.log_prob(voxels, incident, generator(1))
        assert torch.equal(other.log_prob(voxels, incident, generator(1)), expected)


@pytest.mark.parametrize("name", ["one-step", "two-step", "bayesian"])
def test_a_short_training_lowers_the_nll_below_that_of_another_law(name: str) -> None:
    data = showers(4000, 10)
    model = build_model(MODELS[name], GEOMETRY)
    model.prepare(data, generator(2))
    model.training_size = len(data)
    fresh = tensors(showers(1000, 11))
    shuffled = fresh[0][:, torch.randperm(GEOMETRY.n_voxels, generator=generator(1))], fresh[1]
    with torch.no_grad():
        start = -model.eval().log_prob(*fresh, generator(3)).mean()
    for part in model.parts:
        learn(part, *tensors(data), steps=150)
    with torch.no_grad():
        end, control = (-model.log_prob(*points, generator(3)).mean() for points in (fresh, shuffled))
    assert end < start - 0.5
    assert end < control - 0.5


# --- symmetries


def test_the_symmetries_are_a_group_with_the_identity_first() -> None:
    table = symmetry_table(GEOMETRY)
    rows = {tuple(row) for row in table}
    assert len(rows) == len(table) == 4  # two turns common to four and two bins, each mirrored
    assert tuple(table[0]) == tuple(range(GEOMETRY.n_voxels))
    assert {tuple(first[second]) for first in table for second in table} == rows
    assert {tuple(np.argsort(row)) for row in table} == rows


def test_a_layer_of_eight_bins_turns_and_mirrors() -> None:
    assert symmetry_table(registered("toy")).shape == (16, 240)
    assert symmetry_table(registered("ds1-photons")).shape == (20, 368)


def test_symmetries_keep_layers_radii_and_distances() -> None:
    for name in ("toy", "ds1-photons"):
        known = registered(name)
        places = np.stack([np.concatenate(axis) for axis in zip(*(la.centres() for la in known.layers), strict=True)])
        radii = np.concatenate([layer.radii() for layer in known.layers])
        for row in symmetry_table(known):
            np.testing.assert_array_equal(known.layer_of_voxel[row], known.layer_of_voxel)
            np.testing.assert_array_equal(radii[row], radii)
            # the cells of all layers that have bins of the angle move by one rotation or reflection of the plane
            angular = np.concatenate([np.full(la.n_voxels, la.shape[0] > 1) for la in known.layers])
            before, after = places[:, angular], places[:, row[angular]]
            np.testing.assert_allclose(before.T @ before, after.T @ after, atol=1e-8 * radii.max() ** 2)


def test_without_bins_of_the_angle_only_the_identity_is_left() -> None:
    flat = Layer(1, "rectangular", (0, 1, 2), (0, 1, 2))
    for layers in ((flat,), (Layer.polar(0, 4, (0, 1)), flat), (Layer.polar(0, 1, (0, 1, 2)),)):
        known = Geometry("other", "photon", 22, layers, 0.0, LAW)
        np.testing.assert_array_equal(symmetry_table(known), np.arange(known.n_voxels)[None])


def test_training_showers_are_turned_all_the_ways_and_keep_their_layers() -> None:
    model = make("one-step")
    voxels = torch.arange(1.0, GEOMETRY.n_voxels + 1).repeat(400, 1) + THRESHOLD
    incident = torch.full((400,), 300.0)
    y, log_det = model.coordinates(voxels, incident, generator(1), turned=True)
    x, _ = model.preprocessing.inverse(y, incident.unsqueeze(1))
    seen = x[:, : GEOMETRY.n_voxels].round(decimals=1).unique(dim=0) - THRESHOLD - 1
    assert {tuple(row) for row in seen.long().tolist()} == {tuple(row) for row in symmetry_table(GEOMETRY).tolist()}
    assert log_det.shape == (400,)
    sums = GEOMETRY.layer_sums(x[:, : GEOMETRY.n_voxels])
    torch.testing.assert_close(sums, GEOMETRY.layer_sums(voxels), rtol=1e-4, atol=0)
    y, _ = model.coordinates(voxels, incident, generator(1))
    x, _ = model.preprocessing.inverse(y, incident.unsqueeze(1))
    torch.testing.assert_close(x[:, : GEOMETRY.n_voxels], voxels, rtol=1e-3, atol=0)


def test_a_symmetric_model_pools_the_marginals_of_equal_voxels() -> None:
    marginals = make("one-step").preprocessing.cells.marginals
    alone = make(one_step(CLEAR)).preprocessing.cells.marginals
    assert marginals is not None
    assert alone is not None
    # alpha is the slow axis: every other voxel of the first layer has the same radius
    assert torch.equal(marginals.quantiles[:, 0], marginals.quantiles[:, 6])
    assert not torch.equal(marginals.quantiles[:, 0], marginals.quantiles[:, 1])
    assert not torch.equal(alone.quantiles[:, 0], alone.quantiles[:, 6])


# --- random numbers of a seed


def weights(preset: str, seed: int) -> Tensor:
    return torch.cat([p.detach().ravel() for p in build_model(preset, registered("toy"), seed).parameters()])


@pytest.mark.parametrize("preset", ["small-student", "small-icaloflow-student"])
def test_initial_weights_belong_to_the_seed(preset: str) -> None:
    assert torch.equal(weights(preset, 1), weights(preset, 1))
    assert not torch.equal(weights(preset, 1), weights(preset, 2))
    first, second = (build_model(preset, registered("toy"), seed).parts[-1] for seed in (1, 2))
    for part in (first, second):
        part.begin()
    pairs = zip(first.module.parameters(), second.module.parameters(), strict=True)
    assert not all(torch.equal(one, other) for one, other in pairs), "a student begins anew from its own seed"


def test_models_of_one_seed_do_not_share_layer_energies() -> None:
    """Nor any other draw: the energies of two models are independent at the same incident energies."""
    toy, found = registered("toy"), {}
    data = profile_showers(toy, 500, 3)
    for preset in ("small", "small-icaloflow", "small-teacher"):
        model = build_model(preset, toy)
        model.prepare(data, generator(2))
        made = ShowerGenerator(model.eval(), seed=1, limit=0)
        incident = made.incident(300, 0)
        found[preset] = np.log(made.draw(incident, 0).voxels.sum(axis=1) / incident)
        again = ShowerGenerator(model, seed=1, limit=0).draw(incident, 0)
        assert np.array_equal(np.log(again.voxels.sum(axis=1) / incident), found[preset])
    correlations = np.corrcoef(list(found.values()))[np.triu_indices(3, 1)]
    assert np.abs(correlations).max() < 0.25, correlations


# --- weights with a posterior


def test_draws_from_the_posterior_differ_and_the_means_come_back() -> None:
    model = make("bayesian")
    incident = torch.full((10,), 300.0)
    assert model.is_bayesian
    means = model.sample(incident, generator(1))
    draws = []
    for seed in (1, 2, 1):
        model.draw_posterior(generator(seed))
        draws.append(model.sample(incident, generator(1)))
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], means)
    use_map(model)
    assert torch.equal(model.sample(incident, generator(1)), means)


def test_the_divergence_of_the_weights_is_shared_among_the_training_showers() -> None:
    model = make("bayesian")
    voxels, incident = tensors(showers(300, 3))
    (part,) = model.parts
    part.module.train()
    losses = []
    for size in (10, 1_000_000):
        model.training_size = size
        loss = part.loss(voxels, incident, generator(1))
        assert isinstance(loss, Tensor)
        losses.append(loss)
    difference = losses[0] - losses[1]
    assert (difference > 0).all()
    torch.testing.assert_close(difference, difference[:1].expand(300), rtol=1e-3, atol=1e-2)


def test_a_model_without_posterior_has_no_draws() -> None:
    model = make("two-step")
    assert not model.is_bayesian
    with pytest.raises(ModelError, match="choose a Bayesian preset"):
        model.draw_posterior(generator(1))


# --- errors


@pytest.mark.parametrize(
    ("dims", "contexts", "part"),
    [((4, 12), (1, 7), "energies"), ((3, 11), (1, 7), "voxels"), ((3, 12), (2, 7), "energies"),
     ((3, 12), (1, 6), "voxels")],
)  # fmt: skip
def test_flows_of_other_dimensions_are_refused(dims: tuple[int, int], contexts: tuple[int, int], part: str) -> None:
    assert voxel_context(GEOMETRY) == 7
    flows = [build_flow(dim, COUPLING, context, generator(1)) for dim, context in zip(dims, contexts, strict=True)]
    with pytest.raises(ModelError, match=f"the flow of the {part} of small needs"):
        TwoStepModel(GEOMETRY, CLEAR, flows[0], flows[1], (RECIPE, RECIPE))


@pytest.mark.parametrize(("dim", "context"), [(14, 1), (15, 2)])
def test_a_flow_of_another_dimension_is_refused(dim: int, context: int) -> None:
    with pytest.raises(ModelError, match="a flow of small needs 15 coordinates and a context of 1"):
        OneStepModel(GEOMETRY, CLEAR, build_flow(dim, COUPLING, context, generator(1)), RECIPE)


@pytest.mark.parametrize("name", ["one-step", "two-step"])
def test_energies_and_voxels_of_another_shape_are_refused(name: str) -> None:
    model, (voxels, incident) = make(name), tensors(showers(5, 1))
    with pytest.raises(ShapeError, match=r"shape \(n,\)"):
        model.sample(incident.unsqueeze(1), generator(1))
    with pytest.raises(ShapeError, match=r"shape \(n,\)"):
        model.log_prob(voxels, incident.unsqueeze(1), generator(1))
    with pytest.raises(ShapeError, match="small has showers of shape"):
        model.log_prob(voxels[:, 1:], incident, generator(1))
    with pytest.raises(ShapeError):
        model.log_prob(voxels, incident[1:], generator(1))
