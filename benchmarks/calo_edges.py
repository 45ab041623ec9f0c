"""Sharp physics: the peak of single crossings, the shoulder below it, and layers that are often empty.

    python benchmarks/calo_edges.py --models small small-teacher

Each preset learns from showers of `toy-silicon`, and what it generates stands beside other showers of the simulator;
so does what the preprocessing alone makes of independent normal numbers, without any flow.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from calo_student import show
from measurements import BenchmarkError, hardware

from nisampler.calo.data.files import read_showers
from nisampler.calo.data.showers import Showers
from nisampler.calo.detector.geometries import geometry
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.evaluation.classifiers import CLASSIFIERS, classify_many
from nisampler.calo.fitting.fit import DataOptions, fit
from nisampler.calo.fitting.training import FitOptions
from nisampler.calo.generation import ShowerGenerator
from nisampler.calo.models import PRESETS, ShowerModel, build_model
from nisampler.calo.simulation.simulator import simulate_file
from nisampler.errors import NisamplerError

_PEAK, _SHOULDER = (3.0, 3.6), (2.0, 2.8)  # MeV
_BINS = 20
_SHARD = 1000


def separation(first: np.ndarray, second: np.ndarray) -> float:
    """Of energies of a layer: bins of equal content of those that are filled, and one for empty layers."""
    filled = np.concatenate([first, second])
    edges = np.quantile(filled[filled > 0], np.linspace(0, 1, _BINS + 1)[1:-1])
    shares = []
    for sample in (first, second):
        index = np.where(sample > 0, 1 + np.searchsorted(edges, sample), 0)
        shares.append(np.bincount(index, minlength=_BINS + 1) / len(sample))
    total = shares[0] + shares[1]
    return float(0.5 * ((shares[0] - shares[1]) ** 2 / np.where(total > 0, total, 1)).sum())


def figures(sample: Showers, reference: Showers, known: Geometry) -> list[str]:
    """Peak, shoulder, E_tot/E_inc and its spread, shares of filled layers and the largest of their separations."""
    hits = sample.voxels[sample.voxels >= known.threshold]
    shares = [1e3 * float(((hits >= low) & (hits < high)).mean()) for low, high in (_PEAK, _SHOULDER)]
    layers, others = known.layer_energies(sample.voxels), known.layer_energies(reference.voxels)
    filled = (layers > 0).mean(axis=0)
    rare = np.flatnonzero((others > 0).mean(axis=0) < 0.9)
    apart = max(separation(layers[:, layer], others[:, layer]) for layer in rare)
    ratio = sample.voxels.sum(axis=1, dtype=np.float64) / sample.incident
    return [
        *(f"{share:.2f}" for share in shares),
        *(f"{100 * filled[layer]:.1f}" for layer in rare),
        f"{1e3 * apart:.1f}",
        f"{ratio.mean():.4f} ± {ratio.std():.4f}",
    ]


@torch.no_grad()
def without_flow(known: Geometry, training: Showers, incident: np.ndarray) -> Showers:
    """What the preprocessing of small presets makes of independent normal numbers."""
    model, source = build_model("small", known), torch.Generator().manual_seed(1)
    model.prepare(training, source)
    energies = torch.as_tensor(incident, dtype=torch.float32)
    y = torch.randn(len(energies), known.n_voxels + known.n_layers, generator=source)
    parts = zip(y.split(_SHARD), energies.split(_SHARD), strict=True)
    return Showers(incident, torch.cat([model.preprocessing.showers(*part) for part in parts]).numpy())


def drawn(model: ShowerModel, n: int) -> Showers:
    """n showers of a fitted model."""
    generator = ShowerGenerator(model.eval(), 7, n // 100)
    return Showers.concatenate([generator.draw(generator.incident(_SHARD, k), k) for k in range(n // _SHARD)])


def area(reference: Showers, sample: Showers, known: Geometry) -> list[str]:
    """Areas under the ROC curves of the two small classifiers, one training each."""
    names = ("small-low", "small-high")
    found = [classify_many(reference, sample, known, CLASSIFIERS[name], range(1, 2)) for name in names]
    return [f"{one.mean('auc'):.3f}" for one in found]


def main() -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["small", "small-teacher"], help="presets")
    parser.add_argument("--geometry", default="toy-silicon")
    parser.add_argument("--showers", type=int, default=10_000, help="to learn from, and of each sample; in thousands")
    parser.add_argument("--epochs", type=int, help="instead of those of the presets")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        if options.showers % _SHARD or options.showers < _SHARD:
            raise BenchmarkError(f"--showers must be a multiple of {_SHARD}, got {options.showers}")
        unknown = set(options.models) - set(PRESETS)
        if unknown:
            raise BenchmarkError(f"no presets are called {', '.join(sorted(unknown))}")
        sys.stdout.write(f"{hardware()}, 1 thread; torch {torch.__version__}\n\n")
        with tempfile.TemporaryDirectory() as folder:
            show(rows(options, geometry(options.geometry), Path(folder)))
    except NisamplerError as error:
        sys.exit(f"error: {error}")


def rows(options: argparse.Namespace, known: Geometry, folder: Path) -> Iterator[list[str]]:
    """Rows of the table."""
    n = options.showers
    for name, count, seed in (("train", n, 1), ("reference", 2 * n, 2)):
        simulate_file(folder / f"{name}.h5", known, count, seed=seed)
    training, both = (read_showers(folder / f"{name}.h5", known) for name in ("train", "reference"))
    reference, other = both[:n], both[n:]
    filled = (known.layer_energies(reference.voxels) > 0).mean(axis=0)
    layers = [f"layer {layer} filled, %" for layer in np.flatnonzero(filled < 0.9)]
    yield [
        *("showers of", "peak, ‰ of hits", "shoulder, ‰", *layers, "separation, ‰", "E_tot/E_inc"),
        *("AUC low", "AUC high", "CPU-minutes"),
    ]
    yield ["the simulator", *figures(reference, other, known), "", "", ""]
    alone = without_flow(known, training, reference.incident)
    yield ["no flow", *figures(alone, reference, known), "", "", ""]
    for name in options.models:
        fitted = fit(DataOptions(folder / "train.h5"), known, name, folder / name, FitOptions(epochs=options.epochs))
        sample = drawn(fitted.model, n)
        found = [*figures(sample, reference, known), *area(reference, sample, known)]
        yield [f"`{name}`", *found, f"{fitted.cpu_seconds / 60:.1f}"]


if __name__ == "__main__":
    main()
