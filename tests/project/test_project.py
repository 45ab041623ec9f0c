"""The project holds together: packages, layers, forbidden calls, versions, README commands."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import nisampler

ROOT = Path(__file__).resolve().parents[2]
TREES = {"nisampler": "nisampler", "processes": "nisampler.processes", "calo": "nisampler.calo"}
BASE = ["errors", "rng", "stats", "storage"]
MIDDLE = [
    *("integrand", "channels", "divergences", "buffer", "vegas", "samplers", "tree"),
    *("multichannel", "survey", "costs"),
]
UPPER = [
    *("training", "choice", "flow_training", "trainer"),
    *("integrator", "unweighting", "surrogate", "two_stage", "engine"),
]


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def modules() -> Iterator[tuple[str, Path]]:
    """Import name and file of every module of the three trees."""
    for folder, package in TREES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            yield ".".join([package, *(part for part in parts if part != "__init__")]), path


MODULES = dict(modules())
NAMES = sorted(MODULES)
# Modules that need a package which only comes with a GPU build of torch.
GPU = {"nisampler.flows.triton_spline"}


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Full names of everything imported, `from a import b` giving `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ("." * node.level + f"{node.module or ''}.{alias.name}" for alias in node.names)


def imports(name: str) -> set[str]:
    return set(imports_of(ast.parse(MODULES[name].read_text())))


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def layer(name: str) -> int | None:
    """Layer of a core module; None for `processes`, `calo` and the package itself."""
    parts = name.split(".")[1:]
    if not parts or parts[0] in {"processes", "calo", "__main__", "_version"}:
        return None
    for level, members in enumerate([BASE, ["flows"], MIDDLE, UPPER, ["events", "run"], ["cli"]]):
        if any(parts[0] == member or parts[0].startswith(member + "_") for member in members):
            return level
    raise LookupError(f"{name} is in no layer: name its place in {__file__}")


# Packaging


def test_package_list_names_every_folder_with_an_init() -> None:
    found = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert set(project()["tool"]["setuptools"]["packages"]) == found


def test_folders_with_modules_are_packages() -> None:
    missing = {str(path.parent) for path in MODULES.values() if not (path.parent / "__init__.py").exists()}
    assert not missing


def test_mapped_folders_exist() -> None:
    mapping = project()["tool"]["setuptools"]["package-dir"]
    assert {folder: package for package, folder in mapping.items()} == TREES


def test_version_is_one() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert nisampler.__version__ == metadata.version("nisampler")
    assert re.search(r"^## (\S+)", changelog, re.MULTILINE)[1] == nisampler.__version__  # type: ignore[index]


def test_typed_marker_is_installed() -> None:
    assert (ROOT / "nisampler" / "py.typed").exists()
    assert "nisampler" in project()["tool"]["setuptools"]["package-data"]


def requirements() -> Iterator[Requirement]:
    table = project()["project"]
    for line in [
        *table["dependencies"],
        *(r for extra in table["optional-dependencies"].values() for r in extra),
    ]:
        requirement = Requirement(line)
        if requirement.name != "nisampler":
            yield requirement


def constraints() -> dict[str, Version]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = dict(line.split("==") for line in lines)
    assert len(pins) == len(lines)
    return {canonicalize_name(name): Version(version) for name, version in pins.items()}


def test_constraints_pin_every_requirement_within_its_range() -> None:
    pins = constraints()
    for requirement in requirements():
        pinned = pins[canonicalize_name(requirement.name)]
        assert pinned in requirement.specifier, f"{requirement} excludes the tested {pinned}"


def test_ranges_state_a_lowest_version() -> None:
    for requirement in requirements():
        assert any(s.operator in {">=", "=="} for s in requirement.specifier), requirement


def test_entry_points_resolve() -> None:
    (script,) = metadata.entry_points(group="console_scripts", name="nisampler")
    assert callable(script.load())
    points = {p.name: p.load() for p in metadata.entry_points(group="nisampler.processes")}
    assert set(points) == {"create", "available"} and all(map(callable, points.values()))


# Layers


@pytest.mark.parametrize("name", NAMES)
def test_imports_point_downwards(name: str) -> None:
    own = layer(name)
    for target in imports(name):
        assert not target.startswith("."), f"{name} imports {target}: write the absolute name"
        if not inside(target, "nisampler") or own is None:
            continue
        assert not inside(target, "nisampler.processes") and not inside(target, "nisampler.calo"), (
            name,
            target,
        )
        below = layer(target) if target.count(".") else None
        assert below is None or below <= own, f"{name} (layer {own}) imports {target} (layer {below})"


@pytest.mark.parametrize("name", [n for n in NAMES if inside(n, "nisampler.processes")])
def test_processes_import_low_layers_and_events_only(name: str) -> None:
    for target in imports(name):
        if inside(target, "nisampler") and not inside(target, "nisampler.processes"):
            level = layer(target)
            assert inside(target, "nisampler.events") or (level is not None and level <= 2), (name, target)


@pytest.mark.parametrize("name", [n for n in NAMES if inside(n, "nisampler.calo")])
def test_calo_imports_flows_trainer_and_run_utilities_only(name: str) -> None:
    allowed = (
        "nisampler.calo",
        "nisampler.flows",
        "nisampler.trainer",
        "nisampler.run",
        "nisampler._version",
    )
    for target in imports(name):
        if inside(target, "nisampler") and not any(inside(target, package) for package in allowed):
            assert layer(target) == 0, (name, target)


def test_layer_check_can_fail() -> None:
    """Negative control: an upward import, and a module without a place."""
    tree = ast.parse("from nisampler.cli import app\nimport nisampler.trainer")
    assert [layer(target) for target in imports_of(tree)] == [5, 3]
    assert layer("nisampler.flows.splines") == 1
    with pytest.raises(LookupError, match="in no layer"):
        layer("nisampler.helpers")


@pytest.mark.parametrize("name", NAMES)
def test_each_library_has_its_one_place(name: str) -> None:
    homes = {"vegas": ["nisampler.vegas"], "pylhe": ["nisampler.events"], "pythia8mc": [], "pyamplicol": []}
    for library, allowed in homes.items():
        if any(inside(target, library) for target in imports(name)):
            places = [*allowed, "nisampler.processes"] if library == "pyamplicol" else allowed
            assert any(inside(name, place) for place in places), f"{name} imports {library}"


# Forbidden calls


def violations(tree: ast.AST) -> list[str]:
    """What must not stand in the packages: assert, print, pickles, and errors that say nothing."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            found.append("assert")
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {
            "print",
            "torch.load",
            "torch.save",
            "eval",
            "exec",
        }:
            found.append(ast.unparse(node.func))
        elif isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) == "NotImplementedError":
            found.append("NotImplementedError")
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            found.append("allow_pickle")
    pickles = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}
    found += [target for target in imports_of(tree) if target.split(".")[0] in pickles]
    found += [target for target in imports_of(tree) if target in {"torch.load", "torch.save"}]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_nothing_forbidden(name: str) -> None:
    text = MODULES[name].read_text()
    assert violations(ast.parse(text)) == []
    assert re.findall(r"\b(TODO|FIXME|XXX)\b", text) == []


