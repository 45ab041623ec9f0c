"""Events of processes from strings: what `check` and Pythia's shower say of them, and spin and colour beside Pythia's.

    python benchmarks/string_events.py --runs FOLDER --output benchmarks/results/string_events.md

FOLDER has finished runs of cards such as examples/vbs_ssww.toml; without --runs only the distributions are made. Pythia
has the same densities, couplings, scales and masses. Every comparison has a control that must fail.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cross_sections import COMMON, FOUR, ON_SHELL, TAG_ETA, TAG_MASS, WITHOUT_BOTTOM, tagged
from measurements import markdown
from numpy.typing import NDArray

from nisampler.events import EventFile, check_file
from nisampler.events.batch import EventBatch
from nisampler.processes.registry import create

Array = NDArray[np.float64]
_TOP, _LEPTONS = 6, (-11, 13)
SHOWERED = 1000


@dataclass(frozen=True)
class Comparison:
    """A distribution of a process beside Pythia's.

    Attributes
    ----------
    title, tests
        What is compared, and what it shows.
    process, card
        Name and parameters.
    pythia
        Settings.
    value
        Takes the incoming and outgoing particles (code, colour, momentum) of an event.
    spoiled
        The same of an event in which what is tested is destroyed.
    edges
        Of the bins.
    cut
        Of Pythia's events.
    """

    title: str
    tests: str
    process: str
    card: dict[str, Any]
    pythia: tuple[str, ...]
    value: Callable[[list[Any]], float]
    spoiled: Callable[[list[Any]], float]
    edges: Sequence[float]
    cut: Callable[[Any], bool] | None = None


def azimuth(particles: list[Any]) -> float:
    """Angle between the leptons around the beam."""
    one, two = (next(p for code, _, p in particles if code == lepton) for lepton in _LEPTONS)
    difference = abs(np.arctan2(one[2], one[1]) - np.arctan2(two[2], two[1]))
    return float(min(difference, 2 * np.pi - difference))


def azimuth_without_spin(particles: list[Any]) -> float:
    """The same where the positron has changed places with its neutrino: the W forgets its helicity by half."""
    exchanged = {-11: 12, 12: -11}
    return azimuth([(exchanged.get(code, code), colour, p) for code, colour, p in particles])


def _rapidity(p: Any) -> float:
    return float(np.arctanh(p[3] / p[0]))


def ordered_rapidity(particles: list[Any]) -> float:
    """y of the top minus y of the antitop, seen along the gluon whose colour goes on in the top; NaN for quarks."""
    (code, colour, p), (_, _, _) = particles[:2]
    if code != 21:
        return np.nan
    top, antitop = (next(item for item in particles if item[0] == sign * _TOP) for sign in (1, -1))
    along = 1.0 if colour[0] == top[1][0] else -1.0
    along *= 1.0 if p[3] > 0 else -1.0
    return along * (_rapidity(top[2]) - _rapidity(antitop[2]))


def unordered_rapidity(particles: list[Any]) -> float:
    """The same with a flow that does not look at the momenta."""
    value = ordered_rapidity(particles)
    return abs(value) if int(1e6 * abs(value)) % 2 else -abs(value)


def separation(particles: list[Any]) -> float:
    """Pseudorapidities between both jets."""
    one, two = (p for code, _, p in particles[2:] if code != 25)
    return abs(float(np.arcsinh(one[3] / np.hypot(*one[1:3])) - np.arcsinh(two[3] / np.hypot(*two[1:3]))))


def narrowed_separation(particles: list[Any]) -> float:
    """A tenth less."""
    return 0.9 * separation(particles)


COMPARISONS = (
    Comparison(
        "p p > w+ w-, azimuth between e+ and mu-",
        "spin: both W decay with their helicities; control: e+ and its neutrino exchanged",
        "p p > w+ w-, w+ > e+ ve, w- > mu- vm~",
        WITHOUT_BOTTOM | {"pt_lepton_min": 0.0, "eta_lepton_max": 50.0, "pt_missing_min": 0.0},
        (
            "WeakDoubleBoson:ffbar2WW = on",
            FOUR,
            *(line for line in ON_SHELL if "resonanceDecays" not in line),
            "24:onMode = off",
            "24:onPosIfAny = 11",
            "24:onNegIfAny = 13",
        ),
        azimuth,
        azimuth_without_spin,
        np.linspace(0, np.pi, 13).tolist(),
    ),
    Comparison(
        "g g > t t~, rapidity of top minus antitop along the gluon that shares the top's colour",
        "colour: flows by their squares; Pythia shares out their interference too (1/9); control: flows at random",
        "g g > t t~",
        {"scale": 91.1876},
        ("Top:gg2ttbar = on", *ON_SHELL),
        ordered_rapidity,
        unordered_rapidity,
        np.linspace(-3, 3, 13).tolist(),
    ),
    Comparison(
        "p p > h j j QCD=0, pseudorapidity between the jets",
        "exchange of two W or Z, as in vector-boson scattering; control: a tenth less",
        "p p > h j j QCD=0",
        WITHOUT_BOTTOM | {"m_jj_min": TAG_MASS, "delta_eta_jj_min": TAG_ETA},
        (
            "HiggsSM:ff2Hff(t:WW) = on",
            "HiggsSM:ff2Hff(t:ZZ) = on",
            FOUR,
            *ON_SHELL,
            "SigmaProcess:factorScale3VV = 6",
            "SigmaProcess:renormScale3VV = 6",
        ),
        separation,
        narrowed_separation,
        np.linspace(TAG_ETA, 8.5, 13).tolist(),
        tagged,
    ),
)


def ours(item: Comparison, points: int, seed: int) -> tuple[Array, Array, Array]:
    """Values, spoiled values and weights of events at random points."""
    process, generator = create(item.process, **item.card), torch.Generator().manual_seed(seed)
    found = []
    for start in range(0, points, 50_000):
        u = torch.rand(min(50_000, points - start), process.dim, generator=generator, dtype=torch.float64)
        weights = process(u)
        u, weights = u[weights > 0], weights[weights > 0]
        # Large weights stay as they are, small ones are thinned out: few records, the same mean.
        chance = (weights / weights.quantile(0.99)).clamp(max=1.0)
        kept = torch.rand(len(u), generator=generator, dtype=torch.float64) < chance
        batch = process.events(u[kept], (weights / chance)[kept], generator)  # type: ignore[attr-defined]
        events = [_particles(batch, index) for index in range(len(batch))]
        value, spoiled = (np.array([take(event) for event in events]) for take in (item.value, item.spoiled))
        found.append((value, spoiled, batch.weights))
    values, spoils, all_weights = (np.concatenate(column) for column in zip(*found, strict=True))
    return values, spoils, all_weights


def _particles(batch: EventBatch, index: int) -> list[Any]:
    shown = [k for k in range(batch.status.shape[1]) if batch.status[index, k] in (-1, 1)]
    return [(int(batch.pdg_ids[index, k]), batch.colours[index, k].tolist(), batch.momenta[index, k]) for k in shown]


def pythias(item: Comparison, events: int, seed: int) -> Array:
    """Values of Pythia's events."""
    import pythia8mc

    pythia = pythia8mc.Pythia("", False)
    for line in (*COMMON, f"Random:seed = {seed}", *item.pythia):
        if not pythia.readString(line):
            raise ValueError(f"Pythia does not know the setting {line!r}")
    if not pythia.init():
        raise ValueError(f"Pythia cannot start with the settings of {item.title}")
    found = []
    for _ in range(events):
        pythia.next()
        record = pythia.process
        if item.cut is None or item.cut(record):
            shown = [record[k] for k in range(3, record.size()) if k < 5 or record[k].isFinal()]
            found.append(item.value([(p.id(), (p.col(), p.acol()), (p.e(), p.px(), p.py(), p.pz())) for p in shown]))
    return np.array(found)


