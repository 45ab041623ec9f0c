"""Microseconds for each weight of other scales and parton densities, on one core, and what reading a set costs.

    python benchmarks/variations.py --events 20000 --members 100
    python benchmarks/variations.py --closure ttbar w_plus_jets:2

The members are copies of the set that pythia8mc brings: what they cost does not depend on what is in them. MadGraph7
states 0.25 μs a weight and 1 s for reading 100 grids. The second command compares, sub-process by sub-process, the
weights of points with the process itself at (½, 2) μ, and with other densities and their coupling; two jets need
pyamplicol.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from nisampler.events import EventBatch
from nisampler.processes.hadron.events import event_batch
from nisampler.processes.hadron.process import HadronProcess
from nisampler.processes.partons.sets import member_path
from nisampler.processes.partons.variations import variations
from nisampler.processes.registry import create

SET, OTHER_SET, PEER = "NNPDF31_lo_as_0118", "NNPDF31_lo_as_0130", 0.25


def copies(folder: Path, members: int) -> Path:
    """A set of so many equal members."""
    path = folder / SET
    path.mkdir()
    source = member_path(SET)
    for member in range(members):
        shutil.copy(source, path / f"{SET}_{member:04d}.dat")
    return path


def of_all_subprocesses(process: HadronProcess, p: torch.Tensor) -> tuple[list[EventBatch], np.ndarray]:
    """For each sub-process a batch of events at the momenta p, and the contributions (n, sub-processes)."""
    points = process.evaluate(p)
    shares = process.luminosity.by_subprocess(points.densities, points.squared)
    batches = []
    for chosen in range(shares.shape[1]):
        one = torch.zeros_like(shares)
        one[:, chosen] = 1.0
        batches.append(event_batch(process.setup, points, one, torch.ones(len(p)), torch.Generator()))
    return batches, shares.numpy()


def closure(text: str) -> None:
    """Print the largest deviations of weights from the process itself."""
    name, _, jets = text.partition(":")
    parameters = {"scale": "H_T/2"} | ({"n_jets": int(jets)} if jets else {})
    central = create(name, pdf=SET, **parameters)
    u = torch.rand(4000, central.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    p = central.momenta(u)
    p = p[central.passes(p)][:20]
    batches, nominal = of_all_subprocesses(central, p)
    found = variations(central.header, [(1.0, 1.0), (0.5, 2.0)], [f"{OTHER_SET}/0"])
    known = [(batch.pdf_xf > 0).all(axis=1) for batch in batches]
    changes = ({}, {"mu_r_factor": 0.5, "mu_f_factor": 2.0}, {"pdf": OTHER_SET})
    for column, (label, change) in enumerate(zip(("nominal", "(½, 2) μ", OTHER_SET), changes, strict=True)):
        direct = of_all_subprocesses(create(name, **({"pdf": SET} | parameters | change)), p)[1]
        worst = 0.0
        for place, (batch, mask) in enumerate(zip(batches, known, strict=True)):
            weights = found.weights(batch.select(mask))[:, column] * nominal[mask, place]
            there = direct[mask, place] > 0  # densities below zero are clipped where a process samples them
            worst = max(worst, np.abs(weights[there] / direct[mask, place][there] - 1).max(initial=0.0))
        print(f"{text:<16} {label:<20} {direct.size} contributions, largest relative deviation {worst:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--members", type=int, default=100)
    parser.add_argument("--process", default="ttbar")
    parser.add_argument("--closure", nargs="+", metavar="PROCESS[:JETS]")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.closure:
        for text in given.closure:
            closure(text)
        return
    process = create(given.process, scale="H_T/2")
    u = torch.rand(given.events, process.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    u = u[process(u) > 0]
    batch = process.events(u, torch.ones(len(u)), torch.Generator().manual_seed(1))
    with tempfile.TemporaryDirectory() as folder:
        sets = [f"{copies(Path(folder), given.members)}/all"]
        start = time.process_time()
        found = variations(process.header, "9-point", sets)
        read = time.process_time() - start
    start = time.process_time()
    weights = found.weights(batch)
    spent = time.process_time() - start
    each = 1e6 * spent / weights.size
    print(f"{given.process}: {weights.shape[0]} events x {weights.shape[1]} weights in {spent:.2f} CPU-s")
    print(f"{each:.3f} μs a weight, {PEER / each:.1f} times the rate of MadGraph7 ({PEER} μs)")
    print(f"{read:.2f} CPU-s to read {given.members} members")


if __name__ == "__main__":
    main()
