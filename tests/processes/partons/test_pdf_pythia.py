"""Parton densities and the coupling against Pythia's, and sum rules, on the grids that pythia8mc brings."""

from __future__ import annotations

import pytest
import pythia8mc
import torch
from scipy.interpolate import RegularGridInterpolator
from torch import Tensor

from nisampler.processes.partons.alpha_s import RunningAlphaS
from nisampler.processes.partons.grid_files import read_grid
from nisampler.processes.partons.pdf import PDF_FLAVOURS, PartonDensity, load_pdf
from nisampler.processes.partons.sets import LHAPDF_IDS, _pythia_folder

# Pythia's reader has no top quark.
COMPARED = tuple(pdg for pdg in PDF_FLAVOURS if abs(pdg) != 6)
SETS = ("NNPDF31_lo_as_0118", "NNPDF31_nnlo_as_0118_luxqed", "CT14qed_proton")


def points(n: int) -> tuple[Tensor, Tensor]:
    """x from 1e-6 to 1 and Q from 2 GeV to 10 TeV, uniform in the logarithms."""
    u = torch.rand(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return 10 ** (-6 * u[:, 0]), (2 * 5000 ** u[:, 1]).square()


def pythia_values(name: str, x: Tensor, q2: Tensor) -> Tensor:
    pythia = pythia8mc.Pythia("", False)
    for setting in ("Print:quiet = on", "ProcessLevel:all = off", f"PDF:pSet = LHAGrid1:{name}_0000.dat"):
        assert pythia.readString(setting)
    assert pythia.init()
    oracle = pythia.getPDFPtr(2212)
    rows = [[oracle.xf(pdg, *point) for pdg in COMPARED] for point in zip(x.tolist(), q2.tolist(), strict=True)]
    return torch.tensor(rows, dtype=torch.float64)


def deviation(values: Tensor, truth: Tensor) -> float:
    """Largest relative difference where |x f| > 1e-3."""
    large = truth.abs() > 1e-3
    return ((values - truth)[large] / truth[large]).abs().max().item()


def compared(pdf: PartonDensity, x: Tensor, q2: Tensor | float) -> Tensor:
    return pdf.xf(x, q2)[:, [pdf.column(pdg) for pdg in COMPARED]]


@pytest.mark.parametrize("name", SETS)
def test_densities_are_pythias(name: str) -> None:
    x, q2 = points(1500)
    pdf = load_pdf(name)
    assert pdf.lhapdf_id == LHAPDF_IDS[name]
    truth = pythia_values(name, x, q2)
    assert (truth > 1e-3).sum(0).min() > 300
    assert deviation(compared(pdf, x, q2), truth) < 1e-9
    fixed = torch.full_like(x, 91.1876**2)
    assert deviation(compared(pdf, x, fixed[0].item()), pythia_values(name, x, fixed)) < 1e-9


def test_borders_are_pythias() -> None:
    """Knots, thresholds, below and above the grid."""
    name = SETS[0]
    grids = read_grid(_pythia_folder() / f"{name}_0000.dat")
    x = torch.cat([grids[0].x[::7], torch.tensor([1e-12, 1e-9, 0.999, 1.0], dtype=torch.float64)])
    q = torch.cat([grids[0].q[::3], grids[1].q[::5], torch.tensor([0.5, 4.92, 1e5, 1e7], dtype=torch.float64)])
    x, q = (axis.flatten() for axis in torch.meshgrid(x, q, indexing="ij"))
    values, truth = compared(load_pdf(name), x, q.square()), pythia_values(name, x, q.square())
    # On a knot in Q rounding may put the point into either sub-grid: compare those at the threshold apart.
    away = (q - 4.92).abs() > 1e-6
    assert deviation(values[away], truth[away]) < 1e-9


def test_a_bilinear_interpolation_is_not_good_enough() -> None:
    name = SETS[0]
    grid = read_grid(_pythia_folder() / f"{name}_0000.dat")[-1]
    x, q2 = points(1500)
    x, q2 = x[q2 > 25], q2[q2 > 25]
    axes = (grid.x.log().numpy(), 2 * grid.q.log().numpy())
    linear = RegularGridInterpolator(axes, grid.values.numpy())(torch.stack((x.log(), q2.log()), dim=-1).numpy())
    values = torch.from_numpy(linear)[:, [grid.flavours.index(pdg) for pdg in COMPARED]]
    assert deviation(values.clamp(min=0), pythia_values(name, x, q2)) > 1e-3


@pytest.mark.parametrize("name", ("NNPDF31_nnlo_as_0118_luxqed", "CT14qed_proton"))
@pytest.mark.parametrize("q", (3.0, 91.1876))
def test_sum_rules(name: str, q: float) -> None:
    """Two valence up quarks, one down, no strange; the partons carry all momentum but the photon's half per cent."""
    pdf = load_pdf(name)
    log_x = torch.linspace(-20.7, 0, 5001, dtype=torch.float64)
    x = log_x.exp()
    values = pdf.xf(x, q**2)
    valence = [
        torch.trapezoid(values[:, pdf.column(pdg)] - values[:, pdf.column(-pdg)], log_x).item() for pdg in (1, 2, 3)
    ]
    assert valence == pytest.approx([1, 2, 0], abs=3e-3)
    assert torch.trapezoid(values.sum(-1) * x, log_x).item() == pytest.approx(1, abs=5e-3)


@pytest.mark.parametrize(("loops", "tolerance"), ((1, 1e-7), (2, 1e-3)))
def test_coupling_is_pythias(loops: int, tolerance: float) -> None:
    """Pythia's two-loop coupling is the expansion in 1 / ln(Q^2 / Lambda^2), not the solution of the equation."""
    oracle = pythia8mc.AlphaStrong()
    oracle.init(0.118, loops, 6, False)
    q2 = torch.tensor([400.0, 2500.0, 91.188**2, 3e4, 1e6], dtype=torch.float64)
    truth = [oracle.alphaS(scale) for scale in q2.tolist()]
    assert RunningAlphaS(0.118, 91.188, loops)(q2).tolist() == pytest.approx(truth, rel=tolerance)
    assert load_pdf("NNPDF31_lo_as_0118").alpha_s(91.1876**2).item() == pytest.approx(0.118, rel=1e-8)
