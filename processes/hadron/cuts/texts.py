"""Cuts from text: ``pt(e+) > 25``, ``m(e+, e-) in [66, 116]``, ``dr(j, l) > 0.4``, ``met > 30``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nisampler.base.blame import blaming
from nisampler.errors import ConfigError, ProcessError
from nisampler.events.quantities import OF_EVENTS, OF_PAIRS, QUANTITIES
from nisampler.processes.hadron.cuts.conditions import Condition, Pick, choices
from nisampler.processes.hadron.cuts.kinds import (
    Cut,
    DistanceCut,
    LeadingPairCut,
    MassCut,
    MissingTransverseMomentumCut,
    PseudorapidityCut,
    SeparationCut,
    TransverseMomentumCut,
    require,
)
from nisampler.processes.hadron.legs import Legs
from nisampler.processes.own import resolved

OwnCut = str | Callable[[Tensor], Tensor]
"""A cut as a card gives it, or a function of the momenta."""
_SIDES = re.compile(r"(<=|>=|<|>)")
_WINDOW = re.compile(r"(.+?)\s+in\s*\[([^,\]]+),([^,\]]+)\]")
_ABSOLUTE = re.compile(r"abs\s*\((.+)\)|\|(.+)\|", re.IGNORECASE)
_CALL = re.compile(r"([a-z_]+)\s*(?:\(([^()]*)\))?", re.IGNORECASE)
_FORMS = "write 'pt(e+) > 25', 'abs(eta(j)) < 4.5', '66 < m(e+, e-) < 116', 'dy(j, j) in [1, 5]' or 'file.py:function'"


def cuts_of(texts: Sequence[OwnCut], legs: Legs, sqrt_s: float) -> list[Cut]:
    """The cuts of a card.

    Each reads ``quantity > number``, ``number < quantity < number`` or ``quantity in [number, number]``; units: GeV.
    Of one particle, or of the sum of several, there are pt, eta, y, m, mt and e; of two dr, deta, dy and dphi, all
    without sign; of the event met of the neutrinos, ht of the jets, or of the kinds in brackets, and sqrt_shat.
    ``abs(...)`` takes away the sign. Particles have the names of the process string, those that decay in it included,
    or those of kinds (see `Legs.named`); j1, j2, l1 are the ones of highest transverse momentum. A condition holds for
    every choice of different legs: ``dr(j, j) > 0.4`` for each pair of jets. ``file.py:function`` is a function of
    one's own, from momenta (n, m, 4) in GeV of the final legs to a mask (n,).

    Parameters
    ----------
    texts
        The conditions; functions where they come from Python.
    legs
        The final legs.
    sqrt_s
        Energy of the collision in GeV.

    Raises
    ------
    ConfigError
        If a condition cannot be read, names what the process does not have, or no event can pass.
    ProcessError, UnknownProcessError
        If a function cannot be found.

    Examples
    --------
    >>> legs = Legs([(-11, 11, 21)], (0.0, 0.0, 0.0))
    >>> [type(cut).__name__ for cut in cuts_of(["pt(l) > 25", "m(l, l) > 66", "dphi(e+, e-) < 3"], legs, 13000.0)]
    ['TransverseMomentumCut', 'MassCut', 'Condition']
    >>> cuts_of(["pt(mu+) > 25"], legs, 13000.0)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: cut 'pt(mu+) > 25': no leg is always 'mu+'; there are e+, e-, g; and j, l, ...
    """
    found: list[Cut] = []
    windows: dict[tuple[str, tuple[Pick, ...], bool], tuple[float, float]] = {}
    for text in texts:
        if isinstance(text, str) and ":" not in text:
            try:
                item = _Text.read(text, legs)
                found += item.cuts(legs, sqrt_s)
                low, high = windows.get(item.of, (-math.inf, math.inf))
                windows[item.of] = low, high = max(low, item.low), min(high, item.high)
                require(low < high, f"with the cuts before, {item.quantity} is above {low:g} and below {high:g}")
            except ConfigError as error:
                raise ConfigError(f"cut {text!r}: {error}") from error
        else:
            found.append(FunctionCut(text, tuple(range(len(legs.codes)))))
    return found


class FunctionCut:
    """A function of one's own from momenta (n, m, 4) to a mask (n,), by name or itself.

    Raises
    ------
    ProcessError, UnknownProcessError
        If there is none of that name; when it is called, if it raises an error or returns no mask.

    Examples
    --------
    >>> FunctionCut(lambda p: p[:, 0, 0] > 1.0, (0, 1)).mask(torch.ones(3, 2, 4))
    tensor([False, False, False])
    """

    def __init__(self, function: OwnCut, legs: tuple[int, ...]) -> None:
        self.legs = legs
        self._name, self._function = resolved(function)

    def __str__(self) -> str:
        return self._name

    def mask(self, p: Tensor) -> Tensor:
        """Whether the final states p (n, m, 4) pass, shape (n,)."""
        with blaming(f"the cut {self._name} failed", ProcessError):
            found = self._function(p)
        if not isinstance(found, Tensor) or found.shape != p.shape[:1] or found.dtype != torch.bool:
            what = f"{tuple(found.shape)} of {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
            raise ProcessError(f"the cut {self._name} must return a mask ({len(p)},) of torch.bool, got {what}")
        return found


@dataclass(frozen=True)
class _Text:
    """A condition that was read."""

    text: str
    quantity: str
    picks: tuple[Pick, ...]
    low: float
    high: float
    absolute: bool

    @classmethod
    def read(cls, text: str, legs: Legs) -> _Text:
        quantity, low, high = _limits(text)
        absolute = _ABSOLUTE.fullmatch(quantity)
        if absolute is not None:
            quantity = absolute[1] or absolute[2]
        match = _CALL.fullmatch(quantity.strip())
        if match is None or (name := match[1].lower()) not in QUANTITIES:
            raise ConfigError(f"no quantity {quantity.strip()!r}; known: {', '.join(QUANTITIES)}; {_FORMS}")
        labels = [part.strip() for part in match[2].split(",")] if match[2] else []
        return cls(text, name, _picks(name, labels, legs), low, high, absolute is not None)

    @property
    def of(self) -> tuple[str, tuple[Pick, ...], bool]:
        """What has the limits."""
        return self.quantity, self.picks, self.absolute

    def cuts(self, legs: Legs, sqrt_s: float) -> list[Cut]:
        """The same as cuts of their own kind, which know contradictions, where there are some."""
        lowest, highest = _range(self.quantity, sqrt_s)
        lowest = 0.0 if self.absolute else lowest
        require(self.low < self.high, "the window is empty")
        require(self.low < highest, f"{self.quantity} is at most {highest:g} at sqrt_s = {sqrt_s:g} GeV")
        require(self.high > lowest, f"{self.quantity} is more than {lowest:g}")
        low, bounded = max(self.low, 0.0), self.high < highest
        each = tuple(dict.fromkeys(leg for pick in self.picks for leg in pick.legs))
        if max(each) >= len(legs.codes):
            return self._of_decaying(legs)
        if not bounded and self.quantity in ("m", "deta") and {*self.picks} == {Pick(each, 1), Pick(each, 2)}:
            return [LeadingPairCut(each, **{"mass" if self.quantity == "m" else "delta_eta": low})]
        picks = [_settled(pick, self) for pick in self.picks]
        if not any(pick.rank for pick in picks):
            match self.quantity:
                case "pt" if len(picks) == 1:
                    return [TransverseMomentumCut(each, low, self.high)]
                case "eta" if len(picks) == 1 and self.absolute and self.low < 0 < self.high:
                    return [PseudorapidityCut(each, self.high)]
                case "sqrt_shat":
                    return [MassCut(each, low, self.high)]
                case "m" if len(picks) > 1:
                    return [MassCut(chosen, low, self.high) for chosen in choices(picks)]
                case "dr" if not bounded and picks[0] == picks[1]:
                    return [SeparationCut(each, low)]
                case "dr" if not bounded and not {*picks[0].legs} & {*picks[1].legs}:
                    return [DistanceCut(picks[0].legs, picks[1].legs, low)]
                case "met" if not bounded:
                    return [MissingTransverseMomentumCut(each, low)]
        return [Condition(self.text, self.quantity, tuple(picks), self.low, self.high, self.absolute)]

    def _of_decaying(self, legs: Legs) -> list[Cut]:
        """Of particles that decay, or of those and legs."""
        parts = [*((leg,) for leg in range(len(legs.codes))), *legs.sums]
        if self.quantity == "m" and not any(pick.rank for pick in self.picks):
            together = [[leg for part in chosen for leg in parts[part]] for chosen in choices(self.picks)]
            return [MassCut(tuple(dict.fromkeys(chosen)), max(self.low, 0.0), self.high) for chosen in together]
        return [Condition(self.text, self.quantity, self.picks, self.low, self.high, self.absolute, legs.sums)]


def _limits(text: str) -> tuple[str, float, float]:
    """The quantity of a condition and its limits."""
    window = _WINDOW.fullmatch(text.strip())
    if window is not None:
        return window[1], _number(window[2]), _number(window[3])
    parts = [part.strip() for part in _SIDES.split(text)]
    if len(parts) == 5 and parts[1][0] == parts[3][0]:
        ends = _number(parts[0]), _number(parts[4])
        return (parts[2], *ends) if parts[1][0] == "<" else (parts[2], *ends[::-1])
    if len(parts) != 3:
        raise ConfigError(f"cannot be read; {_FORMS}")
    above = parts[1][0] == ">"
    if _is_number(parts[0]):
        parts, above = parts[::-1], not above
    limit = _number(parts[2])
    return (parts[0], limit, math.inf) if above else (parts[0], -math.inf, limit)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(text: str) -> float:
    if not _is_number(text) or not math.isfinite(float(text)):
        raise ConfigError(f"{text.strip()!r} is not a number; {_FORMS}")
    return float(text)


def _picks(name: str, labels: list[str], legs: Legs) -> tuple[Pick, ...]:
    if name in OF_EVENTS:
        default = {"met": legs.neutrinos, "ht": legs.jets, "sqrt_shat": legs.named("all")}[name]
        if labels and name == "ht":
            return tuple(Pick(legs.named(label)) for label in labels)
        if labels:
            raise ConfigError(f"{name} is of the whole event and takes no particles")
        if not default:
            raise ConfigError(f"{name} is of {'neutrinos' if name == 'met' else 'jets'}, and the process has none")
        return (Pick(default),)
    if (name in OF_PAIRS and len(labels) != 2) or not labels:
        raise ConfigError(f"{name} takes {'two particles' if name in OF_PAIRS else 'one particle or more'}")
    picks = tuple(Pick(*legs.ranked(label)) for label in labels)
    ranked = {leg for pick in picks if pick.rank for leg in pick.legs}
    if ranked & {leg for pick in picks if not pick.rank for leg in pick.legs} or _repeated(picks):
        raise ConfigError(f"{name} of a particle and itself: give each of {', '.join(labels)} another number")
    if not choices(picks):
        raise ConfigError(f"the process has too few of {', '.join(labels)}")
    return picks


def _repeated(picks: Sequence[Pick]) -> bool:
    ranked = [pick for pick in picks if pick.rank]
    return len(set(ranked)) < len(ranked)


def _settled(pick: Pick, text: _Text) -> Pick:
    """Each of the legs, where a condition on the softest, or below a limit on the hardest, says as much."""
    if not pick.rank or text.quantity not in ("pt", "m", "dr", "deta", "dy", "dphi"):
        return pick
    if len(text.picks) == 1 and text.quantity == "pt":
        softest = pick.rank == len(pick.legs) and text.high == math.inf
        hardest = pick.rank == 1 and text.low <= 0
        return Pick(pick.legs) if softest or hardest else pick
    alike = [other for other in text.picks if other.legs == pick.legs]
    # Quantities do not know an order: j1 and j2 of two jets are both of them.
    return Pick(pick.legs) if len(alike) == len(pick.legs) else pick


def _range(quantity: str, sqrt_s: float) -> tuple[float, float]:
    """What values a quantity can have at all."""
    if quantity in ("eta", "y"):
        return -math.inf, math.inf
    if quantity in ("pt", "met"):
        return 0.0, 0.5 * sqrt_s
    if quantity == "dphi":
        return 0.0, math.pi
    return 0.0, math.inf if quantity in OF_PAIRS else sqrt_s
