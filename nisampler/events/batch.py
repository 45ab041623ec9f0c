"""Events as columns: momenta, particle codes, colour flow, mothers, weights and scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nisampler.errors import EventFormatError
from nisampler.events.columns import COLUMNS, OPTIONAL, Bools
from nisampler.events.columns import FINAL as FINAL
from nisampler.events.columns import INCOMING as INCOMING
from nisampler.events.columns import UNKNOWN_SPIN as UNKNOWN_SPIN

Floats = NDArray[np.float64]


def _lengths(axes: tuple[str | int, ...], sizes: dict[str, int]) -> tuple[int, ...]:
    """The lengths of axes, some of them given by a letter."""
    return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in axes)


def _convert(name: str, value: ArrayLike, dtype: type[np.generic]) -> NDArray[Any]:
    """`value` in the column's dtype; integers must fit and floats must not be complex."""
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise EventFormatError(f"column {name}: {array.dtype} numbers cannot be stored as {np.dtype(dtype)}")
    if np.issubdtype(dtype, np.integer) and array.size:
        if array.dtype.kind == "f" and not np.all(np.isfinite(array) & (array == np.rint(array))):
            raise EventFormatError(f"column {name} needs whole numbers")
        limits = np.iinfo(np.dtype(dtype).name)
        if array.max() > limits.max or array.min() < limits.min:
            raise EventFormatError(f"column {name}: values must lie in [{limits.min}, {limits.max}]")
    return np.ascontiguousarray(array, dtype=dtype)


