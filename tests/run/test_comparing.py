"""One report of several runs: every run is in it, what cannot be compared is said, the time of trainings is noted."""

from __future__ import annotations

import base64
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from commands import call

from nisampler.base.storage import read_sealed, write_sealed
from nisampler.run.plotting.comparing import comparison_page
from nisampler.stored import Timeline, stored_timeline

DRAWN = ["training-calls", "training-seconds", "weights"]


def figures(page: str) -> list[str]:
    """Names of the figures of a page, each of which is an SVG."""
    found = re.findall(r'<figure id="([^"]+)".*?base64,([A-Za-z0-9+/=]+)"', page)
    for _, data in found:
        assert ElementTree.fromstring(base64.b64decode(data)).tag.endswith("svg")
    return [name for name, _ in found]


@pytest.fixture
def other(points_run: Path, tmp_path: Path) -> Path:
    """The same run, said to have another integral."""
    path = tmp_path / "other"
    shutil.copytree(points_run, path)
    result = read_sealed(path / "result.json")
    result["integral"]["value"] *= 1.5
    result["warnings"] = ["few points"]
    write_sealed(path / "result.json", result)
    return path


def test_a_page_of_two_runs(points_run: Path, other: Path, tmp_path: Path) -> None:
    target = tmp_path / "both.html"
    code, out, err = call("report", "--compare", points_run, other, "--output", target)
    assert (code, err) == (0, "") and str(target) in out
    page = target.read_text()
    assert figures(page) == [*DRAWN, "distribution-x1", "distribution-x2"]
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]*", "", page)
    assert re.search(r"the integrals of points and other differ by \d+\.\d standard deviations", page)
    assert "other: few points" in page and "differ" not in comparison_page([points_run, points_run], ["a", "b"])
    for run in (points_run, other):
        efficiency = read_sealed(run / "result.json")["unweighting"]["efficiency_0p1"]
        assert page.count(f"{100 * efficiency:.1f} %") >= 2
    assert page == comparison_page([points_run, other])


def test_runs_of_different_kinds(points_run: Path, events_run: Path, tmp_path: Path) -> None:
    """Nothing is drawn together that has other observables; a run of an earlier release has no timeline."""
    old = tmp_path / "old"
    shutil.copytree(points_run, old)
    (old / "timeline.json").unlink()
    page = comparison_page([old, events_run])
    assert figures(page) == DRAWN and "Not noted by old" in page and "differ" not in page
    (old / "timeline.json").write_text("{")
    same = figures(comparison_page([old, old], ["a", "b"]))
    assert same == ["training-calls", "weights", "distribution-x1", "distribution-x2"]
    styled = comparison_page([points_run, old], style="cms")
    assert "distribution-x1" in styled and styled != comparison_page([points_run, old])


def test_what_cannot_be_compared_is_said(points_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, message in (
        ([points_run, "--compare"], "1 runs to compare: name 2 to"),
        ([points_run] * 8 + ["--compare"], "8 runs to compare"),
        ([points_run, points_run], "are for --compare"),
        ([points_run, "--label", "a"], "are for --compare"),
        ([points_run, points_run, "--compare", "--label", "a"], "1 labels for 2 paths"),
        ([points_run, tmp_path, "--compare"], "is not a run directory"),
        ([points_run, points_run, "--compare", "--output", "no/page.html"], "there is no folder"),
    ):
        code, _, err = call("report", *arguments)
        assert code and message in err, (arguments, err)
    assert not (tmp_path / "comparison.html").exists()
    assert call("report", "--compare", points_run, points_run)[0] == 0 and (tmp_path / "comparison.html").is_file()
    unfinished = tmp_path / "unfinished"
    shutil.copytree(points_run, unfinished)
    (unfinished / "result.json").unlink()
    code, _, err = call("report", "--compare", points_run, unfinished, "--output", "page.html")
    assert code and "is not finished" in err


def test_the_time_of_a_training_is_noted(points_run: Path) -> None:
    timeline = stored_timeline(points_run)
    assert timeline is not None and len(timeline.calls) > 3
    assert np.all(np.diff(timeline.calls) > 0) and np.all(np.diff(timeline.seconds) >= 0)
    assert timeline.calls[-1] > 4000
    # A session that was killed had got to 300 calls; the next one goes on from 150.
    timeline = Timeline()
    for calls, seconds in ((100, 1.0), (300, 3.0), (150, 3.5), (300, 5.0)):
        timeline.note(calls, seconds)
    assert timeline.calls == [100, 150, 300] and timeline.seconds_at(np.array([0.0, 125.0, 900.0])).tolist() == [
        0.0,
        2.25,
        5.0,
    ]
