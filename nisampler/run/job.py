"""A run in memory: the process of its card, ready to be called."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nisampler.api import ChainConfig
from nisampler.base.device import resolve_device
from nisampler.base.estimate import Estimate
from nisampler.base.extras import install
from nisampler.base.rng import Streams
from nisampler.density.integrand import Integrand
from nisampler.errors import CardError, ConfigError, MissingExtraError, PdfError, ProcessError, UnknownProcessError
from nisampler.events import InitInfo, ProcessInfo
from nisampler.events.compression import require_packing
from nisampler.events.pdg import PROTON
from nisampler.run import lookup
from nisampler.run.card import Card
from nisampler.training.config import TrainingConfig

POINT_FORMATS = ("h5",)


@dataclass(frozen=True)
class Job:
    """What all stages of a run share.

    Attributes
    ----------
    card
        Overrides applied.
    process
        Built from the card.
    integrand
        The process with checks and counters, on `device`.
    device
        Where tensors live, "cpu" or "cuda".

    Examples
    --------
    >>> from nisampler.run.card import parse_card
    >>> job = build_job(parse_card('process = "camel4"'), "camel4", "cpu")
    >>> job.formats, job.average, job.domain.shape
    (('h5',), False, (4, 2))
    """

    card: Card
    process: lookup.RunProcess
    integrand: Integrand
    device: str

    @property
    def streams(self) -> Streams:
        """All random numbers of the run."""
        return Streams(self.card.seed)

    @property
    def training(self) -> TrainingConfig:
        """Of the card; the sampler is chosen for the card's events unless `training.events` says otherwise."""
        settings = self.card.training
        return replace(settings, events=self.card.events.n) if settings.events is None else settings

    def chain(self, threads: int) -> ChainConfig:
        """What the chain of this run is told."""
        card = self.card
        return ChainConfig(self.training, card.integration, card.unweighting, card.seed, threads)

    @property
    def formats(self) -> tuple[str, ...]:
        """Endings of the finished event files."""
        if self.card.events.formats is not None:
            return self.card.events.formats
        return ("lhe.gz",) if self.process.has_events else POINT_FORMATS

    @property
    def domain(self) -> NDArray[np.float64]:
        """The box (dim, 2) that points lie in."""
        return np.asarray(self.integrand.domain.cpu().numpy())

    @property
    def average(self) -> bool:
        """Whether the weights of the finished files average to the cross-section."""
        return self.process.has_events and self.card.events.weights != "unit"

    @cached_property
    def variations(self) -> lookup.Variations | None:
        """What makes the named weights that the card asks for, None if it asks for none.

        Raises
        ------
        CardError
            If a set or a member is missing.
        MissingExtraError
            If a set is not found and pythia8mc is not installed.
        """
        asked = self.card.events.variations
        if asked.scales is None and not asked.pdfs:
            return None
        try:
            return lookup.variations(self.process.header, asked.scales, asked.pdfs, asked.alpha_s)
        except (ConfigError, PdfError) as error:
            raise CardError(f"events.variations: {error}") from error

    def record_calls(self, n: int) -> int:
        """Evaluations of the matrix element that the records of n events cost, besides those that found the points."""
        return n * int(getattr(self.process, "record_calls", 1)) if self.process.has_events else 0

    def init_info(self, estimate: Estimate, signed: bool) -> InitInfo:
        """Beams and cross-section as an event file declares them; several groups have no shares of it yet.

        Raises
        ------
        ProcessError
            If the process has no beams.
        """
        beams = self.process.beams
        if beams is None:
            raise ProcessError(f"{self.process.name} writes events but names no beams")
        codes, total = sorted(self.process.event_groups) or [1], (estimate.value, estimate.error)
        one = len(codes) == 1
        processes = (
            [ProcessInfo(*total, process_id=codes[0])] if one else [ProcessInfo(0.0, 0.0, 1.0, k) for k in codes]
        )
        return InitInfo(
            beams.pdg_ids,
            beams.energies,
            tuple(processes),
            pdf_sets=getattr(beams, "pdf_sets", (0, 0)),
            strategy=-3 if signed else 3,
            total=None if one else total,
        )


