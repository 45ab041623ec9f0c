"""Notebooks of the examples, run in a kernel of their own."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "notebooks"


@contextmanager
def kernel_place(folder: Path) -> Iterator[Path]:
    """A folder for kernels, which neither read nor write what belongs to the user; its `work` is where they run."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR", "TMPDIR"):
            (folder / name).mkdir()
            patch.setenv(name, str(folder / name))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("NIS_ROOT", os.environ.get("NIS_ROOT", str(ROOT)))
        (folder / "work").mkdir()
        yield folder


def run(notebook: Any, place: Path) -> Any:
    """The notebook with the outputs of its cells."""
    where = {"metadata": {"path": str(place / "work")}}
    return NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()


def outputs_of(name: str, place: Path) -> dict[str, list[Any]]:
    """What each cell of a notebook with code puts out, by its source."""
    notebook = run(nbformat.read(FOLDER / f"{name}.ipynb", as_version=4), place)
    return {cell.source: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}


def of(outputs: dict[str, list[Any]], word: str) -> list[Any]:
    """What the one cell with this word puts out."""
    (found,) = [shown for source, shown in outputs.items() if word in source]
    return found


def printed(outputs: dict[str, list[Any]]) -> str:
    """Everything that was printed."""
    return "".join(shown.text for part in outputs.values() for shown in part if shown.output_type == "stream")


def pictures(outputs: dict[str, list[Any]]) -> list[np.ndarray]:
    """Shades (height, width) of all figures, 0 for black and 255 for white."""
    found = []
    for part in outputs.values():
        for shown in part:
            if "image/png" in shown.get("data", {}):
                with Image.open(io.BytesIO(base64.b64decode(shown.data["image/png"]))) as image:
                    found.append(np.asarray(image.convert("L")))
    return found
