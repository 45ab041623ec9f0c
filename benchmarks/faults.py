"""Kills, full disks, damaged and hostile files: what the commands do then.

    python benchmarks/faults.py --output benchmarks/results/faults.json

Every command runs in a forked child of this process, which has imported everything. A *kill* ends it by SIGKILL or
SIGTERM at a random moment, a *disk* limits its files to a random size (RLIMIT_FSIZE), a *pair* starts it twice on one
target; then the command is continued as its help says, and must end with the bytes of an undisturbed one. A *damage*
alters, cuts, deletes, copies or adds a stored file before a command that reads it. A *fuzz* hands a reader a file whose
bytes, numbers, keys or types were changed (`spoiling.py`), half of the sealed ones with a checksum that fits. A *code*
has a card, a run directory or a saved result name code that leaves a mark, before a command reads it.

Faults are counted by kind: "crash" (the interpreter died, or used two minutes of the processor), "raw" (an error that
the package does not name), "silent" (no line for the user), "bytes" (another result), "debris" (partial files stay),
"memory" (more than 1 GB), "code" (foreign code ran).
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
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fault_inputs import CARD, COMMANDS, FOREIGN, FUZZED, INPUTS, MARKER, READERS, make_place
from measurements import Row, key, markdown, read_rows, stamp, with_row, write_rows
from rich.console import Console
from spoiling import spoil

import nisampler
from nisampler.base.storage import read_json, write_sealed
from nisampler.cli import app
from nisampler.errors import NisamplerError
from nisampler.processes.functions.functions import camel
from nisampler.training.config import TrainingConfig

SCRIPT = "benchmarks/faults.py"
KINDS = ("crash", "raw", "silent", "bytes", "debris", "memory", "code")
KEY = ("campaign", "command", "seed")
COLUMNS = ("campaign", "command", "seed", "cases", "hit", *KINDS)
NOTE = (
    "cases: how often; hit: how often the fault came before the command was over (kills, disks), one of two was sent "
    "away (pairs), or the file was refused (damages, fuzz, code). The other columns count faults; all should be zero. "
    "Each case has the random numbers of its campaign, command, seed and number."
)
# Figures of time and place, which no two executions share.
CHANGING = {"run.log", "fit.log", "seconds.json", "result.json", "report.html", "training.json", ".lock"}
MOST_BYTES = 1_000_000_000
# Cases of a fuzz that share a child.
TOGETHER = 50
MOST_SECONDS = 120
# No child may take more, so that a fault does not take the machine along.
MOST_DATA = 4_000_000_000


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
        if any(word in self.error for word in ("please report", "Traceback", "Errno")):
            found.add("raw")
        if self.code > 0 and not self.error.strip():
            found.add("silent")
        if self.memory > MOST_BYTES or "MemoryError" in self.error:
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
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS + 5))
        resource.setrlimit(resource.RLIMIT_DATA, (MOST_DATA, MOST_DATA))
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
        make_place(self.place)
        self.seen: list[str] = []
        self._undisturbed: dict[str, tuple[dict[str, str], float, int]] = {}

    def provide(self, text: str) -> None:
        """Make the inputs that a command or a reader needs, if they are not there."""
        for name, command in INPUTS.items():
            made = self.place / name.removeprefix("PLACE/")
            if name not in text or made.exists():
                continue
            self.provide(command.replace(f"-o {name}", "").replace(f"-o PLACE/{name}", ""))
            if name == "PLACE/saved":
                nisampler.integrate(camel(2), training=TrainingConfig(calls=5000), progress=False).save(made)
                continue
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
            elif campaign == "pair":
                first, found = self._pair(words, dice.uniform(0.0, 0.5 * seconds))
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

    def _pair(self, words: Sequence[str], delay: float) -> tuple[Ended, set[str]]:
        """The same command a second time before it is over: how the one that was sent away ended, and faults."""
        child = child_of(lambda: app(list(words)), self.errors)
        time.sleep(delay)
        second = call(words, self.scratch / "stderr-2")
        first = wait(child, self.errors)
        return (second if second.code else first), first.faults() | second.faults()

    def _spoil_one(self, files: Sequence[Path], dice: random.Random, one: bool) -> None:
        """Alter, delete, copy or exchange one file of several, or alter the only one."""
        path, how = dice.choice(files), dice.random()
        alike = sorted(other for other in path.parent.iterdir() if other.suffix == path.suffix and other.is_file())
        if one or how < 0.6:
            spoil(path, path.read_bytes(), dice)
        elif how < 0.75:
            path.unlink()
        elif how < 0.9:
            path.write_bytes(dice.choice(alike).read_bytes())
        else:
            number = f"{len(alike):05d}" if "-00" in path.name else "copy"
            ending = "".join(path.suffixes)
            shutil.copy(path, path.with_name(f"events-{number}{ending}"))

    def damaged(self, name: str, number: int) -> tuple[bool, set[str]]:
        """A command that reads a damaged file."""
        dice = self.random("damage", name, number)
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            place = Path(folder) / "place"
            shutil.copytree(self.place, place)
            words = READERS[name].replace("PLACE", str(place)).split()
            named = [Path(word) for word in words if Path(word).is_file()]
            folders = {"calo generate": "model", "merge": "job-1"}
            files = named or made_by(place / folders.get(name, "run"))
            self._spoil_one([file for file in files if file.name != ".lock" and file.stat().st_size], dice, bool(named))
            done = call(words, self.errors)
            found = done.faults() | ({"debris"} if debris(place) else set())
            if name in ("resume", "merge") and done.code == 0 and self._others(name, place):
                found.add("bytes")
            return done.code != 0, found

    def _others(self, name: str, place: Path) -> bool:
        """Whether a command that was content has made other events than it does of whole files."""
        if name == "merge":
            whole = self.scratch / "merged.h5"
            if not whole.exists():
                words = READERS[name].replace("-o PLACE/merged.h5", f"-o {whole}").replace("PLACE", str(self.place))
                call(words.split(), self.errors)
            return (place / "merged.h5").read_bytes() != whole.read_bytes()
        events, run = sums(place / "run"), sums(self.place / "run")
        return any(events.get(key) != value for key, value in run.items() if "/events." in key)

    def fuzzed(self, name: str, cases: int) -> tuple[int, Counter[str]]:
        """Readers of spoiled files: how many were refused, and faults. A child that dies is followed by another."""
        place, told = self.scratch / "fuzz", self.scratch / "told"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.place, place)
        path = sorted(place.glob(name))[0]
        content = path.read_bytes()

        def work(first: int) -> None:
            for number in range(first, min(first + TOGETHER, cases)):
                spoil(path, content, self.random("fuzz", name, number))
                raw = refused = ""
                try:
                    FUZZED[name](place)
                except NisamplerError as error:
                    refused = str(error)
                except Exception as error:
                    raw = f"{type(error).__name__}: {error}"[:200]
                with told.open("a") as handle:
                    handle.write(json.dumps([number, bool(refused), raw]) + "\n")

        told.write_text("")
        done, faults = 0, Counter[str]()
        while done < cases:
            ended = wait(child_of(partial(work, done), self.errors), self.errors)
            if ended.faults():
                self.seen.append(f"{name} from {done}: exit {ended.code}: {ended.error[:300]}")
            faults.update(ended.faults())
            rows = [json.loads(line) for line in told.read_text().splitlines()]
            done = max(done + 1, rows[-1][0] + 1 if rows else 0)
        for number, _, text in rows:
            if text:
                self.seen.append(f"{name} {number}: {text}")
        return sum(row[1] for row in rows), faults + Counter({"raw": sum(bool(row[2]) for row in rows)})

    def foreign(self, name: str, number: int) -> tuple[bool, set[str]]:
        """A command that reads what names foreign code: whether it refused, and faults."""
        dice = self.random("code", name, number)
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            place, mark = Path(folder) / "place", Path(folder) / "mark"
            shutil.copytree(self.place, place)
            (place / "planted.py").write_text(MARKER.format(mark=str(mark)))
            process = dice.choice(FOREIGN).replace("PLACE", str(place))
            run = place / "run"
            if name == "run" or dice.random() < 0.4:
                card = CARD.replace('"ee_to_3jets"', f'"{process}"')
                card += f'[parameters]\nargs = ["touch", "{mark}"]\ncommand = "touch {mark}"\n'
                (place / "card.toml").write_text(card)
                (run / "card.toml").write_text(card)
            settings = read_json(run / "run.json") | {"process": process}
            text = (run / "card.toml").read_bytes()
            if dice.random() < 0.7:
                settings["card_sha256"] = hashlib.sha256(text).hexdigest()
            write_sealed(run / "run.json", {key: value for key, value in settings.items() if key != "checksum"})
            words = {"run": "run PLACE/card.toml -o PLACE/other -q"}.get(name) or READERS[name]
            here = os.getcwd()
            os.chdir(place)
            try:
                done = call(words.replace("PLACE", str(place)).split(), self.errors)
            finally:
                os.chdir(here)
            # A card may name a callable in a file or module that the user has put there, and says that it runs.
            allowed = name == "run" and "planted" in process
            return done.code != 0, done.faults() | ({"code"} if mark.exists() and not allowed else set())


def measure(campaigns: Campaigns, campaign: str, name: str, cases: int) -> Row:
    """All cases of a command: one row."""
    faults, hit = Counter[str](), 0
    campaigns.seen = []
    needed = {
        "damage": READERS.get(name, ""),
        "fuzz": f"PLACE/{name} {name}",
        "code": f"PLACE/run events.lhe.gz {READERS.get(name, '')}",
    }
    campaigns.provide(needed.get(campaign) or COMMANDS[name].first)
    if campaign == "fuzz":
        hit, faults = campaigns.fuzzed(name, cases)
    else:
        one = {"damage": campaigns.damaged, "code": campaigns.foreign}.get(
            campaign, partial(campaigns.broken_off, campaign)
        )
        for number in range(cases):
            was_hit, found = one(name, number)
            hit += was_hit
            faults.update(found)
            if found:
                campaigns.seen.append(
                    f"{name} {number}: {', '.join(sorted(found))}: {campaigns.errors.read_text()[:300]}"
                )
    row: dict[str, Any] = {"campaign": campaign, "command": name, "seed": campaigns.seed, "cases": cases, "hit": hit}
    return row | {kind: faults[kind] for kind in KINDS} | {"examples": campaigns.seen[:5]} | stamp()


def lines_of(rows: Sequence[Row]) -> list[list[str]]:
    """Cells of the table."""
    return [[f"{row[name]:,}" if isinstance(row[name], int) else str(row[name]) for name in COLUMNS] for row in rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaigns and show the table; the exit code says whether there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    counts = {"kill": 25, "disk": 25, "pair": 5, "damage": 85, "fuzz": 1100, "code": 20}
    for name, usual in counts.items():
        parser.add_argument(f"--{name}", type=int, default=usual, metavar="N", help="cases of each command or file")
    parser.add_argument("--only", nargs="*", help="commands or files, instead of all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--refresh", action="store_true", help="measure rows again that are in the file")
    parser.add_argument("--output", type=Path, help="JSON file of the rows; the table goes beside it")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    console = Console(soft_wrap=True)
    rows = read_rows(given.output, KEY, SCRIPT) if given.output and not given.refresh else []
    names: dict[str, Iterable[str]] = {"kill": COMMANDS, "disk": COMMANDS, "pair": COMMANDS, "damage": READERS}
    names |= {"fuzz": FUZZED, "code": ("run", "report", "check", "merge", "generate", "resume")}
    with tempfile.TemporaryDirectory() as scratch:
        campaigns = Campaigns(Path(scratch), given.seed)
        for campaign, name in [(campaign, name) for campaign, commands in names.items() for name in commands]:
            cases, known = getattr(given, campaign), {key(row, KEY) for row in rows}
            if not cases or (given.only and name not in given.only) or (campaign, name, given.seed) in known:
                continue
            row = measure(campaigns, campaign, name, cases)
            console.print(" | ".join(lines_of([row])[0]), markup=False, highlight=False)
            rows = with_row(rows, row, KEY)
            if given.output:
                write_rows(given.output, rows)
    if given.output:
        where = f"`{SCRIPT}`, {rows[0]['hardware']}, {rows[0]['date']}."
        text = markdown("Faults", (where, NOTE), COLUMNS, lines_of(rows))
        given.output.with_suffix(".md").write_text(text, encoding="utf-8")
    return int(any(row[kind] for row in rows for kind in KINDS))


if __name__ == "__main__":
    sys.exit(main())
