"""The density to be sampled: any callable, seen as a function on the unit cube with checks and counters."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from nisampler.errors import (
    ChannelError,
    ConfigError,
    DomainError,
    IntegrandCallError,
    IntegrandDtypeError,
    IntegrandError,
    IntegrandShapeError,
    NonFiniteError,
    ShapeError,
)

Kind = Literal["auto", "torch", "numpy", "scalar"]

_GRACE = 1000
_REAL = (torch.float32, torch.float64)
_EXACT = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def _call_torch(function: Callable[..., Any], x: Tensor) -> Any:
    return function(x)


def _call_numpy(function: Callable[..., Any], x: Tensor) -> Any:
    return function(x.cpu().numpy())


def _call_scalar(function: Callable[..., Any], x: Tensor) -> Any:
    return np.array([function(point) for point in x.cpu().numpy()])


_ADAPTERS: dict[str, Callable[[Callable[..., Any], Tensor], Any]] = {
    "torch": _call_torch,
    "numpy": _call_numpy,
    "scalar": _call_scalar,
}


class Integrand:
    """A function f on a box, made a function of the unit cube: u -> f(x(u)) · volume.

    Parameters
    ----------
    function
        Called with points x of the domain, float64. It may return negative values.
    dim
        Number of coordinates; by default that of `domain` or of `function.dim`.
    domain
        One (low, high) pair for each coordinate; the unit cube by default.
    kind
        "torch": maps a tensor (n, dim) to a tensor (n,). "numpy": the same with arrays. "scalar": maps one point
        (dim,) to a number; slow. "auto" tries them in this order on a few points, which count as calls.
    nonfinite
        Policy for NaN and infinite values. 0 (default): the first one raises. A fraction between 0 and 1: they are
        counted and set to zero as long as no more than that fraction of all calls is affected.
    device
        Where a torch function expects its points.

    Raises
    ------
    ConfigError
        If the dimension is unknown or contradicts the domain, or an option is out of range.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        dim: int | None = None,
        *,
        domain: Sequence[tuple[float, float]] | None = None,
        kind: Kind = "auto",
        nonfinite: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> None:
        if not callable(function):
            raise ConfigError(f"an integrand must be callable, got {type(function).__name__}")
        if kind != "auto" and kind not in _ADAPTERS:
            raise ConfigError(f"kind must be 'auto' or one of {sorted(_ADAPTERS)}, got {kind!r}")
        if not 0.0 <= nonfinite < 1.0:
            raise ConfigError(f"nonfinite is a fraction of the calls in [0, 1), got {nonfinite}")
        self.function = function
        self.dim = _dimension(function, dim, domain)
        self.device = torch.device(device)
        self.domain = _box(domain, self.dim).to(self.device)
        self.volume = float((self.domain[:, 1] - self.domain[:, 0]).prod())
        self.unit = str(getattr(function, "unit", ""))
        self.name = str(getattr(function, "name", getattr(function, "__name__", type(function).__name__)))
        self.allowed_nonfinite = nonfinite
        self._counts = {"calls": 0, "zeros": 0, "nonfinite": 0}
        self.kind = self._detect() if kind == "auto" else kind

    def __call__(self, u: Tensor) -> Tensor:
        """Values f(x(u)) · volume, float64, shape (n,), at cube points u of shape (n, dim).

        Raises
        ------
        ShapeError, DomainError
            If u is not (n, dim) or leaves the unit cube.
        IntegrandShapeError, IntegrandDtypeError, IntegrandCallError, NonFiniteError
            If the function misbehaves.
        """
        if u.dim() != 2 or u.shape[1] != self.dim:
            raise ShapeError(f"expected cube points of shape (n, {self.dim}), got {tuple(u.shape)}")
        if not bool(((u >= 0.0) & (u <= 1.0)).all()):
            raise DomainError("points for the integrand must lie in the unit cube")
        x = self.to_domain(u)
        if x.shape[0] == 0:
            return x.new_zeros(0)
        values = self._evaluate(self.kind, x)
        self._counts["calls"] += x.shape[0]
        finite = torch.isfinite(values)
        bad = x.shape[0] - int(finite.sum())
        if bad:
            self._refuse_nonfinite(x, values, finite, bad)
            values = torch.where(finite, values, torch.zeros_like(values))
        self._counts["zeros"] += int((values == 0.0).sum()) - bad
        return values * self.volume

    @property
    def calls(self) -> int:
        """Number of points evaluated so far."""
        return self._counts["calls"]

    @property
    def zeros(self) -> int:
        """Number of points that gave exactly zero."""
        return self._counts["zeros"]

    @property
    def nonfinite(self) -> int:
        """Number of points that gave NaN or infinity."""
        return self._counts["nonfinite"]

    def view(self, function: Callable[[Tensor], Tensor]) -> Integrand:
        """The same integrand with `function`, a torch function, in place of its own; calls are counted together."""
        other = copy.copy(self)
        other.function, other.kind = function, "torch"
        return other

    def to_domain(self, u: Tensor) -> Tensor:
        """Cube points (n, dim) as points of the domain, float64."""
        low, high = self.domain[:, 0], self.domain[:, 1]
        return torch.addcmul(low, u.to(self.device, torch.float64), high - low).clamp(low, high)

    def counts(self) -> dict[str, int]:
        """The counters by name, for a checkpoint or a result."""
        return dict(self._counts)

    def restore_counts(self, counts: dict[str, int]) -> None:
        """Continue counting from what `counts` returned."""
        self._counts.update(counts)

    def _refuse_nonfinite(self, x: Tensor, values: Tensor, finite: Tensor, bad: int) -> None:
        self._counts["nonfinite"] += bad
        if self.nonfinite <= self.allowed_nonfinite * max(self.calls, _GRACE):
            return
        where = torch.nonzero(~finite)[:3, 0]
        shown = "; ".join(f"f({[round(c, 6) for c in x[i].tolist()]}) = {float(values[i])}" for i in where)
        raise NonFiniteError(
            f"{self.name}: {self.nonfinite} of {self.calls} values are NaN or infinite, more than the allowed "
            f"fraction {self.allowed_nonfinite}: {shown}. Mend the function there, or pass nonfinite=FRACTION "
            "to count such points and set them to zero"
        )

    def _detect(self) -> str:
        """The first adapter under which the function returns one real number per point, the same in any batch."""
        count = self.dim + 3
        steps = torch.arange(1, count + 1, dtype=torch.float64, device=self.device).unsqueeze(1)
        irrational = torch.sqrt(2.5 + torch.arange(self.dim, dtype=torch.float64, device=self.device))
        x = self.to_domain((steps * irrational) % 1.0)
        failures: list[IntegrandError] = []
        for kind in _ADAPTERS:
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("error", message="__array_wrap__")  # a NumPy function, given tensors
                    values = self._evaluate(kind, x.clone())
                    part = self._evaluate(kind, x[1:3].clone())
            except IntegrandError as error:
                failures.append(error)
                continue
            finally:
                self._counts["calls"] += count + 2
            largest = float(part.nan_to_num(0.0, 0.0, 0.0).abs().max())
            if torch.allclose(values[1:3], part, rtol=1e-5, atol=1e-5 * largest, equal_nan=True):
                return kind
            failures.append(
                IntegrandShapeError(f"{self.name}: the value at a point depends on the other points of its batch")
            )
        named = [error for error in failures if not isinstance(error, IntegrandCallError)]
        raise (named or failures)[0]

    def _evaluate(self, kind: str, x: Tensor) -> Tensor:
        try:
            returned = _ADAPTERS[kind](self.function, x)
        except ChannelError:
            raise
        except Exception as error:
            raise IntegrandCallError(
                f"{self.name} raised {type(error).__name__}: {error} (called as a {kind} function with "
                f"{x.shape[0]} points)"
            ) from error
        return self._as_values(returned, x.shape[0])

    def _as_values(self, returned: Any, n: int) -> Tensor:
        try:
            values = returned if isinstance(returned, Tensor) else torch.as_tensor(np.asarray(returned))
        except (TypeError, ValueError) as error:
            raise IntegrandDtypeError(
                f"{self.name} returned {type(returned).__name__}; return one real number for each point"
            ) from error
        if values.dtype not in _REAL + _EXACT:
            raise IntegrandDtypeError(
                f"{self.name} returned {values.dtype}; return real numbers in float64 or float32 "
                "(half precision loses the digits an integral needs)"
            )
        if values.shape != (n,):
            raise IntegrandShapeError(
                f"{self.name} returned shape {tuple(values.shape)} for {n} points; return shape ({n},), "
                "one number for each point"
            )
        return values.detach().to(self.device, torch.float64)


def _dimension(function: Callable[..., Any], dim: int | None, domain: Sequence[tuple[float, float]] | None) -> int:
    found = dim
    if found is None:
        found = len(domain) if domain is not None else getattr(function, "dim", None)
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise ConfigError(f"dim must be a positive integer (or give a domain), got {found!r}")
    if domain is not None and len(domain) != found:
        raise ConfigError(f"domain has {len(domain)} intervals but dim is {found}")
    return found


def _box(domain: Sequence[tuple[float, float]] | None, dim: int) -> Tensor:
    if domain is None:
        return torch.tensor([[0.0, 1.0]] * dim, dtype=torch.float64)
    try:
        box = torch.tensor([[float(low), float(high)] for low, high in domain], dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"domain must be (low, high) pairs of numbers, got {domain!r}") from error
    if not bool(torch.isfinite(box).all()) or not bool((box[:, 0] < box[:, 1]).all()):
        raise ConfigError(f"every interval of the domain must be finite with low < high, got {domain!r}")
    return box
