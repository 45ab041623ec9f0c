"""An order of events: how many, of which run and seed, and which share of them one job makes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from nisampler.base.locks import lock_folder
from nisampler.base.outputs import new_folder
from nisampler.base.storage import make_folder, read_sealed, write_sealed
from nisampler.errors import ConfigError, CorruptFileError, StorageError
from nisampler.run.generation.shards import sizes

NAME = "order.json"
_SHARE = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True)
class Order:
    """What a job makes: whole shards, which are functions of run, seed, number and size alone.

    Attributes
    ----------
    run, seed
        The run, see `RunDirectory.identity`, and the seed.
    n_events, shard_size
        Of all jobs together.
    part, parts
        This is job `part` of `parts`, counted from 1.

    Examples
    --------
    >>> order = Order("", 7, n_events=45, shard_size=10, part=2, parts=2)
    >>> list(order.shards()), order.events()
    ([(2, 10), (3, 10), (4, 5)], 25)
    """

    run: str
    seed: int
    n_events: int
    shard_size: int
    part: int = 1
    parts: int = 1

    def shards(self) -> Iterator[tuple[int, int]]:
        """Numbers and sizes of the shards of this job."""
        planned = sizes(self.n_events, self.shard_size)
        begin, end = ((self.part + shift) * len(planned) // self.parts for shift in (-1, 0))
        yield from list(enumerate(planned))[begin:end]

    def events(self) -> int:
        """Number of events of this job."""
        return sum(size for _, size in self.shards())

    @property
    def whole(self) -> tuple[str, int, int, int]:
        """What all jobs of one order share."""
        return self.run, self.seed, self.n_events, self.shard_size

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The order of a folder.

        Raises
        ------
        StorageError, CorruptFileError
            If there is none, or it was altered.
        """
        path = folder / NAME
        if not path.is_file():
            raise StorageError(f"{folder} holds no events of `nisampler generate`: there is no {NAME}")
        try:
            return cls(**read_sealed(path))
        except TypeError as error:
            raise CorruptFileError(f"{path} is no order of events: {error}") from error

    @contextmanager
    def claimed(self, folder: Path) -> Iterator[None]:
        """Make a folder the place of this order, or find that it is already, and lock it meanwhile.

        Raises
        ------
        StorageError
            If it holds anything else, is in use, or cannot be written.
        """
        if not (folder / NAME).is_file():
            new_folder(folder)
            try:
                make_folder(folder)
            except StorageError as error:
                raise StorageError(f"{error}; --output puts the events elsewhere") from error
        with lock_folder(folder):
            if not (folder / NAME).is_file():
                write_sealed(folder / NAME, asdict(self))
            elif Order.read(folder) != self:
                raise StorageError(f"{folder} holds other events: choose another --output")
            yield


def share(text: str) -> tuple[int, int]:
    """Part and parts of a text such as "17/200".

    >>> share("17/200")
    (17, 200)
    >>> share("0/3")
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: --job must be K/N with 1 ≤ K ≤ N, such as 17/200, got '0/3'

    Raises
    ------
    ConfigError
        If it is none.
    """
    match = _SHARE.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"--job must be K/N with 1 ≤ K ≤ N, such as 17/200, got {text!r}")
    return int(match[1]), int(match[2])
