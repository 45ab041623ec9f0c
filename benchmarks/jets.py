"""EPiC-FM beside EPiC-JeDi on jets of Pythia: W1 distances over the floor, CPU-minutes, milliseconds a jet.

    python examples/pythia_jets.py jets.hdf5 --jets 24000 --hard-only
    python benchmarks/jets.py --jets jets.hdf5 --work jets --epochs 80

The last third of the jets is the reference, the others are for the fits. Fits that are in the folder are used, or
continued. "raw" samples are those of the same model before pT and mass are set to what its first flow drew.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from measurements import hardware

from nisampler.calo.jets.evaluation import evaluate, table_rows
from nisampler.calo.jets.files import read_jets, write_jets
from nisampler.calo.jets.fit import JetData, fit
from nisampler.calo.jets.generation import generate
from nisampler.calo.jets.metrics import MASS, PT
from nisampler.calo.jets.store import DESCRIPTION, load_model
from nisampler.calo.recipe import FitOptions
from nisampler.errors import NisamplerError
from nisampler.ui.progress import monitor_for

TRAINING = 2 / 3
MOST = 3.0


def dealt(source: Path, work: Path, constituents: int) -> tuple[Path, Path]:
    """Files of jets for the fits and as reference."""
    files = work / "train.hdf5", work / "test.hdf5"
    if not all(path.is_file() for path in files):
        jets = read_jets(source)
        cut = int(TRAINING * len(jets))
        for path, part in zip(files, (jets[:cut], jets[cut:]), strict=True):
            path.unlink(missing_ok=True)
            write_jets(path, part.leading(constituents))
    return files


def fitted(name: str, training: Path, folder: Path, epochs: int | None, seed: int) -> None:
    """The model of a preset, from its folder or fitted."""
    begun = (folder / DESCRIPTION).is_file()
    with monitor_for(True) as monitor:
        fit(JetData((training,)), name, folder, FitOptions(seed=seed, epochs=epochs), monitor=monitor, resume=begun)


def sampled(name: str, folder: Path, work: Path, count: int) -> Iterator[tuple[str, Path, float]]:
    """Jets of a model with and without calibration, and CPU-milliseconds for each."""
    model = load_model(folder)
    for calibrate in (True, False):
        label = name if calibrate else f"{name}, raw"
        path = work / f"{label.replace(', ', '-')}.hdf5"
        path.unlink(missing_ok=True)
        model.config = replace(model.config, calibrate=calibrate)
        start = time.process_time()
        generate(model, count, path, seed=2)
        yield label, path, 1e3 * (time.process_time() - start) / count


def main(arguments: list[str] | None = None) -> int:
    """Print the table of the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jets", type=Path, required=True, help="file of jets that examples/pythia_jets.py made")
    parser.add_argument("--work", type=Path, default=Path("jets"), help="folder of models and samples")
    parser.add_argument("--presets", nargs="+", default=["small-epic-fm", "small-epic-jedi"])
    parser.add_argument("--constituents", type=int, default=30)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    given.work.mkdir(parents=True, exist_ok=True)
    training, reference = dealt(given.jets, given.work, given.constituents)
    fits, count = len(read_jets(training)), len(read_jets(reference)) // 2
    files, times = {}, {}
    for name in given.presets:
        folder = given.work / f"model-{name}"
        fitted(name, training, folder, given.epochs, given.seed)
        for label, path, milliseconds in sampled(name, folder, given.work, count):
            files[label], times[label] = path, milliseconds
    result = evaluate(reference, files, given.work / "report", given.seed)
    head, *rows = table_rows(result)
    print(f"{hardware()}; {count} jets of each sample, {fits} for the fits\n")
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for row in [*rows, ["CPU-ms a jet", *(f"{times[name]:.3g}" if name in times else "" for name in head[1:])]]:
        print(f"| {' | '.join(row)} |")
    found = {name: result["samples"][name]["times_floor"] for name in given.presets}
    far = [f"{name}: {key}" for name, times in found.items() for key in (MASS, PT) if times[key] > MOST]
    print(f"\nMass and pT above {MOST:g} times the floor: {', '.join(far) or 'none'}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NisamplerError as error:
        sys.exit(f"error: {error}")
