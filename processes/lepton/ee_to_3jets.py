"""The process e- e+ -> q qbar g: cross-section, momenta and events."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nisampler.errors import DomainError, ShapeError
from nisampler.events.batch import EventBatch
from nisampler.events.columns import FINAL, INCOMING, UNKNOWN_SPIN
from nisampler.events.columns import FIRST_COLOUR_TAG as TAG
from nisampler.events.observables import Observable
from nisampler.processes.base import BeamInfo, Process, draw
from nisampler.processes.constants import ELECTRON, GEV2_PB, GLUON
from nisampler.processes.lepton.ee_matrix_element import (
    EEToThreeJetsParameters,
    beam_momenta,
    chirality_factors,
    chirality_structures,
    qcd_factor,
)
from nisampler.processes.observables import LegFunction, of_legs
from nisampler.processes.phase_space.kinematics import durham_y23, leg_quantities, thrust_axis
from nisampler.processes.phase_space.three_body import (
    DalitzRegion,
    DurhamRegion,
    ThreeBodyMap,
    TransverseMomentumRegion,
)

_GLUON_LEG = 2


class EEToThreeJets(Process):
    """e- e+ -> q qbar g at leading order with a Durham cut, in pb.

    Photon and Z exchange with width, massless quarks, unpolarised beams along the z axis (e- along +z), the
    full dependence on the beam direction. The integrand is summed over flavours; `events` draws the flavour
    of each event with its exact probability at that point. The cube coordinates are those of `ThreeBodyMap`.

    Parameters
    ----------
    parameters
        Couplings, energy and cut; the defaults are those of the Z pole.

    Examples
    --------
    >>> process = EEToThreeJets()
    >>> u = torch.full((1, 5), 0.4, dtype=torch.float64)
    >>> process.momenta(u).shape, process.events(u, torch.ones(1), torch.Generator()).pdg_ids[0, -1].item()
    (torch.Size([1, 3, 4]), 21)
    """

    name = "ee_to_3jets"
    dim = ThreeBodyMap.dim
    unit = "pb"
    has_events = True

    def __init__(self, parameters: EEToThreeJetsParameters | None = None) -> None:
        self.parameters: EEToThreeJetsParameters = parameters or EEToThreeJetsParameters()
        p = self.parameters
        build = DurhamRegion if p.phase_space == "durham" else TransverseMomentumRegion.around_durham
        region: DalitzRegion = build(p.y_cut)
        self.phase_space = ThreeBodyMap(region)
        self.beams = BeamInfo((ELECTRON, -ELECTRON), (0.5 * p.sqrt_s, 0.5 * p.sqrt_s))
        self.observables = _observables(p.y_cut)
        self._factors = [chirality_factors(p, flavour) for flavour in p.flavours]

    def __call__(self, u: Tensor) -> Tensor:
        """d sigma / d u in pb (n,) at the cube points u (n, 5); zero outside the Durham cut.

        Raises
        ------
        ShapeError
            If u is not of shape (n, 5).
        """
        momenta, weight = self.phase_space.forward(u, self.parameters.sqrt_s)
        equal, opposite = chirality_structures(beam_momenta(self.parameters.sqrt_s, u), momenta)
        same = sum(factor for factor, _ in self._factors)
        flipped = sum(factor for _, factor in self._factors)
        s = self.parameters.sqrt_s**2
        norm = qcd_factor(self.parameters) * GEV2_PB / (2 * s)
        value = norm * weight * (same * equal + flipped * opposite)
        return torch.where(self._passes(momenta), value, torch.zeros_like(value))

    def momenta(self, u: Tensor) -> Tensor:
        """Momenta (n, 3, 4) in GeV of quark, antiquark and gluon at the cube points u (n, 5).

        Raises
        ------
        ShapeError
            If u is not of shape (n, 5).
        """
        return self.phase_space.forward(u, self.parameters.sqrt_s)[0]

    def quantities(self, u: Tensor) -> dict[str, Tensor]:
        """Transverse momenta, pseudorapidities, pair masses, distances and y_23 (n,) at the cube points u (n, 5)."""
        p = self.momenta(u)
        return leg_quantities(p, ("q", "qbar", "g")) | {"y23": durham_y23(p)}

    def cube_points(self, momenta: Tensor) -> Tensor:
        """The cube points (n, 5) of momenta (n, 3, 4); the inverse of `momenta`.

        Raises
        ------
        ShapeError
            If momenta are not of shape (n, 3, 4).
        DomainError
            If a point lies outside the region the map fills.
        """
        return self.phase_space.inverse(momenta)

    def flavour_probabilities(self, momenta: Tensor) -> Tensor:
        """Probabilities (n, flavours) at the momenta (n, 3, 4), in the order of `parameters.flavours`."""
        equal, opposite = chirality_structures(beam_momenta(self.parameters.sqrt_s, momenta), momenta)
        factors = torch.tensor(self._factors, dtype=momenta.dtype, device=momenta.device)
        parts = torch.outer(equal, factors[:, 0]) + torch.outer(opposite, factors[:, 1])
        return parts / parts.sum(1, keepdim=True)

    def events(self, u: Tensor, weights: Tensor, generator: torch.Generator) -> EventBatch:
        """Events at the cube points u (n, 5): e-, e+, then quark, antiquark, gluon, with one colour flow.

        Parameters
        ----------
        u
            Cube points inside the cut.
        weights
            Event weights (n,), 1 for unweighted events.
        generator
            Draws the flavours, one number an event.

        Raises
        ------
        ShapeError
            If u is not of shape (n, 5) or weights not of shape (n,).
        DomainError
            If a point lies outside the Durham cut, where the cross-section is zero.
        """
        if weights.shape != u.shape[:1]:
            raise ShapeError(f"expected weights of shape ({u.shape[0]},), got {tuple(weights.shape)}")
        momenta = self.momenta(u.double())
        outside = int((~self._passes(momenta)).sum())
        if outside:
            raise DomainError(f"{outside} of {len(u)} points lie outside the cut and cannot become events")
        uniform = torch.rand(len(u), generator=generator, dtype=torch.float64, device=generator.device)
        index = draw(self.flavour_probabilities(momenta), uniform.to(u.device))
        quarks = np.asarray(self.parameters.flavours, dtype=np.int32)[index.cpu().numpy()]
        return self._record(momenta, quarks, weights)

    def _passes(self, momenta: Tensor) -> Tensor:
        return durham_y23(momenta) > self.parameters.y_cut

    def _record(self, momenta: Tensor, quarks: NDArray[np.int32], weights: Tensor) -> EventBatch:
        n, p = len(quarks), self.parameters
        beams = beam_momenta(p.sqrt_s, momenta).expand(n, 2, 4)
        codes = np.zeros((n, 5), dtype=np.int32)
        codes[:, 0], codes[:, 1], codes[:, 4] = ELECTRON, -ELECTRON, GLUON
        codes[:, 2], codes[:, 3] = quarks, -quarks

        def rows(values: object, dtype: type[np.generic]) -> NDArray[Any]:
            row = np.asarray(values, dtype=dtype)
            return np.broadcast_to(row, (n, *row.shape)).copy()

        return EventBatch(
            momenta=torch.cat([beams, momenta], dim=1).detach().cpu().numpy(),
            masses=np.zeros((n, 5)),
            pdg_ids=codes,
            status=rows([INCOMING, INCOMING, FINAL, FINAL, FINAL], np.int8),
            mothers=rows([[0, 0], [0, 0], [1, 2], [1, 2], [1, 2]], np.int16),
            colours=rows([[0, 0], [0, 0], [TAG, 0], [0, TAG + 1], [TAG + 1, TAG]], np.int16),
            spins=np.full((n, 5), UNKNOWN_SPIN),
            weights=weights.detach().double().cpu().numpy(),
            scales=np.full(n, float(p.sqrt_s)),
            alpha_em=np.full(n, float(p.alpha_em)),
            alpha_s=np.full(n, float(p.alpha_s)),
            process_ids=np.ones(n, dtype=np.int32),
        )


def create_ee_to_3jets(**parameters: Any) -> EEToThreeJets:
    """Build the process from the fields of `EEToThreeJetsParameters`.

    Raises
    ------
    ConfigError
        If a parameter is unknown, of the wrong type or outside its range.

    Examples
    --------
    >>> create_ee_to_3jets(y_cut=0.02).parameters.y_cut
    0.02
    >>> create_ee_to_3jets(ycut=0.02)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: EEToThreeJetsParameters has no setting ycut; it has sqrt_s, y_cut, ...
    """
    return EEToThreeJets(EEToThreeJetsParameters(**parameters))


def _leading_cos_theta(partons: Tensor) -> Tensor:
    leading = partons[..., 0].argmax(-1)
    chosen = torch.take_along_dim(partons, leading[:, None, None], dim=1).squeeze(1)
    return chosen[:, 3] / chosen[:, 0]


def _scaled_energies(partons: Tensor) -> Tensor:
    return 2 * partons[..., 0] / partons[..., 0].sum(-1, keepdim=True)


def _observables(y_cut: float) -> tuple[Observable, ...]:
    def observable(
        name: str, label: str, low: float, high: float, function: LegFunction, log: bool = False
    ) -> Observable:
        return Observable(name, label, low, high, 40, of_legs(function, 3), log=log)

    return (
        observable("thrust", "thrust $T$", 2 / 3, 1.0, lambda p: thrust_axis(p)[0]),
        observable("y23", "$y_{23}$ (Durham)", y_cut, 1 / 3, durham_y23, log=True),
        observable("x1", "leading-jet $2 E / \\sqrt{s}$", 2 / 3, 1.0, lambda p: _scaled_energies(p).amax(-1)),
        observable("x_gluon", "gluon $2 E / \\sqrt{s}$", 0.0, 1.0, lambda p: _scaled_energies(p)[:, _GLUON_LEG]),
        observable("cos_theta_jet", "leading-jet $\\cos\\theta$", -1.0, 1.0, _leading_cos_theta),
        observable("cos_theta_thrust", "thrust axis $|\\cos\\theta|$", 0.0, 1.0, lambda p: thrust_axis(p)[1][:, 2]),
    )
