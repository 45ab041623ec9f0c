"""Microseconds an event for writing and reading event files, beside an earlier tree and pylhe, and the peak of memory.

    git worktree add /tmp/before 1850f07
    python benchmarks/event_files.py --before /tmp/before --output benchmarks/results/event_files.md
    python benchmarks/event_files.py --before /tmp/before --generate --output benchmarks/results/event_generation.md

Each figure is CPU time of one thread, threads that pack included, without the start; the medians of several rounds in
which both trees take turns, each in its own process. Events are e+ e- -> Z -> q qbar g with six particles.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parents[1]
SUFFIXES = ("lhe", "lhe.gz", "lhe.zst", "h5")
ENERGY, SHARD, WEIGHTS = 45.5938, 10_000, 50
MANY = 1_000_000
CARDS = ("drell_yan", "ee_to_3jets")
GENERATED, GENERATED_BEFORE = (60_000, 260_000), (20_000, 60_000)


def momenta_of(n: int, seed: int) -> np.ndarray:
    """(n, 3, 4) three massless momenta that add up to the energy of both beams, in planes of any orientation."""
    rng = np.random.default_rng(seed)
    y = rng.dirichlet((2, 2, 2), n)
    energies = (1 - y) * ENERGY
    axes = np.linalg.qr(rng.normal(size=(n, 3, 3)))[0]
    cosine = 1 - 2 * y[:, 2] * ENERGY**2 / (energies[:, 0] * energies[:, 1])
    momenta = np.zeros((n, 3, 4))
    momenta[:, 0, 1:] = energies[:, :1] * axes[:, 0]
    sine = np.sqrt(np.clip(1 - cosine**2, 0, None))
    momenta[:, 1, 1:] = energies[:, 1:2] * (cosine[:, None] * axes[:, 0] + sine[:, None] * axes[:, 1])
    momenta[:, 2, 1:] = -momenta[:, :2, 1:].sum(axis=1)
    momenta[..., 0] = np.linalg.norm(momenta[..., 1:], axis=-1)
    return momenta


def events_of(n: int, seed: int, weights: int = 0) -> Any:
    """A batch of events with six particles."""
    from nisampler.events import EventBatch

    rng, momenta = np.random.default_rng(seed + 1), np.zeros((n, 6, 4))
    momenta[:, :2, 0] = ENERGY
    momenta[:, 0, 3], momenta[:, 1, 3] = ENERGY, -ENERGY
    momenta[:, 3:] = momenta_of(n, seed)
    momenta[:, 2] = momenta[:, :2].sum(axis=1)
    flavour = rng.integers(1, 6, n)
    codes = [np.full(n, -11), np.full(n, 11), np.full(n, 23), flavour, -flavour, np.full(n, 21)]
    masses = np.zeros((n, 6))
    masses[:, 2] = 2 * ENERGY
    constants = {"status": [-1, -1, 2, 1, 1, 1], "mothers": [[0, 0], [0, 0], [1, 2], [3, 3], [3, 3], [3, 3]]}
    colours = [[0, 0], [0, 0], [0, 0], [501, 0], [0, 502], [502, 501]]
    return EventBatch(
        momenta=momenta,
        masses=masses,
        pdg_ids=np.stack(codes, axis=1),
        **{name: np.broadcast_to(value, (n, *np.shape(value))) for name, value in constants.items()},
        colours=np.broadcast_to(colours, (n, 6, 2)),
        spins=np.full((n, 6), 9.0),
        weights=np.full(n, 1234.5678901234567),
        scales=np.full(n, 2 * ENERGY),
        alpha_em=np.full(n, 1 / 128),
        alpha_s=np.full(n, 0.118),
        process_ids=np.ones(n, dtype=int),
        mu_r=np.full(n, 2 * ENERGY),
        **({"named_weights": rng.normal(size=(n, weights))} if weights else {}),
    )


def info_of(weights: int = 0) -> Any:
    """Beams and cross-section of the events."""
    from nisampler.events import InitInfo, ProcessInfo

    process = ProcessInfo(1234.5, 0.6, max_weight=1234.5678901234567)
    info = InitInfo((-11, 11), (ENERGY, ENERGY), (process,), strategy=4)
    if not weights:
        return info
    from nisampler.events.weights import WeightGroup, WeightInfo

    named = tuple(WeightInfo(f"MUR1.0_MUF1.0_PDF{90000 + index}") for index in range(weights))
    return replace(info, weight_groups=(WeightGroup("members", weights=named),))


def timed(task: Callable[[], Any], n: int) -> float:
    """Microseconds of CPU for each of n events."""
    begin = time.process_time()
    task()
    return 1e6 * (time.process_time() - begin) / n


def all_of(path: Path) -> int:
    """Read a file batch by batch: its number of events."""
    from nisampler.events import EventFile

    return sum(len(batch) for batch in EventFile.open(path).batches())


def measure(n: int, folder: Path) -> dict[str, float]:
    """Times and sizes of this tree, and of pylhe for the same file."""
    from nisampler.events import write_events

    found: dict[str, float] = {}
    try:
        import numba  # noqa: F401  # what reads and writes in bulk is used from the first event on
    except ImportError:
        pass
    for label, weights, suffixes in (("", 0, SUFFIXES), (f" {WEIGHTS} weights", WEIGHTS, ("lhe.gz",))):
        number = n if not weights else n // 5
        try:
            batch, info = events_of(number, 3, weights), info_of(weights)
        except (TypeError, ImportError):  # an earlier tree without named weights
            continue
        for suffix in suffixes:
            path, few = folder / f"events.{suffix}", folder / f"few.{suffix}"
            try:
                write_events(few, batch.select(slice(0, 10)), info)
            except Exception:  # noqa: S112  # a format that an earlier tree does not have
                continue
            all_of(few)
            found[f"write .{suffix}{label}"] = timed(lambda p=path, b=batch, i=info: write_events(p, b, i), number)
            found[f"read .{suffix}{label}"] = timed(lambda p=path: all_of(p), number)
            found[f"bytes .{suffix}{label}"] = path.stat().st_size / number
    return found | pylhe_times(folder, n)


def pylhe_times(folder: Path, n: int) -> dict[str, float]:
    """What pylhe takes for the file of events."""
    import pylhe

    events: list[Any] = []
    found = {
        "read .lhe by pylhe": timed(lambda: events.extend(pylhe.LHEFile.fromfile(folder / "events.lhe").events), n)
    }
    document = pylhe.LHEFile.fromfile(folder / "events.lhe")
    document.events = events
    found["write .lhe by pylhe"] = timed(lambda: document.tofile(folder / "pylhe.lhe"), n)
    return found


def large(task: str, folder: Path) -> dict[str, float]:
    """One step with a million events: its seconds of CPU and the peak of memory."""
    from nisampler.events import check_file, merge_shards, shard_path, write_events

    def batches() -> Iterator[Any]:
        for index in range(MANY // SHARD):
            yield events_of(SHARD, index)

    if task == "shards":
        for index, batch in enumerate(batches()):
            write_events(shard_path(folder / "shards", index, ".h5"), batch, info_of())
    elif task == "write":
        write_events(folder / "written.lhe.gz", batches(), info_of(), MANY)
    elif task == "merge":
        merge_shards(folder / "shards", folder / "merged.lhe.gz")
    else:
        assert check_file(folder / "merged.lhe.gz").passed  # noqa: S101
    return {"seconds": time.process_time(), "MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def levels(n: int, folder: Path) -> str:
    """What packing at each level takes, without the writing, and what it leaves: a table."""
    from nisampler.events import write_events
    from nisampler.events.compression import packed

    write_events(folder / "levels.lhe", events_of(n, 3), info_of())
    text = (folder / "levels.lhe").read_bytes()
    lines = ["", "| packed as | level | microseconds an event | bytes an event |", "|---|---|---|---|"]
    for suffix, chosen in ((".gz", (1, 2, 3, 4, 6)), (".zst", (1, 2, 3, 6))):
        for level in chosen:
            times, target = [], io.BytesIO()
            for _ in range(3):
                target = io.BytesIO()

                def pack(target: io.BytesIO = target, suffix: str = suffix, level: int = level) -> None:
                    with packed(target, f"a{suffix}", level) as stream:
                        stream.write(text)

                times.append(timed(pack, n))
            lines.append(f"| {suffix} | {level} | {min(times):.1f} | {len(target.getvalue()) / n:.0f} |")
    return "\n".join(lines) + "\n"


def command(tree: Path, *arguments: str) -> tuple[float, float]:
    """The CPU-seconds of a command of a tree, and the most MiB that it takes."""
    environment = os.environ | {"PYTHONPATH": str(tree), "NIS_ROOT": str(tree), "OMP_NUM_THREADS": "1"}
    task = subprocess.Popen([sys.executable, *arguments], cwd=tree, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603
    _, status, used = os.wait4(task.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(arguments)} failed")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def made(tree: Path, run: Path, n: int, number: int) -> tuple[float, float]:
    """What `generate` takes for n events."""
    target = f"--output={run / f'more-{number}'}"
    found = command(tree, "-m", "nisampler", "generate", str(run), f"--events={n}", "--seed=7", target, "-q")
    shutil.rmtree(run / f"more-{number}")
    return found


def generation(before: Path, folder: Path, rounds: int) -> str:
    """The page of what `generate` takes in both trees."""
    lines = [
        "CPU-microseconds that each further event of `nisampler generate` takes in .lhe.gz, from"
        f" {GENERATED[0]:,} to {GENERATED[1]:,} events",
        f"(1850f07: from {GENERATED_BEFORE[0]:,} to {GENERATED_BEFORE[1]:,}), by"
        f" `python benchmarks/event_files.py --generate`; medians of {rounds} runs in turns,",
        f"load {os.getloadavg()[2]:.1f} on {os.cpu_count()} cores. A million events of the first card in one process:"
        " their most memory.",
        "",
        "| card | now | 1850f07 | ratio |",
        "|---|---|---|---|",
    ]
    trees = {"now": (HERE, GENERATED), "before": (before.resolve(), GENERATED_BEFORE)}
    for card in CARDS:
        for label, (tree, (few, _)) in trees.items():
            run = folder / label / card
            run.parent.mkdir(exist_ok=True)
            command(tree, "-m", "nisampler", "run", f"examples/{card}.toml", "--output", str(run), "-q")
            made(tree, run, few, 0)  # the first time code may have to be compiled
        times: dict[str, list[float]] = {label: [] for label in trees}
        for _ in range(rounds):
            for label, (tree, sizes) in trees.items():
                seconds = [made(tree, folder / label / card, n, 0)[0] for n in sizes]
                times[label].append(1e6 * (seconds[1] - seconds[0]) / (sizes[1] - sizes[0]))
        now, then = (statistics.median(values) for values in times.values())
        lines.append(f"| `examples/{card}.toml` | {now:.1f} | {then:.1f} | {then / now:.1f} |")
    seconds, memory = made(HERE, folder / "now" / CARDS[0], MANY, 0)
    lines += ["", f"A million events: {seconds:.0f} CPU-seconds, start included, and {memory:.0f} MiB."]
    return "\n".join(["# Event generation", "", *lines]) + "\n"


def in_tree(tree: Path, *arguments: str) -> dict[str, float]:
    """What this script says when the package is that of a tree."""
    environment = os.environ | {"PYTHONPATH": str(tree), "NIS_ROOT": str(tree), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(  # noqa: S603
        [sys.executable, __file__, *arguments], cwd=tree, env=environment, capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    if not Path(told.pop("package")).is_relative_to(tree):
        raise SystemExit(f"the package of {tree} was not used")
    return dict(told)


def table(now: list[dict[str, float]], before: list[dict[str, float]], peaks: dict[str, dict[str, float]]) -> str:
    """The page."""

    def median(rows: list[dict[str, float]], name: str) -> float | None:
        return statistics.median(row[name] for row in rows) if rows and all(name in row for row in rows) else None

    import platform

    lines = [
        "# Event files",
        "",
        "`python benchmarks/event_files.py`: e+ e- -> Z -> q qbar g, six particles; CPU time of one thread, medians of",
        f"{len(now)} runs in turns with commit 1850f07; load {os.getloadavg()[2]:.1f} on {os.cpu_count()} cores,",
        f"Python {platform.python_version()}. Microseconds, or bytes, an event.",
        "",
        "| | now | 1850f07 | ratio |",
        "|---|---|---|---|",
    ]
    for name in now[0]:
        here, there = median(now, name), median(before, name)
        assert here is not None  # noqa: S101
        compared = f"{there:.1f} | {there / here:.1f}" if there is not None else "– | –"
        lines.append(f"| {name} | {here:.1f} | {compared} |")
    lines += [
        "",
        f"A million events, {SHARD} at a time:",
        "",
        "| step | CPU-seconds, start included | peak of memory |",
    ]
    lines += ["|---|---|---|"]
    lines += [f"| {name} | {row['seconds']:.0f} | {row['MiB']:.0f} MiB |" for name, row in peaks.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="a worktree of commit 1850f07")
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=HERE / "benchmarks/results/event_files.md")
    parser.add_argument("--generate", action="store_true", help="only the command `generate`, beside the other tree")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step is not None:
        import nisampler

        task = options.step
        found = measure(options.events, options.folder) if task == "measure" else large(task, options.folder)
        print(json.dumps(found | {"package": nisampler.__file__}))
        return
    now, before, peaks = [], [], {}
    with tempfile.TemporaryDirectory() as name:
        if options.generate:
            options.output.write_text(generation(options.before, Path(name), options.rounds), encoding="utf-8")
            return
        (Path(name) / "shards").mkdir()
        common = ["--folder", name, "--events", str(options.events)]
        for _ in range(options.rounds):
            now.append(in_tree(HERE, "--step", "measure", *common))
            if options.before is not None:
                before.append(in_tree(options.before.resolve(), "--step", "measure", *common))
        for step in ("shards", "write", "merge", "check"):
            peaks[step] = in_tree(HERE, "--step", step, *common)
        packing = levels(options.events, Path(name))
    page = table(now, before, peaks) + packing
    options.output.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
