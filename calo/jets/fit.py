"""From files of jets to a fitted model."""

from __future__ import annotations

import hashlib
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from nisampler.base.checks import Count, Positive, Row, settings
from nisampler.base.rng import Streams
from nisampler.calo.data.batches import ShowerData
from nisampler.calo.data.files import split
from nisampler.calo.fitting.records import PartResult, stage_of
from nisampler.calo.fitting.store import LOG, claim, part_folder
from nisampler.calo.fitting.training import fit_part, restore_part
from nisampler.calo.jets.files import read_all
from nisampler.calo.jets.jets import TYPES, Jets
from nisampler.calo.jets.model import JetModel, JetSource
from nisampler.calo.jets.presets import JetConfig, preset
from nisampler.calo.jets.store import DESCRIPTION, describe, save_model
from nisampler.calo.recipe import FitOptions
from nisampler.errors import ConfigError
from nisampler.ui.monitor import SILENT, LogMonitor, Monitor, Monitors, log_end


@settings
class JetData:
    """Which jets are used.

    Parameters
    ----------
    paths
        Files in the layout of JetNet.
    constituents
        Only so many of each jet, the hardest; None for all that the files hold.
    validation
        Share of the jets that is kept for validation.
    limit
        Only the first jets of each file; None for all.

    Raises
    ------
    ConfigError
        If a number is out of range.

    Examples
    --------
    >>> JetData(("g.hdf5",), validation=1.5)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: validation = 1.5: must be a number, more than 0 and less than 1
    """

    paths: Row[str | Path]
    constituents: Count | None = None
    validation: Annotated[Positive, Field(lt=1.0)] = 0.1
    limit: Count | None = None

    def read(self) -> Jets:
        """The jets.

        Raises
        ------
        ConfigError
            If the files hold fewer constituents than are wanted.
        NisamplerError
            As `read_all` does.
        """
        jets = read_all(self.paths, self.limit)
        if self.constituents is None or self.constituents == jets.most:
            return jets
        if self.constituents > jets.most:
            raise ConfigError(f"{self.constituents} constituents are wanted, the files hold {jets.most} of each jet")
        return jets.leading(self.constituents)


@dataclass(frozen=True)
class FittedJets:
    """A fitted model, how its parts were trained, and the time this took.

    >>> FittedJets(JetModel(preset("small-epic-fm"), ("g",), 30), [], 1.0, 1.0).model.types
    ('g',)
    """

    model: JetModel
    parts: list[PartResult]
    seconds: float
    cpu_seconds: float


def fit(
    data: JetData,
    model: str | JetConfig,
    output: str | Path,
    options: FitOptions | None = None,
    device: torch.device | str = "cpu",
    monitor: Monitor = SILENT,
    resume: bool = False,
) -> FittedJets:
    """Fit a model to the jets of files and store it.

    Parameters
    ----------
    data
        The jets.
    model
        The name of one of `nisampler.calo.jets.presets.PRESETS`, or settings.
    output
        Folder of the model.
    options
        Default: `FitOptions()`.
    device, monitor
        Where to compute; who is told the progress.
    resume
        Continue what was interrupted in `output`; it ends with the same bytes as a fit in one go.

    Raises
    ------
    StorageError
        If `output` holds a fit and `resume` is not set, or anything else, or nothing is there to resume.
    ConfigError
        If a fit is resumed with other settings, or there are too few jets.
    NisamplerError
        As reading and training do.

    Examples
    --------
    >>> import tempfile
    >>> from dataclasses import replace
    >>> from nisampler.calo.jets.files import write_jets
    >>> from nisampler.calo.recipe import Recipe
    >>> rng, few = np.random.default_rng(0), Recipe(1, 50, 1e-3)
    >>> points, whole = rng.random((100, 3, 3)), np.ones((100, 3), dtype=bool)
    >>> jets = Jets(points, whole, np.zeros(100), 500 + rng.random(100), rng.random(100), rng.random(100))
    >>> config = replace(preset("small-epic-fm"), recipe=few, properties=few)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_jets(f"{folder}/g.hdf5", jets)
    ...     fitted = fit(JetData((f"{folder}/g.hdf5",)), config, f"{folder}/model")
    >>> [part.name for part in fitted.parts]
    ['properties', 'constituents']
    """
    options, folder = options or FitOptions(), Path(output)
    start, cpu_start = time.monotonic(), time.process_time()
    config = preset(model) if isinstance(model, str) else model
    name = model if isinstance(model, str) else config.kind
    with ExitStack() as stack:
        stack.enter_context(claim(folder, DESCRIPTION, resume))
        jets = data.read()
        training, validation = _rows(jets, data, options.seed)
        made = JetModel(config, [TYPES[number] for number in np.unique(jets.types)], jets.most, options.seed)
        made.prepare(jets[training], Streams(options.seed).generator("prepare jets"))
        said = {key: getattr(options, key) for key in ("seed", "epochs", "batch", "patience")}
        facts = _facts(jets, data, len(training))
        if (folder / DESCRIPTION).is_file():
            _check_same(folder, {"model": name, **made.described(), **said, "data": facts})
        else:
            save_model(folder, made, name, said, facts)
        stack.enter_context(log_end(folder / LOG))
        told = Monitors([LogMonitor(folder / LOG), monitor])
        made.to(device)
        sources = ShowerData(*(JetSource(jets[rows], device) for rows in (training, validation)))
        results = _train(made, sources, folder, options, device, told, resume)
    return FittedJets(made.eval(), results, time.monotonic() - start, time.process_time() - cpu_start)


def _train(
    model: JetModel,
    data: ShowerData,
    folder: Path,
    options: FitOptions,
    device: torch.device | str,
    monitor: Monitor,
    resume: bool,
) -> list[PartResult]:
    """Train the parts that are not trained, one after the other."""
    units = {part.name: len(data.training) * options.recipe(part).epochs for part in model.parts}
    monitor.plan({stage_of(part): units[part.name] for part in model.parts})
    results, streams = [], Streams(options.seed).child("training of jets")
    for part in model.parts:
        place = part_folder(folder, part.name)
        result = restore_part(part, place, options, device) if resume else None
        if result is None:
            result = fit_part(part, data, place, options, device, monitor, resume, streams)
        monitor.progress(stage_of(part), units[part.name], units[part.name], result.figures())
        results.append(result)
    return results


def _rows(jets: Jets, data: JetData, seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The jets for training and for validation."""
    training, validation = split(len(jets), (1.0 - data.validation, data.validation), seed)
    if not len(training) or not len(validation):
        raise ConfigError(f"{len(jets)} jets are too few to train with and to validate with")
    return training, validation


def _facts(jets: Jets, data: JetData, training: int) -> dict[str, Any]:
    """What identifies the training data."""
    return {
        "files": [Path(path).name for path in data.paths],
        "jets": len(jets),
        "training": training,
        "pt_gev": [float(jets.pt.min()), float(jets.pt.max())],
        "sha256": hashlib.sha256(np.ascontiguousarray(jets.constituents).tobytes()).hexdigest(),
    }


def _check_same(folder: Path, wanted: dict[str, Any]) -> None:
    """ConfigError unless the folder was begun with the same model, settings and jets."""
    stored = describe(folder)
    changed = [key for key, value in wanted.items() if stored.get(key) != value]
    if changed:
        raise ConfigError(f"{folder} was begun with another {', '.join(changed)}: resume with the same, or begin anew")
