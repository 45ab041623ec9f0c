"""Weights of other scales and densities: pointwise equal to the process itself there, for each of its sub-processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pdf_grids import COUPLINGS, write_set

from nisampler.errors import ConfigError, EventFormatError, PdfError
from nisampler.events import EventBatch
from nisampler.processes.hadron.events import event_batch
from nisampler.processes.hadron.process import HadronProcess
from nisampler.processes.partons.members import PdfMembers
from nisampler.processes.partons.pdf import load_pdf
from nisampler.processes.partons.variations import Nominal, variations
from nisampler.processes.registry import create

# Powers of alpha_s from none to three, fixed and dynamic scales.
PROCESSES = {
    "drell_yan": (0, {"scale": "m_ll"}),
    "z_prime": (0, {"scale": "m_Z"}),
    "w_plus_jets": (1, {"n_jets": 1, "scale": "H_T/2"}),
    "w_minus_jets": (1, {"n_jets": 1, "scale": "m_Z"}),
    "z_jets": (1, {"n_jets": 1, "scale": "m_T", "mu_f_factor": 0.7}),
    "ttbar": (2, {"scale": "H_T/2"}),
}
FACTORS = ((1.0, 1.0), (0.5, 2.0), (0.5, 0.5), (2.0, 1.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("sets"))


def grid(folder: Path, member: int = 0) -> str:
    return str(folder / f"{folder.name}_{member:04d}.dat")


def events_of_all(process: HadronProcess, p: torch.Tensor) -> tuple[list[EventBatch], torch.Tensor]:
    """For each sub-process a batch of events at the momenta p, and the contributions (n, sub-processes)."""
    points = process.evaluate(p)
    shares = process.luminosity.by_subprocess(points.densities, points.squared)
    batches = []
    for chosen in range(shares.shape[1]):
        one = torch.zeros_like(shares)
        one[:, chosen] = 1.0
        batches.append(event_batch(process.setup, points, one, torch.ones(len(p)), torch.Generator()))
    return batches, shares


def momenta(process: HadronProcess, n: int) -> torch.Tensor:
    u = torch.rand(50 * n, process.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    p = process.momenta(u)
    # Beyond the last but one knot of the grids bottom quarks are below zero, where there are no events.
    return p[process.passes(p) & (process.fractions(p).amax(1) < 0.6)][:n]


@pytest.mark.parametrize("name", PROCESSES)
def test_weights_are_those_of_the_process_itself(name: str, folder: Path) -> None:
    """Direct evaluation at (½, 2) μ and with other members, for every sub-process at every point: to 1e-10."""
    power, parameters = PROCESSES[name]
    central = create(name, pdf=grid(folder), **parameters)
    assert central.header["alpha_s_power"] == str(power)
    p = momenta(central, 12)
    found = variations(central.header, FACTORS, [f"{folder}/all"])
    batches, nominal = events_of_all(central, p)
    weights = np.stack([found.weights(batch) for batch in batches], 1) * nominal.numpy()[..., None]
    ids = [weight_id for group in found.groups for weight_id in group.ids]
    assert len(ids) == weights.shape[2] == len(FACTORS) - 1 + len(COUPLINGS)
    for factors in FACTORS:
        names = ("mu_r_factor", "mu_f_factor")
        changed = {axis: parameters.get(axis, 1.0) * factor for axis, factor in zip(names, factors, strict=True)}
        direct = events_of_all(create(name, pdf=grid(folder), **(parameters | changed)), p)[1].numpy()
        column = ids.index(f"MUR{factors[0]}_MUF{factors[1]}_PDF99000")
        np.testing.assert_allclose(weights[..., column], direct, rtol=1e-12 if factors == (1.0, 1.0) else 1e-10)
    for member in COUPLINGS:
        direct = events_of_all(create(name, pdf=grid(folder, member), **parameters), p)[1].numpy()
        column = ids.index(f"MUR1.0_MUF1.0_PDF{99000 + member}")
        np.testing.assert_allclose(weights[..., column], direct, rtol=1e-10)


@pytest.mark.parametrize("name", PROCESSES)
def test_the_power_of_the_coupling_is_that_of_every_element(name: str, folder: Path) -> None:
    process = create(name, pdf=grid(folder), **PROCESSES[name][1])
    points = process.evaluate(momenta(process, 3))
    doubled = process.setup.amplitude.squared(points.incoming, points.outgoing, 2 * points.alpha_s)
    torch.testing.assert_close(doubled, 2.0 ** PROCESSES[name][0] * points.squared, rtol=1e-12, atol=0.0)


@pytest.fixture
def events(folder: Path) -> tuple[dict[str, str], EventBatch]:
    process = create("ttbar", pdf=grid(folder))
    u = torch.rand(400, process.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    u = u[process(u) > 0][:100]
    return process.header, process.events(u, torch.full((len(u),), -2.5), torch.Generator().manual_seed(1))


def test_names_and_groups(folder: Path, events: tuple[dict[str, str], EventBatch]) -> None:
    found = variations(events[0], "7-point", [f"{folder}/1-2", f"{grid(folder)}/4"])
    scale, members, again = found.groups
    assert (scale.name, scale.combine, len(scale.weights)) == ("Central scale variation", "envelope", 7)
    assert scale.weights[1].attributes == (("MUR", "0.5"), ("MUF", "0.5"), ("PDF", "99000"))
    assert scale.weights[1].text == "MUR=0.5 MUF=0.5 PDF=99000"
    assert (members.name, members.combine) == ("toyset", "symmhessian+as")
    assert members.ids == ("MUR1.0_MUF1.0_PDF99001", "MUR1.0_MUF1.0_PDF99002")
    assert [weight.get("MEMBER") for weight in again.weights] == ["4/5"]
    assert len(variations(events[0], "9-point").groups[0].weights) == 9
    with_central = variations(events[0], "7-point", [f"{folder}/all"]).groups
    # The weight of the nominal scales and densities is listed once, as a member of its set.
    assert [len(group.weights) for group in with_central] == [6, 5]


def test_weights_scale_with_their_event_and_follow_its_order(
    folder: Path, events: tuple[dict[str, str], EventBatch]
) -> None:
    header, batch = events
    found = variations(header, "7-point", [f"{folder}/all"])
    weights = found.weights(batch)
    np.testing.assert_allclose(weights[:, 6], -2.5, rtol=1e-12)
    order = np.random.default_rng(1).permutation(len(batch))
    np.testing.assert_array_equal(found.weights(batch.select(order)), weights[order])
    np.testing.assert_allclose(found.weights(replace(batch, weights=2 * batch.weights)), 2 * weights, rtol=1e-15)


def test_members_are_those_that_are_read_one_by_one_and_not_clipped(folder: Path) -> None:
    together = PdfMembers(folder)
    generator = torch.Generator().manual_seed(1)
    x = 10 ** (-6 * torch.rand(600, dtype=torch.float64, generator=generator))
    x[:3] = torch.tensor([1.0, 1.2, 0.0])
    q2 = 10 ** (9 * torch.rand(600, dtype=torch.float64, generator=generator) - 1)
    codes = torch.tensor([-5, -2, 21, 1, 4, 5, 6])[torch.randint(7, (600,), generator=generator)]
    values = together.xf(codes, x, q2)
    for member in COUPLINGS:
        alone = load_pdf(grid(folder, member))
        expected = alone.xf(x, q2)[torch.arange(600), [alone.column(int(code)) for code in codes]]
        torch.testing.assert_close(values[:, member].clamp(min=0), expected, rtol=1e-11, atol=1e-14)
        torch.testing.assert_close(together.alpha_s(q2)[:, member], alone.alpha_s(q2), rtol=0.0, atol=0.0)
    at = (torch.tensor([5]), torch.tensor([0.96], dtype=torch.float64), torch.tensor([100.0], dtype=torch.float64))
    assert together.xf(*at).max() < 0 and load_pdf(grid(folder)).xf(*at[1:])[0, 11] == 0
    assert (values[:2] == 0).all() and (values[codes == 6] == 0).all()


def test_members_with_other_knots_are_read_beside_the_others(folder: Path, tmp_path: Path) -> None:
    other = write_set(tmp_path, "otherset")
    path = other / "otherset_0001.dat"
    lines = path.read_text().splitlines(keepends=True)
    start = next(index for index, line in enumerate(lines) if line.startswith("---"))
    lines[start + 2] = lines[start + 2].replace("10.0 ", "11.0 ")
    path.write_text("".join(lines))
    at = (torch.tensor([1]), torch.tensor([0.1], dtype=torch.float64), torch.tensor([200.0], dtype=torch.float64))
    values = PdfMembers(other).xf(*at)[0]
    assert values[1].item() == pytest.approx(load_pdf(path).xf(*at[1:])[0, 7].item(), rel=1e-12)
    assert torch.equal(values[[0, 2, 3, 4]], PdfMembers(folder).xf(*at)[0, [0, 2, 3, 4]])


def test_a_coupling_of_the_process_holds_for_all(folder: Path) -> None:
    central = create("ttbar", pdf=grid(folder), alpha_s=0.13, alpha_s_loops=2)
    p = momenta(central, 5)
    batches, nominal = events_of_all(central, p)
    found = variations(central.header, FACTORS, [f"{folder}/all"])
    weights = np.stack([found.weights(batch) for batch in batches], 1) * nominal.numpy()[..., None]
    other = create("ttbar", pdf=grid(folder, 4), alpha_s=0.13, alpha_s_loops=2)
    np.testing.assert_allclose(weights[..., -1], events_of_all(other, p)[1].numpy(), rtol=1e-10)
    lower = create("ttbar", pdf=grid(folder), alpha_s=0.13, alpha_s_loops=2, mu_r_factor=0.5, mu_f_factor=2.0)
    np.testing.assert_allclose(weights[..., 0], events_of_all(lower, p)[1].numpy(), rtol=1e-10)
    plain = create("ttbar", pdf=grid(folder))
    fixed = variations(plain.header, None, [f"{folder}/4"], alpha_s=False)
    batches, nominal = events_of_all(plain, p)
    ratio = np.stack([fixed.weights(batch) for batch in batches], 1)[..., 0]
    member = replace(plain.setup, pdf=load_pdf(grid(folder, 4)), alpha_s=plain.setup.pdf.alpha_s)
    np.testing.assert_allclose(ratio * nominal.numpy(), events_of_all(HadronProcess(member), p)[1], rtol=1e-10)


def test_events_that_do_not_tell_are_named(folder: Path, events: tuple[dict[str, str], EventBatch]) -> None:
    header, batch = events
    found = variations(header, "7-point")
    for name, what in {
        "mu_r": "scales",
        "scales": "scales",
        "alpha_s": "coupling",
        "pdf_x": "parton densities",
        "pdf_xf": "parton densities",
    }.items():
        column = getattr(batch, name).copy()
        column[4] = 0.0
        with pytest.raises(EventFormatError, match=f"event 25 does not tell its {what}"):
            found.weights(replace(batch, **{name: column}), start=20)
    codes = batch.pdg_ids.copy()
    codes[:, 0] = 11
    with pytest.raises(PdfError, match="no parton density for PDG code 11"):
        found.weights(replace(batch, pdg_ids=codes))


WRONG = {
    "name of scales": ({"scales": "5-point"}, 'scales = "5-point": must be "7-point", "9-point" or pairs'),
    "three factors": ({"scales": [(1.0, 1.0, 1.0)]}, "no pair of factors"),
    "factor zero": ({"scales": [(0.0, 1.0)]}, "must be a number, more than 0"),
    "factor nan": ({"scales": [(float("nan"), 1.0)]}, "must be a number, more than 0"),
    "huge factor": ({"scales": [(1e6, 1.0)]}, "between 0.01 and 100"),
    "no members": ({"pdfs": ["toyset"]}, "must be a set and its members"),
    "members swapped": ({"pdfs": ["toyset/3-1"]}, "the first one is the smaller one"),
    "unknown set": ({"pdfs": ["nosuchset/all"]}, "nosuchset"),
    "member outside": ({"pdfs": ["{folder}/0-7"]}, "no member 5 of .*toyset: the set has members 0 to 4"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_wishes_are_named(case: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.parent / "pdfdata").mkdir(exist_ok=True)
    (folder.parent / "xmldoc").mkdir(exist_ok=True)
    monkeypatch.setenv("PYTHIA8DATA", str(folder.parent / "xmldoc"))
    wishes, message = WRONG[case]
    if "pdfs" in wishes:
        wishes = {"pdfs": [text.format(folder=folder) for text in wishes["pdfs"]]}
    with pytest.raises((ConfigError, PdfError), match=message):
        variations(Nominal(grid(folder), 2).header(), **wishes)


def test_headers_that_do_not_tell_are_named(folder: Path) -> None:
    good = Nominal(grid(folder), 2, 0.13, 2).header()
    assert Nominal.read(good) == Nominal(grid(folder), 2, 0.13, 2)
    with pytest.raises(ConfigError, match=r"does not tell pdf, alpha_s, alpha_s_power: .* that nisampler made"):
        variations({}, "7-point")
    for change in ({"alpha_s_power": "two"}, {"alpha_s": "strong"}, {"alpha_s": "x at m_Z, 1 loop"}):
        with pytest.raises(ConfigError, match="the header of the events says alpha_s"):
            variations(good | change, "7-point")


def test_sets_whose_info_is_wrong_are_named(tmp_path: Path) -> None:
    folder = write_set(tmp_path)
    info = folder / "toyset.info"
    text = info.read_text()
    for old, new, message in (
        ("NumMembers: 5", "NumMembers: many", "NumMembers must be a whole number"),
        ("ErrorConfLevel: 68", "ErrorConfLevel: high", "ErrorConfLevel must be a percentage"),
        ("NumMembers: 5", "NumMembers: 6", "no member 5"),
    ):
        info.write_text(text.replace(old, new))
        with pytest.raises(PdfError, match=message):
            PdfMembers(folder)
    info.unlink()
    members = PdfMembers(folder)
    assert (members.members, members.error_type, members.labels[4]) == ((0, 1, 2, 3, 4), "unknown", "toyset_0004")