def card_device(name: str) -> str:
    """The device that `auto`, `cpu`, `cuda` or `cuda:N` stands for on this machine.

    Raises
    ------
    CardError
        If it is not there.

    Examples
    --------
    >>> card_device("cpu")
    'cpu'
    """
    try:
        return str(resolve_device(name))
    except ConfigError as error:
        raise CardError(str(error)) from error


def build_job(card: Card, process_name: str, device: str) -> Job:
    """Build the process and check that the events it is asked for can be written.

    Parameters
    ----------
    card
        The card.
    process_name
        Full name of the process, see `lookup.absolute`.
    device
        A resolved device.

    Raises
    ------
    CardError
        If the process or its parameters are wrong, or the formats do not fit it. The message names the key.
    MissingExtraError
        If a format needs a package that is not installed.

    Examples
    --------
    >>> from nisampler.run.card import parse_card
    >>> build_job(parse_card('process = "camel4"'), "camel4", "cpu").process.dim
    4
    >>> build_job(parse_card('process = "camel4"\\nevents = {formats = ["lhe"]}'), "camel4", "cpu")
    Traceback (most recent call last):
    nisampler.errors.CardError: events.formats = ['lhe']: camel4 has no event record, ... written as h5
    """
    key = "parameters" if card.parameters else "process"
    try:
        process = lookup.create(process_name, card.parameters)
    except (ProcessError, ConfigError) as error:
        unknown = "process" if isinstance(error, UnknownProcessError) else key
        raise CardError(f"{unknown}: {error}") from error
    settings = card.integrand
    try:
        integrand = Integrand(
            process,
            process.dim,
            domain=settings.domain,
            kind=settings.kind,
            nonfinite=settings.nonfinite,
            device=device,
        )
    except ConfigError as error:
        raise CardError(f"[integrand]: {error}") from error
    job = Job(card, process, integrand, device)
    _check_events(job)
    return job


def _check_events(job: Job) -> None:
    card, process = job.card, job.process
    asked = card.events.variations
    if (asked.scales is not None or asked.pdfs) and "alpha_s_power" not in process.header:
        raise CardError(f"events.variations: {process.name} has no parton densities and scales that could be varied")
    if not process.has_events:
        if card.events.weights == "average":
            raise CardError(
                f"events.weights: {process.name} has no event record, and points after unweighting have unit weights"
            )
        wrong = [name for name in card.events.formats or () if name not in POINT_FORMATS]
        if wrong:
            raise CardError(
                f"events.formats = {wrong}: {process.name} has no event record, its points can only be written as h5"
            )
        return
    if card.integrand.domain is not None:
        raise CardError(f"integrand.domain: {process.name} has an event record and maps the unit cube itself")
    if process.unit != "pb" or process.beams is None:
        raise CardError(
            f"process: {process.name} has an event record, so it needs beams and the unit pb, not {process.unit!r}"
        )
    if card.events.matching is not None:
        if any(abs(code) != PROTON for code in process.beams.pdg_ids):
            raise CardError(f"events.matching: {process.name} is no collision of protons")
        if "lheh5" in job.formats:
            raise CardError("events.matching: lheh5 has no place for the scales of matching; lhe.gz has one, and h5")
    for start, extra, package in (("lheh5", "lhe", "pylhe"), ("hepmc", "hepmc", "pyhepmc")):
        needed = card.events.n and any(ending.startswith(start) for ending in job.formats)
        if needed and importlib.util.find_spec(package) is None:
            raise MissingExtraError(
                f'events.formats: {start} needs {package}: {install(extra)}, or use formats = ["h5"]'
            )
    for ending in job.formats if card.events.n else ():
        require_packing(ending)
