"""Runs that are loaded as results."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pdf_grids import write_set

import nisampler
from nisampler.base.storage import read_json
from nisampler.errors import MissingFunctionError, StorageError
from nisampler.events import iterate_points
from nisampler.run.pipeline import execute, start


def test_a_run_is_loaded_with_its_process(points_run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in points_run.rglob("*")}
    result = nisampler.load(points_run)
    assert {path: path.stat().st_mtime_ns for path in points_run.rglob("*")} == before
    stored = read_json(points_run / "result.json")
    assert result.estimate.value == stored["integral"]["value"] and result.warnings == stored["warnings"]
    written = next(iterate_points(points_run / "events" / "events-00000.h5", 250))
    points = result.unweight(250)
    assert torch.equal(points.x, torch.from_numpy(written.x)) and points.x.shape == (250, 2)


def test_a_run_of_ones_own_callable_asks_for_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def f(x):\n    return 1.0 + x[:, 0]\nf.dim = 2\n")
    card = tmp_path / "card.toml"
    settings = '[training]\ncalls = 5000\nsampler = "vegas"\n[integration]\npoints = 2000\n[events]\nn = 0\n'
    card.write_text(f'process = "{tmp_path}/mine.py:f"\n{settings}')
    with start(card, tmp_path / "run") as directory:
        execute(directory)
    result = nisampler.load(tmp_path / "run")
    with pytest.raises(MissingFunctionError, match="code of your own"):
        result.unweight(5)
    assert len(nisampler.load(tmp_path / "run", lambda x: 1.0 + x[:, 0]).unweight(5).x) == 5
    with pytest.raises(StorageError, match="holds no finished integration"):
        nisampler.load(tmp_path)


def test_a_run_whose_parameters_name_code_runs_none(tmp_path: Path) -> None:
    """Loading is not running: a cut of one's own is not imported."""
    (tmp_path / "mine.py").write_text("def all_of_them(p):\n    return p[:, 0, 0] > 0\n")
    grid = write_set(tmp_path) / "toyset_0000.dat"
    card = tmp_path / "card.toml"
    own = f'[parameters]\npdf = "{grid}"\ncuts = ["{tmp_path}/mine.py:all_of_them"]\n'
    settings = '[training]\ncalls = 5000\nsampler = "vegas"\n[integration]\npoints = 2000\n[events]\nn = 0\n'
    card.write_text(f'process = "drell_yan"\n{own}{settings}')
    with start(card, tmp_path / "run") as directory:
        execute(directory)
    (tmp_path / "mine.py").write_text("raise SystemExit\n")
    with pytest.raises(MissingFunctionError, match=r"mine.py is code of your own"):
        nisampler.load(tmp_path / "run").unweight(5)
