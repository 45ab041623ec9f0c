"""W+ and two jets, from a card to one picture with its uncertainties: a production in small.

    pip install '.[dask,lhe,shower,sm]'
    python examples/production/pipeline.py runs/production --events 40000

Trains once, packs the run, makes events by two jobs by hand and two workers of Dask, merges them, adds weights of other
scales and parton densities, showers the events with Pythia, and draws p_T of the W and the jets with bands of scales
and densities. Every step is a command of nisampler, printed before it runs; a step whose result is there is skipped,
so the same command continues an interrupted one. `--pdf SET` takes a set with members from $LHAPDF_DATA_PATH; the band
is that of its rule then, and else the spread of the fits that come with pythia8mc.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pythia8mc
from matplotlib.figure import Figure

from nisampler.events import EventFile
from nisampler.events.uncertainty import band_of
from nisampler.events.weights import WeightGroup
from nisampler.ui.histograms import Axis
from nisampler.ui.plots import BLUE, GREEN, INK, ORANGE, PLAIN, PURPLE, svg

HERE = Path(__file__).resolve().parent
FITS = ("NNPDF31_lo_as_0130", "NNPDF23_lo_as_0119_qed", "NNPDF23_lo_as_0130_qed")
RADIUS, PT_JET, ETA_JET = 0.4, 30.0, 4.4
AXES = (
    Axis("pt_w", r"$p_T(W)$ [GeV]", np.array([0.0, 15, 30, 45, 60, 80, 100, 130, 170, 220, 300, 400])),
    Axis("pt_j1", r"$p_T$ of the leading jet [GeV]", np.array([30.0, 40, 50, 65, 80, 100, 130, 170, 220, 300, 400])),
    Axis("n_jets", r"jets with $p_T > 30$ GeV, $|\eta| < 4.4$", np.arange(-0.5, 7.0)),
)
# Photons from the positron would blur p_T of the W, which is that of both leptons.
SHOWER = ("TimeShower:QEDshowerByL = off", "Random:setSeed = on", "Random:seed = 1", "Print:quiet = on")


def nisampler(*words: object) -> None:
    """A command of the command line."""
    print("$ nisampler", *words, flush=True)
    done = subprocess.run([sys.executable, "-m", "nisampler", *map(str, words)], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def events_of(order: argparse.Namespace, folder: Path) -> Path:
    """The events of four jobs in one file, with their variations."""
    card, run, pack = folder / "card.toml", folder / "run", folder / "production.nispack"
    merged, varied = folder / "events.lhe.gz", folder / "varied.lhe.gz"
    if not card.exists():
        card.write_text(re.sub(r'(?m)^pdf = "[^"]*"', f'pdf = "{order.pdf}"', order.card.read_text()))
    if not (run / "run.json").exists():
        nisampler("run", card, "--output", run)
    elif not pack.exists():
        nisampler("resume", run)
    if not pack.exists():
        nisampler("pack", run, "--output", pack)

    half, size = order.events // 2, max(1, order.events // 8)
    by_hand, by_dask = [folder / "jobs" / name for name in ("1", "2")], folder / "jobs" / "dask"
    share = ("--events", half, "--shard-size", size)
    for part, job in enumerate(by_hand, 1):
        if not (job / "generated.json").exists():
            nisampler("generate", pack, *share, "--seed", 7, "--job", f"{part}/2", "--shards-only", "--output", job)
    if not (by_dask / "generated.json").exists():
        dask = ("--backend", "dask", "--cluster", order.cluster, "--workers", 2) if order.cluster else ()
        nisampler("submit" if dask else "generate", pack, *share, "--seed", 8, *dask, "--output", by_dask)

    if not merged.exists():
        nisampler("merge", *by_hand, by_dask, "--output", merged)
    if not varied.exists():
        nisampler("reweight", merged, "--scales", "7-point", *pdf_words(order), "--output", varied)
    nisampler("uncertainty", varied)
    return varied


def pdf_words(order: argparse.Namespace) -> list[str]:
    """The variations of the densities: all members of the set, or those fits that come with pythia8mc."""
    sets = [f"{fit}/0" for fit in FITS] if order.pdf.startswith("NNPDF31_lo") else [f"{order.pdf}/all"]
    return [word for name in sets for word in ("--pdfs", name)]


def showered(path: Path, names: list[str], settings: list[str]) -> dict[str, np.ndarray]:
    """What the picture shows of each event after the shower, with its weight in pb and the named ones, (n, names)."""
    pythia = pythia8mc.Pythia("", False)
    for line in ("Beams:frameType = 4", f"Beams:LHEF = {path}", *SHOWER, *settings):
        if not pythia.readString(line):
            raise SystemExit(f"Pythia does not know the setting {line!r}")
    if not pythia.init():
        raise SystemExit(f"Pythia does not take {path}")
    finder = pythia8mc.SlowJet(-1, RADIUS, PT_JET, ETA_JET, 2, 1)  # anti-kT of all that is visible
    rows, weights, places, failed = [], [], None, 0
    while True:
        good, info = pythia.next(), pythia.infoPython()
        if not good and info.atEndOfFile():
            break
        if not good:
            failed += 1
            continue
        if places is None:
            found = {info.weightNameByIndex(place): place for place in range(info.numberOfWeights())}
            places = [0, *(found[name] for name in names)]
        values = np.array([info.weightValueByIndex(place) for place in places])
        weights.append(info.weight() * values[1:] / values[0])
        rows.append((*observables(pythia, finder), info.weight()))
    columns = np.array(rows).T
    return {
        **dict(zip((*(axis.name for axis in AXES), "weight"), columns, strict=True)),
        "named": np.array(weights),
        "failed": np.array(failed),
    }


def observables(pythia: pythia8mc.Pythia, finder: pythia8mc.SlowJet) -> tuple[float, float, int]:
    """p_T of the W, p_T of the leading jet, and the number of jets, of which the positron is none."""
    event, leptons = pythia.event, []
    for place in range(event.size()):
        if event[place].statusAbs() == 23 and event[place].idAbs() in (11, 12):  # of the hard process
            leptons.append(event[event[place].iBotCopyId()])
            if len(leptons) == 2:
                break
    positron = next(lepton for lepton in leptons if lepton.idAbs() == 11)
    finder.analyze(event)
    jets = []
    for number in range(finder.sizeJet()):
        across = abs(finder.phi(number) - positron.phi())
        if np.hypot(finder.y(number) - positron.y(), min(across, 2 * np.pi - across)) > RADIUS:
            jets.append(finder.pT(number))
    pt_w = np.hypot(sum(lepton.px() for lepton in leptons), sum(lepton.py() for lepton in leptons))
    return float(pt_w), max(jets, default=0.0), len(jets)


def drawn(groups: tuple[WeightGroup, ...]) -> list[WeightGroup]:
    """Scales and whole sets; single fits together, since none of them tells its uncertainty."""
    fits = tuple(group.weights[0] for group in groups if len(group.weights) == 1)
    spread = [WeightGroup(f"spread of {len(fits) + 1} fits", "envelope", fits)] if fits else []
    return [group for group in groups if len(group.weights) > 1] + spread


def histogram(axis: Axis, found: dict[str, np.ndarray], groups: list[WeightGroup], names: list[str]) -> dict:
    """dσ/dx in pb per unit of the axis, its statistical error, and the lower and upper end of each band."""
    place, bins, widths = axis.bins(found[axis.name]), len(axis.edges) - 1, np.diff(axis.edges)
    tried = len(place) + int(found["failed"])

    def summed(weights: np.ndarray) -> np.ndarray:
        return np.bincount(place, weights, bins + 2)[1:-1] / tried / widths

    value, error = summed(found["weight"]), np.sqrt(summed(found["weight"] ** 2) / tried / widths)
    bands = {}
    for group in groups:
        parts = np.array([summed(found["named"][:, names.index(name)]) for name in group.ids])
        made = [band_of(group, part, nominal) for part, nominal in zip(parts.T, value, strict=True)]
        ends = [[item.central - item.minus for item in made], [item.central + item.plus for item in made]]
        bands[group.name] = {"low": ends[0], "high": ends[1]}
    return {"edges": axis.edges.tolist(), "value": value.tolist(), "error": error.tolist(), "bands": bands}


def picture(histograms: dict[str, dict], title: str) -> bytes:
    """All distributions side by side with their bands, and below, the ratio of each band to the middle."""
    names = list(histograms[AXES[0].name]["bands"])
    with mpl.rc_context(PLAIN):
        figure = Figure(figsize=(17.0, 6.0 + 1.5 * len(names)), layout="constrained")
        panels = figure.subplots(1 + len(names), len(AXES), sharex="col", height_ratios=(3.0, *(1.1 for _ in names)))
        for axis, (main, *lower) in zip(AXES, panels.T, strict=True):
            made = histograms[axis.name]
            value, error = np.array(made["value"]), np.array(made["error"])
            middle = np.where(value > 0, value, np.nan)
            for name, panel, colour in zip(names, lower, (GREEN, PURPLE, ORANGE), strict=False):
                low, high = np.array(made["bands"][name]["low"]), np.array(made["bands"][name]["high"])
                look = {"fill": True, "color": colour, "alpha": 0.4, "label": name}
                main.stairs(high, axis.edges, baseline=low, **look)
                panel.stairs(high / middle, axis.edges, baseline=low / middle, **look)
                reach = 1.6 * np.nanmax([0.01, *np.abs(low / middle - 1), *np.abs(high / middle - 1)])
                panel.set(ylim=(1 - min(1.0, reach), 1 + min(1.0, reach)), ylabel="ratio")
            for panel, unit in ((main, np.ones_like(value)), *((panel, middle) for panel in lower)):
                panel.stairs(value / unit, axis.edges, baseline=None, color=BLUE, linewidth=1.6)
                panel.errorbar(axis.centres, value / unit, error / unit, fmt="none", ecolor=INK, label="statistics")
            main.set_yscale("log")
            main.set_ylabel(r"$d\sigma/dp_T$ [pb/GeV]" if "GeV]" in axis.label else r"$\sigma$ [pb]")
            lower[-1].set(xlabel=axis.label, xlim=(axis.edges[0], axis.edges[-1]))
        panels[0, 1].legend(loc="upper right")
        figure.suptitle(title, x=0.01, ha="left", fontsize=15, fontweight="bold")
    return svg(figure)


def main() -> None:
    """All steps in their order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where everything goes")
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--card", type=Path, default=HERE / "w_plus_2_jets.toml")
    parser.add_argument("--pdf", default="NNPDF31_lo_as_0118", help="a set of parton densities")
    parser.add_argument("--cluster", default="local", help="of Dask, as for `nisampler submit`; empty for none")
    parser.add_argument("--pythia", action="append", default=[], help="a setting of Pythia; may be repeated")
    order = parser.parse_args()
    order.folder.mkdir(parents=True, exist_ok=True)
    settings, asked = order.folder / "settings.json", {name: str(value) for name, value in vars(order).items()}
    if settings.exists() and json.loads(settings.read_text()) != asked:
        raise SystemExit(f"{order.folder} holds a production with other settings: choose another folder")
    settings.write_text(json.dumps(asked, indent=1))

    file = events_of(order, order.folder)
    groups = drawn(EventFile.open(file).info.weight_groups)
    names, kept = sorted({name for group in groups for name in group.ids}), order.folder / "showered.npz"
    if not kept.exists():
        np.savez(kept, **showered(file, names, order.pythia))
    found = dict(np.load(kept))
    made = {axis.name: histogram(axis, found, groups, names) for axis in AXES}
    tried, failed = len(found["weight"]) + int(found["failed"]), int(found["failed"])
    total = float(found["weight"].sum() / tried)
    (order.folder / "histograms.json").write_text(json.dumps({"total": total, "failed": failed, **made}, indent=1))
    title = f"{order.card.stem.replace('_', ' ')}, leading order and shower, {order.pdf}, {tried} events"
    drawing = order.folder / "production.svg"
    if not drawing.exists():
        drawing.write_bytes(picture(made, title))
    print(f"{tried} events showered, {failed} refused, {total:.5g} pb: {drawing}")


if __name__ == "__main__":
    main()
