r"""Weights of events at other scales and with other parton densities.

$w_k = w_0\,[\alpha_s^S(r_R\mu_R)/\alpha_s^0(\mu_R)]^n \prod_\mathrm{beams} f^S_m(i, x, r_F\mu_F)/f^0_0(i, x, \mu_F)$
with n the power of $\alpha_s$ in $|M|^2$: exact at leading order, for events of any weight. Everything with index 0
stands in the event, so that nothing of the process is needed but what `Nominal` tells.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nisampler.base.checks import Natural, Positive, checked
from nisampler.errors import ConfigError, EventFormatError
from nisampler.events.batch import EventBatch
from nisampler.events.weights import Attributes, WeightGroup, WeightInfo
from nisampler.processes.constants import LOWEST_SCALE
from nisampler.processes.partons.alpha_s import RunningAlphaS
from nisampler.processes.partons.members import PdfMembers

Floats = NDArray[np.float64]
_SEVEN = ((1.0, 1.0), (0.5, 0.5), (0.5, 1.0), (1.0, 0.5), (1.0, 2.0), (2.0, 1.0), (2.0, 2.0))
POINTS = {"7-point": _SEVEN, "9-point": (*_SEVEN, (0.5, 2.0), (2.0, 0.5))}
"""Factors of the renormalisation and the factorisation scale, by the name of the set of them."""
SCALE_GROUP = "Central scale variation"
_LARGEST_FACTOR = 100.0
_MEMBERS = re.compile(r"(?P<name>.+)/(?P<members>all|\d{1,5}(?:-\d{1,5})?)")
_OF_THE_DENSITIES = "that of the parton densities"
_RUNNING = re.compile(r"(?P<value>\S+) at m_Z, (?P<loops>\d) loops?")


@dataclass(frozen=True)
class Nominal:
    """What variations need to know of the process that made the events.

    Attributes
    ----------
    pdf
        Name or path of the parton densities, of which member 0 was taken.
    alpha_s_power
        Power of α_s in the squared matrix element of every sub-process.
    alpha_s, alpha_s_loops
        The coupling at the Z mass and its loops where the process does not take that of its densities.

    Examples
    --------
    >>> nominal = Nominal("NNPDF31_lo_as_0118", alpha_s_power=2, alpha_s=0.13)
    >>> nominal.header()["alpha_s"]
    '0.13 at m_Z, 1 loop'
    >>> Nominal.read(nominal.header()) == nominal
    True
    """

    pdf: str
    alpha_s_power: int
    alpha_s: float | None = None
    alpha_s_loops: int = 1

    def header(self) -> dict[str, str]:
        """The same as texts for the header of a file of events."""
        loops = f"{self.alpha_s_loops} loop{'s' if self.alpha_s_loops > 1 else ''}"
        coupling = _OF_THE_DENSITIES if self.alpha_s is None else f"{self.alpha_s!r} at m_Z, {loops}"
        return {"pdf": self.pdf, "alpha_s": coupling, "alpha_s_power": str(self.alpha_s_power)}

    @classmethod
    def read(cls, header: Mapping[str, str]) -> Nominal:
        """From the texts of a file's header.

        Raises
        ------
        ConfigError
            If they are not there, or say something else.
        """
        missing = [name for name in ("pdf", "alpha_s", "alpha_s_power") if name not in header]
        if missing:
            raise ConfigError(
                f"the header of the events does not tell {', '.join(missing)}: weights of other scales and densities "
                "need events of a hadron process that nisampler made"
            )
        power, text = header["alpha_s_power"].strip(), header["alpha_s"].strip()
        running = _RUNNING.fullmatch(text)
        if not re.fullmatch(r"\d{1,2}", power) or not (running or text == _OF_THE_DENSITIES):
            raise ConfigError(f"the header of the events says alpha_s = {text!r} and alpha_s_power = {power!r}")
        if running is None:
            return cls(header["pdf"].strip(), int(power))
        try:
            return cls(header["pdf"].strip(), int(power), float(running["value"]), int(running["loops"]))
        except ValueError as error:
            raise ConfigError(f"the header of the events says alpha_s = {text!r}") from error


def variations(
    header: Mapping[str, str],
    scales: str | Sequence[Sequence[float]] | None = None,
    pdfs: Sequence[str] = (),
    alpha_s: bool = True,
) -> Variations:
    """The variations that a card or the command line asks for.

    Parameters
    ----------
    header
        What the events tell of themselves, see `Nominal`.
    scales
        "7-point", "9-point", or pairs of factors of the renormalisation and the factorisation scale.
    pdfs
        Members of sets: "SET/all", "SET/0-42" or "SET/3".
    alpha_s
        Whether each member brings its own coupling. A coupling that the process states itself holds for all members.

    Raises
    ------
    ConfigError
        If a factor or a set is none, or the header does not tell what is needed.
    PdfError
        If there is no such set or member.
    MissingExtraError
        If a set is not found and pythia8mc is not installed.

    Examples
    --------
    >>> header = Nominal("NNPDF31_lo_as_0118", alpha_s_power=1).header()
    >>> variations(header, scales="7-point").groups[0].ids[1]
    'MUR0.5_MUF0.5_PDF315000'
    >>> variations(header, scales="5-point")
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: scales = "5-point": must be "7-point", "9-point" or pairs of factors of mu_R and mu_F
    """
    nominal = Nominal.read(header)
    wanted: dict[str, set[int] | None] = {}
    for text in pdfs:
        name, members = _members(text)
        known = wanted.setdefault(name, set())
        wanted[name] = None if members is None or known is None else known | set(members)
    own = alpha_s and nominal.alpha_s is None
    sets = [PdfMembers(name, None if members is None else sorted(members)) for name, members in wanted.items()]
    return Variations(nominal, _factors(scales), sets, own)


def _factors(scales: str | Sequence[Sequence[float]] | None) -> tuple[tuple[float, float], ...]:
    """Different pairs of factors."""
    if scales is None:
        return ()
    if isinstance(scales, str):
        if scales not in POINTS:
            raise ConfigError(f'scales = "{scales}": must be "7-point", "9-point" or pairs of factors of mu_R and mu_F')
        return POINTS[scales]
    pairs = []
    for pair in scales:
        if len(pair) != 2:
            raise ConfigError(f"scales: {pair!r} is no pair of factors of mu_R and mu_F")
        mu_r, mu_f = (float(checked("a factor of a scale", factor, Positive)) for factor in pair)
        if not all(1 / _LARGEST_FACTOR <= factor <= _LARGEST_FACTOR for factor in (mu_r, mu_f)):
            raise ConfigError(f"scales: the factors {mu_r} and {mu_f} must lie between 0.01 and {_LARGEST_FACTOR:g}")
        pairs.append((mu_r, mu_f))
    return tuple(dict.fromkeys(pairs))


def _members(text: str) -> tuple[str, Sequence[int] | None]:
    """Name of a set and the members asked for, None for all."""
    found = _MEMBERS.fullmatch(text)
    if found is None:
        raise ConfigError(f'pdfs: {text!r} must be a set and its members, such as "SET/all", "SET/0-42" or "SET/3"')
    if found["members"] == "all":
        return found["name"], None
    first, _, last = found["members"].partition("-")
    low, high = int(first), int(last or first)
    if high < low:
        raise ConfigError(f"pdfs: {text!r} asks for members {low} to {high}: the first one is the smaller one")
    return found["name"], range(low, high + 1)


class Variations:
    """Named weights of events, from what the events hold.

    Parameters
    ----------
    nominal
        How the events were made.
    factors
        Factors of the renormalisation and the factorisation scale.
    sets
        Members of sets of parton densities.
    own_coupling
        Whether members bring their own coupling.

    Attributes
    ----------
    groups
        What the weights are, in the order of the columns of `weights`.

    Examples
    --------
    >>> Variations(Nominal("NNPDF31_lo_as_0118", 1), [(2.0, 0.5)], []).groups[0].weights[0].text
    'MUR=2.0 MUF=0.5 PDF=315000'
    """

    def __init__(
        self,
        nominal: Nominal,
        factors: Sequence[tuple[float, float]],
        sets: Sequence[PdfMembers],
        own_coupling: bool = True,
    ) -> None:
        self._power = checked("the power of alpha_s", nominal.alpha_s_power, Natural)
        self._central, self._sets, self._own = PdfMembers(nominal.pdf, [0]), tuple(sets), own_coupling
        self._running = None if nominal.alpha_s is None else RunningAlphaS(nominal.alpha_s, loops=nominal.alpha_s_loops)
        pdf_groups = [self._pdf_group(members) for members in self._sets]
        listed = {weight_id for group in pdf_groups for weight_id in group.ids}
        label = self._central.labels[0]
        # The weight of the central scales is a member of its set, where that is asked for.
        self._factors = [pair for pair in factors if _weight(pair, label).id not in listed]
        scales = WeightGroup(SCALE_GROUP, "envelope", tuple(_weight(pair, label) for pair in self._factors))
        self.groups = (*((scales,) if self._factors else ()), *pdf_groups)

    @staticmethod
    def _pdf_group(members: PdfMembers) -> WeightGroup:
        level = () if members.confidence == 68.0 else (("CONFIDENCE", f"{members.confidence:g}"),)
        weights = tuple(
            _weight((1.0, 1.0), label, (("MEMBER", f"{member}/{members.size}"), *level))
            for label, member in zip(members.labels, members.members, strict=True)
        )
        return WeightGroup(members.set_name, members.error_type, weights)

    def weights(self, batch: EventBatch, start: int = 0) -> Floats:
        """The weights (n, k) of events, in the unit of their own weights; `start` events came before.

        Raises
        ------
        EventFormatError
            If an event does not tell its scales, its coupling or its parton densities; the first one is named.
        PdfError
            If an incoming particle is no parton, or a set has no coupling.
        """
        _require_known(batch, start)
        points = _Points.of(batch)
        columns = [self._scales(points)] if self._factors else []
        columns += [self._densities(points, members) for members in self._sets]
        ratios = torch.cat(columns, 1) if columns else points.mu_r.new_zeros(len(batch), 0)
        return np.asarray(batch.weights[:, None] * ratios.numpy())

    def _scales(self, points: _Points) -> Tensor:
        """Ratios (n, factors) of the nominal densities and coupling at other scales."""
        in_r, in_f = ({pair[place] for pair in self._factors} for place in (0, 1))
        couplings = {r: self._coupling_ratio(points, _varied(points.mu_r, r)) for r in in_r}
        densities = {f: points.density_ratio(self._central, _varied(points.mu_f, f))[:, 0] for f in in_f}
        return torch.stack([couplings[r] * densities[f] for r, f in self._factors], 1)

    def _coupling_ratio(self, points: _Points, mu_r: Tensor) -> Tensor:
        """Ratio (n,) of the nominal coupling at other scales to that of the events, to its power."""
        if not self._power:
            return torch.ones_like(mu_r)
        q2 = mu_r.square()
        value = self._central.alpha_s(q2)[:, 0] if self._running is None else self._running(q2)
        return (value / points.alpha_s).pow(self._power)

    def _densities(self, points: _Points, members: PdfMembers) -> Tensor:
        """Ratios (n, members) of other densities at the scales of the events."""
        ratios = points.density_ratio(members, points.mu_f)
        if self._own and self._power:
            couplings = members.alpha_s(points.mu_r.square())
            return ratios * (couplings / points.alpha_s.unsqueeze(1)).pow(self._power)
        return ratios


def _weight(factors: tuple[float, float], label: str, more: Attributes = ()) -> WeightInfo:
    """One weight under the names that others use."""
    pairs = (("MUR", str(factors[0])), ("MUF", str(factors[1])), ("PDF", label))
    name = "_".join(f"{key}{value}" for key, value in pairs)
    return WeightInfo(name, " ".join(f"{key}={value}" for key, value in pairs), pairs + more)


def _varied(scale: Tensor, factor: float) -> Tensor:
    """A scale times a factor, where processes keep it: not below 1 GeV."""
    return (factor * scale).clamp(min=LOWEST_SCALE)


def _require_known(batch: EventBatch, start: int) -> None:
    known = {
        "scales": (batch.mu_r > 0) & (batch.scales > 0),
        "coupling": batch.alpha_s > 0,
        "parton densities": (batch.pdf_x > 0).all(axis=1) & (batch.pdf_xf > 0).all(axis=1),
    }
    for what, mask in known.items():
        if not mask.all():
            first = start + int(np.argmin(mask)) + 1
            raise EventFormatError(
                f"event {first} does not tell its {what}: weights of other scales and densities need events of a "
                "hadron process that nisampler made"
            )


@dataclass(frozen=True)
class _Points:
    """What n events tell: PDG codes and momentum fractions (2n,) of both beams in a row, scales and coupling (n,)."""

    codes: Tensor
    x: Tensor
    nominal: Tensor  # product of both densities (n,)
    mu_r: Tensor
    mu_f: Tensor
    alpha_s: Tensor

    @classmethod
    def of(cls, batch: EventBatch) -> _Points:
        codes, x = batch.pdg_ids[:, :2].T.reshape(-1), batch.pdf_x.T.reshape(-1)
        arrays = (codes, x, batch.pdf_xf.prod(axis=1), batch.mu_r, batch.scales, batch.alpha_s)
        return cls(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))

    def density_ratio(self, members: PdfMembers, mu_f: Tensor) -> Tensor:
        """Products (n, members) of both densities at scales (n,), over that of the events."""
        values = members.xf(self.codes, self.x, mu_f.square().repeat(2))
        return values[: len(mu_f)] * values[len(mu_f) :] / self.nominal.unsqueeze(1)
