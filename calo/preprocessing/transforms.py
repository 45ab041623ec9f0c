"""Invertible steps from showers to coordinates: scaled voxels, layer energies, logarithms, constants from data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from nisampler.errors import ConfigError, DomainError, ShapeError
from nisampler.flows import Logit, Transform

# Coordinates of empty layers lie below -24; those of others are log-odds, above -22.
_EMPTY, _CUT = 24.0, -22.0

Unit = Literal["layer", "maximum"]


class LayerScale(Transform):
    r"""(v, s) -> (z, E): voxels and one auxiliary scale per layer to scaled voxels and layer energies.

    E is the sum of the voxels of a layer that reach the threshold, or the largest voxel of a layer where none does;
    z = s v / E ("layer") or z = s v / unit with a constant unit of each layer ("maximum"). Per layer of n voxels the
    log-determinant is (n - 1) log(s / E), or (n - 1) log s + log E - n log(unit): both sides are cones over the same
    simplex.

    Noise stays below threshold exp(-gap), so that the inverse finds the voxels above the threshold by a cut in the
    middle of the gap, whatever s was: exact for every shower. Of a point that no shower maps to, as an imperfect flow
    makes them, the voxels above the cut are rescaled to E too, so that layer energies are always met: no voxel is cut
    after the energy has been set.

    Parameters
    ----------
    sizes
        Number of voxels of each layer.
    threshold
        In MeV; 0 to count every voxel.
    unit
        "layer", or "maximum" for constants `units` that are set later.
    gap
        Logarithmic distance of the noise from the threshold.

    Examples
    --------
    >>> scale = LayerScale([2, 1], threshold=0.0)
    >>> x = torch.tensor([[1.0, 3.0, 2.0, 0.99, 0.99]])
    >>> y, _ = scale(x)
    >>> torch.allclose(scale.inverse(y)[0], x)
    True
    """

    units: Tensor

    def __init__(self, sizes: Sequence[int], threshold: float, unit: Unit = "layer", gap: float = 1.0) -> None:
        super().__init__()
        self.sizes, self.threshold, self.unit, self.gap = tuple(sizes), threshold, unit, gap
        self.register_buffer("units", torch.ones(len(self.sizes), dtype=torch.float64))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        *voxels, scales = check_scaled(x, self.sizes)
        units = self.units.to(x.dtype).unbind(0)
        parts = [self._scaled(*item) for item in zip(voxels, scales.unbind(1), units, strict=True)]
        energies = torch.stack([energy for _, energy in parts], dim=1)
        y = torch.cat([*(z for z, _ in parts), energies], dim=1)
        return y, self._log_det(scales, energies)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        *voxels, energies = check_scaled(y, self.sizes)
        units = self.units.to(y.dtype).unbind(0)
        parts = [self._restored(*item) for item in zip(voxels, energies.unbind(1), units, strict=True)]
        scales = torch.stack([scale for _, scale in parts], dim=1)
        x = torch.cat([*(v for v, _ in parts), scales], dim=1)
        return x, -self._log_det(scales, energies)

    def layer_energies(self, x: Tensor) -> Tensor:
        """Energies (n, L) of the layers of x (n, V + L)."""
        return torch.stack([self._energy(v) for v in check_scaled(x, self.sizes)[:-1]], dim=1)

    def _energy(self, v: Tensor) -> Tensor:
        energy = torch.where(v >= self.threshold, v, torch.zeros_like(v)).sum(1)
        return torch.where(energy > 0, energy, v.amax(1))

    def _scaled(self, v: Tensor, s: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
        energy = self._energy(v)
        return v * (s / (energy if self.unit == "layer" else unit)).unsqueeze(1), energy

    def _restored(self, z: Tensor, energy: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
        energy = energy.unsqueeze(1)
        if self.unit != "layer":
            z = z * (unit / energy)
        highest = z.amax(1, keepdim=True)
        cut = math.exp(-self.gap / 2) * self.threshold / energy
        if self.threshold > 0:
            most = (energy / self.threshold).floor().long().clamp(1, z.shape[1])  # as many as can reach the threshold
            cut = torch.maximum(cut, z.sort(dim=1, descending=True).values.gather(1, most - 1))
        kept = (energy >= self.threshold) & (z >= torch.minimum(cut, highest))
        total = torch.where(kept, z, torch.zeros_like(z)).sum(1, keepdim=True)
        scale = torch.where(energy >= self.threshold, total, highest)  # the largest voxel is that of an empty layer
        v = z * (energy / scale)
        if self.threshold > 0:
            below = self.threshold * (1 - 8 * torch.finfo(z.dtype).eps)
            v = torch.where(kept, self._met(v, kept, energy), v.clamp_max(below))
        return v, scale.squeeze(1)

    def _met(self, v: Tensor, kept: Tensor, energy: Tensor) -> Tensor:
        """Kept voxels at or above the threshold that add up to the energy: v itself for every shower.

        A voxel in the gap is one that a flow smeared out from just above the threshold: it is mirrored back.
        """
        mirrored = torch.where(v < self.threshold, self.threshold**2 / v, v)
        over = torch.where(kept, mirrored - self.threshold, torch.zeros_like(v))
        count = kept.sum(1, keepdim=True).clamp_min(1).to(v.dtype)
        room = (energy - self.threshold * count).clamp_min(0)
        sums = over.sum(1, keepdim=True)
        share = torch.where(sums > 0, over / sums.clamp_min(torch.finfo(v.dtype).tiny), 1 / count)
        return self.threshold + share * room

    def _log_det(self, scales: Tensor, energies: Tensor) -> Tensor:
        n = torch.tensor(self.sizes, dtype=scales.dtype, device=scales.device)
        if self.unit == "layer":
            return ((n - 1) * (scales / energies).log()).sum(1)
        return ((n - 1) * scales.log() + energies.log() - n * self.units.to(n.dtype).log()).sum(1)


class StickBreaking(Transform):
    """Layer energies to u_0 = sum of E_k / (f E_inc) and u_k = E_{k-1} / (sum of E_j, j >= k-1) (2210.14245).

    The context is the incident energy (n, 1).

    >>> energies, incident = torch.tensor([[30.0, 20.0]]), torch.tensor([[100.0]])
    >>> y, _ = StickBreaking()(energies, incident)
    >>> torch.allclose(StickBreaking().inverse(y, incident)[0], energies)
    True
    """

    context_dim = 1

    def __init__(self, largest_ratio: float = 1.0) -> None:
        super().__init__()
        self.largest_ratio = largest_ratio

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        largest = self.largest_ratio * incident_of(x, context)
        rest = x.flip(1).cumsum(1).flip(1)
        u = torch.cat([rest[:, :1] / largest, x[:, :-1] / rest[:, :-1]], dim=1)
        return u, -largest.log().squeeze(1) - rest[:, :-1].log().sum(1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        largest = self.largest_ratio * incident_of(y, context)
        left = torch.cumprod(torch.cat([y[:, :1] * largest, 1 - y[:, 1:]], dim=1), dim=1)
        x = torch.cat([y[:, 1:] * left[:, :-1], left[:, -1:]], dim=1)
        return x, largest.log().squeeze(1) + left[:, :-1].log().sum(1)


class LogSticks(Transform):
    """Layer energies to y_0 = log(sum of E_k / E_inc) and the log-odds y_k = log E_{k-1} - log(sum of E_j, j >= k).

    The log-odds of `StickBreaking`, without the cancellation in 1 - u: exact for layers that hold a millionth of the
    shower. The context is the incident energy (n, 1).

    With a threshold, a layer below it is empty and counts in no sum: its coordinate is log(E / threshold) - 24, far
    below those of all layers that are not. The last stick is then the layer that is most often filled, which `fit`
    finds; it always counts.

    >>> energies, incident = torch.tensor([[30.0, 20.0]]), torch.tensor([[100.0]])
    >>> y, _ = LogSticks()(energies, incident)
    >>> torch.allclose(LogSticks().inverse(y, incident)[0], energies)
    True
    """

    context_dim = 1
    order: Tensor

    def __init__(self, layers: int | None = None, threshold: float = 0.0) -> None:
        super().__init__()
        self.threshold = threshold
        if threshold:
            self.register_buffer("order", torch.arange(layers or 0))

    @torch.no_grad()
    def fit(self, energies: Tensor) -> None:
        """Choose the last stick for layer energies (n, L): nothing without a threshold."""
        if self.threshold:
            filled = (energies >= self.threshold).double().mean(0)
            share = (energies / energies.sum(1, keepdim=True)).double().mean(0)
            last = int((filled + 1e-3 * share).argmax())
            others = [layer for layer in range(energies.shape[1]) if layer != last]
            self.order.copy_(torch.tensor([*others, last]))

    def empty(self, energies: Tensor) -> Tensor:
        """Which coordinates (n, L) of layer energies (n, L) are those of empty layers."""
        if not self.threshold:
            return torch.zeros_like(energies, dtype=torch.bool)
        below = energies[:, self.order[:-1]] < self.threshold
        return torch.cat([below.new_zeros(len(below), 1), below], dim=1)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_incident = incident_of(x, context).log()
        x = x[:, self.order] if self.threshold else x
        log_x, empty = x.log(), x[:, :-1] < self.threshold
        counted = torch.cat([torch.where(empty, torch.zeros_like(x[:, :-1]), x[:, :-1]), x[:, -1:]], dim=1)
        log_rest = counted.flip(1).cumsum(1).flip(1).log()
        odds = log_x[:, :-1] - torch.where(empty, torch.full_like(log_x[:, 1:], self._bottom), log_rest[:, 1:])
        return torch.cat([log_rest[:, :1] - log_incident, odds], dim=1), -log_x.sum(1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_incident = incident_of(y, context).log()
        odds = y[:, 1:]
        empty = odds < _CUT if self.threshold else torch.zeros_like(odds, dtype=torch.bool)
        shrink = torch.where(empty, torch.zeros_like(odds), functional.logsigmoid(-odds))
        log_rest = torch.cat([y[:, :1] + log_incident, shrink], dim=1).cumsum(1)
        log_x = torch.where(empty, odds + self._bottom, log_rest[:, :-1] + functional.logsigmoid(odds))
        x = log_x.exp()
        if self.threshold:
            below = self.threshold * (1 - 8 * torch.finfo(x.dtype).eps)
            x = torch.where(empty, x.clamp_max(below), x.clamp_min(self.threshold))
        x = torch.cat([x, log_rest[:, -1:].exp()], dim=1)
        if self.threshold:
            x = x[:, self.order.argsort()]
        return x, x.log().sum(1)

    @property
    def _bottom(self) -> float:
        """Subtracted from the logarithm of the energy of an empty layer."""
        return math.log(self.threshold) + _EMPTY if self.threshold else 0.0


class ShiftedLog(Transform):
    """y = log(x + alpha) for x >= 0; alpha = 0 for the plain logarithm (2312.09290).

    Raises
    ------
    ConfigError
        If alpha is negative.

    Examples
    --------
    >>> y, log_det = ShiftedLog(1.0)(torch.tensor([[0.0]]))
    >>> y.item(), log_det.item()
    (0.0, -0.0)
    """

    def __init__(self, alpha: float = 0.0) -> None:
        super().__init__()
        if not alpha >= 0:
            raise ConfigError(f"alpha must not be negative, got {alpha}")
        self.alpha = alpha

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y = (x + self.alpha).log()
        return y, -y.sum(1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        # a value that leaves float32 is a shower gone wrong; the caller counts it
        x = y.exp() - self.alpha
        return x if self.alpha == 0 else x.clamp_min(torch.finfo(x.dtype).tiny), y.sum(1)


class LogLogit(Transform):
    r"""y = logit_alpha(1 + log(z + 10^-k) / (k log 10)) for 0 <= z <= 1: k decades below one (2405.20407, eq. B.5).

    Values beyond one are mapped, too, up to 10^(k alpha).

    >>> x = torch.tensor([[0.1, 0.5]])
    >>> torch.allclose(LogLogit().inverse(LogLogit()(x)[0])[0], x)
    True
    """

    def __init__(self, alpha: float = 1e-2, decades: float = 7.0) -> None:
        super().__init__()
        self.log, self.logit = ShiftedLog(10.0**-decades), Logit(alpha)
        self.width = decades * math.log(10.0)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, log_det = self.log(x)
        y, more = self.logit(1.0 + y / self.width)
        return y, log_det + more - x.shape[1] * math.log(self.width)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_det = self.logit.inverse(y)
        x, more = self.log.inverse((x - 1.0) * self.width)
        return x, log_det + more + y.shape[1] * math.log(self.width)


class Standardise(Transform):
    """y = (x - mean) / spread with constants that `fit` takes from data and that are saved with the model.

    >>> step = Standardise(1)
    >>> step.fit(torch.tensor([[1.0], [3.0]]))
    >>> step(torch.tensor([[2.0]]))[0].item()
    0.0
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("spread", torch.ones(dim))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Take mean and standard deviation of x (n, dim); a constant coordinate keeps spread one.

        Raises
        ------
        DomainError
            If x is not finite or has fewer than two rows.
        """
        if x.shape[0] < 2 or not torch.isfinite(x).all():
            raise DomainError(f"constants need at least two finite points, got {tuple(x.shape)} with NaN or infinity")
        x = x.double()
        spread = x.std(dim=0)
        self.mean.copy_(x.mean(dim=0))
        self.spread.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        spread = self.spread.to(x.dtype)
        return (x - self.mean.to(x.dtype)) / spread, (-spread.log().sum()).expand(x.shape[0])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        spread = self.spread.to(y.dtype)
        return y * spread + self.mean.to(y.dtype), spread.log().sum().expand(y.shape[0])


def check_scaled(x: Tensor, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """The voxels of each layer and the scales or energies of x (n, V + L); ShapeError if it has another shape.

    >>> [part.shape[1] for part in check_scaled(torch.zeros(1, 7), (3, 2))]
    [3, 2, 2]
    """
    if x.dim() != 2 or x.shape[1] != sum(sizes) + len(sizes):
        raise ShapeError(f"expected (n, {sum(sizes)} + {len(sizes)}), got {tuple(x.shape)}")
    return torch.split(x, [*sizes, len(sizes)], dim=1)


def incident_of(x: Tensor, context: Tensor | None) -> Tensor:
    """The context as incident energies (n, 1); ShapeError if it has another shape.

    >>> incident_of(torch.zeros(2, 3), torch.ones(2, 1)).shape
    torch.Size([2, 1])
    """
    if context is None or context.shape != (x.shape[0], 1):
        shape = None if context is None else tuple(context.shape)
        raise ShapeError(f"expected incident energies of shape ({x.shape[0]}, 1), got {shape}")
    return context.to(x.dtype)
