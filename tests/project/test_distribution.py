"""The sdist and the wheel: what is in them, how large they are, and that the wheel's command runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

from nisampler import __version__
from nisampler.base.extras import EXTRAS

ROOT = Path(__file__).resolve().parents[2]
TREES = {"nisampler": "nisampler", "calo": "nisampler/calo", "processes": "nisampler/processes"}
FILES = ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md")
# Today's are 1.6 and 1.4 MB.
MOST_BYTES = 2_000_000
BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, sys.argv[1])(sys.argv[2]))
"""


def done(*words: object, cwd: Path, **environment: str) -> str:
    """Standard output of a command that must not fail."""
    plain = {name: value for name, value in os.environ.items() if name not in {"NIS_ROOT", "PYTHONPATH"}}
    found = subprocess.run(
        list(map(str, words)),
        cwd=cwd,
        env=plain | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, built from a copy of the source, and the wheel, built from the sdist as pip does."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    for tree in (*TREES, "tests"):
        shutil.copytree(ROOT / tree, source / tree, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source)
    done(sys.executable, "-c", BUILD, "build_sdist", folder, cwd=source)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    done(sys.executable, "-c", BUILD, "build_wheel", folder, cwd=unpacked)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def shipped() -> set[str]:
    """What belongs in a wheel: modules, and the files that they read."""
    found = set()
    for tree, package in TREES.items():
        for path in (ROOT / tree).rglob("*"):
            if path.suffix in {".py", ".safetensors"} or path.name == "py.typed":
                found.add(f"{package}/{path.relative_to(ROOT / tree)}")
    return found


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert archive.testzip() is None
    assert names == shipped()
    assert {"nisampler/py.typed", "nisampler/calo/models/presets/catalogue.py"} <= names
    assert len([name for name in names if name.endswith("kernels.safetensors")]) == 3
    assert not [name for name in names if "test_" in name or name.startswith(("tests/", "benchmarks/", "examples/"))]


def test_sizes_and_names(built: Path, wheel: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    assert (
        wheel.name == f"nisampler-{__version__}-py3-none-any.whl" and source.name == f"nisampler-{__version__}.tar.gz"
    )
    assert wheel.stat().st_size < MOST_BYTES and source.stat().st_size < MOST_BYTES
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "processes/registry.py", "calo/recipe.py"} <= names
    assert not [name for name in names if name.startswith("tests")]


def test_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = f"nisampler-{__version__}.dist-info"
        head = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
        points = archive.read(f"{info}/entry_points.txt").decode()
        assert f"{info}/licenses/LICENSE" in archive.namelist()
    assert (head["Name"], head["Version"], head["Requires-Python"]) == ("nisampler", __version__, ">=3.11")
    assert set(head.get_all("Provides-Extra", [])) == set(EXTRAS)
    assert str(head.get_payload()).startswith("# nisampler")
    assert "nisampler = nisampler.cli:main" in points and "create = nisampler.processes.registry:create" in points


def test_the_command_of_the_wheel_runs(wheel: Path, tmp_path: Path) -> None:
    """From a folder of its own, where processes, kernels and advice are those of the wheel."""
    pytest.importorskip("pip")
    target = tmp_path / "target"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    done(*pip, "--no-deps", "--no-index", "--no-compile", "--target", target, wheel, cwd=tmp_path)
    script = target / "bin" / "nisampler"
    assert done(script, "--version", cwd=tmp_path, PYTHONPATH=str(target)) == f"nisampler {__version__}\n"
    assert 'process = "camel4"' in done(script, "new", "camel4", cwd=tmp_path, PYTHONPATH=str(target))
    code = (
        "import nisampler, nisampler.calo, nisampler.processes.registry as registry; "
        "from nisampler.base.extras import install; "
        "print(nisampler.__file__, nisampler.calo.__file__, registry.__file__, install('lhe'), sep='\\n')"
    )
    *files, advice = done(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(target)).splitlines()
    assert all(file.startswith(f"{target}{os.sep}") for file in files)
    assert wheel.name in advice and "nisampler[lhe] @ file://" in advice


def test_the_citation_is_of_this_version() -> None:
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (found["version"], found["license"], found["type"]) == (__version__, "BSD-3-Clause", "software")
    assert {"cff-version", "message", "title", "authors"} <= found.keys() and all(found["authors"])


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/project/release.md"])
def test_pages_name_what_exists(page: str) -> None:
    """Links, files and names in code marks."""
    text = (ROOT / page).read_text()
    links = [(ROOT / page).parent / link for link in re.findall(r"\]\(([^)#]+)\)", text)]
    marked = re.findall(r"`((?:nisampler|processes|calo|tests|examples|docs|benchmarks|\.ci)/[\w./-]*)`", text)
    assert [str(path) for path in [*links, *(ROOT / name for name in marked)] if not path.exists()] == []
    assert len(marked) > 3
