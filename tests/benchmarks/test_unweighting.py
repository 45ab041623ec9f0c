"""The comparison of unweighting efficiencies: tiny rows, the table, and how the peer sees the channels."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from nisampler.base.weights import efficiency_at
from nisampler.processes.registry import create

TINY = ["--process", "w_plus_jets", "--jets", "0", "--calls", "5000", "--points", "2048"]


@pytest.fixture
def unweighting(imported: Callable[[str], ModuleType]) -> ModuleType:
    return imported("unweighting")


def a_row(method: str, seed: int, at_0p1: float, **other: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"process": "z_jets", "jets": 1, "method": method, "seed": seed, "calls": 5000}
    row |= {"points": 2048, "channels": "chili", "value": 100.0, "error": 1.0, "strict": 0.01, "at_0p1": at_0p1}
    row |= {"at_1": 0.5, "deviation": 0.2, "training_calls": 4800, "integration_calls": 2048, "training_seconds": 1.0}
    row |= {"integration_seconds": 0.5, "events_per_second": 99.5, "events_per_1000_elements": 250.0}
    row |= {"versions": {"nisampler": "1.0"}, "threads": 1, "hardware": "a machine"}
    return row | {"date": "2026-01-02T03:04:05+00:00"} | other


@pytest.mark.parametrize("method", ["plain", "vegas", "nisampler"])
def test_a_method_is_measured_on_fresh_points(unweighting: ModuleType, method: str) -> None:
    job = dict(zip(unweighting.KEY, ("w_plus_jets", 0, method, 1, 5000, 2048, "chili"), strict=True))
    row = unweighting.measure(job)
    assert row["value"] == pytest.approx(8996, abs=6 * row["error"] + 10)
    assert 0 < row["strict"] <= row["at_0p1"] <= row["at_1"] <= 1
    assert row["training_calls"] == 0 if method == "plain" else 0 < row["training_calls"] <= 5000
    assert 0.5 * 2048 < row["integration_calls"] <= 2048
    assert 0 < row["cut_efficiency"] <= 1
    assert row["events_per_1000_elements"] == pytest.approx(1000 * row["at_0p1"] / row["cut_efficiency"])
    assert json.loads(json.dumps(row)) == row


def test_rows_are_kept_and_not_measured_twice(
    unweighting: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.json"
    arguments = [*TINY, "--methods", "plain", "--output", str(path)]
    assert unweighting.main(arguments) == 0
    (row,) = json.loads(path.read_text())["rows"]
    assert (row["process"], row["method"], row["threads"]) == ("w_plus_jets", "plain", 1)
    assert "| w_plus_jets | 0 | plain |" in path.with_suffix(".md").read_text()
    assert "w_plus_jets + 0 jets, plain, seed 1" in capsys.readouterr().out

    def never(*job: Any) -> None:
        raise AssertionError(job)

    monkeypatch.setattr(sys.modules["measurements"], "run_row", never)
    assert unweighting.main(arguments) == 0
    with pytest.raises(AssertionError):
        unweighting.main([*arguments, "--refresh"])


def test_the_table_has_medians_beside_the_published_efficiencies(unweighting: ModuleType) -> None:
    rows = [a_row("vegas", seed, value) for seed, value in ((1, 0.2), (2, 0.5), (3, 0.3))]
    rows += [a_row("nisampler", 1, 0.7), a_row("plain", 1, 0.1, calls=1)]
    lines = unweighting.table_lines(rows, "chili")
    other, vegas, ours = (dict(zip(unweighting.COLUMNS, line, strict=True)) for line in lines)
    assert (other["method"], other["seeds"]) == ("plain", "1")
    assert (vegas["method"], vegas["0.1 %"], vegas["seeds"]) == ("vegas", "0.300", "3")
    assert (ours["0.1 %"], ours["Sherpa"], ours["i-flow"]) == ("0.700", "0.036", "0.1")
    assert (ours["calls/1000"], ours["CPU-s"], ours["pb"]) == ("5+2", "1.0+0.5", "100.0(10)")
    assert "2026-01-02" in unweighting.conditions(rows, "chili")


def test_a_wrong_option_is_named(unweighting: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert unweighting.main([*TINY, "--points", "0"]) == 2
    assert "--points" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        unweighting.main(["--methods", "foam"])


def test_the_peer_gets_the_channels_as_they_are(unweighting: ModuleType) -> None:
    peers = sys.modules["peers"]
    process = create("z_prime")
    function = process.multichannel  # type: ignore[attr-defined]
    seen = peers.CountedChannels(function)
    generator = torch.Generator().manual_seed(3)
    u = torch.rand(500, function.dim, generator=generator, dtype=torch.float64)
    channel = (3 * u[:, 0]).long()
    value, features, prior = seen(u[:, 1:], channel)
    assert seen.calls == 500
    assert features.shape == (500, function.feature_count())
    torch.testing.assert_close(prior.sum(1), torch.ones(500, dtype=torch.float64))
    own = prior.gather(1, channel.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(3 * value * own, function(u))


def test_the_best_shares_help_the_peer_and_keep_the_integral(unweighting: ModuleType) -> None:
    peers = sys.modules["peers"]
    function = create("z_prime").multichannel  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(5)
    channel = torch.arange(3).repeat_interleave(20_000)
    weights = torch.rand(60_000, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 10.0, 100.0])[channel]
    shared = peers._in_best_shares(function, channel, weights)
    assert float(shared.mean()) == pytest.approx(float(weights.mean()), rel=0.02)
    assert efficiency_at(shared, 1e-3)[1] > 1.2 * efficiency_at(weights, 1e-3)[1]
    assert peers._targets((0, 1, 1, 2, 1)) == [None, None, 1, None, 1]
