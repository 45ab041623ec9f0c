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
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import nisampler
from nisampler.base.extras import EXTRAS

ROOT = Path(__file__).resolve().parents[2]
TREES = {"nisampler": "nisampler", "processes": "nisampler.processes", "calo": "nisampler.calo"}
# Folders of the core from the ground to the roof; those of one row may use each other as long as no circle arises.
LAYERS = [
    *({"errors", "_version"}, {"base"}, {"flows"}, {"density", "events"}, {"samplers", "ui"}),
    *(
        {"training", "integration"},
        {"unweighting"},
        {"api", "result", "figures", "stored"},
        {"compat"},
        {"run"},
        {"cli", "__main__"},
    ),
]
# What the two halves may import of the core.
HALVES = {
    "nisampler.processes": {"errors", "_version", "base", "flows", "density", "events"},
    "nisampler.calo": {"errors", "_version", "base", "flows", "ui"},
}


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
GPU = {
    "nisampler.flows.splines.triton_spline",
    "nisampler.processes.amplitudes.recursion.compiled.triton_steps",
}


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Full names of everything imported, `from a import b` giving `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ("." * node.level + f"{node.module or ''}.{alias.name}" for alias in node.names)


@cache
def imports(name: str) -> set[str]:
    return set(imports_of(ast.parse(MODULES[name].read_text())))


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def place(name: str) -> str:
    """First folder of a module of the core, or the module at its top; "" for the package itself."""
    return name.split(".")[1] if "." in name else ""


def layer(name: str) -> int:
    """Layer of a module of the core: that of its folder, or its own; the package's public names stand above the API."""
    if not place(name):
        return next(level for level, members in enumerate(LAYERS) if "api" in members)
    return next(level for level, members in enumerate(LAYERS) if place(name) in members)


def half(name: str) -> str | None:
    return next((package for package in HALVES if inside(name, package)), None)


def owner(target: str) -> str:
    """The module that an imported name lives in."""
    return target if target in MODULES else target.rpartition(".")[0]


def upward(name: str, targets: set[str]) -> Iterator[str]:
    """Imports of a module that the house forbids."""
    for target in sorted(targets):
        if target.startswith("."):
            yield f"{name} imports {target}: write the absolute name"
        elif inside(target, "nisampler") and half(target) != half(name):
            allowed = HALVES.get(half(name) or "", set())
            if half(target) is not None or place(owner(target)) not in allowed:
                yield f"{name} imports {target}"
        elif inside(target, "nisampler") and half(name) is None and name != "nisampler":
            if layer(owner(target)) > layer(name) or not place(owner(target)):
                yield f"{name} (layer {layer(name)}) imports {target} (layer {layer(owner(target))})"


def circles(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other, directly or not, one line for each circle found."""
    found, done = [], set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            found.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for target in sorted(graph[name]):
                visit(target, [*path, name])
            done.add(name)

    for name in sorted(graph):
        visit(name, [])
    return found


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


def requirements(peers: bool | None = None) -> Iterator[Requirement]:
    """All of them, or those of the peers that benchmarks compare with, or all others."""
    table = project()["project"]
    extras = table["optional-dependencies"].items()
    own = [*table["dependencies"], *(line for name, lines in extras if name != "bench" for line in lines)]
    bench = table["optional-dependencies"]["bench"]
    for line in [*own, *bench] if peers is None else bench if peers else own:
        requirement = Requirement(line)
        if requirement.name != "nisampler":
            yield requirement


def constraints(folder: Path = ROOT) -> dict[str, Version]:
    lines = [line for line in (folder / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = dict(line.split("==") for line in lines)
    assert len(pins) == len(lines)
    return {canonicalize_name(name): Version(version) for name, version in pins.items()}


@pytest.mark.parametrize(("folder", "peers"), [(ROOT, False), (ROOT / "benchmarks", True)])
def test_constraints_pin_every_requirement_within_its_range(folder: Path, peers: bool) -> None:
    pins = constraints(folder)
    for requirement in requirements(peers):
        pinned = pins[canonicalize_name(requirement.name)]
        assert pinned in requirement.specifier, f"{requirement} excludes the tested {pinned}"


def test_peers_are_pinned_beside_the_benchmarks_alone() -> None:
    assert not constraints().keys() & constraints(ROOT / "benchmarks").keys()


def test_each_extra_says_what_it_is_for() -> None:
    assert set(EXTRAS) == set(project()["project"]["optional-dependencies"])


def test_ranges_state_a_lowest_version() -> None:
    for requirement in requirements():
        assert any(s.operator in {">=", "=="} for s in requirement.specifier), requirement


def test_entry_points_resolve() -> None:
    (script,) = metadata.entry_points(group="console_scripts", name="nisampler")
    assert callable(script.load())
    points = {p.name: p.load() for p in metadata.entry_points(group="nisampler.processes")}
    assert set(points) == set(project()["project"]["entry-points"]["nisampler.processes"])
    assert all(map(callable, points.values()))


# Layers


def test_imports_point_downwards() -> None:
    assert [line for name in NAMES for line in upward(name, imports(name))] == []


def test_layer_check_can_fail() -> None:
    """Negative control: upward imports, foreign halves, a name of the package, and a folder without a place."""
    assert len(list(upward("nisampler.base.rng", {"nisampler.flows.flow", "nisampler.errors.ConfigError"}))) == 1
    assert len(list(upward("nisampler.calo.fitting.fit", {"nisampler.processes.rambo", "nisampler.run.card"}))) == 2
    assert len(list(upward("nisampler.api", {"nisampler.processes.registry"}))) == 1
    assert len(list(upward("nisampler.run.job", {"nisampler.integrate", ".card"}))) == 2
    assert layer("nisampler.flows.splines.families") == layer("nisampler.flows") < layer("nisampler.api")
    with pytest.raises(StopIteration):
        layer("nisampler.helpers")


def test_no_circle_between_files() -> None:
    graph = {name: {owner(target) for target in imports(name)} & MODULES.keys() - {name} for name in NAMES}
    for name in NAMES:  # a package whose modules import from it is no circle as long as it does not import them
        graph[name] = {target for target in graph[name] if not inside(name, target)}
    assert circles(graph) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a -> b -> c -> a"]


def test_each_library_has_its_one_place() -> None:
    homes = {
        "vegas": ("nisampler.samplers.grid", "nisampler.compat.vegas"),
        "gvar": ("nisampler.compat.vegas",),
        "madnis": ("tests only",),
        "pylhe": ("nisampler.events",),
        "pyhepmc": ("nisampler.events",),
        "pyamplicol": ("nisampler.processes",),
        "pythia8mc": ("tests only",),
        "fastjet": ("tests only",),
    }
    found = [
        f"{name} imports {library}"
        for name in NAMES
        for library, places in homes.items()
        if any(inside(target, library) for target in imports(name)) and not any(inside(name, home) for home in places)
    ]
    assert found == []


def lines_of_code(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function below its docstring, blank lines and comments included."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0  # type: ignore[operator]


def test_files_and_functions_can_be_read_at_once() -> None:
    """At most 450 lines a file, 60 a function, and 10 files at the top of each package."""
    found = []
    for name, path in MODULES.items():
        text = path.read_text()
        found += [f"{name} has {text.count(chr(10))} lines"] if text.count("\n") > 450 else []
        found += [
            f"{name}.{node.name} has {lines_of_code(node)} lines"
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and lines_of_code(node) > 60
        ]
    for folder in TREES:
        count = len(list((ROOT / folder).glob("*.py")))
        found += [f"{folder} has {count} files at its top"] if count > 10 else []
    assert found == []


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


def test_nothing_forbidden() -> None:
    texts = {name: path.read_text() for name, path in MODULES.items()}
    assert [(name, found) for name, text in texts.items() for found in violations(ast.parse(text))] == []
    assert [name for name, text in texts.items() if re.search(r"\b(TODO|FIXME|XXX)\b", text)] == []


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


ADVICE = re.compile(r"nisampler\[[a-z]|pip install (-e )?['\"]?\.\[")
"""How to install an extra: from the folder of a clone, or by the name of the package, depends on the installation."""


def advice_by_hand() -> list[str]:
    """Strings of the packages that advise extras otherwise than by `nisampler.base.extras.install`."""
    texts = {name: path.read_text() for name, path in MODULES.items()}
    scripts = {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "benchmarks").glob("*.py")}
    return [
        f"{name}: {node.value}"
        for name, text in (texts | scripts).items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and ADVICE.search(node.value)
        if not ("\n" in node.value and ast.get_docstring(ast.parse(text), clean=False) == node.value)
    ]


def test_messages_advise_extras_by_one_function() -> None:
    assert advice_by_hand() == []
    pages = [*(ROOT / "examples").rglob("*.*"), *(ROOT / "benchmarks").glob("*.md"), ROOT / "README.md"]
    texts = {path.name: path.read_text() for path in pages if path.suffix in {".md", ".py", ".toml", ".ipynb"}}
    assert [name for name, text in texts.items() if "nisampler[" in text] == []


@pytest.mark.parametrize(
    "text", ["pip install 'nisampler[lhe]'", 'pip install "nisampler[lhe]"', "pip install '.[lhe]'"]
)
def test_advice_check_can_fail(text: str) -> None:
    assert ADVICE.search(text)


def test_modules_have_a_docstring() -> None:
    missing = [name for name, path in MODULES.items() if not ast.get_docstring(ast.parse(path.read_text()))]
    assert missing == []


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


def test_readme_shows_how_to_come_from_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    section = readme().split("## Coming from vegas, madnis or torch")[1].split("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert code.count("\n") <= 12
    exec(compile(code, "README.md", "exec"), {"nisampler": nisampler, "torch": torch})
    told = capsys.readouterr().out
    assert "chi2/dof" in told and "tensor([" in told


def test_readme_names_the_licences() -> None:
    assert "GPL-3" in readme() and "BSD-3-Clause" in readme()
