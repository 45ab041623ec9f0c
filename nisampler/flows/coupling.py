"""Coupling blocks: one part of the coordinates is transformed by splines that depend on the other part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nisampler.errors import ConfigError, ShapeError
from nisampler.flows.splines.families import Spline
from nisampler.flows.transforms import Transform


class CouplingTransform(Transform):
    """y_A = spline(x_A; net(x_B, context)), y_B = x_B (1605.08803; with splines 1808.03856, 1906.04032).

    Parameters
    ----------
    mask
        Bool, shape (d,): True where a coordinate is transformed (A). It is saved with the model.
    net
        A function (d_in, d_out) -> module that builds the conditioner; the module maps (n, d_in) and an
        optional context to (n, d_out), with d_in coordinates in B and d_out = |A| * spline.n_params. Output
        p |A| + i is parameter p of coordinate i, the order in which the spline runs over contiguous memory.
    spline
        The family of splines.

    Raises
    ------
    ConfigError
        If the mask transforms nothing or is not a vector of bool.

    Examples
    --------
    >>> from nisampler.flows import NetConfig
    >>> mask, generator = torch.tensor([True, False]), torch.Generator().manual_seed(1)
    >>> block = CouplingTransform(mask, lambda n, m: NetConfig(hidden=8).build(n, m, generator), Spline(bins=4))
    >>> y, log_det = block.inverse(torch.full((5, 2), 0.4))
    >>> y.shape, log_det.shape
    (torch.Size([5, 2]), torch.Size([5]))
    """

    mask: Tensor
    _kept: Tensor
    _changed: Tensor

    def __init__(self, mask: Tensor, net: Callable[[int, int], nn.Module], spline: Spline) -> None:
        super().__init__()
        if mask.dim() != 1 or mask.dtype != torch.bool or not mask.any():
            raise ConfigError("a coupling mask must be a bool vector with at least one True entry")
        changed = int(mask.sum())
        self.spline = spline
        self.net = net(len(mask) - changed, changed * spline.n_params)
        self.register_buffer("mask", mask.clone())
        self.register_buffer("_kept", torch.empty(0, dtype=torch.long), persistent=False)
        self.register_buffer("_changed", torch.empty(0, dtype=torch.long), persistent=False)
        self._index()
        self.register_load_state_dict_post_hook(_index_loaded_mask)  # type: ignore[no-untyped-call]

    def _index(self) -> None:
        """Turn the mask into index vectors: these cost no synchronisation and keep all shapes fixed."""
        order = torch.argsort(self.mask.to(torch.uint8), stable=True)
        kept = int((~self.mask).sum())
        self._kept, self._changed = order[:kept], order[kept:]

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._apply_spline(x, context, inverse=False)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._apply_spline(y, context, inverse=True)

    def _apply_spline(self, x: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        if x.dim() != 2 or x.shape[1] != self.mask.shape[0]:
            raise ShapeError(f"expected points of shape (n, {self.mask.shape[0]}), got {tuple(x.shape)}")
        rows = x.t()
        kept = rows.index_select(0, self._kept).t()
        params = split_parameters(self.net(kept, context), self._changed.shape[0])
        changed, log_slope = self.spline(rows.index_select(0, self._changed).t(), params, inverse)
        return rows.index_copy(0, self._changed, changed.t()).t(), log_slope.sum(dim=1)


def split_parameters(raw: Tensor, dim: int) -> Tensor:
    """View network outputs (n, P dim), parameter-major, as (n, dim, P).

    >>> split_parameters(torch.arange(6.0).view(1, 6), 2)
    tensor([[[0., 2., 4.],
             [1., 3., 5.]]])
    """
    return raw.t().reshape(raw.shape[1] // dim, dim, raw.shape[0]).permute(2, 1, 0)


def _index_loaded_mask(module: Any, incompatible_keys: Any) -> None:
    """A mask that was loaded from a state dict replaces the one made at construction."""
    module._index()
