"""From showers to the coordinates of a flow, with exact Jacobians, so that a likelihood is one of showers in MeV.

A shower of V voxels in L layers becomes V + L numbers: what each voxel holds of its layer, and the layer energies.
That is one number per layer too many for a density, which most published likelihoods ignore. Here every layer gets an
auxiliary scale s of known density: (v, s) -> (z, E) with z = s v / E is a bijection between spaces of equal dimension,
and -log p(v, s) + log π(s), averaged over s, bounds -log p(v) from above (an augmented flow).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from nisampler.base.checks import Natural, NonNegative, Positive, settings
from nisampler.calo.detector.geometry import Geometry
from nisampler.calo.preprocessing.cores import CoreScale
from nisampler.calo.preprocessing.marginals import Marginals
from nisampler.calo.preprocessing.transforms import (
    LayerScale,
    LogLogit,
    LogSticks,
    ShiftedLog,
    Standardise,
    StickBreaking,
    incident_of,
)
from nisampler.errors import ConfigError, DomainError
from nisampler.flows import Composition, Logit, Transform

# Voxels up to this quantile of all hits make the core of the spectrum, with so many knots.
_CORE, _KNOTS, _PLACES = 0.25, 24, 36
_MOST_HITS = 2**20
# Other showers may have larger voxels than those of the training.
_HEADROOM = 2.0


@settings
class PreprocessingConfig:
    """How showers become the coordinates of a flow.

    Parameters
    ----------
    threshold
        Voxels below it, in MeV, are empty: they carry noise that is cut away again. 0 for none.
    noise
        "below-threshold" fills empty voxels with `threshold` exp(-`gap` - `width` |N(0, 1)|);
        "uniform" adds U[0, `width`] MeV to every voxel (2106.05285); "relative" adds U[0, `width`] times the energy
        of the layer (2312.09290); "log-normal" fills empty voxels with the median `fill` MeV, smeared by `fill_decades`
        decades, and adds U[0, `width`] MeV to every voxel (2405.20407).
    fill, fill_decades
        Of "log-normal".
    width, gap
        Width of the noise, and how far it stays below the threshold. A flow smears the edge between the two, which
        fills the gap from both sides alike; without a gap it would make hits of noise.
    unit
        What voxels are measured in: their layer's energy, the threshold, or twice the largest voxel that the training
        showers have in the layer. In units of the threshold small voxels keep the sharp edges of their spectrum, see
        `CoreScale`: only what larger ones exceed the lowest quarter of the hits by is scaled.
    voxels
        "log", "shifted-log" (log(z + alpha), 2312.09290), "logit" (2106.05285) or "log-logit" (2405.20407) of a voxel.
    energies
        "log-sticks" (log-odds of the stick breaking), or "logit" (of u, 2210.14245).
    alpha
        Regulator of "logit", "log-logit" and "shifted-log".
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

    Examples
    --------
    >>> PreprocessingConfig(output_cut=0.01).cut
    0.01
    """

    threshold: NonNegative = 0.0
    noise: Literal["below-threshold", "uniform", "relative", "log-normal"] = "uniform"
    width: Positive = 1e-3
    fill: Positive = 1e-3
    fill_decades: Positive = 0.2
    gap: NonNegative = 1.0
    unit: Literal["layer", "threshold", "maximum"] = "layer"
    voxels: Literal["log", "shifted-log", "logit", "log-logit"] = "logit"
    energies: Literal["log-sticks", "logit"] = "logit"
    alpha: Annotated[Positive, Field(lt=0.5)] = 1e-6
    scale: Annotated[Positive, Field(lt=1.0)] = 0.98
    largest_ratio: Positive = 1.0
    output_cut: NonNegative = 0.0
    levels: Natural = 0

    def __post_init__(self) -> None:
        if self.levels == 1:
            raise ConfigError("levels must be 0 or at least 2, got 1")
        if self.threshold > 0 and not math.exp(-self.gap / 2) < self.scale:
            raise ConfigError(f"gap must exceed {-2 * math.log(self.scale):.3g} at this scale, got {self.gap}")
        if self.noise != "log-normal" and (self.threshold > 0) != (self.noise == "below-threshold"):
            raise ConfigError("a threshold goes with noise below it: set both threshold > 0 and noise, or neither")
        if self.threshold == 0 and self.unit == "threshold":
            raise ConfigError("voxels in units of the threshold need threshold > 0")
        if self.unit == "threshold" and self.voxels in ("logit", "log-logit"):
            raise ConfigError("voxels in units of the threshold exceed one: choose voxels = 'log'")

    @property
    def cut(self) -> float:
        """Generated voxels below it are zero, MeV."""
        return self.threshold or self.output_cut


class VoxelPreprocessing(Transform):
    """Showers with their noise and auxiliary scales (n, V + L) to V coordinates of voxels, then L energies in MeV.

    Layers do not depend on each other: `window` is the same for some of them.

    Parameters
    ----------
    geometry
        Sizes of the layers.
    config
        What to do.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> step = VoxelPreprocessing(geometry("toy"), PreprocessingConfig())
    >>> augmented = step.augment(torch.rand(2, 240), torch.Generator().manual_seed(0))
    >>> augmented.shape, step(augmented)[0].shape
    (torch.Size([2, 245]), torch.Size([2, 245]))
    """

    def __init__(self, geometry: Geometry, config: PreprocessingConfig) -> None:
        super().__init__()
        self.geometry, self.config = geometry, config
        self.scale: LayerScale | CoreScale
        if config.unit == "threshold":
            self.scale = CoreScale(geometry.sizes, config.threshold, config.gap)
        else:
            self.scale = LayerScale(geometry.sizes, config.threshold, config.unit, config.gap)
        self.logarithm = _logarithm(config)
        self.standard = Standardise(geometry.n_voxels)
        self.marginals = (
            Marginals(geometry.sizes, _KNOTS, config.levels, jumps=True, places=_places(config))
            if config.levels
            else None
        )
        self._windows: dict[tuple[int, int], VoxelPreprocessing] = {}

    def window(self, first: int, last: int) -> VoxelPreprocessing:
        """The layers at the positions `first` to `last` - 1, with the constants of this one."""
        cells = slice(self.geometry.starts[first], self.geometry.starts[last])
        if (first, last) not in self._windows:
            with torch.device("meta"):
                self._windows[first, last] = VoxelPreprocessing(self.geometry.window(first, last), self.config)
        part = self._windows[first, last]
        if isinstance(part.scale, LayerScale) and isinstance(self.scale, LayerScale):
            part.scale.units = self.scale.units[first:last]
        elif isinstance(part.scale, CoreScale) and isinstance(self.scale, CoreScale):
            part.scale.core = self.scale.core
        part.standard.mean, part.standard.spread = self.standard.mean[cells], self.standard.spread[cells]
        if part.marginals is not None and self.marginals is not None:
            part.marginals.group = self.marginals.group[cells] - first
            part.marginals.levels = self.marginals.levels[first:last]
            part.marginals.quantiles = self.marginals.quantiles[:, cells].contiguous()
            part.marginals.normal = self.marginals.normal[:, cells].contiguous()
        return part

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, scale = self.scale(x)
        z, energies = self.geometry.divide(z)
        y, voxels = self.logarithm(z)
        y, standard = self.standard(y)
        total = scale + voxels + standard
        if self.marginals is not None:
            y, more = self.marginals(y, energies.log())
            total = total + more
        return torch.cat([y, energies], dim=1), total

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, energies = self.geometry.divide(y)
        total = y.new_zeros(y.shape[0])
        if self.marginals is not None:
            y, total = self.marginals.inverse(y, energies.log())
        y, standard = self.standard.inverse(y)
        z, voxels = self.logarithm.inverse(y)
        x, scale = self.scale.inverse(torch.cat([z, energies], dim=1))
        return x, total + standard + voxels + scale

    def showers(self, y: Tensor) -> Tensor:
        """Voxels (n, V) in MeV of coordinates and energies (n, V + L), zero below the threshold."""
        voxels = self.inverse(y)[0][:, : self.geometry.n_voxels]
        return torch.where(voxels < self.config.cut, torch.zeros_like(voxels), voxels)

    def augment(self, voxels: Tensor, generator: torch.Generator) -> Tensor:
        """Add noise to voxels (n, V) in MeV and append the auxiliary scales: shape (n, V + L).

        The density of the scales is that of `log_scale_density`.
        """
        self.geometry.check(voxels)
        config = self.config

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, dtype=voxels.dtype, device=voxels.device)

        def normal() -> Tensor:
            return torch.randn(voxels.shape, generator=generator, dtype=voxels.dtype, device=voxels.device)

        if config.noise == "below-threshold":
            filled = config.threshold * torch.exp(-config.gap - config.width * normal().abs())
            voxels = torch.where(voxels < config.threshold, filled, voxels)
        elif config.noise == "log-normal":
            filled = config.fill * torch.exp(math.log(10.0) * config.fill_decades * normal())
            added = config.width * uniform(*voxels.shape)
            if config.threshold:
                filled = (filled + added).clamp_max(config.threshold * math.exp(-config.gap)) - added
            empty = voxels < config.threshold if config.threshold else voxels <= 0
            voxels = torch.where(empty, filled, voxels) + added
        else:
            # an empty layer has a logarithm too
            draws = uniform(*voxels.shape).clamp_min(torch.finfo(voxels.dtype).eps)
            unit: Tensor | float = 1.0
            if config.noise == "relative":
                index = torch.tensor(self.geometry.layer_of_voxel, device=voxels.device)
                # an empty layer keeps the noise of a layer of 1 keV
                unit = self.geometry.layer_sums(voxels).clamp_min(1e-3).index_select(1, index)
            voxels = voxels + config.width * unit * draws
        scales = uniform(voxels.shape[0], self.geometry.n_layers)
        return torch.cat([voxels, config.scale + (1 - config.scale) * scales], dim=1)

    def layer_energies(self, voxels: Tensor, generator: torch.Generator) -> Tensor:
        """Layer energies (n, L) in MeV of voxels (n, V) with fresh noise."""
        return self.scale.layer_energies(self.augment(voxels, generator))

    @property
    def log_scale_density(self) -> float:
        """log π(s) of the auxiliary scales of all layers."""
        return -self.geometry.n_layers * math.log1p(-self.config.scale)

    @torch.no_grad()
    def fit(self, augmented: Tensor, orbits: Tensor) -> Tensor:
        """Take constants and quantiles from training showers with their noise; their layer energies (n, L) in MeV.

        See `Marginals.fit` for `orbits`.
        """
        voxels = augmented[:, : self.geometry.n_voxels]
        empty = voxels < self.config.threshold
        if isinstance(self.scale, CoreScale):
            hits = voxels[~empty][:_MOST_HITS]
            if len(hits):
                self.scale.core.copy_(torch.quantile(hits, _CORE).clamp_min(self.config.threshold))
        elif self.config.unit == "maximum":
            largest = torch.stack([part.max() for part in torch.split(voxels, list(self.geometry.sizes), dim=1)])
            self.scale.units.copy_(_HEADROOM * largest)
        z, _ = self.scale(augmented)
        z, energies = self.geometry.divide(z)
        y, _ = self.logarithm(z)
        if self.marginals is None:
            self.standard.fit(y)
        else:
            core = math.inf
            if isinstance(self.scale, CoreScale):
                core = float((self.scale.core / self.scale.threshold).log())
            self.marginals.fit(y, energies.log(), orbits, empty, core)
        return energies


def _places(config: PreprocessingConfig) -> int:
    """Knots of the core: it stands at one place only where voxels are measured in a constant."""
    return _PLACES if config.unit == "threshold" else 0


def _logarithm(config: PreprocessingConfig) -> Transform:
    if config.voxels == "logit":
        return Logit(config.alpha)
    if config.voxels == "log-logit":
        return LogLogit(config.alpha)
    return ShiftedLog(config.alpha if config.voxels == "shifted-log" else 0.0)


class Preprocessing(Transform):
    """Showers with their noise (n, V + L) to the standardised coordinates of a flow: V voxels, then L energies.

    The context is the incident energy (n, 1) in MeV.

    Parameters
    ----------
    geometry
        Sizes of the layers.
    config
        What to do.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> step = VoxelPreprocessing(geometry("toy"), PreprocessingConfig())
    >>> augmented = step.augment(torch.rand(2, 240), torch.Generator().manual_seed(0))
    >>> whole, incident = Preprocessing(geometry("toy"), PreprocessingConfig()), torch.full((2, 1), 1e3)
    >>> y, _ = whole(augmented, incident)
    >>> torch.allclose(whole.inverse(y, incident)[0], augmented, rtol=1e-2, atol=1e-3)
    True
    """

    context_dim = 1

    def __init__(self, geometry: Geometry, config: PreprocessingConfig) -> None:
        super().__init__()
        self.geometry, self.config = geometry, config
        self.cells = VoxelPreprocessing(geometry, config)
        self.energies: Transform = LogSticks(geometry.n_layers, config.threshold if config.levels else 0.0)
        if config.energies == "logit":
            self.energies = Composition([StickBreaking(config.largest_ratio), Logit(config.alpha)])
        self.standard_energies = Standardise(geometry.n_layers)
        # incident energies may be as few as fifteen, each with a law of its own
        levels = 2 * config.levels
        self.energy_marginals = (
            Marginals((geometry.n_layers,), levels=levels, jumps=config.threshold > 0) if levels else None
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, total = self.cells(x)
        y, energies = self.geometry.divide(y)
        coordinates, more = self.energy_coordinates(energies, context)
        return torch.cat([y, coordinates], dim=1), total + more

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, coordinates = self.geometry.divide(y)
        energies, total = self.layer_energies(coordinates, context)
        x, more = self.cells.inverse(torch.cat([y, energies], dim=1))
        return x, total + more

    def energy_coordinates(self, energies: Tensor, incident: Tensor | None) -> tuple[Tensor, Tensor]:
        """Coordinates (n, L) of layer energies (n, L) in MeV, and the log-determinant (n,)."""
        coordinates, sticks = self.energies(energies, incident)
        coordinates, total = self.standard_energies(coordinates)
        if self.energy_marginals is not None:
            coordinates, more = self.energy_marginals(coordinates, incident_of(energies, incident).log())
            total = total + more
        return coordinates, total + sticks

    def layer_energies(self, coordinates: Tensor, incident: Tensor | None) -> tuple[Tensor, Tensor]:
        """Layer energies (n, L) in MeV from their coordinates (n, L), and the log-determinant (n,)."""
        y, total = coordinates, coordinates.new_zeros(coordinates.shape[0])
        if self.energy_marginals is not None:
            y, total = self.energy_marginals.inverse(y, incident_of(y, incident).log())
        y, standard = self.standard_energies.inverse(y)
        energies, sticks = self.energies.inverse(y, incident)
        return energies.clamp_min(torch.finfo(energies.dtype).tiny), total + standard + sticks

    def showers(self, y: Tensor, incident: Tensor) -> Tensor:
        """Voxels (n, V) in MeV of coordinates (n, V + L) at incident energies (n,), zero below the threshold."""
        y, coordinates = self.geometry.divide(y)
        energies, _ = self.layer_energies(coordinates, incident.unsqueeze(1))
        return self.cells.showers(torch.cat([y, energies], dim=1))

    @torch.no_grad()
    def fit(self, augmented: Tensor, incident: Tensor, orbits: Tensor) -> None:
        """Take constants and quantiles from training showers with their noise; see `Marginals.fit` for `orbits`.

        Raises
        ------
        DomainError
            If a coordinate is not finite, or a shower holds more than `largest_ratio` of its incident energy.
        """
        energies = self.cells.fit(augmented, orbits)
        ratio = float((energies.sum(1) / incident.squeeze(1)).amax())
        if self.config.energies == "logit" and ratio > self.config.largest_ratio:
            raise DomainError(
                f"a shower has E_tot/E_inc = {ratio:.4g}: set largest_ratio above it, now {self.config.largest_ratio}"
            )
        empty = None
        if isinstance(self.energies, LogSticks):
            self.energies.fit(energies)
            empty = self.energies.empty(energies)
        sticks, _ = self.energies(energies, incident)
        if self.energy_marginals is None:
            self.standard_energies.fit(sticks)
        else:
            alone = torch.arange(self.geometry.n_layers, device=sticks.device)
            self.energy_marginals.fit(sticks, incident.log(), alone, empty)
