"""XML binnings of the CaloChallenge: read, written, and refused when malformed."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nisampler.calo.detector.binning import read_binning, write_binning
from nisampler.calo.detector.geometries import geometry
from nisampler.calo.detector.geometry import Geometry, IncidentEnergy, Layer
from nisampler.errors import GeometryError, StorageError

PHOTONS = """<Bins>
   <Bin pid="22" etaMin="0" etaMax="130" name="photon">
      <Layer id="0" r_edges="0,5,10,30,50,100,200,400,600" n_bin_alpha="1" />
      <Layer id="1" r_edges="0,2,4,6,8,10,12,15,20,30,40,50,70,90,120,150,200" n_bin_alpha="10"/>
      <Layer id="2" r_edges="0,2,5,10,15,20,25,30,40,50,60,80,100,130,160,200,250,300,350,400" n_bin_alpha="10"/>
      <Layer id="3" r_edges="0,50,100,200,400,600" n_bin_alpha="1" />
      <Layer id="4" r_edges="0" n_bin_alpha="1" />
      <Layer id="11" r_edges="" n_bin_alpha="1" />
      <Layer id="12" r_edges="0,100,200,400,1000,2000" n_bin_alpha="1" />
      <Layer id="13" r_edges="0" n_bin_alpha="1" />
   </Bin>
   <Bin pid="211" name="pion">
      <Layer id="2" r_edges="0, 1.5, 4" n_bin_alpha="3" />
   </Bin>
