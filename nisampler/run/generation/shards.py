"""The shards of a set of events: how each was made, stored beside it, and what is wrong with those in a folder."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from nisampler.base.storage import read_sealed, sha256, write_sealed
from nisampler.errors import CorruptFileError, StorageError
from nisampler.events import shard_path
from nisampler.events.shards import find_shards

SUFFIX = ".h5"
_MEND = "delete it and start the command again to make it again"


@dataclass(frozen=True)
class Shard:
    """How one shard was made.

    Attributes
    ----------
    run, seed, index
        The run, the seed and the number that it is a function of.
    events, calls, zeros, nonfinite
        Events in it, and the integrand's counters for it.
    trials
        Points tried.
    weight_sum, overweight_sum
        Sum of |weights|, and its excess over one per event.
    signed_sum, square_sum
        Sums of the weights and of their squares.
    sha256
        Checksum of the file.

    Examples
    --------
    >>> shard = Shard("", 1, 0, events=20, calls=512, zeros=0, nonfinite=0, trials=250, weight_sum=21.0)
    >>> shard.events / shard.trials
    0.08
    """

    run: str
    seed: int
    index: int
    events: int
    calls: int
    zeros: int
    nonfinite: int
    trials: int
    weight_sum: float
    overweight_sum: float = 0.0
    signed_sum: float = 0.0
    square_sum: float = 0.0
    sha256: str = ""

    @property
    def identity(self) -> tuple[str, int, int, int]:
        """What it is a function of, and its size."""
        return self.run, self.seed, self.index, self.events

    def write(self, path: Path) -> None:
        """Store this record beside the shard at `path`."""
        write_sealed(path.with_suffix(".json"), asdict(self))

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The record of the complete shard at `path`, None if there is none.

        Raises
        ------
        CorruptFileError
            If the shard or its record was altered; it is named.
        """
        record = path.with_suffix(".json")
        if not (path.is_file() and record.is_file()):
            return None
        try:
            shard = cls(**read_sealed(record, mend=_MEND))
        except TypeError as error:
            raise CorruptFileError(f"{record} is not the record of a shard: {_MEND}") from error
        if shard.sha256 != sha256(path):
            raise CorruptFileError(f"{path} was altered: {_MEND}")
        return shard


@dataclass(frozen=True)
class Generated:
    """What a set of shards adds up to.

    >>> shard = Shard("", 1, 0, 20, calls=512, zeros=0, nonfinite=0, trials=250, weight_sum=20.0, overweight_sum=1.0)
    >>> made = Generated([shard, shard])
    >>> made.events, made.efficiency, made.overweight_fraction
    (40, 0.08, 0.05)
    """

    shards: Sequence[Shard]

    @property
    def events(self) -> int:
        """Number of events."""
        return sum(shard.events for shard in self.shards)

    @property
    def calls(self) -> int:
        """Integrand calls that found the points."""
        return sum(shard.calls for shard in self.shards)

    @property
    def nonfinite(self) -> int:
        """Values that were NaN or infinite."""
        return sum(shard.nonfinite for shard in self.shards)

    @property
    def efficiency(self) -> float | None:
        """Accepted points over tried ones."""
        trials = sum(shard.trials for shard in self.shards)
        return self.events / trials if trials else None

    @property
    def overweight_fraction(self) -> float | None:
        """Share of the sum of |weights| that is excess over one."""
        total = math.fsum(shard.weight_sum for shard in self.shards)
        return math.fsum(shard.overweight_sum for shard in self.shards) / total if total else None

    def figures(self, max_weight: float) -> dict[str, Any]:
        """Numbers of the events: with w_max also the integral that all trials together give, and its error.

        A trial counts its weight over w_max where it is accepted, and zero otherwise.

        >>> shard = Shard("", 1, 0, 20, 512, 0, 0, trials=100, weight_sum=20.0, signed_sum=20.0, square_sum=20.0)
        >>> found = Generated([shard]).figures(5.0)
        >>> found["n"], found["of_trials"]["value"], round(found["of_trials"]["error"], 6)
        (20, 1.0, 0.201008)
        """
        trials = sum(shard.trials for shard in self.shards)
        total, squares = (
            math.fsum(getattr(shard, name) for shard in self.shards) for name in ("signed_sum", "square_sum")
        )
        value = total / trials if trials else None
        error = None
        if value is not None and trials > 1:
            error = max_weight * math.sqrt(max(squares / trials - value**2, 0.0) / (trials - 1))
        return {
            "n": self.events,
            "sum_of_weights": total,
            "trials": trials,
            "of_trials": {"value": None if value is None else max_weight * value, "error": error},
            "efficiency_generated": self.efficiency,
            "overweight_fraction": self.overweight_fraction,
        }


def sizes(n: int, shard_size: int) -> list[int]:
    """The number of events of each shard.

    >>> sizes(25, 10)
    [10, 10, 5]
    """
    full, rest = divmod(n, shard_size)
    return [shard_size] * full + ([rest] if rest else [])


def refuse_strangers(folder: Path, own: Collection[int]) -> None:
    """Refuse shards with other numbers than those that belong there: they would be merged.

    >>> refuse_strangers(Path("nowhere"), range(3))

    Raises
    ------
    StorageError
        If there are any.
    """
    strange = [path.name for index, path in find_shards(folder).items() if index not in own or path.suffix != SUFFIX]
    if strange:
        raise StorageError(
            f"{folder} holds {', '.join(strange[:3])}, which {'are' if len(strange) > 1 else 'is'} not of the "
            f"{len(own)} shards that belong there: move away what was put there"
        )


def problems(folder: Path, run: str, seed: int, n: int, shard_size: int) -> Iterator[str]:
    """What is wrong with the shards of n events, in words; nothing if all is well.

    >>> list(problems(Path("nowhere"), "", 1, 20, 10))
    ['nowhere/events-00000.h5 is missing', 'nowhere/events-00001.h5 is missing']
    """
    expected = sizes(n, shard_size)
    try:
        refuse_strangers(folder, range(len(expected)))
    except StorageError as error:
        yield str(error)
    for index, size in enumerate(expected):
        path = shard_path(folder, index, SUFFIX)
        try:
            shard = Shard.read(path)
        except StorageError as error:
            yield str(error)
            continue
        if shard is None:
            yield f"{path} is missing"
        elif shard.identity != (run, seed, index, size):
            yield f"{path} is not of this run"
