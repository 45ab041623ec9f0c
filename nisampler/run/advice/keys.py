"""The keys of a card, with types, defaults and advice, taken from the classes that read them."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

from nisampler.base.described import Setting, described, summary
from nisampler.errors import CardError
from nisampler.run.card import Card
from nisampler.run.lookup import available, parameters_of

PARTICLES = "p p > e+ ve j"
"""A process string; all of them have the same parameters."""
PARAMETERS = "parameters"
_NEAREST = 4


@dataclass(frozen=True)
class Key:
    """A key of a card.

    Attributes
    ----------
    path
        Tables and name.
    setting
        What it is.
    processes
        Of a parameter: the processes that take it.

    Examples
    --------
    >>> print(card_keys()[1])
    seed
    """

    path: tuple[str, ...]
    setting: Setting
    processes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ".".join(self.path)

    @property
    def is_table(self) -> bool:
        """Whether it holds other keys."""
        return is_dataclass(self.setting.plain) or self.path == (PARAMETERS,)

    @property
    def meaning(self) -> str:
        """What it is for: of a table, what its class is."""
        return summary(self.setting.plain) if is_dataclass(self.setting.plain) else self.setting.text

    @property
    def default(self) -> str:
        """Its default as TOML has it; "" for one that TOML has no word for."""
        value = self.setting.default
        return "" if self.setting.needed or self.is_table else toml(value)


def toml(value: Any) -> str:
    """A value as TOML, "" for what it has no word for, or a card does not take: None, infinity.

    >>> toml(500_000), toml(1e-3), toml(("lhe.gz",)), toml(True), toml(math.inf), toml(None)
    ('500_000', '0.001', '["lhe.gz"]', 'true', '', '')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:_}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else ""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple | list):
        items = [toml(item) for item in value]
        return f"[{', '.join(items)}]" if all(items) else ""
    return ""


def card_keys(owner: Any = Card, path: tuple[str, ...] = ()) -> list[Key]:
    """All keys of a card but the parameters of processes, tables before what they hold.

    >>> [str(key) for key in card_keys()][:3]
    ['process', 'seed', 'device']
    """
    found = []
    for setting in described(owner):
        if setting.plain is not None:
            key = Key((*path, setting.name), setting)
            inside = card_keys(setting.plain, key.path) if is_dataclass(setting.plain) else []
            found += [key, *inside]
    return found


def parameter_keys(process: str) -> list[Key]:
    """The parameters of a process that a card can give; raises as `nisampler.run.lookup.parameters_of` does.

    >>> print(*parameter_keys("camel"))
    parameters.dim parameters.sigma
    """
    found = [item for item in parameters_of(process) if item.plain is not None]
    return [Key((PARAMETERS, item.name), item, (process,)) for item in found]


def all_parameters() -> list[Key]:
    """The parameters of all registered processes and of process strings, those that agree as one.

    >>> any("w_plus_jets" in key.processes for key in all_parameters())
    True
    """
    found: dict[tuple[str, ...], Key] = {}
    for process in [*available(), PARTICLES]:
        for key in parameter_keys(process):
            kind = (str(key), key.setting.allowed, key.default, key.setting.text)
            before = found.get(kind, key)
            found[kind] = replace(key, processes=tuple(dict.fromkeys((*before.processes, process))))
    return list(found.values())


def find(name: str, process: str | None = None) -> list[Key]:
    """The keys that a name means: by their path, or by its end.

    Parameters
    ----------
    name
        Such as ``training.flow.batch``, ``flow.batch`` or ``batch``.
    process
        Take parameters of this process alone.

    Returns
    -------
    list of Key
        Several where the end of a path is that of many, or processes differ in it.

    Raises
    ------
    CardError
        If there is none; the nearest ones are named.

    Examples
    --------
    >>> print(*find("flow.batch"))
    training.flow.batch
    >>> find("flow.bacth")
    Traceback (most recent call last):
    nisampler.errors.CardError: no key flow.bacth in a card; the nearest: training.flow.batch...
    """
    keys = [*card_keys(), *(all_parameters() if process is None else parameter_keys(process))]
    wanted = tuple(name.split("."))
    exact = [key for key in keys if key.path == wanted]
    found = exact or [key for key in keys if key.path[-len(wanted) :] == wanted]
    if not found:
        near = ", ".join(_nearest(name, keys))
        whose = f" of {process}" if process else ""
        mend = f"the nearest: {near}" if near else "`nisampler card` lists all"
        raise CardError(f"no key {name} in a card{whose}; {mend}")
    return found


def inside(key: Key, process: str | None = None) -> list[Key]:
    """The keys that stand in a table.

    >>> print(*inside(find("training.tree")[0]))
    training.tree.on training.tree.leaves
    """
    if key.path == (PARAMETERS,):
        return all_parameters() if process is None else parameter_keys(process)
    return [other for other in card_keys() if other.path[:-1] == key.path]


def _nearest(name: str, keys: Iterable[Key]) -> Iterator[str]:
    """Full paths of the keys whose path, or its end, is most like a name."""
    ends: dict[str, str] = {}
    for key in keys:
        for start in range(len(key.path)):
            ends.setdefault(".".join(key.path[start:]), str(key))
    near = difflib.get_close_matches(name, ends, n=_NEAREST)
    last = difflib.get_close_matches(name.rpartition(".")[2], ends, n=_NEAREST)
    yield from list(dict.fromkeys(ends[end] for end in [*near, *last]))[:_NEAREST]
