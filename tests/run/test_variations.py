"""Named weights and headers of the files of runs: at generation, by `reweight` afterwards, and on the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pdf_grids import write_set
from scipy import stats
from typer.testing import CliRunner

from nisampler.cli import app
from nisampler.errors import CardError, ConfigError, StorageError
from nisampler.events import EventBatch, EventFile, PointBatch, check_file, write_events, write_points
from nisampler.events.uncertainty import uncertainties
from nisampler.processes.partons.variations import variations
from nisampler.processes.registry import create
from nisampler.run.directory import RunDirectory
from nisampler.run.generation.generate import generate_events
from nisampler.run.generation.merge import merge
from nisampler.run.pipeline import execute, start
from nisampler.run.report.drawing import Drawn
from nisampler.run.reweight import joined, reweight
from nisampler.ui.plots import comparison, svg

CARD = """
process = "drell_yan"  # R&D <"">
[parameters]
pdf = "{grid}"
scale = "m_ll"
[training]
calls = 5000
sampler = "vegas"
[integration]
points = 3000
[events]
n = 120
shard_size = 50
formats = ["lhe", "h5"]
[events.variations]
scales = "7-point"
pdfs = ["{folder}/all"]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    return CARD.format(grid=folder / "toyset_0000.dat", folder=folder)


