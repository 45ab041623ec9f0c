"""The run card: a TOML file that says what to sample and how, checked key by key."""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from nisampler.base.checks import Threads, element, must_be, shown, words
from nisampler.base.rng import Seed
from nisampler.base.storage import read_bounded
from nisampler.errors import CardError, ConfigError, CorruptFileError, StorageError
from nisampler.integration.integrator import IntegrationConfig
from nisampler.run.sections import EventSettings, IntegrandSettings
from nisampler.training.config import TrainingConfig
from nisampler.unweighting.unweighter import UnweightingConfig

_MOST_BYTES = 64 << 10
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


class Card(BaseModel):
    """A checked run card; `load_card` makes it.

    Parameters
    ----------
    process
        One that `nisampler processes` lists, particles such as "p p > e+ ve j", or "file.py:object" or "module:object"
        for one of your own.
    seed
        The same card, seed and versions give the same bytes.
    device
        "cpu", "cuda", "cuda:1" ..., or "auto": a GPU where there is one.
    threads
        Threads of the CPU; the batches are small, so that more than one gain little.
    parameters
        Of the process.
    integrand, training, integration, unweighting, events
        The parts of a run.

    >>> Card(process="camel4").events.n
    10000
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    process: str
    seed: Seed = 1
    device: str = "auto"
    threads: Threads = 1
    parameters: dict[str, Any] = Field(default_factory=dict)
    integrand: IntegrandSettings = Field(default_factory=IntegrandSettings)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    integration: IntegrationConfig = Field(default_factory=IntegrationConfig)
    unweighting: UnweightingConfig = Field(default_factory=UnweightingConfig)
    events: EventSettings = Field(default_factory=EventSettings)
    _text: str = PrivateAttr(default="")
    _moved: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def text(self) -> str:
        """The TOML that it was read from, and below it what replaced its values; empty for a card made otherwise."""
        return self._text

    def moved(self, parameters: Mapping[str, str | list[str]], sets: Collection[str] = ()) -> Card:
        """The same card where files lie elsewhere; event files keep the names it was written with.

        Parameters
        ----------
        parameters
            Files and folders that parameters name: where they are.
        sets
            Names of sets of parton densities that are found by name, wherever the variations say that they are.

        Examples
        --------
        >>> card = Card(process="drell_yan", parameters={"pdf": "grids/toy"}).moved({"pdf": "/tmp/toy"})
        >>> card.parameters["pdf"], card.as_written("/tmp/toy")
        ('/tmp/toy', 'grids/toy')
        """
        asked = self.events.variations
        named = [(Path(entry).parent.name, entry) for entry in asked.pdfs]
        pdfs = tuple(f"{name}/{Path(entry).name}" if name in sets else entry for name, entry in named)
        events = replace(self.events, variations=replace(asked, pdfs=pdfs))
        other = self.model_copy(update={"parameters": self.parameters | dict(parameters), "events": events})
        places = {name: [place] if isinstance(place, str) else place for name, place in parameters.items()}
        before = {name: [old] if isinstance(old, str) else old for name, old in self.parameters.items()}
        other._moved = {new: old for name in places for new, old in zip(places[name], before[name], strict=True)}
        return other

    def as_written(self, value: Any) -> Any:
        """A value of a parameter as the card had it before it was `moved`."""
        if isinstance(value, list | tuple):
            return [self.as_written(item) for item in value]
        return self._moved.get(value, value) if isinstance(value, str) else value

    def model_post_init(self, context: Any, /) -> None:
        """Range checks of the keys at the top of the card; a ConfigError names the key."""
        if not self.process:
            raise ConfigError("process must name one; `nisampler processes` lists them")
        if _DEVICE.fullmatch(self.device) is None:
            raise ConfigError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {self.device!r}")


def parse_card(text: str, source: str = "card", overrides: Mapping[str, Any] | None = None) -> Card:
    """The card in a TOML text.

    Parameters
    ----------
    text
        TOML.
    source
        Its name in error messages.
    overrides
        Values that replace those of the card, by full path: ``{"events.n": 100}``.

    Raises
    ------
    CardError
        If the text is not TOML, a key is unknown or missing, or a value is of the wrong type or out of range.
        The message names every wrong key with its full path.

    Examples
    --------
    >>> parse_card('process = "camel4"', overrides={"events.n": 20}).events.n
    20
    >>> parse_card('proces = "camel4"')
    Traceback (most recent call last):
    nisampler.errors.CardError: card: ... unknown key proces = "camel4"; did you mean process? ...
    """
    try:
        data = tomllib.loads(text)
        json.dumps(data, default=str)
    except ValueError as error:  # numbers of thousands of digits are no TOMLDecodeError
        raise CardError(f"{source} is not valid TOML: {error}") from error
    except RecursionError as error:
        raise CardError(f"{source} has tables or lists in one another, hundreds deep: a card needs three") from error
    for path, value in (overrides or {}).items():
        *tables, key = path.split(".")
        target: Any = data
        for table in tables:
            target = target.setdefault(table, {}) if isinstance(target, dict) else None
        if isinstance(target, dict):
            target[key] = value
    problems = [f"{path} = {value!r}: {text}" for path, value, text in _unusable(data)]
    if problems:
        raise CardError(_listed(source, problems))
    try:
        card = Card.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise CardError(_listed(source, _problems(error, data))) from error
    except ConfigError as error:
        raise CardError(_listed(source, [_named((), error, data)])) from error
    replaced = [f"# instead: {path} = {json.dumps(value)}" for path, value in (overrides or {}).items()]
    card._text = "\n".join([text.rstrip("\n"), *replaced])
    return card


def load_card(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Card:
    """The card in a file; see `parse_card`.

    Raises
    ------
    CardError
        If the file cannot be read, or is wrong.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
    ...     file.write('process = "camel4"')
    ...     file.flush()
    ...     load_card(file.name, {"seed": 2}).seed
    18
    2
    """
    return parse_card(read_card_text(path), str(path), overrides)


def read_card_text(path: str | Path) -> str:
    """The text of a card; CardError if there is none, it is not UTF-8, or has more than 64 KiB.

    >>> read_card_text("missing.toml")
    Traceback (most recent call last):
    nisampler.errors.CardError: cannot read the card missing.toml: No such file or directory
    """
    try:
        return read_bounded(path, _MOST_BYTES, "a card").decode()
    except UnicodeDecodeError as error:
        raise CardError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except CorruptFileError as error:
        raise CardError(str(error)) from error
    except StorageError as error:
        raise CardError(
            f"cannot read the card {path}: {getattr(error.__cause__, 'strerror', None) or error}"
        ) from error


def allowed_keys(path: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The keys of the card, or of one of its tables.

    >>> allowed_keys(("events",))
    ('n', 'shard_size', 'formats', 'weights', 'compression_level', 'matching', 'variations')
    """
    owner = _hint(path)
    if owner is Card:
        return tuple(Card.model_fields)
    return tuple(item.name for item in fields(owner)) if is_dataclass(owner) else ()


