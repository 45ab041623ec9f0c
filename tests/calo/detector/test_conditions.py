"""Columns beside the incident energy: their laws, what models see of them, and how a user says them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from nisampler.base.rng import Streams
from nisampler.calo.data.files import ShowerReader, read_showers
from nisampler.calo.data.particles import conditions_of, draw_particles, narrowed, read_particles, spoken_options
from nisampler.calo.data.showers import Showers
from nisampler.calo.data.writer import ShowerWriter
from nisampler.calo.detector.conditions import Condition, encode
from nisampler.calo.detector.description import read_geometry
from nisampler.calo.detector.geometries import geometry
from nisampler.calo.detector.geometry import Geometry, Layer
from nisampler.calo.detector.stored import Files
from nisampler.calo.fitting.symmetry import choose_symmetry
from nisampler.calo.models import build_model
from nisampler.calo.simulation.simulator import Simulator, simulator
from nisampler.errors import ConfigError, CorruptFileError, GeometryError, ShapeError, ShowerDataError, StorageError

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "detectors" / "inclined.toml"
THETA = Condition("theta", "number", (0.0, 40.0), unit="deg")
PHI = Condition("phi", "azimuth", (-180.0, 180.0), unit="deg")
KIND = Condition("particle", "category", (11.0, 22.0), ("electron", "photon"))
TOY = replace(geometry("toy"), conditions=(THETA, PHI, KIND))


FEW = replace(TOY, layers=tuple(Layer.polar(number, 4, (0, 5, 10, 20, 40)) for number in range(2)))


def some(n: int, seed: int = 0, voxels: int = 240) -> Showers:
    rng = np.random.default_rng(seed)
    columns = [known.sample(n, rng) for known in TOY.conditions]
    made = rng.exponential(10.0, (n, voxels))
    return Showers(TOY.incident.sample(n, rng), made, np.column_stack(columns))


def test_the_example_says_what_it_says() -> None:
    own = read_geometry(EXAMPLE)
    assert own.conditions == (THETA, PHI, KIND) and own.context == 1 + 1 + 2 + 2
    assert Geometry.from_dict(own.to_dict()) == own
    assert replace(own, conditions=()).digest == own.digest


def test_laws_fill_their_ranges() -> None:
    rng = np.random.default_rng(1)
    theta = THETA.sample(5000, rng)
    assert 0 <= theta.min() < 0.1 and 39.9 < theta.max() <= 40
    assert theta.mean() == pytest.approx(20, abs=0.5)
    assert set(KIND.sample(100, rng)) == {11.0, 22.0}
    assert set(Condition("x", "number", (1.0, 2.0, 5.0), discrete=True).sample(100, rng)) == {1.0, 2.0, 5.0}
    assert set(Condition("x", "number", (3.0,)).sample(5, rng)) == {3.0}


def test_models_see_numbers_of_unit_variance() -> None:
    seen = encode(TOY.conditions, torch.as_tensor(some(20_000).conditions))
    assert seen.shape == (20_000, 5)
    np.testing.assert_allclose(seen[:, :3].mean(0), 0, atol=0.03)
    np.testing.assert_allclose(seen[:, :3].std(0), 1, atol=0.03)
    assert set(seen[:, 3:].sum(1).tolist()) == {1.0}
    once, again = (PHI.encode(torch.tensor([turn])) for turn in (-170.0, 190.0))
    torch.testing.assert_close(once, again)
    radians = Condition("phi", "azimuth", (-3.0, 3.0), unit="rad").encode(torch.deg2rad(torch.tensor([-170.0])))
    torch.testing.assert_close(once, radians)
    assert Condition("x", "number", (3.0,)).encode(torch.tensor([3.0])).item() == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("energy", "number", (0.0, 1.0)), "cannot be called 'energy'"),
        (("a b", "number", (0.0, 1.0)), "cannot be called"),
        (("a", "angle", (0.0, 1.0)), "kinds are"),
        (("a", "number", (0.0, 1.0), (), "ft"), "units deg"),
        (("a", "number", ()), "finite and increase"),
        (("a", "number", (1.0, 0.0)), "finite and increase"),
        (("a", "number", (0.0, float("nan"))), "finite and increase"),
        (("a", "number", (0.0, 1.0, 2.0)), "two ends"),
        (("a", "azimuth", (0.0, 1.0)), "deg or rad"),
        (("a", "category", (0.0, 1.0), ("x",)), "labels name each code"),
        (("a", "number", (0.0, 1.0), ("x", "y")), "labels name each code"),
    ],
)
def test_wrong_conditions_are_named_errors(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        Condition(*arguments)  # type: ignore[arg-type]


def test_conditions_of_a_geometry_differ_from_all_else(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="names that differ"):
        replace(TOY, conditions=(THETA, THETA))
    with pytest.raises(GeometryError, match="names that differ"):
        replace(TOY, files=Files(showers="theta"))
    text = EXAMPLE.read_text()
    for wrong in (text.replace("values = [0, 40]", ""), text.replace("azimuth = true", "categories = { a = 1 }")):
        (tmp_path / "own.toml").write_text(wrong)
        with pytest.raises(GeometryError, match="give values or categories"):
            read_geometry(tmp_path / "own.toml")


def test_what_a_user_says_narrows_the_laws() -> None:
    said = narrowed(TOY, spoken_options(["--energy", "50", "--theta=20:30", "--phi", "10,-10", "--particle", "photon"]))
    assert said.incident.values == (5e4,) and said.incident.kind == "discrete"
    assert said.conditions[0].values == (20.0, 30.0) and said.conditions[1].values == (-10.0, 10.0)
    assert said.conditions[2].values == (22.0,) and said.conditions[2].labels == ("photon",)
    drawn = draw_particles(said, 500, Streams(1), 0)
    assert set(drawn[:, 0]) == {5e4} and set(drawn[:, 2]) == {-10.0, 10.0} and set(drawn[:, 3]) == {22.0}
    assert 20 <= drawn[:, 1].min() and drawn[:, 1].max() <= 30
    assert narrowed(TOY, {"energy": "5:20"}).incident.kind == "log-uniform"
    assert narrowed(geometry("ds1-photons"), {"energy": "5:20"}).incident.kind == "uniform"
    for words, message in (
        (["--eta", "1"], "depend on --energy, --theta, --phi, --particle"),
        (["--theta"], "is no option with a value"),
        (["theta", "1"], "is no option with a value"),
        (["--theta", "1", "--theta", "2"], "said once"),
    ):
        with pytest.raises(ConfigError, match=message):
            narrowed(TOY, spoken_options(words))
    for name, text in (("theta", "a"), ("theta", "1:2:3"), ("theta", ""), ("energy", "nan"), ("particle", "muon")):
        with pytest.raises(GeometryError, match=f"--{name}"):
            narrowed(TOY, {name: text})
    with pytest.raises(GeometryError, match="positive"):
        narrowed(TOY, {"energy": "-1"})


def test_energies_of_a_seed_do_not_depend_on_conditions() -> None:
    plain, more = (draw_particles(known, 10, Streams(3), 2) for known in (geometry("toy"), TOY))
    np.testing.assert_array_equal(plain, more[:, 0])


# Files


def test_files_carry_their_columns(tmp_path: Path) -> None:
    made = some(300)
    with ShowerWriter(tmp_path / "a.h5", TOY) as writer:
        writer.append(made[:100])
        writer.append(made[100:])
    again = read_showers(tmp_path / "a.h5", TOY)
    np.testing.assert_array_equal(again.conditions, made.conditions)
    with ShowerReader(tmp_path / "a.h5", TOY) as reader:
        assert reader.unused == () and not reader.notes()
        np.testing.assert_array_equal(reader.select([3, 200]).conditions, made.conditions[[3, 200]])
    with ShowerReader(tmp_path / "a.h5", geometry("toy")) as reader:
        assert set(reader.unused) == {"theta", "phi", "particle"} and "--condition" in reader.notes()[0]
    np.testing.assert_array_equal(read_particles(tmp_path / "a.h5", TOY, 5)[:, 1:], made.conditions[:5])
    with pytest.raises(ShapeError, match="3 conditions"), ShowerWriter(tmp_path / "b.h5", TOY) as writer:
        writer.append(Showers(made.incident, made.voxels))
    with pytest.raises(ShapeError, match="a row for each"):
        Showers(made.incident, made.voxels, made.conditions[:5])
    joined = Showers.concatenate([made[:5], made[5:]])
    np.testing.assert_array_equal(joined.conditions, made.conditions)


def test_conditions_can_be_found_in_a_file(tmp_path: Path) -> None:
    made = some(300)
    with ShowerWriter(tmp_path / "a.h5", TOY) as writer:
        writer.append(made)
    found = conditions_of(tmp_path / "a.h5", ["theta", "phi=deg", "particle=category"])
    assert [one.kind for one in found] == ["number", "azimuth", "category"] and found[2].values == (11.0, 22.0)
    assert found[0].values == (made.conditions[:, 0].min(), made.conditions[:, 0].max()) and not found[0].discrete
    assert conditions_of(tmp_path / "a.h5", ["particle"])[0].discrete
    for named, error, message in (
        ("theta=furlong", ConfigError, "deg or rad"),
        ("eta", ShowerDataError, "no dataset 'eta'"),
        ("showers", ShowerDataError, "one number for each"),
        ("theta=category", ShowerDataError, "too many for a category"),
    ):
        with pytest.raises(error, match=message):
            conditions_of(tmp_path / "a.h5", [named])
    with pytest.raises(StorageError, match=r"none\.h5"):
        conditions_of(tmp_path / "none.h5", ["theta"])


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("theta", np.full((300, 1), np.nan), "must be finite"),
        ("particle", np.full((300, 1), 13.0), "one of 11, 22"),
        ("particle", np.ones((299, 1)), "one number for each of 300"),
        ("phi", None, "needs a dataset 'phi'"),
    ],
)
def test_wrong_columns_are_named_errors(name: str, values: np.ndarray | None, message: str, tmp_path: Path) -> None:
    with ShowerWriter(tmp_path / "a.h5", TOY) as writer:
        writer.append(some(300))
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file[name]
        if values is not None:
            file[name] = values
    with pytest.raises((GeometryError, ShowerDataError), match=message):
        ShowerReader(tmp_path / "a.h5", TOY)


def test_particles_in_a_table(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("theta,energy,particle,phi\n10,5,photon,0\n20,6,11,90\n")
    np.testing.assert_allclose(read_particles(path, TOY, None), [[5e3, 10, 0, 22], [6e3, 20, 90, 11]])
    with pytest.raises(ConfigError, match="has 2 incident energies"):
        read_particles(path, TOY, 3)
    for text, message in (
        ("theta,energy\n1,2\n", "with the columns energy, theta, phi, particle"),
        ("theta,energy,particle,phi\n1,2,muon,3\n", "with the columns"),
        ("theta,energy,particle,phi\n", "lists no particles"),
    ):
        path.write_text(text)
        with pytest.raises(CorruptFileError, match=message):
            read_particles(path, TOY, None)
    path.write_text("theta,energy,particle,phi\n1,2,13,3\n")
    with pytest.raises(GeometryError, match="one of 11, 22"):
        read_particles(path, TOY, None)
    path.write_bytes("theta,energy,particle,phi\n1,2,électron,3\n".encode("latin-1"))
    with pytest.raises(CorruptFileError, match=r"is not a table of particles: .* save it as comma-separated text"):
        read_particles(path, TOY, None)


def test_a_label_may_stand_for_zero(tmp_path: Path) -> None:
    side = Condition("side", "category", (0.0, 1.0), ("left", "right"))
    (tmp_path / "a.csv").write_text("energy,side\n5,left\n6, right\n7,0\n")
    found = read_particles(tmp_path / "a.csv", replace(TOY, conditions=(side,)), None)
    np.testing.assert_allclose(found[:, 1], [0.0, 1.0, 0.0])


# Models


@pytest.mark.parametrize(
    "preset",
    ["small", "small-inn", "small-student", "small-l2lflows", "small-convl2l", "small-icaloflow", "small-matching"],
)
def test_every_family_takes_conditions(preset: str) -> None:
    model = build_model(preset, FEW)
    made = some(60, voxels=FEW.n_voxels)
    generator = torch.Generator().manual_seed(1)
    model.turn(False)
    model.prepare(made, generator)
    particles = torch.as_tensor(made.particles[:4], dtype=torch.float32)
    particles.requires_grad_(True)
    voxels = torch.as_tensor(made.voxels[:4])
    for part in model.parts:
        with torch.no_grad():
            for weights in part.module.parameters():  # those that start at zero hide what they are given
                weights.add_(0.02 * torch.randn(weights.shape, generator=generator))
        part.begin()
        stop = None if part.layers is None else slice(FEW.starts[part.layers[0]], FEW.starts[part.layers[1]])
        loss = part.loss(voxels if stop is None else voxels[:, stop], particles, generator)
        total = (loss["loss"] if isinstance(loss, dict) else loss).sum()
        (slopes,) = torch.autograd.grad(total, particles)
        assert torch.isfinite(slopes).all() and bool((slopes[:, 1:3] != 0).all()), part.name
    sampled = model.eval().sample(particles.detach(), torch.Generator().manual_seed(1))
    assert sampled.shape == (4, FEW.n_voxels)
    for wrong in (particles[:, 0], particles[:, :3]):
        with pytest.raises(ShapeError, match=r"\(n, 4\): energy, theta, phi, particle"):
            model.sample(wrong.detach(), generator)


def test_without_conditions_models_are_what_they_were() -> None:
    with pytest.raises(ShapeError, match=r"shape \(n,\)"):
        build_model("small-inn", geometry("toy")).sample(torch.ones(3, 2), torch.Generator())


def test_showers_that_may_point_to_a_side_are_not_turned() -> None:
    made = some(3000)
    assert choose_symmetry("auto", True, made, replace(TOY, conditions=(KIND,))).turned
    found = choose_symmetry("auto", True, made, TOY)
    assert not found.turned and "point to a side" in found.reason
    assert choose_symmetry("on", True, made, TOY).turned


# Simulation


def centres(own: Geometry, voxels: np.ndarray) -> np.ndarray:
    """Mean places (L, 2) of the energy in each layer."""
    means = []
    for position, layer in enumerate(own.layers):
        mean = voxels[:, own.slice(position)].mean(axis=0, dtype=np.float64)
        means.append([mean @ axis / mean.sum() for axis in layer.centres()])
    return np.asarray(means)


def simulated(options: dict[str, str], n: int = 150) -> tuple[Geometry, np.ndarray]:
    own = narrowed(read_geometry(EXAMPLE), {"energy": "10"} | options)
    fine = tuple(replace(layer, first=tuple(np.linspace(-80, 80, 65)), second=tuple(np.linspace(-80, 80, 17)))
                 for layer in own.layers)  # fmt: skip
    own = replace(own, layers=fine, threshold=0.0)
    rows = draw_particles(own, n, Streams(1), 0)
    return own, simulator(own).simulate(rows, np.random.default_rng(1))


def test_inclined_showers_run_along_their_line() -> None:
    own, voxels = simulated({"theta": "30", "phi": "0", "particle": "electron"})
    found, depth = centres(own, voxels), 8.0 * (np.arange(8) + 0.5)
    np.testing.assert_allclose(found[1:7, 0], depth[1:7] * np.tan(np.pi / 6), atol=2.0)
    np.testing.assert_allclose(found[:7, 1], 0.0, atol=1.0)
    own, voxels = simulated({"theta": "30", "phi": "180", "particle": "electron"})
    np.testing.assert_allclose(centres(own, voxels)[1:7, 0], -depth[1:7] * np.tan(np.pi / 6), atol=2.0)


def test_inclined_showers_are_earlier_in_depth() -> None:
    depths = []
    for theta in ("0", "50"):
        own, voxels = simulated({"theta": theta, "phi": "0", "particle": "electron"})
        energies = own.layer_energies(voxels).mean(0)
        depths.append(float(energies @ np.arange(8) / energies.sum()))
    assert depths[0] > depths[1] + 0.7


def test_photons_begin_later_than_electrons() -> None:
    shares = []
    for particle in ("electron", "photon"):
        own, voxels = simulated({"theta": "0", "phi": "0", "particle": particle})
        energies = own.layer_energies(voxels)
        shares.append(float((energies[:, 0] / energies.sum(1)).mean()))
    assert shares[0] > 1.15 * shares[1]
    own, mixed = simulated({"theta": "0", "phi": "0"}, 300)
    codes = draw_particles(narrowed(own, {}), 300, Streams(1), 0)[:, 3]
    share = own.layer_energies(mixed)[:, 0] / mixed.sum(1)
    assert share[codes == 11].mean() > 1.15 * share[codes == 22].mean()


def test_a_place_on_the_front_moves_all_layers() -> None:
    plain = read_geometry(EXAMPLE)
    places = tuple(Condition(name, "number", (-50.0, 50.0), unit="mm") for name in ("x", "y"))
    own = replace(plain, conditions=places, threshold=0.0)
    voxels = Simulator(own, simulator(plain).detector).simulate(
        np.tile([1e4, 15.0, -30.0], (300, 1)), np.random.default_rng(1)
    )
    np.testing.assert_allclose(centres(own, voxels)[:6], np.tile([15.0, -30.0], (6, 1)), atol=2.0)


def test_the_simulator_refuses_what_it_cannot_follow() -> None:
    own = read_geometry(EXAMPLE)
    detector = simulator(own).detector
    other = Condition("weather", "number", (0.0, 1.0))
    for changed, message in (
        (replace(own, conditions=(other,)), "knows nothing of weather"),
        (replace(own, conditions=(replace(THETA, unit=""),)), "unit deg or rad"),
        (replace(own, conditions=(Condition("x", "category", (1.0,)),)), "x cannot be a category"),
        (TOY, "not in polar ones"),
    ):
        with pytest.raises(GeometryError, match=message):
            simulator(changed) if changed is TOY else Simulator(changed, detector)
    flat = replace(detector, stack=replace(detector.stack, middles=None))
    with pytest.raises(GeometryError, match="in mm"):
        Simulator(own, flat)
    with pytest.raises(ShowerDataError, match="at most 85"):
        simulator(own).simulate(np.array([[1e4, 89.0, 0.0, 11.0]]), np.random.default_rng(1))
    with pytest.raises(ShowerDataError, match=r"shape \(n, 4\)"):
        simulator(own).simulate(np.array([1e4]), np.random.default_rng(1))
    pions = replace(own, pdg=211, particle="pion", conditions=(THETA,))
    with pytest.raises(GeometryError, match="pions are simulated along the axis"):
        simulator(pions).simulate(np.array([[1e4, 10.0]]), np.random.default_rng(1))
