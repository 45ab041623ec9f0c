"""The examples in the docstrings run and print what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import nisampler
import nisampler.calo
import nisampler.processes

# Needs a package which only comes with a GPU build of torch.
GPU = {"nisampler.flows.splines.triton_spline"}
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
