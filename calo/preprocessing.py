"""From showers to the coordinates of a flow, with exact Jacobians, so that a likelihood is one of showers in MeV.

A shower of V voxels in L layers becomes V + L numbers: what each voxel holds of its layer, and the layer energies.
That is one number per layer too many for a density, which most published likelihoods ignore. Here every layer gets an
auxiliary scale s of known density: (v, s) -> (z, E) with z = s v / E is a bijection between spaces of equal dimension,
and -log p(v, s) + log π(s), averaged over s, bounds -log p(v) from above (an augmented flow).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from nisampler.calo.geometry import Geometry
from nisampler.calo.marginals import Marginals
from nisampler.errors import ConfigError, DomainError, ShapeError
from nisampler.flows import Composition, Logit, Transform

Unit = Literal["layer", "threshold"]


@dataclass(frozen=True)
class PreprocessingConfig:
    """How showers become the coordinates of a flow.

    Parameters
    ----------
    threshold
        Voxels below it, in MeV, are empty: they carry noise that is cut away again. 0 for none.
    noise
        "below-threshold" fills empty voxels with `threshold` exp(-`gap` - `width` |N(0, 1)|);
        "uniform" adds U[0, `width`] MeV to every voxel (2106.05285); "relative" adds U[0, `width`] times the energy
        of the layer (2312.09290).
    width, gap
        Width of the noise, and how far it stays below the threshold. A flow smears the edge between the two, which
        fills the gap from both sides alike; without a gap it would make hits of noise.
    unit
        What voxels are measured in: their layer's energy or the threshold.
    voxels
        "log", "shifted-log" (log(z + alpha), 2312.09290) or "logit" (2106.05285) of a voxel.
    energies
        "log-sticks" (log-odds of the stick breaking), or "logit" (of u, 2210.14245).
    alpha
        Regulator of "logit" and "shifted-log".
    scale
        The auxiliary scale of a layer is uniform between this and one.
    largest_ratio
        f in u_0 = sum of E_k / (f E_inc), which must not exceed one for "logit".
    output_cut
        Generated voxels below it, in MeV, become zero where there is no `threshold`.
    levels
        Layer energies at which `Marginals` count the quantiles of every voxel, and half the number of incident energies
        at which they count those of the layer energies; 0 for no such step.

    Raises
    ------
    ConfigError
        If a setting is unknown, out of range or contradicts another one.
    """

    threshold: float = 0.0
    noise: Literal["below-threshold", "uniform", "relative"] = "uniform"
    width: float = 1e-3
    gap: float = 1.0
    unit: Unit = "layer"
    voxels: Literal["log", "shifted-log", "logit"] = "logit"
    energies: Literal["log-sticks", "logit"] = "logit"
    alpha: float = 1e-6
    scale: float = 0.98
    largest_ratio: float = 1.0
    output_cut: float = 0.0
    levels: int = 0

    def __post_init__(self) -> None:
        known = {
            "noise": ("below-threshold", "uniform", "relative"),
            "unit": ("layer", "threshold"),
            "voxels": ("log", "shifted-log", "logit"),
            "energies": ("log-sticks", "logit"),
        }
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ConfigError(f"{name} must be one of {values}, got {getattr(self, name)!r}")
        numbers = (self.threshold, self.width, self.gap, self.largest_ratio, self.output_cut, float(self.levels))
        if not all(0 <= number < math.inf for number in numbers) or not self.width * self.largest_ratio > 0:
            raise ConfigError(f"settings of the preprocessing must be finite and not negative, width positive: {self}")
        if not 0 < self.alpha < 0.5:
            raise ConfigError(f"alpha must be in (0, 1/2), got {self.alpha}")
        if self.levels == 1 or self.levels != int(self.levels):
            raise ConfigError(f"levels must be 0 or at least 2, got {self.levels}")
        if not 0 < self.scale < 1:
            raise ConfigError(f"scale must be in (0, 1), got {self.scale}")
        if self.threshold > 0 and not math.exp(-self.gap / 2) < self.scale:
            raise ConfigError(f"gap must exceed {-2 * math.log(self.scale):.3g} at this scale, got {self.gap}")
        if (self.threshold > 0) != (self.noise == "below-threshold"):
            raise ConfigError("a threshold goes with noise below it: set both threshold > 0 and noise, or neither")
        if self.threshold == 0 and self.unit == "threshold":
            raise ConfigError("voxels in units of the threshold need threshold > 0")
        if self.unit == "threshold" and self.voxels == "logit":
            raise ConfigError("voxels in units of the threshold exceed one: choose voxels = 'log'")


class LayerScale(Transform):
    r"""(v, s) -> (z, E): voxels and one auxiliary scale per layer to scaled voxels and layer energies.

    E is the sum of the voxels of a layer that reach the threshold, or the largest voxel of a layer where none does;
    z = s v / E ("layer") or z = s v / threshold. Per layer of n voxels the log-determinant is
    (n - 1) log(s / E), or (n - 1) log s + log E - n log(threshold): both sides are cones over the same simplex.

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
        "layer" or "threshold".
    gap
        Logarithmic distance of the noise from the threshold.
    """

    def __init__(self, sizes: Sequence[int], threshold: float, unit: Unit = "layer", gap: float = 1.0) -> None:
        super().__init__()
        self.sizes, self.threshold, self.unit, self.gap = tuple(sizes), threshold, unit, gap

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        voxels, scales = self._split(x)
        parts = [self._scaled(*pair) for pair in zip(voxels, scales.unbind(1), strict=True)]
        energies = torch.stack([energy for _, energy in parts], dim=1)
        y = torch.cat([*(z for z, _ in parts), energies], dim=1)
        return y, self._log_det(scales, energies)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        voxels, energies = self._split(y)
        parts = [self._restored(*pair) for pair in zip(voxels, energies.unbind(1), strict=True)]
        scales = torch.stack([scale for _, scale in parts], dim=1)
        x = torch.cat([*(v for v, _ in parts), scales], dim=1)
        return x, -self._log_det(scales, energies)

    def _split(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        if x.dim() != 2 or x.shape[1] != sum(self.sizes) + len(self.sizes):
            raise ShapeError(f"expected (n, {sum(self.sizes)} + {len(self.sizes)}), got {tuple(x.shape)}")
        *voxels, rest = torch.split(x, [*self.sizes, len(self.sizes)], dim=1)
        return tuple(voxels), rest

    def layer_energies(self, x: Tensor) -> Tensor:
        """Energies (n, L) of the layers of x (n, V + L)."""
        return torch.stack([self._energy(v) for v in self._split(x)[0]], dim=1)

    def _energy(self, v: Tensor) -> Tensor:
        energy = torch.where(v >= self.threshold, v, torch.zeros_like(v)).sum(1)
        return torch.where(energy > 0, energy, v.amax(1))

    def _scaled(self, v: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        energy = self._energy(v)
        unit = energy if self.unit == "layer" else torch.full_like(energy, self.threshold)
        return v * (s / unit).unsqueeze(1), energy

    def _restored(self, z: Tensor, energy: Tensor) -> tuple[Tensor, Tensor]:
        energy = energy.unsqueeze(1)
        if self.unit == "threshold":
            z = z * (self.threshold / energy)
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
        return ((n - 1) * scales.log() + energies.log() - n * math.log(self.threshold)).sum(1)


class StickBreaking(Transform):
    """Layer energies to u_0 = sum of E_k / (f E_inc) and u_k = E_{k-1} / (sum of E_j, j >= k-1) (2210.14245).

    The context is the incident energy (n, 1).
    """

    context_dim = 1

    def __init__(self, largest_ratio: float = 1.0) -> None:
        super().__init__()
        self.largest_ratio = largest_ratio

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        largest = self.largest_ratio * _incident(x, context)
        rest = x.flip(1).cumsum(1).flip(1)
        u = torch.cat([rest[:, :1] / largest, x[:, :-1] / rest[:, :-1]], dim=1)
        return u, -largest.log().squeeze(1) - rest[:, :-1].log().sum(1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        largest = self.largest_ratio * _incident(y, context)
        left = torch.cumprod(torch.cat([y[:, :1] * largest, 1 - y[:, 1:]], dim=1), dim=1)
        x = torch.cat([y[:, 1:] * left[:, :-1], left[:, -1:]], dim=1)
        return x, largest.log().squeeze(1) + left[:, :-1].log().sum(1)


class LogSticks(Transform):
    """Layer energies to y_0 = log(sum of E_k / E_inc) and the log-odds y_k = log E_{k-1} - log(sum of E_j, j >= k).

    The log-odds of `StickBreaking`, without the cancellation in 1 - u: exact for layers that hold a millionth of the
    shower. The context is the incident energy (n, 1).
    """

    context_dim = 1

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_incident = _incident(x, context).log()
        log_x = x.log()
        log_rest = x.flip(1).cumsum(1).flip(1).log()
        y = torch.cat([log_rest[:, :1] - log_incident, log_x[:, :-1] - log_rest[:, 1:]], dim=1)
        return y, -log_x.sum(1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_incident = _incident(y, context).log()
        shrink = torch.cat([y[:, :1] + log_incident, functional.logsigmoid(-y[:, 1:])], dim=1)
        log_rest = shrink.cumsum(1)
        log_x = torch.cat([log_rest[:, :-1] + functional.logsigmoid(y[:, 1:]), log_rest[:, -1:]], dim=1)
        return log_x.exp(), log_x.sum(1)


class ShiftedLog(Transform):
    """y = log(x + alpha) for x >= 0; alpha = 0 for the plain logarithm (2312.09290).

    Raises
    ------
    ConfigError
        If alpha is negative.
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


