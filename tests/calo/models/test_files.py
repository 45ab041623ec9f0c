"""Settings of models in TOML files."""

from __future__ import annotations

from pathlib import Path

import pytest

from nisampler.calo.detector.geometries import GEOMETRIES, geometry
from nisampler.calo.models import PRESETS, build_model, model_toml, preset, widened
from nisampler.calo.models.files import read_model
from nisampler.errors import ConfigError, CorruptFileError, StorageError

TOY = geometry("toy")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_written_and_read(name: str, tmp_path: Path) -> None:
    config = preset(name, GEOMETRIES[PRESETS[name].geometry or "toy"])
    (tmp_path / "my.toml").write_text(model_toml(config))
    assert read_model(tmp_path / "my.toml") == config
    assert read_model(tmp_path / "my.toml").to_dict() == config.to_dict()
    assert {getattr(flow, "unet", getattr(flow, "net", flow)).hidden for flow in widened(config, 24).flows} == {24}


def test_a_file_is_a_model(tmp_path: Path) -> None:
    text = model_toml(preset("small-matching", TOY)).replace("hidden = 384", "hidden = 40")
    (tmp_path / "my.toml").write_text(text)
    config = build_model(str(tmp_path / "my.toml"), TOY).config
    assert [flow["hidden"] for flow in config["flows"]] == [128, 40]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("epochs = 12", "epocs = 12", r"recipes\[1\]: .*unknown setting epocs"),
        ("hidden = 384", "hiden = 384", r"flows\[2\]: unknown setting hiden"),
        ("hidden = 384", "hidden = 0", r"flows\[2\]: hidden = 0: must be a whole number, at least 1"),
        ("gap = 1.0", "gapp = 1.0", r"unknown setting preprocessing.gapp"),
        ('family = "matching"', 'family = "match"', r'family = "match": must be "two-step" or'),
        ('family = "matching"', "family = [1]", r"family = \[1\]: must be"),
        ('family = "matching"', 'family = "two-step"', r"flows\[1\]:"),
        ("epochs = 12", "epochs =", "Invalid value"),
        ("[[recipes]]", "[[recipe]]", r"recipes is missing: give a table \[\[recipes\]\] for each"),
        ("[[flows]]", "[[flow]]", "flows is missing"),
        ("history = 5", "histories = 5", "unknown setting histories"),
    ],
)
def test_what_is_wrong_is_named(old: str, new: str, words: str, tmp_path: Path) -> None:
    text = model_toml(preset("small-matching", TOY))
    assert old in text
    (tmp_path / "my.toml").write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=rf"my\.toml: .*{words}.*; `nisampler calo models PRESET` prints one"):
        read_model(tmp_path / "my.toml")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        build_model(str(tmp_path / "none.toml"), TOY)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"bytes.toml: .*decode"):
        read_model(tmp_path / "bytes.toml")
    (tmp_path / "large.toml").write_bytes(b" " * (1 << 21))
    with pytest.raises(CorruptFileError, match="larger than 1 MiB"):
        read_model(tmp_path / "large.toml")