@dataclass(frozen=True, eq=False)
class EventBatch:
    """n events with p particle slots each, as NumPy columns.

    The slots hold the two beams first (the one along +z is particle 1), then resonances, then final legs;
    shorter events end in empty slots (status 0). Momenta are (E, px, py, pz); energies, masses and scales are
    in GeV, lifetimes in mm.

    Parameters
    ----------
    momenta
        (n, p, 4)
    masses
        (n, p)
    pdg_ids
        (n, p) particle codes of the Particle Data Group
    status
        (n, p) −1 incoming, 2 resonance, 1 final, 0 empty
    mothers
        (n, p, 2) 1-based positions, 0 for none
    colours
        (n, p, 2) colour and anticolour line tags (hep-ph/0109068), 0 for none
    spins
        (n, p) helicity, 9 for unknown
    weights
        (n,) 1 for unit weights; overweight events keep their weight
    scales
        (n,) factorisation scale
    alpha_em, alpha_s
        (n,) couplings at that scale
    process_ids
        (n,)
    lifetimes
        (n, p) proper lifetimes cτ, zero by default
    mu_r
        (n,) renormalisation scale, zero (the default) where it is not known
    pdf_x, pdf_xf
        (n, 2) momentum fractions x and densities x f(x, scale) of the incoming partons, zero (the default) without PDFs
    pt_clust
        (n, p) scales for MLM matching of the final legs, see `nisampler.events.matching`; zero (the default) where not
        known
    named_weights
        (n, k) weights of the same events with other scales or parton densities, in the unit of `weights`; none by
        default. Their names stand in `nisampler.events.InitInfo`.

    Raises
    ------
    EventFormatError
        If a column has the wrong shape or values its dtype cannot hold.

    Examples
    --------
    >>> event = EventBatch(
    ...     momenta=[[[5, 0, 0, 5], [5, 0, 0, -5], [5, 5, 0, 0], [5, -5, 0, 0]]],
    ...     masses=[[0] * 4],
    ...     pdg_ids=[[11, -11, 13, -13]],
    ...     status=[[-1, -1, 1, 1]],
    ...     mothers=[[[0, 0], [0, 0], [1, 2], [1, 2]]],
    ...     colours=[[[0, 0]] * 4],
    ...     spins=[[9] * 4],
    ...     **dict.fromkeys(("weights", "scales", "alpha_em", "alpha_s", "process_ids"), [1]),
    ... )
    >>> len(event), event.slots, event.momentum_balance().tolist()
    (1, 4, [[0.0, 0.0, 0.0, 0.0]])
    """

    momenta: Floats
    masses: Floats
    pdg_ids: NDArray[np.int32]
    status: NDArray[np.int8]
    mothers: NDArray[np.int16]
    colours: NDArray[np.int16]
    spins: Floats
    weights: Floats
    scales: Floats
    alpha_em: Floats
    alpha_s: Floats
    process_ids: NDArray[np.int32]
    lifetimes: Floats = field(default_factory=lambda: np.zeros(0))
    mu_r: Floats = field(default_factory=lambda: np.zeros(0))
    pdf_x: Floats = field(default_factory=lambda: np.zeros(0))
    pdf_xf: Floats = field(default_factory=lambda: np.zeros(0))
    pt_clust: Floats = field(default_factory=lambda: np.zeros(0))
    named_weights: Floats = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        momenta = _convert("momenta", self.momenta, np.float64)
        if momenta.ndim != 3 or momenta.shape[2] != 4:
            raise EventFormatError(f"column momenta must have shape (n, p, 4), got {momenta.shape}")
        n, p = momenta.shape[:2]
        named = np.shape(self.named_weights)
        sizes = {"p": p, "k": named[1] if len(named) == 2 else 0}
        for name, (dtype, axes, _) in COLUMNS.items():
            value = getattr(self, name)
            shape = (n, *_lengths(axes, sizes))
            if name in OPTIONAL and np.shape(value) == (0,):
                value = np.zeros(shape)
            column = _convert(name, value, dtype)
            if column.shape != shape:
                raise EventFormatError(f"column {name} must have shape {shape}, got {column.shape}")
            object.__setattr__(self, name, column)

    def __len__(self) -> int:
        return int(self.weights.shape[0])

    @property
    def slots(self) -> int:
        """Number of particle slots p."""
        return int(self.momenta.shape[1])

    def columns(self) -> dict[str, NDArray[Any]]:
        """The columns by name, in the order of the class; `pt_clust` and named weights only where there are any."""
        columns = {item.name: getattr(self, item.name) for item in fields(self)}
        if not self.named_weights.shape[1]:
            del columns["named_weights"]
        if not self.pt_clust.any():
            del columns["pt_clust"]
        return columns

    @classmethod
    def empty(cls, slots: int = 0) -> EventBatch:
        """A batch without events."""
        sizes = {"p": slots, "k": 0}
        return cls(**{name: np.zeros((0, *_lengths(axes, sizes)), dtype) for name, (dtype, axes, _) in COLUMNS.items()})

    @classmethod
    def concatenate(cls, batches: Sequence[EventBatch]) -> EventBatch:
        """One batch of all events in order; shorter events get empty slots.

        Raises
        ------
        EventFormatError
            If they have different numbers of named weights.
        """
        if not batches:
            return cls.empty()
        slots = max(batch.slots for batch in batches)
        filled = [batch for batch in batches if len(batch)] or batches[:1]
        counts = sorted({batch.named_weights.shape[1] for batch in filled})
        if len(counts) > 1:
            raise EventFormatError(f"events with {' and '.join(map(str, counts))} named weights cannot be put together")
        padded = [batch.padded(slots) for batch in filled]
        names = {name for batch in padded for name in batch.columns()}
        return cls(**{name: np.concatenate([getattr(batch, name) for batch in padded]) for name in names})

    def padded(self, slots: int) -> EventBatch:
        """The same events with `slots` ≥ p particle slots.

        Raises
        ------
        EventFormatError
            If `slots` is smaller than p.
        """
        extra = slots - self.slots
        if extra < 0:
            raise EventFormatError(f"cannot store {self.slots} particles in {slots} slots")
        if extra == 0:
            return self
        result = self.columns()
        for name, (_, axes, fill) in COLUMNS.items():
            if axes[:1] == ("p",) and name in result:
                column = result[name]
                widths = [(0, 0), (0, extra)] + [(0, 0)] * (column.ndim - 2)
                result[name] = np.pad(column, widths, constant_values=fill)
        return EventBatch(**result)

    def select(self, mask: ArrayLike) -> EventBatch:
        """The events picked by a boolean mask (n,), an index array or a slice."""
        index: Any = mask if isinstance(mask, slice) else np.asarray(mask)
        return EventBatch(**{name: column[index] for name, column in self.columns().items()})

    def scaled(self, factor: float) -> EventBatch:
        """The same events with all their weights, named ones included, multiplied by a factor."""
        return replace(self, weights=factor * self.weights, named_weights=factor * self.named_weights)

    @property
    def incoming(self) -> Bools:
        """(n, p) mask of the incoming particles."""
        return np.asarray(self.status == INCOMING)

    @property
    def final(self) -> Bools:
        """(n, p) mask of the final legs."""
        return np.asarray(self.status == FINAL)

    def final_state(self) -> tuple[Floats, NDArray[np.int32]]:
        """Momenta (n, k, 4) and codes (n, k) of the final legs, in order.

        k is the largest number of final legs in the batch; events with fewer end in zeros.
        """
        final = self.final
        k = int(final.sum(axis=1).max(initial=0))
        order = np.argsort(~final, axis=1, kind="stable")[:, :k]
        present = np.take_along_axis(final, order, axis=1)
        momenta = np.take_along_axis(self.momenta, order[:, :, None], axis=1) * present[:, :, None]
        codes = np.take_along_axis(self.pdg_ids, order, axis=1) * present
        return momenta, np.asarray(codes, dtype=np.int32)

    def momentum_balance(self) -> Floats:
        """(n, 4) four-momentum of the final legs minus that of the incoming particles, in GeV."""
        sign = self.final.astype(np.float64) - self.incoming.astype(np.float64)
        return np.asarray(np.einsum("np,npm->nm", sign, self.momenta))

    def mass_balance(self) -> Floats:
        """(n, p) E² − p² − m² in GeV²: zero on the mass shell."""
        energy, momentum = self.momenta[..., 0], self.momenta[..., 1:]
        return np.asarray(energy**2 - (momentum**2).sum(axis=-1) - self.masses**2)


