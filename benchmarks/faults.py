"""Kills, full disks, damaged and hostile files: what the commands do then.

    python benchmarks/faults.py --output benchmarks/results/faults.json

Every command runs in a forked child of this process, which has imported everything. A *kill* ends it by SIGKILL or
SIGTERM at a random moment, a *disk* limits its files to a random size (RLIMIT_FSIZE); then the command is continued as
its help says, and must end with the bytes of an undisturbed one. A *damage* alters, cuts or deletes a stored file
before a command that reads it. A *fuzz* gives a reader a file with random bytes changed, added or taken away.

Faults are counted by kind: "crash" (the interpreter died), "raw" (an error that the package does not name), "silent"
(no line for the user), "bytes" (another result), "debris" (partial files stay), "memory" (more than 1 GB).
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measurements import Row, markdown, stamp, write_rows
from rich.console import Console

from nisampler.calo.data.files import read_showers
from nisampler.calo.detector.geometries import geometry
from nisampler.cli import app
from nisampler.errors import NisamplerError
from nisampler.events import check_file
from nisampler.processes.partons.pdf import load_pdf
from nisampler.run.card import parse_card, read_card_text

SCRIPT = "benchmarks/faults.py"
KINDS = ("crash", "raw", "silent", "bytes", "debris", "memory")
COLUMNS = ("campaign", "command", "seed", "cases", "hit", *KINDS)
NOTE = (
    "cases: how often; hit: how often the fault came before the command was over (kills, disks), or the file was "
    "refused (damages, fuzz). The other columns count faults; all should be zero. Each case has the random numbers of "
    "its campaign, command, seed and number."
)
# Figures of time and place, which no two executions share.
CHANGING = {"run.log", "fit.log", "seconds.json", "result.json", "report.html", "training.json", ".lock"}
MOST_BYTES = 1_000_000_000
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
}
# Commands that read what is damaged, in a copy of PLACE.
READERS = {
    "check": "check PLACE/run/events.lhe.gz",
    "check h5": "check PLACE/run/events.h5",
    "resume": "resume PLACE/run -q",
    "report": "report PLACE/run",
    "generate": GENERATE.replace("TARGET", "PLACE/more"),
    "calo generate": "calo generate PLACE/model --showers 20 --device cpu -o PLACE/new.h5 -q",
}
# Files that are spoiled, and what reads them.
FUZZED: dict[str, Callable[[Path], object]] = {
    "card.toml": lambda path: parse_card(read_card_text(path)),
    "events.lhe": check_file,
    "events.lhe.gz": check_file,
    "events.h5": check_file,
    "showers.h5": lambda path: read_showers(path, geometry("toy")),
    "set_0000.dat": load_pdf,
}


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code, or minus the signal, its standard error, and its largest memory in bytes."""

    code: int
    error: str
    memory: int

    def faults(self) -> set[str]:
        """What is wrong with it, whatever it did."""
        found = set()
        if self.code < 0 and self.code != -signal.SIGKILL:
            found.add("crash")
        if "unexpected" in self.error or "Traceback" in self.error or "Errno" in self.error:
            found.add("raw")
        if self.code > 0 and not self.error.strip():
            found.add("silent")
        if self.memory > MOST_BYTES:
            found.add("memory")
        return found


