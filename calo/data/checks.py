"""What shower energies must satisfy: finite, not negative, in MeV, in the order of the geometry."""

from __future__ import annotations

import numpy as np

from nisampler.calo.data.showers import Showers, Voxels
from nisampler.calo.detector.geometry import Floats, Geometry, IncidentEnergy
from nisampler.errors import ShowerDataError

# A wrong unit is a factor 1000. The largest E_tot/E_inc of a CaloChallenge shower is 6.9 (pions of 256 MeV).
_LARGEST = 50.0
# MeV. No source has more, and squares of it fit single precision.
_MOST_ENERGY = 1e15
_SMALLEST = 5e-3
_MIN_SHOWERS_SCALE = 10
_MIN_SHOWERS_ORDER = 100
_LARGEST_ASYMMETRY = 30.0
_TOLERANCE = 1e-3


def check_incident(incident: Floats, where: object, first: int = 0) -> None:
    """Refuse incident energies that are not positive, or above 1e15 MeV, which no source has.

    Parameters
    ----------
    incident
        MeV, shape (n,).
    where
        What the message calls the source, e.g. the path of a file.
    first
        Number of the first event in that source.

    Raises
    ------
    ShowerDataError
        The message names the first such event and how many there are.

    Examples
    --------
    >>> check_incident(np.array([1e3, 2e3]), "a.h5")
    """
    wrong = np.flatnonzero(~((incident > 0) & (incident <= _MOST_ENERGY)))
    if len(wrong):
        raise ShowerDataError(
            f"{where}: event {first + wrong[0]} has the incident energy {incident[wrong[0]]:g} MeV, which must be "
            f"positive and at most {_MOST_ENERGY:g} ({len(wrong)} such events); write the file again without them"
        )


def check_voxels(voxels: Voxels, geometry: Geometry, where: object, first: int = 0, column: int = 0) -> None:
    """Refuse voxels that are negative, or above 1e15 MeV or not finite.

    Parameters
    ----------
    voxels
        MeV, shape (n, v) with v consecutive voxels of the geometry.
    geometry
        Gives the layer of a voxel.
    where, first
        As in `check_incident`.
    column
        Number of the first of these voxels in the geometry.

    Raises
    ------
    ShowerDataError
        The message names the event, the voxel and its layer, and how many voxels are wrong.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> check_voxels(np.zeros((1, 240), dtype=np.float32), geometry("toy"), "a.h5")
    """
    if not voxels.size or (voxels.min() >= 0 and voxels.max() <= _MOST_ENERGY):  # NaN fails the first comparison
        return
    events, wrong = np.nonzero(~((voxels >= 0) & (voxels <= _MOST_ENERGY)))
    event, voxel, value = int(events[0]), column + int(wrong[0]), voxels[events[0], wrong[0]]
    layer = geometry.layers[int(geometry.layer_of_voxel[voxel])].id
    raise ShowerDataError(
        f"{where}: event {first + event}, voxel {voxel} (layer {layer}) is {value:g} MeV; energies must "
        f"not be negative nor above {_MOST_ENERGY:g} ({len(events)} such voxels); correct whatever made these showers"
    )


def _share(law: IncidentEnergy, energies: Floats) -> float:
    """The fraction of `energies` that the law can give."""
    if law.kind == "discrete":
        values = np.asarray(law.values)
        above = np.searchsorted(values, energies).clip(1, len(values) - 1) if len(values) > 1 else np.zeros(1, int)
        nearest = np.minimum(abs(energies - values[above]), abs(energies - values[above - 1]))
        return float(np.mean(nearest <= _TOLERANCE * energies))
    low, high = law.values
    return float(np.mean((energies >= low * (1 - _TOLERANCE)) & (energies <= high * (1 + _TOLERANCE))))


