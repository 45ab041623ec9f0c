"""Two-stage against plain unweighting: a tiny row, the table, the comparison of histograms, failures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from windows import ks_accepts, p_limit

from nisampler import Integrand
from nisampler.processes.hadron.process import HadronProcess
from nisampler.processes.registry import create
from nisampler.samplers.base import UniformSampler
from nisampler.unweighting.surrogate import SurrogateConfig
from nisampler.unweighting.two_stage import TwoStageGain


@pytest.fixture
def bench(imported: Callable[[str], ModuleType]) -> ModuleType:
    return imported("two_stage")


def a_gain(second: float, call: float = 1e-3) -> dict[str, Any]:
    with_two = (call + 2e-5 / 0.25) / second
    costs = {"call": call, "point": 1e-5, "surrogate": 1e-5}
    return asdict(TwoStageGain(0.25, second, 0.2, 5.0, 1 / second, 5 * call, with_two, 20.0, costs))


def a_row(control: float = 1e-9, process: str = "W + 2 jets") -> dict[str, Any]:
    one = {"calls_per_event": 4.0, "seconds_per_event": 4e-3, "overweight": 1e-4, "preparation": 0.0}
    two = one | {"calls_per_event": 1.6, "seconds_per_event": 2e-3, "preparation": 20.0, "gain": a_gain(0.625)}
    p = {"two stages": {"y": 0.5}, "hasty surrogate": {"y": 0.4}, "its first stage alone": {"y": control}}
    job = {"process": process, "sampler": "vegas", "calls": 10, "points": 20, "events": 100_000, "seed": 1}
    said = {"milliseconds": 1.0, "described": "grid", "call": 1e-5, "hardware": "none", "threads": 1}
    results = {"one stage": one, "two stages": two, "hasty surrogate": two}
    return job | said | {"date": "2026-01-01", "results": results, "p_values": p}


def a_job(bench: ModuleType, process: str, calls: int, points: int, events: int, steps: int) -> dict[str, Any]:
    return dict(zip(bench.KEY, (process, "vegas", calls, points, events, 1, 1.0), strict=True)) | {"steps": steps}


def test_a_row_counts_calls_and_compares_distributions(bench: ModuleType) -> None:
    row = bench.measure(a_job(bench, "camel2", 5000, 12_288, 6000, 400))
    one, two = (row["results"][name] for name in bench.METHODS[:2])
    assert 1.0 < two["calls_per_event"] < one["calls_per_event"]
    assert one["seconds_per_event"] > 1e-3 * one["calls_per_event"]
    assert min(row["p_values"]["two stages"].values()) > p_limit(2)
    assert set(row["p_values"]["its first stage alone"]) == {"x0", "x1"}
    assert "dipoles" not in row["results"]
    assert json.loads(json.dumps(row)) == row


def test_surrogates_differ_in_what_they_know(bench: ModuleType) -> None:
    process = create("p p > t t~ j", elements="sampled")
    assert isinstance(process, HadronProcess)
    integrand, sampler, config = Integrand(process), UniformSampler(process.dim), SurrogateConfig(steps=2)
    x, log_q = sampler.sample(2000, torch.Generator().manual_seed(1))
    found = bench.ways(process, config)
    assert list(found) == list(bench.METHODS[1:])
    known = {name: kind(integrand, sampler).known(x, log_q).factors for name, (kind, _) in found.items()}
    assert known["features alone"].kinds == 1 < known["dipoles"].kinds == known["two stages"].kinds
    assert process.multichannel.factors_of(process.multichannel.points(x)[1]).kinds > 1
    assert found["features alone"][1].hidden == 128


def test_dipoles_are_one_over_the_invariants(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.DipoleNet, "pairs", 3)
    net = bench.DipoleNet(4, 2, SurrogateConfig(hidden=8))
    logs = torch.randn(500, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    net.adapt(logs, 3.0 + 2.0 * logs[:, 0])
    kind = torch.zeros(500).long()
    s = torch.exp(2.0 * (logs[:, 1:] - logs[:, 1:].mean(0)))
    wanted = net.centre + torch.log(1.0 + (1.0 / s).sum(1))
    torch.testing.assert_close(net.log_r(logs, kind), wanted.clamp(net.low, net.high), rtol=1e-4, atol=1e-4)


def test_the_comparison_finds_a_wrong_distribution(bench: ModuleType) -> None:
    random, edges = np.random.default_rng(1), np.linspace(0, 1, 21)
    flat, other, ones = random.random(9000), random.random(4000), torch.ones(9000)
    tilted = random.random(20_000)
    p = [bench.p_value(flat, random.random(4000), edges, ones, torch.ones(4000)) for _ in range(50)]
    assert ks_accepts(p, "uniform")
    assert bench.p_value(flat, tilted**1.2, edges, ones, torch.ones(20_000)) < 1e-6
    w = torch.from_numpy(0.5 + other)
    assert bench.p_value(flat, other, edges, ones, w) < 1e-6
    assert bench.p_value(flat, other, edges, ones, 3.0 * torch.ones(4000)) > p_limit()


def test_the_table_and_the_page(bench: ModuleType, tmp_path: Path) -> None:
    options = bench.parse(["--output", str(tmp_path / "rows.json")])
    rows = [a_row(), a_row(process="t t~ j j")]
    bench.show(Console(width=160), rows, options)
    lines = [dict(zip(bench.COLUMNS, line, strict=True)) for line in bench.table_lines(rows)]
    assert [line["fewer calls"] for line in lines[:4]] == ["1.00", "2.50", "2.50", ""] and len(lines) == 8
    assert lines[1]["faster"] == "2.00" and lines[3]["least p"] == "1e-09"
    assert "agree and the control fails" in (tmp_path / "rows.md").read_text()
    bench.show(Console(width=160), [a_row(control=0.5)], options)
    assert "NOT all" in (tmp_path / "rows.md").read_text()
    bench.show(Console(), [], options)


def test_two_stages_pay_from_where_both_take_as_long(bench: ModuleType) -> None:
    one = {"calls_per_event": 5.0, "seconds_per_event": 5e-3}
    for seconds in (4e-3, 6e-3):
        two = {"calls_per_event": 1.5, "seconds_per_event": seconds}
        dearer = bench.pays_from(two, one, 1e-3) - 1e-3
        assert seconds + dearer * 1.5 == pytest.approx(5e-3 + dearer * 5.0)
    assert bench.pays_from(one | {"calls_per_event": 6.0}, one, 1e-3) == math.inf
    assert bench.pays_from(two | {"seconds_per_event": 1e-4}, one, 1e-3) == 0.0


def test_a_control_that_does_not_fail_is_a_failure(bench: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    numbers = ["--calls", "10", "--points", "20", "--events", "100000", "--milliseconds", "1"]
    for control, code in ((1e-9, 0), (0.5, 1)):
        path.write_text(json.dumps({"rows": [a_row(control)]}))
        assert bench.main(["--processes", "W + 2 jets", *numbers, "--output", str(path)]) == code


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (["--events", "0"], "--events must be positive"),
        (["--milliseconds", "-1"], "--milliseconds must not be negative"),
    ],
)
def test_a_wrong_option_is_named(
    bench: ModuleType, capsys: pytest.CaptureFixture[str], option: list[str], text: str
) -> None:
    assert bench.main(option) == 2
    assert text in capsys.readouterr().err
