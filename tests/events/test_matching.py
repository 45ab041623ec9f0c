"""Scales for MLM matching: those of a plain clustering of one event at a time, in every format, and in Pythia."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pylhe
import pytest
import torch
from pdf_grids import write_set

from nisampler.errors import EventFormatError
from nisampler.events import (
    EventBatch,
    EventFile,
    InitInfo,
    ProcessInfo,
    check_file,
    merge_shards,
    read_events,
    shard_path,
    write_events,
)
from nisampler.events.matching import clustering_scales
from nisampler.processes.registry import create

SQRT_S = 13000.0
BEAMS = InitInfo((2212, 2212), (6500.0, 6500.0), (ProcessInfo(1.0, 0.1),), pdf_sets=(1, 1))


def record(incoming: tuple[int, int], legs: list[tuple[int, float, float, float]]) -> EventBatch:
    """One event of massless legs (code, pT, rapidity, azimuth); its beams have what energy that takes."""
    momenta = np.array(
        [[pt * math.cosh(y), pt * math.cos(f), pt * math.sin(f), pt * math.sinh(y)] for _, pt, y, f in legs]
    )
    total = momenta.sum(0)
    plus, minus = 0.5 * (total[0] + total[3]), 0.5 * (total[0] - total[3])
    n = 2 + len(legs)
    return EventBatch(
        momenta=np.vstack([[plus, 0, 0, plus], [minus, 0, 0, -minus], momenta])[None],
        masses=np.zeros((1, n)),
        pdg_ids=[[*incoming, *(leg[0] for leg in legs)]],
        status=[[-1, -1] + [1] * len(legs)],
        mothers=np.zeros((1, n, 2)),
        colours=np.zeros((1, n, 2)),
        spins=np.full((1, n), 9.0),
        **{name: [1] for name in ("weights", "scales", "alpha_em", "alpha_s", "process_ids")},
    )


def scales_of(incoming: tuple[int, int], *legs: tuple[int, float, float, float]) -> list[float]:
    return clustering_scales(record(incoming, list(legs)), SQRT_S)[0, 2:].tolist()


PAIR = ((11, 40.0, 0.3, 1.0), (-11, 35.0, -0.5, 4.0))
NONE = [SQRT_S, SQRT_S]


def test_cases_that_are_known() -> None:
    near = 2 * 20**2 * (math.cosh(0.1) - math.cos(0.2))
    # No jet; a gluon; an incoming gluon that gave a quark; two jets far apart.
    assert scales_of((2, -2), *PAIR) == NONE
    assert scales_of((2, -2), *PAIR, (21, 30.0, 1.0, 2.0)) == pytest.approx([*NONE, 30])
    assert scales_of((2, 21), *PAIR, (2, 30.0, 1.0, 2.0)) == pytest.approx([*NONE, 30])
    assert scales_of((2, -2), *PAIR, (21, 30.0, 2.0, 2.0), (21, 50.0, -2.0, 5.0)) == pytest.approx([*NONE, 30, 50])
    # A soft gluon beside a quark has their measure; the quark that of both together with the beam.
    found = scales_of((2, 21), *PAIR, (2, 50.0, 1.0, 2.0), (21, 20.0, 1.1, 2.2))
    both = math.hypot(*(50 * f(2.0) + 20 * f(2.2) for f in (math.cos, math.sin)))
    assert found == pytest.approx([*NONE, both, math.sqrt(near)])
    # A quark and an antiquark of one flavour make a gluon, two quarks of different flavour make nothing.
    together = scales_of((2, -2), *PAIR, (1, 50.0, 1.0, 2.0), (-1, 20.0, 1.1, 2.2))
    assert together == pytest.approx([*NONE, both, math.sqrt(near)])
    apart = scales_of((1, 2), *PAIR, (1, 50.0, 1.0, 2.0), (2, 20.0, 1.1, 2.2))
    assert apart == pytest.approx([*NONE, 50, 20])
    # The quark line of the boson stays: its ends are not put together.
    pair = scales_of((21, 21), *PAIR, (2, 50.0, 1.0, 2.0), (-2, 20.0, 1.1, 2.2))
    assert pair == pytest.approx([*NONE, 50, 20])
    # Tops have no scale, and gluons beside them do; jets alone end as two.
    assert scales_of((21, 21), (6, 90.0, 0.0, 0.0), (-6, 60.0, 0.0, 3.0), (21, 30.0, 1.0, 3.1))[:2] == NONE
    assert scales_of((21, 21), (21, 30.0, 0.5, 0.0), (21, 30.0, -0.7, math.pi)) == pytest.approx([30, 30])


def plainly(batch: EventBatch, row: int) -> list[float]:
    """The same of one event, vertex by vertex; of bosons from quarks."""
    slots = [slot for slot in range(batch.slots) if batch.status[row, slot] == 1]
    jets = [slot for slot in slots if abs(batch.pdg_ids[row, slot]) in (1, 2, 3, 4, 5, 21)]
    scales = dict.fromkeys(slots, 0.0)
    partons = [(batch.momenta[row, slot], int(batch.pdg_ids[row, slot]), slot) for slot in jets]
    beams = batch.pdg_ids[row, :2].tolist()

    def y(p: np.ndarray) -> float:
        return 0.5 * math.log((p[0] + p[3]) / (p[0] - p[3]))

    def pt(p: np.ndarray) -> float:
        return math.hypot(p[1], p[2])

    middle = y(batch.momenta[row, 0] + batch.momenta[row, 1])
    while partons:
        ends = sum(code != 21 for code in [*beams, *(code for _, code, _ in partons)])
        steps = []
        for i, (p, code, _) in enumerate(partons):
            for beam in (0, 1) if y(p) >= middle else (1, 0):
                if 21 in (code, beams[beam]) or (code == beams[beam] and ends > 2):
                    steps.append((pt(p) ** 2, i, "beam", beam))
            for j, (q, other, _) in enumerate(partons[:i]):
                if 21 in (code, other) or (code == -other and ends > 2):
                    angle = math.cosh(y(p) - y(q)) - math.cos(math.atan2(p[2], p[1]) - math.atan2(q[2], q[1]))
                    steps.append((2 * min(pt(p), pt(q)) ** 2 * angle, i, "parton", j))
        d, i, kind, where = min(steps, key=lambda step: step[0])
        p, code, line = partons.pop(i)
        scales[line] = max(scales[line], math.sqrt(d))
        if kind == "beam":
            if code != 21:
                beams[where] = -code if beams[where] == 21 else 21
            continue
        q, other, second = partons.pop(where)
        scales[second] = max(scales[second], math.sqrt(d))
        if (code == 21) == (other == 21):
            partons.append((p + q, 21, line if pt(p) > pt(q) else second))
        else:
            partons.append((p + q, *((other, second) if code == 21 else (code, line))))
    return [scales.get(slot) or (SQRT_S if slot in slots else 0.0) for slot in range(batch.slots)]


FLAVOURS = [
    ((2, -1), (21, 21, 21)), ((2, 21), (1, 21, 21)), ((21, 2), (21, 1, 21)), ((21, 21), (-2, 1, 21)),
    ((2, 3), (1, 3, 21)), ((-1, 2), (4, -4, 21)), ((2, 2), (1, 2, 21)), ((21, 2), (1, -3, 3)), ((2, -3), (1, -3, 21)),
]  # fmt: skip


def many(n: int, seed: int) -> EventBatch:
    """W+ and three jets with all kinds of flavours, jets close together and far apart."""
    rng = np.random.default_rng(seed)
    batches = []
    for index in range(n):
        incoming, jets = FLAVOURS[index % len(FLAVOURS)]
        legs = [(12, 40.0, rng.normal(), 1.0), (-11, 30.0, rng.normal(), 2.0)]
        width = 0.4 if index % 2 else 2.0
        legs += [(code, 20 + rng.exponential(30), width * rng.normal(), width * rng.normal()) for code in jets]
        batches.append(record(incoming, legs))
    return EventBatch.concatenate(batches)


def test_events_together_have_the_scales_of_each_alone() -> None:
    batch = many(900, 3)
    found = clustering_scales(batch, SQRT_S)
    np.testing.assert_allclose(found, [plainly(batch, row) for row in range(len(batch))], rtol=1e-9)
    # Every jet has a vertex, in the cases of a soft jet at one of its own.
    pt = np.hypot(batch.momenta[:, 4:, 1], batch.momenta[:, 4:, 2])
    assert (found[:, 4:] < 2000).all() and (np.abs(found[:, 4:] / pt - 1) > 0.01).any(1).sum() > 300


@pytest.fixture(scope="module")
def w_jets(tmp_path_factory: pytest.TempPathFactory) -> EventBatch:
    """W+ and one jet, with and without the W in the record, and their scales."""
    grid = write_set(tmp_path_factory.mktemp("sets")) / "toyset_0000.dat"
    process = create("w_plus_jets", n_jets=1, pdf=str(grid))
    generator = torch.Generator().manual_seed(4)
    u = torch.rand(600, process.dim, dtype=torch.float64, generator=generator)
    u = u[process(u) > 0]
    batch = process.events(u, torch.ones(len(u)), generator)
    batch = replace(batch, process_ids=np.ones(len(batch)))
    return replace(batch, pt_clust=clustering_scales(batch, SQRT_S))


@pytest.mark.parametrize("suffix", (".lhe", ".lhe.gz", ".lhe.zst", ".h5"))
def test_round_trip_is_exact(suffix: str, w_jets: EventBatch, same, tmp_path: Path) -> None:
    path = tmp_path / f"events{suffix}"
    write_events(path, w_jets, BEAMS)
    same(read_events(path), w_jets)
    assert check_file(path).passed
    write_events(shard_path(tmp_path, 0, suffix), w_jets, BEAMS)
    merge_shards(tmp_path, tmp_path / f"all{suffix}", chunk=7)
    np.testing.assert_array_equal(read_events(tmp_path / f"all{suffix}").pt_clust, w_jets.pt_clust)


@pytest.mark.parametrize("suffix", (".lhe", ".h5"))
def test_events_with_and_without_scales_go_into_one_file(
    suffix: str, w_jets: EventBatch, events, tmp_path: Path
) -> None:
    plain = replace(w_jets.select(slice(0, 5)), pt_clust=np.zeros(0))
    more = [plain.padded(9), w_jets.select(slice(5, 9)), plain]
    write_events(tmp_path / f"a{suffix}", more, BEAMS)
    found = read_events(tmp_path / f"a{suffix}")
    expected = EventBatch.concatenate(more).pt_clust[:, : found.slots]
    np.testing.assert_array_equal(found.pt_clust, expected)
    assert (found.pt_clust.any(axis=1) == [False] * 5 + [True] * 4 + [False] * 5).all()


def test_attributes_are_those_of_the_field(w_jets: EventBatch, tmp_path: Path) -> None:
    path = tmp_path / "events.lhe"
    write_events(path, w_jets, BEAMS)
    document = pylhe.LHEFile.fromfile(str(path))
    counts = set()
    for row, event in enumerate(document.events):
        named = {name: value for name, value in event.scales.items() if name.startswith("pt_clust_")}
        finals = [place for place, particle in enumerate(event.particles, 1) if particle.status == 1]
        assert [int(name.rpartition("_")[2]) for name in named] == finals
        assert list(named.values()) == w_jets.pt_clust[row][w_jets.pt_clust[row] > 0].tolist()
        jet = event.particles[-1]
        assert list(named.values()) == pytest.approx([SQRT_S, SQRT_S, math.hypot(jet.px, jet.py)])
        assert {"muf", "mur"} < event.scales.keys()
        counts.add(len(event.particles))
    assert counts == {5, 6}


@pytest.mark.parametrize("name", ("pt_clust_7", "pt_clust_0", "pt_clust_x", "pt_clust_"))
def test_scales_of_no_particle_are_named(name: str, w_jets: EventBatch, tmp_path: Path) -> None:
    path = tmp_path / "events.lhe"
    write_events(path, w_jets.select(slice(0, 3)), BEAMS)
    path.write_text(path.read_text().replace("pt_clust_5", name))
    with pytest.raises(EventFormatError, match=f"'{name}' names no particle"):
        EventFile.open(path).read()


def test_a_format_without_a_place_for_them_is_named(w_jets: EventBatch, tmp_path: Path) -> None:
    with pytest.raises(EventFormatError, match="LHEH5 has no place for the scales of MLM matching"):
        write_events(tmp_path / "a.lheh5", w_jets, BEAMS)
    assert not list(tmp_path.iterdir())
    assert write_events(tmp_path / "a.lheh5", replace(w_jets, pt_clust=np.zeros(0)), BEAMS) == len(w_jets)
