"""Cross-sections of collisions: densities of the beams, scales, cuts, channels and a matrix element, put together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nisampler.base import tuning
from nisampler.density.channels import ChannelWeights, Multichannel
from nisampler.density.factors import Factors
from nisampler.density.maps import Channel
from nisampler.errors import AmplitudeError, DomainError, ShapeError
from nisampler.events.batch import EventBatch
from nisampler.events.observables import Observable
from nisampler.flows import Symmetry
from nisampler.processes.amplitudes.protocol import Amplitude
from nisampler.processes.base import BeamInfo, Process
from nisampler.processes.constants import GEV2_PB, PROTON
from nisampler.processes.discrete.elements import Chosen, ElementChoice, Elements, Point, sampled_amplitude
from nisampler.processes.discrete.factors import GroupShares, factors_of_choice, factors_of_sum
from nisampler.processes.discrete.learning import Sums
from nisampler.processes.discrete.points import choice_of, momenta_of, on_momenta, with_choice
from nisampler.processes.hadron.cuts import Cuts
from nisampler.processes.hadron.events import FinalState, PartonPoints, event_batch
from nisampler.processes.hadron.groups import group_codes
from nisampler.processes.hadron.scales import Scales
from nisampler.processes.hadron.symmetries import symmetries_of_channels
from nisampler.processes.partons.luminosity import Luminosity, Pdf
from nisampler.processes.partons.point_beams import PointBeams
from nisampler.processes.partons.variations import Nominal
from nisampler.processes.phase_space.densities import joint_densities
from nisampler.processes.phase_space.kinematics import dot, mass2
from nisampler.processes.tally import Tally

POINTS, CLAMPED, FROZEN_ALPHA_S = "points", "scales below 1 GeV", "alpha_s outside its table"
# Typical sizes that bring the features of a point to order one: pT and masses in GeV, the smallest resolved pT².
_TYPICAL_PT, _FLOOR = 50.0, 1e-6


@dataclass(frozen=True)
class HadronSetup:
    """All parts of a hadron process.

    Attributes
    ----------
    name
        Name of the process.
    final_state
        Its legs.
    amplitude
        Its squared matrix elements and sub-processes.
    pdf
        Parton densities of both protons, or `PointBeams`.
    scales
        Renormalisation and factorisation scale.
    cuts
        They know the energy of the collision.
    channels
        Maps of the cube to momenta of the legs with the density of dx1 dx2 dPhi, of dPhi where beams are point-like.
    groups, prior
        Channels that share a flow, and prior weights of the channels: see `Multichannel`.
    alpha_s
        Strong coupling (n,) at Q² (n,); by default that of the parton densities.
    alpha_em
        Written to the events.
    observables
        For the report.
    elements
        Whether all matrix elements are "summed" at a point, or one is "sampled" with a learned probability, which
        needs a `SampledAmplitude`; "auto" samples where counts of operations say that it pays.
    nominal
        What weights of other scales and densities need to know; without it there are none.

    Examples
    --------
    `HadronProcess` puts one together.

    >>> from dataclasses import fields
    >>> [item.name for item in fields(HadronSetup)][:4]
    ['name', 'final_state', 'amplitude', 'pdf']
    """

    name: str
    final_state: FinalState
    amplitude: Amplitude
    pdf: Pdf
    scales: Scales
    cuts: Cuts
    channels: Sequence[Channel]
    groups: Sequence[int] | None = None
    prior: Callable[[Tensor], Tensor] | None = None
    alpha_s: Callable[[Tensor], Tensor] | None = None
    alpha_em: float = 0.0
    observables: tuple[Observable, ...] = ()
    elements: Elements = "auto"
    nominal: Nominal | None = None


class HadronProcess(Process):
    """sigma = Σ ∫ dx1 dx2 dPhi f_a(x1, mu_F) f_b(x2, mu_F) |M|² / (2 ŝ), in pb, over both orders of the beams.

    Points are momenta of the final legs in the laboratory frame; x1 = Σ(E + pz)/√s, x2 = Σ(E − pz)/√s. Outside the
    cuts, and where x1 or x2 exceeds one, the cross-section is zero: neither densities nor matrix element are evaluated.
    Of point-like beams, leptons or photons, x1 = x2 = 1 and sigma = ∫ dPhi |M|² / (2 s). Where elements are sampled,
    the last coordinate of the cube chooses one by its probability, and the value is its part of the sum over that.

    Parameters
    ----------
    setup
        Densities, scales, cuts, channels and matrix element.
    parameters
        What the process was built from, for the report.

    Raises
    ------
    ChannelError
        If the channels do not fit together.
    AmplitudeError
        If the amplitude's sub-processes contradict its elements.

    Examples
    --------
    >>> from nisampler.processes.amplitudes.currents import NeutralCurrent
    >>> from nisampler.processes.amplitudes.drell_yan import DrellYan
    >>> from nisampler.processes.hadron.cuts import MassCut
    >>> from nisampler.processes.partons.toy import ToyDensity
    >>> from nisampler.processes.phase_space import Boson, ChiliChannel, PowerLaw
    >>> setup = HadronSetup(
    ...     name="toy",
    ...     final_state=FinalState(masses=(0.0, 0.0)),
    ...     amplitude=DrellYan(NeutralCurrent()),
    ...     pdf=ToyDensity(),
    ...     scales=Scales("fixed", 91.2),
    ...     cuts=Cuts([MassCut((0, 1), 50.0)], sqrt_s=13000.0),
    ...     channels=[ChiliChannel(Boson(PowerLaw(2.0), 50.0))],
    ... )
    >>> process = HadronProcess(setup)
    >>> u = torch.rand(100, process.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    >>> bool((process(u) > 0).all()), len(process.events(u, torch.ones(100), torch.Generator()))
    (True, 100)
    """

    unit = "pb"
    has_events = True

    def __init__(self, setup: HadronSetup, parameters: Any = None) -> None:
        self.setup, self.parameters = setup, parameters
        self.name, self.observables = setup.name, setup.observables
        self.sqrt_s = setup.cuts.sqrt_s
        self._point_like = isinstance(setup.pdf, PointBeams)
        codes = setup.pdf.codes if isinstance(setup.pdf, PointBeams) else (PROTON, PROTON)
        sets = (setup.pdf.lhapdf_id, setup.pdf.lhapdf_id)
        self.beams = BeamInfo(codes, (0.5 * self.sqrt_s, 0.5 * self.sqrt_s), sets)
        self.luminosity = Luminosity(setup.amplitude.subprocesses, setup.amplitude.elements, setup.pdf.column)
        self.event_groups = group_codes(setup.amplitude.subprocesses)[0]
        self._alpha_s = setup.alpha_s or setup.pdf.alpha_s
        known: tuple[float, float] | None = getattr(setup.alpha_s or setup.pdf, "q2_range", None)
        self._alpha_s_range = known or (0.0, math.inf)
        self._symmetry: tuple[Symmetry, ...] | None = None
        self.tally = Tally(POINTS, CLAMPED, FROZEN_ALPHA_S)
        sampled = sampled_amplitude(setup.name, setup.amplitude, setup.elements)
        self._summed = Multichannel(
            self.differential,
            setup.channels,
            features=self.features,
            groups=setup.groups,
            prior=setup.prior,
            densities=joint_densities(setup.channels),
            support=self.passes,
            factors=self.factors,
        )
        self._shares = GroupShares(setup.amplitude.subprocesses, setup.amplitude.elements)
        self.choice: ElementChoice | None = None
        self.multichannel = self._summed
        if sampled is not None:
            self.choice = ElementChoice(setup.name, sampled, self._survey)
            self.multichannel = Multichannel(
                self.differential_of_choice,
                [with_choice(channel) for channel in self._summed.channels],
                features=on_momenta(self.features),
                groups=setup.groups,
                prior=None if setup.prior is None else on_momenta(setup.prior),
                densities=on_momenta(self._summed.log_densities),
                support=on_momenta(self.passes),
                shown=momenta_of,
                factors=self.factors_of_choice,
            )
        operations: Sequence[float] = getattr(setup.amplitude, "operations", ())
        evaluated = sum(operations) / (1 if self.choice is None else len(operations))
        self.seconds_assumed = tuning.ASSUMED_CALL + tuning.OPERATION * evaluated
        self.multichannel.name, self.multichannel.unit = self.name, self.unit
        self.dim = self.multichannel.dim

    def __call__(self, u: Tensor) -> Tensor:
        """d sigma / d u in pb (n,) at the cube points u (n, dim), channel weights included; differentiable in u."""
        value: Tensor = self.multichannel(u)
        return value

    def with_weights(self, weights: ChannelWeights | None) -> Multichannel:
        """The same cross-section split over the channels by other weights."""
        return self.multichannel.with_weights(weights)

    def learned(self) -> dict[str, Tensor]:
        """What the probabilities of its matrix elements were learned to be; nothing where they are summed."""
        return {} if self.choice is None else self.choice.state()

    def restore(self, learned: Mapping[str, Tensor]) -> None:
        """Take over what `learned` returned; CorruptFileError if it does not fit."""
        if learned:
            self._require_choice().restore(learned)

    def momenta(self, u: Tensor) -> Tensor:
        """Momenta (n, m, 4) in GeV of the legs at the cube points u (n, dim); raises ShapeError on another shape."""
        return self.multichannel.shown(u.double())

    def quantities(self, u: Tensor) -> dict[str, Tensor]:
        """What the momenta at cube points u (n, dim) look like, and how near they are to the edges of the cuts.

        Jets come by their transverse momenta. An edge is given by pT and Delta R over their least values, NaN without.
        """
        p = self.momenta(u)
        fractions = dict(zip(("x1", "x2"), self.fractions(p).unbind(1), strict=True))
        return self.setup.final_state.quantities(p) | fractions | self.setup.cuts.edges(p)

    def symmetry(self) -> tuple[Symmetry, ...]:
        """Symmetries of the cubes of each group of channels, seen at probes; see `symmetries_of_channels`."""
        if self._symmetry is None:
            beams, masses = self.beams.pdg_ids if self.beams else (), self.setup.final_state.masses
            self._symmetry = symmetries_of_channels(
                self.setup.channels, self.multichannel.groups, self.passes, self._probed, masses, len(set(beams)) == 1
            )
        return self._symmetry

    def _probed(self, p: Tensor) -> Tensor:
        """The sum over all matrix elements (n,) at momenta p (n, m, 4) inside the cuts; nothing is counted."""
        with self._uncounted():
            return self._sum_at(p)

    def differential(self, p: Tensor) -> Tensor:
        """d sigma / (dx1 dx2 dPhi) in pb (n,) at momenta p (n, m, 4): zero outside the cuts, NaN for p not finite."""
        return self._inside(p, lambda inside: self._sum_at(p.index_select(0, inside)))

    def differential_of_choice(self, x: Tensor) -> Tensor:
        """The part of the chosen matrix element over its probability, in pb (n,), at points x (n, m + 1, 4).

        Their last row begins with the number of [0, 1] that chooses, see `nisampler.processes.discrete.points`.
        """

        def value(inside: Tensor) -> Tensor:
            found, chosen = self._chosen_at(momenta_of(x).index_select(0, inside), choice_of(x)[inside])
            return self._in_pb(chosen.luminosity * chosen.squared / chosen.probability, found.x)

        return self._inside(momenta_of(x), value)

    def _inside(self, p: Tensor, value: Callable[[Tensor], Tensor]) -> Tensor:
        """Values (n,) at momenta p (n, m, 4): those of the rows inside the cuts, zero elsewhere, NaN if not finite."""
        # Comparisons are false for NaN: without this, a channel that fails would look like a cut.
        outside = torch.where(torch.isfinite(p).flatten(1).all(1), 0.0, math.nan).to(p)
        inside = torch.nonzero(self.passes(p)).squeeze(1)
        return outside.index_copy(0, inside, value(inside)) if len(inside) else outside

    def _sum_at(self, p: Tensor) -> Tensor:
        found = self.evaluate(p)
        return self._in_pb((self.luminosity.by_element(found.densities) * found.squared).sum(1), found.x)

    def _in_pb(self, summed: Tensor, x: Tensor) -> Tensor:
        return GEV2_PB * summed / (2 * self.sqrt_s**2 * x.prod(1).square())

    def _chosen_at(self, p: Tensor, u: Tensor) -> tuple[PartonPoints, Chosen]:
        """One matrix element at each of the momenta p (n, m, 4) inside the cuts, chosen by numbers u (n,)."""
        choice, found = self._require_choice(), self._parts(p)
        self._count(found.mu_r, found.mu_f)
        luminosities = self.luminosity.by_element(found.densities)
        return found, choice.evaluate(self.features(p), luminosities, u, (found.incoming, p, found.alpha_s))

    def _require_choice(self) -> ElementChoice:
        if self.choice is None:
            raise AmplitudeError(f"{self.name} sums its matrix elements: there is none to choose")
        return self.choice

    def _survey(self, n: int) -> Sums:
        """All choices at those of n fixed points of all channels that lie inside the cuts; nothing is counted."""
        summed, choice = self._summed, self._require_choice()
        u = torch.rand(n, summed.dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        if len(summed.channels) > 1:
            u[:, 0] = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        with self._uncounted(), torch.no_grad():
            channel, p, log_g = summed.points(u)
            inside = torch.nonzero(self.passes(p)).squeeze(1)
            channel, p, log_g = channel[inside], p[inside], log_g[inside]
            found = self._parts(p)
            luminosities = self.luminosity.by_element(found.densities)
            sizes, values = choice.all(luminosities, (found.incoming, p, found.alpha_s))
            own = summed.log_weights(p, channel, log_g).gather(1, channel.unsqueeze(1)).squeeze(1)
        weights = self._in_pb(values.sum(1), found.x) * torch.exp(own - log_g)
        return Sums(self.features(p), sizes, values, weights)

    @property
    def header(self) -> dict[str, str]:
        """What a file of its events tells: cuts, and what the densities, the coupling and its power are."""
        cuts = {"cuts": "\n".join(map(str, self.setup.cuts.cuts)) or "none"}
        return cuts | (self.setup.nominal.header() if self.setup.nominal else {})

    def passes(self, p: Tensor) -> Tensor:
        """Mask (n,) of the momenta p (n, m, 4) with x1, x2 in (0, 1) that pass the cuts."""
        if self._point_like:
            return self.setup.cuts.mask(p)
        x = self.fractions(p)
        return ((x > 0) & (x < 1)).all(1) & self.setup.cuts.mask(p)

    def fractions(self, p: Tensor) -> Tensor:
        """Momentum fractions x1, x2 (n, 2) of the incoming partons for the momenta p (n, m, 4)."""
        if self._point_like:
            return torch.ones_like(p[:, 0, :2])
        total = p.sum(1)
        return torch.stack([total[:, 0] + total[:, 3], total[:, 0] - total[:, 3]], 1) / self.sqrt_s

    def evaluate(self, p: Tensor) -> PartonPoints:
        """All parts of the cross-section at momenta p (n, m, 4) that pass the cuts, with every matrix element."""
        found, amplitude = self._parts(p), self.setup.amplitude
        self._count(found.mu_r, found.mu_f)
        squared = amplitude.squared(found.incoming, p, found.alpha_s)
        if squared.shape != (len(p), amplitude.elements):
            shape = (len(p), amplitude.elements)
            raise AmplitudeError(f"{self.name}: squared must return shape {shape}, got {tuple(squared.shape)}")
        return replace(found, squared=squared)

    def _parts(self, p: Tensor) -> PartonPoints:
        """All but the matrix elements, of which there are none."""
        setup, x = self.setup, self.fractions(p)
        incoming = self._incoming(x)
        mu_r, mu_f = setup.scales(p)
        constant = setup.scales.constant
        q2 = mu_f.square().unsqueeze(1) if constant is None else constant[1] ** 2
        densities = setup.pdf.xf(x, q2)
        alpha_s = self._alpha_s(mu_r.square())
        return PartonPoints(p, incoming, x, mu_r, mu_f, alpha_s, densities, p.new_empty(len(p), 0))

    def factors(self, p: Tensor) -> Factors:
        """All but the matrix elements at momenta p (n, m, 4) inside the cuts; nothing is counted."""
        log_common, luminosities, _ = self._without_elements(p)
        return factors_of_sum(log_common, luminosities, self.features(p), self._shares)

    def factors_of_choice(self, x: Tensor) -> Factors:
        """The same of the matrix element that points x (n, m + 1, 4) choose, see `differential_of_choice`."""
        p, choice = momenta_of(x), self._require_choice()
        features = self.features(p)
        log_common, luminosities, point = self._without_elements(p)
        drawn = choice.draw(features, luminosities, choice_of(x))
        return factors_of_choice(log_common, drawn, features, choice.amplitude, point)

    def _without_elements(self, p: Tensor) -> tuple[Tensor, Tensor, Point]:
        """Log of what all elements have in common (n,), luminosities (n, elements), and the point of the amplitude."""
        with self._uncounted():
            found = self._parts(p)
        power = self.setup.nominal.alpha_s_power if self.setup.nominal else 0
        common = self._in_pb(found.alpha_s**power, found.x)
        return torch.log(common), self.luminosity.by_element(found.densities), (found.incoming, p, found.alpha_s)

    def _uncounted(self) -> AbstractContextManager[object]:
        """Until the block ends nothing is counted."""
        stack = ExitStack()
        for tally in filter(None, (self.tally, getattr(self.setup.pdf, "tally", None))):
            stack.enter_context(tally.paused())
        return stack

    def limits(self) -> dict[str, int]:
        """Points evaluated so far, and how often a scale, the coupling or a density was at the end of its range.

        Counted are scales raised to 1 GeV, couplings outside their table, and what `PartonDensity` counts.
        """
        densities: Tally | None = getattr(self.setup.pdf, "tally", None)
        return self.tally.counts() | ({} if densities is None else densities.counts())

    def _count(self, mu_r: Tensor, mu_f: Tensor) -> None:
        low, high = (math.sqrt(edge) for edge in self._alpha_s_range)
        self.tally.add(POINTS, len(mu_r))
        self.tally.add(CLAMPED, self.setup.scales.clamped(mu_r, mu_f))
        self.tally.add(FROZEN_ALPHA_S, (mu_r < low) | (mu_r > high))

    def _incoming(self, x: Tensor) -> Tensor:
        energy = 0.5 * self.sqrt_s * x
        zero = torch.zeros_like(x)
        along = torch.stack([energy[:, 0], -energy[:, 1]], 1)
        return torch.stack([energy, zero, zero, along], -1)

    def features(self, p: Tensor) -> Tensor:
        """What channel weights look at, (n, F), finite everywhere: logs of pT, masses and x, rapidities, azimuths."""
        legs = p.shape[1]
        transverse2 = (p[..., 1].square() + p[..., 2].square()).clamp(min=_FLOOR)
        rapidity = torch.asinh(p[..., 3] / transverse2.sqrt()).clamp(-12.0, 12.0)
        first, second = zip(*itertools.combinations(range(legs), 2), strict=True)
        a, b = p[:, list(first)], p[:, list(second)]
        length = (transverse2[:, list(first)] * transverse2[:, list(second)]).sqrt()
        cosine = (a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]) / length
        decays = [item.legs for item in self.setup.final_state.decays if len(item.legs) > 1]
        heavy = [mass2(p[:, list(group)].sum(1)) for group in decays]
        invariants = torch.cat([2 * dot(a, b), *(value.unsqueeze(1) for value in heavy)], 1)
        return torch.cat(
            [
                0.5 * torch.log(transverse2 / _TYPICAL_PT**2),
                0.5 * rapidity,
                cosine,
                0.5 * torch.log(invariants.clamp(min=_FLOOR) / _TYPICAL_PT**2),
                torch.log(self.fractions(p).clamp(min=1e-8, max=10.0)) / 3 + 1,
            ],
            1,
        )

    def prepare_events(self) -> None:
        """Generate the leading-colour matrix elements that colour flows are drawn by, where they are generated."""
        prepare: Callable[[], None] | None = getattr(self.setup.amplitude, "prepare_colour_flows", None)
        if prepare is not None:
            prepare()

    def events(self, u: Tensor, weights: Tensor, generator: torch.Generator) -> EventBatch:
        """Events at the cube points u (n, dim) with weights (n,).

        The sub-process of each event is drawn with its exact share of the cross-section at that point, or among those
        of the matrix element that the point chose; its colour flow by the leading-colour weights. Decayed particles are
        written with status 2 where their mass is near a pole.

        Raises
        ------
        ShapeError
            If u or weights have the wrong shape.
        DomainError
            If a point lies outside the cuts, where the cross-section is zero.
        """
        if weights.shape != u.shape[:1]:
            raise ShapeError(f"expected weights of shape ({u.shape[0]},), got {tuple(weights.shape)}")
        x = self.multichannel.points(u.double())[1]
        p = x if self.choice is None else momenta_of(x)
        outside = int((~self.passes(p)).sum())
        if outside:
            raise DomainError(f"{outside} of {len(u)} points lie outside the cuts and cannot become events")
        if self.choice is None:
            points = self.evaluate(p)
        else:
            points, chosen = self._chosen_at(p, choice_of(x))
            points = replace(points, squared=chosen.table(self.setup.amplitude.elements))
        shares = self.luminosity.by_subprocess(points.densities, points.squared)
        return event_batch(self.setup, points, shares, weights, generator)
