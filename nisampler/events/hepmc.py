"""Events in HepMC3's text format, for programs that read no LHE, such as Rivet: written, and read by pyhepmc.

Beams are written as particles of status 4 with the parton that each gives, of status 21, behind them; what remains of a
hadron is left to a shower. The nominal weight is "Default", others have their names; scales, couplings, colours and
parton densities stand where Pythia writes them, the texts of the header in the attributes of the run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nisampler._version import __version__
from nisampler.base.extras import install
from nisampler.base.storage import atomic_write
from nisampler.errors import EventCountError, EventFormatError, MissingExtraError
from nisampler.events.batch import EventBatch
from nisampler.events.columns import FINAL, INCOMING, RESONANCE
from nisampler.events.compression import packed
from nisampler.events.info import InitInfo
from nisampler.events.pdg import PROTON
from nisampler.events.rules import CheckedBatches

SUFFIXES = (".hepmc", ".hepmc.gz")
NOMINAL = "Default"
_BEAM, _PARTON = 4, 21
_STATUS = {INCOMING: _PARTON, RESONANCE: 2, FINAL: 1}
_MASSES = {PROTON: 0.93827}


def write_hepmc(
    path: str | Path,
    batches: EventBatch | Iterable[EventBatch],
    info: InitInfo,
    n_events: int | None = None,
    compression_level: int | None = None,
) -> int:
    """Write events to ``.hepmc`` or ``.hepmc.gz``; the file appears complete or not at all.

    Parameters
    ----------
    path
        The ending decides about compression.
    batches, info, n_events, compression_level
        As `write_lhe` takes them.

    Returns
    -------
    int
        The number of events written.

    Raises
    ------
    EventFormatError
        If an event breaks a rule of the record, or the name has another ending.
    EventCountError
        If the number of events is not the declared one.
    ConfigError
        If the compression has no such level.
    MissingExtraError
        If pyhepmc is not installed.

    Examples
    --------
    >>> from nisampler.events.info import ProcessInfo
    >>> write_hepmc("events.txt", EventBatch.empty(4), InitInfo((11, -11), (5.0, 5.0), (ProcessInfo(1.0, 0.1),)))
    Traceback (most recent call last):
    ...
    nisampler.errors.EventFormatError: events.txt: the name of a HepMC file must end in .hepmc or .hepmc.gz
    """
    target = Path(path)
    if not target.name.endswith(SUFFIXES):
        raise EventFormatError(f"{target}: the name of a HepMC file must end in .hepmc or .hepmc.gz")
    try:
        import pyhepmc
        from pyhepmc.io import WriterAscii, pyiostream
    except ImportError as error:
        raise MissingExtraError(f"HepMC files need pyhepmc: {install('hepmc')}") from error
    if isinstance(batches, EventBatch) and n_events is None:
        n_events = len(batches)
    source = CheckedBatches(batches, info, target)
    run = _run_info(pyhepmc, info)
    with atomic_write(target) as handle:
        with (
            packed(handle, target.name, compression_level) as stream,
            pyiostream(stream) as text,
            WriterAscii(text, run) as writer,
        ):
            for batch in source:
                for index in range(len(batch)):
                    writer.write(_event(pyhepmc, run, batch, index, source.count - len(batch) + index, info))
        if n_events is not None and source.count != n_events:
            raise EventCountError(f"{target}: {n_events} events were declared, {source.count} were made")
    return source.count


def _run_info(module: Any, info: InitInfo) -> Any:
    run = module.GenRunInfo()
    run.tools = [module.GenRunInfo.ToolInfo(info.generator, info.version or __version__, "")]
    run.weight_names = [NOMINAL, *info.weight_ids]
    for name, text in info.header:
        run.attributes[name] = text
    return run


def _event(module: Any, run: Any, batch: EventBatch, index: int, number: int, info: InitInfo) -> Any:
    """One event of pyhepmc."""
    event = module.GenEvent(run, module.Units.GEV, module.Units.MM)
    event.event_number = number
    particles = [_particle(module, batch, index, slot) for slot in range(int((batch.status[index] != 0).sum()))]
    # A particle comes into the event with the vertex that it leaves: readers need mothers before their daughters.
    beams = [_beam(module, event, particles[side], info, side) for side in (0, 1)]
    vertices: dict[tuple[int, int], Any] = {}
    for slot, (first, last) in enumerate(batch.mothers[index, : len(particles)].tolist()):
        if not first:
            continue
        mothers = (first, last or first)
        if mothers not in vertices:
            vertices[mothers] = module.GenVertex()
            event.add_vertex(vertices[mothers])
            for mother in range(min(mothers), max(mothers) + 1):
                vertices[mothers].add_particle_in(particles[mother - 1])
        vertices[mothers].add_particle_out(particles[slot])
    event.set_beam_particles(*beams)
    event.weights = [float(batch.weights[index]), *batch.named_weights[index].tolist()]
    for slot, particle in enumerate(particles):
        for name, tag in zip(("flow1", "flow2"), batch.colours[index, slot].tolist(), strict=True):
            if tag:
                particle.attributes[name] = tag
        if batch.pt_clust[index, slot] > 0:
            particle.attributes["pt_clust"] = float(batch.pt_clust[index, slot])
    _describe(module, event, batch, index, info)
    return event


def _particle(module: Any, batch: EventBatch, index: int, slot: int) -> Any:
    energy, *momentum = batch.momenta[index, slot].tolist()
    status = int(batch.status[index, slot])
    code = int(batch.pdg_ids[index, slot])
    particle = module.GenParticle(module.FourVector(*momentum, energy), code, _STATUS.get(status, status))
    particle.generated_mass = float(batch.masses[index, slot])
    return particle


def _beam(module: Any, event: Any, parton: Any, info: InitInfo, side: int) -> Any:
    """The beam that an incoming particle comes from: itself, or a hadron in front of it."""
    code, energy = info.beam_ids[side], info.beam_energies[side]
    if parton.pid == code and math.isclose(parton.momentum.e, energy, rel_tol=1e-9):
        parton.status = _BEAM
        event.add_particle(parton)
        return parton
    mass = _MASSES.get(abs(code), 0.0)
    along = math.sqrt(max(energy**2 - mass**2, 0.0)) * (1 - 2 * side)
    hadron = module.GenParticle(module.FourVector(0.0, 0.0, along, energy), code, _BEAM)
    hadron.generated_mass = mass
    vertex = module.GenVertex()
    event.add_particle(hadron)
    event.add_vertex(vertex)
    vertex.add_particle_in(hadron)
    vertex.add_particle_out(parton)
    return hadron


def _describe(module: Any, event: Any, batch: EventBatch, index: int, info: InitInfo) -> None:
    """Scales, couplings, parton densities and the cross-section of an event."""
    event.attributes["signal_process_id"] = int(batch.process_ids[index])
    for name, column in {"event_scale": batch.scales, "alphaQCD": batch.alpha_s, "alphaQED": batch.alpha_em}.items():
        event.attributes[name] = float(column[index])
    if batch.mu_r[index] > 0:
        event.attributes["mu_R"] = float(batch.mu_r[index])
    if batch.pdf_x[index].any():
        codes, x, xf = (column[index, :2].tolist() for column in (batch.pdg_ids, batch.pdf_x, batch.pdf_xf))
        event.pdf_info = module.GenPdfInfo(*codes, *x, float(batch.scales[index]), *xf, *info.pdf_sets)
    section = module.GenCrossSection()
    event.cross_section = section
    section.set_cross_section(info.cross_section, info.error)
