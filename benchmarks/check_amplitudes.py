"""Compare every |M|^2 of the library with pyamplicol's, point by point.

Generates e- e+ -> q qbar g and the hadron-collider processes (Drell-Yan, boson and jet, top pairs, QCD two-to-two) from
pyamplicol's UFO Standard Model, evaluates both codes at the same points, energies and parameters, prints the largest
relative differences and fails above 1e-8. Colour flows are compared where gluons make them unambiguous: pyamplicol
weights those of four quarks with terms beyond leading colour.
`--write DIR` stores the points with pyamplicol's values, for the tests that need no pyamplicol;
`--artifacts DIR` keeps what was generated there and uses what is there already.

    pip install ".[sm]" && python benchmarks/check_amplitudes.py

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
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nisampler.base.extras import install
from nisampler.errors import MissingExtraError, ProcessError
from nisampler.processes.amplitudes.currents import ChargedCurrent, LeptonicCurrent, NeutralCurrent
from nisampler.processes.amplitudes.drell_yan import DrellYan
from nisampler.processes.amplitudes.qcd import Qcd
from nisampler.processes.amplitudes.top_pair import TopPair
from nisampler.processes.amplitudes.tree import TreeAmplitude
from nisampler.processes.amplitudes.vector_jet import VectorJet
from nisampler.processes.lepton.ee_matrix_element import EEToThreeJetsParameters, beam_momenta, squared_matrix_element
from nisampler.processes.parameters import StandardModel
from nisampler.processes.phase_space.kinematics import boost
from nisampler.processes.phase_space.rambo import RamboOnDiet
from nisampler.processes.phase_space.three_body import ThreeBodyMap, TransverseMomentumRegion

TOLERANCE = 1e-8
MADE_BY = "benchmarks/check_amplitudes.py --write with pyamplicol {version}, UFO model sm, restriction no_b_mass. "
NOTE = (
    "Gf chosen to give sin2_theta_w. Momenta of e-, e+, q, qbar, g as (E, px, py, pz) in GeV; |M|^2 in "
    "GeV^-2, averaged over initial spins, summed over final spins and colours."
)
HADRON_NOTE = (
    "Gf chosen to give sin2_theta_w, so that m_W = m_Z cos(theta_W); unit CKM matrix; stable top quark. Momenta of the "
    "incoming, then the outgoing legs as (E, px, py, pz) in GeV; |M|^2 in GeV^(4 - 2 m), averaged over initial and "
    "summed over final spins and colours. Colour flows: strings of legs, counted from 1, from colour to anticolour, "
    "and their shares of the sum over flows."
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


# alpha_s, kinetic energy of the final state in GeV, Standard Model without the W mass
HADRON_SETTINGS: list[tuple[float, float, dict[str, float]]] = [
    (0.118, 95.0, {}),
    (0.12, 250.0, {"mass_top": 172.5}),
    (
        0.1,
        1000.0,
        {"alpha_em": 1 / 132.507, "sin2_theta_w": 0.2222, "mass_z": 91.188, "width_z": 2.44, "width_w": 2.05},
    ),
]
HADRON_POINTS_PER_SETTING = 3
UNIT_CKM = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
BOOST = [0.1, -0.2, 0.4]


@dataclass(frozen=True)
class Case:
    """A process in pyamplicol's words, the amplitude that has it and its legs; whether to compare colour flows."""

    process: str
    amplitude: str
    initial: tuple[int, int]
    final: tuple[int, ...]
    flows: bool = False


CASES = [
    Case("u u~ > e- e+", "z", (2, -2), (11, -11)),
    Case("d d~ > e- e+", "z", (1, -1), (11, -11)),
    Case("u d~ > e+ ve", "w_plus", (2, -1), (-11, 12)),
    Case("d u~ > e- ve~", "w_minus", (1, -2), (11, -12)),
    Case("u u~ > e- e+ g", "z_jet", (2, -2), (11, -11, 21)),
    Case("d d~ > e- e+ g", "z_jet", (1, -1), (11, -11, 21)),
    Case("u g > e- e+ u", "z_jet", (2, 21), (11, -11, 2)),
    Case("d~ g > e- e+ d~", "z_jet", (-1, 21), (11, -11, -1)),
    Case("u d~ > e+ ve g", "w_plus_jet", (2, -1), (-11, 12, 21)),
    Case("u g > e+ ve d", "w_plus_jet", (2, 21), (-11, 12, 1)),
    Case("d~ g > e+ ve u~", "w_plus_jet", (-1, 21), (-11, 12, -2)),
    Case("d u~ > e- ve~ g", "w_minus_jet", (1, -2), (11, -12, 21)),
    Case("d g > e- ve~ u", "w_minus_jet", (1, 21), (11, -12, 2)),
    Case("u u~ > t t~", "top_pair", (2, -2), (6, -6)),
    Case("g g > t t~", "top_pair", (21, 21), (6, -6), flows=True),
    Case("g g > g g", "qcd", (21, 21), (21, 21), flows=True),
    Case("g g > u u~", "qcd", (21, 21), (2, -2), flows=True),
    Case("u u~ > g g", "qcd", (2, -2), (21, 21)),
    Case("u g > u g", "qcd", (2, 21), (2, 21), flows=True),
    Case("u u > u u", "qcd", (2, 2), (2, 2)),
    Case("u d > u d", "qcd", (2, 1), (2, 1)),
    Case("u u~ > u u~", "qcd", (2, -2), (2, -2)),
    Case("u u~ > d d~", "qcd", (2, -2), (1, -1)),
    Case("u d~ > u d~", "qcd", (2, -1), (2, -1)),
]


