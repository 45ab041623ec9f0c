"""Settings of shower models in TOML files: read, written, and widened."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

from nisampler.base.checks import from_data, must_be
from nisampler.base.storage import read_bounded
from nisampler.calo.models.config import FAMILIES, AnyFlow, FlowConfig, ModelConfig
from nisampler.calo.recipe import Recipe
from nisampler.errors import ConfigError
from nisampler.flows import ConvCouplingConfig

_MOST_BYTES = 1 << 20


def read_model(path: str | Path) -> ModelConfig:
    """The settings of a TOML file, as `model_toml` writes it; what has a default may be left out.

    Raises
    ------
    ConfigError
        If it is not TOML, or a setting is unknown, missing or wrong; the message names the file and the setting.
    StorageError, CorruptFileError
        If the file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models.presets.catalogue import preset
    >>> config = preset("small-matching", geometry("toy"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "my.toml").write_text(model_toml(config))
    ...     read_model(f"{folder}/my.toml") == config
    True
    """
    content = read_bounded(path, _MOST_BYTES, "the settings of a model")
    try:
        data = tomllib.loads(content.decode())
        for name in ("flows", "recipes"):
            if not _rows(data.get(name)):
                raise ConfigError(f"{name} is missing: give a table [[{name}]] for each")
        kinds = FAMILIES.get(str(data.get("family")))
        if kinds is None:
            raise ConfigError(must_be("family", data.get("family"), Literal[tuple(FAMILIES)]))
        for number, (flow, known) in enumerate(zip(data["flows"], kinds, strict=False), 1):
            _named(f"flows[{number}]", _fitting(known, flow), flow)
        for number, recipe in enumerate(data["recipes"], 1):
            _named(f"recipes[{number}]", Recipe, recipe)
        return from_data(ModelConfig, data)
    except (ConfigError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        advice = "`nisampler calo models PRESET` prints one to begin with"
        raise ConfigError(f"{path}: {error}; {advice}") from error


def _rows(found: Any) -> bool:
    """Whether something is a list of tables."""
    return isinstance(found, list) and bool(found) and all(isinstance(item, dict) for item in found)


def _named(place: str, owner: type, data: Mapping[str, Any]) -> None:
    """ConfigError with its place unless the data are such settings."""
    try:
        from_data(owner, dict(data))
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error


def _fitting(kind: type | tuple[type, ...], flow: Mapping[str, Any]) -> type:
    """Of the classes that a flow may have, the one with most of its settings."""
    options = kind if isinstance(kind, tuple) else (kind,)
    return max(options, key=lambda option: len({field.name for field in fields(option)} & flow.keys()))


def model_toml(config: ModelConfig) -> str:
    """Settings as the text of a TOML file that `read_model` reads.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models.presets.catalogue import preset
    >>> print(model_toml(preset("small", geometry("toy")))[:21])
    family = "two-step"
    s
    """
    return "\n".join(_lines(config.to_dict(), "")) + "\n"


def _lines(data: Mapping[str, Any], place: str) -> Iterator[str]:
    """The lines of a table: its values, then its tables; what is None stays out, as that is its default."""
    tables = {name: value for name, value in data.items() if isinstance(value, dict)}
    rows = {name: value for name, value in data.items() if _rows(value)}
    for name, value in data.items():
        if value is not None and name not in tables and name not in rows:
            yield f"{name} = {json.dumps(value)}"
    for name, table in tables.items():
        yield from ("", f"[{place}{name}]", *_lines(table, f"{place}{name}."))
    for name, items in rows.items():
        for item in items:
            yield from ("", f"[[{place}{name}]]", *_lines(item, f"{place}{name}."))


def widened(config: ModelConfig, hidden: int) -> ModelConfig:
    """The same settings with networks of another width, `hidden`, in all flows.

    Raises
    ------
    ConfigError
        If a network cannot have it.

    Examples
    --------
    >>> from nisampler.calo.detector.geometries import geometry
    >>> from nisampler.calo.models.presets.catalogue import preset
    >>> widened(preset("small", geometry("toy")), 32).plain_flows[1].net.hidden
    32
    """
    return replace(config, flows=tuple(_widened(flow, hidden) for flow in config.flows))


def _widened(flow: AnyFlow, hidden: int) -> AnyFlow:
    if isinstance(flow, FlowConfig):
        return replace(flow, net=replace(flow.net, hidden=hidden))
    if isinstance(flow, ConvCouplingConfig):
        return replace(flow, unet=replace(flow.unet, hidden=hidden))
    return replace(flow, hidden=hidden)
