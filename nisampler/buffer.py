"""Stored points with the integrand and the exact density they were drawn from, to be used more than once."""

from __future__ import annotations

import torch
from torch import Tensor

from nisampler.errors import ConfigError, ShapeError


class Buffer:
    """A ring of points: the oldest make room for the newest. Its memory is bounded and allocated once.

    Parameters
    ----------
    dim
        Number of coordinates.
    capacity
        Largest number of points; it may exceed 2^24.
    device, dtype
        Where and in which precision points are kept.
    """

    def __init__(
        self, dim: int, capacity: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        if capacity < 1:
            raise ConfigError(f"a buffer needs room for at least one point, got {capacity}")
        self.x = torch.zeros(capacity, dim, device=device, dtype=dtype)
        self.f = torch.zeros(capacity, device=device, dtype=dtype)
        self.log_g = torch.zeros(capacity, device=device, dtype=dtype)
        self.written = 0

    def __len__(self) -> int:
        return min(self.written, self.capacity)

    @property
    def capacity(self) -> int:
        """Largest number of points."""
        return int(self.x.shape[0])

    def add(self, x: Tensor, f: Tensor, log_g: Tensor) -> None:
        """Store points x (n, dim) with |f| (n,) and the log density log_g (n,) they were drawn from."""
        if x.shape[0] > self.capacity:
            raise ShapeError(f"{x.shape[0]} points do not fit into a buffer of {self.capacity}")
        start = self.written % self.capacity
        head = min(x.shape[0], self.capacity - start)
        for store, new in ((self.x, x), (self.f, f), (self.log_g, log_g)):
            store[start : start + head] = new[:head]
            store[: x.shape[0] - head] = new[head:]
        self.written += x.shape[0]

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """n stored points, chosen with replacement: x (n, dim), f (n,), log_g (n,)."""
        if not len(self):
            raise ShapeError("the buffer is empty: add points before drawing from it")
        index = torch.randint(len(self), (n,), generator=generator, device=self.x.device)
        return self.x[index], self.f[index], self.log_g[index]

    def newest(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """The up to n newest points, in no particular order."""
        n = min(n, len(self))
        index = (torch.arange(self.written - n, self.written, device=self.x.device)) % self.capacity
        return self.x[index], self.f[index], self.log_g[index]

    def state(self) -> dict[str, Tensor]:
        """The stored points, for a checkpoint."""
        n = len(self)
        return {
            "x": self.x[:n],
            "f": self.f[:n],
            "log_g": self.log_g[:n],
            "written": torch.tensor(self.written, dtype=torch.int64),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue with the points that `state` returned."""
        n = state["x"].shape[0]
        for name in ("x", "f", "log_g"):
            getattr(self, name)[:n] = state[name]
        self.written = int(state["written"])
