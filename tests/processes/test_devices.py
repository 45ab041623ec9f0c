"""Nothing makes a tensor on another device than its input's: checked on the meta device."""

from __future__ import annotations

import pytest
import torch

from nisampler.processes import registry
from nisampler.processes.phase_space.rambo import Rambo, RamboOnDiet

# The processes of hadrons choose the points that pass their cuts, which no meta tensor can tell; their amplitudes,
# phase space and densities are checked on the meta device one by one.
WITHOUT_CUTS = [name for name, text in sorted(registry.available().items()) if not text.startswith("p p ->")]


@pytest.mark.parametrize("name", WITHOUT_CUTS)
def test_processes_stay_on_their_device(name: str) -> None:
    process = registry.create(name)
    assert process(torch.empty(4, process.dim, device="meta")).device.type == "meta"


@pytest.mark.parametrize("kind", [Rambo, RamboOnDiet])
def test_phase_space_stays_on_its_device(kind: type[Rambo | RamboOnDiet]) -> None:
    generator = kind([1.0, 0.0, 2.0])
    momenta, weight = generator.forward(torch.empty(4, generator.dim, device="meta"), 100.0)
    assert momenta.device.type == weight.device.type == "meta"


def test_observables_and_inverse_stay_on_their_device() -> None:
    process = registry.create("ee_to_3jets")
    momenta = process.momenta(torch.empty(4, 5, device="meta"))
    assert process.flavour_probabilities(momenta).device.type == "meta"  # type: ignore[attr-defined]
    assert RamboOnDiet([0.0] * 3).inverse(momenta).device.type == "meta"
