"""The commands `new`, `card`, `processes`, and the completion of shells."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import call

from nisampler.errors import ProcessError
from nisampler.run import lookup
from nisampler.run.advice.cards import card_text
from nisampler.run.advice.commands import complete_key, complete_process
from nisampler.run.card import load_card


def test_new_prints_a_card(tmp_path: Path) -> None:
    code, out, err = call("new", "z_jets")
    assert (code, err) == (0, "") and out == card_text("z_jets")
    (tmp_path / "card.toml").write_text(out)
    assert load_card(tmp_path / "card.toml").parameters["n_jets"] == 0
    own = f"{Path(__file__).parents[2] / 'examples' / 'my_matrix_element.py'}:MuonPair"
    code, out, err = call("new", own)
    assert code == 0 and out == card_text(own) and err == f"runs code from {own.rpartition(':')[0]}\n"
    code, out, err = call("new", "z_jet")
    assert code == 1 and out == "" and "Did you mean 'z_jets'" in err
    code, out, err = call("new", "p p > e+ nu")
    assert code == 1 and out == "" and "unknown particle 'nu'" in err


def test_card_lists_and_explains() -> None:
    code, out, err = call("card")
    assert (code, err) == (0, "")
    names = [line.split()[0] for line in out.splitlines()]
    assert names[:2] == ["key", "process"] and {"[training.flow]", "training.flow.batch", "events.n"} <= set(names)
    code, out, err = call("card", "flow.batch")
    assert code == 0 and out.splitlines()[0].split() == ["key", "training.flow.batch"]
    assert "a whole number, at least 2" in out and "calls/4000" in out
    code, out, err = call("card", "m_min", "--process", "z_jets")
    assert code == 0 and "66.0" in out and out.count("parameters.m_min") == 1
    code, out, err = call("card", "unweighting")
    assert code == 0 and "unweighting.two_stage" in out
    code, out, err = call("card", "--process", "camel")
    assert code == 0 and "parameters.sigma" in out
    code, out, err = call("card", "flow.bacth")
    assert code == 2 and out == "" and "training.flow.batch" in err


def test_processes_name_strings_and_own_code() -> None:
    code, out, err = call("processes")
    assert code == 0 and err == "" and "ttbar_jet" in out and "p p > " in out and "module:object" in out


def completed(words: str, cwd: Path) -> list[str]:
    """What the shell is offered at the end of these words."""
    environment = os.environ | {
        "_NISAMPLER_COMPLETE": "complete_bash",
        "COMP_WORDS": f"nisampler {words}",
        "COMP_CWORD": str(len(words.split())),
    }
    code = "import sys; sys.argv = ['nisampler']; from nisampler.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_shells_complete_commands_processes_and_keys(tmp_path: Path) -> None:
    assert completed("new camel", tmp_path) == ["camel"]
    assert "processes" in completed("proc", tmp_path)
    assert complete_key("training.tree.") == ["training.tree.on", "training.tree.leaves"]
    assert {"parameters.pt_jet_min", "parameters.sigma"} <= set(complete_key("parameters."))
    assert len(complete_process("genz_")) == 6 and complete_process("nothing") == complete_key("nothing") == []


def test_completion_never_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ProcessError(name)

    monkeypatch.setattr(lookup, "_load", broken)
    assert complete_process("ca") == complete_key("parameters.") == []
