"""Training of all parts of a model: in turn, or shared out among processes, each part on one device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from nisampler.base.checkpoints import has_checkpoint, load_checkpoint
from nisampler.calo.data.batches import ShowerData
from nisampler.calo.fitting.losses import LossFile
from nisampler.calo.fitting.ranks import Ranks
from nisampler.calo.fitting.records import RECORD, PartResult, Watch, stage_of
from nisampler.calo.fitting.store import load_base, part_folder, save_base
from nisampler.calo.fitting.training import fit_part, restore_part
from nisampler.calo.models import GenerativeModel, model_streams
from nisampler.calo.recipe import FitOptions, Part
from nisampler.errors import ModelError
from nisampler.ui.monitor import Monitor


def waves(parts: Sequence[Part]) -> list[list[Part]]:
    """Parts that may be trained at the same time, one such set after the other.

    Raises
    ------
    ModelError
        If a part must come after one that is not there or comes after it.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> [[part.name for part in wave] for wave in waves(build_model("small-student", geometry("toy")).parts)]
    [['energies', 'voxels'], ['student']]
    """
    found: list[list[Part]] = []
    place: dict[str, int] = {}
    for part in parts:
        missing = [name for name in part.after if name not in place]
        if missing:
            raise ModelError(f"part {part.name} comes after {', '.join(missing)}, which must stand before it")
        place[part.name] = 1 + max((place[name] for name in part.after), default=-1)
        if place[part.name] == len(found):
            found.append([])
        found[place[part.name]].append(part)
    return found


@dataclass(frozen=True)
class PartQueue:
    """The training of a model whose folder is begun.

    The log-likelihood is a sum, so a part needs no other one except those of its `after`: each process takes the next
    part that is free, and it does not matter which one trained what.

    Parameters
    ----------
    model, data
        What to train, on its device, with what.
    folder, options, device, monitor, resume
        As for `nisampler.calo.fitting.fit.fit`.
    ranks
        The processes.
    start
        Weights to begin with, by part.
    watch
        As for `fit_part`.
    losses
        The file in which epochs that are trained again are forgotten.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.data.batches import MemorySource
    >>> from nisampler.calo.data.showers import Showers
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models import build_model
    >>> import numpy as np
    >>> from nisampler.ui.monitor import SILENT
    >>> showers, toy = Showers(np.full(20, 1e4), np.random.default_rng(0).random((20, 240))), geometry("toy")
    >>> model, data = build_model("small-teacher", toy), ShowerData(MemorySource(showers), MemorySource(showers))
    >>> model.prepare(showers, torch.Generator().manual_seed(0))
    >>> options, cpu = FitOptions(epochs=1), torch.device("cpu")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_base(folder, model, finished=False)
    ...     queue = PartQueue(model, data, Path(folder), options, cpu, SILENT, False, Ranks())
    ...     [part.name for part in queue.run()]
    ['energies', 'voxels']
    """

    model: GenerativeModel
    data: ShowerData
    folder: Path
    options: FitOptions
    device: torch.device
    monitor: Monitor
    resume: bool
    ranks: Ranks
    start: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    watch: Watch = lambda part, record, seconds: None
    losses: LossFile | None = None

    def run(self) -> list[PartResult]:
        """Train what is not trained yet; afterwards every process holds the whole model.

        Raises
        ------
        ModelError
            If another process failed.
        NisamplerError
            As `fit_part` does.
        """
        parts, results = self.model.parts, self._restored()
        names = [part.name for part in parts]
        monitor = self.monitor
        monitor.plan({stage_of(part): self._units(part) for part in parts})
        if results:
            monitor.line(f"{len(results)} of {len(parts)} parts were trained")
        if self.losses is not None and not self.ranks.rank:
            self.losses.begin(self._epochs(results))
        # Nobody writes before everybody has read.
        self.ranks.barrier()
        told = self._tell(monitor, results, set())
        for number, wave in enumerate(waves(parts)):
            waiting = [part for part in wave if part.name not in results]
            for index in self.ranks.claim(f"parts of wave {number}", len(waiting)):
                part = waiting[index]
                result = results[part.name] = self._train(part)
                told |= self._tell(monitor, results, told)
                monitor.line(
                    f"part {names.index(part.name) + 1} of {len(parts)}, {part.name}: validation loss "
                    f"{result.best_loss:.6g} after epoch {result.best_epoch} of {len(result.history)}"
                )
            self.ranks.barrier()
            results |= {part.name: self._others(part) for part in waiting if part.name not in results}
            told |= self._tell(monitor, results, told)
        self._finish()
        return [results[name] for name in names]

    def _units(self, part: Part) -> int:
        """Showers that the training of a part goes through."""
        return len(self.data.training) * self.options.recipe(part).epochs

    def _tell(self, monitor: Monitor, results: Mapping[str, PartResult], told: Set[str]) -> set[str]:
        """Tell which trainings are over, here or in another process, except those of `told`; returns their names."""
        over = [part for part in self.model.parts if (part_folder(self.folder, part.name) / RECORD).is_file()]
        for part in over:
            if part.name not in told:
                total, result = self._units(part), results.get(part.name)
                monitor.progress(stage_of(part), total, total, {} if result is None else result.figures())
        return {part.name for part in over}

    def _epochs(self, results: Mapping[str, PartResult]) -> dict[str, int]:
        """How many epochs of each part need not be trained again."""
        done = {name: len(result.history) for name, result in results.items()}
        for part in self.model.parts:
            place = part_folder(self.folder, part.name)
            if self.resume and part.name not in done and has_checkpoint(place):
                done[part.name] = load_checkpoint(place)[1]["epoch"]
        return done

    def _restored(self) -> dict[str, PartResult]:
        """What was trained before, put into the model."""
        if not self.resume:
            return {}
        found = {part.name: self._restore(part) for part in self.model.parts}
        return {name: result for name, result in found.items() if result is not None}

    def _restore(self, part: Part) -> PartResult | None:
        return restore_part(part, part_folder(self.folder, part.name), self.options, self.device)

    def _others(self, part: Part) -> PartResult:
        """A part that another process has trained."""
        result = self._restore(part)
        if result is None:
            raise ModelError(
                f"{self.folder} lacks part {part.name}, which another process trained: the processes need one folder"
            )
        return result

    def _train(self, part: Part) -> PartResult:
        """Train a part with the voxels that it needs, which are read when its turn comes."""
        data, starts = self.data, self.model.geometry.starts
        if part.layers is not None:
            data = data.window(slice(starts[part.layers[0]], starts[part.layers[1]]))
        place = part_folder(self.folder, part.name)
        streams = model_streams(self.model.config, self.options.seed)
        rest = (self.monitor, self.resume, streams, self.start.get(part.name), self.watch)
        return fit_part(part, data, place, self.options, self.device, *rest)

    def _finish(self) -> None:
        """What the model does after its parts are trained, once; the processes share the result."""
        self.model.eval()
        if self.ranks.rank == 0 and not load_base(self.folder, self.model):
            streams = model_streams(self.model.config, self.options.seed)
            generator = streams.generator("finish", device=self.device)
            self.model.finish(self.data.training, generator)
            save_base(self.folder, self.model, finished=True)
        self.ranks.barrier()
        if self.ranks.rank:
            load_base(self.folder, self.model)
