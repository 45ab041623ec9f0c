"""Packs: they make the events of their run where neither the user's files nor the run are, and damage is named."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import call, shell
from pdf_grids import write_set

from nisampler.base.storage import read_sealed, write_sealed
from nisampler.errors import CardError, CorruptFileError, StorageError
from nisampler.run.directory import RunDirectory
from nisampler.run.generation.generate import generate_events
from nisampler.run.packing.pack import opened, pack
from nisampler.run.pipeline import execute, start

OWN = """
from pathlib import Path
import numpy as np
import helper_of_a_pack

TABLE = np.loadtxt(Path(__file__).with_name("table.txt"))

class Peak:
    dim = 2
    files = ["deep/notes.txt"]

    def __init__(self, width: float = 0.3, scale: str = "") -> None:
        self.width, self.scale = width, float(Path(scale).read_text()) if scale else 1.0

    def __call__(self, x):
        late = float(Path(__file__).with_name("late.txt").read_text())
        return late * self.scale * TABLE[0] * helper_of_a_pack.bump((x - 0.5) / self.width)
"""
STAND_IN = Path(__file__).parents[1] / "processes" / "amplicol" / "data" / "amplicol_stand_in"
QUICK = '[training]\ncalls = 5000\nsampler = "vegas"\n[integration]\npoints = 2000\n[events]\nn = 20\n'


def make_run(folder: Path, text: str) -> Path:
    (folder / "card.toml").write_text(text)
    with start(folder / "card.toml", folder / "run") as directory:
        execute(directory)
    return folder / "run"


@pytest.fixture(scope="module")
def packed(events_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of `events_run`; not to be changed."""
    target = tmp_path_factory.mktemp("packs") / "ee.nispack"
    pack(RunDirectory.read(events_run), target)
    return target


def events_of(run: Path, target: Path) -> bytes:
    """The bytes of 30 events of a run or a pack."""
    with opened(run) as directory:
        generate_events(directory, 30, 7, target, shard_size=20, formats=["h5"])
    return (target / "events.h5").read_bytes()


def test_a_pack_makes_the_events_of_its_run(events_run: Path, packed: Path, tmp_path: Path) -> None:
    wanted = events_of(events_run, tmp_path / "run")
    assert events_of(packed, tmp_path / "pack") == wanted
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    assert events_of(tmp_path / "unpacked", tmp_path / "again") == wanted
    pack(RunDirectory.read(events_run), tmp_path / "same.nispack")
    assert (tmp_path / "same.nispack").read_bytes() == packed.read_bytes()


def test_a_pack_needs_no_file_of_its_user(tmp_path: Path) -> None:
    home, away = tmp_path / "home", tmp_path / "away"
    (home / "deep").mkdir(parents=True)
    away.mkdir()
    (home / "elsewhere").mkdir()
    content = {
        "mine.py": OWN,
        "helper_of_a_pack.py": "def bump(x):\n    return (-(x**2).sum(1)).exp()\n",
        "table.txt": "2.0 3.0",
        "late.txt": "1.25",
        "deep/notes.txt": "read me",
        "elsewhere/scale.txt": "1.5",
    }
    for name, text in content.items():
        (home / name).write_text(text)
    card = 'process = "mine.py:Peak"\n[parameters]\nwidth = 0.2\nscale = "elsewhere/scale.txt"\n'
    (home / "card.toml").write_text(card + QUICK)
    assert shell("run", "card.toml", "-o", "run", "-q", cwd=home).returncode == 0
    assert shell("generate", "run", "--events", 30, "--seed", 7, "-o", away / "before", "-q", cwd=home).returncode == 0
    done = shell("pack", "run", "-o", away / "p.nispack", cwd=home)
    assert done.returncode == 0 and "sources/mine.py:Peak" in done.stdout and "warning" not in done.stdout
    shutil.rmtree(home)
    for words in (["-o", "after"], ["-o", "spread", "--workers", 2, "--shard-size", 10_000]):
        done = shell("generate", "p.nispack", "--events", 30, "--seed", 7, *words, cwd=away)
        assert done.returncode == 0, done.stderr
        assert "runs code from" in done.stdout and "sources/mine.py" in done.stdout
    wanted = (away / "before" / "events.h5").read_bytes()
    assert (away / "after" / "events.h5").read_bytes() == (away / "spread" / "events.h5").read_bytes() == wanted
    with tarfile.open(away / "p.nispack") as archive:
        archive.extractall(away / "unpacked", filter="data")
    names = {
        path.relative_to(away / "unpacked" / "sources").as_posix() for path in away.glob("unpacked/sources/**/*.*")
    }
    assert names >= {"mine.py", "helper_of_a_pack.py", "table.txt", "late.txt", "deep/notes.txt"}


