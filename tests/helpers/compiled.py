"""Shared libraries made of the C files beside this one, where there is a compiler."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).with_name("sources")


def library(folder: Path, *definitions: str, source: str = "umami_toy.c") -> Path:
    """A library of a C file with macros such as "STATUS=1"; the test is skipped without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs a C compiler")
    target = folder / f"lib{'_'.join(definitions).replace('=', '')}toy.so"
    macros = [f"-D{definition}" for definition in definitions]
    command = [compiler, "-O2", "-shared", "-fPIC", *macros, str(SOURCES / source), "-o", str(target), "-lm"]
    subprocess.run(command, check=True)
    return target
