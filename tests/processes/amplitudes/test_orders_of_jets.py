"""Flavours of jets in every order: the cross-section is symmetric in the jets, and its integral is what it was."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from torch import Tensor

from nisampler.processes.amplitudes import flavours
from nisampler.processes.amplitudes.flavours import FlavourTable, flavour_table, in_every_order
from nisampler.processes.amplitudes.recursion import amplitude
from nisampler.processes.hadron.process import HadronProcess
from nisampler.processes.parameters import StandardModel
from nisampler.processes.registry import create

STRINGS = ("p p > e+ ve j j", "p p > w+ w+ j j QCD=0")


def in_all_orders(name: str, p: Tensor | None) -> tuple[Tensor, Tensor, HadronProcess]:
    """Momenta (n, m, 4), and the cross-section there with the jets in each order (orders, n)."""
    process = create(name, elements="summed")
    assert isinstance(process, HadronProcess)
    if p is None:
        u = torch.rand(60, process.dim, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        p = process.momenta(u)
        p = p[process.passes(p)]
    jets, found = process.setup.final_state.jets, []
    for order in itertools.permutations(jets):
        legs = list(range(p.shape[1]))
        for place, leg in zip(jets, order, strict=True):
            legs[place] = leg
        found.append(process.differential(p[:, legs]))
    return p, torch.stack(found), process


@pytest.mark.parametrize("name", STRINGS)
def test_the_cross_section_is_the_mean_over_the_orders(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    p, found, _ = in_all_orders(name, None)
    assert len(p) > 10
    torch.testing.assert_close(found, found[:1].expand_as(found), rtol=1e-9, atol=0.0)
    monkeypatch.setattr(amplitude, "in_every_order", lambda table: table)
    _, before, _ = in_all_orders(name, p)
    torch.testing.assert_close(before.mean(0), found[0], rtol=1e-9, atol=0.0)
    assert float((before[0] / before[1]).log().std()) > 0.3, "it was not symmetric before"


def test_each_combination_keeps_its_factor() -> None:
    table = flavour_table("p p > e- e+ j j j", StandardModel())
    every = in_every_order(table)
    sums: list[Counter[tuple[tuple[int, int], tuple[int, ...]]]] = [Counter(), Counter()]
    for total, of in zip(sums, (table, every), strict=True):
        for item in of.subprocesses:
            total[item.initial, tuple(sorted(item.final))] += item.factor  # type: ignore[assignment]
    assert sums[0].keys() == sums[1].keys()
    assert all(sums[1][key] == pytest.approx(value) for key, value in sums[0].items())
    assert len({(item.initial, item.final) for item in every.subprocesses}) == len(every.subprocesses)


def test_where_jets_are_not_alike_or_orders_too_many_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    one = flavour_table("p p > e- e+ j", StandardModel())
    assert same(in_every_order(one), one)
    table = flavour_table("p p > e- e+ j j", StandardModel())
    assert not same(in_every_order(table), table)
    monkeypatch.setattr(flavours, "MOST_ELEMENTS", len(table.elements))
    assert in_every_order(table) is table


def same(a: FlavourTable, b: FlavourTable) -> bool:
    return [(item.initial, item.final) for item in a.subprocesses] == [
        (item.initial, item.final) for item in b.subprocesses
    ]
