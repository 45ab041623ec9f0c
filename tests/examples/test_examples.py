"""The examples of own parts: a flow, a sampler, a process and a shower model, each trained, stored and used again."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from commands import call
from pdf_grids import write_set
from torch import Tensor

import nisampler
from nisampler import FlowSettings, IntegrationConfig, TrainingConfig
from nisampler.calo.fitting.store import load_model
from nisampler.calo.models.config import FAMILIES
from nisampler.flows.saving import ASSEMBLIES
from nisampler.run.card import load_card
from nisampler.samplers.registry import READERS

FOLDER = Path(__file__).parents[2] / "examples"
QUICK = TrainingConfig(calls=8000, flow=FlowSettings(hidden=16, layers=1, fourier=0))
FEW = IntegrationConfig(points=8192)


@pytest.fixture
def example() -> Iterator[Callable[[str], ModuleType]]:
    """Imports an example by name; what it registers is forgotten afterwards."""
    registries: list[dict[str, Any]] = [FAMILIES, ASSEMBLIES, READERS]
    before = [dict(registry) for registry in registries]

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    yield load
    for registry, known in zip(registries, before, strict=True):
        for name in registry.keys() - known.keys():
            del registry[name]


def test_examples_are_short() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in FOLDER.glob("my_*.py")}
    assert len(lengths) == 5 and max(lengths.values()) <= 40, lengths


def trained(function: Callable[[Tensor], Tensor], dim: int, exact: float, folder: Path, **options: Any) -> str:
    """Train, integrate, save, load and draw; returns what the sampler calls itself."""
    result = nisampler.integrate(
        function, dim=dim, training=QUICK, integration=FEW, progress=False, device="cpu", **options
    )
    assert abs(result.estimate.value - exact) < 5 * result.estimate.error
    assert result.efficiencies.ess_fraction > 0.5
    result.save(folder)
    loaded = nisampler.load(folder, function)
    assert torch.equal(loaded.unweight(20).x, result.unweight(20).x)
    return result.sampler.describe()


def test_a_flow(example: Callable[[str], ModuleType], tmp_path: Path) -> None:
    module = example("my_flow")
    flow = module.turned(2, 16)
    name = trained(module.ring, 2, float(torch.special.i0(torch.tensor(3.0))), tmp_path / "turned", sampler=flow)
    assert "turned" in name
    assert bool((flow.transform.transforms[1].angle != 0.0).any()), "the angles were not trained"


def test_a_sampler(example: Callable[[str], ModuleType], tmp_path: Path) -> None:
    module = example("my_sampler")
    sampler = module.Kumaraswamy(2)
    name = trained(lambda x: (x**2 * (1 - x)).prod(1), 2, 1 / 144, tmp_path / "saved", sampler=sampler)
    assert "kumaraswamy" in name and bool((sampler.model["log_ab"][0] > 0.1).all()), sampler.model["log_ab"]


def test_a_process(example: Callable[[str], ModuleType], tmp_path: Path) -> None:
    process = example("my_matrix_element").MuonPair()
    exact = 4 * torch.pi * process.alpha_em**2 / (3 * process.sqrt_s**2) * 0.3893793721e9
    trained(process, 2, exact, tmp_path / "muons")


def test_an_amplitude(example: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From Python and as its card: the same values, those of the photon alone where the boson does not couple."""
    monkeypatch.chdir(FOLDER.parent)
    pdf = {"pdf": str(write_set(tmp_path) / "toyset_0000.dat")}
    card = load_card(FOLDER / "my_amplitude.toml")
    by_card: Any = nisampler.process(card.process, **(dict(card.parameters) | pdf))
    module = example("my_amplitude")
    cuts = ["m(e+, e-) > 200", "deta(e+, e-) < 3", module.forward]
    limits = {"pt_lepton_min": 25.0, "eta_lepton_max": 2.5}
    made: Any = nisampler.process(
        "p p > e- e+", amplitude=module.squared, scale=module.scale, cuts=cuts, **limits, **pdf
    )
    u = torch.rand(2000, made.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(made(u), by_card(u)) and int((made(u) > 0).sum()) > 100
    p = made.momenta(u)
    p = p[made.passes(p)]
    assert bool((p[:, :, 3].sum(1).abs() > 100).all())
    energy = 0.5 * (p.sum(1)[:, 0].square() - p.sum(1)[:, 1:].square().sum(1)).sqrt()
    assert torch.allclose(made.evaluate(p).mu_r, energy)
    text = (FOLDER / "my_amplitude.toml").read_text()
    for old, new in (("50_000", "4_000"), ("100_000", "4_000"), ("10_000", "100")):
        text = text.replace(old, new)
    small = tmp_path / "small.toml"
    small.write_text(text.replace("[parameters]", f'[parameters]\npdf = "{pdf["pdf"]}"'))
    code, _, err = call("run", small, "-o", tmp_path / "run", "-q")
    assert code == 0, err
    assert (tmp_path / "run" / "events.lhe.gz").is_file()
    monkeypatch.setattr(module, "COUPLING", 0.0)
    photon = module.squared(at_rest(), torch.ones(1), (2, -2, 11, -11))
    wanted = 2 * (4 * torch.pi / 128) ** 2 * (2 / 3) ** 2 / 3 * 0.5
    assert float(photon) == pytest.approx(wanted)


def at_rest() -> Tensor:
    """Two partons against each other, leptons at a right angle: t = u = -s/2."""
    return torch.tensor([[[1.0, 0, 0, 1], [1, 0, 0, -1], [1, 1, 0, 0], [1, -1, 0, 0]]], dtype=torch.float64)


def test_a_shower_model(example: Callable[[str], ModuleType], tmp_path: Path) -> None:
    module = example("my_shower_model")
    toy = module.geometry("toy")
    module.simulate_file(tmp_path / "showers.h5", toy, 300, seed=1)
    fitted = module.fit(module.DataOptions(tmp_path / "showers.h5"), toy, module.settings(toy, 2), tmp_path / "model")
    model = load_model(tmp_path / "model")
    assert type(model) is module.DenseFirst and fitted.parts[0].best_epoch >= 1
    assert model.sample(torch.full((3,), 1e4), torch.Generator().manual_seed(0)).shape == (3, toy.n_voxels)