def _listed(source: str, problems: list[str]) -> str:
    return f"{source}: {problems[0]}" if len(problems) == 1 else "\n  ".join([f"{source}:", *problems])


def _unusable(data: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any, str]]:
    """Values that TOML has and the card has no use for."""
    for key, value in data.items():
        full = f"{path}.{key}" if path else key
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                yield from _unusable(item, full)
            elif isinstance(item, float) and not math.isfinite(item):
                yield full, item, "must be finite"
            elif not isinstance(item, str | int | float | bool | list):
                yield full, str(item), "dates and times have no use in a card"


def _problems(error: ValidationError, data: Mapping[str, Any]) -> list[str]:
    """One line for each wrong key, in the order of the card's keys."""
    lines: dict[tuple[str | int, ...], str] = {}
    for item in error.errors():
        path = _path_in(item["loc"], data) if item["type"] != "missing" else item["loc"]
        if path in lines:
            continue
        if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            lines[path] = _unknown(path, item["input"])
        elif item["type"] == "missing":
            lines[path] = f"{_dotted(path)} is missing: it must be {words(_hint(path))}"
        elif "error" in item.get("ctx", {}):
            lines[path] = _named(path, item["ctx"]["error"], data)
        else:
            lines[path] = must_be(_dotted(path), item["input"], _hint(path))
    return list(lines.values())


def _path_in(location: tuple[str | int, ...], data: Any) -> tuple[str | int, ...]:
    """The part of an error's location that is a path in the card (unions add names of their own)."""
    path: list[str | int] = []
    for step in location:
        if isinstance(data, dict) and step in data:
            data = data[step]
        elif isinstance(data, list) and isinstance(step, int) and step < len(data):
            data = data[step]
        else:
            break
        path.append(step)
    return tuple(path)


def _dotted(path: tuple[str | int, ...]) -> str:
    text = ""
    for step in path:
        text += f"[{step + 1}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _unknown(path: tuple[str | int, ...], value: Any) -> str:
    """An unknown key, with the nearest known one and all that are allowed in its table."""
    table = tuple(str(step) for step in path[:-1])
    key, keys = str(path[-1]), allowed_keys(table)
    known = _nearest(table, key)
    hint = f"did you mean {_dotted(known)}? " if known else ""
    place = f"[{_dotted(table)}]" if table else "the top of the card"
    return f"unknown key {_dotted(path)} = {shown(value)}; {hint}Allowed in {place}: {', '.join(keys)}"


def _nearest(table: tuple[str, ...], key: str) -> tuple[str, ...]:
    """The path of the key that an unknown one most likely stands for; empty if there is none."""
    tables = list(_tables())
    inside = [path for path in tables if path[: len(table)] == table and path != table]
    near = [
        (*path, match) for path in (table, *inside) for match in difflib.get_close_matches(key, allowed_keys(path), n=1)
    ]
    exact = [[(*path, key) for path in homes if key in allowed_keys(path)] for homes in (inside, tables)]
    return next(iter([*exact[0], *near, *exact[1]]), ())


def _tables(path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all tables of the card that have keys of their own, outer ones first."""
    yield path
    for key in allowed_keys(path):
        if allowed_keys((*path, key)):
            yield from _tables((*path, key))


def _named(path: tuple[str | int, ...], error: Exception, data: Mapping[str, Any]) -> str:
    """A range error of a section, with the full paths of the keys that its message names."""
    table: Any = data
    for step in path:
        table = table[step]
    keys = allowed_keys(tuple(str(step) for step in path))
    words = re.findall(r"[A-Za-z_]\w*", str(error))
    given = table if isinstance(table, dict) else {}
    named = [key for key in dict.fromkeys(words) if key in keys and not isinstance(given.get(key, {}), dict)]
    if not named:
        return f"[{_dotted(path)}]: {error}" if path else str(error)
    return ", ".join(f"{_dotted((*path, key))} = {shown(table[key])}" for key in named) + f": {error}"


def _hint(path: tuple[str | int, ...]) -> Any:
    """The type of what stands at `path`; a table that may be left out is the table."""
    hint: Any = Card
    for step in path:
        if isinstance(step, int):
            hint = element(hint)
        elif hint is Card or is_dataclass(hint):
            hint = get_type_hints(hint, include_extras=True)[step]
        hint = next((part for part in get_args(hint) if isinstance(part, type) and is_dataclass(part)), hint)
    return hint
