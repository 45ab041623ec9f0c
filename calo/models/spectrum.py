"""A map of single voxel energies that gives generated showers the voxel spectrum of the training showers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nisampler.errors import DomainError

_FEWEST = 10


class SpectrumMap(nn.Module):
    """log v -> f(log v) with f = Q⁻¹ P, where P and Q are the spectra of generated and reference voxels.

    Both samples are sorted and matched; f goes through the means in bins of equal width, as a monotone cubic
    (2405.20407, appendix C). Beyond the samples it shifts; zero voxels stay zero. Before `fit` it is the identity.

    Parameters
    ----------
    bins
        Of log v; at least two.

    Examples
    --------
    >>> step, voxels = SpectrumMap(3), torch.linspace(1.0, 9.0, 60)
    >>> step.fit(voxels, 2 * voxels)
    >>> bool((step(voxels) > voxels).all())
    True
    """

    knots: Tensor
    values: Tensor

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.register_buffer("knots", torch.arange(bins, dtype=torch.float64))
        self.register_buffer("values", torch.arange(bins, dtype=torch.float64))

    @torch.no_grad()
    def fit(self, generated: Tensor, reference: Tensor) -> None:
        """Take f from as many voxels (m,) in MeV of each sample, all of them positive, in random order.

        Raises
        ------
        DomainError
            If they are not as many, too few, or generated voxels are all alike.
        """
        if generated.shape != reference.shape or len(generated) < _FEWEST * len(self.knots):
            raise DomainError(
                f"a map of spectra needs {_FEWEST * len(self.knots)} voxels or more of both samples, got "
                f"{len(generated)} and {len(reference)}"
            )
        x, f = generated.double().log().sort().values, reference.double().log().sort().values
        bins = len(self.knots)
        index = ((x - x[0]) / (x[-1] - x[0]).clamp_min(1e-9) * bins).long().clamp_max(bins - 1)
        count = torch.bincount(index, minlength=bins)
        kept = count >= _FEWEST
        if int(kept.sum()) < 2:
            raise DomainError("a map of spectra needs generated voxels that differ: train the model longer")
        means = [torch.bincount(index, weights=values, minlength=bins)[kept] / count[kept] for values in (x, f)]
        self.knots.copy_(torch.linspace(0, 1, bins, dtype=x.dtype) * (means[0][-1] - means[0][0]) + means[0][0])
        self.values.copy_(_between(self.knots, *means))
        # the spectra end where they begin, not at the mean of a bin
        self.knots[0], self.values[0] = x[0], f[0]

    def forward(self, voxels: Tensor) -> Tensor:
        """Voxels in MeV of any shape, not negative."""
        x = torch.where(voxels > 0, voxels, torch.ones_like(voxels)).double().log()
        f = self._cubic(x.clamp(self.knots[0], self.knots[-1]))
        f = f + (x - self.knots[0]).clamp_max(0) + (x - self.knots[-1]).clamp_min(0)
        return torch.where(voxels > 0, f.exp().to(voxels.dtype), voxels)

    def _cubic(self, x: Tensor) -> Tensor:
        """Hermite's cubic; slopes are harmonic means of the secants at both sides, which keeps it monotone."""
        widths, heights = self.knots.diff(), self.values.diff()
        secants = heights / widths
        inner = 2 * secants[1:] * secants[:-1] / (secants[1:] + secants[:-1]).clamp_min(torch.finfo(x.dtype).tiny)
        slopes = torch.cat([secants[:1], inner, secants[-1:]])
        k = (torch.searchsorted(self.knots, x.contiguous()) - 1).clamp(0, len(widths) - 1)
        t = (x - self.knots[k]) / widths[k]
        rise = t * t * (3 - 2 * t) * heights[k]
        bend = t * (1 - t) * ((1 - t) * slopes[k] - t * slopes[k + 1]) * widths[k]
        return self.values[k] + rise + bend


def _between(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Linear interpolation between increasing knots."""
    k = torch.searchsorted(knots, x).clamp(1, len(knots) - 1)
    share = (x - knots[k - 1]) / (knots[k] - knots[k - 1])
    return values[k - 1] + share.clamp(0, 1) * (values[k] - values[k - 1])
