"""What the batches of an integration add up to: moments, errors and correlations of every integral."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from nisampler.base.estimate import Estimate, student_t_factor
from nisampler.base.estimates import Estimates
from nisampler.base.moments import Moments, power_of_two
from nisampler.errors import NonFiniteError

# An error from a running sum is the exact one up to rounding, far closer than this.
_ROUNDING = 1e-6


class Sums:
    """Adds up weights batch by batch; its memory grows with batches times integrals, not with points.

    Parameters
    ----------
    names
        Of the k integrals.
    steered
        Number of the one that tells the error and zeros.
    dependent
        Whether the points of a batch depend on each other, as those of a Sobol set do, so that errors come from the
        spread between batches.
    unit
        Of the integrals.
    title
        Of the function, for messages.

    Examples
    --------
    >>> sums = Sums(["f", "x"], 0, dependent=False)
    >>> u = torch.rand(10, 500, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    >>> sums.add(torch.stack([u, u**2], 2))
    >>> found = sums.estimates()
    >>> print(found, found.correlation.round(2)[0, 1])
    f = 0.496(4), x = 0.330(4) 0.97
    """

    def __init__(self, names: Sequence[str], steered: int, dependent: bool, unit: str = "", title: str = "") -> None:
        self.names, self.steered, self.dependent, self.unit = tuple(names), steered, dependent, unit
        self.title = title
        count = len(names)
        # powers of two near the first weights, so that squares neither overflow nor vanish
        self.scales = [0.0] * count
        self.parts: list[list[Moments]] = [[] for _ in names]
        self.totals = [Moments()] * count
        self._between = Moments()
        self._products = np.zeros((count, count))

    def add(self, weights: Tensor) -> None:
        """Add batches of weights, (batches, n, k).

        Raises
        ------
        NonFiniteError
            If a weight is not finite.
        """
        columns = weights.permute(2, 0, 1).contiguous()
        before = self._means()
        for index, largest in enumerate(columns.abs().amax(2).tolist()):
            if not all(map(math.isfinite, largest)):
                raise NonFiniteError(
                    f"{self.label(index)}: a weight f/q is not finite; divide the function by a constant"
                )
            if not self.scales[index]:
                self.scales[index] = next((power_of_two(size) for size in largest if size), 0.0)
            parts = Moments.of_rows(columns[index] / (self.scales[index] or 1.0))
            self.parts[index] += parts
            self.totals[index] = Moments.merge_all([self.totals[index], *parts])
            if index == self.steered:
                self._between = Moments.merge_all([self._between, *(Moments(1, part.mean) for part in parts)])
        if len(self.names) > 1 and not self.dependent:
            self._add_products(columns.flatten(1), before)

    def label(self, index: int) -> str:
        """An integral, for a message."""
        return f"{self.title}[{self.names[index]!r}]" if len(self.names) > 1 else self.title

    def _means(self) -> Tensor:
        return torch.tensor([total.mean for total in self.totals], dtype=torch.float64)

    def _add_products(self, columns: Tensor, before: Tensor) -> None:
        """Sums of products of deviations from the means (k, k), merged as `Moments` merges those of squares."""
        mean = (columns / self._scales(columns.device)).mean(1).cpu()
        centred = columns / self._scales(columns.device) - mean.to(columns.device).unsqueeze(1)
        n, m = self.count - columns.shape[1], columns.shape[1]
        delta = mean - before
        self._products += (centred @ centred.t()).cpu().numpy() + torch.outer(delta, delta).numpy() * (n * m / (n + m))

    def _scales(self, device: torch.device) -> Tensor:
        """Of all integrals (k, 1)."""
        return torch.tensor([[scale or 1.0] for scale in self.scales], dtype=torch.float64, device=device)

    @property
    def batches(self) -> int:
        """Batches so far."""
        return len(self.parts[0])

    @property
    def count(self) -> int:
        """Points so far."""
        return self.totals[0].count

    @property
    def total(self) -> Moments:
        """Moments of the weights of the integral that steers, in units of its scale."""
        return self.totals[self.steered]

    @property
    def batch_means(self) -> list[float]:
        """The integral that steers in each batch."""
        return [part.mean * (self.scales[self.steered] or 1.0) for part in self.parts[self.steered]]

    @property
    def relative_error(self) -> float:
        """Relative error of the integral that steers, from running sums: exact up to rounding."""
        spread = self._between if self.dependent else self.total
        if spread.mean == 0.0 or self.batches < 2:
            return math.inf
        factor = student_t_factor(self.batches - 1) if self.dependent else 1.0
        return spread.standard_error * factor / abs(spread.mean)

    def reached(self, target: float) -> bool:
        """Whether the relative error is at most the target; all batches are looked at only where it is close."""
        if self.relative_error > target * (1.0 + _ROUNDING):
            return False
        return self._estimate(self.steered).relative_error <= target

    def estimates(self, doubted: Sequence[bool] = ()) -> Estimates:
        """All integrals with their covariance; `doubted` tells whose errors are not to be trusted, by default none."""
        members = {}
        for index, name in enumerate(self.names):
            found, scale = self._estimate(index), self.scales[index] or 1.0
            trusted = not (doubted and doubted[index])
            members[name] = replace(found, value=found.value * scale, error=found.error * scale, trusted=trusted)
        return Estimates.correlated(members, self._correlation())

    def _estimate(self, index: int) -> Estimate:
        """One integral in units of its scale."""
        parts, total = self.parts[index], self.totals[index]
        if not self.dependent:
            return Estimate.from_batches(parts, self.unit)
        size = total.count // len(parts)
        means = [part.mean for part in parts]
        return Estimate.from_batch_means(means, size, ess_fraction=total.ess_fraction, unit=self.unit)

    def _correlation(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        products = self._products
        if self.dependent:
            means = np.array([[part.mean for part in parts] for parts in self.parts])
            centred = means - means.mean(1, keepdims=True)
            products = centred @ centred.T
        size = np.sqrt(np.diag(products))
        size[size == 0.0] = 1.0
        found: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = products / size / size[:, None]
        np.fill_diagonal(found, 1.0)
        return found