</Bins>
"""
LAW = IncidentEnergy("uniform", (1e3, 2e3))


def save(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_published_binning_is_the_registered_geometry(tmp_path: Path) -> None:
    assert read_binning(save(tmp_path / "b.xml", PHOTONS), "photon") == geometry("ds1-photons")


def test_what_is_given_replaces_what_is_registered(tmp_path: Path) -> None:
    known = read_binning(save(tmp_path / "b.xml", PHOTONS), "photon", threshold=10.0, incident=LAW, name="mine")
    assert known == dataclasses.replace(geometry("ds1-photons"), threshold=10.0, incident=LAW, name="mine")


def test_cells_that_are_not_registered(tmp_path: Path) -> None:
    path = save(tmp_path / "b.xml", PHOTONS)
    known = read_binning(path, "pion", name="two", threshold=0.0, incident=LAW)
    assert known == Geometry("two", "pion", 211, (Layer.polar(2, 3, (0, 1.5, 4)),), 0.0, LAW)
    assert read_binning(path, "pion", threshold=0.0, incident=LAW).name == "b"
    for missing in ("threshold", "incident"):
        given = {key: value for key, value in {"name": "two", "threshold": 0.0, "incident": LAW}.items()
                 if key != missing}  # fmt: skip
        with pytest.raises(GeometryError, match="--threshold and --energies"):
            read_binning(path, "pion", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["ds1-photons", "ds1-pions", "ds2", "ds3"])
def test_round_trip_of_the_challenge(name: str, tmp_path: Path) -> None:
    write_binning(tmp_path / "b.xml", geometry(name))
    assert read_binning(tmp_path / "b.xml") == geometry(name)


def test_the_toy_can_be_given_to_the_challenge(tmp_path: Path) -> None:
    write_binning(tmp_path / "b.xml", geometry("toy"))
    assert read_binning(tmp_path / "b.xml").digest == geometry("toy").digest


def test_unused_numbers_are_written_as_empty_layers(tmp_path: Path) -> None:
    write_binning(tmp_path / "b.xml", geometry("ds1-photons"))
    lines = [line.strip() for line in (tmp_path / "b.xml").read_text().splitlines()]
    assert sum(line.startswith("<Layer") for line in lines) == 13
    assert '<Layer id="4" r_edges="0" n_bin_alpha="1" />' in lines
    assert '<Layer id="12" r_edges="0,100,200,400,1000,2000" n_bin_alpha="1" />' in lines


@given(
    st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=6, unique=True),
    st.integers(1, 20),
    st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True),
)
def test_round_trip_law(
    tmp_path_factory: pytest.TempPathFactory, widths: list[float], n_alpha: int, ids: list[int]
) -> None:
    edges = (0.0, *sorted(widths))
    layers = tuple(Layer.polar(number, n_alpha, edges) for number in sorted(ids))
    known = Geometry('a "quoted" <name>', 'e & "p"', 11, layers, 0.25, LAW)
    path = tmp_path_factory.getbasetemp() / "law.xml"
    write_binning(path, known)
    assert read_binning(path, name=known.name, threshold=0.25, incident=LAW) == known


@pytest.mark.parametrize("particle", [None, "electron"])
def test_an_unknown_particle_lists_those_of_the_file(particle: str | None, tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match=r"b\.xml: no particle.*photon, pion"):
        read_binning(save(tmp_path / "b.xml", PHOTONS), particle)


LAYER = '<Bins><Bin pid="22" name="photon">{}</Bin></Bins>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a binning"),
        ("no xml", "not a binning"),
        ("<Bins><Bin pid='22' name='photon'>", "not a binning"),
        ("<Bins/>", "the file has none"),
        ('<Bins><Bin pid="22"/></Bins>', "'name'"),
        ('<Bins><Bin name="photon"/></Bins>', "'pid'"),
        ('<Bins><Bin name="photon" pid="gamma"/></Bins>', "gamma"),
        (LAYER.format(""), "layers must be at least one"),
        (LAYER.format('<Layer id="0" r_edges="0" n_bin_alpha="1"/>'), "layers must be at least one"),
        (LAYER.format('<Layer id="0" r_edges="0,1"/>'), "n_bin_alpha"),
        (LAYER.format('<Layer id="0" n_bin_alpha="1"/>'), "r_edges"),
        (LAYER.format('<Layer r_edges="0,1" n_bin_alpha="1"/>'), "'id'"),
        (LAYER.format('<Layer id="0" r_edges="0,one" n_bin_alpha="1"/>'), "one"),
        (LAYER.format('<Layer id="0" r_edges="0,2,1" n_bin_alpha="1"/>'), "layer 0"),
        (LAYER.format('<Layer id="0" r_edges="0,1" n_bin_alpha="0"/>'), "n_bin_alpha must be at least 1"),
        (LAYER.format('<Layer id="0" r_edges="0,1" n_bin_alpha="1"/>' * 2), "different ids"),
        ('<!DOCTYPE Bins [<!ENTITY a "aaaa">]><Bins/>', "entity declarations are refused"),
    ],
)
def test_malformed_binnings(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match=rf"b\.xml.*{message}"):
        read_binning(save(tmp_path / "b.xml", text), name="x", threshold=0.0, incident=LAW)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"none\.xml"):
        read_binning(tmp_path / "none.xml")
    with pytest.raises(StorageError, match="cannot write"):
        write_binning(tmp_path / "none" / "b.xml", geometry("toy"))


@pytest.mark.parametrize("name", ["calogan", "getting-high"])
def test_rectangular_cells_have_no_binning(name: str, tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="polar cells with equal angles"):
        write_binning(tmp_path / "b.xml", geometry(name))
    assert not (tmp_path / "b.xml").exists()


def test_numbers_and_angles_that_a_binning_cannot_say(tmp_path: Path) -> None:
    toy = geometry("toy")
    with pytest.raises(GeometryError, match="increase from 0"):
        write_binning(tmp_path / "b.xml", dataclasses.replace(toy, layers=toy.layers[::-1]))
    skewed = Layer(0, "polar", (-math.pi, 0.5, math.pi), (0, 1))
    with pytest.raises(GeometryError, match="equal angles"):
        write_binning(tmp_path / "b.xml", dataclasses.replace(toy, layers=(skewed,)))
