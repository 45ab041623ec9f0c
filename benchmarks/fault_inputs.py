"""What the campaigns of `faults.py` do something to: commands, their inputs, readers, files and foreign code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nisampler
from nisampler.calo.data.files import read_showers
from nisampler.calo.detector.binning import read_binning, write_binning
from nisampler.calo.detector.geometries import geometry
from nisampler.calo.fitting.store import load_model
from nisampler.errors import NisamplerError
from nisampler.events import check_file
from nisampler.processes.partons.pdf import load_pdf
from nisampler.run.card import parse_card, read_card_text
from nisampler.run.directory import RunDirectory
from nisampler.run.generation.files import file_problems
from nisampler.run.generation.shards import Shard

CARD = """
process = "ee_to_3jets"
threads = 1
[training]
calls = 5000
sampler = "vegas"
[integration]
points = 3000
[events]
n = 120
shard_size = 20
formats = ["lhe.gz", "h5"]
"""
# Two ways to name code, and what it leaves.
MARKER = (
    "import pathlib\npathlib.Path({mark!r}).touch()\n\n\nclass Planted:\n    dim = 2\n\n    def __call__(self, u):\n"
)
MARKER += "        return u[:, 0]\n"
FOREIGN = ("subprocess:run", "os:system", "builtins:exec", "PLACE/planted.py:Planted", "planted:Planted")
INFO = """SetDesc: "toy"
SetIndex: 90001
NumMembers: 1
Flavors: [-1, 1, 21]
Format: lhagrid1
AlphaS_Qs: [1.0, 10.0, 100.0, 1000.0]
AlphaS_Vals: [0.4, 0.18, 0.118, 0.09]
AlphaS_Type: ipol
"""
GRID = """PdfType: central
Format: lhagrid1
---
1e-3 1e-2 1e-1 0.5 1.0
1.0 10.0 100.0 1000.0
-1 1 21
{rows}
---
"""


@dataclass(frozen=True)
class Command:
    """A command that makes something.

    Attributes
    ----------
    first, again
        Its words, to begin and to continue; PLACE is where the common inputs are, TARGET what it makes.
    started
        A file of the target that is there once it can be continued; None if it is begun anew.
    """

    first: str
    again: str
    started: str | None = None

    def words(self, place: Path, target: Path) -> list[str]:
        """What to call next."""
        resumes = self.started is not None and (target / self.started).is_file()
        text = self.again if resumes else self.first
        return [word.replace("PLACE", str(place)).replace("TARGET", str(target)) for word in text.split()]


FIT = "calo fit --geometry toy --data PLACE/showers.h5 --model small-inn --epochs 1 --device cpu -o TARGET -q"
GENERATE = "generate PLACE/run --events 60 --seed 9 -o TARGET -q"
COMMANDS = {
    "run": Command("run PLACE/card.toml -o TARGET -q", "resume TARGET -q", "run.json"),
    "generate": Command(GENERATE, GENERATE),
    "calo fit": Command(FIT, f"{FIT} --resume", "model.json"),
    "calo simulate": Command("calo simulate --geometry toy --showers 3000 -o TARGET.h5 -q", ""),
    "calo generate": Command("calo generate PLACE/model --showers 2000 --device cpu -o TARGET.h5 -q", ""),
}
# What commands and readers need, and what that needs or is made by.
INPUTS = {
    "events.lhe": "PLACE/run",
    "events.lhe.gz": "PLACE/run",
    "events.h5": "PLACE/run",
    "showers.h5": "calo simulate --geometry toy --showers 300 -o PLACE/showers.h5 -q",
    "PLACE/model": FIT.replace("TARGET", "PLACE/model"),
    "PLACE/run": "run PLACE/card.toml -o PLACE/run -q",
    "PLACE/saved": "",
    "PLACE/job-1": "generate PLACE/run --events 60 --seed 9 --job 1/2 --shard-size 20 -o PLACE/job-1 -q",
    "PLACE/job-2": "generate PLACE/run --events 60 --seed 9 --job 2/2 --shard-size 20 -o PLACE/job-2 -q",
}
# Commands that read what is damaged, in a copy of PLACE.
READERS = {
    "check": "check PLACE/run/events.lhe.gz",
    "check h5": "check PLACE/run/events.h5",
    "resume": "resume PLACE/run -q",
    "report": "report PLACE/run",
    "generate": GENERATE.replace("TARGET", "PLACE/more"),
    "merge": "merge PLACE/job-1 PLACE/job-2 -o PLACE/merged.h5 -q",
    "calo generate": "calo generate PLACE/model --showers 20 --device cpu -o PLACE/new.h5 -q",
}


def check_events(path: Path) -> None:
    """Refuse an event file that does not pass."""
    found = check_file(path)
    if not found.passed:
        raise NisamplerError(str(found.problems[0]))


# Files that are spoiled, and what reads them in the folder PLACE.
FUZZED: dict[str, Callable[[Path], object]] = {
    "card.toml": lambda place: parse_card(read_card_text(place / "card.toml")),
    "run/run.json": lambda place: RunDirectory.read(place / "run"),
    "run/card.toml": lambda place: RunDirectory.read(place / "run"),
    "run/checksums.json": lambda place: list(file_problems(place / "run", ["events.h5"])),
    "run/events/events-00000.json": lambda place: Shard.read(place / "run/events/events-00000.json"),
    "run/integration/checkpoint.json": lambda place: nisampler.load(place / "run"),
    "run/sampler/*.safetensors": lambda place: nisampler.load(place / "run"),
    "saved/*/checkpoint.json": lambda place: nisampler.load(place / "saved"),
    "saved/integration/*.safetensors": lambda place: nisampler.load(place / "saved"),
    "model/model.json": lambda place: load_model(place / "model"),
    "model/**/*.safetensors": lambda place: load_model(place / "model"),
    "events.lhe": lambda place: check_events(place / "events.lhe"),
    "events.lhe.gz": lambda place: check_events(place / "events.lhe.gz"),
    "events.h5": lambda place: check_events(place / "events.h5"),
    "showers.h5": lambda place: read_showers(place / "showers.h5", geometry("toy")),
    "set/set.info": lambda place: load_pdf(place / "set/set_0000.dat"),
    "set/set_0000.dat": lambda place: load_pdf(place / "set/set_0000.dat"),
    "binning.xml": lambda place: read_binning(place / "binning.xml"),
}


def make_place(place: Path) -> None:
    """A folder with the inputs that no command makes."""
    place.mkdir()
    (place / "card.toml").write_text(CARD)
    values = "\n".join(f"{0.1 * k:.3f} {0.2 * k:.3f} {0.3 * k:.3f}" for k in range(20))
    (place / "set").mkdir()
    (place / "set" / "set.info").write_text(INFO)
    (place / "set" / "set_0000.dat").write_text(GRID.format(rows=values))
    write_binning(place / "binning.xml", geometry("ds1-photons"))
