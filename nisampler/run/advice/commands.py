"""The commands `new`, `card`, `processes` and `doctor`: what people ask before a run."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from nisampler.errors import NisamplerError
from nisampler.ui.console import FAILED, errors, show, table

if TYPE_CHECKING:
    from nisampler.run.advice.keys import Key

_WIDTH, _SHORT = 100, 40

app = typer.Typer()


def complete_process(incomplete: str) -> list[str]:
    """Names of processes that begin so, for the completion of a shell.

    >>> complete_process("came")
    ['camel']
    """
    from nisampler.run.lookup import available

    with suppress(NisamplerError):
        return [name for name in available() if name.startswith(incomplete)]
    return []


def complete_key(incomplete: str) -> list[str]:
    """Keys of a card that begin so, for the completion of a shell; parameters of processes by their full path.

    >>> complete_key("training.tree.")
    ['training.tree.on', 'training.tree.leaves']
    """
    from nisampler.run.advice.keys import PARAMETERS, all_parameters, card_keys

    with suppress(NisamplerError):
        parameters = all_parameters() if incomplete.startswith(PARAMETERS) else []  # it imports all processes
        names = dict.fromkeys(map(str, [*card_keys(), *parameters]))
        return [name for name in names if name.startswith(incomplete)]
    return []


@app.command()
def processes(context: typer.Context) -> None:
    """List the processes that a card can name."""
    with errors(context):
        from nisampler.run.advice.keys import PARTICLES
        from nisampler.run.lookup import available

        own = [(f'"{PARTICLES}"', "any particles"), ("module:object", "your own callable with an attribute dim")]
        show([*sorted(available().items()), *own])


@app.command()
def new(
    context: typer.Context,
    process: Annotated[
        str,
        typer.Argument(
            metavar="PROCESS",
            help='One that `processes` lists, particles such as "p p > t t~ j", or file.py:object, whose code is run.',
            autocompletion=complete_process,
        ),
    ],
) -> None:
    """Print a card of a process with every key, its default and what it means: nisampler new z_jets > card.toml."""
    with errors(context):
        from nisampler.run.advice.cards import card_text
        from nisampler.run.lookup import sources

        for file in sources(process, {}) if ">" not in process else ():
            typer.echo(f"runs code from {file}", err=True)
        typer.echo(card_text(process), nl=False)


@app.command()
def card(
    context: typer.Context,
    key: Annotated[
        str | None,
        typer.Argument(metavar="[KEY]", help="Such as training.flow.batch, or its end.", autocompletion=complete_key),
    ] = None,
    process: Annotated[
        str | None,
        typer.Option("--process", "-p", help="Take the parameters of this process.", autocompletion=complete_process),
    ] = None,
) -> None:
    """Say what a key of a card means, its type, limits and default; without a key, list all."""
    with errors(context):
        from nisampler.run.advice.keys import card_keys, find, inside, parameter_keys

        if key is None:
            parameters = [] if process is None else parameter_keys(process)
            table(list(_lines([*card_keys(), *parameters])))
            return
        for number, found in enumerate(find(key, process)):
            if number:
                typer.echo()
            show(list(_story(found)))
            if found.is_table:
                typer.echo()
                table(list(_lines(inside(found, process))))


@app.command()
def doctor(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what is installed, what is missing and how to mend it: packages, extras, kernels, GPU, caches, densities."""
    with errors(context):
        from nisampler.run.advice.doctor import as_data, examined, is_healthy, rows

        found = examined()
        if as_json:
            typer.echo(json.dumps(as_data(found), indent=2, ensure_ascii=False))
        else:
            table(list(rows(found)))
        if not is_healthy(found):
            raise typer.Exit(FAILED)


def _story(key: Key) -> Iterator[tuple[str, str]]:
    """All that is known of a key."""
    yield from _wrapped("key", str(key))
    yield from _wrapped("type", key.setting.allowed)
    if not key.is_table:
        yield from _wrapped("default", _default(key))
    yield from _wrapped("meaning", key.meaning)
    yield from _wrapped("of", ", ".join(key.processes))


def _wrapped(name: str, text: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(textwrap.wrap(text, _WIDTH, break_long_words=False)):
        yield "" if number else name, line


def _lines(keys: Sequence[Key]) -> Iterator[list[str]]:
    """A line for each key: name, default, type and the beginning of what it means."""
    yield ["key", "default", "type", "meaning"]
    for key in keys:
        name = f"[{key}]" if key.is_table else str(key)
        default = "" if key.is_table else _default(key)
        first = key.meaning.partition(". ")[0].rstrip(".")
        yield [
            name,
            *(_shortened(text, _SHORT) for text in (default, key.setting.allowed)),
            _shortened(first, 2 * _SHORT),
        ]


def _default(key: Key) -> str:
    return key.default or ("needed" if key.setting.needed else "none")


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