@pytest.mark.parametrize(
    "code",
    [
        "assert x",
        "print(1)",
        "import pickle",
        "from torch import load",
        "torch.load(p)",
        "raise NotImplementedError",
    ],
)
def test_forbidden_check_can_fail(code: str) -> None:
    assert violations(ast.parse(code))


@pytest.mark.parametrize("name", NAMES)
def test_modules_have_a_docstring(name: str) -> None:
    if name != "nisampler._version":
        assert ast.get_docstring(ast.parse(MODULES[name].read_text())), name


# Running interpreters


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_bare_names_never_enter_sys_modules(tmp_path: Path) -> None:
    """Importing everything, warnings being errors, makes no second copy of a mapped package."""
    plain = [name for name in NAMES if not name.endswith("__main__") and name not in GPU]
    code = "\n".join(
        [
            "import sys, importlib",
            f"for name in {plain!r}: importlib.import_module(name)",
            "bad = {'calo', 'processes'} & set(sys.modules)",
            "sys.exit(f'bare names imported: {bad}' if bad else 0)",
        ]
    )
    done = python("-W", "error", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_tests_use_no_bare_names() -> None:
    assert not {"calo", "processes"} & set(sys.modules)


# README


def readme() -> str:
    return (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", readme(), re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Every shell command of the README, continuation lines joined, split at && and pipes."""
    found = []
    for block in blocks("(?:bash|sh|console)"):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.removeprefix("$ ")
            for command in re.split(r"&&|\|", line):
                words = shlex.split(command, comments=True)
                if words:
                    found.append(words)
    return found


def test_readme_has_one_test_command_that_ci_can_find() -> None:
    marked = re.findall(r"<!-- test-command -->\s*\n```(?:bash|sh)\n(.*?)^```", readme(), re.MULTILINE | re.DOTALL)
    assert len(marked) == 1
    assert "-c constraints.txt" in marked[0] and "pytest" in marked[0]


def test_readme_shell_blocks_parse() -> None:
    for block in blocks("(?:bash|sh)"):
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, done.stderr


def test_readme_has_no_placeholders_left() -> None:
    assert "@@" not in (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_names_existing_files() -> None:
    text = readme()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    cards = [word for words in commands() for word in words if word.startswith(("examples/", "benchmarks/"))]
    for name in [*links, *cards]:
        assert (ROOT / name).exists(), f"README names {name}"


def test_readme_uses_existing_subcommands_and_options(tmp_path: Path) -> None:
    used: dict[tuple[str, ...], set[str]] = {}
    for words in commands():
        program = Path(words[0]).name
        if program == "nisampler" and len(words) > 1 and not words[1].startswith("-"):
            options = {word.split("=")[0] for word in words[2:] if word.startswith("--")}
            length = 3 if words[1] == "calo" else 2
            used.setdefault(tuple(words[1:length]), set()).update(options)
    assert {("run",), ("calo", "fit")} <= used.keys()
    for subcommand, options in used.items():
        done = python("-m", "nisampler", *subcommand, "--help", cwd=tmp_path)
        assert done.returncode == 0, f"{subcommand}: {done.stderr}"
        missing = {option for option in options if option not in done.stdout}
        assert not missing, f"{subcommand} has no {missing}"


def test_readme_names_the_licences() -> None:
    assert "GPL-3" in readme() and "BSD-3-Clause" in readme()