def build(name: str, model: StandardModel) -> TreeAmplitude:
    """The amplitude of that name in CASES."""
    if name in ("qcd", "top_pair"):
        return Qcd() if name == "qcd" else TopPair(model)
    currents: dict[str, Callable[..., LeptonicCurrent]] = {"z": NeutralCurrent}
    currents |= {"w_plus": partial(ChargedCurrent, 1), "w_minus": partial(ChargedCurrent, -1)}
    current = currents[name.removesuffix("_jet")](model=model)
    return VectorJet(current) if name.endswith("_jet") else DrellYan(current)


@dataclass(frozen=True)
class Reference:
    """One point: parameters, quark flavour, momenta (5, 4) and pyamplicol's |M|^2 in GeV^-2."""

    parameters: dict[str, float]
    flavour: int
    momenta: list[list[float]]
    squared_matrix_element: float


def fermi_constant(alpha_em: float, sin2_theta_w: float, m_z: float) -> float:
    """The Gf for which the model, whose input is (alpha, Gf, m_z), derives the wanted sin^2(theta_W)."""
    return math.pi * alpha_em / (math.sqrt(2) * m_z**2 * sin2_theta_w * (1 - sin2_theta_w))


def points(p: EEToThreeJetsParameters, seed: int) -> torch.Tensor:
    """Momenta (n, 5, 4) of beams and partons, spread over soft, collinear and hard regions."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(POINTS_PER_SETTING, 5, dtype=torch.float64, generator=generator)
    partons, _ = ThreeBodyMap(TransverseMomentumRegion(1e-4)).forward(u, p.sqrt_s)
    return torch.cat([beam_momenta(p.sqrt_s, partons).expand(len(u), 2, 4), partons], dim=1)


def generate(process: str, folder: Path, colour: str = "full") -> None:
    """Let pyamplicol write the amplitude of `process` into `folder`, unless it is there already."""
    if folder.exists():
        return
    spec = importlib.util.find_spec("pyamplicol")
    if spec is None or spec.origin is None:
        raise MissingExtraError(f"pyamplicol is not installed: {install('sm')}")
    model = Path(spec.origin).parent / "assets/models/json/sm/sm.json"
    program = Path(sysconfig.get_path("scripts")) / "pyamplicol"
    options = ["--restriction", "no_b_mass", "--execution-mode", "compiled", "--color-accuracy", colour]
    command = [str(program), "generate", process, str(folder), "--model", str(model), *options]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode != 0:
        raise ProcessError(f"pyamplicol could not generate {process}: {result.stderr[-2000:]}")


def load_runtime(folder: Path) -> Any:
    """Load an amplitude. Evaluation needs no symbolica, whose import takes the one licence-free process."""
    sys.modules["symbolica"] = None  # type: ignore[assignment]
    from pyamplicol import Runtime

    return Runtime.load(str(folder))


def evaluate(runtime: Any, inputs: dict[str, float], momenta: torch.Tensor, **options: Any) -> NDArray[np.float64]:
    """pyamplicol's |M|^2 (n,) with the given inputs of its model."""
    for name, value in inputs.items():
        runtime.set_model_parameter(name, value)
    return np.asarray(runtime.evaluate(np.ascontiguousarray(momenta.numpy()), **options)).real


def folder_of(artifacts: Path, process: str, colour: str = "full") -> Path:
    """Where the amplitude of `process` is kept."""
    return artifacts / f"{process}_{colour}".replace(" > ", "_to_").replace(" ", "_").replace("~", "bar")


def compare_ee(artifacts: Path) -> tuple[list[dict[str, Any]], float]:
    """e- e+ -> q qbar g: all references and the largest relative difference from our |M|^2."""
    references: list[dict[str, Any]] = []
    worst = 0.0
    for flavour, process in CHANNELS.items():
        folder = folder_of(artifacts, process)
        generate(process, folder)
        runtime = load_runtime(folder)
        for index, setting in enumerate(SETTINGS):
            names = ("sqrt_s", "alpha_em", "alpha_s", "m_z", "gamma_z", "sin2_theta_w")
            values = dict(zip(names, setting, strict=True))
            p = EEToThreeJetsParameters(**values)  # type: ignore[arg-type]
            momenta = points(p, 10 * flavour + index)
            fermi = fermi_constant(p.alpha_em, p.sin2_theta_w, p.m_z)
            inputs = {"aEWM1": 1 / p.alpha_em, "Gf": fermi, "MZ": p.m_z, "WZ": p.gamma_z, "aS": p.alpha_s}
            theirs = evaluate(runtime, inputs, momenta[:, PARTON_ORDER])
            ours = squared_matrix_element(p, momenta[:, :2], momenta[:, 2:], flavour).numpy()
            difference = float(np.abs(ours / theirs - 1).max())
            worst = max(worst, difference)
            print(f"{process}  sqrt(s) = {p.sqrt_s:8.4f} GeV  largest relative difference {difference:.1e}")
            references += [
                asdict(Reference(values, flavour, m, float(t))) for m, t in zip(momenta.tolist(), theirs, strict=True)
            ]
    return references, worst


