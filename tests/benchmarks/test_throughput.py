"""Throughput of flows and splines: every library has the same flow, tiny rows, tables and aims, wrong use."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from nisampler.errors import MissingExtraError
from nisampler.flows import binary_masks

JOB = {"layers": 1, "bins": 4, "blocks": None, "device": "cpu", "threads": 1, "repeats": 1, "budget": 60.0}
JOB |= {"memory": 8.0, "product": 16, "copy": 4096, "libraries": ["nisampler", "madnis"]}


@pytest.fixture
def throughput(imported: Callable[[str], ModuleType]) -> ModuleType:
    return imported("throughput")


@pytest.fixture
def no_peers(throughput: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise MissingExtraError(f"{name} is not installed")

    monkeypatch.setattr(sys.modules["flow_libraries"], "library", fail)


@pytest.fixture
def quick(throughput: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves by a second at each look."""
    ticks = itertools.count()
    monkeypatch.setattr(sys.modules["roofline"], "clock", lambda device: float(next(ticks)))


def a_row(**changes: Any) -> dict[str, Any]:
    times = {"nisampler": [1.0, 2.0], "madnis": [6.0, 12.0], "nflows": [5.0, 10.0], "products": [0.5, 1.0]}
    row = {"part": "flow", "dim": 8, "hidden": 64, "layers": 3, "bins": 10, "blocks": None, "batch": 10_000}
    row |= {"threads": 1, "device": "cpu", "missing": ["zuko"], "operations": 1e9, "peak": 1e10, "bandwidth": 1e9}
    row |= {"gpu": None, "hardware": "a CPU", "torch": "2", "date": "2026-11-23T00:00:00"}
    return row | {"times": dict.fromkeys(("sample", "log_prob", "backward"), times)} | changes


