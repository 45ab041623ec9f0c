"""Parton densities on grids that the test writes itself: exact polynomials, borders, errors."""

from __future__ import annotations

import importlib.metadata
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pdf_grids import write_set
from torch import Tensor

from nisampler.errors import MissingExtraError, PdfError, ShapeError
from nisampler.processes.partons import grid_files
from nisampler.processes.partons.grid_files import SubGrid, read_grid
from nisampler.processes.partons.pdf import PDF_FLAVOURS, PartonDensity, load_pdf

X = [1e-5 * 10 ** (0.5 * i) for i in range(10)] + [1.0]
Q = ([1.5, 2.0, 3.0, 4.5], [4.5, 8.0, 20.0, 90.0, 1000.0])
INFO = "SetIndex: 99000\nNumMembers: 2\nAlphaS_Qs: [1.5, 2, 3, 4.5,\n 4.5, 10, 100]\nAlphaS_Vals: [{}]\n"


def density(flavour: int, x: Tensor, q2: Tensor) -> Tensor:
    """x f that is cubic in ln x and in ln Q^2, and for b quarks (5) jumps at Q = 4.5 GeV."""
    lx, lq = x.log(), q2.log()
    bottom = (abs(flavour) == 5) * 50 * (q2 >= 4.5**2)
    return 200 + flavour + bottom + lx - 0.02 * lx**3 + 0.3 * lq**3 - 0.01 * lq * lx**2


