"""Squared matrix elements by recursion against COMIX and pyamplicol, point by point."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nisampler.processes.amplitudes.recursion.matrix_element import MatrixElement
from nisampler.processes.amplitudes.recursion.model import Couplings
from nisampler.processes.amplitudes.tree import colour_tags
from nisampler.processes.parameters import StandardModel

HERE = Path(__file__).parent
COMIX: dict[str, Any] = json.loads((HERE / "data" / "comix_points.json").read_text())["processes"]
AMPLICOL: list[dict[str, Any]] = json.loads((HERE.parent / "data" / "hadron_pyamplicol.json").read_text())["points"]
UNIT_CKM = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
MODEL = StandardModel(
    alpha_em=1 / 132.507,
    mass_z=91.188,
    mass_w=80.41900244575616,
    width_z=2.441404,
    width_w=2.0476,
    mass_higgs=125.0,
    width_higgs=0.006382339,
    mass_top=173.0,
    ckm=UNIT_CKM,
).on_shell()
CASES = [
    (name, scheme, key)
    for name, entry in COMIX.items()
    for scheme, key in (
        [("zero", "me2")] if entry.get("widths") == 0 else [("fixed", "me2_Fixed"), ("complex", "me2_CMS")]
    )
]


@pytest.mark.parametrize("differentiable", [False, True], ids=["compiled", "torch"])
@pytest.mark.parametrize(("name", "scheme", "key"), CASES, ids=[f"{name}, {scheme}" for name, scheme, _ in CASES])
def test_comix(name: str, scheme: Any, key: str, differentiable: bool) -> None:
    entry = COMIX[name]
    strong = entry["alpha_s_power"] if "alpha_s_power" in entry else 0
    element = MatrixElement(entry["pdg"][:2], entry["pdg"][2:], Couplings(MODEL, scheme), {strong})
    momenta = torch.tensor([point["momenta"] for point in entry["points"]], dtype=torch.float64)
    wanted = torch.tensor([point[key] for point in entry["points"]], dtype=torch.float64)
    found = element.squared(momenta.requires_grad_(differentiable), torch.tensor([0.118], dtype=torch.float64))
    assert torch.allclose(found, wanted, rtol=1e-9, atol=0.0)


def test_every_process_is_compared() -> None:
    assert len(CASES) == 15
    assert sum(len(entry["points"]) for entry in COMIX.values()) == 42


def test_the_schemes_differ_where_the_reference_says_so() -> None:
    entry = COMIX["u c > d s e+ ve mu+ vm EW"]
    momenta = torch.tensor([point["momenta"] for point in entry["points"]], dtype=torch.float64)
    alpha_s = torch.tensor([0.118], dtype=torch.float64)
    fixed, complex_ = (
        MatrixElement(entry["pdg"][:2], entry["pdg"][2:], Couplings(MODEL, scheme), {0}).squared(momenta, alpha_s)
        for scheme in ("fixed", "complex")
    )
    assert ((fixed / complex_ - 1).abs() > 5e-4).all()


@pytest.mark.parametrize("reference", AMPLICOL, ids=[f"{r['process']}" for r in AMPLICOL])
def test_pyamplicol_and_its_colour_flows(reference: dict[str, Any]) -> None:
    model = StandardModel(**reference["model"], ckm=UNIT_CKM)
    initial, final = reference["initial"], reference["final"]
    strong = sum(1 <= abs(code) <= 6 or code == 21 for code in (*initial, *final)) - 2
    element = MatrixElement(initial, final, Couplings(model, "fixed"), {strong})
    momenta = torch.tensor(reference["momenta"], dtype=torch.float64)
    alpha_s = torch.full((len(momenta),), reference["alpha_s"], dtype=torch.float64)
    wanted = torch.tensor(reference["squared"], dtype=torch.float64)
    assert torch.allclose(element.squared(momenta, alpha_s), wanted, rtol=1e-9, atol=0.0)
    tags = [colour_tags(lines, len(element.legs)) for lines in element.colour_lines]
    assert all(sum(tag != 0 for leg in flow for tag in leg) % 2 == 0 for flow in tags)
    weights = element.flow_weights(momenta, alpha_s)
    assert weights.shape == (len(momenta), len(tags)) and bool((weights >= 0).all())
