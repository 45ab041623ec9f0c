"""Losses of all epochs while a model is fitted: a CSV file in its folder, and TensorBoard where that is installed.

Both have times, so that they are no part of what a fit with the same seed repeats.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nisampler.base.extras import install
from nisampler.base.storage import atomic_write, naming
from nisampler.calo.fitting.records import EpochRecord, Watch
from nisampler.errors import MissingExtraError

LOSSES, TENSORBOARD = "losses.csv", "tensorboard"
_HEAD = "epoch,part,training_loss,validation_loss,learning_rate,seconds"


class LossFile:
    """A line for each epoch of each part, written when it is over; several processes may write.

    Parameters
    ----------
    path
        The file.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     losses = LossFile(f"{folder}/losses.csv")
    ...     losses.begin({})
    ...     losses.add("voxels", EpochRecord(1, 0.5, 0.25, 1e-3, 2.0), 1.5)
    ...     print(Path(folder, "losses.csv").read_text(), end="")
    epoch,part,training_loss,validation_loss,learning_rate,seconds
    1,voxels,0.5,0.25,0.001,1.500
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def begin(self, done: Mapping[str, int]) -> None:
        """Start the file, or leave in it the epochs that are `done` of each part: others are trained again."""
        kept = []
        if done and self._path.is_file():
            with naming(self._path, "read"):
                lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            kept = [line for line in lines[1:] if _epoch(line) <= done.get(_part(line), 0)]
        with atomic_write(self._path, "w") as handle:
            handle.writelines([f"{_HEAD}\n", *kept])

    def add(self, part: str, record: EpochRecord, seconds: float) -> None:
        """One more epoch, and how long it took."""
        figures = (record.epoch, part, record.loss, record.validation, record.learning_rate, f"{seconds:.3f}")
        with naming(self._path), self._path.open("a", encoding="utf-8") as handle:
            handle.write(",".join(map(str, figures)) + "\n")


def _part(line: str) -> str:
    return line.split(",")[1] if line.count(",") == _HEAD.count(",") and line.endswith("\n") else ""


def _epoch(line: str) -> int:
    """The epoch of a line; one of a line that a kill cut off is never done."""
    number = line.split(",")[0]
    return int(number) if _part(line) and number.isdecimal() else 1 << 62


class LossCurves:
    """Losses and learning rate of each part as curves of TensorBoard.

    Parameters
    ----------
    writer
        What writes its files, as `summary_writer` makes one.

    Examples
    --------
    >>> class Writer:
    ...     def add_scalar(self, name, value, step):
    ...         print(name, value)
    ...     def flush(self):
    ...         pass
    >>> LossCurves(Writer()).add("voxels", EpochRecord(1, 0.5, 0.25, 1e-3, 2.0), 1.5)
    training loss/voxels 0.5
    validation loss/voxels 0.25
    learning rate/voxels 0.001
    seconds/voxels 1.5
    """

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def add(self, part: str, record: EpochRecord, seconds: float) -> None:
        """One more epoch."""
        figures = (record.loss, record.validation, record.learning_rate, seconds)
        for name, value in zip(("training loss", "validation loss", "learning rate", "seconds"), figures, strict=True):
            self._writer.add_scalar(f"{name}/{part}", value, record.epoch)
        self._writer.flush()


def require_tensorboard() -> None:
    """Nothing, where TensorBoard is installed.

    Raises
    ------
    MissingExtraError
        If it is not.

    Examples
    --------
    >>> from nisampler.errors import MissingExtraError
    >>> try:
    ...     require_tensorboard()
    ... except MissingExtraError as error:
    ...     assert "tensorboard" in str(error)
    """
    try:
        importlib.import_module("torch.utils.tensorboard")
    except ImportError as error:
        raise MissingExtraError(f"--tensorboard needs tensorboard: {install('tensorboard')}") from error


def summary_writer(folder: str | Path) -> Any:
    """What writes files for TensorBoard into a folder; `require_tensorboard` says whether that works.

    Examples
    --------
    >>> summary_writer("folder").add_scalar("loss", 1.0, 1)  # doctest: +SKIP
    """
    from torch.utils.tensorboard import SummaryWriter

    make: Any = SummaryWriter
    return make(str(folder))


def told_to(watches: Sequence[Watch]) -> Watch:
    """Several as one.

    >>> seen = []
    >>> told_to([lambda *told: seen.append(told)])("voxels", EpochRecord(1, 0.5, 0.25, 1e-3, 2.0), 1.0)
    >>> seen[0][0]
    'voxels'
    """

    def watch(part: str, record: EpochRecord, seconds: float) -> None:
        for one in watches:
            one(part, record, seconds)

    return watch
