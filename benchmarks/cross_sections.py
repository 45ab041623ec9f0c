"""Cross-sections of proton-proton processes against Pythia 8, a published table, and other phase-space channels.

    pip install ".[shower,sm]" && python benchmarks/cross_sections.py

Pythia runs at leading order without shower, with the same parton densities, couplings, scale and cuts. What cannot be
set to the same value is divided out and printed: its widths of W and Z, which it computes itself, and its running
strong coupling at the scale.
"""

from __future__ import annotations

import argparse
import importlib
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from measurements import Row, markdown, stamp, write_rows
from peers import Outcome, run_nisampler
from rich.console import Console
from rich.table import Table

from nisampler.base.extras import install
from nisampler.base.notation import format_with_error
from nisampler.errors import ConfigError, MissingExtraError, NisamplerError
from nisampler.processes.hadron.process import HadronProcess
from nisampler.processes.parameters import StandardModel
from nisampler.processes.registry import create

MILLIBARN = 1e9
PDF = "NNPDF31_lo_as_0118"
W_BOSON, Z_BOSON = 24, 23
COLUMNS = ("process", "nisampler, pb", "reference, pb", "of", "deviation, %", "pull", "target, %", "reached", "scaled")
NOTE = (
    "13 TeV, NNPDF31_lo_as_0118. deviation: of nisampler from the reference. pull: the same in standard errors of "
    "both. scaled: Pythia computes its widths and strong coupling itself; its value is scaled to those used here."
)
COMMON = (
    "Print:quiet = on",
    "Beams:eCM = 13000",
    f"PDF:pSet = LHAGrid1:{PDF}_0000.dat",
    "PartonLevel:all = off",
    "HadronLevel:all = off",
    "Check:event = off",
    "SigmaProcess:alphaEMorder = -1",
    f"StandardModel:alphaEMmZ = {StandardModel.alpha_em}",
    f"StandardModel:sin2thetaW = {StandardModel.sin2_theta_w}",
    f"StandardModel:sin2thetaWbar = {StandardModel.sin2_theta_w}",
    "SigmaProcess:alphaSvalue = 0.118",
    f"23:m0 = {StandardModel.mass_z}",
    f"24:m0 = {StandardModel.mass_w}",
    "Random:setSeed = on",
)


def fixed_scale(legs: int, mass: float) -> tuple[str, ...]:
    """Both scales of a 2 -> `legs` process fixed at a mass; only from two legs on there is a strong coupling."""
    lines = ("SigmaProcess:factorScale1 = 2", "SigmaProcess:renormScale1 = 2")
    if legs == 2:
        lines = ("SigmaProcess:factorScale2 = 5", "SigmaProcess:renormScale2 = 5")
    return *lines, *(f"SigmaProcess:{name}FixScale = {mass**2:.12g}" for name in ("factor", "renorm"))


@dataclass(frozen=True)
class Comparison:
    """A process and what its cross-section is compared with.

    Attributes
    ----------
    process, card
        Name and parameters.
    target
        Largest relative deviation that is accepted, in per cent.
    table
        A known value with its error, in pb.
    pythia
        Settings that make Pythia compute the same.
    boson
        Pythia's code of the resonance whose width divides the cross-section.
    couplings
        Power of the strong coupling.
    other
        Parameters that give the same cross-section on another way, such as other channels.
    also
        A process whose cross-section is added.
    cut
        Whether an event record of Pythia's is inside the cuts, where these are not its own.
    window
        Masses in GeV between which Pythia has a pair of Z; its cross-section is divided by the share inside, squared.
    label
        What the row is called instead.
    """

    process: str
    card: dict[str, Any]
    target: float
    table: tuple[float, float] | None = None
    pythia: tuple[str, ...] = ()
    boson: int = 0
    couplings: int = 0
    other: dict[str, Any] = field(default_factory=dict)
    also: str = ""
    cut: Callable[[Any], bool] | None = None
    window: tuple[float, float] | None = None
    label: str = ""

    @property
    def name(self) -> str:
        """The process and what is special about it."""
        return self.label or " ".join([self.process, *(f"{key}={value}" for key, value in self.card.items())])


