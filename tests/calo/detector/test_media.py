"""Derived constants of materials against published ones, and the errors of media."""

from __future__ import annotations

import dataclasses

import pytest

from nisampler.calo.detector.media import ARGON, LEAD, SILICON, TUNGSTEN, Element, mixture, sampling_medium
from nisampler.errors import GeometryError


@pytest.mark.parametrize(
    ("element", "expected"), [(TUNGSTEN, 8.00), (LEAD, 7.36), (SILICON, 36.7), (ARGON, 29.1)], ids=lambda x: str(x)[:20]
)
def test_critical_energies(element: Element, expected: float) -> None:
    assert element.critical_energy == pytest.approx(expected, rel=0.02)


def test_par04_medium() -> None:
    medium = sampling_medium(TUNGSTEN, 1.4, SILICON, 0.3)
    assert medium.radiation_length == pytest.approx(4.219, abs=0.005)
    assert medium.critical_energy == pytest.approx(8.23, abs=0.01)
    assert medium.moliere_radius == pytest.approx(10.87, abs=0.02)
    assert medium.Z == pytest.approx(72.5, abs=0.05)
    assert medium.sampling_frequency == pytest.approx(2.48, abs=0.01)
    assert medium.e_over_mip == pytest.approx(0.704, abs=0.001)
    assert medium.mip_fraction == pytest.approx(0.0362, abs=0.0002)
    assert medium.visible_fraction == pytest.approx(0.0255, abs=0.0002)


def test_calogan_and_ild_media() -> None:
    calogan = sampling_medium(LEAD, 2.0, ARGON, 4.0)
    assert calogan.radiation_length == pytest.approx(15.59, abs=0.05)
    assert calogan.critical_energy == pytest.approx(8.97, abs=0.03)
    assert calogan.moliere_radius == pytest.approx(36.8, abs=0.2)
    assert calogan.sampling_frequency == pytest.approx(2.60, abs=0.01)
    assert calogan.e_over_mip == pytest.approx(0.691, abs=0.001)
    assert calogan.visible_fraction == pytest.approx(0.172, abs=0.002)
    ild = sampling_medium(TUNGSTEN, 2.1, SILICON, 0.525)
    assert ild.radiation_length == pytest.approx(4.338, abs=0.005)
    assert ild.moliere_radius == pytest.approx(11.1, abs=0.05)


def test_a_mixture_of_one_element_is_the_element() -> None:
    lead = mixture([(LEAD, 3.0)])
    assert lead.radiation_length == pytest.approx(10 * LEAD.radiation_length / LEAD.density)
    assert lead.critical_energy == pytest.approx(LEAD.critical_energy)
    assert lead.Z == pytest.approx(82)
    assert lead.sampling_frequency is None and lead.visible_fraction == 1.0


def test_lengths_scale_with_the_volume_but_not_with_its_size() -> None:
    one, ten = (mixture([(LEAD, 1.0 * size), (ARGON, 2.0 * size)]) for size in (1.0, 10.0))
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(ten, field.name)
        assert a is b is None or a == pytest.approx(b)


@pytest.mark.parametrize("parts", [[], [(LEAD, 0.0)], [(LEAD, 1.0), (ARGON, -1.0)]])
def test_a_mixture_needs_positive_parts(parts: list[tuple[Element, float]]) -> None:
    with pytest.raises(GeometryError, match="positive volume"):
        mixture(parts)


def test_an_element_needs_positive_numbers() -> None:
    with pytest.raises(GeometryError, match="nothing: Z, A, density"):
        Element("nothing", 0, 1, 1, 1, 1)
