"""What pages take from the code: keys of cards, commands, extras; and how docstrings are read."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable
from typing import Any

import click
import typer
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from nisampler.base.extras import EXTRAS
from nisampler.cli import app as commands
from nisampler.run.advice.keys import Key, all_parameters, card_keys
from nisampler.run.lookup import available

# Code and doctests stay; elsewhere docstrings are plain words, in which * | and _ mark nothing up: |w|, x*, p_.
_MARKS = re.compile(r"(^[ ]*>>>.*?(?:\n[ ]*\n|\Z)|``.*?``|`[^`]*`)|(?<=\w)_(?!\w)|[*|]", re.MULTILINE | re.DOTALL)
# A table of Markdown stands in a page; a picture in a docstring of vegas is not here.
_ELSEWHERE = re.compile(r"^\|.*|^[ ]*\.\. image::.*(?:\n[ ]+:.*)*", re.MULTILINE)


def plain_words(_app: Sphinx, _what: str, _name: str, _found: object, _options: object, lines: list[str]) -> None:
    """Keep marks in docstrings what they are."""
    rows = _ELSEWHERE.sub("", "\n".join(lines))
    lines[:] = _MARKS.sub(lambda found: found[1] or f"\\{found[0]}", rows).split("\n")


def text(words: str) -> list[nodes.Node]:
    """Words with `code` in backticks."""
    parts = re.split(r"`([^`]+)`", words)
    return [nodes.literal(text=part) if number % 2 else nodes.Text(part) for number, part in enumerate(parts) if part]


def table(header: Iterable[str], rows: Iterable[Iterable[str]], widths: tuple[int, ...]) -> nodes.table:
    """A table whose first column is code."""
    group = nodes.tgroup(cols=len(widths))
    group += [nodes.colspec(colwidth=width) for width in widths]
    head, body = nodes.thead(), nodes.tbody()
    head += line(nodes.paragraph("", "", *text(word)) for word in header)
    for first, *others in rows:
        shown = [
            nodes.paragraph("", "", nodes.literal(text=first)),
            *(nodes.paragraph("", "", *text(o)) for o in others),
        ]
        body += line(shown)
    group += [head, body]
    return nodes.table("", group, classes=["generated"])


def line(cells: Iterable[nodes.Node]) -> nodes.row:
    """A row of these cells."""
    return nodes.row("", *(nodes.entry("", cell) for cell in cells))


class Described(SphinxDirective):
    """A directive that makes sections, each with an anchor."""

    def section(self, title: str, *content: nodes.Node) -> nodes.section:
        """A section whose heading is code."""
        made = nodes.section("", nodes.title("", "", nodes.literal(text=title)), *content)
        made["names"].append(nodes.fully_normalize_name(title))
        self.state.document.note_implicit_target(made, made)
        return made


class CardKeys(Described):
    """All keys of a card by their tables."""

    def run(self) -> list[nodes.Node]:
        """Sections with a table each."""
        keys = [key for key in card_keys() if not key.is_table]
        tables = dict.fromkeys(".".join(key.path[:-1]) for key in keys)
        return [
            self.section(
                f"[{name}]" if name else "at the top", key_table([k for k in keys if ".".join(k.path[:-1]) == name])
            )
            for name in tables
        ]


class ProcessKeys(Described):
    """The parameters of all processes."""

    def run(self) -> list[nodes.Node]:
        """A table of all parameters, with the processes that take them."""
        return [key_table(all_parameters(), of=True)]


def key_table(keys: Iterable[Key], of: bool = False) -> nodes.table:
    """A table of keys."""
    rows = (
        [
            key.path[-1],
            f"`{key.default}`" if key.default else "",
            key.setting.allowed,
            key.meaning,
            *of * [", ".join(key.processes)],
        ]
        for key in keys
    )
    return table(["key", "default", "type", "meaning", *of * ["of"]], rows, (15, 12, 25, 48, *of * [15]))


class CommandLine(Described):
    """All commands with their arguments and options."""

    def run(self) -> list[nodes.Node]:
        """A section for each command."""
        root = typer.main.get_command(commands)
        return list(self.sections(root, "nisampler", click.Context(root)))

    def sections(self, group: Any, name: str, context: click.Context) -> Iterable[nodes.section]:
        """Those of the commands of a group, and of the groups in it."""
        for word in group.list_commands(context):
            found = group.get_command(context, word)
            if hasattr(found, "list_commands"):
                yield from self.sections(found, f"{name} {word}", click.Context(found))
                continue
            usage = " ".join(found.collect_usage_pieces(click.Context(found))).translate(
                {ord("{"): None, ord("}"): None}
            )
            shown = [
                nodes.paragraph("", "", *text(found.help or "")),
                nodes.literal_block(text=f"{name} {word} {usage}"),
            ]
            shown[1]["language"] = "text"
            records = [p.get_help_record(click.Context(found)) for p in found.params if not getattr(p, "hidden", False)]
            rows = [(first, what) for first, what in filter(None, records)]
            yield self.section(
                f"{name} {word}", *shown, *([table(["option", "meaning"], rows, (30, 70))] if rows else [])
            )


class Extras(SphinxDirective):
    """What can be installed besides."""

    def run(self) -> list[nodes.Node]:
        """A table."""
        return [table(["extra", "for"], ((f"[{name}]", what) for name, what in EXTRAS.items()), (15, 85))]


class Processes(SphinxDirective):
    """The processes that have a name."""

    def run(self) -> list[nodes.Node]:
        """A table."""
        return [table(["process", "what"], sorted(available().items()), (25, 75))]


class Docstring(SphinxDirective):
    """What a module says of itself, where that is Markdown."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Its docstring, without the first line."""
        words = inspect.getdoc(importlib.import_module(self.arguments[0])) or ""
        return self.parse_text_to_nodes(words.partition("\n\n")[2])


def formula(translator: Any, node: nodes.math) -> None:
    """A formula as MathML, which browsers draw without a script from elsewhere."""
    translator.body.append(tex2mathml(node.astext(), as_block=isinstance(node, nodes.math_block)))
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", plain_words, priority=100)
    app.add_html_math_renderer("mathml", (formula, None), (formula, None))
    for name, made in (
        ("card-keys", CardKeys),
        ("process-keys", ProcessKeys),
        ("command-line", CommandLine),
        ("docstring", Docstring),
        ("extras", Extras),
        ("processes", Processes),
    ):
        app.add_directive(name, made)
    return {"parallel_read_safe": True}
