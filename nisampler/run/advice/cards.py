"""A commented card of any process, with every key that it may have, written from what its classes say of themselves."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence

from nisampler.base.described import Setting
from nisampler.errors import command
from nisampler.run.advice.keys import PARAMETERS, Key, card_keys, inside, parameter_keys, toml
from nisampler.run.lookup import available

_WIDTH, _VALUE = 120, 27
_HEAD = """Every key stands here with its default. One behind a "#" has none that could be written: leave it out, or
take the sign away and give it a value. `nisampler card KEY` says what a key means."""


def card_text(process: str) -> str:
    """A card of a process with all keys, their defaults, and what they mean.

    Parameters
    ----------
    process
        A registered name, particles such as "p p > t t~ j", or code of one's own, which is run.

    Raises
    ------
    UnknownProcessError, ProcessError
        As `nisampler.run.lookup.parameters_of` does.

    Examples
    --------
    >>> from nisampler.run.card import parse_card
    >>> text = card_text("camel4")
    >>> parse_card(text).parameters, "# batch =" in text
    ({'sigma': 0.2}, True)
    """
    parameters = parameter_keys(process)
    folder = re.sub(r"[^A-Za-z0-9]+", "_", process.rpartition(":")[2]).strip("_")
    advised = command("run", "card.toml", "--output", f"runs/{folder}")
    head = f"{available().get(process, process)}\n\n  {advised}\n\n{_HEAD}"
    lines = [f"# {line}".rstrip() for line in head.splitlines()] + [""]
    tables: list[Key] = []
    for key in [key for key in card_keys() if len(key.path) == 1]:
        if key.is_table:
            tables.append(key)
        else:
            lines += _key(key.setting, toml(process) if key.setting.needed else key.default)
    for table in tables:
        lines += _parameters(parameters) if table.path == (PARAMETERS,) else _table(table)
    return "\n".join(lines) + "\n"


def _parameters(keys: Sequence[Key]) -> Iterator[str]:
    if keys:
        yield from ("", f"[{PARAMETERS}]")
        yield from _keys(keys)


def _table(table: Key, sign: str = "") -> Iterator[str]:
    """A table and those inside of it; one that is not there by default as a comment."""
    sign = "# " if table.setting.default is None else sign
    keys = inside(table)
    yield from ("", *_comment(f"{table.meaning}."), f"{sign}[{table}]")
    yield from _keys([key for key in keys if not key.is_table], sign)
    for key in keys:
        if key.is_table:
            yield from _table(key, sign)


def _keys(keys: Sequence[Key], sign: str = "") -> Iterator[str]:
    """Keys with what they mean; once where the same text is about several in a row."""
    before: tuple[str, ...] = ()
    for key in keys:
        said = key.setting.others == before and bool(key.setting.text)
        yield from _key(key.setting, key.default, sign, said)
        before = key.setting.others


def _key(setting: Setting, value: str, sign: str = "", said: bool = False) -> Iterator[str]:
    """A key with its type and, unless it was `said`, above it what it means."""
    if setting.text and not said:
        yield from _comment(setting.text)
    needed = setting.needed and not value
    line = f"{sign if value or needed else '# '}{setting.name} = {value}"
    notes = [setting.allowed] * (setting.plain is not str) + ["needed"] * needed
    yield f"{line:<{_VALUE}} # {', '.join(notes)}" if notes else line


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False)
