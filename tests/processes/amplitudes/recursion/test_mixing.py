"""The CKM matrix where several W can occur: factors of single lines, cancellations between generations, cards."""

from __future__ import annotations

import pytest
import torch

from nisampler.errors import ConfigError
from nisampler.processes.amplitudes.recursion.amplitude import RecursiveAmplitude
from nisampler.processes.amplitudes.recursion.matrix_element import MatrixElement
from nisampler.processes.amplitudes.recursion.model import Couplings
from nisampler.processes.amplitudes.recursion.probes import probe_momenta
from nisampler.processes.parameters import StandardModel
from nisampler.processes.standard_model.parameters import StringParameters

MODEL = StandardModel().on_shell()
ALPHA_S = torch.tensor([0.118], dtype=torch.float64)


class Unsigned(Couplings):
    """A negative control: absolute values alone."""

    def charged(self, first: int, second: int) -> complex:
        return abs(super().charged(first, second))


def squared(initial: tuple[int, int], final: tuple[int, ...], couplings: Couplings) -> torch.Tensor:
    element = MatrixElement(initial, final, couplings, {0})
    return element.squared(probe_momenta([leg.mass for leg in element.legs]), ALPHA_S)


def test_generations_cancel_where_flavours_would_change() -> None:
    whole = squared((2, -2), (24, -24), Couplings(MODEL))
    for codes in ((2, -4), (1, -3)):
        assert (squared(codes, (24, -24), Couplings(MODEL)) < 1e-5 * whole).all()
        assert (squared(codes, (24, -24), Unsigned(MODEL)) > 1e-2 * whole).all()


def test_lines_of_one_w_have_their_factor() -> None:
    """One t-channel W at each line: the elements of all flavours are one times |V|^4."""
    unit, mixed = (RecursiveAmplitude("p p > t j QCD=0", ckm=kind) for kind in ("unit", "model"))
    assert mixed.elements == unit.elements
    factors = {(item.initial, item.final): item.factor for item in mixed.subprocesses}
    square = MODEL.ckm_squared
    assert factors[(5, 2), (6, 1)] / factors[(5, 2), (6, 3)] == pytest.approx(square(2, 1) / square(2, 3))
    assert factors[(3, 2), (6, 1)] / factors[(5, 2), (6, 1)] == pytest.approx(square(6, 3) / square(6, 5))
    assert all(item.factor == 1.0 for item in unit.subprocesses)
    p = probe_momenta([0.0, 0.0, MODEL.mass_top, 0.0], points=1)
    values = mixed.squared(p[:, :2], p[:, 2:], ALPHA_S)[0]
    for codes in ((5, 2), (6, 1)), ((3, 4), (6, 3)):
        (item,) = [item for item in mixed.subprocesses if (item.initial, item.final) == codes]
        element = MatrixElement(codes[0], codes[1], Couplings(MODEL), {0})
        assert (item.factor * values[item.element]).item() == pytest.approx(element.squared(p, ALPHA_S).item())


def test_decays_know_the_matrix() -> None:
    decays = "p p > w+ z, w+ > e+ ve, z > mu+ mu-"
    unit, mixed = (RecursiveAmplitude(decays, ckm=kind) for kind in ("unit", "model"))
    assert len(mixed.subprocesses) > len(unit.subprocesses)
    assert mixed.elements == unit.elements


def test_cards_choose_between_two() -> None:
    assert StringParameters().ckm == "unit"
    assert StringParameters(ckm="model").model == MODEL
    with pytest.raises(ConfigError, match="ckm"):
        StringParameters(ckm="cabibbo")  # type: ignore[arg-type]
