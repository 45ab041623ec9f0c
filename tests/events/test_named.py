"""Observables by name: numbers done by hand, the particles they are of, what no event has, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_events import events_of, massless

from nisampler.errors import ConfigError
from nisampler.events import EventBatch
from nisampler.events.named import NamedObservable, particles, usual

E_MINUS, E_PLUS, MU_PLUS, NU, GLUON, BOTTOM, Z = 11, -11, -13, 12, 21, 5, 23


def values(name: str, batch: EventBatch) -> list[float]:
    return [float(value) for value in NamedObservable.of(name)(batch)]


@pytest.fixture
def batch() -> EventBatch:
    """Two jets and two leptons, and one jet with a lepton and its neutrino."""
    return events_of(
        [
            (GLUON, massless(30.0, eta=1.0)),
            (BOTTOM, massless(50.0, eta=-1.0, phi=math.pi)),
            (E_MINUS, massless(40.0)),
            (E_PLUS, massless(20.0, phi=math.pi)),
        ],
        [(MU_PLUS, massless(25.0)), (NU, massless(25.0, phi=math.pi)), (-1, massless(35.0, eta=-2.0))],
    )


def test_numbers_done_by_hand(batch: EventBatch) -> None:
    jets = math.sqrt(2 * 30.0 * 50.0 * (math.cosh(2.0) + 1.0))
    expected = {
        "pt_j1": [50.0, 35.0],
        "pt_j2": [30.0, math.nan],
        "eta(j1)": [-1.0, -2.0],
        "abs(eta_j)": [1.0, 2.0],
        "abs_eta_j": [1.0, 2.0],
        "|eta_j|": [1.0, 2.0],
        "m_jj": [jets, math.nan],
        "deta_jj": [2.0, math.nan],
        "dr(j1, j2)": [math.hypot(2.0, math.pi), math.nan],
        "dphi_ll": [math.pi, math.nan],
        "m(l+, l-)": [2 * math.sqrt(800.0), math.nan],
        "M_E+E-": [2 * math.sqrt(800.0), math.nan],
        "mt_lv": [math.nan, 50.0],
        "met": [math.nan, 25.0],
        "ht": [80.0, 35.0],
        "ht(j, l)": [140.0, 60.0],
        "n_j": [2.0, 1.0],
        "n_b": [1.0, 0.0],
        "pt_ll": [20.0, math.nan],
    }
    for name, numbers in expected.items():
        np.testing.assert_allclose(values(name, batch), numbers, rtol=1e-12, atol=1e-12, err_msg=name)


def test_names_without_numbers_are_the_next_particles(batch: EventBatch) -> None:
    assert values("dr_jj", batch) == pytest.approx(values("dr_j1j2", batch), nan_ok=True)
    # The first jet is taken by its number, wherever that stands, so that the other one is the second.
    assert values("m(j, j1)", batch) == pytest.approx(values("m_jj", batch), nan_ok=True)
    # The hardest lepton is the electron: there is no other one.
    assert math.isnan(values("m(l1, e-)", batch)[0])
    assert values("m(l1, e+)", batch)[0] == pytest.approx(values("m_ll", batch)[0])


def test_intermediate_particles_count_where_they_decay() -> None:
    pair = [(Z, (100.0, 30.0, 0.0, 0.0)), (E_MINUS, massless(40.0)), (GLUON, massless(10.0))]
    found = events_of(pair, resonances=1)
    assert values("pt_Z", found) == [30.0]
    gluon_first = events_of([pair[2], pair[1]], resonances=1)
    assert math.isnan(values("pt_j1", gluon_first)[0])


@given(st.permutations(range(4)), st.lists(st.floats(1.0, 500.0), min_size=4, max_size=4, unique=True))
def test_the_order_of_a_record_does_not_matter(order: list[int], pts: list[float]) -> None:
    jets = [(GLUON, massless(pt, eta=0.3 * k, phi=float(k))) for k, pt in enumerate(pts)]
    first, second = events_of(jets), events_of([jets[k] for k in order])
    for name in ("pt_j1", "pt_j4", "m_jjj", "dr_j2_j3", "ht", "sqrt_shat"):
        assert values(name, first) == pytest.approx(values(name, second), rel=1e-12)
    assert values("pt_j1", first) == [pytest.approx(max(pts))]


def test_ranges_hold_nearly_all_values_and_are_round() -> None:
    rng = np.random.default_rng(1)
    for name, found in (
        ("pt_j1", 20.0 + rng.exponential(30.0, 5000)),
        ("m_jj", np.exp(rng.normal(4.0, 1.5, 5000))),
        ("y_j1", rng.normal(0.0, 2.0, 5000)),
        ("m_ll", rng.normal(91.0, 3.0, 5000)),
    ):
        axis = NamedObservable.of(name).observable(found)
        assert np.mean((found >= axis.low) & (found <= axis.high)) > 0.99
        assert float(f"{axis.low:.3g}") == axis.low and float(f"{axis.high:.3g}") == axis.high
        assert axis.log == (name == "m_jj")
    assert NamedObservable.of("y_j1").observable(np.array([-1.0, 3.0])).low < -2.9
    assert NamedObservable.of("n_j").observable(np.array([2.0, 4.0])).edges().tolist() == [
        -0.5,
        0.5,
        1.5,
        2.5,
        3.5,
        4.5,
    ]
    chosen = NamedObservable.of("pt_j1:20:500:30:log").observable(np.array([1.0]))
    assert (chosen.low, chosen.high, chosen.bins, chosen.log) == (20.0, 500.0, 30, True)
    assert NamedObservable.of("pt_ll").observable(np.full(5, 1e-15)).high == 1.0
    assert NamedObservable.of("mu_f").observable(np.full(5, 91.0)).edges()[[0, -1]].tolist() == [0.0, 182.0]


def test_labels_are_those_of_people() -> None:
    for name, label in {
        "pt_j1": r"$p_T(j_{1})$ [GeV]",
        "abs(eta(e-))": r"$|\eta(e^{-})|$",
        "dphi_ll": r"$|\Delta\phi(\ell, \ell)|$",
        "m(t, t~)": r"$m(t, \bar{t})$ [GeV]",
        "pt_vm~": r"$p_T(\bar{\nu_\mu})$ [GeV]",
        "x1": "$x_1$",
    }.items():
        assert NamedObservable.of(name).label == label


def test_usual_observables_suit_the_particles(batch: EventBatch) -> None:
    assert {"pt_j1", "m_jj", "m_ll", "met"} <= set(usual(batch))
    for name in usual(batch):
        assert np.isfinite(values(name, batch)).any(), name
    assert particles(batch) == "mu+, d~, b, e+, e-, ve, g".replace("mu+, d~", "mu+, e+, d~").replace(
        "b, e+, e-", "b, e-"
    )
    assert usual(events_of([(E_MINUS, massless(5.0))])) == ["pt_l1", "eta_l1"]
    assert usual(events_of([(Z, (91.0, 0.0, 0.0, 0.0))])) == ["sqrt_shat"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no quantity ''; known: pt, eta"),
        ("pt", "takes one particle or more"),
        ("foo_j", "no quantity 'foo'"),
        ("pt_q", "no particles 'q'; there are j, g"),
        ("dr_j", "takes two particles"),
        ("n_jj", "takes one name"),
        ("met(j)", "no quantity 'met'"),
        ("m_j1j1", "of a particle and itself"),
        ("pt_j0", "counted from 1"),
        ("pt_j1:3", "no limits"),
        ("pt_j1:a:b", "no limits"),
        ("pt_j1:3:2", "LOW < HIGH"),
        ("pt_j1:0:nan", "LOW < HIGH"),
        ("pt_j1:0:9:log", "need LOW > 0"),
        ("pt_j1:1:9:0", "choose 1 to 10,000"),
        ("pt_j1:1:9:5:6", "LOW < HIGH"),
    ],
)
def test_texts_that_are_none_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        NamedObservable.of(text)
    assert message in str(error.value)


def test_ranges_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="none of the first 2 events has it"):
        NamedObservable.of("pt_j1").observable(np.full(2, math.nan))
    with pytest.raises(ConfigError, match="logarithmic bins need positive values"):
        NamedObservable.of("pt_j1:log").observable(np.array([0.0] * 10 + [1.0]))


@given(st.text(alphabet="ptmeyjl1+-~_(), :0.", max_size=14))
def test_any_text_is_understood_or_refused_by_name(text: str) -> None:
    try:
        found = NamedObservable.of(text)
    except ConfigError:
        return
    assert found(events_of([(GLUON, massless(5.0))])).shape == (1,)
