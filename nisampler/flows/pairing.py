"""Noise paired with data by optimal transport, so that the paths of flow matching cross less (2302.00482)."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Tensor

MOST = 128
"""Points that are paired at a time: larger groups are dealt into parts."""


def paired(noise: Tensor, points: Tensor, rows: Tensor, most: int = MOST) -> Tensor:
    """Noise (m, d) in another order: within each group the sum of square distances to the points is the least.

    Parameters
    ----------
    noise, points
        Both (m, d).
    rows
        The group of each point, (m,).
    most
        Larger groups are dealt into parts of at most so many points, each of which is paired by itself.

    Examples
    --------
    >>> noise, points = torch.tensor([[1.0], [5.0], [0.0]]), torch.tensor([[4.0], [2.0], [9.0]])
    >>> paired(noise, points, torch.tensor([0, 0, 1])).flatten().tolist()
    [5.0, 1.0, 0.0]
    """
    order = rows.argsort(stable=True).cpu().numpy()
    start, goal = (np.asarray(part.detach().cpu(), dtype=np.float64)[order] for part in (noise, points))
    counts = torch.bincount(rows).tolist() if len(rows) else []
    taken, first = np.arange(len(order)), 0
    for count in counts:
        for low in range(first, first + count, most):
            part = slice(low, min(low + most, first + count))
            if part.stop - part.start > 1:
                _, columns = linear_sum_assignment(cdist(goal[part], start[part], "sqeuclidean"))
                taken[part] = low + columns
        first += count
    index = np.empty_like(order)
    index[order] = order[taken]
    return noise[torch.from_numpy(index).to(noise.device)]