class Standardise(Transform):
    """y = (x - mean) / spread with constants that `fit` takes from data and that are saved with the model."""

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


class Preprocessing(Transform):
    """Showers with their noise (n, V + L) to the standardised coordinates of a flow: V voxels, then L energies.

    The context is the incident energy (n, 1) in MeV.

    Parameters
    ----------
    geometry
        Sizes of the layers.
    config
        What to do.
    """

    context_dim = 1

    def __init__(self, geometry: Geometry, config: PreprocessingConfig) -> None:
        super().__init__()
        self.geometry, self.config = geometry, config
        n_voxels, n_layers = geometry.n_voxels, geometry.n_layers
        alpha = config.alpha if config.voxels == "shifted-log" else 0.0
        self.scale = LayerScale(geometry.sizes, config.threshold, config.unit, config.gap)
        self.voxels: Transform = Logit(config.alpha) if config.voxels == "logit" else ShiftedLog(alpha)
        self.energies: Transform = LogSticks()
        if config.energies == "logit":
            self.energies = Composition([StickBreaking(config.largest_ratio), Logit(config.alpha)])
        self.standard_voxels, self.standard_energies = Standardise(n_voxels), Standardise(n_layers)
        self.marginals = Marginals(geometry.sizes, levels=config.levels, jumps=True) if config.levels else None
        # incident energies may be as few as fifteen, each with a law of its own
        self.energy_marginals = Marginals((n_layers,), levels=2 * config.levels) if config.levels else None

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, scale = self.scale(x)
        z, energies = z[:, : self.geometry.n_voxels], z[:, self.geometry.n_voxels :]
        y, voxels = self.voxels(z)
        y, more = self.standard_voxels(y)
        total = scale + voxels + more
        if self.marginals is not None:
            y, more = self.marginals(y, energies.log())
            total = total + more
        coordinates, more = self.energy_coordinates(energies, context)
        return torch.cat([y, coordinates], dim=1), total + more

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, coordinates = y[:, : self.geometry.n_voxels], y[:, self.geometry.n_voxels :]
        energies, total = self.layer_energies(coordinates, context)
        if self.marginals is not None:
            y, more = self.marginals.inverse(y, energies.log())
            total = total + more
        y, standard = self.standard_voxels.inverse(y)
        z, voxels = self.voxels.inverse(y)
        x, scale = self.scale.inverse(torch.cat([z, energies], dim=1))
        return x, total + standard + voxels + scale

    def energy_coordinates(self, energies: Tensor, incident: Tensor | None) -> tuple[Tensor, Tensor]:
        """Coordinates (n, L) of layer energies (n, L) in MeV, and the log-determinant (n,)."""
        coordinates, sticks = self.energies(energies, incident)
        coordinates, total = self.standard_energies(coordinates)
        if self.energy_marginals is not None:
            coordinates, more = self.energy_marginals(coordinates, _incident(energies, incident).log())
            total = total + more
        return coordinates, total + sticks

    def layer_energies(self, coordinates: Tensor, incident: Tensor | None) -> tuple[Tensor, Tensor]:
        """Layer energies (n, L) in MeV from their coordinates (n, L), and the log-determinant (n,)."""
        y, total = coordinates, coordinates.new_zeros(len(coordinates))
        if self.energy_marginals is not None:
            y, total = self.energy_marginals.inverse(y, _incident(y, incident).log())
        y, standard = self.standard_energies.inverse(y)
        energies, sticks = self.energies.inverse(y, incident)
        return energies.clamp_min(torch.finfo(energies.dtype).tiny), total + standard + sticks

    def augment(self, voxels: Tensor, generator: torch.Generator) -> Tensor:
        """Add noise to voxels (n, V) in MeV and append the auxiliary scales: shape (n, V + L).

        The density of the scales is that of `log_scale_density`.
        """
        self.geometry.check(voxels)
        config = self.config
        if config.noise == "below-threshold":
            draws = torch.randn(voxels.shape, generator=generator, dtype=voxels.dtype, device=voxels.device)
            filled = config.threshold * torch.exp(-config.gap - config.width * draws.abs())
            voxels = torch.where(voxels < config.threshold, filled, voxels)
        else:
            draws = torch.rand(voxels.shape, generator=generator, dtype=voxels.dtype, device=voxels.device)
            draws = draws.clamp_min(torch.finfo(voxels.dtype).eps)  # an empty layer has a logarithm too
            unit: Tensor | float = 1.0
            if config.noise == "relative":
                index = torch.tensor(self.geometry.layer_of_voxel, device=voxels.device)
                # an empty layer keeps the noise of a layer of 1 keV
                unit = self.geometry.layer_sums(voxels).clamp_min(1e-3).index_select(1, index)
            voxels = voxels + config.width * unit * draws
        scales = torch.rand(
            (voxels.shape[0], self.geometry.n_layers), generator=generator, dtype=voxels.dtype, device=voxels.device
        )
        return torch.cat([voxels, config.scale + (1 - config.scale) * scales], dim=1)

    @property
    def log_scale_density(self) -> float:
        """log π(s) of the auxiliary scales of all layers."""
        return -self.geometry.n_layers * math.log1p(-self.config.scale)

    @torch.no_grad()
    def fit(self, augmented: Tensor, incident: Tensor, orbits: Tensor) -> None:
        """Take constants and quantiles from training showers with their noise; see `Marginals.fit` for `orbits`.

        Raises
        ------
        DomainError
            If a coordinate is not finite, or a shower holds more than `largest_ratio` of its incident energy.
        """
        z, _ = self.scale(augmented)
        z, energies = z[:, : self.geometry.n_voxels], z[:, self.geometry.n_voxels :]
        y, _ = self.voxels(z)
        self.standard_voxels.fit(y)
        ratio = float((energies.sum(1) / incident.squeeze(1)).amax())
        if self.config.energies == "logit" and ratio > self.config.largest_ratio:
            raise DomainError(
                f"a shower has E_tot/E_inc = {ratio:.4g}: set largest_ratio above it, now {self.config.largest_ratio}"
            )
        sticks, _ = self.energies(energies, incident)
        self.standard_energies.fit(sticks)
        if self.marginals is not None and self.energy_marginals is not None:
            empty = augmented[:, : self.geometry.n_voxels] < self.config.threshold
            self.marginals.fit(self.standard_voxels(y)[0], energies.log(), orbits, empty)
            alone = torch.arange(self.geometry.n_layers, device=sticks.device)
            self.energy_marginals.fit(self.standard_energies(sticks)[0], incident.log(), alone)


def _incident(x: Tensor, context: Tensor | None) -> Tensor:
    if context is None or context.shape != (x.shape[0], 1):
        shape = None if context is None else tuple(context.shape)
        raise ShapeError(f"expected incident energies of shape ({x.shape[0]}, 1), got {shape}")
    return context.to(x.dtype)