W_DECAY = ("24:onMode = off", "24:onPosIfAny = 11", "24:mMin = 10")
# Wide enough to cut nothing: Pythia's cut is on the transverse momentum alone.
NO_ETA_CUT = 30.0
# The mixing angle of Pythia has a lower limit: the W gets the mass that goes with one above it.
MATCHED_W = StandardModel.mass_z * math.sqrt(1 - StandardModel.sin2_theta_w)
MATCHED = {"mass_w": MATCHED_W, "scale": StandardModel.mass_z, "ckm": "model"}
WITHOUT_BOTTOM = {**MATCHED, "flavours": 4}
ON_SHELL = (
    f"24:m0 = {MATCHED_W:.12g}",
    f"6:m0 = {StandardModel.mass_top}",
    f"25:m0 = {StandardModel.mass_higgs}",
    "PhaseSpace:useBreitWigners = off",
    "ProcessLevel:resonanceDecays = off",
    *fixed_scale(2, StandardModel.mass_z),
)
FOUR = "PDFinProcess:nQuarkIn = 4"
JET_PT, JET_ETA, TAG_MASS, TAG_ETA = 20.0, 5.0, 500.0, 2.5


def tagged(record: Any) -> bool:
    """Whether the two jets of Pythia's event are those of vector-boson fusion."""
    jets = [record[i] for i in range(3, record.size()) if record[i].isFinal() and record[i].idAbs() < 6]
    first, second = (jet.eta() for jet in jets)
    inside = all(jet.pT() > JET_PT and abs(jet.eta()) < JET_ETA for jet in jets)
    return inside and abs(first - second) > TAG_ETA and (jets[0].p() + jets[1].p()).mCalc() > TAG_MASS


COMPARISONS = (
    Comparison(
        "drell_yan",
        {},
        0.3,
        (1603.2, 0.4),
        (
            "WeakSingleBoson:ffbar2gmZ = on",
            "23:onMode = off",
            "23:onIfAny = 11",
            "PhaseSpace:mHatMin = 50",
            *fixed_scale(1, StandardModel.mass_z),
        ),
    ),
    Comparison(
        "w_plus_jets",
        {"n_jets": 0},
        0.3,
        (8995.9, 1.7),
        (
            "WeakSingleBoson:ffbar2W = on",
            "PhaseSpace:mHatMin = 10",
            *W_DECAY,
            *fixed_scale(1, StandardModel.mass_w),
        ),
        boson=W_BOSON,
    ),
    Comparison(
        "w_plus_jets",
        {"n_jets": 1, "eta_jet_max": NO_ETA_CUT},
        0.5,
        None,
        (
            "WeakBosonAndParton:qqbar2Wg = on",
            "WeakBosonAndParton:qg2Wq = on",
            "PhaseSpace:pTHatMin = 20",
            *W_DECAY,
            *fixed_scale(2, StandardModel.mass_w),
        ),
        boson=W_BOSON,
        couplings=1,
    ),
    Comparison(
        "ttbar",
        {},
        0.5,
        None,
        (
            "Top:gg2ttbar = on",
            "Top:qqbar2ttbar = on",
            f"6:m0 = {StandardModel.mass_top}",
            "PhaseSpace:useBreitWigners = off",
            "ProcessLevel:resonanceDecays = off",
            *fixed_scale(2, StandardModel.mass_top),
        ),
        couplings=2,
    ),
    Comparison(
        "p p > w+ w-",
        WITHOUT_BOTTOM,
        1.0,
        pythia=("WeakDoubleBoson:ffbar2WW = on", FOUR, *ON_SHELL),
        label="p p > w+ w-",
    ),
    Comparison(
        "p p > w+ z",
        WITHOUT_BOTTOM,
        1.0,
        pythia=("WeakDoubleBoson:ffbar2ZW = on", FOUR, *ON_SHELL),
        also="p p > w- z",
        label="p p > w+ z, w- z",
    ),
    Comparison(
        "p p > z z",
        WITHOUT_BOTTOM,
        1.0,
        pythia=(
            "WeakDoubleBoson:ffbar2gmZgmZ = on",
            "WeakZ0:gmZmode = 2",
            FOUR,
            *ON_SHELL,
            "PhaseSpace:useBreitWigners = on",
            "23:mMin = 80",
            "23:mMax = 102",
        ),
        window=(80.0, 102.0),
        label="p p > z z",
    ),
    Comparison(
        "p p > t j QCD=0",
        {**MATCHED, "eta_jet_max": NO_ETA_CUT},
        1.0,
        pythia=("Top:qq2tq(t:W) = on", "Top:ffbar2tqbar(s:W) = on", "PhaseSpace:pTHatMin = 20", *ON_SHELL),
        also="p p > t~ j QCD=0",
        label="p p > t j, t~ j QCD=0",
    ),
    Comparison(
        "p p > h j j QCD=0",
        {**WITHOUT_BOTTOM, "m_jj_min": TAG_MASS, "delta_eta_jj_min": TAG_ETA},
        1.0,
        pythia=(
            "HiggsSM:ff2Hff(t:WW) = on",
            "HiggsSM:ff2Hff(t:ZZ) = on",
            FOUR,
            *ON_SHELL,
            "SigmaProcess:factorScale3VV = 6",
            "SigmaProcess:renormScale3VV = 6",
        ),
        cut=tagged,
        label="p p > h j j QCD=0, m_jj > 500",
    ),
    *(Comparison("w_plus_jets", {"n_jets": n}, 1.0, other={"channels": "topology"}) for n in (1, 2, 3)),
)


