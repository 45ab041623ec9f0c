"""Training of the parts of a shower model in their folders: checkpoints, resume, and what was trained before."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nisampler.base.checkpoints import has_checkpoint, load_checkpoint, save_checkpoint
from nisampler.base.checkpoints import part as named
from nisampler.base.rng import Streams
from nisampler.base.storage import write_sealed
from nisampler.calo.data.batches import ShowerData
from nisampler.calo.fitting.records import RECORD, PartResult, Watch
from nisampler.calo.fitting.trainer import PartTrainer, check_recipe
from nisampler.calo.recipe import FitOptions, Part
from nisampler.ui.monitor import SILENT, Monitor


def fit_part(
    part: Part,
    data: ShowerData,
    directory: str | Path,
    options: FitOptions,
    device: torch.device | str = "cpu",
    monitor: Monitor = SILENT,
    resume: bool = False,
    streams: Streams | None = None,
    start: Mapping[str, Tensor] | None = None,
    watch: Watch = lambda part, record, seconds: None,
) -> PartResult:
    """Train one part; afterwards it holds the weights with the best validation loss.

    Parameters
    ----------
    part, data
        What to train, with what.
    directory
        Where the checkpoint and ``training.json`` are written.
    options
        What a user may change about the training.
    device
        Where the part lives.
    monitor
        Who is told the progress.
    resume
        Continue from the checkpoint, if there is one; the result has the same bytes as that of a training in one go.
    streams
        Of the model, since parts of other models have the same names; by default those of the seed.
    start
        Weights to begin with; without them those that the part has.
    watch
        Called after each epoch with the name of the part, the record, and the seconds that it took.

    Returns
    -------
    PartResult
        The records of all epochs.

    Raises
    ------
    TrainingDivergedError
        If a loss or gradient is not finite after several roll-backs.
    ConfigError
        If a checkpoint is of another recipe.
    StorageError, CorruptFileError
        If a checkpoint cannot be written or read.

    Examples
    --------
    A part is any module with a loss; here it learns the mean of log E_tot/E_inc.

    >>> import tempfile
    >>> from types import SimpleNamespace
    >>> import numpy as np
    >>> from nisampler.calo.data.batches import MemorySource
    >>> from nisampler.calo.data.showers import Showers
    >>> from nisampler.calo.recipe import Recipe
    >>> showers = MemorySource(Showers(np.full(40, 1e3), np.full((40, 2), 250.0)))
    >>> mean = torch.nn.Linear(1, 1, bias=False)
    >>> part = SimpleNamespace(
    ...     name="mean", module=mean, recipe=Recipe(2, 20, 0.1), begin=lambda: None,
    ...     loss=lambda voxels, incident, _: ((voxels.sum(1) / incident).log() - mean.weight[0]).square(),
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = fit_part(part, ShowerData(showers, showers), folder, FitOptions(seed=1))
    ...     restored = restore_part(part, folder, FitOptions(seed=1))
    >>> len(result.history), restored == result
    (2, True)
    """
    streams = (streams or Streams(options.seed)).child(f"part {part.name}")
    part.begin()
    trainer = PartTrainer(part, options.recipe(part), data, streams, device)
    if resume and has_checkpoint(directory):
        trainer.load_state(*load_checkpoint(directory, device))
        monitor.line(f"{part.name}: {trainer.epoch} of {trainer.recipe.epochs} epochs were done")
    elif start is not None:
        trainer.begin_with(start)
    saved, told = time.monotonic(), len(trainer.warnings)
    while not trainer.done:
        epoch, began = trainer.epoch, time.monotonic()
        trainer.advance(monitor)
        if trainer.epoch > epoch:
            watch(part.name, trainer.history[-1], time.monotonic() - began)
        for text in trainer.warnings[told:]:
            monitor.line(text)
        told = len(trainer.warnings)
        if trainer.done or time.monotonic() - saved >= options.checkpoint_seconds:
            save_checkpoint(directory, *trainer.state())
            saved = time.monotonic()
    return _finished(part, *trainer.state(), directory)


def restore_part(
    part: Part, directory: str | Path, options: FitOptions, device: torch.device | str = "cpu"
) -> PartResult | None:
    """A part whose training is over, with its best weights in place; None if it is not over.

    Parameters
    ----------
    part, directory, options, device
        As for `fit_part`.

    Raises
    ------
    ConfigError
        If it was trained with another recipe.
    CorruptFileError
        If its checkpoint is damaged.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> restore_part(SimpleNamespace(name="mean"), "a folder without a checkpoint", FitOptions()) is None
    True
    """
    if not has_checkpoint(directory):
        return None
    tensors, meta = load_checkpoint(directory, device)
    if not meta["done"]:
        return None
    check_recipe(part, options.recipe(part), meta)
    part.begin()
    return _finished(part, tensors, meta, directory)


def _finished(part: Part, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], directory: str | Path) -> PartResult:
    """Put the best weights into a part, and write how its training went."""
    part.module.load_state_dict(named(tensors, "best."))
    part.module.eval()
    result = PartResult.of(part.name, meta)
    write_sealed(Path(directory) / RECORD, asdict(result))
    return result
