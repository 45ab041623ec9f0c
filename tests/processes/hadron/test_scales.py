"""Scales by name and by number, their factors, and wrong ones."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from nisampler.errors import ConfigError, ProcessError, UnknownProcessError
from nisampler.processes.constants import LOWEST_SCALE
from nisampler.processes.hadron.scales import make_scales, transverse_mass

MASSES = {"m_Z": 91.1876}
# Two leptons of pT 30 and 10 along x, a parton of pT 40 against them, all at rapidity zero.
POINT = torch.tensor([[[30.0, 30, 0, 0], [10.0, 0, 10, 0], [math.hypot(30, 10), -30, -10, 0]]], dtype=torch.float64)
BOSON_MT = 40.0
BOSON_MASS = math.sqrt(40.0**2 - 30.0**2 - 10.0**2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("m_ll", BOSON_MASS),
        ("m_T", BOSON_MT),
        ("H_T/2", 0.5 * (BOSON_MT + math.hypot(30, 10))),
        ("H_T", BOSON_MT + math.hypot(30, 10)),
        ("H_T/4", 0.25 * (BOSON_MT + math.hypot(30, 10))),
        ("sum m_T", 40.0 + math.hypot(30, 10)),
        ("sum m_T/2", 0.5 * (40.0 + math.hypot(30, 10))),
        ("sum E_T", 40.0 + math.hypot(30, 10)),
        ("sqrt(s^)", 40.0 + math.hypot(30, 10)),
        ("m_Z", 91.1876),
        (50, 50.0),
        (42.5, 42.5),
    ],
)
def test_values(name, value):
    mu_r, mu_f = make_scales(name, ((0, 1),), MASSES)(POINT)
    assert mu_r.tolist() == pytest.approx([value]) and mu_f.tolist() == pytest.approx([value])


def test_scales_do_not_change_under_boosts_along_the_beam():
    rapidity = 1.3
    boosted = POINT.clone()
    boosted[..., 0] = POINT[..., 0] * math.cosh(rapidity) + POINT[..., 3] * math.sinh(rapidity)
    boosted[..., 3] = POINT[..., 0] * math.sinh(rapidity) + POINT[..., 3] * math.cosh(rapidity)
    for name in ("m_ll", "m_T", "H_T/2", "sum m_T", "sum E_T", "sqrt(s^)"):
        scales = make_scales(name, ((0, 1),), MASSES)
        torch.testing.assert_close(scales(boosted), scales(POINT))


def test_factors_vary_one_scale_each():
    mu_r, mu_f = make_scales("m_Z", ((0, 1),), MASSES, (0.5, 2.0))(POINT)
    assert mu_r.tolist() == pytest.approx([0.5 * 91.1876]) and mu_f.tolist() == pytest.approx([2 * 91.1876])


def test_two_heavy_particles_are_averaged():
    mu_r, _ = make_scales("m_T", ((0,), (1,)), {})(POINT)
    assert mu_r.tolist() == pytest.approx([20.0])
    half, _ = make_scales("H_T/2", ((0,), (1,)), {})(POINT)
    assert half.tolist() == pytest.approx([0.5 * float(transverse_mass(POINT).sum())])


def test_only_constant_scales_say_so():
    assert make_scales("m_Z", ((0, 1),), MASSES, (1.0, 2.0)).constant == (91.1876, 2 * 91.1876)
    assert make_scales("m_T", ((0, 1),), MASSES).constant is None


def test_no_scale_falls_below_a_gev():
    mu_r, mu_f = make_scales("m_ll", ((0, 1),), {})(torch.zeros(2, 3, 4, dtype=torch.float64))
    assert mu_r.tolist() == mu_f.tolist() == [LOWEST_SCALE, LOWEST_SCALE]


@pytest.mark.parametrize("wrong", ["mZ", "", 0.5, -91.0, math.nan, math.inf, True, None, [91.0]])
def test_wrong_scales(wrong):
    with pytest.raises(ConfigError, match="scale"):
        make_scales(wrong, ((0, 1),), MASSES)


@pytest.mark.parametrize("factor", [0.0, -1.0, math.nan])
def test_wrong_factors(factor):
    with pytest.raises(ConfigError, match="factor"):
        make_scales("m_Z", ((0, 1),), MASSES, (1.0, factor))


def test_a_function_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def hard(p):\n    return p[:, 0, 0]\n\ndef soft(p):\n  return 0 * p[:, 0, 0]\n")
    mu_r, _ = make_scales(f"{tmp_path}/mine.py:hard", ((0, 1),), MASSES, (2.0, 1.0))(POINT)
    assert mu_r.tolist() == [60.0]
    assert make_scales(lambda p: p[:, 1, 0], (), {})(POINT)[0].tolist() == [10.0]
    with pytest.raises(ProcessError, match=r"mine.py:soft is not positive and finite everywhere"):
        make_scales(f"{tmp_path}/mine.py:soft", (), {})(POINT)
    with pytest.raises(ProcessError, match=r"must return a tensor \(1,\), got \(1, 3\)"):
        make_scales(lambda p: p[:, :, 0], (), {})(POINT)
    with pytest.raises(ProcessError, match="failed: ZeroDivisionError"):
        make_scales(lambda p: 1 / 0, (), {})(POINT)
    with pytest.raises(UnknownProcessError, match="has no object"):
        make_scales(f"{tmp_path}/mine.py:other", (), {})