def check_units(incident: Floats, geometry: Geometry, where: object, unit: str = "MeV") -> None:
    """Refuse incident energies that follow the law of the geometry only after a factor 1000.

    Energies that the law does not give either way pass: a test beam may have any.

    Parameters
    ----------
    incident
        MeV, shape (n,).
    geometry
        Gives the law.
    where
        What the message calls the source.
    unit
        The unit in which the source should hold them.

    Raises
    ------
    ShowerDataError
        If more than half fit the law in GeV instead of MeV, or the other way round.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> check_units(np.array([1e3, 1e4]), geometry("toy"), "a.h5")
    """
    law = geometry.incident
    if _share(law, incident) >= 0.5:
        return
    for factor, low in ((1e3, True), (1e-3, False)):
        if _share(law, incident * factor) > 0.5:
            steps = ("keV", "MeV", "GeV", "TeV")
            guess = steps[steps.index(unit) + (1 if low else -1)] if unit in steps[1:-1] else "another unit"
            raise ShowerDataError(
                f"{where}: the incident energies (median {np.median(incident):g} MeV) are 1000 times too "
                f"{'small' if low else 'large'} for {geometry.name} ({law.values[0]:g} to {law.values[-1]:g} MeV): "
                f"they look like {guess}, this layout has {unit}. Convert them; if they are right, give the geometry "
                "their law with dataclasses.replace(geometry, incident=...)"
            )


def check_scale(showers: Showers, geometry: Geometry, where: object, first: int = 0) -> None:
    """Refuse showers whose E_tot/E_inc shows that voxels and incident energies have different units.

    The median over the showers that are not empty is compared with the usual response of the geometry, if that is
    known. One that is
    much too large is refused always, one that is much too small from ten showers on: single showers of low energy
    may deposit next to nothing.

    Raises
    ------
    ShowerDataError
        The message gives the ratio and names the events.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> check_scale(Showers(np.array([1e3]), np.ones((1, 240), dtype=np.float32)), geometry("toy"), "a.h5")
    """
    total = showers.voxels.sum(axis=1, dtype=np.float64)
    ratios = (total / showers.incident)[total > 0]
    if not len(ratios) or geometry.response is None:
        return
    median, usual = float(np.median(ratios)), geometry.response
    if median <= _LARGEST * usual and (median >= _SMALLEST * usual or len(ratios) < _MIN_SHOWERS_SCALE):
        return
    guess = (
        "the voxels look like keV, or the incident energies like GeV"
        if median > usual
        else "the voxels look like GeV, or the incident energies like keV"
    )
    raise ShowerDataError(
        f"{where}: E_tot/E_inc has the median {median:.3g} in events {first} to {first + len(showers) - 1}, "
        f"{geometry.name} has about {usual:g}: {guess}; both must be in MeV"
    )


def check_order(showers: Showers, geometry: Geometry, where: object, first: int = 0) -> None:
    """Refuse a hundred showers or more whose mean is far from symmetric about the axis.

    In the right order (alpha slow, r fast) all sectors of a polar geometry have about the same mean energy; with r
    slow, the first sector holds the core of the shower. Rectangular cells cannot be told apart this way, nor can those
    of showers whose conditions may point to a side.

    Raises
    ------
    ShowerDataError
        The message names the layer and the order that is expected.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> check_order(Showers(np.array([1e3]), np.ones((1, 240), dtype=np.float32)), geometry("toy"), "a.h5")
    """
    if len(showers) < _MIN_SHOWERS_ORDER or any(known.kind != "category" for known in geometry.conditions):
        return
    mean = (1 / showers.incident).astype(np.float32) @ showers.voxels
    brightest = int(np.argmax(np.add.reduceat(mean, geometry.starts[:-1])))
    layer = geometry.layers[brightest]
    sectors = mean[geometry.slice(brightest)].reshape(layer.shape).sum(axis=1)
    if layer.turns and sectors.max() > _LARGEST_ASYMMETRY * sectors.min():
        raise ShowerDataError(
            f"{where}: the mean of events {first} to {first + len(showers) - 1} in layer {layer.id} differs by more "
            f"than {_LARGEST_ASYMMETRY:g} between sectors; voxels must be in the order layer, alpha, r with r fastest"
        )
