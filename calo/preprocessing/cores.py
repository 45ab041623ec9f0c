"""The auxiliary scale of a layer where small voxels have a spectrum with sharp edges."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nisampler.calo.preprocessing.transforms import check_scaled
from nisampler.flows import Transform

# The energy of a layer without a voxel above the core is that of its voxels times up to 0.95^-8 = 1.5.
_BLUR = 8.0
# What voxels exceed the core by is multiplied by up to so much to meet the energy of the layer; it may shrink as far as
# to the core, or by this factor where that is more.
_STRETCH = 4.0


class CoreScale(Transform):
    r"""(v, s) -> (z, E): voxels and one auxiliary scale per layer to voxels in units of the threshold, and energies.

    Silicon has a sharp peak where one particle crosses. A scale of all voxels of a layer, as in `LayerScale`, smears
    it: of a point that no shower maps to, every voxel moves until they add up to E. Here voxels up to a constant
    `core` never move. In a layer with a voxel above it, s scales what voxels exceed it by,

    z_i = v_i - (1 - s) max(v_i - core, 0),

    and E is the sum of the voxels v that reach the threshold: the inverse finds s from it, and a difference of energy
    goes to large voxels, whose spectrum is smooth: they exceed the core by up to four times as much, or by almost
    nothing. The log-determinant is (m - 1) log s + log(excess), for m voxels that exceed the core by `excess` in all.
    In a layer without one, z = v, and E is the sum divided by s^8, or the largest voxel divided by s where none reaches
    the threshold: there voxels say what the energy is.

    Noise stays below threshold exp(-gap); the cut between noise and hits is in the middle of the gap.

    Parameters
    ----------
    sizes
        Number of voxels of each layer.
    threshold
        In MeV, positive.
    gap
        Logarithmic distance of the noise from the threshold.

    Examples
    --------
    >>> scale = CoreScale([2, 1], threshold=0.5)
    >>> x = torch.tensor([[1.0, 3.0, 0.1, 0.98, 0.99]])
    >>> y, _ = scale(x)
    >>> torch.allclose(scale.inverse(y)[0], x)
    True
    """

    core: Tensor

    def __init__(self, sizes: Sequence[int], threshold: float, gap: float = 1.0) -> None:
        super().__init__()
        self.sizes, self.threshold, self.gap = tuple(sizes), threshold, gap
        self.register_buffer("core", torch.tensor(threshold, dtype=torch.float64))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        *voxels, scales = check_scaled(x, self.sizes)
        z, energies, total = [], [], x.new_zeros(x.shape[0])
        for v, s in zip(voxels, scales.unbind(1), strict=True):
            over = self._over(v)
            energy, log_det = self._energy(v, over, s)
            z.append((v - (1 - s).unsqueeze(1) * over) / self.threshold)
            energies.append(energy)
            total = total + log_det
        return torch.cat([*z, torch.stack(energies, dim=1)], dim=1), total

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        *voxels, energies = check_scaled(y, self.sizes)
        restored, scales, total = [], [], y.new_zeros(y.shape[0])
        for z, energy in zip(voxels, energies.unbind(1), strict=True):
            v, s = self._restored(z * self.threshold, energy)
            restored.append(v)
            scales.append(s)
            total = total - self._energy(v, self._over(v), s)[1]
        return torch.cat([*restored, torch.stack(scales, dim=1)], dim=1), total

    def layer_energies(self, x: Tensor) -> Tensor:
        """Energies (n, L) of the layers of x (n, V + L)."""
        *voxels, scales = check_scaled(x, self.sizes)
        pairs = zip(voxels, scales.unbind(1), strict=True)
        return torch.stack([self._energy(v, self._over(v), s)[0] for v, s in pairs], dim=1)

    def _over(self, v: Tensor) -> Tensor:
        return (v - self.core.to(v.dtype)).clamp_min(0)

    def _sum(self, v: Tensor) -> Tensor:
        """Of the voxels that reach the threshold, or the largest one where none does."""
        total = torch.where(v >= self.threshold, v, torch.zeros_like(v)).sum(1)
        return torch.where(total > 0, total, v.amax(1))

    def _energy(self, v: Tensor, over: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """The energy of a layer and the log-determinant, (n,) both."""
        energy, excess, log_s = self._sum(v), over.sum(1), s.log()
        dense = excess > 0
        above = (over > 0).to(v.dtype).sum(1)
        log_dense = (above - 1) * log_s + torch.where(dense, excess, torch.ones_like(excess)).log()
        power = self._power(energy)
        log_sparse = energy.log() + power.log() - (power + 1) * log_s
        log_det = torch.where(dense, log_dense, log_sparse) - v.shape[1] * math.log(self.threshold)
        return torch.where(dense, energy, energy * (-power * log_s).exp()), log_det

    def _power(self, energy: Tensor) -> Tensor:
        """Of the scale by which an energy is divided where no voxel is above the core: an empty layer stays one."""
        return 1.0 + (_BLUR - 1.0) * (energy >= self.threshold).to(energy.dtype)

    def _restored(self, z: Tensor, energy: Tensor) -> tuple[Tensor, Tensor]:
        """Voxels and scale of a layer, from voxels (n, v) in MeV and its energy (n,).

        A voxel in the gap is one that a flow smeared out from just above the threshold: it is mirrored back. A layer
        with energy and no hit gets all of it in its largest voxel.
        """
        highest, energy = z.amax(1, keepdim=True), energy.unsqueeze(1)
        filled, cut = energy >= self.threshold, math.exp(-self.gap / 2) * self.threshold
        below = self.threshold * (1 - 8 * torch.finfo(z.dtype).eps)
        hits = torch.where(z < self.threshold, self.threshold**2 / z.clamp_min(cut), z)
        v = torch.where(filled & (z >= cut), hits, z.clamp_max(below))
        v = torch.where(filled & (highest < cut) & (z == highest), energy, v)
        over, sums = self._over(v), self._sum(v).unsqueeze(1)
        excess = over.sum(1, keepdim=True)
        dense = excess > 0
        core, excess = self.core.to(v.dtype), torch.where(dense, excess, torch.ones_like(excess))
        rest = v.minimum(core)  # by itself: beside a huge voxel a difference of sums would be rounding alone
        stretch = (energy - self._sum(rest).unsqueeze(1)) / excess
        stretch = stretch.maximum((core / excess).clamp_max(1 / _STRETCH)).clamp_max(_STRETCH)
        v = rest + torch.where(dense, stretch, torch.ones_like(stretch)) * over
        s = torch.where(dense, 1 / stretch, (sums / energy) ** (1 / self._power(sums)))
        return v, s.squeeze(1)