@dataclass(frozen=True)
class Budget:
    """Calls of each training, points of each estimate, events of Pythia, and a seed."""

    calls: int
    points: int
    events: int
    seed: int


def run_pythia(comparison: Comparison, events: int, seed: int, strong: float) -> tuple[float, float, str]:
    """Pythia's cross-section with its error in pb, at this strong coupling, and what was scaled.

    Raises
    ------
    MissingExtraError
        If Pythia is not installed.
    ConfigError
        If it refuses a setting.
    """
    try:
        peer: Any = importlib.import_module("pythia8mc")
    except ImportError as error:
        raise MissingExtraError(f"Pythia is not installed: {install('shower')}") from error
    pythia = peer.Pythia("", False)
    for line in (*COMMON, f"Random:seed = {seed}", *comparison.pythia):
        if not pythia.readString(line):
            raise ConfigError(f"Pythia does not know the setting {line!r}")
    if not pythia.init():
        raise ConfigError(f"Pythia cannot start with the settings of {comparison.name}")
    inside = 0
    for _ in range(events):
        pythia.next()
        inside += comparison.cut is None or comparison.cut(pythia.process)
    info = pythia.infoPython()
    factor, notes = inside / events, list[str]()
    if comparison.boson:
        widths = {W_BOSON: StandardModel.width_w, Z_BOSON: StandardModel.width_z}
        own = float(pythia.particleData.mWidth(comparison.boson))
        factor *= own / widths[comparison.boson]
        notes.append(f"width {own:.6f} -> {widths[comparison.boson]:.6f}")
    if comparison.couplings:
        factor *= (strong / info.alphaS()) ** comparison.couplings
        notes.append(f"alpha_s {info.alphaS():.6f} -> {strong:.6f}")
    if comparison.window:
        share = breit_wigner_share(StandardModel.mass_z, float(pythia.particleData.mWidth(Z_BOSON)), comparison.window)
        factor /= share**2
        notes.append(f"mass window {share:.4f}^2 -> 1")
    scale = MILLIBARN * factor
    error = math.hypot(info.sigmaErr(), info.sigmaGen() * math.sqrt(1 / inside - 1 / events))
    return info.sigmaGen() * scale, error * scale, ", ".join(notes)


def breit_wigner_share(mass: float, width: float, window: tuple[float, float]) -> float:
    """Share of a Breit-Wigner in the squared mass between two masses."""
    low, high = (math.atan((edge**2 - mass**2) / (mass * width)) for edge in window)
    return (high - low) / math.pi


def strong_coupling(process: HadronProcess) -> float:
    """alpha_s at the fixed scale of a process."""
    constant = process.setup.scales.constant
    if constant is None:
        raise ConfigError(f"{process.name} has a dynamic scale; choose a fixed one to compare with Pythia")
    squared = torch.tensor([constant[0] ** 2], dtype=torch.float64)
    return float((process.setup.alpha_s or process.setup.pdf.alpha_s)(squared))


def estimate(name: str, card: dict[str, Any], budget: Budget) -> tuple[HadronProcess, Outcome]:
    """The cross-section from VEGAS grids, which are enough for it."""
    process = create(name, **card)
    if not isinstance(process, HadronProcess):
        raise ConfigError(f"{name} is no hadron process")
    return process, run_nisampler(process, budget.seed, budget.calls, budget.points, sampler="vegas")