def child_of(work: Callable[[], object], errors: Path, file_limit: int | None = None) -> int:
    """Fork a child that works, with its standard error in a file, and files of at most so many bytes."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        handle = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(handle, 2)
        os.dup2(quiet, 1)
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))
        work()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0
    except BaseException as error:
        os.write(2, f"Traceback: {type(error).__name__}: {error}".encode())
    finally:
        os._exit(code)


def wait(child: int, errors: Path) -> Ended:
    """Wait for a child."""
    _, status, usage = os.wait4(child, 0)
    text = errors.read_text(encoding="utf-8", errors="replace") if errors.is_file() else ""
    return Ended(os.waitstatus_to_exitcode(status), text, usage.ru_maxrss * 1024)


def call(words: Sequence[str], errors: Path, file_limit: int | None = None) -> Ended:
    """Run a command of nisampler to its end."""
    return wait(child_of(lambda: app(list(words)), errors, file_limit), errors)


def made_by(target: Path) -> list[Path]:
    """All files of a target, which is a folder or a file ``TARGET.h5``."""
    found = [path for path in target.rglob("*") if path.is_file()]
    return sorted([*found, *target.parent.glob(f"{target.name}.h5")])


def sums(target: Path) -> dict[str, str]:
    """Checksums of the files that must be the same whatever happened."""
    files = [path for path in made_by(target) if path.name not in CHANGING]
    return {str(path.relative_to(target.parent)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def debris(folder: Path) -> bool:
    """Whether partial files lie somewhere below a folder."""
    return any("partial" in path.name for path in folder.rglob("*"))


class Campaigns:
    """All cases, in a scratch folder with inputs, and the results of undisturbed commands.

    Parameters
    ----------
    scratch
        An empty folder.
    seed
        Of all random numbers.
    """

    def __init__(self, scratch: Path, seed: int) -> None:
        self.scratch, self.seed, self.errors = scratch, seed, scratch / "stderr"
        self.place = scratch / "place"
        self.place.mkdir()
        (self.place / "card.toml").write_text(CARD)
        values = "\n".join(f"{0.1 * k:.3f} {0.2 * k:.3f} {0.3 * k:.3f}" for k in range(20))
        (self.place / "set_0000.dat").write_text(GRID.format(rows=values))
        self._undisturbed: dict[str, tuple[dict[str, str], float, int]] = {}

    def provide(self, text: str) -> None:
        """Make the inputs that a command or a reader needs, if they are not there."""
        for name, command in INPUTS.items():
            made = self.place / name.removeprefix("PLACE/")
            if name not in text or made.exists():
                continue
            self.provide(command.replace(f"-o {name}", "").replace(f"-o PLACE/{name}", ""))
            if name == "events.lhe":
                made.write_bytes(gzip.decompress((self.place / "run" / "events.lhe.gz").read_bytes()))
                continue
            if name.startswith("events"):
                shutil.copy(self.place / "run" / name, made)
                continue
            done = call(command.replace("PLACE", str(self.place)).split(), self.errors)
            if done.code:
                raise NisamplerError(f"{command}: {done.error}")

    def undisturbed(self, name: str) -> tuple[dict[str, str], float, int]:
        """Checksums, seconds and largest file of a command that is left alone."""
        if name not in self._undisturbed:
            folder = self.scratch / "undisturbed" / name.replace(" ", "-")
            folder.mkdir(parents=True)
            start = time.monotonic()
            done = call(COMMANDS[name].words(self.place, folder / "made"), self.errors)
            if done.code:
                raise NisamplerError(f"{name}: {done.error}")
            largest = max(path.stat().st_size for path in made_by(folder / "made"))
            self._undisturbed[name] = sums(folder / "made"), time.monotonic() - start, largest
        return self._undisturbed[name]

    def random(self, *parts: object) -> random.Random:
        """Random numbers of one case."""
        return random.Random(f"{self.seed} {parts}")  # noqa: S311

    def broken_off(self, campaign: str, name: str, number: int) -> tuple[bool, set[str]]:
        """A command that is killed or has too little space, and then continued: whether it was hit, and faults."""
        expected, seconds, largest = self.undisturbed(name)
        command, dice = COMMANDS[name], self.random(campaign, name, number)
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            target = Path(folder) / "made"
            words = command.words(self.place, target)
            if campaign == "disk":
                first = call(words, self.errors, dice.randrange(largest))
                found = first.faults() | ({"debris"} if debris(target.parent) else set())
                if first.code == 1 and "cannot write" not in first.error:
                    found.add("raw")
            else:
                ending = dice.choice((signal.SIGKILL, signal.SIGTERM))
                child = child_of(lambda: app(words), self.errors)
                time.sleep(dice.uniform(0.0, seconds))
                os.kill(child, ending)
                first = wait(child, self.errors)
                # Before a command begins, a request to end is the end.
                found = first.faults() - ({"crash"} if first.code == -ending else set())
            for _ in range(2):
                last = call(command.words(self.place, target), self.errors)
                found |= last.faults()
                if last.code == 0 or made_by(target):
                    break
            if debris(target.parent):
                found.add("debris")
            if sums(target) != expected:
                found.add("bytes")
            return first.code != 0, found

    def damaged(self, name: str, number: int) -> tuple[bool, set[str]]:
        """A command that reads a damaged file."""
        dice = self.random("damage", name, number)
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            place = Path(folder) / "place"
            shutil.copytree(self.place, place)
            words = READERS[name].replace("PLACE", str(place)).split()
            named = [Path(word) for word in words if Path(word).is_file()]
            files = named or made_by(place / ("model" if name.startswith("calo") else "run"))
            path = dice.choice([file for file in files if file.name != ".lock" and file.stat().st_size])
            if not named and dice.random() < 0.2:
                path.unlink()
            else:
                path.write_bytes(spoiled(path.read_bytes(), dice))
            done = call(words, self.errors)
            found = done.faults() | ({"debris"} if debris(place) else set())
            if name == "resume" and done.code == 0:
                events = sums(place / "run")
                whole = {key: value for key, value in sums(self.place / "run").items() if "events." in key}
                found |= {"bytes"} if any(events.get(key) != value for key, value in whole.items()) else set()
            return done.code != 0, found

    def fuzzed(self, name: str, numbers: Iterable[int]) -> tuple[int, Counter[str]]:
        """Readers of spoiled files, all in one child: how many were refused, and faults."""
        content, path, told = (self.place / name).read_bytes(), self.scratch / f"fuzz-{name}", self.scratch / "told"

        def work() -> None:
            refused, raw = 0, Counter[str]()
            for number in numbers:
                path.write_bytes(spoiled(content, self.random("fuzz", name, number)))
                try:
                    FUZZED[name](path)
                except NisamplerError:
                    refused += 1
                except Exception as error:
                    raw[f"{type(error).__name__}: {error}"[:200]] += 1
                told.write_text(json.dumps([refused, raw]))

        ended = wait(child_of(work, self.errors), self.errors)
        refused, raw = json.loads(told.read_text())
        path.unlink(missing_ok=True)
        return refused, Counter(ended.faults()) + Counter({"raw": sum(raw.values())})


def spoiled(content: bytes, dice: random.Random) -> bytes:
    """Bytes with one to four places changed, left out or repeated, or cut at the end."""
    data = bytearray(content)
    for _ in range(dice.randint(1, 4)):
        at, size = dice.randrange(len(data) or 1), dice.choice((1, 1, 4, 100))
        how = dice.randrange(5)
        if how == 0:
            data[at : at + size] = dice.randbytes(size)
        elif how == 1:
            data[at : at + 1] = bytes([(data[at] if data else 0) ^ 1 << dice.randrange(8)])
        elif how == 2:
            del data[at : at + size]
        elif how == 3:
            data[at:at] = data[at : at + size] * dice.choice((1, 2, 50))
        elif dice.random() < 0.3:
            del data[at:]
    return bytes(data)


def measure(campaigns: Campaigns, campaign: str, name: str, cases: int) -> Row:
    """All cases of a command: one row."""
    faults, hit = Counter[str](), 0
    examples: dict[str, int] = {}
    campaigns.provide({"damage": READERS.get(name, ""), "fuzz": name}.get(campaign) or COMMANDS[name].first)
    if campaign == "fuzz":
        hit, faults = campaigns.fuzzed(name, range(cases))
    else:
        for number in range(cases):
            was_hit, found = (
                campaigns.damaged(name, number)
                if campaign == "damage"
                else campaigns.broken_off(campaign, name, number)
            )
            hit += was_hit
            faults.update(found)
            for kind in found:
                examples.setdefault(kind, number)
    row: dict[str, Any] = {"campaign": campaign, "command": name, "seed": campaigns.seed, "cases": cases, "hit": hit}
    return row | {kind: faults[kind] for kind in KINDS} | {"examples": examples} | stamp()


def lines_of(rows: Sequence[Row]) -> list[list[str]]:
    """Cells of the table."""
    return [[f"{row[name]:,}" if isinstance(row[name], int) else str(row[name]) for name in COLUMNS] for row in rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaigns and show the table; the exit code says whether there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    counts = {"kill": 25, "disk": 25, "damage": 100, "fuzz": 4000}
    for name, usual in counts.items():
        parser.add_argument(f"--{name}", type=int, default=usual, metavar="N", help="cases of each command or file")
    parser.add_argument("--only", nargs="*", help="commands or files, instead of all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="JSON file of the rows; the table goes beside it")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    console, rows = Console(soft_wrap=True), []
    names: dict[str, Iterable[str]] = {"kill": COMMANDS, "disk": COMMANDS, "damage": READERS, "fuzz": FUZZED}
    with tempfile.TemporaryDirectory() as scratch:
        campaigns = Campaigns(Path(scratch), given.seed)
        for campaign, commands in names.items():
            for name in [name for name in commands if not given.only or name in given.only]:
                cases = getattr(given, campaign)
                if cases:
                    rows.append(measure(campaigns, campaign, name, cases))
                    console.print(" | ".join(lines_of(rows[-1:])[0]), markup=False, highlight=False)
                if given.output:
                    write_rows(given.output, rows)
    if given.output:
        where = f"`{SCRIPT}`, {rows[0]['hardware']}, {rows[0]['date']}."
        text = markdown("Faults", (where, NOTE), COLUMNS, lines_of(rows))
        given.output.with_suffix(".md").write_text(text, encoding="utf-8")
    return int(any(row[kind] for row in rows for kind in KINDS))


if __name__ == "__main__":
    sys.exit(main())
