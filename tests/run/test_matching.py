"""Scales for MLM matching in the files of runs: made with the events, merged, and kept by `reweight`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pdf_grids import write_set

from nisampler.errors import CardError
from nisampler.events import EventFile, check_file
from nisampler.events.matching import clustering_scales
from nisampler.run.pipeline import execute, start
from nisampler.run.reweight import reweight

CARD = """
process = "{process}"
[parameters]
{parameters}
[training]
calls = 5000
sampler = "vegas"
[integration]
points = 3000
[events]
n = 60
shard_size = 25
formats = {formats}
matching = "{matching}"
"""


def make(folder: Path, **changes: str) -> Path:
    given = {"process": "w_plus_jets", "matching": "mlm", "formats": '["lhe.zst", "h5"]', "parameters": ""} | changes
    (folder / "card.toml").write_text(CARD.format(**given))
    with start(folder / "card.toml", folder / "run") as directory:
        execute(directory)
    return folder / "run"


def test_files_of_a_run_have_the_scales_of_their_jets(tmp_path: Path) -> None:
    grid = write_set(tmp_path / "sets") / "toyset_0000.dat"
    run = make(tmp_path, parameters=f'n_jets = 1\npdf = "{grid}"')
    reweight(run / "events.lhe.zst", tmp_path / "new.lhe.gz", "7-point")
    for path in (run / "events.lhe.zst", run / "events.h5", tmp_path / "new.lhe.gz"):
        batch = EventFile.open(path).read()
        jets = batch.final & (np.abs(batch.pdg_ids) < 10) | (batch.pdg_ids == 21) & batch.final
        pt = np.hypot(batch.momenta[..., 1], batch.momenta[..., 2])
        np.testing.assert_allclose(batch.pt_clust[jets], pt[jets], rtol=1e-12)
        assert (batch.pt_clust[batch.final & ~jets] == 13000).all() and not batch.pt_clust[~batch.final].any()
        np.testing.assert_array_equal(batch.pt_clust, clustering_scales(batch, 13000.0))
        assert check_file(path).passed and len(batch) == 60


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"process": "ee_to_3jets"}, "events.matching: ee_to_3jets is no collision of protons"),
        ({"formats": '["lheh5"]'}, "events.matching: lheh5 has no place"),
        ({"matching": "ckkw"}, 'events.matching = "ckkw": must be "mlm"'),
    ],
)
def test_matching_that_is_none_is_named(changes: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(CardError, match=message):
        make(tmp_path, **changes)
