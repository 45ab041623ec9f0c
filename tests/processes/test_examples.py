"""A process of one's own, as `examples/my_matrix_element.py` writes it: trained, saved, and made into points."""

from __future__ import annotations

import math
from pathlib import Path

from nisampler.run.pipeline import execute, start

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_matrix_element.py"
CARD = f"""
process = "{EXAMPLE}:MuonPair"
seed = 5
threads = 1
[parameters]
sqrt_s = 20.0
[training]
calls = 5000
sampler = "vegas"
[integration]
points = 4000
[events]
n = 200
"""


def test_the_example_is_short_trained_and_saved(tmp_path: Path) -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 40
    card, run = tmp_path / "card.toml", tmp_path / "run"
    card.write_text(CARD)
    with start(card, run, {}) as directory:
        result = execute(directory)
    exact = 4 * math.pi / (3 * 137.036**2 * 20.0**2) * 0.3893793721e9
    integral = result["integral"]
    assert abs(integral["value"] - exact) < 4.5 * integral["error"] + 1e-9 * exact
    assert {path.name for path in run.rglob("*") if path.is_file()} >= {"result.json", "events.h5"}
    assert list(run.rglob("*.safetensors"))
