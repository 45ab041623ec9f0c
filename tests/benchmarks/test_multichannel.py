"""The comparison of flows and learned weights for a Z': a tiny variant, its table and its figure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from nisampler.processes.registry import create


@pytest.fixture
def multichannel(imported: Callable[[str], ModuleType]) -> ModuleType:
    return imported("multichannel")


def test_a_variant_is_measured_channel_by_channel_and_drawn(
    multichannel: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multichannel, "PER_CHANNEL", 2000)
    job = dict(zip(multichannel.KEY, ("both", 1, 5000, 2048), strict=True))
    row = multichannel.measure(job)
    assert row["value"] == pytest.approx(1928, abs=6 * row["error"] + 10)
    assert sum(channel["share"] for channel in row["channels"]) == pytest.approx(1)
    assert row["alpha_error"] < 1e-12
    assert row["alpha_change"] > 1e-3
    assert json.loads(json.dumps(row)) == row
    path = tmp_path / "docs" / "weights.svg"
    multichannel.draw(row, [channel["name"] for channel in row["channels"]], path)
    assert path.read_text().lstrip().startswith("<?xml")
    assert "photon" in multichannel.cells(row)[5]


def test_a_flat_prior_has_the_same_integral(multichannel: ModuleType) -> None:
    process = create("z_prime")
    flat = multichannel.FlatPrior(process)
    u = torch.rand(30_000, flat.dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = flat.multichannel.evaluate(u)
    torch.testing.assert_close(found.log_prior.exp(), torch.full((30_000, 3), 1 / 3, dtype=torch.float64))
    assert flat.dim == process.dim


def test_variants_without_learned_weights_keep_the_prior(multichannel: ModuleType) -> None:
    function = create("z_prime").multichannel  # type: ignore[attr-defined]
    figures = multichannel.alpha_figures(function, None, multichannel.Streams(1))
    assert figures["alpha_change"] == 0
    assert figures["prior"] == figures["alpha"]
