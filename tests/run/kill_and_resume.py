"""A program that runs a card in forked processes and kills them: `kill_and_resume.py CARD FOLDER KILLS SEED`.

One process is left alone; others are killed by SIGKILL at random moments and resumed until KILLS kills have hit.
After each kill every stored file is read; at the end the folders are compared byte by byte. It prints one JSON line.
Forking a process that has imported everything saves the seconds that each start would take; for the same reason the
report is a line of text, so that most kills hit training, integration and generation.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

import torch

from nisampler.base.checkpoints import has_checkpoint, load_checkpoint
from nisampler.base.storage import read_json, read_sealed
from nisampler.events import check_file
from nisampler.run import pipeline
from nisampler.run.directory import RunDirectory
from nisampler.run.pipeline import execute, start
from nisampler.run.report.page import RunReport

CHANGING = {"run.log", "seconds.json", "timeline.json", "result.json", "report.html", ".lock"}
GIVE_UP = 400


def warm_up() -> None:
    """Import what the first use of an optimizer and of the writers would import in every child."""
    parameter = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.AdamW([parameter])
    optimizer.zero_grad()
    optimizer.step()
    for name in ("pylhe", "vegas"):
        importlib.import_module(name)


def go_on(card: Path, path: Path) -> None:
    """Start the run, or resume it, with many checkpoints."""
    directory = RunDirectory.open(path) if path.exists() else start(card, path)
    with directory:
        execute(directory, checkpoint_seconds=0.05)


def short_report(data: RunReport) -> str:
    return f"<html>{data.result['process']}</html>\n"


def fork(card: Path, path: Path) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        go_on(card, path)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait(child: int) -> None:
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit(f"a run ended with status {status}")


def killed(child: int, delay: float) -> bool:
    """Kill after a while; False if the process had ended before."""
    end = time.monotonic() + delay
    while time.monotonic() < end:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            break
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if status not in (0, signal.SIGKILL):
        raise SystemExit(f"a run ended with status {status}")
    return status == signal.SIGKILL


def stage(path: Path) -> str:
    """Where a run stands."""
    names = ["report.html", "events", "integration", "sampler", "checkpoint"]
    return next((name for name in names if (path / name).exists()), "nothing")


def read_everything(path: Path) -> None:
    """Every file that is there is complete."""
    for name in ("checkpoint", "sampler", "integration"):
        if has_checkpoint(path / name):
            load_checkpoint(path / name)
    for file in path.rglob("*"):
        if file.name.startswith("."):
            continue
        if file.suffix == ".json":
            read_json(file)
        elif file.suffix in (".h5", ".gz"):
            found = check_file(file)
            if not found.passed:
                raise SystemExit(f"{file}: {found.problems}")
        elif file.suffix == ".html" and not file.read_text().endswith("</html>\n"):
            raise SystemExit(f"{file} is cut off")


def contents(path: Path) -> dict[str, bytes]:
    files = [file for file in path.rglob("*") if file.is_file() and file.name not in CHANGING]
    found = {str(file.relative_to(path)): file.read_bytes() for file in files}
    result = read_sealed(path / "result.json")
    del result["seconds"]
    result["unweighting"].pop("events_per_second", None)
    return found | {"result": json.dumps(result).encode()}


def main() -> None:
    card, folder, kills, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(1)
    folder.mkdir()
    setattr(pipeline, "render", short_report)  # noqa: B010
    warm_up()
    begin = time.monotonic()
    wait(fork(card, folder / "whole"))
    duration = time.monotonic() - begin
    expected = contents(folder / "whole")
    drawn = random.Random(seed)
    hits: Counter[str] = Counter()
    finished = 0
    differing: set[str] = set()
    for _ in range(GIVE_UP):
        path = folder / f"killed-{finished}"
        if sum(hits.values()) == kills:
            wait(fork(card, path))
        elif killed(fork(card, path), drawn.uniform(0.0, duration / 2.5)):
            hits[stage(path)] += 1
            read_everything(path)
            continue
        found = contents(path)
        differing |= {name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)}
        finished += 1
        if sum(hits.values()) == kills:
            break
    sys.stdout.write(json.dumps({"kills": hits, "finished": finished, "differing": sorted(differing)}) + "\n")


if __name__ == "__main__":
    main()
