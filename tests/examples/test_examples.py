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
from torch import Tensor

import nisampler
from nisampler import FlowSettings, IntegrationConfig, TrainingConfig
from nisampler.calo.fitting.store import load_model
from nisampler.calo.models.config import FAMILIES
from nisampler.flows.saving import ASSEMBLIES
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
    assert len(lengths) == 4 and max(lengths.values()) <= 40, lengths


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


def test_a_shower_model(example: Callable[[str], ModuleType], tmp_path: Path) -> None:
    module = example("my_shower_model")
    toy = module.geometry("toy")
    module.simulate_file(tmp_path / "showers.h5", toy, 300, seed=1)
    fitted = module.fit(module.DataOptions(tmp_path / "showers.h5"), toy, module.settings(toy, 2), tmp_path / "model")
    model = load_model(tmp_path / "model")
    assert type(model) is module.DenseFirst and fitted.parts[0].best_epoch >= 1
    assert model.sample(torch.full((3,), 1e4), torch.Generator().manual_seed(0)).shape == (3, toy.n_voxels)
