"""A flow that starts as a VEGAS grid: the grid becomes the bins of its first splines (2212.06172, section 4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nisampler.errors import ConfigError
from nisampler.flows.coupling import CouplingTransform
from nisampler.flows.folding import Fold
from nisampler.flows.splines.families import Spline
from nisampler.flows.splines.rational_quadratic import MIN_SIZE, MIN_SLOPE

# Least slope and largest one that a start may have, and where softplus is the identity in double precision.
_LEAST, _STEEPEST, _LINEAR = 1e-3, 1e4, 30.0


def start_from_grid(transform: nn.Module, nodes: Tensor) -> None:
    """Set the output biases of fresh coupling blocks so that the flow is the product density of VEGAS grids.

    The first block that changes a coordinate takes its grid, coarsened to the bins of the spline, with the grid's local
    densities as slopes at the knots; the others stay the identity. Cells narrower than the spline allows are widened to
    its minimum.

    Parameters
    ----------
    transform
        A composition of coupling blocks whose conditioners still end in zeros, of one flow or of several (grouped).
    nodes
        Nodes of the grids, shape (groups, dim, m + 1), rising from 0 to 1.

    Raises
    ------
    ConfigError
        If the splines are not rational quadratic on the unit interval with free ends.

    Examples
    --------
    >>> from nisampler.flows import coupling_flow
    >>> flow, nodes = coupling_flow(1), torch.tensor([[[0.0, 0.1, 1.0]]])
    >>> start_from_grid(flow.transform, nodes)
    >>> bool(flow.log_prob(torch.tensor([[0.05]])) > 1.0)
    True
    """
    done: set[int] = set()
    folds = [module for module in transform.modules() if isinstance(module, Fold)]
    nodes = folds[0].grids(nodes) if folds else nodes
    for block in transform.modules():
        if not isinstance(block, CouplingTransform):
            continue
        if block.spline.kind != "rational_quadratic" or block.spline.domain != "unit":
            raise ConfigError("only rational-quadratic splines on the unit interval can start from a VEGAS grid")
        coordinates = torch.nonzero(block.mask).squeeze(1).tolist()
        bias = _bias(block.net).view(nodes.shape[0], block.spline.n_params, len(coordinates))
        with torch.no_grad():
            for place, coordinate in enumerate(coordinates):
                if coordinate not in done:
                    bias[:, :, place] = _raw_parameters(nodes[:, coordinate], block.spline).to(bias)
                    done.add(coordinate)


def fits_bins(nodes: Tensor, bins: int) -> bool:
    """Whether grids (groups, dim, m + 1), coarsened to `bins` cells, have none that is too narrow for a spline.

    >>> nodes = torch.tensor([[[0.0, 1e-6, 1.0]]])
    >>> fits_bins(nodes, 2), fits_bins(nodes, 1)
    (False, True)
    """
    return bool((resampled(nodes, bins).diff(dim=-1) > MIN_SIZE).all())


def resampled(nodes: Tensor, cells: int) -> Tensor:
    """Nodes (..., m + 1) of grids with `cells` cells instead, (..., cells + 1), on the same piecewise linear maps.

    >>> resampled(torch.tensor([0.0, 0.2, 1.0]), 4)
    tensor([0.0000, 0.1000, 0.2000, 0.6000, 1.0000])
    """
    if nodes.shape[-1] == cells + 1:
        return nodes
    return _at(nodes, torch.linspace(0.0, nodes.shape[-1] - 1.0, cells + 1, dtype=nodes.dtype, device=nodes.device))


def _bias(net: nn.Module) -> Tensor:
    """The parameters that a conditioner adds to its output, (d_out,) or (groups, d_out)."""
    output = getattr(net, "output", None)
    values: Tensor = net.get_parameter("values") if output is None else output.bias
    return values


def _raw_parameters(nodes: Tensor, spline: Spline) -> Tensor:
    """Raw spline parameters (G, P) of the grids (G, m + 1): widths, heights and slopes."""
    bins, cells = spline.bins, nodes.shape[1] - 1
    place = torch.linspace(0.0, cells, bins + 1, dtype=nodes.dtype, device=nodes.device)
    reach = max(1.0, cells / (4 * bins))
    low, high = (place - reach).clamp(min=0.0), (place + reach).clamp(max=float(cells))
    slope = (high - low) / cells / (_at(nodes, high) - _at(nodes, low)).clamp(min=1e-12)
    share = (resampled(nodes, bins).diff(dim=1) - MIN_SIZE).clamp(min=_LEAST * MIN_SIZE)
    above = slope.clamp(_LEAST, _STEEPEST) - MIN_SLOPE
    raw_slope = torch.where(above > _LINEAR, above, torch.expm1(above.clamp(max=_LINEAR)).log())
    raw_slope = raw_slope - math.log(math.expm1(1.0 - MIN_SLOPE))
    return torch.cat([share.log(), torch.zeros_like(share), raw_slope], 1)


def _at(nodes: Tensor, place: Tensor) -> Tensor:
    """Nodes (..., m + 1) at fractional positions (k,), by linear interpolation."""
    low = place.long().clamp(max=nodes.shape[-1] - 2)
    return torch.lerp(nodes[..., low], nodes[..., low + 1], place - low)
