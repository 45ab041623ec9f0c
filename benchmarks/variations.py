"""Microseconds for each weight of other scales and parton densities, on one core, and what reading a set costs.

    python benchmarks/variations.py --events 20000 --members 100

The members are copies of the set that pythia8mc brings: what they cost does not depend on what is in them. MadGraph7
states 0.25 μs a weight and 1 s for reading 100 grids.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import torch

from nisampler.processes.partons.sets import member_path
from nisampler.processes.partons.variations import variations
from nisampler.processes.registry import create

SET, PEER = "NNPDF31_lo_as_0118", 0.25


def copies(folder: Path, members: int) -> Path:
    """A set of so many equal members."""
    path = folder / SET
    path.mkdir()
    source = member_path(SET)
    for member in range(members):
        shutil.copy(source, path / f"{SET}_{member:04d}.dat")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--members", type=int, default=100)
    parser.add_argument("--process", default="ttbar")
    given = parser.parse_args()
    torch.set_num_threads(1)
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
