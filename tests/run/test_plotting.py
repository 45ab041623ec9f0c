"""The command plot: what is in its figures, for files with and without variations, and what it refuses."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import call, shell

from nisampler.errors import ConfigError
from nisampler.events import EventBatch, InitInfo, ProcessInfo, write_events
from nisampler.events.rules import TrustedBatches
from nisampler.events.weights import WeightGroup, WeightInfo
from nisampler.run.plotting.filling import fill, labels_of
from nisampler.ui.overlays import COLOURS, Layer, overlay

PTS = (25.0, 35.0, 35.0, 55.0, 500.0)
SCALES = WeightGroup("Central scale variation", "envelope", (WeightInfo("down"), WeightInfo("up")))
MEMBERS = WeightGroup(
    "a set", "symmhessian", tuple(WeightInfo(f"m{k}", attributes=(("MEMBER", f"{k}/2"),)) for k in range(2))
)
INFO = InitInfo((2212, 2212), (6500.0, 6500.0), (ProcessInfo(10.0, 0.1),))


def written(path: Path, pts: tuple[float, ...] = PTS, weights: tuple[float, ...] = (), varied: bool = True) -> Path:
    """d d~ -> d d~ with two jets of these transverse momenta, and one event with muons; weights of two groups."""
    sizes, n = np.array([*pts, 30.0]), len(pts) + 1
    momenta = np.zeros((n, 4, 4))
    momenta[:, :, 0] = sizes[:, None]
    momenta[:, :2, 3], momenta[:, 2:, 1] = sizes[:, None] * [1, -1], sizes[:, None] * [1, -1]
    codes, colours = np.tile([1, -1, 1, -1], (n, 1)), np.zeros((n, 4, 2))
    codes[-1, 2:] = 13, -13
    colours[:, 0, 0] = colours[:, 1, 1] = 501
    colours[:-1, 2, 0] = colours[:-1, 3, 1] = 502
    batch = EventBatch(
        momenta=momenta,
        masses=np.zeros((n, 4)),
        pdg_ids=codes,
        status=np.tile([-1, -1, 1, 1], (n, 1)),
        mothers=np.tile([[0, 0], [0, 0], [1, 2], [1, 2]], (n, 1, 1)),
        colours=colours,
        spins=np.full((n, 4), 9.0),
        weights=weights or np.ones(n),
        process_ids=np.ones(n),
        **dict.fromkeys(("scales", "alpha_em", "alpha_s"), np.full(n, 0.5)),
    )
    info = INFO
    if varied:
        named = batch.weights[:, None] * np.array([0.8, 1.3, 1.0, 1.1])
        batch, info = replace(batch, named_weights=named), replace(INFO, weight_groups=(SCALES, MEMBERS))
    write_events(path, TrustedBatches([batch]), info)
    return path


def test_densities_counts_and_bands_done_by_hand(tmp_path: Path) -> None:
    (row,) = fill([written(tmp_path / "a.h5")], ["pt_j1:20:60:4"])
    (item,) = row
    histogram = item.histogram
    assert (histogram.count, histogram.under, item.above, item.absent) == (6, 0, 1, 1)
    layer = item.layer("pb")
    # 10 pb over six events in bins of 10 GeV.
    np.testing.assert_allclose(layer.values, np.array([1, 2, 0, 1]) * 10 / 6 / 10)
    scales, members = layer.shades
    np.testing.assert_allclose(scales.low, 0.8 * layer.values)
    np.testing.assert_allclose(scales.high, 1.3 * layer.values)
    np.testing.assert_allclose(members.high, 1.1 * layer.values)
    low, high = layer.total()
    np.testing.assert_allclose(high - layer.values, np.hypot(0.3, 0.1) * layer.values)
    np.testing.assert_allclose(layer.values - low, np.hypot(0.2, 0.1) * layer.values)
    assert item.layer("").values.sum() * 10 == pytest.approx(4 / 6)
    # All of these weights change the size alone, and no shape.
    ((shape,),) = fill([tmp_path / "a.h5"], ["pt_j1:20:60:4"], shape=True)
    for shade in shape.layer("").shades:
        np.testing.assert_allclose([shade.low, shade.high], [shape.layer("").values] * 2, atol=1e-15)
    ((plain,),) = fill([tmp_path / "a.h5"], ["pt_j1:20:60:4"], bands=False)
    assert plain.shades == ()


def test_files_of_all_formats_say_the_same(tmp_path: Path) -> None:
    paths = [written(tmp_path / f"a.{ending}", weights=(1, 2, 1, 1, 1, 3)) for ending in ("h5", "lhe", "lhe.gz")]
    (row,) = fill(paths, ["pt_j1"])
    for item in row[1:]:
        np.testing.assert_allclose(item.layer("pb").values, row[0].layer("pb").values, rtol=1e-6)
    assert [item.label for item in row] == ["a.h5", "a.lhe", "a.lhe.gz"]


def test_figures_as_a_user_asks_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "a.h5")
    written(tmp_path / "b.h5", (25.0, 35.0, 45.0), varied=False)
    code, _, err = call("plot", "a.h5", "b.h5", "-x", "pt_j1:20:60:4,n_j", "-x", "dr(j, l)")
    assert code == 1 and "observable dr(j, l): no event has it" in err
    assert "particles of a.h5: mu+, d~, d, mu-; b.h5: mu+," in err and not (tmp_path / "plots").exists()
    done = shell("plot", "a.h5", "b.h5", "-x", "pt_j1:20:60:4,n_j", "--format", "svg", "--format", "png", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"pt_j1 +a\.h5 +4 +0 +1 +1\n +b\.h5 +3 +0 +0 +1\n", done.stdout), done.stdout
    made = {path.name: path.read_bytes() for path in (tmp_path / "plots").iterdir()}
    assert set(made) == {"pt_j1.svg", "pt_j1.png", "n_j.svg", "n_j.png"}
    assert made["pt_j1.svg"].startswith(b"<?xml") and made["n_j.png"].startswith(b"\x89PNG")
    assert call("plot", "a.h5", "b.h5", "-x", "pt_j1:20:60:4", "-q") == (0, "", "")
    assert (tmp_path / "plots" / "pt_j1.svg").read_bytes() == made["pt_j1.svg"]


def test_one_file_holds_all_pages_or_one_figure(tmp_path: Path) -> None:
    file, book = written(tmp_path / "a.h5"), tmp_path / "book.pdf"
    assert call("plot", file, "-x", "pt_j1,n_j", "-o", book, "-q") == (0, "", "")
    assert book.read_bytes().count(b"/Type /Page ") == 2
    before = book.read_bytes()
    assert call("plot", file, "-x", "pt_j1,n_j", "-o", book, "-q")[0] == 0 and book.read_bytes() == before
    code, _, err = call("plot", file, "-x", "pt_j1,n_j", "-o", tmp_path / "a.png")
    assert code and "holds one figure and there are 2: give a folder or a .pdf" in err
    code, _, err = call("plot", file, "-x", "n_j", "-o", book, "--format", "png")
    assert code and "--format is for a folder" in err
    for style in ("cms", "atlas"):
        assert call("plot", file, "-x", "pt_j1", "-o", tmp_path / f"{style}.svg", "--style", style, "-q") == (0, "", "")
    assert (tmp_path / "cms.svg").read_bytes() != (tmp_path / "atlas.svg").read_bytes()


def test_a_run_stands_for_its_events(events_run: Path, tmp_path: Path) -> None:
    code, out, err = call("plot", events_run, "-o", tmp_path / "plots")
    assert (code, err) == (0, "")
    assert "events.h5" in out and (tmp_path / "plots" / "pt_j1.svg").is_file()
    ((item,),) = fill([events_run], ["sqrt_shat:0:100:10"])
    assert item.layer("pb").values[9] * 10 == pytest.approx(item.cross_section)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.h5", "-x", "pt_q"], "no particles 'q'"),
        (["a.h5", "-x", "n_j", "-x", "n_j"], "asked for twice"),
        (["a.h5", "--label", "a", "--label", "b"], "2 labels for 1 paths"),
        (["nowhere.h5"], "no such file"),
        (["a.root"], "an event file ends in one of"),
        (["empty.h5"], "has no events: there is nothing to draw"),
        (["zero.h5"], "add up to zero"),
        (["nan.h5"], "weights are not finite"),
        (["folder"], "holds no file of events"),
        (["a.h5"] * (len(COLOURS) + 1), "samples in one figure"),
        (["a.h5", "-x", "n_j", "-o", "folder/no/a.png"], "cannot write"),
    ],
)
def test_what_cannot_be_drawn_is_said(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(Path("a.h5"))
    written(Path("zero.h5"), weights=(1, -1, 1, -1, 1, -1))
    written(Path("nan.h5"), weights=(1, 1, 1, 1, 1, np.nan))
    write_events("empty.h5", EventBatch.empty(3), INFO)
    Path("folder").mkdir()
    code, _, err = call("plot", *arguments)
    assert code and message in err and err.startswith("error: ")


def test_labels_tell_paths_apart() -> None:
    assert labels_of([Path("a.h5"), Path("b.h5")], ()) == ["a.h5", "b.h5"]
    assert labels_of([Path("x/a.h5"), Path("x/a.h5")], ()) == ["x/a.h5", "x/a.h5"]
    assert labels_of([Path("a.h5")], ["mine"]) == ["mine"]


def test_overlays_show_every_sample_and_its_ratio(tmp_path: Path) -> None:
    (row,) = fill([written(tmp_path / "a.h5"), written(tmp_path / "b.h5", (25.0, 35.0, 45.0))], ["pt_j1:20:60:4"])
    axis, layers = row[0].histogram.axis, [item.layer("pb") for item in row]
    two = overlay(axis, layers, "pb")
    texts = [text.get_text() for text in two.axes[0].get_legend().get_texts()]
    assert any(text.startswith("a.h5 (17 % outside)") for text in texts) and any("chi^2" in text for text in texts)
    alone = overlay(axis, layers[:1], "")
    assert {"Central scale variation", "a set"} < {t.get_text() for t in alone.axes[0].get_legend().get_texts()}
    assert alone.axes[1].get_ylabel() == "relative" and "1 / GeV" in alone.axes[0].get_ylabel()
    low, high = alone.axes[1].get_ylim()
    assert low < 0.8 and high > 1.3
    with pytest.raises(ConfigError, match="0 samples in one figure"):
        overlay(axis, [], "pb")
    nothing = Layer("empty", np.zeros(4), np.zeros(4))
    assert overlay(axis, [nothing, nothing, nothing], "pb").axes[1].get_ylabel() == "ratio"
