"""Jets of a simple law, made in a moment: a few prongs that share the pT, each with a spray of constituents."""

from __future__ import annotations

import numpy as np

from nisampler.calo.jets.jets import Jets
from nisampler.calo.jets.kinematics import totals

PRONGS = {0: 1, 2: 3}


def small_jets(n: int, seed: int = 1, most: int = 8, types: tuple[int, ...] = (0, 2)) -> Jets:
    """`n` jets of these types in turn, with 4 to `most` constituents."""
    rng = np.random.default_rng(seed)
    kinds = np.array([types[index % len(types)] for index in range(n)])
    points, mask = np.zeros((n, most, 3)), np.zeros((n, most), dtype=bool)
    for index, kind in enumerate(kinds):
        count = int(rng.integers(4, most + 1))
        axes = rng.normal(0.0, 0.25 if kind else 0.0, (PRONGS.get(int(kind), 1), 2))
        shares = rng.dirichlet(np.full(count, 2.0))
        points[index, :count, :2] = axes[np.arange(count) % len(axes)] + rng.normal(0.0, 0.05, (count, 2))
        points[index, :count, 2], mask[index, :count] = shares, True
    pt, eta = rng.normal(1000.0, 40.0, n), rng.uniform(-2.0, 2.0, n)
    _, mass = totals(points.astype(np.float32))
    return Jets(points.astype(np.float32), mask, kinds, pt, eta, mass * pt).leading(most)
