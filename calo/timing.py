"""How long showers take, by the protocol of the CaloChallenge (2410.21611): batches 1, 100 and 10000, CPU and GPU.

The challenge times everything from loading the weights to the finished file. Here loading, generation and writing are
measured apart, so that their sum can be had for any number of showers.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nisampler.base.checks import Count, Positive, checked
from nisampler.base.device import resolve_device
from nisampler.base.rng import Streams
from nisampler.calo.data.kinds import AnyShowers
from nisampler.calo.data.particles import draw_particles
from nisampler.calo.fitting.store import load_model
from nisampler.calo.generation import ShowerGenerator
from nisampler.calo.models import GenerativeModel
from nisampler.errors import ConfigError
from nisampler.ui.monitor import SILENT, Monitor

BATCHES = (1, 100, 10_000)
REPEATS = 10
_STEP = 10


@dataclass(frozen=True)
class TimingRow:
    """Milliseconds for each shower with one batch size on one device.

    Attributes
    ----------
    device, batch
        Where, and how many showers at once.
    repeats
        Batches that were timed after one that was not.
    generate, fastest, slowest
        Median and extremes of the generation; None if it did not run.
    write
        Median of the time to write them, compressed.
    reason
        Why it did not run.

    Examples
    --------
    >>> TimingRow("cpu", 100, reason="did not run: out of memory").generate is None
    True
    """

    device: str
    batch: int
    repeats: int = 0
    generate: float | None = None
    fastest: float | None = None
    slowest: float | None = None
    write: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Timing:
    """The rows, seconds to load the model on each device, parameter counts and the machine.

    >>> row = TimingRow("cpu", 100, 3, 0.2, 0.1, 0.3, 0.01)
    >>> Timing([row], {"cpu": 0.5}, 10, 10, {}).to_dict()["parameters_training"]
    10
    """

    rows: list[TimingRow]
    load_seconds: dict[str, float]
    parameters_training: int
    parameters_generation: int
    machine: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """JSON data."""
        return asdict(self)

    def table(self) -> list[list[str]]:
        """Cells of a table with a head."""
        head = ["device", "batch", "ms/shower", "fastest", "slowest", "write", "repeats"]
        return [head, *(_cells(row) for row in self.rows)]


def _cells(row: TimingRow) -> list[str]:
    numbers = (row.generate, row.fastest, row.slowest, row.write)
    shown = ["-" if number is None else f"{number:.4g}" for number in numbers]
    return [row.device, str(row.batch), *shown, row.reason or str(row.repeats)]


def count_parameters(model: GenerativeModel) -> tuple[int, int]:
    """Numbers of parameters of the trained parts, and of what generation needs.

    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> count_parameters(build_model("small-inn", geometry("toy")))
    (3551772, 3551772)
    """

    def count(modules: Sequence[torch.nn.Module]) -> int:
        return sum(p.numel() for p in {id(p): p for module in modules for p in module.parameters()}.values())

    return count([part.module for part in model.parts]), count(list(model.generation_modules()))


def time_model(
    folder: str | Path,
    devices: Sequence[str] = ("cpu",),
    batches: Sequence[int] = BATCHES,
    repeats: int = REPEATS,
    budget: float = 600.0,
    monitor: Monitor = SILENT,
) -> Timing:
    """Time a fitted model.

    Parameters
    ----------
    folder
        Of the model.
    devices
        "cpu" and "cuda".
    batches
        Showers that are made at once.
    repeats
        Timed batches of each size; fewer if the budget ends before.
    budget
        Seconds for each row. A row that is expected not to make one warm-up and one timed batch in it does not run.
    monitor
        Is told the progress.

    Raises
    ------
    ConfigError
        If a number is not positive.
    NisamplerError
        As loading does.

    Examples
    --------
    >>> time_model("nowhere")
    Traceback (most recent call last):
    ...
    nisampler.errors.StorageError: nowhere is not the folder of a shower model: `nisampler calo fit` makes one
    """
    _check(batches, repeats, budget)
    rows: list[TimingRow] = []
    loading, counts = {}, (0, 0)
    for device in map(str, map(resolve_device, devices)):
        start = time.perf_counter()
        model = load_model(folder, device=device)
        _wait(device)
        loading[device] = time.perf_counter() - start
        counts = count_parameters(model)
        rows += time_batches(model, device, batches, repeats, budget, monitor)
    return Timing(rows, loading, *counts, _machine(devices))


def time_batches(
    model: GenerativeModel,
    device: str,
    batches: Sequence[int] = BATCHES,
    repeats: int = REPEATS,
    budget: float = 600.0,
    monitor: Monitor = SILENT,
) -> list[TimingRow]:
    """Time a model that is on the device; parameters and errors as for `time_model`.

    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> model = build_model("small-inn", geometry("toy")).eval()
    >>> [row.batch for row in time_batches(model, "cpu", (1, 5), repeats=1)]
    [1, 5]
    """
    _check(batches, repeats, budget)
    sizes = sorted(set(batches))
    rows: list[TimingRow] = []
    size, seconds = 0, 0.0  # of the largest batch so far
    for batch in sizes:
        monitor.progress("timing", len(rows), len(sizes), {"device": device, "batch": str(batch)})
        # A batch of one tells little about large ones, which are far faster for each shower.
        if 0 < _STEP * size < batch and _STEP * seconds < budget:
            size, seconds = _STEP * size, _once(model, device, _STEP * size)
        row = _row(model, device, batch, repeats, budget, seconds * batch / max(size, 1))
        if row.generate is not None:
            size, seconds = batch, row.generate * batch / 1e3
        rows.append(row)
    monitor.progress("timing", len(rows), len(sizes), {})
    return rows


def _check(batches: Sequence[int], repeats: int, budget: float) -> None:
    checked("batches", list(batches), list[Count])
    if not batches:
        raise ConfigError("batches must name at least one size")
    checked("repeats", repeats, Count)
    checked("budget", budget, Positive)


def _once(model: GenerativeModel, device: str, batch: int) -> float:
    """Seconds for one batch."""
    incident = draw_particles(model.geometry, batch, Streams(1), 0)
    return _timed(partial(ShowerGenerator(model, 1, batch).draw, incident, 0), device)[0]


def _row(model: GenerativeModel, device: str, batch: int, repeats: int, budget: float, expected: float) -> TimingRow:
    if 2 * expected > budget:
        return TimingRow(device, batch, reason=f"did not run: about {expected:.0f} s for a batch")
    generator = ShowerGenerator(model, 1, batch)
    incident = draw_particles(model.geometry, batch, Streams(1), 0)
    begin = time.perf_counter()
    generation, writing = [], []
    try:
        with tempfile.TemporaryDirectory() as place:
            for index in range(repeats + 1):
                taken, showers = _timed(partial(generator.draw, incident, index), device)
                wrote, _ = _timed(partial(_write, Path(place) / "showers.h5", model, showers), device)
                generation.append(taken)
                writing.append(wrote)
                if index and time.perf_counter() - begin > budget:
                    break
    except (torch.OutOfMemoryError, MemoryError):
        return TimingRow(device, batch, reason="did not run: out of memory")
    scale = 1e3 / batch
    times = scale * np.array(generation[1:])
    return TimingRow(
        device,
        batch,
        len(times),
        float(np.median(times)),
        float(times.min()),
        float(times.max()),
        float(scale * np.median(writing[1:])),
    )


def _timed(work: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Seconds until the device has finished, and the result."""
    _wait(device)
    start = time.perf_counter()
    result = work()
    _wait(device)
    return time.perf_counter() - start, result


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _write(path: Path, model: GenerativeModel, showers: AnyShowers) -> None:
    with model.kind.writer(path, model.geometry) as writer:
        writer.append(showers)


def _machine(devices: Sequence[str]) -> dict[str, Any]:
    gpu = {device: torch.cuda.get_device_name(device) for device in devices if torch.device(device).type == "cuda"}
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "torch": torch.__version__,
    }