@pytest.mark.parametrize("script", ["run.sh", "runcmsgrid.sh"])
def test_drivers_of_experiments_find_their_script(events_run: Path, packed: Path, tmp_path: Path, script: str) -> None:
    place, work, tool = tmp_path / "pack", tmp_path / "work", tmp_path / "nisampler"
    work.mkdir()
    with tarfile.open(packed) as archive:
        archive.extractall(place, filter="data")
    tool.write_text('#!/bin/sh\nexec "$PYTHON" -m nisampler "$@"\n')
    tool.chmod(0o755)
    done = subprocess.run(
        [str(place / script), "30", "7", "1"],
        cwd=work,
        env=os.environ | {"NISAMPLER": str(tool), "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in work.iterdir()) == ["cmsgrid_final.lhe", "cmsgrid_final.lhe.json"]
    with opened(events_run) as directory:
        generate_events(directory, 30, 7, tmp_path / "own", formats=["lhe"])
    assert (work / "cmsgrid_final.lhe").read_bytes() == (tmp_path / "own" / "events.lhe").read_bytes()


def test_parton_densities_are_packed_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path, 'process = "drell_yan"\n' + QUICK)
    manifest = pack(RunDirectory.read(run), tmp_path / "with.nispack")
    (name,) = manifest["pdf"]
    assert f"pdf/{name}/{name}_0000.dat" in manifest["files"] and manifest["outside"] == []
    lean = pack(RunDirectory.read(run), tmp_path / "without.nispack", with_pdf=False)
    assert lean["pdf"] == [name] and not any(place.startswith("pdf/") for place in lean["files"])
    wanted = events_of(run, tmp_path / "run-events")
    monkeypatch.setattr("nisampler.processes.partons.sets._pythia_folder", lambda: Path("nowhere"))
    monkeypatch.delenv("LHAPDF_DATA_PATH", raising=False)
    assert events_of(tmp_path / "with.nispack", tmp_path / "packed-events") == wanted
    assert "LHAPDF_DATA_PATH" not in os.environ
    with pytest.raises(Exception, match=f"no PDF set '{name}'"):
        events_of(tmp_path / "without.nispack", tmp_path / "none")


def test_grids_that_a_card_names_are_packed(tmp_path: Path) -> None:
    """By the path of a set, and those of its members that only variations read."""
    home = tmp_path / "home"
    write_set(home)
    card = f'process = "drell_yan"\n[parameters]\npdf = "{home}/toyset"\n{QUICK}[events.variations]\n'
    run = make_run(tmp_path, card + f'pdfs = ["{home}/toyset/1-2"]\n')
    manifest = pack(RunDirectory.read(run), tmp_path / "p.nispack")
    assert (
        manifest["parameters"] == {"pdf": "files/pdf/toyset"}
        and manifest["pdf"] == ["toyset"]
        and manifest["outside"] == []
    )
    wanted = events_of(run, tmp_path / "before")
    home.rename(tmp_path / "gone")
    assert events_of(tmp_path / "p.nispack", tmp_path / "after") == wanted


def test_generated_amplitudes_are_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With those of the colour flows, which only events need; another pyamplicol generates nothing into a pack."""
    monkeypatch.syspath_prepend(str(STAND_IN))
    monkeypatch.setenv("NISAMPLER_CACHE", str(tmp_path / "home"))
    run = make_run(
        tmp_path,
        'process = "w_plus_jets"\n[parameters]\nn_jets = 2\nmatrix_element = "pyamplicol"\n'
        + QUICK.replace("n = 20", "n = 0"),
    )
    manifest = pack(RunDirectory.read(run), tmp_path / "p.nispack")
    kinds = [place.split("/")[2].split("-")[2] for place in manifest["files"] if place.startswith("cache/amplicol/")]
    assert set(kinds) == {"full", "lc"} and manifest["outside"] == []
    wanted = events_of(run, tmp_path / "before")
    monkeypatch.setenv("NISAMPLER_CACHE", str(tmp_path / "away"))
    assert events_of(tmp_path / "p.nispack", tmp_path / "after") == wanted
    assert not (tmp_path / "away" / "amplicol").exists()
    monkeypatch.setattr("nisampler.processes.amplicol.cache.importlib.metadata.version", lambda name: "9.9")
    with pytest.raises(CardError, match=r"and none of the installed 9\.9 for .*: pip install --no-deps pyamplicol=="):
        events_of(tmp_path / "p.nispack", tmp_path / "other")


def test_a_name_is_no_folder_that_happens_to_lie_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "chili").mkdir()
    (tmp_path / "chili" / "diary.txt").write_text("private")
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path, 'process = "drell_yan"\n[parameters]\nchannels = "chili"\n' + QUICK)
    manifest = pack(RunDirectory.read(run), tmp_path / "p.nispack")
    assert manifest["parameters"] == {} and not any("diary" in name for name in manifest["files"])
    assert events_of(tmp_path / "p.nispack", tmp_path / "a") == events_of(run, tmp_path / "b")


def test_a_moved_run_works(events_run: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(events_run, tmp_path / "moved"))
    assert events_of(moved, tmp_path / "a") == events_of(events_run, tmp_path / "b")


Change = Callable[[dict[str, bytes]], None]


def _alter(files: dict[str, bytes]) -> None:
    files["run/card.toml"] += b"# more\n"


def _lose(files: dict[str, bytes]) -> None:
    del files["run/integration/checkpoint.json"]


def _other_release(files: dict[str, bytes]) -> None:
    _reseal(files, version=99)


def _no_manifest(files: dict[str, bytes]) -> None:
    del files["manifest.json"]


def _careless(files: dict[str, bytes]) -> None:
    files["manifest.json"] = files["manifest.json"].replace(b"nisampler-pack", b"nisampler-pacK")


def _reseal(files: dict[str, bytes], **changes: Any) -> None:
    place = Path("manifest.json").absolute()
    try:
        place.write_bytes(files["manifest.json"])
        write_sealed(place, read_sealed(place) | changes)
        files["manifest.json"] = place.read_bytes()
    finally:
        place.unlink()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (_alter, CorruptFileError, r"run/card\.toml in the pack was altered: fetch or make the pack again"),
        (_lose, CorruptFileError, r"the pack lacks run/integration/checkpoint\.json"),
        (_other_release, StorageError, "of a pack that another release made"),
        (_no_manifest, CorruptFileError, r"is not a pack, it has no manifest\.json"),
        (_careless, CorruptFileError, r"manifest\.json was altered"),
    ],
)
def test_altered_packs_are_refused(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change, error: type[Exception], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with tarfile.open(packed) as archive:
        files = {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]
    change(files)
    with tarfile.open(tmp_path / "bad.nispack", "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    with pytest.raises(error, match=message), opened(tmp_path / "bad.nispack"):
        pass


def test_files_that_are_no_packs(packed: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.nispack"
    for content in (b"", b"text", packed.read_bytes()[:700], packed.read_bytes()[: packed.stat().st_size // 2]):
        path.write_bytes(content)
        with pytest.raises(CorruptFileError, match="pack"), opened(path):
            pass
    entry = tarfile.TarInfo("../outside")
    with tarfile.open(path, "w") as archive:
        archive.addfile(entry, io.BytesIO())
    with pytest.raises(CorruptFileError, match="is not a pack"), opened(path):
        pass
    assert not (tmp_path / "outside").exists()


def test_what_cannot_be_packed(events_run: Path, tmp_path: Path) -> None:
    code, _, err = call("pack", tmp_path, "-o", tmp_path / "p.nispack")
    assert code == 1 and "is not a run directory" in err
    (tmp_path / "there").write_text("")
    code, _, err = call("pack", events_run, "-o", tmp_path / "there")
    assert code == 1 and "there exists" in err
    text = (
        "class Flat:\n    dim = 1\n    files = ['../secret']\n    def __call__(self, x):\n        return 1 + x[:, 0]\n"
    )
    (tmp_path / "mine.py").write_text(text)
    run = make_run(tmp_path, f'process = "{tmp_path}/mine.py:Flat"\n' + QUICK)
    with pytest.raises(StorageError, match=r"names the file \.\./secret, which is not in"):
        pack(RunDirectory.read(run), tmp_path / "p.nispack")
    assert not (tmp_path / "p.nispack").exists()
