"""The map of single voxel energies from one spectrum to another."""

from __future__ import annotations

import pytest
import torch

from nisampler.calo.models.spectrum import SpectrumMap
from nisampler.errors import DomainError


def test_the_spectrum_map_takes_one_law_to_another_and_is_monotone() -> None:
    source = torch.Generator().manual_seed(1)
    generated = torch.exp(1 + 0.9 * torch.randn(50_000, generator=source, dtype=torch.float64))
    reference = torch.exp(1.3 + 0.7 * torch.randn(50_000, generator=source, dtype=torch.float64))
    spectrum = SpectrumMap(64).double()
    points = torch.logspace(-3, 3, 1001, dtype=torch.float64)
    torch.testing.assert_close(spectrum(points), points)  # the identity before it is fitted
    spectrum.fit(generated, reference)
    mapped = spectrum(points)
    assert (mapped.diff() > 0).all()
    fresh = torch.exp(1 + 0.9 * torch.randn(50_000, generator=source, dtype=torch.float64))
    logs = spectrum(fresh).log()
    assert float(logs.mean()) == pytest.approx(1.3, abs=0.02)
    assert float(logs.std()) == pytest.approx(0.7, abs=0.02)
    assert abs(float(fresh.log().std()) - 0.7) > 0.1  # the control
    assert torch.equal(spectrum(torch.zeros(2, 3)), torch.zeros(2, 3))
    middle = (points > 0.5) & (points < 20)
    exact = torch.exp(1.3 + 0.7 * (points[middle].log() - 1) / 0.9)
    torch.testing.assert_close(mapped[middle], exact, rtol=0.05, atol=0)


@pytest.mark.parametrize(("generated", "reference"), [((500,), (501,)), ((30,), (30,))], ids=["not as many", "too few"])
def test_a_spectrum_map_needs_voxels(generated: tuple[int], reference: tuple[int]) -> None:
    with pytest.raises(DomainError, match="needs 40 voxels or more"):
        SpectrumMap(4).fit(torch.rand(generated), torch.rand(reference))
    with pytest.raises(DomainError, match="that differ"):
        SpectrumMap(4).fit(torch.ones(100), torch.rand(100))
