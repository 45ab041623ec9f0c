"""Models of point clouds: fitted, generated and evaluated, with CPU-minutes, as one table.

    python benchmarks/calo_points.py --work points --output benchmarks/results/calo_points.md

Point clouds of the built-in simulator in the cells of `toy`, log-uniform from 1 to 2 GeV, cells cut 6 times along both
axes. Deviations are those of `nisampler calo evaluate` (largest |ratio - 1|: means of layers with at least 1 % of all;
bins with 10 % of the reference). The floor is the other half of the reference. What exists in the folder is used again.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from measurements import hardware

from nisampler.base.storage import atomic_write, read_sealed, write_sealed
from nisampler.calo.data.point_files import PointReader
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.evaluation.evaluate import EvaluationOptions, evaluate
from nisampler.calo.evaluation.point_figures import clouds
from nisampler.calo.fitting.fit import DataOptions, fit
from nisampler.calo.fitting.store import load_model
from nisampler.calo.generation import ShowerGenerator, generate
from nisampler.calo.given import given_geometry
from nisampler.calo.recipe import FitOptions
from nisampler.calo.simulation.points import simulate_points
from nisampler.errors import NisamplerError

_FINER, _TRAINING, _REFERENCE = 6, 6000, 4000
_REPEATS = 2
_TIMED = 100
_COLUMNS = {
    "number": "number of points",
    "layer_numbers": "points of a layer",
    "layer_energies": "energy of a layer",
    "radial_profile": "radial profile",
    "spectrum": "energies of points",
}

_PAGE = """# Models of point clouds on `toy`

{made}
Built-in simulator, 1 to 2 GeV, sides of cells cut in {finer}; {numbers}, seed {seed}.

Deviations from the first half of the reference: the number of points, and the largest |ratio - 1| of layers with at
least 1 % of the points or the energy, and of bins that hold 10 % of the reference. Fit, generation and evaluation in
CPU-minutes; CPU-milliseconds for a shower in batches of 100. The last row is the other half of the reference.

```sh
python benchmarks/calo_points.py --work points --output benchmarks/results/calo_points.md
```

{table}
"""


def data(folder: Path, cells: Geometry) -> tuple[Path, Path]:
    """Files of point clouds to learn from and to compare with."""
    files = folder / "train.h5", folder / "reference.h5"
    for seed, (path, n) in enumerate(zip(files, (_TRAINING, _REFERENCE), strict=True), 1):
        if not path.exists():
            simulate_points(path, cells, n, seed, _FINER)
    return files


def fitted(folder: Path, preset: str, train: Path, cells: Geometry, seed: int) -> dict[str, float]:
    """CPU-minutes of a fit and of as many showers as a half of the reference has, and CPU-milliseconds for each."""
    place, known = folder / f"{preset}_{seed}", folder / f"{preset}_{seed}.json"
    if known.exists():
        return read_sealed(known, mend="remove it")
    found = fit(DataOptions(train), cells, preset, place, FitOptions(seed=seed))
    start = time.process_time()
    generate(found.model.eval(), _REFERENCE // 2, folder / f"{preset}_{seed}.h5", seed)
    minutes = {"fit": found.cpu_seconds / 60, "generate": (time.process_time() - start) / 60}
    write_sealed(known, minutes)
    return minutes


def milliseconds(folder: Path) -> float:
    """Median CPU time of a shower, in batches, without writing."""
    generator, taken = ShowerGenerator(load_model(folder), 1, _TIMED), []
    incident = generator.incident(_TIMED, 0)
    for _ in range(_REPEATS + 1):
        start = time.process_time()
        generator.draw(incident, 0)
        taken.append(1e3 * (time.process_time() - start) / _TIMED)
    return statistics.median(taken[1:])


def rows(folder: Path, presets: list[str], seed: int, cells: Geometry) -> Iterator[list[str]]:
    """Rows of the table, with a head."""
    train, reference = data(folder, cells)
    head = ["", *_COLUMNS.values(), "fit", "generate", "evaluate", "ms/shower"]
    yield head
    minutes = {preset: fitted(folder, preset, train, cells, seed) for preset in presets}
    files = {preset: folder / f"{preset}_{seed}.h5" for preset in presets}
    start = time.process_time()
    result = evaluate(
        reference, files, cells, folder / "report", EvaluationOptions(classifiers=(), distances=False, report=False)
    )
    spent = (time.process_time() - start) / 60 / len(presets)
    for name, sample in result["samples"].items():
        if sample["kind"] == "control":
            continue
        yield [name, *_deviations(sample["points"]), *_times(folder, name, seed, minutes, spent)]


def _deviations(points: dict[str, Any]) -> Iterator[str]:
    for key in _COLUMNS:
        value = abs(points[key] - 1) if key == "number" else points[key]
        yield f"{100 * value:.1f} %"


def _times(folder: Path, name: str, seed: int, minutes: dict[str, dict[str, float]], spent: float) -> list[str]:
    if name not in minutes:
        return ["–"] * 4
    known = minutes[name]
    shower = milliseconds(folder / f"{name}_{seed}")
    return [f"{known['fit']:.1f}", f"{known['generate']:.2f}", f"{spent:.2f}", f"{shower:.2f}"]


def page(table: list[list[str]], seed: int) -> str:
    """The table as Markdown, with how it was made."""
    lines = [f"| {' | '.join(cells)} |" for cells in table]
    lines.insert(1, f"| {' | '.join('---' for _ in table[0])} |")
    made = f"{time.strftime('%Y-%m-%d')}; {hardware()}, 1 thread; torch {torch.__version__}."
    numbers = f"{_TRAINING:,} showers to learn from, {_REFERENCE:,} others as reference, {_REFERENCE // 2:,} generated"
    return _PAGE.format(made=made, finer=_FINER, numbers=numbers, seed=seed, table="\n".join(lines))


def draw(folder: Path, presets: list[str], seed: int, cells: Geometry, path: Path) -> None:
    """A figure of single clouds of the reference and of each preset."""
    files = {"reference": folder / "reference.h5"} | {name: folder / f"{name}_{seed}.h5" for name in presets}
    samples = {}
    for name, file in files.items():
        with PointReader(file, cells) as reader:
            samples[name] = reader.select(range(min(len(reader), _TIMED)))
    clouds(samples).savefig(path, dpi=100)


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of files and models")
    parser.add_argument("--output", type=Path, help="file of the table; printed without")
    parser.add_argument("--figure", type=Path, help="file of a picture of clouds")
    parser.add_argument("--presets", nargs="+", default=["small-clouds", "small-clouds-onestep"])
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.makedirs(options.work, exist_ok=True)
    cells = given_geometry("toy", energies="log-uniform:1:2")
    try:
        text = page(list(rows(options.work, options.presets, options.seed, cells)), options.seed)
        if options.figure is not None:
            draw(options.work, options.presets, options.seed, cells, options.figure)
    except NisamplerError as error:
        sys.exit(f"error: {error}")
    if options.output is None:
        sys.stdout.write(text)
        return
    with atomic_write(options.output, "w") as handle:
        handle.write(text)


if __name__ == "__main__":
    main()
