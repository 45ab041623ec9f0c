"""What the constituents of a jet make together: pT, mass and energy-flow polynomials.

Constituents are massless and measured from the axis of their jet, so pT and mass are in units of the jet's pT.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nisampler.calo.jets.jets import Constituents, Floats, Jets

EFPS = ("square", "triangle with a tail", "path, end doubled", "path, middle doubled", "star, a ray doubled")
"""The connected graphs of four vertices and four edges, which the `jetnet` package takes for its W1."""
_CHUNK_NUMBERS = 1 << 22


def momenta(constituents: Constituents) -> Floats:
    """Four-momenta (n, m, 4) as E, px, py, pz over the jet's pT, of etarel, phirel, ptrel (n, m, 3).

    >>> momenta(np.array([[[0.0, 0.0, 0.5]]], dtype=np.float32))
    array([[[0.5, 0.5, 0. , 0. ]]])
    """
    eta, phi, pt = (constituents[..., index].astype(np.float64) for index in range(3))
    return np.stack([pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], axis=-1)


def totals(constituents: Constituents) -> tuple[Floats, Floats]:
    """pT and mass (n,) of all constituents (n, m, 3) together, over the jet's pT; zeros count nothing.

    >>> one = np.array([[[0.1, 0.0, 0.5], [-0.1, 0.0, 0.5]]], dtype=np.float32)
    >>> [number.round(4) for number in totals(one)]
    [array([1.]), array([0.1002])]
    """
    total = momenta(constituents).sum(axis=1)
    pt = np.hypot(total[:, 1], total[:, 2])
    # (E - pz)(E + pz) - pT^2 loses less than E^2 - p^2 does.
    square = (total[:, 0] - total[:, 3]) * (total[:, 0] + total[:, 3]) - pt**2
    return pt, np.sqrt(np.clip(square, 0.0, None))


def efps(constituents: Constituents) -> Floats:
    r"""The energy-flow polynomials (n, 5) of `EFPS` (1712.07124).

    :math:`\sum_{i_1 \ldots i_4} z_{i_1} \cdots z_{i_4} \prod_{(k, l)} \theta_{i_k i_l}` over the edges of a
    graph, with z = ptrel and θ the distance in pseudorapidity and azimuth.

    Examples
    --------
    >>> one = np.array([[[0.1, 0.0, 0.5], [-0.1, 0.0, 0.5]]], dtype=np.float32)
    >>> (1e4 * efps(one)).round(6)
    array([[2., 0., 2., 2., 2.]])
    """
    return np.concatenate([_efps(part) for part in _pieces(constituents)])


def _pieces(constituents: Constituents) -> Iterator[Constituents]:
    """Some jets at a time, so that matrices of all pairs fit into memory."""
    size = max(1, _CHUNK_NUMBERS // constituents.shape[1] ** 2)
    for start in range(0, max(1, len(constituents)), size):
        yield constituents[start : start + size]


def _efps(constituents: Constituents) -> Floats:
    eta, phi, z = (constituents[..., index].astype(np.float64) for index in range(3))
    square = (eta[:, :, None] - eta[:, None]) ** 2 + (phi[:, :, None] - phi[:, None]) ** 2
    theta = np.sqrt(square)
    once, twice = np.einsum("nij,nj->ni", theta, z), np.einsum("nij,nj->ni", square, z)
    steps = (theta * z[:, None]) @ theta  # sum over a vertex between two others
    triangle = np.einsum("nij,nij,nj->ni", theta, steps, z)
    return np.stack(
        [
            np.einsum("nij,ni,nj->n", steps**2, z, z),
            (z * triangle * once).sum(axis=1),
            (z * twice * np.einsum("nij,nj->ni", theta, z * once)).sum(axis=1),
            np.einsum("nij,ni,nj->n", square, z * once, z * once),
            (z * twice * once**2).sum(axis=1),
        ],
        axis=1,
    )


def features(jets: Jets) -> Floats:
    """What distances compare (n, 8): mass and pT over the jet's pT, the share of places taken, and the polynomials.

    >>> one = np.array([[[0.1, 0.0, 0.6], [-0.1, 0.0, 0.4]]])
    >>> features(Jets(one, np.ones((1, 2), dtype=bool), [0], [1000.0], [0.3], [98.0])).shape
    (1, 8)
    """
    pt, mass = totals(jets.constituents)
    return np.column_stack([mass, pt, jets.count / jets.most, efps(jets.constituents)])


def calibrated(constituents: Constituents, pt: Floats, mass: Floats, rounds: int = 4) -> Constituents:
    """The same constituents with these pT and mass (n,) over the jet's pT.

    All ptrel of a jet are scaled by one factor and all angles by another, which is kept between a half and two, and the
    angles within ±π/2: a mass that cannot be reached in this way is approached.

    >>> one = np.array([[[0.1, 0.0, 0.6], [-0.1, 0.0, 0.4]]], dtype=np.float32)
    >>> [number.round(4) for number in totals(calibrated(one, np.array([0.9]), np.array([0.12])))]
    [array([0.9]), array([0.12])]
    """
    angles, z = constituents[..., :2].astype(np.float64), constituents[..., 2:].astype(np.float64)
    factor: NDArray[np.float64] = np.ones(len(z))
    for _ in range(rounds):
        found_pt, found_mass = totals(np.concatenate([angles * factor[:, None, None], z], axis=2))
        z = z * (pt / np.where(found_pt > 0.0, found_pt, pt))[:, None, None]
        # Of a ratio of masses the scale of the momenta drops out.
        wanted = (mass / pt) / np.where(found_mass > 0.0, found_mass / np.where(found_pt > 0.0, found_pt, 1.0), np.inf)
        factor = np.clip(np.where(wanted > 0.0, factor * wanted, factor), 0.5, 2.0)
    found_pt, _ = totals(np.concatenate([angles * factor[:, None, None], z], axis=2))
    z = z * (pt / np.where(found_pt > 0.0, found_pt, pt))[:, None, None]
    turned = np.clip(angles * factor[:, None, None], -np.pi / 2, np.pi / 2)
    return np.concatenate([turned, z], axis=2).astype(np.float32)
