"""The command line: every command, its exit code, and one clear message for each error."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from commands import call, shell
from typer.testing import CliRunner

from nisampler import __version__
from nisampler.base.extras import install
from nisampler.cli import Style, app
from nisampler.ui import plots

CARD = """
process = "ee_to_3jets"
threads = 1
[training]
calls = 5000
sampler = "vegas"
[integration]
points = 2000
[events]
n = 100
shard_size = 60
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a card and, in `done`, the run of it, made by a command of its own."""
    path = tmp_path_factory.mktemp("cli")
    (path / "card.toml").write_text(CARD)
    done = shell("run", "card.toml", "--output", "done", "--events", "110", cwd=path)
    assert done.returncode == 0, done.stderr
    (path / "stdout").write_text(done.stdout)
    assert done.stderr == ""
    return path


def result_of(run: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((run / "result.json").read_text())
    return result


def test_run_end_to_end(folder: Path) -> None:
    run, text = folder / "done", (folder / "stdout").read_text()
    assert result_of(run)["unweighting"]["n_events"] == 110
    assert {"card.toml", "run.log", "result.json", "report.html", "events.lhe.gz"} <= {p.name for p in run.iterdir()}
    for words in ("integral ", " pb ", "efficiency ", "done/report.html", "ee_to_3jets, seed 1, cpu, 1 thread(s)"):
        assert words in text
    assert "\x1b" not in text
    log = (run / "run.log").read_text()
    assert "sampler: vegas" in log and "finished: " in log


def test_explain_writes_a_picture_and_a_list(folder: Path, tmp_path: Path) -> None:
    arguments = ("explain", folder / "done", "--points", 2000, "--worst", 20, "--output", tmp_path / "why")
    code, out, err = call(*arguments)
    assert (code, err) == (0, "")
    assert "the 20 largest of 2000 weights" in out and "y23" in out and "by chance" in out
    written = {path.name: path.read_bytes() for path in (tmp_path / "why").iterdir()}
    assert set(written) == {"explained.svg", "losses.svg", "explained.csv"}
    assert written["explained.csv"].decode().count("\n") == 21
    assert call(*arguments, "--quiet") == (0, "", "")
    assert {path.name: path.read_bytes() for path in (tmp_path / "why").iterdir()} == written
    code, _, err = call("explain", folder / "done", "--points", 100, "--output", tmp_path / "few")
    assert code and "choose at least 10, and ten times as many points" in err
    code, _, err = call("explain", tmp_path)
    assert code and "is not a run directory" in err


def test_overrides(folder: Path, tmp_path: Path) -> None:
    card = folder / "card.toml"
    code, out, err = call("run", card, "-o", tmp_path / "a", "--seed", 7, "--events", 0, "--device", "cpu", "--quiet")
    assert (code, out, err) == (0, "", "")
    assert result_of(tmp_path / "a")["seed"] == 7
    code, out, err = call("resume", tmp_path / "a")
    assert code == 0 and "integral" in out and err == ""


def test_check(folder: Path, tmp_path: Path) -> None:
    code, out, err = call("check", folder / "done" / "events.lhe.gz")
    assert code == 0 and err == ""
    assert "events found" in out and "110" in out and out.rstrip().endswith("good")
    code, out, err = call("check", folder / "done" / "events" / "events-00001.h5")
    assert code == 0 and "50" in out
    bad = tmp_path / "events.lhe.gz"
    bad.write_bytes((folder / "done" / "events.lhe.gz").read_bytes()[:3000])
    code, out, err = call("check", bad)
    assert code == 1 and "problem: " in err and str(bad) in err
    assert call("check", folder / "card.toml")[0] == 1
    code, _, err = call("check", folder / "none.lhe")
    assert code == 1 and "none.lhe" in err
    strict = call("check", folder / "done" / "events.lhe.gz", "--tolerance", "1e-30")
    assert strict[0] == 1 and "momentum" in strict[2]


def test_generate(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "done", run)
    code, out, err = call("generate", run, "--events", 70, "--seed", 5)
    assert code == 0 and err == "" and "generated-5/events.lhe.gz" in out
    code, out, err = call("generate", run, "--events", 70, "--seed", 5, "--output", tmp_path / "again", "--quiet")
    assert (code, out, err) == (0, "", "")
    first, again = run / "generated-5" / "events.lhe.gz", tmp_path / "again" / "events.lhe.gz"
    assert first.read_bytes() == again.read_bytes()
    code, out, _ = call("generate", run, "--events", 110, "--seed", 1)
    assert code == 0 and "repeat the run's own" in out
    assert (run / "generated-1" / "events.lhe.gz").read_bytes() == (run / "events.lhe.gz").read_bytes()
    code, _, err = call("generate", run, "--events", 71, "--seed", 5)
    assert code == 1 and "generated-5 holds other events" in err
    assert call("check", again)[0] == 0


def test_report(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "done", run)
    (run / "report.html").unlink()
    code, out, err = call("report", run)
    assert code == 0 and "report.html" in out and err == ""
    assert "distribution-thrust" in (run / "report.html").read_text()
    assert call("report", run, "--style", "opal")[0] == 2
    monkeypatch.setitem(sys.modules, "mplhep", None)
    code, out, err = call("report", run, "--style", "cms")
    assert code == 1 and out == "" and install("plots") in err


def test_styles_are_those_of_the_plots() -> None:
    assert [str(style) for style in Style] == list(plots.STYLES)


def test_processes() -> None:
    code, out, _ = call("processes")
    assert code == 0 and "ee_to_3jets" in out and "module:object" in out


def test_version_and_help() -> None:
    assert call("--version")[:2] == (0, f"nisampler {__version__}\n")
    code, out, _ = call("--help")
    assert code == 0
    for command in ("run", "resume", "generate", "report", "check", "processes"):
        assert command in out
        assert call(command, "--help")[0] == 0


def test_card_errors_are_usage_errors(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text(CARD + "[training]\nbacth = 3")
    code, out, err = call("run", tmp_path / "card.toml", "-o", tmp_path / "run")
    assert code == 2 and out == "" and err.startswith("error: ") and "card.toml" in err
    (tmp_path / "card.toml").write_text(CARD + "bacth = 3")
    code, _, err = call("run", tmp_path / "card.toml", "-o", tmp_path / "run")
    assert code == 2 and "unknown key events.bacth = 3" in err
    assert call("run", tmp_path / "none.toml", "-o", tmp_path / "run")[0] == 2
    assert call("run", folder / "card.toml", "-o", tmp_path / "run", "--device", "gpu")[0] == 2
    assert call("run", folder / "card.toml")[0] == 2
    assert call("generate", folder / "done")[0] == 2
    assert call("nonsense")[0] == 2
    assert not (tmp_path / "run").exists()


def test_existing_and_missing_runs(folder: Path, tmp_path: Path) -> None:
    code, _, err = call("run", folder / "card.toml", "-o", folder / "done")
    assert code == 1 and f"nisampler resume {folder / 'done'}" in err
    for command in (["resume"], ["report"], ["generate", "--events", 1, "--seed", 1]):
        code, _, err = call(*command, tmp_path)
        assert code == 1 and "is not a run directory" in err


def raising(error: BaseException) -> Callable[..., Any]:
    def function(*_: Any, **__: Any) -> Any:
        raise error

    return function


def test_interrupt_says_how_to_resume(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nisampler.api.Chain.train", raising(KeyboardInterrupt()))
    run = tmp_path / "a run"
    code, _, err = call("run", folder / "card.toml", "-o", run, "--quiet")
    assert code == 130 and err == f"interrupted: `nisampler resume '{run}'` continues\n"
    code, _, err = call("report", run)
    assert code == 1 and f"`nisampler resume '{run}'` first" in err
    code, _, err = call("run", folder / "card.toml", "-o", run)
    assert code == 1 and f"`nisampler resume '{run}'` continues it" in err
    code, _, err = call("resume", run, "--quiet")
    assert code == 130 and "nisampler resume" in err
    monkeypatch.undo()
    assert call("resume", run, "--quiet")[0] == 0
    assert result_of(run)["unweighting"]["n_events"] == 100


def test_the_systems_request_to_end_is_like_an_interrupt(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    run, more = tmp_path / "run", tmp_path / "more events"
    monkeypatch.setattr("nisampler.api.Chain.train", end)
    code, _, err = call("run", folder / "card.toml", "-o", run, "--quiet")
    assert code == 143 and err == f"ended by SIGTERM: `nisampler resume {run}` continues\n"
    assert "Terminated: SIGTERM" in (run / "run.log").read_text()
    monkeypatch.undo()
    assert call("resume", run, "--quiet")[0] == 0
    again = ["generate", run, "--events", 20, "--seed", 5]
    monkeypatch.setattr("nisampler.run.generation.generator.Generator.fill", end)
    code, _, err = call(*again, "--output", more, "-q")
    words = " ".join(map(str, again))
    assert code == 143 and err == f"ended by SIGTERM: `nisampler {words} --output '{more}'` continues\n"
    assert "Terminated: SIGTERM" in (more / "run.log").read_text()
    monkeypatch.setattr("nisampler.run.report.drawing.render", end)
    code, _, err = call("report", run)
    assert code == 143 and err == "ended by SIGTERM: start the command again\n"
    monkeypatch.undo()
    assert call(*again, "--output", more, "-q")[0] == 0 and call("report", run)[0] == 0


@pytest.mark.parametrize(("number", "how"), [(signal.SIGTERM, "ended by SIGTERM"), (signal.SIGINT, "interrupted")])
def test_a_request_that_a_library_turns_into_an_error_of_its_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, how: str
) -> None:
    def swallow(*_: object, **__: object) -> None:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(number)
        raise ValueError("a callback failed")

    monkeypatch.setattr("nisampler.api.Chain.train", swallow)
    code, _, err = call("run", folder / "card.toml", "-o", tmp_path / "run", "--quiet")
    assert code == 128 + number and err == f"{how}: `nisampler resume {tmp_path / 'run'}` continues\n"


@pytest.mark.parametrize(
    ("error", "words"),
    [(OSError(28, "No space left on device"), "No space left"), (ValueError("odd"), "unexpected ValueError: odd")],
)
def test_other_errors_are_one_message(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    monkeypatch.setattr("nisampler.api.Chain.train", raising(error))
    code, _, err = call("run", folder / "card.toml", "-o", tmp_path / "run", "--quiet")
    assert code == 1 and words in err


def test_debug_shows_the_traceback(folder: Path, tmp_path: Path) -> None:
    arguments = ["run", str(tmp_path / "none.toml"), "-o", str(tmp_path / "run")]
    done = CliRunner().invoke(app, ["--debug", *arguments])
    assert done.exit_code == 2 and "Traceback" in done.stderr and "none.toml" in done.stderr


def test_module_and_errors_outside(tmp_path: Path) -> None:
    """As a command of its own: no traceback, the message on stderr alone."""
    done = shell("resume", "nowhere", cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == "error: nowhere is not a run directory: `nisampler run CARD --output DIR` makes one\n"
