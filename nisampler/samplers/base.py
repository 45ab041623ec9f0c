"""Samplers: invertible maps of the unit cube that know the density of every point they make.

A sampler takes uniform points u of the cube to points x with density q(x) = |du/dx|. All of them are twins behind
`Sampler`, so that every feature works with each of them; `nisampler.samplers.trainable` adds what a training needs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from nisampler.base.checks import Coordinates, Natural, checked, shown
from nisampler.base.device import resolve_device
from nisampler.density.integrand import Integrand
from nisampler.density.values import in_unit_cube
from nisampler.errors import DomainError, ShapeError, StorageError

State = tuple[dict[str, Tensor], dict[str, Any]]

_TILE = 8192
# The ends of the open unit interval: edges have no measure, but rounding finds them.
_LEAST, _MOST = torch.finfo(torch.float64).tiny, 1.0 - 2.0**-53


class Sampler(ABC):
    """A map of the unit cube onto itself together with the density it gives to its points.

    All points are float64 on `device`, inside the open cube: never exactly 0 or 1, where functions such as
    1/sqrt(1 - x) are infinite. Densities come as log_q of shape (n,). No gradients are recorded. A subclass
    gives `dim`, `device`, `_map` and `_unmap`, and `state` and `from_state` if it is to be stored
    (see `nisampler.samplers.registry`).

    Attributes
    ----------
    kind
        Under which name it is stored.
    dim
        Number of coordinates.
    mixture
        Whether every channel is evaluated for each point.

    Examples
    --------
    >>> class Squares(Sampler):
    ...     kind, dim, device = "squares", 1, torch.device("cpu")
    ...     def _map(self, u):
    ...         return u.square(), -torch.log(2.0 * u).sum(1)
    ...     def _unmap(self, x):
    ...         return x.sqrt(), -torch.log(2.0 * x.sqrt()).sum(1)
    >>> x, log_q = Squares().map(torch.tensor([[0.5]]))
    >>> x.item(), log_q.exp().item()
    (0.25, 1.0)
    """

    kind: ClassVar[str]
    dim: int
    mixture: bool = False

    @abstractmethod
    def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """u (n, dim) -> x (n, dim), log q(x) (n,)."""

    @abstractmethod
    def _unmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (n, dim) -> u (n, dim), log q(x) (n,)."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where points are made."""

    def state(self) -> State:
        """Tensors and JSON metadata, its `kind` among them, from which `from_state` makes the same sampler.

        Raises
        ------
        StorageError
            If this sampler has no state of its own.
        """
        raise StorageError(f"a {self.kind} sampler cannot be stored: give its class state() and from_state()")

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Self:
        """The sampler whose `state` this is, on the device of the tensors; `sampler_from_state` finds the class."""
        raise StorageError(f"a {cls.kind} sampler cannot be read: give its class state() and from_state()")

    def __repr__(self) -> str:
        return self.describe()

    def describe(self) -> str:
        """One line for a summary."""
        return self.kind

    def cost(self, costs: Mapping[str, float]) -> float:
        """Seconds of making a point, from those of a "grid", a "tree" and a "flow"; by default those of a grid."""
        return costs["grid"]

    def for_unweighting(self, u: Tensor, weights: Tensor) -> tuple[Sampler, Tensor] | None:
        """A twin with other shares of its channels, better for unweighting, or None where there is no such thing.

        Parameters
        ----------
        u, weights
            Latent points (n, dim) and their weights (n,). The twin learns from the first half of them.

        Returns
        -------
        tuple
            The twin, and the ratio (n - n // 2,) of its density to the present one at the points of the second half.
        """
        return None

    def variants(self) -> list[Sampler]:
        """Other ways to use what was learned, to be compared with this one."""
        return []

    def view(self, integrand: Integrand) -> Integrand:
        """The integrand as this sampler is to be used with it: a multichannel sampler brings its channel weights."""
        return integrand

    def map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Points x (n, dim) of the cube and their log density log q(x) (n,), from latent points u (n, dim).

        Raises
        ------
        ShapeError, DomainError
            If u is not (n, dim) or leaves the unit cube.
        """
        return self._tiled(self._map, u)

    def unmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The latent point u (n, dim) of each x (n, dim), and log q(x) (n,); raises as `map` does."""
        return self._tiled(self._unmap, x)

    def log_prob(self, x: Tensor) -> Tensor:
        """log q(x), shape (n,); raises as `map` does."""
        return self.unmap(x)[1]

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw n independent points: x (n, dim) and log q(x) (n,). The generator lives on `device`."""
        u = torch.rand(checked("n", n, Natural), self.dim, generator=generator, dtype=torch.float64, device=self.device)
        return self.map(u)

    def _tiled(self, function: Callable[[Tensor], tuple[Tensor, Tensor]], points: Tensor) -> tuple[Tensor, Tensor]:
        if not isinstance(points, Tensor):
            raise ShapeError(f"expected a tensor of shape (n, {self.dim}), got {shown(points)}")
        if points.dim() != 2 or points.shape[1] != self.dim:
            raise ShapeError(f"expected points of shape (n, {self.dim}), got {tuple(points.shape)}")
        points = points.to(self.device, torch.float64)
        if not in_unit_cube(points):
            raise DomainError(f"points of a {self.kind} sampler must lie in the unit cube")
        size = _TILE if self.device.type == "cpu" else max(1, points.shape[0])
        with torch.no_grad():
            if len(points) <= size:
                y, log_q = function(points)
                return y.clamp(_LEAST, _MOST), log_q
            whole, densities = torch.empty_like(points), points.new_empty(len(points))
            for first in range(0, len(points), size):
                y, log_q = function(points[first : first + size])
                torch.clamp(y, _LEAST, _MOST, out=whole[first : first + size])
                densities[first : first + size] = log_q
            return whole, densities


class UniformSampler(Sampler):
    """q = 1 on the cube: plain Monte Carlo.

    >>> UniformSampler(2).sample(5, torch.Generator())[1]
    tensor([0., 0., 0., 0., 0.], dtype=torch.float64)
    """

    kind = "uniform"

    def __init__(self, dim: int, device: torch.device | str = "cpu") -> None:
        self.dim = checked("dim", dim, Coordinates)
        self._device = resolve_device(device)

    @property
    def device(self) -> torch.device:
        return self._device

    def _map(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return u, u.new_zeros(u.shape[0])

    def _unmap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._map(x)

    def state(self) -> State:
        return {}, {"kind": self.kind, "dim": self.dim}

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Self:
        return cls(meta["dim"])