def test_the_networks_have_the_products_of_the_flow(throughput: ModuleType) -> None:
    shape = throughput.FlowShape(6, hidden=8, layers=2, bins=4)
    flow = throughput.build("nisampler", shape)
    assert len(shape.masks()) == len(binary_masks(6))
    sizes = [tuple(weight.t().shape) for name, weight in flow.module.named_parameters() if name.endswith("weight")]
    assert sizes == shape.products()
    x = throughput.points_of(flow, 6, 32, "cpu")
    assert float(flow.log_prob(x).detach().std()) > 0.01
    points, log_q = flow.sample(16)
    torch.testing.assert_close(flow.log_prob(points), log_q, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("no_peers", "quick")
def test_a_row_of_flows_times_ours_and_the_products_and_names_what_is_missing(throughput: ModuleType) -> None:
    row = throughput.measure(JOB | {"part": "flow", "dim": 4, "hidden": 8, "batch": 300})
    assert row["missing"] == ["madnis"]
    for quantity in ("sample", "log_prob", "backward"):
        assert set(row["times"][quantity]) == {"nisampler", "products"}
    assert row["operations"] == 2 * 300 * sum(a * b for a, b in throughput.FlowShape(4, 8, 1, 4).products())
    assert json.loads(json.dumps(row)) == row
    (line, *_) = throughput.flow_lines([row])
    found = dict(zip(throughput.FLOW_COLUMNS, line, strict=True))
    assert (found["madnis"], found["/madnis"]) == ("n/a", "n/a")
    assert found["quantity"] == "sample"


@pytest.mark.usefixtures("no_peers", "quick")
def test_a_row_of_splines_has_our_backends(throughput: ModuleType) -> None:
    row = throughput.measure(JOB | {"part": "spline", "dim": 2, "hidden": 0, "batch": 50})
    assert row["missing"] == ["madnis"]
    for times in row["times"].values():
        assert set(times) == {"nisampler", "nisampler, plain torch"}
    lines = [dict(zip(throughput.SPLINE_COLUMNS, line, strict=True)) for line in throughput.spline_lines([row])]
    assert {line["elements"] for line in lines} == {"100"}
    assert lines[0]["against ours"] == "1"


@pytest.mark.usefixtures("quick")
def test_what_takes_too_long_or_too_much_memory_is_left_out(throughput: ModuleType) -> None:
    job = JOB | {"part": "flow", "dim": 4, "hidden": 8, "batch": 300, "libraries": ["nisampler"]}
    assert set(throughput.measure_flows(job | {"budget": 1.0})["times"]["sample"]) == {"products"}
    found = throughput.measure_flows(job | {"memory": 1e-6})["times"]
    assert set(found["backward"]) == {"products"}
    assert set(found["log_prob"]) == {"nisampler", "products"}


def test_saved_bytes_count_each_tensor_once(throughput: ModuleType) -> None:
    x = torch.rand(1000, requires_grad=True)
    assert throughput.saved_bytes(lambda: (x * x).sum()) == 4000


def test_the_products_are_those_of_value_and_gradient(throughput: ModuleType) -> None:
    roofline = sys.modules["roofline"]
    products = roofline.Products([(3, 5), (5, 2)], 700, "cpu")
    products.value()
    products.gradient()
    assert products.operations == 2 * 700 * (15 + 10)
    x, weight = torch.rand(7, 3), torch.rand(5, 3)
    plan = products._product("value", 7, 3, 5, False)
    plan.args[0].copy_(x)
    plan.args[1].t().copy_(weight)
    torch.testing.assert_close(plan(), x @ weight.t())
    plan = products._product("weight", 7, 3, 5, True)
    torch.testing.assert_close(plan().clone(), plan.args[0] @ plan.args[1])


def test_ratios_are_taken_within_a_repeat_and_aims_are_judged(throughput: ModuleType) -> None:
    row = a_row()
    assert throughput.rate(row, "sample", "nisampler") == pytest.approx(10 / 1.5)
    assert throughput.ratio(row, "sample", "madnis") == 6
    found = dict(zip(throughput.FLOW_COLUMNS, throughput.flow_lines([row])[0], strict=True))
    assert (found["/nflows"], found["of bound"], found["zuko"], found["normflows"]) == ("5", "50%", "n/a", "-")
    said = throughput.acceptance([row, a_row(hidden=256), a_row(dim=4)])
    assert "sample 5.00 of 5 (met)" in said
    assert "d = 8, 3x256: 50% of the products of 60% (not met)" in said
    assert "d = 4" not in said
    slow = {"nisampler": [1.0], "madnis": [2.0]}
    assert "not met" in throughput.acceptance([a_row(times=dict.fromkeys(("sample", "log_prob", "backward"), slow))])
    assert throughput.acceptance([a_row(batch=1000)]) == ""


def test_rows_that_are_there_are_shown(
    throughput: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.json"
    arguments = ["--part", "flow", "--dim", "8", "--hidden", "64", "--batch", "10000", "--output", str(path)]
    path.write_text(json.dumps({"rows": [a_row()]}))
    assert throughput.main(arguments) == 0
    assert "Aims: d = 8, 3x64: sample 5.00 of 5 (met)" in capsys.readouterr().out
    assert "| 8 | 3x64 | 10,000 | sample |" in path.with_suffix(".md").read_text()


@pytest.mark.parametrize("wrong", [["--dim", "1"], ["--bins", "2"], ["--batch", "0"], ["--budget", "0"]])
def test_wrong_use(throughput: ModuleType, wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert throughput.main(wrong) == 2
    assert "must be at least 2" in capsys.readouterr().err


def test_a_gpu_that_is_not_there_is_named(
    throughput: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert throughput.main(["--device", "cuda"]) == 2
    assert "no GPU" in capsys.readouterr().err


def test_a_library_that_is_not_installed_is_named(throughput: ModuleType) -> None:
    with pytest.raises(MissingExtraError, match="no_such_flows is not installed"):
        sys.modules["flow_libraries"].library("no_such_flows.nets")
