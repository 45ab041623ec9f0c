"""The examples in the docstrings run and print what they say."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import nisampler
import nisampler.calo
import nisampler.processes

# Needs a package which only comes with a GPU build of torch.
GPU = {
    "nisampler.flows.splines.triton_spline",
    "nisampler.processes.amplitudes.recursion.compiled.triton_steps",
}
MODULES = sorted(
    {
        info.name
        for package in (nisampler, nisampler.calo, nisampler.processes)
        for info in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
        if not info.name.endswith("__main__")
    }
    - GPU
)
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def test_docstring_examples() -> None:
    failed = [name for name in MODULES if doctest.testmod(importlib.import_module(name), optionflags=FLAGS).failed]
    assert failed == []


def test_examples_are_found() -> None:
    found = doctest.DocTestFinder().find(importlib.import_module("nisampler.base.estimate"))
    assert sum(len(test.examples) for test in found) >= 3


def without_example(module: str, source: str) -> Iterator[str]:
    """Public classes and functions of a module whose docstring has no example.

    One example in the base class shows how all errors are caught, and a command has its own help.
    """
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_"):
            continue
        error = module == "nisampler.errors" and node.name != "NisamplerError"
        decorated = any(ast.unparse(decorator).startswith("app.command(") for decorator in node.decorator_list)
        command = decorated or (isinstance(node, ast.FunctionDef) and "typer.Context" in ast.unparse(node.args))
        if not error and not command and ">>>" not in (ast.get_docstring(node) or ""):
            yield f"{module}.{node.name}"


def test_every_public_class_and_function_has_an_example() -> None:
    origins = {
        name: spec.origin for name in {*MODULES, *GPU} if (spec := importlib.util.find_spec(name)) and spec.origin
    }
    found = [item for name, path in origins.items() for item in without_example(name, Path(path).read_text("utf-8"))]
    assert found == []


def test_a_missing_example_is_found() -> None:
    source = '''
class Silent:
    """No example."""

def shown():
    """One. >>> 1"""

def _private(): ...

def listed(context: typer.Context) -> None: ...

@app.command()
def run(): ...
'''
    assert list(without_example("nisampler.run", source)) == ["nisampler.run.Silent"]
    assert list(without_example("nisampler.errors", source)) == []
