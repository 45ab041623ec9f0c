"""The final legs of a process by kind and by name, from the particles that each of them can be."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

from nisampler.errors import ConfigError
from nisampler.events.pdg import CHARGED_LEPTONS, KINDS, NEUTRINOS
from nisampler.processes.constants import ELECTRON, PHOTON, W_BOSON, Z_BOSON
from nisampler.processes.hadron.events import Decay, FinalState, Pole
from nisampler.processes.parameters import StandardModel
from nisampler.processes.particles import BY_LOWER_CASE, NAMES, is_coloured, is_lepton, thrice_charge

_RANKED = re.compile(r"(.+?)(\d+)")


class Legs:
    """The final legs of a process.

    Parameters
    ----------
    finals
        PDG codes of the final legs of every sub-process.
    masses
        Of the legs, in GeV.
    resonances
        PDG code and legs of each particle that decays; they have names, too, and are counted behind the legs.

    Examples
    --------
    >>> legs = Legs([(-11, 12, 21), (-11, 12, 1)], (0.0, 0.0, 0.0))
    >>> legs.jets, legs.leptons, legs.named("ve"), legs.named("j")
    ((2,), (0,), (1,), (2,))
    >>> legs.named("mu+")
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: no leg is always 'mu+'; there are e+, ve, j; and j, l, l+, v, vl, all
    """

    def __init__(
        self,
        finals: Iterable[Sequence[int]],
        masses: Sequence[float],
        resonances: Sequence[tuple[int, tuple[int, ...]]] = (),
    ) -> None:
        self.finals, self.masses = tuple(dict.fromkeys(map(tuple, finals))), tuple(masses)
        self.sums = tuple(legs for _, legs in resonances)
        self._decayed = [code for code, _ in resonances]
        self.codes = [frozenset(column) for column in zip(*self.finals, strict=True)]
        self.leptons, self.neutrinos = self._within(CHARGED_LEPTONS), self._within(NEUTRINOS)
        self.photons = self._within((PHOTON,))
        self.jets = tuple(
            leg for leg, codes in enumerate(self.codes) if all(map(is_coloured, codes)) and not self.masses[leg]
        )
        # A pair of one charged lepton and its antiparticle may come from a photon.
        self.pairs = [
            pair
            for pair in itertools.combinations(self.leptons, 2)
            if any(final[pair[0]] == -final[pair[1]] for final in self.finals)
        ]

    def _within(self, codes: Sequence[int]) -> tuple[int, ...]:
        return tuple(leg for leg, found in enumerate(self.codes) if found <= {*codes})

    def named(self, label: str) -> tuple[int, ...]:
        """The legs that are always of this name: of a particle; ``j`` for gluons and massless quarks; ``l``, ``l+``,
        ``l-``, ``v``, ``vl``, ``vl~`` for leptons; ``w``, ``b``, ``t`` for both charges; ``all``. So are particles that
        decay, the first of which has the number of the legs.

        Raises
        ------
        ConfigError
            If there is no such leg; the message lists those that there are.
        """
        found = self._found(label.lower())
        if not found:
            others = ", ".join(name for name in ("j", *KINDS, "all") if self._found(name))
            names = [*map(self._name, range(len(self.codes))), *(NAMES[code] for code in self._decayed)]
            there = ", ".join(dict.fromkeys(names))
            raise ConfigError(f"no leg is always {label!r}; there are {there}; and {others}")
        return found

    def ranked(self, label: str) -> tuple[tuple[int, ...], int]:
        """The legs of a name and 0, or, of a name with a number such as ``j2``, the number.

        Raises
        ------
        ConfigError
            If there is no such leg, or there are fewer of them.

        >>> Legs([(21, 21)], (0.0, 0.0)).ranked("j2")
        ((0, 1), 2)
        """
        match = _RANKED.fullmatch(label)
        if match is None:
            return self.named(label), 0
        legs, rank = self.named(match[1]), int(match[2])
        if not 1 <= rank <= len(legs):
            raise ConfigError(f"{label!r}: the process has {len(legs)} of {match[1]!r}, counted from 1")
        return legs, rank

    def _found(self, name: str) -> tuple[int, ...]:
        if name == "all":
            return tuple(range(len(self.codes)))
        if name == "j":
            return self.jets
        codes = KINDS.get(name, (BY_LOWER_CASE.get(name, 0),))
        decayed = (place for place, code in enumerate(self._decayed, len(self.codes)) if code in codes)
        return self._within(codes) + tuple(decayed)

    def _name(self, leg: int) -> str:
        if len(self.codes[leg]) == 1:
            return NAMES[min(self.codes[leg])]
        kinds = [name for name in ("j", "l+", "l-", "vl", "vl~", "l", "v") if leg in self._found(name)]
        return kinds[0] if kinds else "/".join(NAMES[code] for code in sorted(self.codes[leg]))

    def final_state(self, model: StandardModel) -> FinalState:
        """What event records and scales need."""
        return FinalState(self.masses, self._decays(model), self.jets, self.leptons, self.neutrinos)

    def _decays(self, model: StandardModel) -> tuple[Decay, ...]:
        """W and Z from leptons of one generation, where only one pairing is possible."""
        poles = {W_BOSON: (model.mass_w, model.width_w), Z_BOSON: (model.mass_z, model.width_z)}
        decays: list[Decay] = []
        for pair in itertools.combinations(sorted(self.leptons + self.neutrinos), 2):
            charges = {sum(thrice_charge(final[leg]) for leg in pair) // 3 for final in self.finals}
            if len(charges) == 1 and all(_alone(final, pair) for final in self.finals):
                charge = charges.pop()
                code = charge * W_BOSON if charge else Z_BOSON
                decays.append(Decay(pair, (Pole(code, *poles[abs(code)]),)))
        return tuple(decays)


def _alone(final: Sequence[int], pair: tuple[int, int]) -> bool:
    """Whether a lepton and an antilepton are of one generation, and no other leg is."""
    generations = [(abs(code) - ELECTRON) // 2 if is_lepton(code) else -1 for code in final]
    first, second = pair
    own = generations[first]
    return final[first] * final[second] < 0 and generations[second] == own and generations.count(own) == 2
