"""A run from card to report: train, freeze, integrate, unweight in shards, finish, report; every stage resumes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nisampler.api import CHECKPOINT_SECONDS
from nisampler.base import notices
from nisampler.base.checkpoints import has_checkpoint
from nisampler.base.device import point_threads
from nisampler.base.storage import atomic_write, write_sealed
from nisampler.base.versions import finite, version_changes, versions
from nisampler.errors import NisamplerError
from nisampler.events import shard_path
from nisampler.result import Result
from nisampler.run import lookup
from nisampler.run.card import parse_card, read_card_text
from nisampler.run.directory import RunDirectory
from nisampler.run.generation.files import finish, overweight_warnings
from nisampler.run.generation.generate import fill
from nisampler.run.generation.generator import Generator
from nisampler.run.generation.shards import SUFFIX, Generated, sizes
from nisampler.run.job import Job, build_job, card_device
from nisampler.run.report.drawing import Drawn, draw, report_page
from nisampler.run.report.summary import integral_data, integral_text
from nisampler.run.sharing import shared
from nisampler.run.stages import TRAINING, Clock, chain
from nisampler.ui.monitor import SILENT, LogMonitor, Monitor, Monitors, log_end


def start(
    card_path: str | Path,
    output: str | Path,
    overrides: Mapping[str, Any] | None = None,
    watcher: Monitor = SILENT,
) -> RunDirectory:
    """Check a card and make the run directory for it.

    Parameters
    ----------
    card_path
        The card.
    output
        The directory; it must not exist, or be empty.
    overrides
        Values that replace those of the card, by full path.
    watcher
        Is told whose code is run.

    Raises
    ------
    CardError
        If the card, its process or a parameter is wrong; nothing is made then.
    StorageError
        If the directory holds anything.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     card = Path(folder) / "card.toml"
    ...     _ = card.write_text('process = "camel4"')
    ...     with start(card, card.with_name("run"), {"events.n": 20}) as directory:
    ...         sorted(path.name for path in directory.path.iterdir() if path.suffix)
    ['card.toml', 'run.json']
    """
    text = read_card_text(card_path)
    card = parse_card(text, str(card_path), overrides)
    device = card_device(card.device)
    name = lookup.absolute(card.process)
    lookup.announce(name, card.parameters, watcher)
    # Sets of parton densities that are missing are found before anything is made.
    _ = build_job(card, name, device).variations
    settings = {
        "process": name,
        "device": device,
        "threads": card.threads,
        "versions": versions(),
    }
    return RunDirectory.create(output, text, settings, overrides)


def execute(
    directory: RunDirectory,
    watcher: Monitor = SILENT,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    workers: int = 1,
) -> dict[str, Any]:
    """Run all stages from wherever the run stands.

    Parameters
    ----------
    directory
        New or interrupted.
    watcher
        Where to tell about progress, besides the log.
    checkpoint_seconds
        Between checkpoints of the training; the result does not depend on it.
    workers
        Processes that make events side by side, and share the calls of the function where these are slow; the result
        does not depend on it.

    Returns
    -------
    dict
        The content of ``result.json``.

    Raises
    ------
    NisamplerError
        As the stages do; the error is logged too.

    Examples
    --------
    >>> import tempfile
    >>> text = '''
    ... process = "camel4"
    ... training = {calls = 5000, sampler = "vegas"}
    ... integration = {points = 2048}
    ... events = {n = 0}
    ... '''
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     card = Path(folder) / "card.toml"
    ...     _ = card.write_text(text)
    ...     with start(card, card.with_name("run")) as directory:
    ...         result = execute(directory)
    >>> result["calls"]["integration"], result["sampler"]["name"]
    (2048, 'vegas (... increments)')
    """
    clock = Clock(directory)
    monitor = Monitors([LogMonitor(directory.log), clock, watcher])
    with log_end(directory.log), notices.listening(monitor.line), point_threads(directory.settings["threads"]):
        return _execute(directory, monitor, clock, checkpoint_seconds, workers)


def _execute(
    directory: RunDirectory, monitor: Monitor, clock: Clock, checkpoint_seconds: float, workers: int
) -> dict[str, Any]:
    settings, card = directory.settings, directory.card
    card_device(settings["device"])
    lookup.announce(settings["process"], card.parameters, LogMonitor(directory.log))
    job = build_job(card, settings["process"], settings["device"])
    changed = version_changes(settings["versions"], "since the run began")
    monitor.line(f"{job.process.name}, seed {card.seed}, {job.device}, {settings['threads']} thread(s)")
    for text in changed:
        monitor.line(f"warning: {text}")
    if card.events.n:
        job.process.prepare_events()
    with shared(job, directory.path, workers, monitor) as sharing:
        found = _integrated(sharing, directory, clock, checkpoint_seconds, monitor)
    monitor.line(
        f"integral: {found.estimate} {found.estimate.unit}".rstrip()
        + f", efficiency {100 * found.efficiencies.at_0p1:.1f} % at 0.1 %"
    )
    if found.stages is not None:
        monitor.line(f"two stages: {found.stages.gain.line()}")
    with clock.stage("generation"):
        made, names = _events(job, directory, found, workers, monitor)
    result = _result(job, found, made)
    result |= {"files": names, "seconds": clock.seconds}
    result["unweighting"] |= _speed(job, found, made, result["calls"], clock.seconds)
    result["warnings"] += changed
    write_sealed(directory.result, result)
    with clock.stage("report"):
        result["calls"]["report"] = _drawn(job, directory, found, result).calls
        write_sealed(directory.result, result)
        with atomic_write(directory.report, "w") as handle:
            handle.write(report_page(directory))
    result["seconds"] = clock.seconds
    write_sealed(directory.result, result)
    for text in result["warnings"]:
        monitor.line(f"warning: {text}")
    monitor.line(f"finished: {integral_text(result)}, {made.events} events, {directory.report}")
    return result


def _integrated(job: Job, directory: RunDirectory, clock: Clock, checkpoint_seconds: float, monitor: Monitor) -> Result:
    """The first two stages."""
    stages = chain(job, directory, monitor)
    with clock.stage(TRAINING):
        trained = stages.train(checkpoint_seconds)
    training = trained.result
    monitor.line(f"sampler: {training.sampler.describe()}, {trained.counts['calls']} calls")
    if training.choice is not None:
        monitor.line(f"choice: {training.choice.line()}")
    with clock.stage("integration"):
        return stages.integrate(trained)


def _events(
    job: Job, directory: RunDirectory, found: Result, workers: int, monitor: Monitor
) -> tuple[Generated, list[str]]:
    settings = job.card.events
    if settings.n == 0:
        return Generated(()), []
    generator = Generator(job, found, job.streams, directory.identity())
    todo = list(enumerate(sizes(settings.n, settings.shard_size)))
    made = fill(generator, directory.path, directory.events, todo, workers, monitor)
    paths = [shard_path(directory.events, index, SUFFIX) for index, _ in todo]
    return made, finish(job, paths, directory.path, settings.n)


def _speed(
    job: Job, found: Result, made: Generated, calls: Mapping[str, int], seconds: Mapping[str, float]
) -> dict[str, float]:
    """Events per integrand call, those of the event records included, and per second.

    Without events those that the integration lets expect.
    """
    if made.events:
        expected, stage = float(made.events), "generation"
    else:
        expected, stage = found.efficiencies.chosen * calls["integration"], "integration"
    return {
        "events_per_call": expected / max(calls[stage] + job.record_calls(1) * expected, 1),
        "events_per_second": expected / max(seconds[stage], 1e-3),
    }


def _result(job: Job, found: Result, made: Generated) -> dict[str, Any]:
    """The content of ``result.json``, but for files, seconds and speed."""
    estimate, training, choice = found.estimate, found.training, found.training.choice
    data: dict[str, Any] = {
        "process": job.process.name,
        "parameters": job.card.parameters,
        "seed": job.card.seed,
        "device": job.device,
        "threads": found.threads,
        "integral": integral_data(estimate) | {"chi2_per_dof": estimate.chi2_per_dof, "n_points": estimate.n},
        "unweighting": _worth(found, made) | {"weights": "average" if job.average else "unit"},
        "calls": {
            "training": found.calls["detection"] + found.calls["training"],
            "integration": found.calls["integration"],
            "generation": made.calls,
            "events": job.record_calls(made.events),
            "report": 0,
            "nonfinite": found.calls["nonfinite"] + made.nonfinite,
        },
        "limits": found.limits,
        "sampler": {
            "name": found.sampler.describe(),
            "choice": None if choice is None else asdict(choice),
            "candidates": [asdict(candidate) for candidate in training.candidates],
        },
        "training": {"steps": training.steps, "steps_per_call": training.steps_per_call},
        "versions": versions(),
        "warnings": [*found.warnings, *overweight_warnings(made, job)],
    }
    return dict(finite(data))


def _worth(found: Result, made: Generated) -> dict[str, Any]:
    """What the weights are worth for unweighting, and what was made of them."""
    worth, overweight = found.efficiencies, made.overweight_fraction
    return {
        "efficiency_strict": worth.strict,
        "efficiency_0p1": worth.at_0p1,
        "efficiency_1": worth.at_1,
        "efficiency_generated": made.efficiency,
        "ess_fraction": worth.ess_fraction,
        "cut_efficiency": worth.cut,
        "max_weight": found.max_weight,
        "two_stage": None if found.stages is None else asdict(found.stages.gain),
        "overweight_fraction": found.distribution.overweight if overweight is None else overweight,
        "n_events": made.events,
    }


def _drawn(job: Job, directory: RunDirectory, found: Result, result: dict[str, Any]) -> Drawn:
    """The distributions of the report, from an earlier session if it got that far; if they fail, a warning says so."""
    if not result["unweighting"]["n_events"]:
        return Drawn()
    if has_checkpoint(directory.distributions):
        return Drawn.read(directory.distributions)
    try:
        return draw(job, directory, found)
    except NisamplerError as error:
        result["warnings"].append(f"the report lacks the distributions, {type(error).__name__}: {error}")
    return Drawn()
