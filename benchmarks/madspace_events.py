"""Drell-Yan by the event generator of MadSpace, which takes matrix elements as shared libraries (UMAMI)."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("umami_drell_yan.c")
SQRT_S, LEAST_MASS, SCALE, Z = 13000.0, 50.0, 91.1876, (91.1876, 2.495514921)
_QUARKS, _LEPTONS = (2, 4, 1, 3, 5), [11, -11]
_INCREMENTS, _LONGEST = 64, 15.0


def compiled(folder: Path) -> Path | None:
    """The matrix element as a shared library in that folder, None without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    target = folder / "drell_yan.so"
    options = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC"]
    subprocess.run([compiler, *options, str(SOURCE), "-o", str(target), "-lm"], check=True)  # noqa: S603
    return target


class DrellYan:
    """p p -> e- e+ with five flavours at a fixed scale and a lower cut on the mass, one channel at the Z, VEGAS.

    Parameters
    ----------
    ms
        The package.
    element
        The shared library.
    grid
        A grid file of parton densities.
    folder
        Takes the files of the generator.
    """

    def __init__(self, ms: Any, element: Path, grid: Path, folder: Path) -> None:
        self._ms, self._folder, self._made = ms, folder, 0
        self._context = ms.Context(ms.cpu_device(), 1)
        self._api = self._context.load_matrix_element(str(element), "")
        self._grid = ms.PdfGrid(str(grid))
        self._grid.initialize_globals(self._context)
        table = folder / "coupling.info"  # it asks for one, though nothing here depends on it
        table.write_text("AlphaS_Qs: [1.0, 10.0, 100.0, 1000.0, 10000.0]\nAlphaS_Vals: [0.3, 0.2, 0.12, 0.1, 0.08]\n")
        coupling = ms.AlphaSGrid(str(table))
        coupling.initialize_globals(self._context)
        self._coupling = ms.RunningCoupling(coupling)
        self._flavours = [[quark, -quark, *_LEPTONS] for quark in _QUARKS]
        line = ms.LineRef
        vertices = [[line("i0"), line("i1"), line("p0")], [line("p0"), line("o0"), line("o1")]]
        self._topology = ms.Topology(ms.Diagram([0.0] * 2, [0.0] * 2, [ms.Propagator(*Z)], vertices))

    def generator(self, events: int) -> Any:
        """A generator that has learned nothing yet."""
        ms = self._ms
        pair = ms.Observable(
            [2, -2, *_LEPTONS], ms.Observable.obs_mass, [[code] for code in _LEPTONS], sum_momenta=True
        )
        cuts = ms.Cuts([ms.CutItem(pair, LEAST_MASS)])
        mapping = ms.PhaseSpaceMapping(self._topology, SQRT_S, cuts=cuts, permutations=[[0, 1, 2, 3]])
        element = ms.MatrixElement(
            self._api, ms.Integrand.matrix_element_inputs, ms.Integrand.matrix_element_outputs, True
        )
        cross_section = ms.DifferentialCrossSection(
            element, SQRT_S, None, ms.CachedScale(), [], ms.CachedPdf(), ms.CachedPdf(), True
        )
        self._made += 1  # what is adapted has a name of its own in the context
        grid = ms.VegasMapping(mapping.random_dim(), _INCREMENTS, f"grid {self._made}")
        flavour = ms.DiscreteSampler([len(_QUARKS)], f"flavour {self._made}", [0])
        for adapted in (grid, flavour):
            adapted.initialize_globals(self._context)
        count = len(self._flavours)
        integrand = ms.Integrand(
            mapping,
            [cross_section],
            grid,
            None,
            flavour,
            self._flavours,
            self._grid,
            self._coupling,
            ms.EnergyScale(4, SCALE),
            channel_indices=[0],
            active_flavors=[list(range(count))],
            flavor_remap=[0 if quark % 2 == 0 else 1 for quark in _QUARKS],
            flavor_factors=[1.0] * count,
            flavor_mirror=[True] * count,
        )
        config = ms.GeneratorConfig()
        config.target_count, config.combine_thread_count = events, 1
        files = str(self._folder / "events.npy"), str(self._folder / "weights.npy")
        channel = ms.ChannelEventGenerator([self._context], integrand, *files, config, 0, "Z", None)
        return ms.EventGenerator([self._context], [channel], 1, None, config)

    def points(self, events: int) -> Any:
        """Adapt, and make so many events of unit weight."""
        generator = self.generator(events)
        generator.survey()
        generator.generate()
        return generator

    def to_file(self, events: int) -> Callable[[], None]:
        """What does the same and writes them to an LHE file."""
        ms, colours = self._ms, {quark: 3 for quark in _QUARKS}
        colours |= {-quark: -3 for quark in _QUARKS} | dict.fromkeys((*_LEPTONS, 23), 1)
        process = ms.SubprocArgs(
            process_id=1,
            topologies=[self._topology],
            permutations=[[[0, 1, 2, 3]]],
            diagram_indices=[[0]],
            diagram_color_indices=[[[0]]],
            color_flows=[[(1, 0), (0, 1), (0, 0), (0, 0)]],
            pdg_color_types=colours,
            helicities=[[9.0] * 4],
            pdg_ids=[[codes] for codes in self._flavours],
            diagram_propagator_pdgs=[[[23]]],
        )
        completer = ms.LHECompleter([process], _LONGEST)
        beams = (2212, 2212, SQRT_S / 2, SQRT_S / 2, 0, 0, 0, 0, 3)
        meta = ms.LHEMeta(*beams, [ms.LHEProcess(1600.0, 1.0, 1600.0, 1)])
        return lambda: self.points(events).combine_to_lhe(str(self._folder / "events.lhe"), completer, meta)