@dataclass(frozen=True, eq=False)
class PointBatch:
    """n weighted points of a callable that has no event record.

    Parameters
    ----------
    x
        (n, d) coordinates in the integrand's domain
    weights
        (n,) f/q, or ±1 after unweighting

    Raises
    ------
    EventFormatError
        If the shapes do not agree.

    Examples
    --------
    >>> points = PointBatch(x=[[0.1, 0.2], [0.3, 0.4]], weights=[1.0, 2.0])
    >>> points.dim, points.select([1]).weights
    (2, array([2.]))
    """

    x: Floats
    weights: Floats

    def __post_init__(self) -> None:
        x = _convert("x", self.x, np.float64)
        weights = _convert("weights", self.weights, np.float64)
        if x.ndim != 2 or weights.shape != x.shape[:1]:
            raise EventFormatError(f"need x (n, d) and weights (n,), got {x.shape} and {weights.shape}")
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "weights", weights)

    def __len__(self) -> int:
        return int(self.weights.shape[0])

    @property
    def dim(self) -> int:
        """Number of coordinates d."""
        return int(self.x.shape[1])

    @classmethod
    def concatenate(cls, batches: Sequence[PointBatch]) -> PointBatch:
        """One batch of all points in order.

        Raises
        ------
        EventFormatError
            If the dimensions differ, or nothing is given.
        """
        if not batches or any(batch.dim != batches[0].dim for batch in batches):
            raise EventFormatError("need at least one batch of points, all of one dimension")
        return cls(np.concatenate([b.x for b in batches]), np.concatenate([b.weights for b in batches]))

    def select(self, mask: ArrayLike) -> PointBatch:
        """The points picked by a boolean mask (n,), an index array or a slice."""
        index: Any = mask if isinstance(mask, slice) else np.asarray(mask)
        return PointBatch(self.x[index], self.weights[index])

    def validate(self) -> None:
        """Check that every number is finite.

        Raises
        ------
        EventFormatError
            Naming the first wrong point.
        """
        for name, bad in (("x", ~np.isfinite(self.x).all(axis=1)), ("weights", ~np.isfinite(self.weights))):
            if bad.any():
                raise EventFormatError(f"point {int(np.argmax(bad)) + 1}: {name} is not finite")
