"""iCaloFlow: exact densities layer by layer, what each flow sees, students, published sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from small_models import generator
from torch import Tensor

from nisampler.calo.data.batches import MemorySource, ShowerData
from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometries import geometry as registered
from nisampler.calo.detector.geometry import Geometry, IncidentEnergy, Layer
from nisampler.calo.fitting.records import PartResult
from nisampler.calo.fitting.training import fit_part
from nisampler.calo.models import FlowConfig, ModelConfig, build_model
from nisampler.calo.models.base import symmetry_table
from nisampler.calo.models.flows import build_flow
from nisampler.calo.models.inductive import InductiveModel, InductiveStudentModel, next_context
from nisampler.calo.models.presets.catalogue import preset
from nisampler.calo.preprocessing.preprocessing import PreprocessingConfig, VoxelPreprocessing
from nisampler.calo.recipe import FitOptions, Recipe
from nisampler.errors import ModelError, ShapeError
from nisampler.flows import NetConfig, Spline

THRESHOLD = 0.5
LAW = IncidentEnergy("log-uniform", (1e2, 1e3))


def layers(count: int, n_alpha: int = 3) -> Geometry:
    return Geometry(
        "equal", "electron", 11, tuple(Layer.polar(n, n_alpha, (0, 1, 2)) for n in range(count)), THRESHOLD, LAW
    )


GEOMETRY = layers(4)
SIZE = GEOMETRY.sizes[0]
SPLINE = Spline(bins=5, domain="line", bound=5.0)
COUPLING = FlowConfig("coupling", 4, NetConfig(hidden=16, layers=2), SPLINE)
MAF = FlowConfig("maf", 2, NetConfig(hidden=32, layers=1), SPLINE, "alternate")
CLEAR = PreprocessingConfig(
    threshold=THRESHOLD, noise="below-threshold", width=1.0, voxels="log", energies="log-sticks", levels=4
)
NOISY = PreprocessingConfig(noise="uniform", width=1e-3, largest_ratio=2.0, output_cut=0.01)
TERMS = ("z", "x", "z_steps", "x_steps", "z_parameters", "x_parameters")
RECIPES = (Recipe(2, 100, 5e-3), Recipe(3, 100, 5e-3), Recipe(3, 100, 5e-3))


def config(preprocessing: PreprocessingConfig = CLEAR, student: bool = False, symmetric: bool = False) -> ModelConfig:
    if not student:
        return ModelConfig("inductive", preprocessing, (COUPLING, MAF, MAF), RECIPES, symmetric)
    other = replace(MAF, net=NetConfig(hidden=48, layers=1))
    recipes = (*RECIPES, Recipe(8, 100, 7e-3), Recipe(8, 100, 7e-3))
    return ModelConfig("inductive-student", preprocessing, (COUPLING, MAF, MAF, other, other), recipes, symmetric)


def showers(n: int, seed: int, geometry: Geometry = GEOMETRY) -> Showers:
    """About 0.7 of the incident energy, shared at random; a voxel is like those before it, many are empty."""
    rng = np.random.default_rng(seed)
    incident = LAW.sample(n, rng)
    steps = rng.standard_normal((n, geometry.n_layers, geometry.sizes[0]))
    shares = np.exp(1.2 * steps.cumsum(1) - 1.5 * np.arange(geometry.sizes[0])).reshape(n, -1)
    total = 0.7 * incident * np.exp(0.1 * rng.standard_normal(n))
    voxels = total[:, None] * shares / shares.sum(1, keepdims=True)
    return Showers(incident, np.where(voxels < THRESHOLD, 0.0, voxels))


def batch(n: int, seed: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    data = showers(n, seed)
    return torch.from_numpy(data.voxels).to(dtype), torch.from_numpy(data.incident).to(dtype)


def fresh(settings: ModelConfig, weights: float = 0.0) -> InductiveModel:
    """A prepared model; with `weights` its flows are far from the identity."""
    model = build_model(settings, GEOMETRY)
    assert isinstance(model, InductiveModel)
    model.prepare(showers(2000, 1), generator(1))
    with torch.no_grad():
        for parameter in model.parameters() if weights else ():
            parameter.add_(weights * torch.randn(parameter.shape, generator=generator(2)))
    return model.eval()


def latent(model: InductiveModel, augmented: Tensor, incident: Tensor) -> Tensor:
    """Where showers with noise and scales (n, V + L) go in the latent spaces of all three flows, (n, V + L)."""
    voxels, scales = augmented[:, : GEOMETRY.n_voxels], augmented[:, GEOMETRY.n_voxels :]
    clean = torch.where(voxels < THRESHOLD, torch.zeros_like(voxels), voxels)
    energies = model.preprocessing.cells.scale.layer_energies(augmented)
    coordinates, _ = model.preprocessing.energy_coordinates(energies, incident.unsqueeze(1))
    first, given, _ = model._first_rows(torch.cat([voxels[:, :SIZE], scales[:, :1]], dim=1), incident)
    further, before, _ = model._next_rows(augmented, clean, incident)
    return torch.cat(
        [
            model.energy_flow.to_latent(coordinates, model.condition(incident))[0],
            model.first_flow.to_latent(first, given)[0],
            model.next_flow.to_latent(further, before)[0].reshape(len(incident), -1),
        ],
        dim=1,
    )


@pytest.mark.parametrize("preprocessing", [CLEAR, NOISY])
def test_the_log_likelihood_is_the_sum_of_the_losses_of_the_parts(
    monkeypatch: pytest.MonkeyPatch, preprocessing: PreprocessingConfig
) -> None:
    model = fresh(config(preprocessing), 0.1).double()
    voxels, incident = batch(40, 3, torch.float64)
    noise = model.preprocessing.cells.augment(voxels, generator(4))

    def same(cells: VoxelPreprocessing, given: Tensor, _: torch.Generator) -> Tensor:
        """The noise of the first layers."""
        scales = noise[:, GEOMETRY.n_voxels : GEOMETRY.n_voxels + cells.geometry.n_layers]
        return torch.cat([noise[:, : given.shape[1]], scales], dim=1)

    monkeypatch.setattr(VoxelPreprocessing, "augment", same)
    total = torch.zeros(40, dtype=torch.float64)
    for part in model.parts:
        given = voxels if part.layers is None else voxels[:, : GEOMETRY.starts[part.layers[1]]]
        loss = part.loss(given, incident, generator(5))
        assert isinstance(loss, Tensor)
        assert loss.shape == (40,)
        total = total - loss
    torch.testing.assert_close(model.log_prob(voxels, incident, generator(6)), total)


def test_the_density_has_the_jacobian_of_the_way_to_the_latent_spaces() -> None:
    model = fresh(config(), 0.1).double()
    voxels, incident = batch(3, 3, torch.float64)
    augmented = model.preprocessing.cells.augment(voxels, generator(4))
    found = model.log_prob(voxels, incident, generator(4))
    for shower in range(3):
        one = incident[shower : shower + 1]

        def way(x: Tensor, one: Tensor = one) -> Tensor:
            return latent(model, x.unsqueeze(0), one).squeeze(0)

        z, jacobian = way(augmented[shower]), torch.autograd.functional.jacobian(way, augmented[shower])  # type: ignore[no-untyped-call]
        expected = -0.5 * (z.square() + math.log(2 * math.pi)).sum() + torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(found[shower], expected - model.preprocessing.cells.log_scale_density)


def test_the_last_flow_sees_its_layer_and_the_one_before_alone() -> None:
    model = fresh(config(), 0.1)
    voxels, incident = batch(30, 3)

    def terms(given: Tensor) -> Tensor:
        augmented = model.preprocessing.cells.augment(given, generator(4))
        y, condition, _ = model._next_rows(augmented, given, incident)
        return model.next_flow.log_prob(y, condition).reshape(len(given), -1)

    usual = terms(voxels)
    for layer in range(GEOMETRY.n_layers):
        other = voxels.clone()
        other[:, GEOMETRY.slice(layer)] = 2 * other[:, GEOMETRY.slice(layer)].flip(1) + 1
        changed = (terms(other) != usual).all(dim=0).tolist()
        same = (terms(other) == usual).all(dim=0).tolist()
        # term k is that of layer k + 1
        assert changed == [term in (layer - 1, layer) for term in range(GEOMETRY.n_layers - 1)]
        assert same == [not entry for entry in changed]


@torch.no_grad()
def test_the_number_of_the_layer_matters() -> None:
    model = fresh(config(), 0.1)
    voxels, incident = batch(30, 3)
    energies = torch.full((30, GEOMETRY.n_layers), 50.0)
    y = torch.randn(30, SIZE, generator=generator(5))
    conditions = [model.next_condition(voxels[:, :SIZE], energies, incident, first) for first in (1, 2)]
    assert (model.next_flow.log_prob(y, conditions[0]) != model.next_flow.log_prob(y, conditions[1])).all()
    switches = [condition[:, -(GEOMETRY.n_layers - 1) :] for condition in conditions]
    for position, found in enumerate(switches):
        assert torch.equal(found, torch.eye(GEOMETRY.n_layers - 1)[position].expand(30, -1))
    # without switches and with the energies of other layers as they are, the two conditions would be alike
    assert torch.equal(conditions[0][:, 3 : 3 + SIZE], conditions[1][:, 3 : 3 + SIZE])


def test_conditions_of_many_layers_are_those_of_each() -> None:
    model = fresh(config())
    voxels, incident = batch(20, 3)
    energies = GEOMETRY.layer_sums(voxels) + 0.1
    every = model.next_condition(voxels[:, :-SIZE], energies, incident, 1).reshape(20, GEOMETRY.n_layers - 1, -1)
    assert every.shape[2] == next_context(GEOMETRY) == 3 + SIZE + GEOMETRY.n_layers - 1
    for layer in range(1, GEOMETRY.n_layers):
        alone = model.next_condition(voxels[:, GEOMETRY.slice(layer - 1)], energies, incident, layer)
        assert torch.equal(alone, every[:, layer - 1])


@pytest.mark.parametrize("student", [False, True])
def test_generated_layers_have_the_energies_that_were_drawn_for_them(student: bool) -> None:
    model = fresh(config(student=student), 0.05)
    _, incident = batch(200, 3)
    voxels = model.sample(incident, generator(7))
    assert voxels.shape == (200, GEOMETRY.n_voxels)
    assert ((voxels == 0) | (voxels >= THRESHOLD)).all()
    with torch.no_grad():
        y, _ = model.energy_flow.sample(200, model.condition(incident), generator(7))
    wanted, _ = model.preprocessing.layer_energies(y, incident.unsqueeze(1))
    wanted = torch.where(wanted < THRESHOLD, torch.zeros_like(wanted), wanted)
    torch.testing.assert_close(GEOMETRY.layer_sums(voxels), wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(voxels, model.sample(incident, generator(7)))


def test_layers_turn_together() -> None:
    model = fresh(config(symmetric=True))
    voxels, _ = batch(100, 3)
    turned = model.turned(voxels, generator(5))
    matches = (turned.unsqueeze(1) == voxels[:, symmetry_table(GEOMETRY)]).all(dim=2).any(dim=1)
    assert matches.all()
    assert not torch.equal(turned, voxels)
    assert torch.equal(model.turned(voxels[:, :SIZE], generator(5)), turned[:, :SIZE])


@dataclass(frozen=True)
class Trained:
    """A trained model, and the records of its parts."""

    model: InductiveStudentModel
    results: dict[str, PartResult]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    model, results = fresh(config(student=True)), {}
    for part in model.parts:
        first, last = part.layers or (0, GEOMETRY.n_layers)
        seen = slice(GEOMETRY.starts[first], GEOMETRY.starts[last])
        sources = [MemorySource(Showers(d.incident, d.voxels[:, seen])) for d in (showers(1000, 1), showers(200, 2))]
        results[part.name] = fit_part(part, ShowerData(*sources), tmp_path_factory.mktemp(part.name), FitOptions())
    assert isinstance(model, InductiveStudentModel)
    return Trained(model.eval(), results)


def test_teachers_learn(trained: Trained) -> None:
    voxels, incident = batch(400, 2)
    begin = fresh(config()).log_prob(voxels, incident, generator(1)).mean()
    with torch.no_grad():
        assert trained.model.log_prob(voxels, incident, generator(1)).mean() > begin + 0.5


@pytest.mark.parametrize("part", ["first-student", "next-student"])
def test_the_terms_of_the_distillation_fall(trained: Trained, part: str) -> None:
    history = trained.results[part].history
    assert history[-1].validation < 0.5 * history[0].validation
    for term in TERMS:
        assert 0 < history[-1].terms[term] < 0.95 * history[0].terms[term]


@torch.no_grad()
def test_students_have_a_finite_density_of_the_samples_of_their_teachers(trained: Trained) -> None:
    model = trained.model
    voxels, incident = batch(300, 5)
    energies = model.preprocessing.cells.layer_energies(voxels, generator(6))
    conditions = (
        model.first_condition(energies[:, :1], incident),
        model.next_condition(voxels[:, :-SIZE], energies, incident, 1),
    )
    pairs = ((model.first_flow, model.first_student), (model.next_flow, model.next_student))
    for (teacher, student), condition in zip(pairs, conditions, strict=True):
        x, theirs = teacher.sample(len(condition), condition, generator(8))
        gap = theirs - student.log_prob(x, condition)
        assert torch.isfinite(gap).all()
        # KL(teacher || student) of a layer, in nats
        assert -0.1 < gap.mean() < 1.0


@torch.no_grad()
def test_showers_come_from_the_students_and_the_density_from_the_teachers(trained: Trained) -> None:
    model = trained.model
    voxels, incident = batch(300, 9)
    before, density = model.sample(incident, generator(1)), model.log_prob(voxels, incident, generator(1))
    torch.testing.assert_close(before.sum(0) / before.sum(), voxels.sum(0) / voxels.sum(), rtol=0, atol=0.05)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for parameter in (*model.first_student.parameters(), *model.next_student.parameters()):
        parameter.mul_(0.5)
    after, same = model.sample(incident, generator(1)), model.log_prob(voxels, incident, generator(1))
    model.load_state_dict(state)
    assert not torch.equal(before, after)
    assert torch.equal(density, same)
    needed = {id(p) for module in model.generation_modules() for p in module.parameters()}
    flows = (model.energy_flow, model.first_student, model.next_student)
    assert needed == {id(p) for flow in flows for p in flow.parameters()}


def test_students_come_after_their_teachers() -> None:
    parts = {part.name: part for part in fresh(config(student=True)).parts}
    assert list(parts) == ["energies", "first", "next", "first-student", "next-student"]
    assert {name: part.after for name, part in parts.items() if part.after} == {
        "first-student": ("first",),
        "next-student": ("next",),
    }
    assert [name for name, part in parts.items() if part.layers == (0, 1)] == ["first", "first-student"]


def unequal() -> Geometry:
    return replace(GEOMETRY, name="unequal", layers=(*GEOMETRY.layers[:3], Layer.polar(3, 2, (0, 1, 3))))


@pytest.mark.parametrize("geometry", [unequal(), layers(1)])
def test_layers_that_differ_are_refused(geometry: Geometry) -> None:
    with pytest.raises(ModelError, match="iCaloFlow needs at least two layers, all with the same cells"):
        build_model(config(), geometry)
    with pytest.raises(ModelError, match="ds1-photons has not: choose another model"):
        build_model("small-icaloflow", registered("ds1-photons"))


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_flows_that_do_not_fit_are_named(wrong: int) -> None:
    contexts = [1, 2, next_context(GEOMETRY)]
    contexts[wrong] += 1
    energies, first, further = (
        build_flow(dim, COUPLING, context, generator(1))
        for dim, context in zip((GEOMETRY.n_layers, SIZE, SIZE), contexts, strict=True)
    )
    name = ("energies", "first", "next")[wrong]
    with pytest.raises(ModelError, match=f"the flow '{name}' of equal needs .* coordinates and a context of"):
        InductiveModel(GEOMETRY, CLEAR, (energies, first, further), RECIPES)


def test_a_coupling_flow_cannot_teach() -> None:
    settings = replace(config(student=True), flows=(COUPLING, MAF, COUPLING, MAF, MAF))
    with pytest.raises(ModelError, match="distillation needs a flow of permutations and autoregressive blocks"):
        build_model(settings, GEOMETRY)


def test_showers_of_another_shape_are_refused() -> None:
    model = fresh(config())
    voxels, incident = batch(5, 3)
    with pytest.raises(ShapeError):
        model.log_prob(voxels[:, 1:], incident, generator(1))
    with pytest.raises(ShapeError):
        model.sample(incident.unsqueeze(1), generator(1))
    with pytest.raises(ShapeError):
        model.parts[1].loss(voxels, incident, generator(1))


def millions(modules: object) -> float:
    """Different parameters."""
    assert isinstance(modules, list)
    return sum({id(p): p.numel() for module in modules for p in module.parameters()}.values()) / 1e6


# Millions in training and in generation, of the CaloChallenge submissions (2410.21611).
@pytest.mark.parametrize(
    ("name", "training", "generation"),
    [
        ("icaloflow-ds2", 19.470, 19.470),
        ("icaloflow-ds2-student", 41.237, 24.520),
        ("icaloflow-ds3", 95.09, 95.09),
        ("icaloflow-ds3-student", None, 95.1),
    ],
)
def test_published_numbers_of_parameters_are_met(name: str, training: float | None, generation: float) -> None:
    with torch.device("meta"):
        model = build_model(name, registered(name.split("-")[1]))
    assert millions(list(model.generation_modules())) == pytest.approx(generation, rel=1e-3)
    if training is not None:
        assert millions([model]) == pytest.approx(training, rel=1e-3)


def test_another_width_misses_the_published_number() -> None:
    settings = preset("icaloflow-ds2", registered("ds2"))
    wider = replace(settings.plain_flows[2], net=replace(settings.plain_flows[2].net, hidden=280))
    with torch.device("meta"):
        model = build_model(replace(settings, flows=(*settings.flows[:2], wider)), registered("ds2"))
    assert millions([model]) > 1.03 * 19.470


def test_recipes_take_as_many_steps_as_published() -> None:
    """70,000 showers; 1000 pairs of layers are 23 showers."""
    recipes = preset("icaloflow-ds2-student", registered("ds2")).recipes
    steps = [recipe.epochs * 70_000 / recipe.batch for recipe in recipes]
    assert [steps[0], steps[1], steps[2], steps[4]] == pytest.approx([35_000, 14_000, 184_800, 308_000], rel=0.02)


@pytest.mark.parametrize("name", ["icaloflow-ds2-student", "icaloflow-ds3"])
def test_published_models_take_a_step_and_run_both_ways(name: str) -> None:
    geometry = registered(name.split("-")[1])
    model, incident = build_model(name, geometry), torch.tensor([2e4, 3e5])
    assert isinstance(model, InductiveModel)
    shares = torch.rand(2, geometry.n_voxels, generator=generator(1)).pow(8)
    voxels = 0.8 * incident.unsqueeze(1) * shares / shares.sum(1, keepdim=True)
    voxels = torch.where(voxels < geometry.threshold, torch.zeros_like(voxels), voxels)
    for part in model.parts:
        part.begin()
        weights = [parameter for parameter in part.module.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=1e-4)
        seen = voxels if part.layers is None else voxels[:, : geometry.starts[part.layers[1]]]
        found = part.loss(seen, incident, generator(2))
        loss = (found["loss"] if isinstance(found, dict) else found).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(weight).all() for weight in weights)
    flow = model._generators()[1]
    with torch.no_grad():
        z = torch.randn(2, flow.dim, generator=generator(3))
        condition = torch.randn(2, flow.context_dim, generator=generator(4))
        x, _ = flow.from_latent(z, condition)
        again, _ = flow.to_latent(x, condition)
    torch.testing.assert_close(again, z, rtol=0, atol=1e-3)
