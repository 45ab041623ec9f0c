"""The stages of a run whose results are stored: training, and integration with the frozen sampler."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nisampler.base.estimate import Estimate
from nisampler.base.storage import has_checkpoint, load_checkpoint, save_checkpoint
from nisampler.base.versions import finite
from nisampler.integration.integrator import IntegrationResult, Integrator
from nisampler.run.directory import RunDirectory
from nisampler.run.job import Job
from nisampler.samplers.base import Sampler
from nisampler.samplers.registry import sampler_from_state
from nisampler.training.costs import Choice
from nisampler.training.trainer import Trainer
from nisampler.ui.monitor import Monitor
from nisampler.unweighting.two_stage import TwoStageUnweighter, two_stages
from nisampler.unweighting.unweighter import Efficiencies

CHECKPOINT_SECONDS = 20.0

_FINISH = "finish"
_CLOCK_SECONDS = 2.0
_WEIGHT_EDGES = np.geomspace(1e-10, 1e6, 16 * 200 + 1)


class Clock(Monitor):
    """Seconds of each stage, added up over the sessions of a run; nothing else depends on them.

    As a monitor it notes the time at most every two seconds, so that a killed session counts too.

    Parameters
    ----------
    directory
        Where the seconds are remembered.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._seconds = directory.seconds()
        self._stage, self._since = "", 0.0

    @property
    def seconds(self) -> dict[str, float]:
        """Rounded to milliseconds."""
        return {name: round(value, 3) for name, value in self._seconds.items()}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time spent inside for `name`."""
        self._stage, self._since = name, time.monotonic()
        try:
            yield
        finally:
            self._note()

    def progress(self, stage: str, done: int, total: int, figures: Mapping[str, str]) -> None:
        """Note the time of the present stage now and then."""
        if time.monotonic() - self._since > _CLOCK_SECONDS:
            self._note()

    def _note(self) -> None:
        now = time.monotonic()
        self._seconds[self._stage] = self._seconds.get(self._stage, 0.0) + now - self._since
        self._since = now
        self._directory.store_seconds(self.seconds)


@dataclass(frozen=True)
class Trained:
    """A frozen sampler and the record of its training.

    Attributes
    ----------
    sampler
        Frozen.
    name
        One line on what it is.
    history, candidates
        Training records, and the samplers that were compared, as dictionaries.
    warnings
        What a user should know.
    counts
        Counters of the integrand at the end.
    steps, steps_per_call
        Optimizer steps, and how many of them each integrand call of the flow training served.
    choice
        What was chosen for the number of events, as a dictionary; None if the efficiency alone decided.
    """

    sampler: Sampler
    name: str
    history: Sequence[Mapping[str, Any]]
    candidates: Sequence[Mapping[str, Any]]
    warnings: Sequence[str]
    counts: Mapping[str, int]
    steps: int
    steps_per_call: float
    choice: Mapping[str, Any] | None = None

    @property
    def efficiency(self) -> float:
        """Of the chosen candidate at 0.1 % overweight."""
        return next((float(item["efficiency_0p1"] or 0.0) for item in self.candidates if item["chosen"]), 0.0)


class _Checkpoints:
    """Stores the trainer now and then, and always when a sampler was chosen and where the last stage begins."""

    def __init__(self, directory: RunDirectory, seconds: float) -> None:
        self._directory, self._seconds = directory, seconds
        self._last, self._chosen = time.monotonic(), False

    def __call__(self, trainer: Trainer) -> None:
        chosen, self._chosen = self._chosen, trainer.choice is not None
        due = time.monotonic() - self._last >= self._seconds
        if not (due or trainer.stage == _FINISH or self._chosen > chosen):
            return
        save_checkpoint(self._directory.checkpoint, *trainer.state())
        self._last = time.monotonic()


def train(
    job: Job, directory: RunDirectory, monitor: Monitor, checkpoint_seconds: float = CHECKPOINT_SECONDS
) -> Trained:
    """Adapt a sampler, or read the one of an earlier session.

    How often checkpoints are written has no influence on the result.

    Raises
    ------
    CorruptFileError
        If a stored sampler or checkpoint is damaged; it is named.
    IntegrandError, TrainingDivergedError
        As the trainer does.
    """
    if has_checkpoint(directory.sampler):
        return _stored_training(job, directory)

    trainer = Trainer(job.integrand, job.training, job.streams, job.device, monitor)
    if has_checkpoint(directory.checkpoint):
        trainer.load_state(*load_checkpoint(directory.checkpoint, job.device))
        monitor.line(f"training continues after {trainer.calls} calls")
    result = trainer.fit(_Checkpoints(directory, checkpoint_seconds))
    monitor.progress("training", 1, 1, {})
    tensors, meta = result.sampler.state()
    record = {
        "sampler": meta,
        "name": result.sampler.describe(),
        "history": [finite(asdict(item)) for item in result.history],
        "candidates": [finite(asdict(item)) for item in result.candidates],
        "warnings": list(result.warnings),
        "counts": job.integrand.counts(),
        "steps": result.steps,
        "steps_per_call": result.steps_per_call,
        "choice": None if result.choice is None else finite(asdict(result.choice)),
    }
    save_checkpoint(directory.sampler, tensors, record)
    return _stored_training(job, directory)


def _stored_training(job: Job, directory: RunDirectory) -> Trained:
    tensors, meta = load_checkpoint(directory.sampler, job.device)
    job.integrand.restore_counts(meta["counts"])
    sampler = sampler_from_state(tensors, meta["sampler"])
    return Trained(sampler, **{name: value for name, value in meta.items() if name != "sampler"})


@dataclass(frozen=True)
class Integrated:
    """The integral with all that later stages need of it.

    Attributes
    ----------
    estimate
        Value and error.
    batch_means
        The integral in each independent batch.
    weight_edges, weight_counts
        Histogram of |w| over its mean: (b + 1,) edges, (b,) counts.
    mean_weight, max_weight
        Mean of |w|, and w_max of the policy in use.
    efficiencies
        Of these weights, by name.
    overweight_fraction
        Fraction of the integral above w_max that these weights let expect.
    signed
        Whether a weight was negative.
    warnings
        What makes the error doubtful.
    counts
        Counters of the integrand at the end.
    stages
        Draws the events in two stages, where that is wanted or pays.
    """

    estimate: Estimate
    batch_means: Sequence[float]
    weight_edges: NDArray[np.float64]
    weight_counts: NDArray[np.float64]
    mean_weight: float
    max_weight: float
    efficiencies: Mapping[str, float]
    overweight_fraction: float
    signed: bool
    warnings: Sequence[str]
    counts: Mapping[str, int]
    stages: TwoStageUnweighter | None = None


def integrate(job: Job, directory: RunDirectory, trained: Trained, monitor: Monitor) -> Integrated:
    """Integrate with the frozen sampler and choose w_max, or read what an earlier session found.

    Raises
    ------
    CorruptFileError
        If the stored integral is damaged.
    IntegrandError, UnweightingError
        As `Integrator` and the policy do.
    """
    if not has_checkpoint(directory.integration):

        def on_progress(done: int, total: int, estimate: Estimate | None) -> None:
            figures = {} if estimate is None else {"error": f"{estimate.relative_error:.1e}"}
            monitor.progress("integration", done, total, figures)

        config = job.card.integration.for_events(job.training.events or 0, trained.efficiency)
        integrator = Integrator(job.integrand, trained.sampler, config, job.streams)
        result = integrator.run(on_progress)
        choice = None if trained.choice is None else Choice.of(trained.choice)
        settings, weights = job.card.unweighting, result.weights
        max_weight = settings.max_weight(weights, job.streams)
        worth = Efficiencies.of(weights, max_weight)
        stages = two_stages(job.integrand, trained.sampler, weights, worth, config, settings, choice, job.streams)
        if stages is not None:
            save_checkpoint(directory.two_stage, *stages.state())
        state, meta = _integration_state(job, result, max_weight, worth)
        save_checkpoint(directory.integration, state, meta | {"two_stage": stages is not None})
    return _stored_integration(job, directory, trained)


def _integration_state(
    job: Job, result: IntegrationResult, max_weight: float, efficiencies: Efficiencies
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    weights = result.weights
    mean = float(weights.abs().mean())
    size = (weights.abs() / mean).cpu().numpy()
    counts = np.histogram(size[size > 0], _WEIGHT_EDGES)[0].astype(np.float64)
    meta = {
        "estimate": finite(asdict(result.estimate)),
        "batch_means": list(result.batch_means),
        "mean_weight": mean,
        "max_weight": max_weight,
        "efficiencies": asdict(efficiencies),
        "overweight_fraction": float((weights.abs() - max_weight).clamp(min=0.0).sum() / weights.abs().sum()),
        "signed": result.moments.negatives > 0,
        "warnings": list(result.warnings),
        "counts": job.integrand.counts(),
    }
    return {"weight_edges": torch.from_numpy(_WEIGHT_EDGES), "weight_counts": torch.from_numpy(counts)}, meta


def _stored_integration(job: Job, directory: RunDirectory, trained: Trained) -> Integrated:
    tensors, meta = load_checkpoint(directory.integration)
    job.integrand.restore_counts(meta["counts"])
    stored = meta.pop("estimate")
    missing = {"error": math.inf, "chi2_per_dof": math.nan, "ess_fraction": math.nan}
    fields: dict[str, Any] = {key: missing[key] if value is None else value for key, value in stored.items()}
    estimate = Estimate(**fields)
    edges, counts = tensors["weight_edges"].numpy(), tensors["weight_counts"].numpy()
    stages = None
    if meta.pop("two_stage"):
        stored_stages = load_checkpoint(directory.two_stage, job.device)
        stages = TwoStageUnweighter.load(
            job.integrand, trained.sampler, stored_stages, job.streams, job.card.unweighting
        )
    return Integrated(estimate=estimate, weight_edges=edges, weight_counts=counts, stages=stages, **meta)
