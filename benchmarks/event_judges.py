"""What others say of event files: lhecheck of lheutils, pylhe, which wrote and reads them otherwise, and Pythia.

    python benchmarks/event_judges.py ENVIRONMENT/bin/lhecheck

ENVIRONMENT has lheutils, which needs no nisampler.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from event_files import CARDS, HERE, command

TOLERANCES = (1e-6, 1e-5, 1e-4)


def judged(lhecheck: Path, folder: Path) -> str:
    """The page of what lhecheck, pylhe and Pythia say of events."""
    import pylhe

    lines = [
        "`python benchmarks/event_judges.py`: particles that lhecheck (lheutils) finds off their mass",
        "shell, and those that it finds with p² > E², for several absolute tolerances in GeV (its own: 1e-06).",
        "",
        f"| events | particles | {' | '.join(f'{value:g}' for value in TOLERANCES)} |",
        f"|---|---|{'---|' * len(TOLERANCES)}",
    ]
    notes = []
    for card in CARDS:
        run = folder / card
        command(HERE, "-m", "nisampler", "run", f"examples/{card}.toml", "--output", str(run), "-q")
        document = pylhe.LHEFile.fromfile(run / "events.lhe.gz")
        document.events = list(document.events)
        document.tofile(run / "pylhe.lhe")
        count = sum(item.status in (-1, 1) for event in document.events for item in event.particles)
        for path, label in ((run / "events.lhe.gz", ""), (run / "pylhe.lhe", ", written by pylhe with its 8 digits")):
            found = []
            for tolerance in TOLERANCES:
                options = (f"--onshell-abs={tolerance}", f"--positive-mass-abs={tolerance}")
                told = subprocess.run([lhecheck, *options, path], capture_output=True, text=True, check=False).stdout  # noqa: S603
                numbers = (re.findall(rf"{what} mass violations: (\d+)", told) for what in ("On-shell", "Positive"))
                found.append(", ".join(number[-1] if number else "0" for number in numbers))
            lines.append(f"| `{card}`{label} | {count} | {' | '.join(found)} |")
        notes.append(_compared(card, run / "events.lhe.gz", document))
    return "\n".join(["# Events as others see them", "", *lines, "", *notes]) + "\n"


def _compared(card: str, path: Path, document: Any) -> str:
    """What pylhe and Pythia read, beside what was written."""
    from nisampler.events import EventFile, read_events

    batch = read_events(path)
    same = len(document.events) == len(batch)
    for event, momenta, masses in zip(document.events, batch.momenta, batch.masses, strict=True):
        found = [[item.e, item.px, item.py, item.pz] for item in event.particles]
        count = len(found)
        same &= found == momenta[:count].tolist() and [item.m for item in event.particles] == masses[:count].tolist()
    bits = "to the same bits" if same else "to OTHER bits"
    told = f"`{card}`: pylhe reads {len(document.events):,} events, momenta and masses {bits}"
    try:
        import pythia8mc
    except ImportError:
        return f"{told}."
    pythia = pythia8mc.Pythia("", False)
    for text in ("Beams:frameType = 4", f"Beams:LHEF = {path}", "Print:quiet = on", "PartonLevel:all = off"):
        pythia.readString(text)
    # It gives masses to leptons and heavy quarks that have none, unless it is told not to.
    for text in ("ProcessLevel:resonanceDecays = off", "LesHouches:setLeptonMass = 0", "LesHouches:setQuarkMass = 0"):
        pythia.readString(text)
    pythia.init()
    count, worst = 0, 0.0
    for index in range(len(batch)):
        if not pythia.next():
            break
        count += 1
        for slot in np.flatnonzero(batch.status[index] == 1).tolist():
            item = pythia.process[slot + 3]
            found = np.array([item.e(), item.px(), item.py(), item.pz()])
            worst = max(worst, float(np.abs(found - batch.momenta[index, slot]).max()))
    section = EventFile.open(path).info.cross_section
    return (
        f"{told}; Pythia {version('pythia8mc')} reads {count:,}, final momenta to {worst:.1e} GeV, and"
        f" {1e9 * pythia.infoPython().sigmaGen():.7g} pb where {section:.7g} pb are declared."
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lhecheck", type=Path)
    parser.add_argument("--output", type=Path, default=HERE / "benchmarks/results/event_judges.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        page = judged(options.lhecheck, Path(name))
    options.output.write_text(page, encoding="utf-8")
    print(page)
