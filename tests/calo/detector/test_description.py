"""A calorimeter of one's own: what its TOML file says is what every part sees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from nisampler.calo.data.files import ShowerReader, read_showers
from nisampler.calo.data.showers import Showers
from nisampler.calo.data.writer import ShowerWriter
from nisampler.calo.detector.binning import write_binning
from nisampler.calo.detector.description import read_geometry
from nisampler.calo.detector.geometries import GEOMETRIES, geometry
from nisampler.calo.detector.geometry import Geometry, IncidentEnergy, Layer
from nisampler.calo.detector.material import Material, Slabs
from nisampler.calo.detector.media import ELEMENTS, LEAD_TUNGSTATE, POLYSTYRENE, SILICON, TUNGSTEN, Element, mixture
from nisampler.calo.detector.stored import Files
from nisampler.calo.evaluation.features import Features
from nisampler.calo.evaluation.quantities import quantities
from nisampler.calo.given import given_geometry
from nisampler.calo.models import build_model
from nisampler.calo.models.base import symmetry_table
from nisampler.calo.simulation.gflash import Radial
from nisampler.calo.simulation.simulator import simulator
from nisampler.errors import CorruptFileError, GeometryError, ModelError, ShowerDataError, StorageError

HEAD = 'name = "own"\nthreshold = 0.2\nincident = { law = "uniform", energies = [1, 10] }\n'
UNITS = '[units]\nincident = "GeV"\nshowers = "keV"\nlength = "cm"\n'
CELLS = "[[layers]]\ncells = [[0, 0], [3, 0], [0, 4]]\n"
MATERIAL = '[material]\nabsorber = "tungsten"\nactive = "silicon"\n'


def read(folder: Path, text: str) -> Geometry:
    (folder / "own.toml").write_text(text)
    return read_geometry(folder / "own.toml")


def test_cells_thresholds_and_units(tmp_path: Path) -> None:
    layers = (
        "[[layers]]\nrepeat = 2\nr = [0, 1, 3]\nalpha = 4\n"
        "[[layers]]\nid = 7\nx = [0, 1, 4]\ny = { cells = 3, low = -3, high = 3 }\nthreshold = 5\n"
        "[[layers]]\nr = { cells = 2, low = 1, high = 3 }\nalpha = [-1.0, 0.0, 2.0]\n"
    )
    own = read(tmp_path, HEAD + UNITS + layers + CELLS)
    polar, rectangular = Layer.polar(0, 4, (0, 10, 30)), Layer(7, "rectangular", (0, 10, 40), (-30, -10, 10, 30))
    wedge = Layer(8, "polar", (-1, 0, 2), (10, 20, 30))
    assert own.layers[:4] == (polar, replace(polar, id=1), rectangular, wedge)
    assert own.layers[4] == Layer(9, "cells", (0, 30, 0), (0, 0, 40), (30, 30, 40))
    assert own.incident == IncidentEnergy("uniform", (1e3, 1e4)) and own.pdg == 11
    assert own.threshold == pytest.approx(2e-4) and own.thresholds == pytest.approx((2e-4, 2e-4, 5e-3, 2e-4, 2e-4))
    assert own.files == Files(incident_unit=1e3, unit=1e-3) and own.response is None and own.material is None
    assert not own.angles and len(symmetry_table(own)) == 1  # not all layers turn
    assert Geometry.from_dict(own.to_dict()) == own


def test_a_list_of_cells_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_text("x,y,width\n0,0,1\n5,0,2\n")
    assert read(tmp_path, HEAD + '[[layers]]\ncells = "cells.csv"\n').layers[0].widths == (1.0, 2.0)
    for text, message in (
        ("x,y\n", "lists no cells"),
        ("x,z\n1,2\n", "columns x, y"),
        ("x,y\n1,a\n", "columns x, y"),
        ("x,y\n1\n", "columns x, y"),
        ("x,y\nnan,1\n", "not finite"),
    ):
        (tmp_path / "cells.csv").write_text(text)
        with pytest.raises(CorruptFileError, match=message):
            read(tmp_path, HEAD + '[[layers]]\ncells = "cells.csv"\n')
    with pytest.raises(StorageError, match=r"none\.csv"):
        read(tmp_path, HEAD + '[[layers]]\ncells = "none.csv"\n')


def test_a_binning_with_what_it_lacks(tmp_path: Path) -> None:
    cells = replace(geometry("toy"), layers=geometry("toy").layers[:3])
    write_binning(tmp_path / "own.xml", cells)
    own = read(tmp_path, HEAD + 'binning = "own.xml"\n')
    assert own.layers == cells.layers and (own.name, own.threshold) == ("own", 0.2)
    assert own.incident.values == (1.0, 10.0)
    given = given_geometry(tmp_path / "own.xml", 0.5, "discrete:0.256:0.512", "electron")
    assert (given.name, given.threshold, given.layers) == ("own", 0.5, cells.layers)
    assert given.incident == IncidentEnergy("discrete", (256.0, 512.0), (1, 1))
    with pytest.raises(GeometryError, match="--threshold and --energies"):
        given_geometry(tmp_path / "own.xml", 0.5)
    with pytest.raises(GeometryError, match="no particle 'photon'"):
        given_geometry(tmp_path / "own.xml", 0.5, "uniform:1:2", "photon")


def test_what_is_given_replaces_what_a_geometry_says(tmp_path: Path) -> None:
    read(tmp_path, HEAD + "[[layers]]\nr = [0, 1]\nthreshold = 3\n[[layers]]\nr = [0, 1]\n")
    own = given_geometry(tmp_path / "own.toml", 0.1, "log-uniform:5:6")
    assert own.threshold == 0.1 and not own.thresholds and own.incident.kind == "log-uniform"
    for arguments, message in (
        (("nothing",), "no geometry is called 'nothing'"),
        (("toy", None, "uniform:a:b"), "LAW:LOW:HIGH"),
        (("toy", None, "gauss:1:2"), "'gauss'"),
        (("toy", None, "uniform:1"), "lower and an upper"),
        (("toy", -1.0), "threshold must be finite"),
        (("toy", None, None, "pion"), "only an XML binning"),
    ):
        with pytest.raises(GeometryError, match=message):
            given_geometry(*arguments)  # type: ignore[arg-type]
    with pytest.raises(StorageError, match="not the folder of a shower model"):
        given_geometry(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "Invalid value"),
        ('name = "own"\n', "threshold is missing"),
        (HEAD, "by \\[\\[layers\\]\\] or by binning"),
        (HEAD + 'binning = "a.xml"\n' + CELLS, "by \\[\\[layers\\]\\] or by binning"),
        (HEAD.replace("own", "toy") + CELLS, "registered geometry"),
        ('particle = "tau"\n' + HEAD + CELLS, "pdg is missing"),
        ("colour = 3\n" + HEAD + CELLS, "unknown setting colour"),
        (HEAD + "[[layers]]\nr = [0, 1]\nx = [0, 1]\ny = [0, 1]\n", "one of the three"),
        (HEAD + "[[layers]]\nx = [0, 1]\n", "one of the three"),
        (HEAD + "[[layers]]\nr = [1, 0]\n", "edges must be at least two and increase"),
        (HEAD + "[[layers]]\nr = [0, 1]\nalpha = 0\n", "alpha"),
        (HEAD + "[[layers]]\ncells = [[0, 0], [1, 1, 1]]\n", "all alike"),
        (HEAD + "[[layers]]\ncells = [[0, 0]]\n", "give its width"),
        (HEAD + "[[layers]]\ncells = [[0, 0], [0, 0]]\n", "all differ"),
        (HEAD + "[[layers]]\ncells = [[0, 0], [0, 0]]\nwidth = 2\n", "all differ"),
        (HEAD + "[[layers]]\ncells = [[0, 0, -1], [1, 0, 1]]\n", "positive width"),
        (HEAD + "[[layers]]\nid = 1\nr = [0, 1]\n[[layers]]\nid = 1\nr = [0, 1]\n", "different ids"),
        (HEAD + "[[layers]]\nrepeat = 1000\nr = [0, 1]\nalpha = 2000\n", "2000000 cells"),
        (HEAD + '[units]\nshowers = "MIP"\n' + CELLS, "showers"),
        (HEAD + "[units]\nshowers = -1\n" + CELLS, "showers"),
        (HEAD + '[files]\nshowers = "incident_energies"\n' + CELLS, "two names that differ"),
        (HEAD + CELLS + MATERIAL, "thickness of its active slab"),
        (HEAD + CELLS + "absorber = 1\nactive = 1\n[material]\nactive = 'silicon'\n", "say which material"),
        (HEAD + CELLS + "active = 1\n[material]\nactive = 'unobtainium'\n", "no material is called 'unobtainium'"),
        (HEAD.replace("uniform", "gauss") + CELLS, "law"),
        (HEAD.replace("[1, 10]", "[10, 1]") + CELLS, "increasing"),
        (HEAD.replace("0.2", "nan") + CELLS, "nan"),
    ],
)
def test_wrong_files_are_named_errors(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match=message) as caught:
        read(tmp_path, text)
    assert "own.toml" in str(caught.value)


def test_wrong_geometries_are_named_errors() -> None:
    toy = geometry("toy")
    slabs = (Slabs(1.0),) * 2
    wrong: list[dict[str, Any]] = [
        {"thresholds": (1.0,)},
        {"thresholds": (0.0,) * 5},
        {"response": 0.0},
        {"material": Material(SILICON, None, slabs)},
    ]
    for change in wrong:
        with pytest.raises(GeometryError):
            replace(toy, **change)
    for make in (
        lambda: Layer(0, "cells", (0.0,), (0.0,), ()),
        lambda: Layer(0, "cells", (), (), ()),
        lambda: Layer(0, "rectangular", (0.0, 1.0), (0.0, 1.0), (1.0,)),
        lambda: Files(unit=0.0),
        lambda: Slabs(0.0),
        lambda: Material(SILICON, None, ()),
        lambda: Material(SILICON, None, slabs, resolution=-1.0),
        lambda: Element("x", 1, 1, 1, 1, 1, -1.0),
    ):
        with pytest.raises(GeometryError):
            make()


def test_files_hold_their_own_names_and_units(tmp_path: Path) -> None:
    text = UNITS.replace('"cm"', '"mm"') + '[files]\nincident = "energy"\nshowers = "hits"\n' + CELLS
    own = read(tmp_path, HEAD + text)
    made = Showers(np.array([2e3, 5e3]), np.array([[1e-3, 0, 2e-3], [0, 4e-3, 0]]))
    with ShowerWriter(tmp_path / "a.h5", own) as writer:
        writer.append(made)
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_allclose(file["energy"][:, 0], [2.0, 5.0])
        np.testing.assert_allclose(file["hits"][:], 1e3 * made.voxels, rtol=1e-6)
    again = read_showers(tmp_path / "a.h5", own)
    np.testing.assert_allclose(again.voxels, made.voxels, rtol=1e-6)
    np.testing.assert_allclose(again.incident, made.incident)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["energy"][:] *= 1e3
    with pytest.raises(ShowerDataError, match="1000 times too large"):
        ShowerReader(tmp_path / "a.h5", own)


def test_energies_below_the_threshold_of_a_layer_are_set_to_zero(tmp_path: Path) -> None:
    own = read(tmp_path, HEAD + "[[layers]]\nx = [0, 1, 2]\ny = [0, 1]\nthreshold = 2\n[[layers]]\nr = [0, 1, 2]\n")
    with ShowerWriter(tmp_path / "a.h5", own) as writer:
        writer.append(Showers(np.full(1, 5.0), np.array([[1.0, 3.0, 1.0, 0.3]])))
    with ShowerReader(tmp_path / "a.h5", own) as reader:
        np.testing.assert_array_equal(reader.read(0, 1).voxels, np.float32([[0, 3, 1, 0.3]]))
        np.testing.assert_array_equal(reader.read(0, 1, slice(0, 3)).voxels, np.float32([[0, 3, 1]]))
        np.testing.assert_array_equal(reader.read(0, 1, slice(1, 4)).voxels, np.float32([[3, 1, 0.3]]))
    assert own.window(1, 2).thresholds == (0.2,)


def test_a_model_refuses_what_it_cannot_learn(tmp_path: Path) -> None:
    alike = read(tmp_path, HEAD + CELLS.replace("[[layers]]", "[[layers]]\nrepeat = 2"))
    assert alike.alike and alike.grid is None
    assert build_model("small-icaloflow", alike).geometry is alike
    with pytest.raises(ModelError, match="no grids"):
        build_model("small-convl2l", alike)


def test_histograms_hold_all_centres_of_an_odd_layer(tmp_path: Path) -> None:
    own = read(tmp_path, HEAD + "[[layers]]\nx = [100, 110, 300]\ny = [5, 10]\n[[layers]]\nr = [0, 4]\n" + CELLS)
    rng = np.random.default_rng(1)
    features = Features.of(Showers(rng.uniform(1, 10, 50), rng.exponential(size=(50, own.n_voxels))), own)
    for quantity in quantities(features, own):
        if quantity.family in ("eta", "phi", "r"):
            values = quantity.values(features)
            assert quantity.axis.edges[0] <= values.min() and values.max() <= quantity.axis.edges[-1]


# Material


def simulated(text: str, folder: Path, n: int = 400, energy: float = 1e4) -> tuple[Geometry, np.ndarray]:
    own = read(folder, HEAD.replace("0.2", "0.0") + text)
    return own, simulator(own).simulate(np.full(n, energy), np.random.default_rng(1))


def test_the_simulator_of_slabs_is_that_of_a_registered_calorimeter(tmp_path: Path) -> None:
    """Getting High said slab by slab: the profile that its own detector gives."""
    cells = "x = { cells = 30, low = -76.3245, high = 76.3245 }\ny = { cells = 30, low = -76.3245, high = 76.3245 }\n"
    layers = "".join(
        f"[[layers]]\nrepeat = {repeat}\nactive = 0.525\nabsorber = {absorber}\n{cells}"
        for repeat, absorber in ((20, 2.1), (10, 4.2))
    )
    own, voxels = simulated('particle = "photon"\n' + layers + MATERIAL, tmp_path, 300, 5e4)
    known = simulator(GEOMETRIES["getting-high"]).simulate(np.full(300, 5e4), np.random.default_rng(2))
    profile, expected = own.layer_energies(voxels).mean(0), own.layer_energies(known).mean(0)
    assert voxels.sum(1).mean() == pytest.approx(known.sum(1).mean(), rel=0.03)
    np.testing.assert_allclose(profile[5:20], expected[5:20], rtol=0.12)


@pytest.mark.parametrize(("signal", "low", "high"), [("deposited", 0.01, 0.03), ("calibrated", 0.8, 1.05)])
def test_the_signal_is_deposited_or_calibrated(signal: str, low: float, high: float, tmp_path: Path) -> None:
    layer = "[[layers]]\nrepeat = 25\nabsorber = 3.5\nactive = 0.5\nr = [0, 20, 300]\n"
    _, voxels = simulated(layer + MATERIAL + f'signal = "{signal}"\n', tmp_path)
    ratio = voxels.sum(1) / 1e4
    assert low < ratio.mean() < high
    assert ratio.std() / ratio.mean() * np.sqrt(10) == pytest.approx(0.027 * np.sqrt(0.5 / 0.0247), rel=0.2)


def test_material_in_front_moves_showers_forward(tmp_path: Path) -> None:
    layer = "[[layers]]\nrepeat = 20\nabsorber = 3.5\nactive = 0.5\nr = [0, 300]\n" + MATERIAL
    depths = []
    for front in (0, 3):
        own, voxels = simulated(layer + f"upstream = {front}\n", tmp_path)
        energies = own.layer_energies(voxels).mean(0)
        depths.append(float(energies @ np.arange(20) / energies.sum()))
    assert depths[0] - depths[1] == pytest.approx(3.0, abs=0.7)


def test_crystals_absorb_nearly_all(tmp_path: Path) -> None:
    layer = (
        "[[layers]]\nactive = 230\nx = { cells = 5, low = -55, high = 55 }\ny = { cells = 5, low = -55, high = 55 }\n"
    )
    _, voxels = simulated(layer + '[material]\nactive = "lead tungstate"\n', tmp_path)
    ratio = voxels.sum(1) / 1e4
    assert 0.85 < ratio.mean() < 1.0 and ratio.std() < 0.05
    assert mixture([(LEAD_TUNGSTATE, 1.0)]).radiation_length == pytest.approx(8.9, rel=0.01)
    assert mixture([(POLYSTYRENE, 1.0)]).radiation_length == pytest.approx(413.1, rel=0.01)


def test_pions_need_interaction_lengths(tmp_path: Path) -> None:
    layer = "[[layers]]\nrepeat = 20\nabsorber = 50\nactive = 5\nr = [0, 500]\n"
    element = "[elements.foam]\nZ = 6\nA = 12\ndensity = 1.0\nradiation_length = 43\nionisation = 1.8\n"
    text = 'particle = "pion"\n' + layer + '[material]\nabsorber = "iron"\nactive = "{}"\n'
    _, voxels = simulated(text.format("polystyrene"), tmp_path)
    assert 0.01 < voxels.sum(1).mean() / 1e4 < 0.1
    with pytest.raises(GeometryError, match="interaction lengths"):
        simulated(text.format("foam") + element, tmp_path)
    with pytest.raises(GeometryError, match="say its material"):
        simulated(layer, tmp_path)


def test_squares_are_the_cells_of_a_grid() -> None:
    radial = Radial(np.full((2, 1), 5.0), np.full((2, 1), 20.0), np.full((2, 1), 0.7))
    edges = np.linspace(-10.0, 10.0, 6)
    middle = 0.5 * (edges[1:] + edges[:-1])
    x, y = (grid.ravel() for grid in np.meshgrid(middle, middle, indexing="ij"))
    squares = radial.squares(x, y, np.full(25, 4.0))
    np.testing.assert_allclose(squares, radial.rectangles(edges, edges).reshape(2, 1, 25), atol=1e-14)


def test_unequal_angles_share_a_ring_by_their_widths(tmp_path: Path) -> None:
    layer = "[[layers]]\nabsorber = 30\nactive = 5\nr = [0, 300]\nalpha = [-3.0, 0.0, 1.0]\n" + MATERIAL
    _, voxels = simulated(layer, tmp_path, 2000)
    assert voxels[:, 0].mean() / voxels[:, 1].mean() == pytest.approx(3.0, rel=0.1)


def test_materials_have_the_tabulated_lengths() -> None:
    material = Material(SILICON, TUNGSTEN, (Slabs(0.3, 1.4), Slabs(0.3, 2.8, 2)), upstream=1.0)
    assert material.depths[0] == pytest.approx(1.7 / 4.219, rel=1e-3)
    interaction = material.interaction_depths
    assert interaction is not None and interaction[0] == pytest.approx(1.4 / 99.4 + 0.3 / 465.4, rel=1e-2)
    assert all(element.interaction_length is not None for element in ELEMENTS.values())
