"""Runs whose card names code besides a process: a UMAMI library, functions as amplitude, scale and cut; their packs."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from commands import call, shell
from compiled import library
from pdf_grids import write_set

from nisampler.events import EventFile

CARD = """
process = "umami:libtoy.so p p > e- e+"
[parameters]
pdf = "toyset/toyset_0000.dat"
combinations = [["u u~ > e+ e-", "c c~ > e+ e-"], ["d d~ > e+ e-", "s s~ > e+ e-", "b b~ > e+ e-"]]
scale = "code/mine.py:scale"
cuts = ["m(e+, e-) in [60, 120]", "code/mine.py:right"]
[training]
calls = 8000
sampler = "vegas"
[integration]
points = 20_000
[events]
n = 50
formats = ["lhe"]
"""
CODE = """
import math

def scale(p):
    return p[:, :, 0].sum(1).clamp(min=10.0)

def right(p):
    return p[:, :, 3].sum(1) > 0

def squared(p, alpha_s, codes):
    # The same as the toy library, whose legs are quark, antiquark, e+, e-.
    quark = 0 if codes[0] > 0 else 1
    def product(a, b):
        q = p[:, a] * p[:, b]
        return q[:, 0] - q[:, 1:].sum(1)
    t, u, s = product(quark, 3), product(quark, 2), product(0, 1)
    charge = -1 / 3 if codes[0] % 2 else 2 / 3
    return 2 * (1 + alpha_s) * (4 * math.pi / 137) ** 2 * charge**2 * (t**2 + 2 * u**2) / (3 * s**2)
"""


def made(place: Path) -> Path:
    """A folder with a card, and with all that it names."""
    (place / "code").mkdir(parents=True)
    (place / "code" / "mine.py").write_text(CODE)
    write_set(place)
    library(place)
    (place / "card.toml").write_text(CARD)
    return place


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return made(tmp_path / "home")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which the card was run by the command line, and what that said; not to be changed."""
    place = made(tmp_path_factory.mktemp("ran") / "home")
    done = shell("run", "card.toml", "-o", "run", cwd=place)
    assert done.returncode == 0, done.stderr
    return place, done.stdout


def integral(run: Path) -> tuple[float, float]:
    found = json.loads((run / "result.json").read_text())["integral"]
    return found["value"], found["error"]


def test_a_library_is_the_same_function_in_python(ran: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    place, told = ran
    said = "".join(told.split())
    assert said.count("runscodefrom") == 2 and "libtoy.so" in said and "code/mine.py" in said
    monkeypatch.chdir(place)
    same = CARD.replace("umami:libtoy.so ", "").replace("cuts =", 'amplitude = "code/mine.py:squared"\ncuts =')
    (place / "same.toml").write_text(same.split("combinations")[0] + same[same.index("scale") :])
    assert call("run", "same.toml", "-o", "same", "-q")[0] == 0
    value, error = integral(place / "run")
    other, spread = integral(place / "same")
    assert value > 0 and abs(value - other) < 4 * math.hypot(error, spread) and error < 0.05 * value
    head = (place / "run" / "events.lhe").read_text().split("</header>")[0]
    assert "MassCut" in head and "code/mine.py:right" in head
    assert EventFile.open(place / "run" / "events.lhe").declared == 50


def test_a_pack_needs_no_library_and_no_file_of_its_user(
    ran: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ran[0])
    words = ["--events", 20, "--seed", 7, "-o"]
    assert call("generate", "run", *words, tmp_path / "before", "-q")[0] == 0
    code, told, _ = call("pack", "run", "-o", tmp_path / "p.nispack")
    assert code == 0 and "libtoy.so" in told and "warning" not in told
    done = shell("generate", "p.nispack", *words, "after", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = "".join(done.stdout.split())
    assert str(ran[0]) not in said and "sources/libtoy.so" in said and "files/cuts/1/mine.py" in said
    records = [(tmp_path / name / "events.lhe").read_text().split("</init>")[1] for name in ("before", "after")]
    assert records[0] == records[1] and records[0].count("<event>") == 20


def test_changed_code_is_not_run_on_with(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    assert call("run", "card.toml", "-o", "run", "-q")[0] == 0
    shutil.rmtree("run/integration")
    for changed in (home / "code" / "mine.py", home / "libtoy.so"):
        # A file that is loaded is replaced, not overwritten.
        kept = changed.rename(changed.with_name("kept"))
        changed.write_bytes(kept.read_bytes() + b"\n")
        code, _, err = call("resume", "run")
        assert code != 0 and "was changed since" in " ".join(err.split())
        assert changed.name in "".join(err.split())
        kept.replace(changed)
    assert call("resume", "run", "-q")[0] == 0
    (home / "libtoy.so").unlink()
    code, _, err = call("resume", "run")
    assert code != 0 and "is missing" in " ".join(err.split())


BAD = {
    "no such orders": ('"u d > e+ ve QCD=0"', "", "no diagram"),
    "powers that there are": ('"u u~ > e+ e- QCD=0 QED=1"', "", "there are QCD=0 QED=2"),
    "unknown particle": ('"p p > e+ zz"', "", "unknown particle 'zz'"),
    "charge": ('"p p > e+ e+"', "", "charge is -4/3 to 4/3 before, 2 after"),
    "leptons": ('"p p > e+ mu-"', "", "the number of electrons is 0 before, -1 after"),
    "library without a process": ('"umami:text.so"', "", "read 'umami:libX.so p p > e- e+'"),
    "no density": ('"t t~ > w+ w-"', "", "beams are two protons"),
    "no flavour in the densities": ('"b b~ > e+ e-"', 'pdf = "few.dat"', "few.dat has no density of b~"),
    "cuts": ('"p p > e+ e-"', 'cuts = ["pt(l) > 50", "m(e+, e-) < 20"]\ndelta_r_ll_min = 1.0', "contradictory cuts"),
    "beyond the energy": ('"p p > e+ e-"', 'cuts = ["pt(e+) > 100"]\nsqrt_s = 150.0', "contradictory cuts"),
    "unread cut": ('"p p > e+ e-"', 'cuts = ["pt(e+) = 50"]', "cannot be read; write"),
    "no library": ('"umami:text.so p p > e+ e-"', "", "cannot be loaded as a shared library"),
    "no file": ('"umami:none.so p p > e+ e-"', "", "there is no matrix element"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    process, parameters, message = BAD[name]
    folder = write_set(tmp_path)
    (tmp_path / "text.so").write_text("no library")
    text = (folder / "toyset_0000.dat").read_text()
    (tmp_path / "few.dat").write_text(without_bottom(text))
    pdf = "" if "pdf" in parameters else 'pdf = "toyset/toyset_0000.dat"\n'
    (tmp_path / "card.toml").write_text(f"process = {process}\n[parameters]\n{pdf}{parameters}\n")
    code, _, err = call("run", "card.toml", "-o", "run")
    assert code != 0 and message in " ".join(err.split()), err
    assert not (tmp_path / "run").exists()


def without_bottom(text: str) -> str:
    """A grid without its first and last column."""
    head, body, end = text.split("---\n")
    *axes, flavours = body.split("\n")[:3]
    rows = [" ".join(row.split()[1:-1]) for row in body.split("\n")[3:] if row]
    return "---\n".join([head, "\n".join([*axes, " ".join(flavours.split()[1:-1]), *rows, ""]), end])
