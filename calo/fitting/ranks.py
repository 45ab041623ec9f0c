"""The processes of one training, one for each GPU say: started by torchrun, they share out what is to be trained."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import torch
from torch import distributed

from nisampler.errors import ConfigError, ModelError

# A process may wait for another that trains for weeks.
_PATIENCE = timedelta(days=365)


def is_first() -> bool:
    """Whether this process is the one that talks to the user; known outside of `ranks`, too.

    >>> is_first()
    True
    """
    return os.environ.get("RANK", "0") == "0"


class Counters(Protocol):
    """Numbers by name that all processes share; they begin at zero.

    >>> class Alone(dict):
    ...     def add(self, key, amount):
    ...         self[key] = self.get(key, 0) + amount
    ...         return self[key]
    >>> list(Ranks(0, 2, 0, Alone()).claim("parts", 2))
    [0, 1]
    """

    def add(self, key: str, amount: int) -> int:
        """Add to a number and return the sum."""
        ...


@dataclass(frozen=True)
class Ranks:
    """One of `count` processes that work together.

    Parameters
    ----------
    rank, count
        Its number, 0 for the first, and how many there are.
    local
        Its number on this machine.
    store
        What they share; None for a single process.

    Examples
    --------
    >>> list(Ranks().claim("parts", 3))
    [0, 1, 2]
    """

    rank: int = 0
    count: int = 1
    local: int = 0
    store: Counters | None = None

    def device(self, wanted: torch.device | str) -> torch.device:
        """The device of this process: of "cuda" its own GPU.

        Raises
        ------
        ConfigError
            If there are fewer GPUs than processes on this machine.
        """
        place = torch.device(wanted)
        if self.store is None or str(place) != "cuda":
            return place
        found = torch.cuda.device_count()
        if self.local >= found:
            raise ConfigError(f"process {self.local} of this machine has no GPU, there are {found}: start fewer")
        return torch.device("cuda", self.local)

    def claim(self, name: str, n: int) -> Iterator[int]:
        """Numbers 0 … n-1 in order, each for one of the processes: whichever is free takes the next.

        Raises
        ------
        ModelError
            If the process that counts failed.
        """
        number = -1
        while number + 1 < n:
            with _failures():
                number = number + 1 if self.store is None else self.store.add(name, 1) - 1
            if number < n:
                yield number

    def barrier(self) -> None:
        """Wait for all processes.

        Raises
        ------
        ModelError
            If one of them failed.
        """
        if self.store is not None:
            with _failures():
                distributed.barrier()


@contextmanager
def _failures() -> Iterator[None]:
    """Lost connections as errors that say what to do."""
    try:
        yield
    except RuntimeError as error:
        raise ModelError(
            "another process of this training failed, as its own message says; what was trained is kept, and --resume "
            "continues"
        ) from error


@contextmanager
def ranks() -> Iterator[Ranks]:
    """This process among those that torchrun started with it, which find each other first; alone otherwise.

    Raises
    ------
    ConfigError
        If torch cannot do that, or what torchrun sets in the environment is incomplete.

    Examples
    --------
    >>> with ranks() as group:
    ...     group.count
    1
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    if not distributed.is_available():
        raise ConfigError("this build of torch has no torch.distributed: train in one process, without torchrun")
    from torch.distributed.rendezvous import rendezvous

    try:
        store, rank, count = next(rendezvous("env://"))
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"the processes of the training cannot find each other ({error}): start them with torchrun, or unset "
            "WORLD_SIZE to train in one process"
        ) from error
    try:
        yield Ranks(rank, count, int(os.environ.get("LOCAL_RANK", rank)), store)
    finally:
        distributed.destroy_process_group()
