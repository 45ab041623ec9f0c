"""Compare |M|^2 of e- e+ -> q qbar g with pyamplicol's, point by point.

Generates e+ e- > u u~ g and e+ e- > d d~ g from pyamplicol's UFO Standard Model, evaluates both codes at the
same points, energies and parameters, prints the largest relative difference and fails above 1e-8.
`--write FILE` stores the points with pyamplicol's values, for the test that needs no pyamplicol.

    pip install "nisampler[sm]" && python benchmarks/check_amplitudes.py

One process at a time: symbolica, which generates the amplitudes, allows one without a licence.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nisampler.errors import MissingExtraError, ProcessError
from nisampler.processes.ee_matrix_element import (
    EEToThreeJetsParameters,
    beam_momenta,
    squared_matrix_element,
)
from nisampler.processes.three_body import ThreeBodyMap, TransverseMomentumRegion

TOLERANCE = 1e-8
NOTE = (
    "benchmarks/check_amplitudes.py --write with pyamplicol {version}, UFO model sm, restriction no_b_mass, "
    "Gf chosen to give sin2_theta_w. Momenta of e-, e+, q, qbar, g as (E, px, py, pz) in GeV; |M|^2 in "
    "GeV^-2, averaged over initial spins, summed over final spins and colours."
)
POINTS_PER_SETTING = 5
CHANNELS = {2: "e+ e- > u u~ g", 1: "e+ e- > d d~ g"}
PARTON_ORDER = [1, 0, 2, 3, 4]  # pyamplicol's legs are e+ e- q q~ g, ours e- e+ q q~ g

# sqrt_s, alpha_em, alpha_s, m_z, gamma_z, sin2_theta_w
SETTINGS = [
    (91.1876, 0.00781751, 0.118, 91.1876, 2.495514921, 0.2315),
    (200.0, 0.00781751, 0.118, 91.1876, 2.495514921, 0.2315),
    (34.0, 1 / 132.507, 0.13, 91.188, 2.441404, 0.2222),
    (500.0, 1 / 137.036, 0.1, 90.0, 3.0, 0.25),
]


@dataclass(frozen=True)
class Reference:
    """One point: parameters, quark flavour, momenta (5, 4) and pyamplicol's |M|^2 in GeV^-2."""

    parameters: dict[str, float]
    flavour: int
    momenta: list[list[float]]
    squared_matrix_element: float


def fermi_constant(p: EEToThreeJetsParameters) -> float:
    """The Gf for which the model, whose input is (alpha, Gf, m_z), derives the wanted sin^2(theta_W)."""
    s2 = p.sin2_theta_w
    return math.pi * p.alpha_em / (math.sqrt(2) * p.m_z**2 * s2 * (1 - s2))


def points(p: EEToThreeJetsParameters, seed: int) -> torch.Tensor:
    """Momenta (n, 5, 4) of beams and partons, spread over soft, collinear and hard regions."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(POINTS_PER_SETTING, 5, dtype=torch.float64, generator=generator)
    partons, _ = ThreeBodyMap(TransverseMomentumRegion(1e-4)).forward(u, p.sqrt_s)
    return torch.cat([beam_momenta(p.sqrt_s, partons).expand(len(u), 2, 4), partons], dim=1)


def generate(process: str, folder: Path) -> None:
    """Let pyamplicol write the amplitude of `process` into `folder`."""
    spec = importlib.util.find_spec("pyamplicol")
    if spec is None or spec.origin is None:
        raise MissingExtraError('pyamplicol is not installed: pip install "nisampler[sm]"')
    model = Path(spec.origin).parent / "assets/models/json/sm/sm.json"
    program = Path(sysconfig.get_path("scripts")) / "pyamplicol"
    options = ["--restriction", "no_b_mass", "--execution-mode", "compiled", "--color-accuracy", "full"]
    command = [str(program), "generate", process, str(folder), "--model", str(model), *options]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode != 0:
        raise ProcessError(f"pyamplicol could not generate {process}: {result.stderr[-2000:]}")


def load_runtime(folder: Path) -> Any:
    """Load an amplitude. Evaluation needs no symbolica, whose import takes the one licence-free process."""
    sys.modules["symbolica"] = None  # type: ignore[assignment]
    from pyamplicol import Runtime

    return Runtime.load(str(folder))


def evaluate(runtime: Any, p: EEToThreeJetsParameters, momenta: torch.Tensor) -> NDArray[np.float64]:
    """pyamplicol's |M|^2 (n,) with our parameters."""
    inputs = {"aEWM1": 1 / p.alpha_em, "Gf": fermi_constant(p), "MZ": p.m_z, "WZ": p.gamma_z, "aS": p.alpha_s}
    for name, value in inputs.items():
        runtime.set_model_parameter(name, value)
    return np.asarray(runtime.evaluate(np.ascontiguousarray(momenta[:, PARTON_ORDER].numpy()))).real


def compare() -> tuple[list[Reference], float]:
    """All references and the largest relative difference from our |M|^2."""
    references: list[Reference] = []
    worst = 0.0
    with tempfile.TemporaryDirectory() as temporary:
        for flavour, process in CHANNELS.items():
            folder = Path(temporary) / str(flavour)
            generate(process, folder)
            runtime = load_runtime(folder)
            for index, setting in enumerate(SETTINGS):
                names = ("sqrt_s", "alpha_em", "alpha_s", "m_z", "gamma_z", "sin2_theta_w")
                values = dict(zip(names, setting, strict=True))
                p = EEToThreeJetsParameters(**values)  # type: ignore[arg-type]
                momenta = points(p, 10 * flavour + index)
                theirs = evaluate(runtime, p, momenta)
                ours = squared_matrix_element(p, momenta[:, :2], momenta[:, 2:], flavour).numpy()
                difference = float(np.abs(ours / theirs - 1).max())
                worst = max(worst, difference)
                print(f"{process}  sqrt(s) = {p.sqrt_s:8.4f} GeV  largest relative difference {difference:.1e}")
                references += [
                    Reference(values, flavour, m, float(t)) for m, t in zip(momenta.tolist(), theirs, strict=True)
                ]
    return references, worst


def main() -> int:
    """Compare, write where asked to, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", type=Path, help="store the points and pyamplicol's values as JSON")
    arguments = parser.parse_args()
    references, worst = compare()
    print(f"{len(references)} points, largest relative difference {worst:.1e}, allowed {TOLERANCE:.0e}")
    if arguments.write is not None:
        lines = ",\n".join(json.dumps(vars(reference)) for reference in references)
        note = json.dumps(NOTE.format(version=version("pyamplicol")))
        arguments.write.write_text(f'{{"made_by": {note},\n"points": [\n{lines}\n]}}\n')
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
