"""Events that the tests of this folder share: e+ e- → q q̄ g with flat phase space."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
import pytest

from nisampler.events import EventBatch, InitInfo, ProcessInfo
from nisampler.events.columns import COLUMNS

collect_ignore: list[str] = []
if importlib.util.find_spec("pythia8mc") is None:
    collect_ignore.append("test_shower.py")

ENERGY = 45.5938
MIN_PAIR = 0.05  # smallest pair mass squared over s


def _isotropic(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Unit three-vectors."""
    cosine = rng.uniform(-1, 1, shape)
    phi = rng.uniform(0, 2 * np.pi, shape)
    sine = np.sqrt(1 - cosine**2)
    return np.stack([sine * np.cos(phi), sine * np.sin(phi), cosine], axis=-1)


def _three_massless(n: int, seed: int) -> np.ndarray:
    """(n, 3, 4) flat three-body phase space at rest: energy fractions flat, orientation isotropic."""
    rng = np.random.default_rng(seed)
    y = np.empty((0, 3))
    while len(y) < n:
        y = np.concatenate([y, rng.dirichlet((1, 1, 1), 2 * n)])
        y = y[(y > MIN_PAIR).all(axis=1)][:n]
    energy = (1 - y) * ENERGY
    first = _isotropic(rng, (n,))
    side = np.cross(first, _isotropic(rng, (n,)))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    cosine = 1 - 2 * y[:, 2] * ENERGY**2 / (energy[:, 0] * energy[:, 1])
    second = cosine[:, None] * first + np.sqrt(1 - cosine**2)[:, None] * side
    momenta = np.zeros((n, 3, 4))
    momenta[:, 0, 1:], momenta[:, 1, 1:] = energy[:, :1] * first, energy[:, 1:2] * second
    momenta[:, 2, 1:] = -momenta[:, 0, 1:] - momenta[:, 1, 1:]
    momenta[..., 0] = np.linalg.norm(momenta[..., 1:], axis=-1)
    return momenta


def _events(n: int, seed: int = 7, weights: np.ndarray | None = None) -> EventBatch:
    rng = np.random.default_rng(seed + 1)
    momenta = np.zeros((n, 5, 4))
    momenta[:, :2, 0] = ENERGY
    momenta[:, 0, 3], momenta[:, 1, 3] = ENERGY, -ENERGY
    momenta[:, 2:] = _three_massless(n, seed)
    flavour = rng.integers(1, 6, n)
    codes = np.stack([np.full(n, -11), np.full(n, 11), flavour, -flavour, np.full(n, 21)], axis=1)
    return EventBatch(
        momenta=momenta,
        masses=np.zeros((n, 5)),
        pdg_ids=codes,
        status=np.tile([-1, -1, 1, 1, 1], (n, 1)),
        mothers=np.tile([[0, 0], [0, 0], [1, 2], [1, 2], [1, 2]], (n, 1, 1)),
        colours=np.tile([[0, 0], [0, 0], [501, 0], [0, 502], [502, 501]], (n, 1, 1)),
        spins=np.full((n, 5), 9.0),
        weights=np.ones(n) if weights is None else weights,
        scales=np.full(n, 2 * ENERGY),
        alpha_em=np.full(n, 1 / 128),
        alpha_s=np.full(n, 0.118),
        process_ids=np.ones(n, dtype=int),
    )


def _resonant(n: int, seed: int = 9) -> EventBatch:
    """The same with the Z written as a resonance: six slots."""
    batch = _events(n, seed)
    columns = {}
    for name, column in batch.columns().items():
        if COLUMNS[name][1][:1] != ("p",):
            columns[name] = column
            continue
        columns[name] = np.insert(column, 2, 0, axis=1)
    columns["momenta"][:, 2] = columns["momenta"][:, :2].sum(axis=1)
    columns["masses"][:, 2] = 2 * ENERGY
    columns["pdg_ids"][:, 2] = 23
    columns["status"][:, 2] = 2
    columns["mothers"][:, 2] = (1, 2)
    columns["mothers"][:, 3:] = (3, 3)
    columns["spins"][:, 2] = 9.0
    return EventBatch(**columns)


@pytest.fixture
def events() -> Callable[..., EventBatch]:
    """events(n, seed=7, weights=None)"""
    return _events


@pytest.fixture
def resonant() -> Callable[..., EventBatch]:
    """resonant(n, seed=9): with an intermediate Z."""
    return _resonant


@pytest.fixture
def info() -> InitInfo:
    """Beams and cross-section that belong to `events`."""
    return InitInfo((-11, 11), (ENERGY, ENERGY), (ProcessInfo(1234.5, 0.6),), version="0")


@pytest.fixture
def same() -> Callable[[EventBatch, EventBatch], None]:
    """Assert that two batches agree in every bit."""

    def check(left: EventBatch, right: EventBatch) -> None:
        for name, column in left.columns().items():
            other = right.columns()[name]
            assert column.dtype == other.dtype
            np.testing.assert_array_equal(column, other, err_msg=name)

    return check
