"""The benchmark of named weights, small: it prints a rate, and deviations that are rounding errors."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from types import ModuleType

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pythia8mc") is None, reason="its densities come with pythia8mc"
)


@pytest.fixture
def bench(imported: Callable[[str], ModuleType]) -> ModuleType:
    return imported("variations")


def test_a_rate_is_printed(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["variations.py", "--events", "200", "--members", "2"])
    bench.main()
    assert re.search(r"ttbar: \d+ events x 10 weights .*\n\d+\.\d+ μs a weight", capsys.readouterr().out)


def test_weights_close(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    bench.closure("w_plus_jets:1")
    found = [float(number) for number in re.findall(r"deviation (\S+)", capsys.readouterr().out)]
    assert len(found) == 3 and max(found) < 1e-10
