"""What tests let another process do; a process that starts afresh finds this folder on its path."""

from __future__ import annotations

import multiprocessing
import os
import signal
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import torch

from nisampler.flows import Flow
from nisampler.run.directory import RunDirectory
from nisampler.run.generation.generate import RunRecipe
from nisampler.run.generation.generator import Generator
from nisampler.run.generation.shards import Shard


def densities(flow: Flow) -> tuple[str, list[float]]:
    """The process that draws three points, and their log densities."""
    context = None if not flow.context_dim else torch.ones(flow.context_dim)
    with torch.no_grad():
        log_prob = flow.sample(3, context, torch.Generator().manual_seed(1))[1]
    return str(multiprocessing.current_process().pid), log_prob.tolist()


@dataclass(frozen=True)
class Dying:
    """A recipe of shards whose worker is killed by the system."""

    def environment(self) -> AbstractContextManager[None]:
        """Nothing special."""
        return nullcontext()

    def generator(self) -> NoReturn:
        """Does not get that far."""
        die()


def die() -> NoReturn:
    """Stands for a worker that the system kills."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit


def wait_for_ever() -> NoReturn:
    """Stands for work that takes long."""
    while True:
        signal.pause()


def torch_sum(x: torch.Tensor) -> torch.Tensor:
    """Of the coordinates."""
    return x.sum(1)


def numpy_product(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Of the coordinates."""
    return np.prod(x, axis=1)


def several(x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Two integrals by name."""
    return {"sum": x.sum(1), "square": x.square().sum(1)}


def point(x: Any) -> float:
    """The sum of the coordinates of one point."""
    return float(x[0] + x[1])


class Counting:
    """A function that counts how often a coordinate was below a half."""

    dim = 2

    def __init__(self) -> None:
        self.low = 0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Values at points (n, 2)."""
        self.low += int((x[:, 0] < 0.5).sum())
        return x[:, 0] + 0.1

    def limits(self) -> dict[str, int]:
        """What was counted."""
        return {"low": self.low}


class Arriving:
    """A function of one point whose value says how often it came to this process."""

    arrivals = 0

    def __call__(self, x: Any) -> float:
        """Of a point."""
        return float(Arriving.arrivals)

    def __setstate__(self, state: Any) -> None:
        Arriving.arrivals += 1

    def __getstate__(self) -> tuple[str]:
        return ("something",)


@dataclass(frozen=True)
class DyingOnce:
    """The recipe of a run whose worker is killed the first time that it begins one of some shards."""

    run: Path
    seed: int
    marks: str
    deadly: tuple[int, ...]
    identity: str | None = None
    made_with: tuple[tuple[str, str], ...] = ()

    def environment(self) -> AbstractContextManager[None]:
        """Nothing special."""
        return nullcontext()

    def generator(self) -> Any:
        """Makes shards, and its own end."""
        identity = RunDirectory.read(self.run).identity() if self.identity is None else self.identity
        true = RunRecipe(self.run, self.seed, identity, self.made_with).generator()
        return SimpleNamespace(shard=lambda folder, index, size: self._shard(true, folder, index, size))

    def _shard(self, true: Generator, folder: Path, index: int, size: int) -> Shard:
        mark = Path(self.marks) / f"died-{index}"
        if index in self.deadly and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return true.shard(folder, index, size)