def set_text(flavours: tuple[int, ...] = (-5, -1, 21, 1, 5), shift: float = 0.0) -> str:
    blocks = ["PdfType: central\nFormat: lhagrid1\n"]
    for i, scales in enumerate(Q):
        rows = []
        for x in X:
            for q in scales:
                # The border belongs to both sub-grids; the lower one holds the values below the threshold.
                q2 = torch.tensor(q**2 * (1 - 1e-13 if i == 0 else 1), dtype=torch.float64)
                values = [density(pdg, torch.tensor(x, dtype=torch.float64), q2) + shift for pdg in flavours]
                rows.append(" ".join(f"{value:.17e}" for value in values))
        knots = (" ".join(repr(knot) for knot in axis) for axis in (X, scales))
        blocks.append("\n".join(["", *knots, " ".join(map(str, flavours)), *rows, ""]))
    return "---".join([*blocks, "\n"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sets") / "test_set"
    path.mkdir()
    (path / "test_set_0000.dat").write_text(set_text())
    (path / "test_set_0001.dat").write_text(set_text(shift=1.0))
    (path / "test_set.info").write_text(INFO.format("0.4, 0.35, 0.3, 0.25, 0.24, 0.2, 0.12"))
    return path


@pytest.fixture(scope="module")
def pdf(folder: Path) -> PartonDensity:
    return load_pdf(folder)


@given(st.floats(math.log(1e-5), -1e-6), st.floats(math.log(1.5), math.log(1000)))
def test_cubics_are_reproduced_in_every_sub_grid(pdf: PartonDensity, log_x: float, log_q: float) -> None:
    x = torch.tensor([math.exp(log_x)], dtype=torch.float64)
    q2 = torch.tensor([math.exp(2 * log_q)], dtype=torch.float64)
    values = pdf.xf(x, q2)
    for flavour in (-5, -1, 1, 5):
        assert values[0, pdf.column(flavour)].item() == pytest.approx(density(flavour, x, q2).item(), rel=1e-11)
    assert values[0, pdf.column(3)] == 0
    assert torch.allclose(pdf.xf(x, q2.item()), values, rtol=1e-12)


def test_the_threshold_belongs_to_the_upper_sub_grid(pdf: PartonDensity) -> None:
    x = torch.tensor([0.1], dtype=torch.float64)
    jump = pdf.xf(x, 4.5**2 * (1 + 1e-12)) - pdf.xf(x, 4.5**2 * (1 - 1e-12))
    assert jump[0, pdf.column(5)].item() == pytest.approx(50, abs=1e-6)
    assert jump[0, pdf.column(1)].item() == pytest.approx(0, abs=1e-6)
    assert torch.equal(pdf.xf(x, 4.5**2), pdf.xf(x, torch.tensor(4.5**2)))


def test_outside_the_grid(pdf: PartonDensity) -> None:
    x = torch.tensor([1e-9, 1e-5, 0.0, 1.0, 1.5, math.nan], dtype=torch.float64)
    values = pdf.xf(x, 100.0)
    assert torch.allclose(values[0], values[1], rtol=1e-12)
    assert torch.allclose(values[2], values[1], rtol=1e-12)
    assert not values[3:5].any()
    assert values[5].isnan().all()
    x = torch.full((5,), 0.1, dtype=torch.float64)
    q2 = torch.tensor([1e-3, 1.5**2, 1e6, 1e9, math.nan], dtype=torch.float64)
    values = pdf.xf(x, q2)
    assert torch.allclose(values[0], values[1], rtol=1e-12)
    assert torch.allclose(values[2], values[3], rtol=1e-12)
    assert values[4].isnan().all()
    assert torch.allclose(pdf.xf(x[:1], 1e9), values[2:3], rtol=1e-12)


def test_both_beams_in_one_call_and_a_scale_that_changes(pdf: PartonDensity) -> None:
    x = torch.rand(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    q2 = torch.linspace(3, 9e5, 40, dtype=torch.float64).unsqueeze(-1)
    both = pdf.xf(x, q2)
    assert both.shape == (40, 2, len(PDF_FLAVOURS))
    for beam in (0, 1):
        assert torch.equal(both[:, beam], pdf.xf(x[:, beam], q2[:, 0]))
    for i in (3, 7, 3):
        assert torch.allclose(pdf.xf(x[i], q2[i].item()), both[i], rtol=1e-12)
    assert pdf.xf(x[:0, 0], 10.0).shape == (0, len(PDF_FLAVOURS))


def test_negative_values_are_clipped(tmp_path: Path) -> None:
    path = tmp_path / "low.dat"
    path.write_text(set_text(shift=-230))
    x = torch.logspace(-5, -0.01, 50, dtype=torch.float64)
    values = load_pdf(path).xf(x, 4.0)
    truth = density(21, x, torch.tensor(4.0, dtype=torch.float64)) - 230
    assert truth.min() < 0 < truth.max()
    assert torch.allclose(values[:, 6], truth.clamp(min=0), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("fixed", (False, True))
def test_gradients(pdf: PartonDensity, fixed: bool) -> None:
    x = torch.tensor([2e-4, 0.03, 0.4], dtype=torch.float64, requires_grad=True)
    q2 = torch.tensor([10.0, 300.0, 5e4], dtype=torch.float64, requires_grad=True)
    arguments = (x,) if fixed else (x, q2)
    assert torch.autograd.gradcheck(lambda x, q2=300.0: pdf.xf(x, q2)[:, 6], arguments, eps=1e-6, rtol=1e-4)


def test_it_stays_on_its_device(folder: Path) -> None:
    pdf = load_pdf(folder)
    x = torch.empty(4, device="meta")
    for q2 in (x, 100.0):
        assert pdf.xf(x, q2).device.type == "meta"
    assert pdf.alpha_s(x).device.type == "meta"


def test_members_info_and_coupling(folder: Path, pdf: PartonDensity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LHAPDF_DATA_PATH", str(folder.parent))
    second = load_pdf("test_set", member=1)
    assert (pdf.name, pdf.member, pdf.lhapdf_id) == ("test_set", 0, 99000)
    assert (second.name, second.member, second.lhapdf_id) == ("test_set", 1, 99001)
    assert load_pdf(folder / "test_set_0000.dat", 1).lhapdf_id == 99001
    assert pdf.flavours == (-5, -1, 21, 1, 5)
    assert (pdf.x_min, pdf.x_max, pdf.q2_min, pdf.q2_max) == (1e-5, 1.0, 2.25, 1e6)
    x = torch.tensor([0.1], dtype=torch.float64)
    assert (second.xf(x, 50.0) - pdf.xf(x, 50.0))[0, pdf.column(21)].item() == pytest.approx(1)
    q2 = torch.tensor([0.1, 4.0, 4.4999**2, 4.5**2, 1e4, 1e8], dtype=torch.float64)
    assert pdf.alpha_s(q2).tolist() == pytest.approx([0.4, 0.35, 0.25, 0.24, 0.12, 0.12], abs=1e-5)
    assert pdf.alpha_s(1e4).item() == pytest.approx(0.12)


def test_coupling_by_reference_value_or_by_name(tmp_path: Path) -> None:
    path = tmp_path / "some_set_0000.dat"
    path.write_text(set_text())
    with pytest.raises(PdfError, match="use RunningAlphaS"):
        load_pdf(path).alpha_s(100.0)
    info = path.with_name("some_set.info")
    info.write_text("AlphaS_MZ: 0.118\nMZ: 91.2\nAlphaS_OrderQCD: 1\nMCharm: 1.3\nMBottom: 4.75\nMTop: 172\n")
    assert load_pdf(path).alpha_s(91.2**2).item() == pytest.approx(0.118, rel=1e-9)
    info.write_text("AlphaS_MZ: 0.118\nAlphaS_OrderQCD: 1\n")
    with pytest.raises(PdfError, match=r"some_set\.info.*MBottom"):
        load_pdf(path)
    info.write_text("AlphaS_Qs: [1, 2]\nAlphaS_Vals: [0.3, oops]\n")
    with pytest.raises(PdfError, match=r"some_set\.info.*oops"):
        load_pdf(path)
    named = tmp_path / "NNPDF31_nlo_as_0116_0000.dat"
    named.write_text(set_text())
    assert load_pdf(named).alpha_s(91.1876**2).item() == pytest.approx(0.116, rel=1e-8)


def test_a_member_s_own_coupling_overrides_that_of_the_set(tmp_path: Path) -> None:
    """alpha_s of PDF4LHC21_40_pdfas at five scales, as LHAPDF 6.5.3 gives it: member 42 is up to 4 % off member 0."""
    scales = "1.5, 4.75, 45, 200, 13000"
    values = {0: [0.348842926965, 0.216058806085, 0.132140728635, 0.105512329596, 0.0678061894716]}
    values[42] = [0.358883978063, 0.219582192755, 0.133403271934, 0.106575719484, 0.0706588603406]
    own = f"AlphaS_MZ: 0.119\nAlphaS_Qs: [{scales}]\nAlphaS_Vals: {values[42]}\n"
    text = set_text().replace("Format", own + "Format", 1)
    (tmp_path / "pdfas_0000.dat").write_text(set_text())
    (tmp_path / "pdfas_0042.dat").write_text(text)
    (tmp_path / "pdfas.info").write_text(f"AlphaS_MZ: 0.118\nAlphaS_Qs: [{scales}]\nAlphaS_Vals: {values[0]}\n")
    q2 = torch.tensor([float(q) ** 2 for q in scales.split(",")], dtype=torch.float64)
    for member, expected in values.items():
        pdf = load_pdf(tmp_path / "pdfas_0000.dat", member)
        assert pdf.alpha_s(q2).tolist() == pytest.approx(expected, rel=1e-9), member
    masses = "AlphaS_OrderQCD: 1\nMCharm: 1.3\nMBottom: 4.75\nMTop: 172\nMZ: 91.2\n"
    (tmp_path / "pdfas.info").write_text(f"AlphaS_MZ: 0.118\n{masses}")
    (tmp_path / "pdfas_0042.dat").write_text(set_text().replace("Format", "AlphaS_MZ: 0.119\nFormat", 1))
    found = [load_pdf(tmp_path / "pdfas_0000.dat", member).alpha_s(91.2**2).item() for member in (0, 42)]
    assert found == pytest.approx([0.118, 0.119], rel=1e-9)


def test_what_lies_outside_or_below_zero_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "low.dat"
    path.write_text(set_text(shift=-230))
    x = torch.tensor([1e-6, 0.01, 0.1, 0.5], dtype=torch.float64)
    q2 = torch.tensor([1.0, 4.0, 4.0, 1e7], dtype=torch.float64)
    for scale, outside in ((q2, 2), (4.0, 0), (1.0, 4)):
        pdf = load_pdf(path)
        values = pdf.xf(x, scale)
        # The five flavours of this set are either positive or clipped.
        clipped = int((values[:, [pdf.column(pdg) for pdg in pdf.flavours]] == 0).sum())
        assert clipped > 0
        assert pdf.tally.counts() == {
            "densities": 4 * len(PDF_FLAVOURS),
            "densities below zero": clipped,
            "x below the grid": 1,
            "Q outside the grid": outside,
        }


def test_a_wrong_number_of_the_set_is_named(tmp_path: Path) -> None:
    path = tmp_path / "some_0000.dat"
    path.write_text(set_text())
    for text in ("x12", "-3", "1" * 30):
        path.with_name("some.info").write_text(f"SetIndex: {text}\n")
        with pytest.raises(PdfError, match=r"some\.info: SetIndex must be a whole number"):
            load_pdf(path)


def test_short_axes_doubled_knots_and_fused_numbers(tmp_path: Path) -> None:
    path = tmp_path / "small.dat"
    path.write_text("Format: lhagrid1\n---\n0.1 0.1 0.5 1\n1 10\n0 22\n" + "1.00e+002.00e+00\n" * 8 + "---\n")
    pdf = load_pdf(path)
    assert pdf.flavours == (21,)
    assert pdf.xf(torch.tensor([0.3], dtype=torch.float64), 4.0)[0].tolist() == pytest.approx([0] * 6 + [1] + [0] * 6)


def broken(old: str, new: str) -> str:
    text = set_text()
    assert old in text
    return text.replace(old, new, 1)


CASES = {
    "head": (lambda: broken("lhagrid1", "lhagrid9"), "not an LHAPDF grid file"),
    "no end": (lambda: set_text()[: len(set_text()) // 2], "cut short"),
    "short block": (lambda: broken("---\n", "---\n1 2\n---\n"), "sub-grid 1 is cut short"),
    "missing column": (lambda: broken("-5 -1 21 1 5", "-5 -1 21 1"), "sub-grid 1 holds 220 numbers"),
    "doubled flavour": (lambda: broken("-5 -1 21 1 5", "-5 -1 21 1 1"), "sub-grid 1"),
    "not a flavour": (lambda: broken("-5 -1 21 1 5", "-5 -1 g 1 5"), "sub-grid 1.*'g'"),
    "not a number": (lambda: broken("e+02 ", "e+02x "), "sub-grid 1.*could not convert"),
    "nan": (lambda: broken(set_text().split("\n")[6].split()[0], "nan"), "not finite"),
    "huge": (lambda: broken(set_text().split("\n")[6].split()[0], "1e308"), "x f = 1e\\+308, which no density"),
    "huge knot": (lambda: broken("90.0 1000.0", "90.0 1e308"), "must be positive and rise"),
    "knots alike": (lambda: broken("20.0 90.0", "90.0 90.00000000000001"), "must be positive and rise"),
    "knot below zero": (lambda: broken("20.0 90.0", "-20.0 90.0"), "must be positive and rise"),
    "falling knots": (lambda: broken("1.5 2.0 3.0 4.5", "1.5 3.0 2.0 4.5"), "must be positive and rise"),
    "gap": (lambda: broken("\n4.5 8.0", "\n4.6 8.0"), "gap in Q"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_broken_file_is_refused(case: str, tmp_path: Path) -> None:
    text, message = CASES[case]
    path = tmp_path / "broken.dat"
    path.write_text(text())
    with pytest.raises(PdfError, match=message):
        load_pdf(path)


def test_sub_grids_with_other_knots_are_refused() -> None:
    x, q = torch.tensor([0.1, 1.0], dtype=torch.float64), torch.tensor([1.0, 2.0], dtype=torch.float64)
    below = SubGrid(x, q, (21,), torch.ones(2, 2, 1, dtype=torch.float64))
    above = SubGrid(2 * x, 2 * q, (21,), below.values)
    with pytest.raises(PdfError, match="different knots in x"):
        PartonDensity([below, above], "two")


def test_missing_files_names_and_members(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PdfError, match=r"no PDF grid .*nowhere\.dat"):
        load_pdf(tmp_path / "nowhere.dat")
    with pytest.raises(PdfError, match="no member 7"):
        load_pdf(folder, member=7)
    with pytest.raises(PdfError, match="cannot read"):
        read_grid(tmp_path)
    (tmp_path / "xmldoc").mkdir()
    (tmp_path / "pdfdata").mkdir()
    (tmp_path / "pdfdata" / "known_0000.dat").write_text(set_text())
    monkeypatch.setenv("PYTHIA8DATA", str(tmp_path / "xmldoc"))
    assert load_pdf("known").name == "known"
    with pytest.raises(PdfError, match=r"'unknown'.*holds known"):
        load_pdf("unknown")
    with pytest.raises(PdfError, match="no member 3"):
        load_pdf("known", member=3)


def test_without_pythia_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.delenv("PYTHIA8DATA", raising=False)
    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[shower\]"):
        load_pdf("NNPDF31_lo_as_0118")
    empty = SimpleNamespace(read_text=lambda name: "pythia8.py,,\n")
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: empty)
    with pytest.raises(PdfError, match="brings no PDF grids"):
        load_pdf("NNPDF31_lo_as_0118")


def test_wrong_questions(pdf: PartonDensity) -> None:
    x = torch.rand(3, dtype=torch.float64)
    with pytest.raises(PdfError, match="PDG code 22: there are -6"):
        pdf.column(22)
    with pytest.raises(ShapeError, match=r"x \(3,\) and q2 \(2,\)"):
        pdf.xf(x, torch.rand(2))
    for q2 in (0.0, -1.0, math.nan):
        with pytest.raises(PdfError, match="q2 must be positive"):
            pdf.xf(x, q2)


def test_a_large_grid_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later its tensors come from the user's cache, the same to the last bit; another text has others."""
    monkeypatch.setenv("NISAMPLER_CACHE", str(tmp_path / "cache"))
    file = write_set(tmp_path) / "toyset_0003.dat"
    plain = grid_files.read_member(file)
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(grid_files, "_WORTH_KEEPING", 0)
    first = grid_files.read_member(file)
    parsed = grid_files._parsed
    monkeypatch.setattr(grid_files, "_parsed", None)
    again = grid_files.read_member(file)
    for head, grids in (first, again):
        assert head == plain[0] and head["AlphaS_MZ"] == "0.117" and len(grids) == len(plain[1])
        for found, wanted in zip(grids, plain[1], strict=True):
            assert found.flavours == wanted.flavours
            for name in ("x", "q", "values"):
                assert torch.equal(getattr(found, name), getattr(wanted, name))
    monkeypatch.setattr(grid_files, "_parsed", parsed)
    file.write_text(file.read_text().replace("0.117", "0.118"))
    assert grid_files.read_member(file)[0]["AlphaS_MZ"] == "0.118"
