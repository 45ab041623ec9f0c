"""The comparison of cross-sections: Pythia with few events, the scaling of its value, and the table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from nisampler.errors import ConfigError


@pytest.fixture
def cross_sections(imported: Callable[[str], ModuleType]) -> ModuleType:
    return imported("cross_sections")


def test_few_events_and_points_agree_within_their_errors(
    cross_sections: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.json"
    few = ["--calls", "10000", "--points", "20000", "--events", "2000"]
    cross_sections.main(["--only", "1", "2", *few, "--output", str(path)])
    rows = json.loads(path.read_text())["rows"]
    assert [row["of"] for row in rows] == ["table", "Pythia 8", "Pythia 8"]
    assert all(abs(row["pull"]) < 5 for row in rows)
    assert all(abs(row["deviation"]) < 0.1 for row in rows)
    assert "width 2.088" in rows[1]["note"]
    assert "alpha_s 0.12" in rows[2]["note"]
    assert "| w_plus_jets n_jets=0 |" in path.with_suffix(".md").read_text()
    assert "Cross-sections" in capsys.readouterr().out


def test_a_wrong_reference_misses_its_target(cross_sections: ModuleType) -> None:
    comparison = cross_sections.COMPARISONS[0]
    ours = cross_sections.Outcome(1602.0, 0.2, {}, 1, 1, 1.0, 1.0)
    assert cross_sections.row_of(comparison, ours, (1603.2, 0.4), "table")["reached"]
    wrong = cross_sections.row_of(comparison, ours, (1620.0, 0.4), "table")
    assert not wrong["reached"]
    assert wrong["pull"] == pytest.approx(-18 / 0.2**0.5)


def test_a_dynamic_scale_is_refused(cross_sections: ModuleType) -> None:
    process = cross_sections.create("w_plus_jets", n_jets=1, scale="H_T/2")
    with pytest.raises(ConfigError, match="dynamic"):
        cross_sections.strong_coupling(process)
    with pytest.raises(ConfigError, match="no hadron"):
        cross_sections.estimate("camel2", {}, cross_sections.Budget(5000, 100, 1, 1))


def test_an_unknown_setting_of_pythia_is_named(cross_sections: ModuleType) -> None:
    comparison = cross_sections.Comparison("drell_yan", {}, 1.0, pythia=("NoSuch:thing = on",))
    with pytest.raises(ConfigError, match="NoSuch"):
        cross_sections.run_pythia(comparison, 1, 1, 0.118)
