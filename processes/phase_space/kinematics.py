"""Four-vector algebra in torch: last axis (E, px, py, pz), GeV, every other axis is a batch axis."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from nisampler.base.four_vectors import delta_phi as delta_phi
from nisampler.base.four_vectors import dot as dot
from nisampler.base.four_vectors import eta as eta
from nisampler.base.four_vectors import mass as mass
from nisampler.base.four_vectors import mass2 as mass2
from nisampler.base.four_vectors import phi as phi
from nisampler.base.four_vectors import pt as pt
from nisampler.base.four_vectors import rapidity as rapidity
from nisampler.errors import ShapeError

MAX_THRUST_PARTICLES = 16


def momentum(p: Tensor) -> Tensor:
    """Length of the three-momentum |p|.

    >>> momentum(torch.tensor([5.0, 0.0, 3.0, 4.0]))
    tensor(5.)
    """
    return p[..., 1:].square().sum(-1).sqrt()


def cos_theta(p: Tensor) -> Tensor:
    """Cosine of the polar angle, pz / |p|.

    >>> cos_theta(torch.tensor([5.0, 3.0, 0.0, 4.0]))
    tensor(0.8000)
    """
    return p[..., 3] / momentum(p)


def delta_r(a: Tensor, b: Tensor) -> Tensor:
    """Distance sqrt(delta_eta^2 + delta_phi^2) in pseudorapidity and azimuth.

    >>> delta_r(torch.tensor([1.0, 0.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 0.0, 0.0]))
    tensor(1.5708)
    """
    return torch.hypot(eta(a) - eta(b), delta_phi(a, b))


def boost(p: Tensor, velocity: Tensor) -> Tensor:
    """Active boost of p (..., 4) by the velocity (..., 3), |velocity| < 1.

    A particle at rest of mass m becomes one of momentum gamma m velocity. The boost by -velocity undoes it.

    >>> boost(torch.tensor([3.0, 0.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 0.8]))
    tensor([5., 0., 0., 4.])
    """
    beta2 = velocity.square().sum(-1)
    gamma = (1 - beta2).rsqrt()
    along = (velocity * p[..., 1:]).sum(-1)
    factor = gamma.square() / (1 + gamma) * along + gamma * p[..., 0]
    space = p[..., 1:] + factor.unsqueeze(-1) * velocity
    return torch.cat([(gamma * (p[..., 0] + along)).unsqueeze(-1), space], dim=-1)


def boost_from_rest(p: Tensor, frame: Tensor) -> Tensor:
    """Take p from the rest frame of the massive momentum `frame` to the frame in which `frame` is given.

    >>> boost_from_rest(torch.tensor([3.0, 0.0, 0.0, 0.0]), torch.tensor([5.0, 0.0, 0.0, 4.0]))
    tensor([5., 0., 0., 4.])
    """
    return boost(p, frame[..., 1:] / frame[..., :1])


def boost_to_rest(p: Tensor, frame: Tensor) -> Tensor:
    """Take p to the rest frame of the massive momentum `frame`.

    >>> p = torch.tensor([5.0, 0.0, 0.0, 4.0], dtype=torch.float64)
    >>> round(boost_to_rest(p, p)[0].item(), 12)
    3.0
    """
    return boost(p, -frame[..., 1:] / frame[..., :1])


def rotate(p: Tensor, rotation: Tensor) -> Tensor:
    """Rotate the three-momenta of p (..., 4) by the matrices (..., 3, 3).

    >>> rotate(torch.tensor([2.0, 1.0, 0.0, 0.0]), torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    tensor([2., 0., 1., 0.])
    """
    space = (rotation @ p[..., 1:].unsqueeze(-1)).squeeze(-1)
    return torch.cat([p[..., :1], space], dim=-1)


def direction(cosine: Tensor, azimuth: Tensor) -> Tensor:
    """Unit three-vectors (..., 3) from the cosine of the polar angle and the azimuth.

    >>> direction(torch.tensor([1.0]), torch.tensor([0.3]))
    tensor([[0., 0., 1.]])
    """
    sine = ((1 - cosine) * (1 + cosine)).clamp(min=0).sqrt()
    return torch.stack([sine * torch.cos(azimuth), sine * torch.sin(azimuth), cosine], dim=-1)


def durham_y(p: Tensor) -> Tensor:
    """Durham distances y_ij = 2 min(E_i^2, E_j^2)(1 - cos theta_ij) / E_vis^2 of all pairs.

    (..., k, 4) to (..., k (k - 1) / 2), pairs in the order of `itertools.combinations`.
    Source: Catani et al., Phys. Lett. B 269 (1991) 432.

    >>> p = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, -1.0, 0.0, 0.0]])
    >>> durham_y(p)
    tensor([1.])
    """
    visible2 = p[..., 0].sum(-1).square()
    distances = []
    for i, j in itertools.combinations(range(p.shape[-2]), 2):
        a, b = p[..., i, :], p[..., j, :]
        unit_a = a[..., 1:] / momentum(a).unsqueeze(-1)
        unit_b = b[..., 1:] / momentum(b).unsqueeze(-1)
        one_minus_cos = 0.5 * (unit_a - unit_b).square().sum(-1)
        distances.append(2 * torch.minimum(a[..., 0], b[..., 0]).square() * one_minus_cos / visible2)
    return torch.stack(distances, dim=-1)


def leg_quantities(p: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """What momenta (n, k, 4) of legs with these names look like, in GeV: pT, eta, pair masses, Delta R, total mass.

    Parameters
    ----------
    p
        Momenta.
    names
        Of the legs, one for each.

    Raises
    ------
    ShapeError
        If there is not one name for each leg.

    Examples
    --------
    >>> p = torch.tensor([[[5.0, 3.0, 0.0, 4.0], [5.0, -3.0, 0.0, -4.0]]])
    >>> {name: round(value.item(), 3) for name, value in leg_quantities(p, ("a", "b")).items()}
    {'pT(a)': 3.0, 'pT(b)': 3.0, 'eta(a)': 1.099, 'eta(b)': -1.099, 'm(a b)': 10.0, 'dR(a b)': 3.834}
    """
    if p.ndim != 3 or p.shape[1:] != (len(names), 4):
        raise ShapeError(f"momenta of {len(names)} legs must have shape (n, {len(names)}, 4), got {tuple(p.shape)}")
    found = {f"pT({name})": pt(p[:, k]) for k, name in enumerate(names)}
    found |= {f"eta({name})": eta(p[:, k]) for k, name in enumerate(names)}
    for a, b in itertools.combinations(range(len(names)), 2):
        pair = f"({names[a]} {names[b]})"
        found |= {f"m{pair}": mass(p[:, a] + p[:, b]), f"dR{pair}": delta_r(p[:, a], p[:, b])}
    return found | ({"m(all)": mass(p.sum(1))} if len(names) > 2 else {})


def durham_y23(p: Tensor) -> Tensor:
    """The y_cut at which three partons (..., 3, 4) become two jets: the smallest Durham distance.

    Raises
    ------
    ShapeError
        If there are not three partons.

    Examples
    --------
    >>> turn = torch.arange(3) * 2 * torch.pi / 3
    >>> star = torch.stack([torch.ones(3), turn.cos(), turn.sin(), torch.zeros(3)], dim=-1)
    >>> round(durham_y23(star).item(), 5)
    0.33333
    """
    if p.shape[-2:] != (3, 4):
        raise ShapeError(f"durham_y23 takes momenta of shape (..., 3, 4), got {tuple(p.shape)}")
    return durham_y(p).amin(-1)


def thrust_axis(p: Tensor) -> tuple[Tensor, Tensor]:
    """Thrust T = max_n sum_i |p_i . n| / sum_i |p_i| and its unit axis n, exact for a few particles.

    The maximum is reached where n is along sum_i s_i p_i for some signs s_i, so all 2^(k-1) choices are tried
    (Brandt and Dahmen, Z. Phys. C 1 (1979) 61). The axis is turned into the hemisphere of positive z.

    Parameters
    ----------
    p
        Momenta of shape (..., k, 4).

    Returns
    -------
    Thrust of shape (...) and axis of shape (..., 3).

    Raises
    ------
    ShapeError
        If there are fewer than 2 or more than 16 particles.

    Examples
    --------
    >>> p = torch.tensor([[1.0, 0.0, 0.0, -1.0], [1.0, 0.0, 0.0, 1.0]])
    >>> value, axis = thrust_axis(p)
    >>> value, axis[2]
    (tensor(1.), tensor(1.))
    """
    count = p.shape[-2]
    if not 2 <= count <= MAX_THRUST_PARTICLES:
        raise ShapeError(f"thrust takes 2 to {MAX_THRUST_PARTICLES} particles, got {count}")
    signs = p.new_tensor([(1.0, *rest) for rest in itertools.product((1.0, -1.0), repeat=count - 1)])
    sums = signs @ p[..., 1:]
    lengths, best = sums.square().sum(-1).max(-1)
    axis = torch.take_along_dim(sums, best[..., None, None], dim=-2).squeeze(-2)
    length = lengths.sqrt()
    axis = axis / length.unsqueeze(-1)
    axis = torch.where(axis[..., 2:] < 0, -axis, axis)
    return length / momentum(p).sum(-1), axis


def thrust(p: Tensor) -> Tensor:
    """Thrust of the momenta (..., k, 4), see `thrust_axis`; 2/3 for three symmetric partons, 1 for two.

    >>> thrust(torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, -1.0, 0.0, 0.0]]))
    tensor(1.)
    """
    return thrust_axis(p)[0]