@pytest.fixture(scope="module")
def run(text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; not to be changed."""
    place = tmp_path_factory.mktemp("run")
    (place / "card.toml").write_text(text)
    with start(place / "card.toml", place / "run", {"seed": 5}) as directory:
        execute(directory)
    return place / "run"


def test_files_of_a_run_carry_their_weights_and_their_story(run: Path, text: str) -> None:
    files = [EventFile.open(run / f"events.{ending}") for ending in ("lhe", "h5")]
    assert files[0].info.weight_groups == files[1].info.weight_groups and files[0].info.header == files[1].info.header
    assert [len(group.weights) for group in files[0].info.weight_groups] == [6, 5]
    lhe, bulk = (file.read() for file in files)
    np.testing.assert_array_equal(lhe.named_weights, bulk.named_weights)
    central = files[0].info.weight_ids.index("MUR1.0_MUF1.0_PDF99000")
    np.testing.assert_allclose(lhe.named_weights[:, central], lhe.weights, rtol=1e-12)
    assert all(check_file(file.path).passed for file in files)
    header = dict(files[0].info.header)
    assert header["card"] == f"{text.rstrip()}\n# instead: seed = 5"
    assert (header["process"], header["seed"], header["alpha_s_power"]) == ("drell_yan", "5", "0")
    assert "MassCut" in header["cuts"] and "sqrt_s = 13000.0" in header["parameters"]
    assert header["run"] == RunDirectory.read(run).identity() and "nisampler 0" in header["versions"]


def test_the_report_has_bands_of_scales_and_densities(run: Path) -> None:
    """Their integral is that of the cross-section; what is drawn is what was stored."""
    comparisons = Drawn.read(run / "distributions").comparisons
    bands = uncertainties(run / "events.h5").bands
    for item in comparisons:
        assert [shade.name for shade in item.shades] == [band.name for band in bands]
        for shade in item.shades:
            assert (shade.low <= item.unweighted + 1e-9 * item.unweighted.max()).all()
            assert (shade.high >= item.unweighted - 1e-9 * item.unweighted.max()).all()
    mass = next(item for item in comparisons if item.axis.name.startswith("m"))
    widths = np.diff(mass.axis.edges)
    inside = (mass.unweighted * widths).sum()
    above = (mass.shades[0].high * widths).sum() / inside - 1
    assert above >= 0.9 * bands[0].plus / bands[0].central > 0
    assert "Central scale variation" in svg(comparison(mass, "pb")).decode()
    assert comparison(replace(mass, shades=()), "pb").axes[1].get_legend() is None


def test_seeds_are_merged_and_named(run: Path, tmp_path: Path) -> None:
    directory = RunDirectory.read(run)
    for seed in (7, 8):
        generate_events(directory, 60, seed, tmp_path / str(seed))
    merge([tmp_path / "7", tmp_path / "8"], tmp_path / "all.lhe")
    file = EventFile.open(tmp_path / "all.lhe")
    assert dict(file.info.header)["seed"] == "7, 8"
    assert file.read().named_weights.shape == (120, 11)


def test_reweighting_a_file_gives_the_weights_of_the_run(run: Path, folder: Path, tmp_path: Path) -> None:
    """From the LHE file and from HDF5, all at once and one after the other; what is asked for twice is there once."""
    whole = EventFile.open(run / "events.h5")
    bare = tmp_path / "bare.lhe"
    batch = whole.read()
    write_events(bare, replace(batch, named_weights=np.zeros(0)), replace(whole.info, weight_groups=()))
    reweight(bare, tmp_path / "all.h5", "7-point", [f"{folder}/all"])
    found = EventFile.open(tmp_path / "all.h5")
    assert found.info.weight_groups == whole.info.weight_groups and found.info.header == whole.info.header
    np.testing.assert_array_equal(found.read().named_weights, batch.named_weights)
    reweight(bare, tmp_path / "first.lhe", [(2.0, 2.0), (1.0, 1.0)])
    groups = reweight(tmp_path / "first.lhe", tmp_path / "second.lhe", "7-point", [f"{folder}/all"])
    assert [len(group.weights) for group in groups] == [6, 5]
    names = EventFile.open(tmp_path / "second.lhe").info.weight_ids
    second = EventFile.open(tmp_path / "second.lhe").read().named_weights
    order = [names.index(name) for name in whole.info.weight_ids]
    np.testing.assert_array_equal(second[:, order], batch.named_weights)


def test_what_cannot_be_reweighted_is_refused(run: Path, tmp_path: Path) -> None:
    new, foreign = tmp_path / "new.h5", tmp_path / "foreign.h5"
    file = EventFile.open(run / "events.h5")
    write_events(foreign, file.read(), replace(file.info, header=()))
    with pytest.raises(ConfigError, match="ask for --scales or --pdfs"):
        reweight(run / "events.h5", new)
    with pytest.raises(ConfigError, match="does not tell pdf, alpha_s, alpha_s_power"):
        reweight(foreign, new, "7-point")
    with pytest.raises(StorageError, match=r"events\.h5"):
        reweight(run / "events.h5", run / "events.h5", "7-point")
    assert not new.exists() and joined([], []) == ()


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ('pdfs = ["nosuchset/all"]', "events.variations: no PDF set 'nosuchset'"),
        ('pdfs = ["{folder}/0-9"]', "events.variations: no member 5 of"),
        ("scales = [[0.5, 0.0]]", r"events\.variations\.scales"),
        ('scales = "5-point"', r"events\.variations\.scales"),
        ("scale = 2", "did you mean events.variations.scales"),
    ],
)
def test_wrong_wishes_are_found_before_a_run_is_made(wish: str, message: str, folder: Path, tmp_path: Path) -> None:
    text = CARD.format(grid=folder / "toyset_0000.dat", folder=folder)
    head = text[: text.index('scales = "7')]
    (tmp_path / "card.toml").write_text(head + wish.replace("{folder}", str(folder)))
    with pytest.raises(CardError, match=message):
        start(tmp_path / "card.toml", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_process_without_densities_has_no_variations(tmp_path: Path) -> None:
    for name in ("ee_to_3jets", "camel4"):
        (tmp_path / "card.toml").write_text(f'process = "{name}"\n[events.variations]\nscales = "7-point"\n')
        with pytest.raises(CardError, match=f"events.variations: {name} has no parton densities"):
            start(tmp_path / "card.toml", tmp_path / "run")


def test_commands(run: Path, folder: Path, tmp_path: Path) -> None:
    def call(*words: object) -> str:
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return result.output

    new = tmp_path / "new.lhe.gz"
    wrote = call("reweight", run / "events.lhe", "--scales", "0.5,1", "--scales", "4,1", "--output", new, "--quiet")
    assert wrote == "" and len(EventFile.open(new).info.weight_ids) == 12
    table = call("uncertainty", run / "events.h5")
    assert "Central scale variation (envelope, 6)" in table and "toyset (symmhessian+as, 5)" in table
    for path in (new, run / "events.h5"):
        told = call("info", path)
        for part in ("events          120", "IDWTUP = 4", "Central scale variation, envelope", 'process = "drell_yan"'):
            assert part in told
    wrong = CliRunner().invoke(app, ["reweight", str(new), "--scales", "a,b", "-o", str(tmp_path / "other.lhe")])
    assert wrong.exit_code == 1
    points = tmp_path / "points.h5"
    write_points(points, PointBatch([[0.5, 0.5]], [1.0]), "pb", domain=[[0, 1], [0, 1]])
    assert "dimension   2" in call("info", points)


def _observables(batch: EventBatch) -> dict[str, np.ndarray]:
    legs, _ = batch.final_state()
    first, second = legs[:, -2], legs[:, -1]
    pair = first + second
    y1, y2, y = (np.arctanh(p[:, 3] / p[:, 0]) for p in (first, second, pair))
    return {
        "mass": np.log(pair[:, 0] ** 2 - (pair[:, 1:] ** 2).sum(1)),
        "rapidity": y,
        "pt": np.log(np.hypot(first[:, 1], first[:, 2])),
        "first": y1,
        "second": y2,
        "difference": y1 - y2,
        "energy": np.log(pair[:, 0]),
        "x1": np.log(batch.pdf_x[:, 0]),
        "x2": np.log(batch.pdf_x[:, 1]),
        "flavour": np.abs(batch.pdg_ids[:, 0]) + 0.5,
    }


@pytest.mark.parametrize("name", ["drell_yan", "ttbar"])
@pytest.mark.parametrize("change", ["scales", "member"])
def test_closure(change: str, name: str, folder: Path) -> None:
    """Reweighted events against others of a process at (½, 2) μ, or of another member: ten distributions agree."""
    grids = [str(folder / f"toyset_{member:04d}.dat") for member in (0, 4)]
    scale = "m_ll" if name == "drell_yan" else "H_T/2"
    central = create(name, pdf=grids[0], scale=scale)
    other = {"mu_r_factor": 0.5, "mu_f_factor": 2.0, "pdf": grids[0]} if change == "scales" else {"pdf": grids[1]}
    direct = create(name, scale=scale, **other)
    batches, found = [], []
    for seed, process in enumerate((central, direct)):
        generator = torch.Generator().manual_seed(seed)
        u = torch.rand(60_000, process.dim, dtype=torch.float64, generator=generator)
        values = process(u)
        batches.append(process.events(u[values > 0], values[values > 0], generator))
    wish = {"scales": [(0.5, 2.0)]} if change == "scales" else {"pdfs": [f"{folder}/4"]}
    reweighted = variations(central.header, **wish).weights(batches[0])[:, 0]
    weights = [reweighted, batches[1].weights, batches[0].weights]
    for observable, values in _observables(batches[1]).items():
        edges = np.unique(np.quantile(values, np.linspace(0, 1, 11)))
        edges[-1] += 1e-9
        sums, squares = [], []
        for batch, weight in zip((batches[0], batches[1], batches[0]), weights, strict=True):
            value = _observables(batch)[observable]
            sums.append(np.histogram(value, edges, weights=weight)[0])
            squares.append(np.histogram(value, edges, weights=weight**2)[0])
        chi2, plain = (float(((sums[i] - sums[1]) ** 2 / (squares[i] + squares[1])).sum()) for i in (0, 2))
        found.append((stats.chi2.sf(chi2, len(edges) - 1), stats.chi2.sf(plain, len(edges) - 1)))
    assert min(good for good, _ in found) > 0.0027
    # Without the weights the distributions are others: the comparison can fail.
    assert min(plain for _, plain in found) < 1e-6
