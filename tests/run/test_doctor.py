"""`nisampler doctor`: what is there, what is missing and how to mend it."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import warnings
from importlib.metadata import requires
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from commands import call
from packaging.requirements import Requirement
from pdf_grids import write_set

from nisampler.base import kept
from nisampler.base.extras import EXTRAS, install
from nisampler.base.findings import Finding, kernel
from nisampler.errors import ProcessError
from nisampler.processes.partons.sets import stored_sets
from nisampler.run.advice import doctor
from nisampler.run.advice.doctor import as_data, examined, is_healthy

OPTIONAL = [Requirement(line) for line in requires("nisampler") or () if "extra ==" in line]
# Finders that do not find some packages, neither modules nor what is installed.
HIDING = """
import sys
hidden = set(sys.argv.pop(1).split(","))
def name_of(text):
    return text.lower().replace("-", "_")
class Finder:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name_of(name) in hidden else self.finder.find_spec(name, path, target)
    def find_distributions(self, context):
        found = getattr(self.finder, "find_distributions", lambda context: ())(context)
        return (one for one in found if name_of(one.metadata["Name"]) not in hidden)
    def invalidate_caches(self):
        getattr(self.finder, "invalidate_caches", lambda: None)()
sys.meta_path[:] = map(Finder, sys.meta_path)
from nisampler.cli import main
main()
"""


def without(names: set[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command in a process where these packages are not installed."""
    hidden = ",".join(name.lower().replace("-", "_") for name in names)
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", HIDING, hidden, "doctor", "--json"],
        env=os.environ | {"NISAMPLER_CACHE": str(cwd)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_every_missing_extra_is_named_with_what_to_install(tmp_path: Path) -> None:
    names = {requirement.name for requirement in OPTIONAL} - {"nisampler", "packaging"}
    modules = {"dask_jobqueue", "backports.zstd", "sklearn"}
    done = without(names | modules, tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    found = {(item["part"], item["name"]): item for item in json.loads(done.stdout)["findings"]}
    for extra in EXTRAS:
        item = found["extras", f"[{extra}]"]
        assert item["state"] == "missing" and item["mend"] == install(extra)
        for requirement in OPTIONAL:
            if requirement.marker is not None and requirement.marker.evaluate({"extra": extra}):
                assert requirement.name in item["text"] or requirement.name in {"nisampler", "packaging"}
    for name in ("flows", "event files, density trees", "matrix elements", "parton densities"):
        assert found["kernels", name]["state"] == "missing" and found["kernels", name]["mend"] == install("fast")
    assert found["parton densities", "pythia8mc"]["mend"] == install("shower")
    assert found["packages", "torch"]["state"] == "good"


def test_a_missing_requirement_fails(tmp_path: Path) -> None:
    done = without({"vegas", "llvmlite", "numba"}, tmp_path)
    assert done.returncode == 1
    items = json.loads(done.stdout)["findings"]
    broken = [item for item in items if item["state"] == "broken"]
    assert broken[0]["name"] == "vegas" and "pip install 'vegas>=" in broken[0]["mend"]


def test_all_parts_are_good_here() -> None:
    code, out, err = call("doctor")
    assert (code, err) == (0, "")
    for words in ("packages", "torch", "extras", "[lhe]", "kernels", "compiled by llvmlite", "caches", "densities"):
        assert words in out
    parts = [line for line in out.splitlines() if not line.startswith(" ")]
    assert parts == ["packages", "extras", "kernels", "parton densities", "machine", "caches"]
    code, out, err = call("doctor", "--json")
    assert code == 0 and json.loads(out)["healthy"] is True


def only(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(doctor, "_requirements", lambda extra="": iter(map(Requirement, lines)))


def test_wrong_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "numpy<1", "nowhere-to-be-found>=2", "torch")
    found = {item.name: item for item in doctor._packages()}
    assert found["numpy"].state == "broken" and "is none of <1" in found["numpy"].text
    assert (
        found["nowhere-to-be-found"].state == "broken" and "nowhere-to-be-found>=2" in found["nowhere-to-be-found"].mend
    )
    assert found["torch"].state == "good" and not is_healthy(list(found.values()))
    extra = next(doctor._extras())
    assert extra.state == "failing" and "missing: nowhere-to-be-found" in extra.text and "none of <1" in extra.text
    assert is_healthy([extra])
    code, out, _ = call("doctor")
    assert code == 1 and "-> pip install" in out


def test_a_package_that_does_not_load_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> Any:
        raise OSError("libcudart.so.12: cannot open shared object file")

    only(monkeypatch, "torch")
    monkeypatch.setattr(importlib, "import_module", load)
    assert [item.text for item in doctor._packages() if item.state == "broken"] == [
        "OSError: libcudart.so.12: cannot open shared object file"
    ]


def test_a_folder_on_the_path_is_no_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed", lambda: None)
    own = next(item for item in doctor._packages() if item.name == "nisampler")
    assert own.state == "broken" and own.mend.startswith("pip install") and list(doctor._requirements()) == []


def test_what_fails_while_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise ProcessError("no registry")

    monkeypatch.setattr("nisampler.run.lookup.findings", broken)
    assert Finding("processes", "looking at it", "broken", "ProcessError: no registry") in examined()


def test_kernels() -> None:
    def warns() -> None:
        warnings.warn("splines run in plain torch, because", UserWarning, stacklevel=1)

    def raises() -> None:
        raise RuntimeError("no processor")

    found = [kernel("x", load, "json") for load in (warns, raises, lambda: None, lambda: True)]
    assert [item.state for item in found] == ["failing", "failing", "failing", "good"]
    assert "plain torch" in found[0].text and "RuntimeError: no processor" in found[1].text
    assert as_data(found)["healthy"] is True


def test_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(kept.VARIABLE, str(tmp_path / "here"))
    (tmp_path / "here" / "pdf-1").mkdir(parents=True)
    (tmp_path / "here" / "pdf-1" / "a.kept").write_bytes(bytes(2500))
    own = next(doctor._caches())
    assert own.state == "good" and own.text.startswith("2.5 kB in ") and "$NISAMPLER_CACHE" in own.text
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    own = next(doctor._caches())
    assert own.state == "failing" and "NISAMPLER_CACHE" in own.mend

    def nobody(kind: str, own: bool) -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(kept, "cache_folder", nobody)
    assert "nothing is kept" in next(doctor._caches()).text


def test_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    about = SimpleNamespace(name="H200", total_memory=141e9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: about)
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    found = {item.name: item for item in doctor._machine()}
    assert found["cuda:0"].state == "good" and found["cuda:0"].text.startswith("H200, 141 GB")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert "none that torch (built for CUDA 12.8) can use" in [item.text for item in doctor._machine()]


def test_sets_of_parton_densities(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = write_set(tmp_path / "sets")
    monkeypatch.setenv("LHAPDF_DATA_PATH", os.pathsep.join([str(folder.parent), str(tmp_path / "none")]))
    first, second, *_ = stored_sets()
    assert (first.name, first.state, first.text) == (str(folder.parent), "good", folder.name)
    assert (second.state, second.text) == ("note", "no sets")