def shape(values: Array, weights: Array, edges: Sequence[float]) -> tuple[Array, float]:
    """Shares of the bins, and how many events of equal weights say as much."""
    inside = (values >= edges[0]) & (values <= edges[-1])
    kept = weights[inside]
    return np.histogram(values[inside], edges, weights=kept)[0] / kept.sum(), float(kept.sum() ** 2 / (kept**2).sum())


def distance(one: tuple[Array, float], two: tuple[Array, float]) -> float:
    """Chi-squared of two shapes that should be one, over their number of bins minus one."""
    (first, n), (second, m) = one, two
    both = (n * first + m * second) / (n + m)
    used = both > 0
    return float(((first - second)[used] ** 2 / both[used]).sum() / (1 / n + 1 / m) / (used.sum() - 1))


def compared(points: int, events: int, picture: Path | None) -> list[tuple[str, ...]]:
    """A line for each distribution, and a picture of all."""
    lines, drawn = [], []
    for item in COMPARISONS:
        values, spoiled, weights = ours(item, points, seed=11)
        peer = pythias(item, events, seed=5)
        theirs = shape(peer, np.ones(len(peer)), item.edges)
        own, control = (shape(found, weights, item.edges) for found in (values, spoiled))
        drawn.append((item, own, theirs, control))
        far = distance(control, theirs)
        sizes, near = (f"{len(values):,}", f"{len(peer):,}"), distance(own, theirs)
        lines.append((item.title, item.tests, *sizes, f"{near:.2f}", f"{far:.1f}"))
        print(lines[-1], file=sys.stderr, flush=True)
    if picture is not None:
        draw(drawn, picture)
    return lines


