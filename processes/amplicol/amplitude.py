"""Matrix elements of Standard Model processes at tree level, generated and evaluated by pyamplicol."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nisampler.base.checks import Natural, checked
from nisampler.errors import AmplitudeError
from nisampler.processes.amplicol.cache import (
    ColourAccuracy,
    Progress,
    default_cache,
    ignore_progress,
    open_artifact,
    request_for,
)
from nisampler.processes.amplicol.colour import colour_flow
from nisampler.processes.amplicol.couplings import HeavyBoson, exact_boson, model_parameters
from nisampler.processes.amplicol.evaluators import Evaluator, LocalEvaluator, WorkerPool
from nisampler.processes.amplicol.worker import Array, Column
from nisampler.processes.amplitudes.flavours import GeneratedElement, flavour_table, move_tags
from nisampler.processes.amplitudes.protocol import SubProcess
from nisampler.processes.amplitudes.tree import colour_tags, joined_momenta
from nisampler.processes.constants import ALPHA_S, HIGGS, TAU, TOP, W_BOSON, Z_BOSON
from nisampler.processes.parameters import StandardModel
from nisampler.processes.particles import expression
from nisampler.processes.phase_space.rambo import RamboOnDiet

_PROBES = 4
_PROBE_TOLERANCE = 1e-6
_SMALLEST_SHARE = 1e-12  # a flow that vanishes at a point keeps this share of the sum, so that weights stay positive


@dataclass(frozen=True)
class _Flows:
    """Columns that evaluate the colour flows of an element, and their tags."""

    columns: list[Column]
    tags: list[list[tuple[int, int]]]


class AmplicolAmplitude:
    """The squared matrix elements of a process string such as ``p p > e+ ve j j``.

    Leading order in QCD with five massless quarks. ``p`` and ``j`` run over all of them and the gluon; flavour
    combinations that a symmetry relates share a matrix element. The first use generates what is missing from the
    cache: seconds for two jets, a minute or two for three. Evaluation is on the CPU in float64.

    Parameters
    ----------
    process
        Two incoming and two or more outgoing particles; the outgoing legs keep the order of the string.
    model
        Couplings, masses, widths and the CKM matrix; every coupling is reproduced exactly.
    workers
        Worker processes; 0 evaluates in this process, in the thread that evaluates first.
    cache
        Folder of generated matrix elements; `default_cache` where None.
    derived_mass
        Heavy boson whose mass follows from that of the other and sin^2(theta_W). Needed only by processes in which
        both a W and a Z appear, which pyamplicol's model cannot do with three free values.
    parameters
        Further external parameters of pyamplicol's model by name, such as ``MH``; ``WT`` is 0, a stable top quark.
    on_progress
        Receives a line of text now and then while generating.

    Raises
    ------
    AmplitudeError
        If the process cannot be generated at leading order in QCD, a name is unknown, or pyamplicol fails.
    MissingExtraError
        If pyamplicol is not installed.

    Examples
    --------
    >>> AmplicolAmplitude("p p > e+ j", workers=-1)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: workers = -1: must be a whole number, at least 0
    >>> AmplicolAmplitude("p p > x x")
    Traceback (most recent call last):
    ...
    nisampler.errors.AmplitudeError: unknown particle 'x' in the process 'p p > x x'; known: ...
    """

    def __init__(
        self,
        process: str,
        model: StandardModel | None = None,
        *,
        workers: int = 0,
        cache: str | Path | None = None,
        derived_mass: HeavyBoson | None = None,
        parameters: Mapping[str, float] | None = None,
        on_progress: Progress = ignore_progress,
    ) -> None:
        checked("workers", workers, Natural)
        self.process = process
        self.model = model or StandardModel()
        self.table = flavour_table(process, self.model)
        self.subprocesses: tuple[SubProcess, ...] = self.table.subprocesses
        self.elements = len(self.table.elements)
        self.alpha_s_power = self.table.legs.alpha_s_power
        self._workers = workers
        self._cache = Path(cache) if cache is not None else default_cache()
        self._on_progress = on_progress
        chosen = _kept_boson(process, exact_boson(self.table.legs), derived_mass)
        self.parameters = model_parameters(self.model, chosen) | dict(parameters or {})
        self._columns = [_column(element) for element in self.table.elements]
        self._evaluator = self._make_evaluator("full", workers)
        self._flow_evaluator: Evaluator | None = None
        self._flows: dict[GeneratedElement, _Flows] = {}

    def squared(self, incoming: Tensor, outgoing: Tensor, alpha_s: Tensor) -> Tensor:
        """Squared matrix elements (n, elements) in GeV^(4 - 2m), averaged, summed, with identical-particle factors.

        Parameters
        ----------
        incoming, outgoing
            Momenta (n, 2, 4) and (n, m, 4) in GeV.
        alpha_s
            Strong coupling (n,).

        Raises
        ------
        ShapeError
            If the shapes do not fit the process.
        AmplitudeError
            If the evaluation fails.
        """
        momenta = self._momenta(incoming, outgoing)
        values = self._evaluator.evaluate(momenta, self._columns)
        scaled = torch.from_numpy(values).to(incoming)
        return scaled * (alpha_s / ALPHA_S).pow(self.alpha_s_power).unsqueeze(-1)

    def colour_flows(self, element: int, incoming: Tensor, outgoing: Tensor, alpha_s: Tensor) -> tuple[Tensor, Tensor]:
        """Leading-colour weights (n, flows) and Les Houches tags (flows, 2 + m, 2) of one element.

        Two quark lines have, beside the leading flows, those that exchange no colour, suppressed by 1 / N_c^2. The
        first call generates the leading-colour matrix elements of the process, unless the cache has them.

        Raises
        ------
        AmplitudeError
            If there is no such element or the evaluation fails.
        """
        if not 0 <= element < self.elements:
            raise AmplitudeError(f"{self.process!r} has elements 0 to {self.elements - 1}, got {element}")
        evaluator = self.prepare_colour_flows()
        flows = self._element_flows(self.table.elements[element], evaluator)
        values = evaluator.evaluate(self._momenta(incoming, outgoing), flows.columns)
        weights = torch.from_numpy(values).to(incoming).clamp(min=0)
        floor = _SMALLEST_SHARE * weights.sum(1, keepdim=True)
        weights = torch.where(floor > 0, torch.maximum(weights, floor), torch.ones_like(weights))
        scaled = weights * (alpha_s / ALPHA_S).pow(self.alpha_s_power).unsqueeze(-1)
        return scaled, torch.tensor(flows.tags, dtype=torch.int64, device=incoming.device)

    def prepare_colour_flows(self) -> Evaluator:
        """Generate and load the leading-colour matrix elements, once."""
        if self._flow_evaluator is None:
            self._flow_evaluator = self._make_evaluator("lc", min(self._workers, 1))
        return self._flow_evaluator

    def close(self) -> None:
        """Stop worker processes and let go of loaded matrix elements; evaluation starts anew when asked."""
        self._evaluator.close()
        if self._flow_evaluator is not None:
            self._flow_evaluator.close()

    def _momenta(self, incoming: Tensor, outgoing: Tensor) -> Array:
        momenta = joined_momenta(self.process, incoming, outgoing, len(self.table.legs.final))
        return momenta.detach().to("cpu", torch.float64).contiguous().numpy()

    def _make_evaluator(self, colour: ColourAccuracy, workers: int) -> Evaluator:
        request = request_for(tuple(expression(codes) for codes in self.table.generated), colour)
        artifact = open_artifact(request, self._cache, self._check_scaling, self._on_progress)
        specification = {"artifact": str(artifact), "parameters": self.parameters}
        return WorkerPool(specification, workers) if workers else LocalEvaluator(specification)

    def _check_scaling(self, artifact: Path) -> None:
        """Raise AmplitudeError unless every fresh matrix element is non-zero and goes like alpha_s^n."""
        codes = self.table.generated
        columns = [_column(GeneratedElement(c, tuple(range(len(c))), conjugated=False)) for c in codes]
        momenta = self._probes(codes[0])
        values = []
        for factor in (1.0, 2.0):
            parameters = self.parameters | {"aS": factor * self.parameters["aS"]}
            pool = WorkerPool({"artifact": str(artifact), "parameters": parameters}, 1)
            values.append(pool.evaluate(momenta, columns))
            pool.close()
        for place, column in enumerate(columns):
            first, second = values[0][:, place], values[1][:, place]
            if not (first > 0).all():
                raise AmplitudeError(
                    f"{column['process']} has no tree matrix element at leading order in QCD; electroweak exchange "
                    "between quark lines (VBF, VBS) and loops cannot be generated"
                )
            power = np.log2(second / first)
            if np.abs(power - self.alpha_s_power).max() > _PROBE_TOLERANCE:
                raise AmplitudeError(
                    f"{column['process']} came out with alpha_s^{power.mean():.3g} instead of alpha_s^"
                    f"{self.alpha_s_power}: electroweak exchange between quark lines cannot be generated"
                )

    def _probes(self, codes: Sequence[int]) -> Array:
        masses = [self._mass(abs(code)) for code in codes[2:]]
        energy = 1000.0 + 2 * sum(masses)
        phase_space = RamboOnDiet(masses)
        generator = torch.Generator().manual_seed(1)
        u = torch.rand(_PROBES, phase_space.dim, generator=generator, dtype=torch.float64)
        outgoing, _ = phase_space.forward(u, energy)
        beams = u.new_tensor([[1.0, 0, 0, 1.0], [1.0, 0, 0, -1.0]]) * energy / 2
        return torch.cat([beams.expand(_PROBES, 2, 4), outgoing], 1).contiguous().numpy()

    def _mass(self, code: int) -> float:
        heavy_z = self.parameters["MZ"]
        cosine = math.sqrt(1 - self.model.sin2_theta_w)
        masses = {TOP: self.parameters["MT"], Z_BOSON: heavy_z, W_BOSON: heavy_z * cosine}
        masses |= {HIGGS: self.parameters.get("MH", 125.0), TAU: self.parameters.get("MTA", 1.777)}
        return masses.get(code, 0.0)

    def _element_flows(self, element: GeneratedElement, evaluator: Evaluator) -> _Flows:
        if element not in self._flows:
            columns, tags, codes = [], [], element.process
            for name, word in evaluator.words(expression(codes)):
                columns.append(_column(element) | {"flow": name})
                generated = colour_tags(colour_flow(codes, word), len(codes))
                tags.append(move_tags(generated, element.permutation, element.conjugated))
            self._flows[element] = _Flows(columns, tags)
        return self._flows[element]


def _column(element: GeneratedElement) -> Column:
    return {
        "process": expression(element.process),
        "permutation": list(element.permutation),
        "reflected": element.conjugated,
        "flow": None,
    }


def _kept_boson(process: str, exact: HeavyBoson | None, derived: HeavyBoson | None) -> HeavyBoson:
    """The heavy boson whose mass is kept: the one that matters, or the one that the user does not derive."""
    checked("derived_mass", derived, HeavyBoson | None)
    if exact is not None:
        return exact
    if derived is None:
        raise AmplitudeError(
            f"both the W and the Z mass enter {process!r}, but pyamplicol's model takes only one of them beside alpha "
            "and sin^2(theta_W): set derived_mass to 'W' or 'Z' to name the one that follows from the other"
        )
    return "Z" if derived == "W" else "W"