def row_of(comparison: Comparison, ours: Outcome, reference: tuple[float, float], of: str, note: str = "") -> Row:
    """One line of the comparison."""
    value, error = reference
    deviation = ours.value / value - 1.0
    found: Row = {"process": comparison.name, "value": ours.value, "error": ours.error, "calls": ours.training_calls}
    found |= {"points": ours.integration_calls, "reference": value, "reference_error": error, "of": of, "note": note}
    found |= {"deviation": deviation, "pull": (ours.value - value) / math.hypot(ours.error, error)}
    return (
        found | {"target": comparison.target / 100.0, "reached": abs(deviation) <= comparison.target / 100.0} | stamp()
    )


def compare(comparison: Comparison, budget: Budget) -> list[Row]:
    """The rows of one comparison: with the table, with Pythia, with other channels."""
    process, ours = estimate(comparison.process, comparison.card, budget)
    if comparison.also:
        _, second = estimate(comparison.also, comparison.card, budget)
        total = ours.value + second.value
        ours = replace(ours, value=total, error=math.hypot(ours.error, second.error))
    rows = []
    if comparison.table is not None:
        rows.append(row_of(comparison, ours, comparison.table, "table"))
    if comparison.pythia:
        value, error, note = run_pythia(comparison, budget.events, budget.seed, strong_coupling(process))
        rows.append(row_of(comparison, ours, (value, error), "Pythia 8", note))
    if comparison.other:
        name = ", ".join(f"{key} {value}" for key, value in comparison.other.items())
        _, second = estimate(comparison.process, comparison.card | comparison.other, budget)
        rows.append(row_of(comparison, ours, (second.value, second.error), name))
    return rows


def cells(row: Row) -> tuple[str, ...]:
    """A row as it is printed."""
    return (
        row["process"],
        format_with_error(row["value"], row["error"]),
        format_with_error(row["reference"], row["reference_error"]),
        row["of"],
        f"{100.0 * row['deviation']:+.3f}",
        f"{row['pull']:+.1f}",
        f"{100.0 * row['target']:g}",
        "yes" if row["reached"] else "no",
        row["note"],
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description="Cross-sections against Pythia, a table, and other channels.")
    known = [str(number) for number in range(len(COMPARISONS))]
    described = "; ".join(f"{number}: {item.name}" for number, item in enumerate(COMPARISONS))
    parser.add_argument("--only", nargs="+", choices=known, default=known, help=f"comparisons: {described}")
    parser.add_argument("--calls", type=int, default=200_000, help="integrand calls of each training")
    parser.add_argument("--points", type=int, default=400_000, help="points of each estimate")
    parser.add_argument("--events", type=int, default=500_000, help="events of each run of Pythia")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="write the rows to this JSON file, and the table beside it, .md")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace, console: Console) -> int:
    """Make all comparisons; the number of those that miss their target."""
    for name in ("calls", "points", "events"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name} must be positive, got {getattr(options, name)}")
    budget = Budget(options.calls, options.points, options.events, options.seed)
    rows: list[Row] = []
    for number in dict.fromkeys(options.only):
        found = compare(COMPARISONS[int(number)], budget)
        for row in found:
            console.print("  ".join(cells(row)), markup=False, highlight=False)
        rows += found
        if options.output:
            write_rows(options.output, rows)
    table = Table(title="Cross-sections", caption=NOTE)
    for index, name in enumerate(COLUMNS):
        table.add_column(name, justify="right" if index in (1, 2, 4, 5, 6) else "left", no_wrap=True)
    for row in rows:
        table.add_row(*cells(row))
    console.print(table)
    if options.output:
        text = f"{options.calls} calls of training, {options.points} points, {options.events} events of Pythia."
        page = markdown("Cross-sections", (text, NOTE), COLUMNS, [cells(row) for row in rows])
        options.output.with_suffix(".md").write_text(page, encoding="utf-8")
    return sum(not row["reached"] for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparisons; 0 if every one is within its target."""
    options = parse(arguments)
    torch.set_num_threads(1)
    try:
        return 1 if run(options, Console(width=190)) else 0
    except NisamplerError as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False)
        return 2


if __name__ == "__main__":
    sys.exit(main())
