"""All cuts of a process together; cuts that no event can pass are refused."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nisampler.processes.hadron.cuts.conditions import Condition
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
    separation2,
)
from nisampler.processes.phase_space.kinematics import pt


class Cuts:
    """All cuts of a process.

    Parameters
    ----------
    cuts
        Any number of them; none lets everything pass.
    sqrt_s
        Energy of the collision in GeV, the kinematic limit.

    Raises
    ------
    ConfigError
        If no event can pass: an energy above sqrt_s, a distance that the rapidities do not allow, a pair mass below the
        one that pT and Delta R enforce.

    Examples
    --------
    >>> cuts = Cuts([TransverseMomentumCut((0,), 2.0), PseudorapidityCut((0,), 2.5)], sqrt_s=100.0)
    >>> cuts.mask(torch.tensor([[[5.0, 3.0, 0.0, 4.0]]]))
    tensor([True])
    >>> Cuts([TransverseMomentumCut((0,), 60.0)], sqrt_s=100.0)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: contradictory cuts: pT > 60.0 is above the kinematic limit of 50.0 GeV
    """

    def __init__(self, cuts: Sequence[Cut], sqrt_s: float) -> None:
        self.cuts, self.sqrt_s = tuple(cuts), sqrt_s
        self._check()

    def mask(self, p: Tensor) -> Tensor:
        """Whether the final states p (n, m, 4) pass every cut, shape (n,) of bool."""
        passed = torch.ones(len(p), dtype=torch.bool, device=p.device)
        for cut in self.cuts:
            passed = passed & cut.mask(p)
        return passed

    def pt_minimum(self, leg: int) -> float:
        """Least transverse momentum of a leg in GeV, 0 where nothing is asked for."""
        alone = [c for c in self.cuts if isinstance(c, MissingTransverseMomentumCut) and c.legs == (leg,)]
        minima = [c.minimum for c in self.cuts if isinstance(c, TransverseMomentumCut) and leg in c.legs]
        return max([*minima, *(c.minimum for c in alone)], default=0.0)

    def distance(self, first: int, second: int) -> float:
        """Least distance in rapidity and azimuth of two legs, 0 where nothing is asked for."""
        apart = (cut for cut in self.cuts if isinstance(cut, SeparationCut | DistanceCut))
        asked = [cut.minimum for cut in apart if any({first, second} == {*pair} for pair in cut.pairs)]
        return max(asked, default=0.0)

    def edges(self, p: Tensor) -> dict[str, Tensor]:
        """How near final states p (n, m, 4) are to the cuts: least pT and Delta R over their minima (n,), by name.

        Examples
        --------
        >>> cuts = Cuts([TransverseMomentumCut((0,), 2.0)], sqrt_s=100.0)
        >>> cuts.edges(torch.tensor([[[5.0, 3.0, 0.0, 4.0]]]))
        {'least pT / cut': tensor([1.5000])}
        """
        legs = range(p.shape[1])
        least = {leg: minimum for leg in legs if (minimum := self.pt_minimum(leg)) > 0.0}
        apart = {pair: r for pair in itertools.combinations(legs, 2) if (r := self.distance(*pair)) > 0.0}
        ratios = {
            "least pT / cut": [pt(p[:, leg]) / minimum for leg, minimum in least.items()],
            "least dR / cut": [separation2(p[:, a], p[:, b]).sqrt() / r for (a, b), r in apart.items()],
        }
        return {name: torch.stack(found).amin(0) for name, found in ratios.items() if found}

    def pair_mass(self, first: int, second: int) -> float:
        """Least mass in GeV of two legs by their transverse momenta and distances, all masses neglected."""
        length2 = self.pt_minimum(first) * self.pt_minimum(second)
        # m^2 = 2 pT pT' (cosh delta_eta - cos delta_phi), which is smallest at a given Delta R for delta_eta = 0.
        opening = 1 - math.cos(min(self.distance(first, second), math.pi))
        gaps = [c.delta_eta for c in self.cuts if isinstance(c, LeadingPairCut) and {*c.legs} == {first, second}]
        return math.sqrt(2 * length2 * max(opening, *(math.cosh(gap) - 1 for gap in gaps), 0.0))

    def mass_windows(self) -> dict[tuple[int, ...], tuple[float, float]]:
        """Limits in GeV of the masses of sets of legs that are cut by themselves.

        Raises
        ------
        ConfigError
            If limits on the same legs contradict each other.
        """
        found: dict[tuple[int, ...], tuple[float, float]] = {}
        for cut in self.cuts:
            match cut:
                case MassCut():
                    window = (cut.minimum, cut.maximum)
                case LeadingPairCut() if cut.mass:
                    # All of them together are at least as heavy as two of them.
                    window = (cut.mass, math.inf)
                case _:
                    continue
            legs = tuple(sorted(cut.legs))
            low, high = found.get(legs, (0.0, math.inf))
            low, high = max(low, window[0]), min(high, window[1])
            require(low < high, f"legs {legs} need a mass above {low} and below {high} GeV")
            found[legs] = low, high
        return found

    @property
    def least_energy(self) -> float:
        """Least energy of the partons in GeV that conditions on the whole event ask for."""
        return max((c.least_energy for c in self.cuts if isinstance(c, Condition)), default=0.0)

    def _check(self) -> None:
        legs = {leg for cut in self.cuts for leg in cut.legs}
        energy = sum(self.pt_minimum(leg) for leg in legs)
        require(energy < self.sqrt_s, f"the minimal transverse momenta add up to {energy} of {self.sqrt_s} GeV")
        for cut in self.cuts:
            match cut:
                case TransverseMomentumCut() | MissingTransverseMomentumCut():
                    limit = 0.5 * self.sqrt_s
                    require(cut.minimum < limit, f"pT > {cut.minimum} is above the kinematic limit of {limit} GeV")
                case MassCut():
                    self._check_mass(cut)
                case SeparationCut() | DistanceCut():
                    for first, second in cut.pairs:
                        self._check_separation(first, second, cut.minimum)
        self.mass_windows()
        for leg in legs:
            self._check_leg(leg)

    def _check_mass(self, cut: MassCut) -> None:
        require(cut.minimum < self.sqrt_s, f"mass > {cut.minimum} is above the energy of {self.sqrt_s} GeV")
        if len(cut.legs) == 2:
            first, second = cut.legs
            smallest = self.pair_mass(first, second)
            text = f"legs {first} and {second} have a mass above {smallest:.4g} by pT and Delta R"
            require(smallest < cut.maximum, f"{text}, not below {cut.maximum}")

    def _check_separation(self, first: int, second: int, minimum: float) -> None:
        widest = math.hypot(self._eta_maximum(first) + self._eta_maximum(second), math.pi)
        text = f"Delta R > {minimum} of legs {first} and {second} cannot exceed {widest:.4g}"
        require(minimum < widest, text)

    def _check_leg(self, leg: int) -> None:
        maxima = [c.maximum for c in self.cuts if isinstance(c, TransverseMomentumCut) and leg in c.legs]
        lowest, highest = self.pt_minimum(leg), min(maxima, default=math.inf)
        require(lowest < highest, f"leg {leg} needs {lowest} < pT < {highest}")

    def _eta_maximum(self, leg: int) -> float:
        maxima = [c.maximum for c in self.cuts if isinstance(c, PseudorapidityCut) and leg in c.legs]
        # pT cosh(eta) is the energy of a massless leg.
        lowest = self.pt_minimum(leg)
        return min([math.inf if lowest == 0 else math.acosh(0.5 * self.sqrt_s / lowest), *maxima])
