"""Observables of events of any process by name: ``pt_j1``, ``m_ll``, ``dr(j1, j2)``, ``met:0:200:40``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray

from nisampler.errors import ConfigError
from nisampler.events.batch import EventBatch
from nisampler.events.columns import FINAL, RESONANCE
from nisampler.events.observables import Observable
from nisampler.events.pdg import (
    BY_LOWER_CASE,
    GLUON,
    HIGGS,
    KINDS,
    NAMES,
    NEUTRINOS,
    TOP,
    W_BOSON,
    Z_BOSON,
    Z_PRIME,
)
from nisampler.events.quantities import OF_EVENTS, OF_PAIRS, OF_SUMS, QUANTITIES

Floats = NDArray[np.float64]

BINS = 40
_JETS = (GLUON, *(sign * code for code in range(1, TOP) for sign in (1, -1)))
_GROUPS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {"j": _JETS} | {name: (code,) for name, code in BY_LOWER_CASE.items()} | KINDS
)
# These are looked for among the intermediate particles of a record, too.
_DECAYING = (TOP, Z_BOSON, W_BOSON, HIGGS, Z_PRIME)
_COLUMNS: Mapping[str, tuple[str, str, Callable[[EventBatch], Floats]]] = MappingProxyType(
    {
        "weight": (r"\mathrm{weight}", "", lambda batch: batch.weights),
        "mu_f": (r"\mu_F", "GeV", lambda batch: batch.scales),
        "mu_r": (r"\mu_R", "GeV", lambda batch: batch.mu_r),
        "alpha_s": (r"\alpha_s", "", lambda batch: batch.alpha_s),
        "x1": ("x_1", "", lambda batch: batch.pdf_x[:, 0]),
        "x2": ("x_2", "", lambda batch: batch.pdf_x[:, 1]),
    }
)
_SIGNS = {
    **{
        "pt": "p_T",
        "eta": r"\eta",
        "y": "y",
        "m": "m",
        "mt": "m_T",
        "e": "E",
        "n": "n",
        "met": r"p_T^{\,\mathrm{miss}}",
    },
    **{"dr": r"\Delta R", "deta": r"\Delta\eta", "dy": r"\Delta y", "dphi": r"\Delta\phi"},
    **{"ht": "H_T", "sqrt_shat": r"\sqrt{\hat s}"},
}
_TEX = {
    **{"l": r"\ell", "mu": r"\mu", "ta": r"\tau", "a": r"\gamma", "z": "Z", "w": "W", "h": "H"},
    **{"v": r"\nu", "vl": r"\nu", "ve": r"\nu_e", "vm": r"\nu_\mu", "vt": r"\nu_\tau"},
}
_IN_GEV = ("pt", "m", "mt", "e", *OF_EVENTS)
_OF_ONE = "n"
_LONGEST = sorted(_GROUPS, key=len, reverse=True)
_LABEL = re.compile(rf"({'|'.join(map(re.escape, _LONGEST))})(\d*)")
_CALL = re.compile(r"([a-z]+)\s*\(([^()]*)\)")
_ABSOLUTE = re.compile(r"abs\s*\((.+)\)|abs_(.+)|\|(.+)\|")
_ROUND = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
_DECADES, _TAIL = 50.0, 2e-3
_NOTHING = 1e-9
_FORMS = (
    "write pt_j1, m_ll, dr_jj, 'm(l+, l-)', 'abs(eta(e-))', n_j, met or ht, and behind it :LOW:HIGH:BINS if need be"
)


@dataclass(frozen=True)
class Label:
    """Particles of a name, and which of them: the one of highest transverse momentum is number 1; 0 is the next one.

    >>> Label("j", 2).name
    'j'
    """

    name: str
    number: int = 0

    def mask(self, batch: EventBatch) -> NDArray[np.bool_]:
        """The particles of that name, (n, p)."""
        codes = np.asarray(_GROUPS[self.name])
        there = batch.status == FINAL
        if set(map(abs, codes.tolist())) <= set(_DECAYING):
            there |= batch.status == RESONANCE
        return np.asarray(there & np.isin(batch.pdg_ids, codes))


@dataclass(frozen=True)
class NamedObservable:
    """A number for each event of any process, NaN where an event lacks the particles that it is of.

    Attributes
    ----------
    name
        As it was asked for, without limits.
    quantity, labels, absolute
        What it is, of which particles, and whether without its sign.
    low, high, bins
        Of its histogram; None where the values shall say.
    log
        Bins of equal width in the logarithm; None where the values shall say.

    Examples
    --------
    >>> found = NamedObservable.of("pt_j1:20:500")
    >>> found.quantity, found.labels, found.high, found.label
    ('pt', (Label(name='j', number=1),), 500.0, '$p_T(j_{1})$ [GeV]')
    >>> NamedObservable.of("m_ee")
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: observable m_ee: no particles 'ee'; there are j, g, a, z, ...; write pt_j1, m_ll, ...
    """

    name: str
    quantity: str
    labels: tuple[Label, ...] = ()
    absolute: bool = False
    low: float | None = None
    high: float | None = None
    bins: int | None = None
    log: bool | None = None

    @classmethod
    def of(cls, text: str) -> NamedObservable:
        """The observable of a text: a name, behind it ``:LOW:HIGH`` or ``:LOW:HIGH:BINS``, and ``:log`` or ``:linear``.

        Of one particle, or of the sum of several, there are pt, eta, y, m, mt and e; of two dr, deta, dy and dphi; of
        the event met of the neutrinos, ht of the jets, sqrt_shat of all; n is the number of the particles of a name;
        weight, mu_f, mu_r, alpha_s, x1 and x2 stand in the record. Particles have the names of strings of processes or
        those of kinds: j for gluons and quarks but the top, l, l+, l- for charged leptons, v for neutrinos, w, b and t
        for both charges. Numbers count from the highest transverse momentum; without them each name is the next one:
        ``m_jj`` is of the first two jets.

        Raises
        ------
        ConfigError
            If there is no such quantity or particle, or the limits are none.
        """
        name, *rest = (part.strip() for part in text.split(":"))
        try:
            log, limits = _scale(rest)
            low, high, bins = _limits(limits, log)
            inner = _ABSOLUTE.fullmatch(name.lower())
            quantity, labels = _parts(name.lower() if inner is None else next(filter(None, inner.groups())))
        except ConfigError as error:
            raise ConfigError(f"observable {name or repr(text)}: {error}") from None
        return cls(name, quantity, labels, inner is not None, low, high, bins, log)

    @property
    def label(self) -> str:
        """Of the axis, in mathtext, with the unit."""
        if self.quantity in _COLUMNS:
            sign, unit, _ = _COLUMNS[self.quantity]
        else:
            sign, unit = _SIGNS[self.quantity], "GeV" if self.quantity in _IN_GEV else ""
        if self.labels:
            names = ", ".join(map(_sign_of, self.labels))
            sign = f"{sign}({names})"
        sign = f"|{sign}|" if self.absolute or self.quantity in ("deta", "dy", "dphi") else sign
        return f"${sign}$ [{unit}]" if unit else f"${sign}$"

    def __call__(self, batch: EventBatch) -> Floats:
        """Values (n,); NaN for an event that has none."""
        with np.errstate(all="ignore"):
            values = self._values(batch)
        return np.abs(values) if self.absolute else values

    def _values(self, batch: EventBatch) -> Floats:
        if self.quantity in _COLUMNS:
            return np.asarray(_COLUMNS[self.quantity][2](batch), dtype=np.float64)
        if self.quantity == _OF_ONE:
            return np.asarray(self.labels[0].mask(batch).sum(axis=1), dtype=np.float64)
        if self.quantity in OF_EVENTS:
            return self._of_event(batch)
        momenta, there = _picked(batch, self.labels)
        function = QUANTITIES[self.quantity]
        return np.where(there, function([torch.from_numpy(p) for p in momenta]).numpy(), np.nan)

    def _of_event(self, batch: EventBatch) -> Floats:
        """Of all particles of some names together."""
        if self.quantity == "sqrt_shat":
            mask = batch.final
        elif self.quantity == "met":
            mask = batch.final & np.isin(batch.pdg_ids, NEUTRINOS)
        else:
            mask = np.logical_or.reduce([label.mask(batch) for label in self.labels or (Label("j"),)])
        slots = [torch.from_numpy(batch.momenta[:, k] * mask[:, k, None]) for k in range(batch.slots)]
        values = OF_EVENTS[self.quantity](slots).numpy() if slots else np.zeros(len(batch))
        return np.where(mask.any(axis=1), values, np.nan)

    def observable(self, values: Floats, bins: int = BINS) -> Observable:
        """With a range: its own, or one that holds all but a few per mille of `values`, or as many in round numbers.

        Raises
        ------
        ConfigError
            If no value is finite, or a logarithmic range is asked for of values that are not positive.
        """
        found = values[np.isfinite(values)]
        if not found.size:
            raise ConfigError(f"observable {self.name}: none of the first {len(values)} events has it")
        low, high, log = self.low, self.high, bool(self.log)
        if low is None or high is None:
            low, high, log = self._range(found)
        count = self.bins or (round(high - low) if self.quantity == _OF_ONE else bins)
        return Observable(self.name, self.label, low, high, count, self, log=log)

    def _range(self, found: Floats) -> tuple[float, float, bool]:
        if self.quantity == _OF_ONE:
            return -0.5, float(found.max()) + 0.5, False
        if self.quantity == "dphi":
            return 0.0, math.pi, False
        low, high = (float(end) for end in np.quantile(found, [_TAIL, 1.0 - _TAIL]))
        if max(abs(low), abs(high)) < _NOTHING:
            return 0.0, 1.0, False
        if low < 0.0:
            reach = _rounded(max(-low, high), up=True)
            return -reach, reach, False
        spans = low > 0.0 and high > _DECADES * low and self.quantity not in ("eta", "y", *OF_PAIRS)
        if self.log or (self.log is None and spans):
            if low <= 0.0:
                raise ConfigError(f"observable {self.name}: logarithmic bins need positive values, there is {low:.3g}")
            return _rounded(low, up=False), _rounded(high, up=True), True
        if high - low < _NOTHING * high:
            return 0.0, 2.0 * high, False
        step = 10.0 ** math.floor(math.log10(high - low)) / 2
        first = 0.0 if low < 0.1 * high else step * math.floor(low / step)
        return first, step * math.ceil(high / step), False


def usual(batch: EventBatch) -> list[str]:
    """Names of observables that are worth a look where nobody has named any, by the particles of some events.

    >>> usual(EventBatch.empty(4))
    ['weight']
    """
    most = {name: int(Label(name).mask(batch).sum(axis=1).max(initial=0)) for name in ("j", "l", "v", "t")}
    names = [f"pt_j{k + 1}" for k in range(min(most["j"], 4))]
    names += ["eta_j1"] * (most["j"] > 0) + ["m_jj", "dr_jj"] * (most["j"] > 1)
    names += ["pt_l1", "eta_l1"] * (most["l"] > 0) + ["m_ll", "y_ll"] * (most["l"] > 1)
    names += ["pt_ll"] * (most["l"] > 1 and most["j"] > 0)
    names += ["met"] * (most["v"] > 0) + ["mt_lv"] * (most["v"] == 1 and most["l"] == 1)
    names += ["pt_t1", "y_t1"] * (most["t"] > 0) + ["m_tt"] * (most["t"] > 1)
    return names or (["sqrt_shat"] if len(batch) else ["weight"])


def particles(batch: EventBatch) -> str:
    """The names of the final particles of some events.

    >>> particles(EventBatch.empty(4))
    ''
    """
    codes = np.unique(batch.pdg_ids[batch.final]).tolist()
    return ", ".join(NAMES.get(code, str(code)) for code in codes)


def _picked(batch: EventBatch, labels: tuple[Label, ...]) -> tuple[list[Floats], NDArray[np.bool_]]:
    """Momenta (n, 4) of the particle of each label, and the events (n,) that have them all, no particle twice."""
    rows = np.arange(len(batch))
    taken = np.zeros((len(batch), batch.slots), dtype=bool)
    there = np.full(len(batch), batch.slots > 0)
    momenta = [np.zeros((len(batch), 4)) for _ in labels]
    if not batch.slots:
        return momenta, there
    size = np.hypot(batch.momenta[..., 1], batch.momenta[..., 2])
    # Those with numbers first, so that the others are the next ones.
    for place in sorted(range(len(labels)), key=lambda k: labels[k].number == 0):
        label = labels[place]
        mask = label.mask(batch) if label.number else label.mask(batch) & ~taken
        order = np.argsort(np.where(mask, -size, 1.0), axis=1, kind="stable")
        rank = max(label.number, 1) - 1
        chosen = order[:, min(rank, batch.slots - 1)]
        there &= (mask.sum(axis=1) > rank) & ~taken[rows, chosen]
        taken[rows, chosen] = True
        momenta[place] = batch.momenta[rows, chosen]
    return momenta, there


def _parts(text: str) -> tuple[str, tuple[Label, ...]]:
    """Quantity and labels of a name in small letters."""
    if text in _COLUMNS or text in OF_EVENTS:
        return text, ()
    call = _CALL.fullmatch(text)
    quantity, _, tail = (call[1], "", call[2]) if call else text.partition("_")
    if quantity not in _SIGNS or quantity in ("met", "sqrt_shat"):
        known = ", ".join([*OF_SUMS, *OF_PAIRS, *OF_EVENTS, _OF_ONE, *_COLUMNS])
        raise ConfigError(f"no quantity {quantity!r}; known: {known}; {_FORMS}")
    labels = tuple(_labels([part.strip() for part in tail.split(",")] if call else [tail]))
    if len(set(labels)) < len(labels) and any(item.number for item in labels if labels.count(item) > 1):
        raise ConfigError(f"{quantity} of a particle and itself: give each another number")
    wanted = 2 if quantity in OF_PAIRS else 1 if quantity == _OF_ONE else 0
    if not labels or (wanted and len(labels) != wanted):
        raise ConfigError(f"{quantity} takes {('one particle or more', 'one name', 'two particles')[wanted]}; {_FORMS}")
    return quantity, labels


def _labels(texts: list[str]) -> Iterator[Label]:
    """Labels that stand beside each other, such as l+l- or j1_j2."""
    for text in texts:
        place = 0
        while place < len(text):
            match = _LABEL.match(text, place)
            if match is None:
                raise ConfigError(f"no particles {text!r}; there are {', '.join(_GROUPS)}; {_FORMS}")
            if match[2] and not 0 < int(match[2][:4]) < 1000:
                raise ConfigError(f"{match[0]!r}: particles are counted from 1")
            yield Label(match[1], int(match[2] or 0))
            place = match.end() + (text[match.end() : match.end() + 1] == "_")


def _scale(rest: list[str]) -> tuple[bool | None, list[str]]:
    if rest and rest[-1] in ("log", "linear"):
        return rest[-1] == "log", rest[:-1]
    return None, rest


def _limits(texts: list[str], log: bool | None) -> tuple[float | None, float | None, int | None]:
    """Low and high end, and the number of bins."""
    if not texts:
        return None, None, None
    try:
        low, high = float(texts[0]), float(texts[1])
        bins = int(texts[2]) if len(texts) > 2 else None
    except (ValueError, IndexError):
        raise ConfigError(f"{':'.join(texts)!r} are no limits: write :LOW:HIGH or :LOW:HIGH:BINS") from None
    if len(texts) > 3 or not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"{':'.join(texts)!r}: write :LOW:HIGH or :LOW:HIGH:BINS with LOW < HIGH")
    if bins is not None and not 0 < bins <= 10_000:
        raise ConfigError(f"{bins} bins: choose 1 to 10,000")
    if log and low <= 0.0:
        raise ConfigError(f"logarithmic bins need LOW > 0, got {low:g}")
    return low, high, bins


def _sign_of(label: Label) -> str:
    """A label in mathtext.

    >>> [_sign_of(Label(name, number)) for name, number in (("j", 2), ("mu+", 0), ("t~", 0))]
    ['j_{2}', '\\\\mu^{+}', '\\\\bar{t}']
    """
    base = label.name.rstrip("+-~")
    charge = label.name[len(base) :]
    sign = _TEX.get(base, base)
    sign = rf"\bar{{{sign}}}" if charge == "~" else f"{sign}^{{{charge}}}" if charge else sign
    return f"{sign}_{{{label.number}}}" if label.number else sign


def _rounded(value: float, up: bool) -> float:
    """The next round number at or above a positive one, or at or below it.

    >>> _rounded(431.0, up=True), _rounded(431.0, up=False)
    (500.0, 400.0)
    """
    scale = 10.0 ** math.floor(math.log10(value))
    steps = [scale * step for step in _ROUND]
    tolerance = 1e-9 * value
    found = min(s for s in steps if s >= value - tolerance) if up else max(s for s in steps if s <= value + tolerance)
    return float(f"{found:.6g}")
