"""The density to be sampled: any callable, seen as a function on the unit cube with checks and counters."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nisampler.base import tuning
from nisampler.base.blame import place_of
from nisampler.base.checks import Dimension, Fraction, Natural, Positive, checked
from nisampler.base.device import resolve_device
from nisampler.density.channels import multichannel_of
from nisampler.density.spread import Call, Executor, Spread
from nisampler.density.values import ADAPTERS, Kind, Values, call_composed, in_unit_cube, index_of
from nisampler.errors import (
    ChannelError,
    ConfigError,
    DomainError,
    IntegrandCallError,
    IntegrandError,
    IntegrandShapeError,
    NonFiniteError,
    ShapeError,
    WorkerError,
)

_GRACE = 1000


class Integrand:
    """A function f on a box, made a function of the unit cube: u -> f(x(u)) · volume.

    The function may give several integrals at once, which then share their points. One of them steers: it is what the
    sampler learns and events are drawn from.

    Parameters
    ----------
    function
        Called with points x of the domain, float64. It may return negative values, and for several integrals (n, k)
        or a dictionary of (n,) instead of (n,). An attribute `seconds_per_call` states what a call costs, for the
        choice of a sampler by numbers of calls.
    dim
        Number of coordinates; by default that of `domain` or of `function.dim`.
    domain
        One (low, high) pair for each coordinate; the unit cube by default.
    kind
        "torch": maps a tensor (n, dim) to a tensor (n,). "numpy": the same with arrays. "scalar": maps one point
        (dim,) to a number, several numbers, or a dictionary of numbers; slow. "auto" tries them in this order on a few
        points, which count as calls. Of a function with channels it says how the function of the points is called.
    nonfinite
        Policy for NaN and infinite values. 0 (default): the first one raises. A fraction between 0 and 1: they are
        counted and set to zero as long as no more than that fraction of all calls is affected. A point with one such
        value among several has all of them set to zero.
    device
        Where a torch function expects its points.
    steer
        Name or number of the integral that steers; the first one by default.

    Raises
    ------
    ConfigError
        If the dimension is unknown or contradicts the domain, or an option is out of range.

    Examples
    --------
    >>> moments = Integrand(lambda x: {"norm": x[:, 0], "mean": x[:, 0] * x[:, 1]}, dim=2, steer="norm")
    >>> u = torch.tensor([[0.5, 0.25]])
    >>> moments(u), moments.values(u), moments.names
    (tensor([0.5000], dtype=torch.float64), tensor([[0.5000, 0.1250]], dtype=torch.float64), ('norm', 'mean'))
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
        steer: str | int | None = None,
    ) -> None:
        if not callable(function):
            raise ConfigError(f"an integrand must be callable, got {type(function).__name__}")
        checked("kind", kind, Kind)
        self.allowed_nonfinite: float = checked("nonfinite", nonfinite, Fraction)
        self.dim = _dimension(function, dim, domain)
        self.device = resolve_device(device)
        self.domain = _box(domain, self.dim).to(self.device)
        self._unit_cube = bool((self.domain[:, 0] == 0.0).all() and (self.domain[:, 1] == 1.0).all())
        self.volume = float((self.domain[:, 1] - self.domain[:, 0]).prod())
        self.unit = str(getattr(function, "unit", ""))
        self.name = str(getattr(function, "name", getattr(function, "__name__", type(function).__name__)))
        self.seconds_per_call: float | None = checked(
            "seconds_per_call", getattr(function, "seconds_per_call", None), Positive | None
        )
        self._assumed: float | None = getattr(function, "seconds_assumed", None)
        self._pace: float | None = self.seconds_per_call
        self._steer: str | int | None = checked("steer", steer, Natural | str | None)
        self._names: tuple[str, ...] | None = None
        self._limits: Callable[[], dict[str, int]] = getattr(function, "limits", dict)
        self._learned: Callable[[], Mapping[str, Tensor]] | None = getattr(function, "learned", None)
        self._restore: Callable[[Mapping[str, Tensor]], Any] | None = getattr(function, "restore", None)
        self._stored: dict[str, Tensor] = {}
        self._counts = {"calls": 0, "zeros": 0, "nonfinite": 0}
        self.kind, self.function, self._call = kind, function, ADAPTERS["torch"]
        if kind == "auto":
            self._detect(function)
        else:
            self._take(function, kind)

    def __call__(self, u: Tensor) -> Tensor:
        """Values f(x(u)) · volume of the integral that steers, float64, shape (n,), at cube points u of shape (n, dim).

        Raises
        ------
        ShapeError, DomainError
            If u is not (n, dim) or leaves the unit cube.
        ConfigError
            If no integral has the name or number that is to steer.
        IntegrandShapeError, IntegrandDtypeError, IntegrandCallError, NonFiniteError
            If the function misbehaves.
        """
        table, steered = self._table(u)
        return table if table.dim() == 1 else table[:, steered].contiguous()

    def values(self, u: Tensor) -> Tensor:
        """Values of all integrals (n, k) at cube points u (n, dim), as `__call__` gives those of one."""
        table, _ = self._table(u)
        return table.unsqueeze(1) if table.dim() == 1 else table

    def _table(self, u: Tensor) -> tuple[Tensor, int]:
        """Values (n,) or (n, k), checked and counted, and which column steers."""
        if u.dim() != 2 or u.shape[1] != self.dim:
            raise ShapeError(f"expected cube points of shape (n, {self.dim}), got {tuple(u.shape)}")
        if not in_unit_cube(u):
            raise DomainError("points for the integrand must lie in the unit cube")
        x = self.to_domain(u)
        if x.shape[0] == 0:
            return x.new_zeros(0, *([len(self.names)] if self.names else [])), 0
        found = self._evaluate(x)
        self._remember(found.names)
        values, steered = found.table, self.steered
        self._counts["calls"] += x.shape[0]
        bad = 0
        if not math.isfinite(float(values.sum())):  # which is quicker than to look at each of them
            finite = torch.isfinite(values) if values.dim() == 1 else torch.isfinite(values).all(1)
            bad = x.shape[0] - int(finite.sum())
            self._refuse_nonfinite(x, values, finite, bad)
            kept = finite if values.dim() == 1 else finite.unsqueeze(1)
            values = torch.where(kept, values, torch.zeros_like(values))
        own = values if values.dim() == 1 else values[:, steered]
        self._counts["zeros"] += x.shape[0] - int(torch.count_nonzero(own)) - bad
        return values * self.volume, steered

    @property
    def names(self) -> tuple[str, ...]:
        """Names of several integrals, known after the first call; "0", "1", ... where the function gives none.

        Empty for a function of one integral.
        """
        return self._names or ()

    @property
    def steered(self) -> int:
        """Number of the integral that steers, among those of `values`."""
        found = index_of(self._steer, self.names)
        if found < 0 or (self._names == () and self._steer is not None):
            known = ", ".join(self.names) or "one integral only"
            raise ConfigError(f"steer = {self._steer!r}: {self.name} returns {known}")
        return found

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

    @property
    def expected_seconds(self) -> float:
        """Seconds of a call as they are stated, else as a process assumes them, or the least that its kind takes."""
        return self.seconds_per_call or self._assumed or tuning.LEAST_CALL[self.kind]

    def view(self, function: Callable[[Tensor], Any]) -> Integrand:
        """The same integrand with `function`, a torch function, in place of its own; calls are counted together."""
        other = copy.copy(self)
        other._names = None
        other.function, other.kind, other._call = function, "torch", call_composed
        return other

    @contextmanager
    def sharing(
        self, executor: Executor, key: str | None = None, tell: Callable[[str], None] | None = None
    ) -> Iterator[Integrand]:
        """The same integrand, whose function the workers of an executor call until the block ends.

        Calls are counted together, and the values are those of the function called here: see `Spread`, also for `key`
        and `tell`. Of a function with channels only that of the points is shared out.

        Raises
        ------
        ConfigError
            As `shared_function` does.
        """
        other = copy.copy(self)
        own = multichannel_of(self.function, 1)
        spread = Spread(self.shared_function()[0], executor, self._pace, key, tell)
        if own is None:
            other._call = spread
        else:
            other.function = own.with_call(spread)
        limits = self._limits

        def counted() -> dict[str, int]:
            found = limits()
            return {name: found.get(name, 0) + spread.counted[name] for name in {**found, **spread.counted}}

        other._limits = counted
        try:
            yield other
        finally:
            spread.stop()

    def shared_function(self) -> tuple[Call, Callable[..., Any]]:
        """What workers call in place of this integrand's function, and how: of channels that of the points.

        Raises
        ------
        ConfigError
            If the function is a process of another kind than torch that makes its points by channels of its own.
        """
        own = multichannel_of(self.function, 1)
        if own is None:
            return self._call, self.function
        if own is not self.function and self.kind != "torch":
            raise ConfigError(
                f"{self.name} makes its points by channels of its own and takes no torch tensors, so that its function "
                "cannot be shared out: leave out the executor"
            )
        return own.call, own.function

    def to_domain(self, u: Tensor) -> Tensor:
        """Cube points (n, dim) as points of the domain, float64."""
        if self._unit_cube:
            return u.to(self.device, torch.float64, copy=True)
        low, high = self.domain[:, 0], self.domain[:, 1]
        return torch.addcmul(low, u.to(self.device, torch.float64), high - low).clamp(low, high)

    def counts(self) -> dict[str, int]:
        """The counters by name, for a checkpoint or a result."""
        return dict(self._counts)

    def limits(self) -> dict[str, int]:
        """What the function itself counts, by name: how often a part of it was at the end of its range, for example.

        It is what `function.limits()` returns, if it has such a method.
        """
        return dict(self._limits())

    def learned(self) -> dict[str, Tensor]:
        """What the function learned of itself, as tensors by name.

        It is what `function.learned()` returns, if it has such a method, and else what was restored.
        """
        return dict(self._stored if self._learned is None else self._learned())

    def restore_learned(self, learned: Mapping[str, Tensor]) -> None:
        """Hand what `learned` returned to `function.restore`, if the function has such a method."""
        self._stored = dict(learned)
        if self._restore is not None and learned:
            self._restore(learned)

    def restore_counts(self, counts: dict[str, int]) -> None:
        """Continue counting from what `counts` returned."""
        self._counts.update(counts)

    def _refuse_nonfinite(self, x: Tensor, values: Tensor, finite: Tensor, bad: int) -> None:
        self._counts["nonfinite"] += bad
        if not bad or self.nonfinite <= self.allowed_nonfinite * max(self.calls, _GRACE):
            return
        where = torch.nonzero(~finite)[:3, 0]
        shown = "; ".join(f"f({[round(c, 6) for c in x[i].tolist()]}) = {values[i].tolist()}" for i in where)
        raise NonFiniteError(
            f"{self.name}: {self.nonfinite} of {self.calls} values are NaN or infinite, more than the allowed "
            f"fraction {self.allowed_nonfinite}: {shown}. Mend the function there, or pass nonfinite=FRACTION "
            "to count such points and set them to zero"
        )

    def _take(self, function: Callable[..., Any], kind: Kind) -> None:
        """Call a function as one of this kind; one with channels passes that on to the function of its points."""
        as_kind = getattr(function, "as_kind", None)
        self.kind, self.function = kind, function if as_kind is None else as_kind(kind)
        self._call = ADAPTERS[kind] if as_kind is None else call_composed

    def _detect(self, function: Callable[..., Any]) -> None:
        """Take the first kind for which the function returns real numbers for each point, the same in any batch."""
        count = self.dim + 3
        steps = torch.arange(1, count + 1, dtype=torch.float64, device=self.device).unsqueeze(1)
        irrational = torch.sqrt(2.5 + torch.arange(self.dim, dtype=torch.float64, device=self.device))
        x = self.to_domain((steps * irrational) % 1.0)
        failures: list[IntegrandError] = []
        kinds: tuple[Kind, ...] = ("torch", "numpy", "scalar")
        mixing = False
        for kind in kinds:
            self._take(function, kind)
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("error", message="__array_wrap__")  # a NumPy function, given tensors
                    whole = self._evaluate(x.clone())
                    start = time.perf_counter()
                    part = self._evaluate(x[1:3].clone())
                    self._pace = self.seconds_per_call or (time.perf_counter() - start) / 2
            except IntegrandError as error:
                failures.append(error)
                continue
            finally:
                self._counts["calls"] += count + 2
            if _agree(whole, part) and not (mixing and whole.names and not whole.by_name):
                self._remember(whole.names)
                return
            mixing = True
            failures.append(
                IntegrandShapeError(
                    f"{self.name}: the value at a point depends on the other points of its batch; a function of one "
                    "point that returns several numbers needs kind='scalar'"
                )
            )
        named = [error for error in failures if not isinstance(error, IntegrandCallError)]
        raise (named or failures)[0]

    def _remember(self, names: tuple[str, ...]) -> None:
        """Note which integrals the function gives; they must stay the same."""
        if self._names is None:
            self._names = names
            _ = self.steered
        elif self._names != names:
            before, now = (", ".join(some) or "one integral" for some in (self._names, names))
            raise IntegrandShapeError(f"{self.name} returned {now} after {before}: return the same for all points")

    def _evaluate(self, x: Tensor) -> Values:
        try:
            returned = self._call(self.function, x)
        except (ChannelError, IntegrandError, WorkerError):
            raise
        except Exception as error:
            raise IntegrandCallError(
                f"{self.name} raised {type(error).__name__}: {error} ({place_of(error)}; called as a {self.kind} "
                f"function with {x.shape[0]} points)"
            ) from error
        found = Values.of(self.name, returned, x.shape[0])
        return replace(found, table=found.table.detach().to(self.device, torch.float64))


def _agree(whole: Values, part: Values) -> bool:
    """Whether the second and third of all points have the values that they have on their own."""
    largest = part.table.nan_to_num(0.0, 0.0, 0.0).abs().amax(0)
    same = torch.isclose(whole.table[1:3], part.table, rtol=1e-5, atol=0.0, equal_nan=True)
    close = (whole.table[1:3] - part.table).abs() <= 1e-5 * (part.table.abs() + largest)
    return whole.names == part.names and bool((same | close).all())


def _dimension(function: Callable[..., Any], dim: int | None, domain: Sequence[tuple[float, float]] | None) -> int:
    found = dim
    if found is None:
        found = len(domain) if domain is not None else getattr(function, "dim", None)
    if found is None:
        raise ConfigError("dim is not known: give dim, the number of coordinates, or a domain")
    count: int = checked("dim", found, Dimension)
    if domain is not None and len(domain) != count:
        raise ConfigError(f"domain has {len(domain)} intervals but dim is {count}")
    return count


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
