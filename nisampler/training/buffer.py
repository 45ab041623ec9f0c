"""Stored points with the integrand and the exact density they were drawn from, to be used more than once."""

from __future__ import annotations

import torch
from torch import Tensor

from nisampler.base.checks import Coordinates, Count, checked
from nisampler.errors import ShapeError


class Buffer:
    """A ring of points: the oldest make room for the newest. Its memory is bounded and allocated once.

    A multichannel integrand stores its channel in the first coordinate of the cube, its prior weights and features in
    the extra columns, and |f| before any channel weight, so that all weights can be learned from stored points.

    Parameters
    ----------
    dim
        Number of coordinates.
    capacity
        Largest number of points; it may exceed 2^24.
    device, dtype
        Where and in which precision points are kept.
    extra
        Number of further columns.

    Examples
    --------
    >>> buffer = Buffer(1, 3)
    >>> buffer.add(torch.tensor([[0.1], [0.9]]), torch.tensor([1.0, 2.0]), torch.zeros(2))
    >>> len(buffer), buffer.newest(1)[1]
    (2, tensor([2.]))
    """

    def __init__(
        self,
        dim: int,
        capacity: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        extra: int = 0,
    ) -> None:
        dim, capacity = checked("dim", dim, Coordinates), checked("capacity", capacity, Count)
        self.x = torch.zeros(capacity, dim, device=device, dtype=dtype)
        self.f = torch.zeros(capacity, device=device, dtype=dtype)
        self.log_g = torch.zeros(capacity, device=device, dtype=dtype)
        self.extra = torch.zeros(capacity, extra, device=device, dtype=dtype)
        self.written = 0

    def __len__(self) -> int:
        return min(self.written, self.capacity)

    @property
    def capacity(self) -> int:
        """Largest number of points."""
        return int(self.x.shape[0])

    def add(self, x: Tensor, f: Tensor, log_g: Tensor, extra: Tensor | None = None) -> None:
        """Store points x (n, dim) with |f| (n,), the log density log_g (n,) they were drawn from, and extra (n, k)."""
        if x.shape[0] > self.capacity:
            raise ShapeError(f"{x.shape[0]} points do not fit into a buffer of {self.capacity}")
        start = self.written % self.capacity
        head = min(x.shape[0], self.capacity - start)
        extra = x.new_zeros(len(x), 0) if extra is None else extra
        for store, new in ((self.x, x), (self.f, f), (self.log_g, log_g), (self.extra, extra)):
            store[start : start + head] = new[:head]
            store[: x.shape[0] - head] = new[head:]
        self.written += x.shape[0]

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """n stored points, chosen with replacement: x (n, dim), f (n,), log_g (n,), extra (n, k)."""
        if not len(self):
            raise ShapeError("the buffer is empty: add points before drawing from it")
        return self._at(torch.randint(len(self), (n,), generator=generator, device=self.x.device))

    def newest(self, n: int) -> tuple[Tensor, ...]:
        """The up to n newest points as `draw` returns them, in no particular order."""
        n = min(n, len(self))
        return self._at(torch.arange(self.written - n, self.written, device=self.x.device) % self.capacity)

    def _at(self, index: Tensor) -> tuple[Tensor, ...]:
        return self.x[index], self.f[index], self.log_g[index], self.extra[index]

    def state(self) -> dict[str, Tensor]:
        """The stored points, for a checkpoint."""
        n = len(self)
        return {
            "x": self.x[:n],
            "f": self.f[:n],
            "log_g": self.log_g[:n],
            "extra": self.extra[:n],
            "written": torch.tensor(self.written, dtype=torch.int64),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue with the points that `state` returned."""
        n = state["x"].shape[0]
        for name in ("x", "f", "log_g", "extra"):
            getattr(self, name)[:n] = state[name]
        self.written = int(state["written"])