def draw(drawn: list[Any], picture: Path) -> None:
    """Shapes beside each other, with Pythia's as points."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(drawn), figsize=(5 * len(drawn), 4), layout="constrained")
    for axis, (item, own, theirs, control) in zip(axes, drawn, strict=True):
        edges = np.array(item.edges)
        axis.stairs(own[0], edges, label="nisampler", color="C0")
        axis.stairs(control[0], edges, label="control", color="0.6", linestyle="--")
        errors = np.sqrt(theirs[0] * (1 - theirs[0]) / theirs[1])
        axis.errorbar((edges[1:] + edges[:-1]) / 2, theirs[0], errors, fmt="k.", label="Pythia")
        axis.set(title=item.title.split(",")[0], xlabel=item.title.split(", ", 1)[1], ylabel="share of a bin", ylim=0)
        axis.xaxis.label.set_size(8)
        axis.legend(frameon=False)
    figure.savefig(picture, dpi=110)


def showered(path: Path, count: int = SHOWERED) -> tuple[int, int, float]:
    """Events that Pythia showers and hadronises, its messages of errors, and charged particles of an event."""
    import pythia8mc

    pythia = pythia8mc.Pythia("", False)
    for line in ("Beams:frameType = 4", f"Beams:LHEF = {path}", "Print:quiet = on", "PartonLevel:MPI = off"):
        pythia.readString(line)
    pythia.init()
    done, charged = 0, 0
    for _ in range(count):
        if pythia.next():
            done += 1
            charged += sum(p.isFinal() and p.isCharged() for p in pythia.event)
    with tempfile.TemporaryFile() as told:
        # It tells its messages to the terminal alone.
        sys.stdout.flush()
        before = os.dup(1)
        os.dup2(told.fileno(), 1)
        pythia.stat()
        os.dup2(before, 1)
        os.close(before)
        told.seek(0)
        messages = re.findall(r"(\d+) +(?:Error|Abort) ", told.read().decode())
    return done, sum(map(int, messages)), charged / max(done, 1)


def judged(run: Path) -> tuple[str, ...]:
    """What is said of the events of a run."""
    path = run / "events.lhe.gz"
    found, info = check_file(path), EventFile.open(path).info
    done, errors, charged = showered(path)
    name = tomllib.loads((run / "card.toml").read_text())["process"]
    told = "good" if found.passed else "; ".join(found.problems)
    numbers = f"{found.n_events:,}", told, f"{done:,}", str(errors), f"{charged:.0f}"
    return run.name, name, f"{info.cross_section:.4g}", *numbers


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; 2 for wrong use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="folder of finished runs")
    parser.add_argument("--points", type=int, default=200_000, help="of the cube, for each distribution")
    parser.add_argument("--events", type=int, default=60_000, help="of Pythia, for each distribution")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(arguments)
    if min(given.points, given.events) < 1:
        print("points and events are at least 1", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    pages = []
    if given.runs:
        runs = sorted(path.parent for path in given.runs.glob("*/events.lhe.gz"))
        columns = ("card", "process", "pb", "events", "check", "showered", "errors", "charged particles")
        note = f"Pythia showers and hadronises the first {SHOWERED:,} events; errors: its messages of that kind."
        pages.append(markdown("Events of processes from strings", (note,), columns, [judged(run) for run in runs]))
    lines = compared(given.points, given.events, given.picture)
    columns = ("distribution", "what it tests", "events", "Pythia's", "chi2 a bin", "chi2 of the control")
    pages.append(markdown("Shapes beside Pythia's", (f"benchmarks/{Path(__file__).name}, 13 TeV.",), columns, lines))
    page = "\n".join(pages)
    if given.output:
        given.output.write_text(page, encoding="utf-8")
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
