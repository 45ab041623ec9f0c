"""Check the flavour sums of the pyamplicol adapter against processes generated one by one, and measure its speed.

For every matrix element that flavour combinations of a process share, one of those combinations is drawn and generated
literally, without any symmetry; both are evaluated at the same points of phase space, boosted along the beam. W and Z
with one jet are compared with the library's own matrix elements, CKM factors included. Fails above 1e-8.

    pip install ".[sm]" && python benchmarks/check_amplicol.py ["p p > e+ ve j j" ...]
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from nisampler.processes.amplicol import AmplicolAmplitude
from nisampler.processes.amplicol.cache import open_artifact, request_for
from nisampler.processes.amplicol.evaluators import WorkerPool
from nisampler.processes.amplitudes.currents import ChargedCurrent, NeutralCurrent
from nisampler.processes.amplitudes.protocol import Amplitude, SubProcess
from nisampler.processes.amplitudes.vector_jet import VectorJet
from nisampler.processes.particles import expression, is_quark
from nisampler.processes.phase_space.rambo import RamboOnDiet

TOLERANCE = 1e-8
ALPHA_S = 0.118
PROCESSES = ("p p > e+ ve j j", "p p > e- ve~ j j", "p p > e- e+ j j", "p p > t t~ j", "p p > e+ ve j j j")
OWN = {
    "p p > e+ ve j": lambda: VectorJet(ChargedCurrent(+1)),
    "p p > e- ve~ j": lambda: VectorJet(ChargedCurrent(-1)),
    "p p > e- e+ j": lambda: VectorJet(NeutralCurrent()),
}


def phase_space_points(masses: Sequence[float], n: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Incoming (n, 2, 4) and outgoing (n, m, 4) momenta at 1 TeV, boosted along the beam by rapidities up to 1."""
    phase_space = RamboOnDiet(masses)
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(n, phase_space.dim + 1, generator=generator, dtype=torch.float64)
    outgoing, _ = phase_space.forward(u[:, 1:], 1000.0)
    beams = u.new_tensor([[500.0, 0, 0, 500.0], [500.0, 0, 0, -500.0]]).expand(n, 2, 4)
    momenta = torch.cat([beams, outgoing], 1)
    y = 2 * u[:, :1] - 1
    energy, pz = momenta[..., 0].clone(), momenta[..., 3].clone()
    momenta[..., 0] = y.cosh() * energy + y.sinh() * pz
    momenta[..., 3] = y.sinh() * energy + y.cosh() * pz
    momenta[:, :2, 0] = momenta[:, :2, 3].abs()
    return momenta[:, :2].contiguous(), momenta[:, 2:].contiguous()


def deviation(values: Tensor, reference: Tensor) -> float:
    """Largest relative difference."""
    return float((values / reference - 1).abs().max())


def is_diagonal(subprocess: SubProcess) -> bool:
    """Whether no quark changes its generation, as in pyamplicol's model, whose CKM matrix is the unit matrix."""
    net = [0, 0, 0]
    for codes, sign in ((subprocess.initial, -1), (subprocess.final, 1)):
        for code in filter(is_quark, codes):
            net[(abs(code) - 1) // 2] += sign * (1 if code > 0 else -1)
    return not any(net)


def check_literally(process: str, cache: Path | None, scratch: Path, n: int) -> float:
    """Largest relative difference of the shared matrix elements of a process from literal ones."""
    amplitude = AmplicolAmplitude(process, cache=cache, on_progress=show)
    draw = random.Random(1)  # noqa: S311
    members = [
        [s for s in amplitude.subprocesses if s.element == e and is_diagonal(s)] for e in range(amplitude.elements)
    ]
    chosen = [draw.choice(group) for group in members]
    literal = [expression((*subprocess.initial, *subprocess.final)) for subprocess in chosen]
    artifact = open_artifact(request_for(tuple(sorted(set(literal))), "full"), scratch, lambda path: None, show)
    mass = amplitude.model.mass_top
    incoming, outgoing = phase_space_points([mass if abs(c) == 6 else 0.0 for c in chosen[0].final], n)
    alpha_s = incoming.new_full((n,), ALPHA_S)
    shared = amplitude.squared(incoming, outgoing, alpha_s)
    identity = list(range(2 + outgoing.shape[1]))
    columns = [{"process": one, "permutation": identity, "reflected": False, "flow": None} for one in literal]
    pool = WorkerPool({"artifact": str(artifact), "parameters": amplitude.parameters}, 1)
    values = torch.from_numpy(pool.evaluate(torch.cat([incoming, outgoing], 1).numpy(), columns))
    pool.close()
    start = time.process_time()
    amplitude.squared(incoming, outgoing, alpha_s)
    cost = (time.process_time() - start) / n * 1e6
    worst = deviation(shared, values)
    kinds = f"{len(amplitude.subprocesses)} sub-processes, {amplitude.elements} elements"
    print(f"{process:20s} {kinds:36s} {cost:7.1f} us a point   largest difference {worst:.1e}")
    return worst


def check_against_own(process: str, own: Amplitude, cache: Path | None, n: int) -> float:
    """Largest relative difference, over flavour combinations, from the library's own matrix elements."""
    amplitude = AmplicolAmplitude(process, cache=cache, on_progress=show)
    incoming, outgoing = phase_space_points([0.0] * 3, n)
    alpha_s = incoming.new_full((n,), ALPHA_S)

    def by_flavour(one: Amplitude) -> dict[tuple[tuple[int, int], tuple[int, ...]], Tensor]:
        values = one.squared(incoming, outgoing, alpha_s)
        return {(s.initial, tuple(s.final)): s.factor * values[:, s.element] for s in one.subprocesses}

    theirs, ours = by_flavour(amplitude), by_flavour(own)
    if set(theirs) != set(ours):
        print(f"{process}: flavour combinations differ: {sorted(set(theirs) ^ set(ours))}")
        return float("inf")
    worst = max(deviation(theirs[key], ours[key]) for key in ours)
    print(f"{process:20s} {len(ours)} flavour combinations against the library's own   largest difference {worst:.1e}")
    return worst


def show(text: str) -> None:
    """Progress on one line of the terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{text[:100]:100s}\r")


def main() -> int:
    """Run the checks; 1 if a difference is above the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("processes", nargs="*", default=PROCESSES)
    parser.add_argument("--cache", type=Path, help="folder of generated matrix elements")
    parser.add_argument("--scratch", type=Path, help="folder that keeps the literal ones")
    parser.add_argument("--points", type=int, default=2000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        scratch = given.scratch or Path(temporary)
        worst = [check_against_own(name, make(), given.cache, given.points) for name, make in OWN.items()]
        worst += [check_literally(process, given.cache, scratch, given.points) for process in given.processes]
    return int(max(worst) > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
