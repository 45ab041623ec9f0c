"""What a file of events tells of itself: its card, process, parameters, cuts, densities, seed, run and versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from nisampler.base.versions import versions
from nisampler.run.card import Card
from nisampler.run.job import Job


def file_header(job: Job, run: str, seed: int) -> tuple[tuple[str, str], ...]:
    """The texts of the header, by name; the same for all shards of one order.

    Parameters
    ----------
    job
        The process and its card.
    run
        Which run this is, see `RunDirectory.identity`.
    seed
        Of the events.

    Examples
    --------
    >>> from nisampler.run.card import parse_card
    >>> from nisampler.run.job import build_job
    >>> texts = dict(file_header(build_job(parse_card('process = "ee_to_3jets"'), "ee_to_3jets", "cpu"), "af3c", 7))
    >>> texts["process"], texts["seed"], texts["card"]
    ('ee_to_3jets', '7', 'process = "ee_to_3jets"')
    """
    groups = job.process.event_groups
    texts = {
        "process": job.card.process,
        **({"groups": "\n".join(f"{code} {groups[code]}" for code in sorted(groups))} if len(groups) > 1 else {}),
        "seed": str(seed),
        "run": run,
        **{name: job.card.as_written(text) for name, text in job.process.header.items()},
        "parameters": _lines(job.process.parameters or job.card.parameters, job.card),
        "versions": "\n".join(f"{name} {version}" for name, version in versions().items()),
        "card": job.card.text.replace("\r\n", "\n"),
    }
    return tuple(texts.items())


def _lines(parameters: Any, card: Card) -> str:
    """Parameters of a process, one in a line as in a card; empty where they are of no known form."""
    if is_dataclass(parameters) and not isinstance(parameters, type):
        parameters = asdict(parameters)
    if not isinstance(parameters, Mapping):
        return ""
    written = {name: card.as_written(value) for name, value in parameters.items()}
    return "\n".join(f"{name} = {json.dumps(value, default=str)}" for name, value in written.items())