def hadron_points(case: Case, energy: float, mass_top: float, seed: int) -> torch.Tensor:
    """Momenta (n, 2 + m, 4) of all legs, spread flatly over phase space and boosted."""
    masses = [mass_top if abs(code) == 6 else 0.0 for code in case.final]
    phase_space = RamboOnDiet(masses)
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(HADRON_POINTS_PER_SETTING, phase_space.dim, dtype=torch.float64, generator=generator)
    sqrt_s = energy + sum(masses)
    outgoing, _ = phase_space.forward(u, sqrt_s)
    beams = beam_momenta(sqrt_s, outgoing).expand(len(u), 2, 4)
    return boost(torch.cat([beams, outgoing], dim=1), outgoing.new_tensor(BOOST))


def flow_fractions(artifacts: Path, case: Case, inputs: dict[str, float], momenta: torch.Tensor) -> dict[str, Any]:
    """pyamplicol's colour flows: the legs of each string and their shares (n, flows) of the leading-colour sum."""
    folder = folder_of(artifacts, case.process, "lc")
    generate(case.process, folder, "lc")
    runtime = load_runtime(folder)
    flows = runtime.physics.color_flows
    weights = np.array([evaluate(runtime, inputs, momenta, color_flows=[flow.id]) for flow in flows])
    return {"words": [list(flow.word) for flow in flows], "fractions": (weights / weights.sum(0)).T.tolist()}


def compare_hadron(artifacts: Path) -> tuple[list[dict[str, Any]], float]:
    """The hadron-collider processes: all references and the largest relative difference from our |M|^2."""
    references: list[dict[str, Any]] = []
    worst = 0.0
    for number, case in enumerate(CASES):
        folder = folder_of(artifacts, case.process)
        generate(case.process, folder)
        runtime = load_runtime(folder)
        differences = []
        for index, (alpha_s, energy, changes) in enumerate(HADRON_SETTINGS):
            m = StandardModel(**changes)  # type: ignore[arg-type]
            changes = changes | {"mass_w": m.mass_z * math.sqrt(1 - m.sin2_theta_w)}
            momenta = hadron_points(case, energy, m.mass_top, 10 * number + index)
            fermi = fermi_constant(m.alpha_em, m.sin2_theta_w, m.mass_z)
            inputs = {"aEWM1": 1 / m.alpha_em, "Gf": fermi, "MZ": m.mass_z, "WZ": m.width_z, "WW": m.width_w}
            inputs |= {"aS": alpha_s, "MT": m.mass_top, "WT": 0.0}
            theirs = evaluate(runtime, inputs, momenta)
            amplitude = build(case.amplitude, StandardModel(**changes, ckm=UNIT_CKM))
            ids = [s for s in amplitude.subprocesses if (s.initial, s.final) == (case.initial, case.final)]
            coupling = momenta.new_full((len(momenta),), alpha_s)
            ours = amplitude.squared(momenta[:, :2], momenta[:, 2:], coupling)[:, ids[0].element]
            differences.append(float(np.abs(ours.numpy() / theirs - 1).max()))
            reference = asdict(case) | {"model": changes, "alpha_s": alpha_s, "momenta": momenta.tolist()}
            reference |= {"squared": theirs.tolist()}
            if case.flows:
                reference["flows"] = flow_fractions(artifacts, case, inputs, momenta)
            references.append(reference)
        print(f"{case.process:18s} largest relative difference {max(differences):.1e}")
        worst = max(worst, *differences)
    return references, worst


def write(path: Path, note: str, references: list[dict[str, Any]]) -> None:
    """Store references as JSON, one a line."""
    lines = ",\n".join(json.dumps(reference) for reference in references)
    made_by = json.dumps(MADE_BY.format(version=version("pyamplicol")) + note)
    path.write_text(f'{{"made_by": {made_by},\n"points": [\n{lines}\n]}}\n')


def main() -> int:
    """Compare, write where asked to, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", type=Path, help="folder to store the points and pyamplicol's values in, as JSON")
    parser.add_argument("--artifacts", type=Path, help="folder to keep what pyamplicol generates in")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        artifacts = arguments.artifacts or Path(temporary)
        ee, ee_worst = compare_ee(artifacts)
        hadron, hadron_worst = compare_hadron(artifacts)
    worst = max(ee_worst, hadron_worst)
    print(f"largest relative difference {worst:.1e}, allowed {TOLERANCE:.0e}")
    if arguments.write is not None:
        write(arguments.write / "ee_to_3jets_pyamplicol.json", NOTE, ee)
        write(arguments.write / "hadron_pyamplicol.json", HADRON_NOTE, hadron)
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
