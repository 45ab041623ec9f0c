"""The page of a report: headline numbers, figures in sections, tables; one file, no scripts, nothing loaded."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from string import Template

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { --ink: #22303c; --soft: #5c6b78; --line: #dfe5ea; --accent: #1f5fa6; --paper: #ffffff; --ground: #f4f6f8; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 17px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 2rem; margin: 0 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 40px 0 12px; }
.sub { color: var(--soft); margin: 0 0 24px; overflow-wrap: anywhere; }
.cards { display: grid; gap: 14px; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); }
.card, figure, .table, .warn { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; }
.card { padding: 14px 18px; }
.card .name { color: var(--soft); font-size: .92rem; }
.card .value { font-size: 1.4rem; font-weight: 650; line-height: 1.25; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
.card .note { color: var(--soft); font-size: .92rem; }
.plots { display: grid; gap: 18px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); }
figure { margin: 0; padding: 14px; }
.wide { grid-column: 1 / -1; }
figure img { width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: .95rem; padding: 8px 4px 2px; }
.tables { display: grid; gap: 18px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr));
  align-items: start; }
.table { overflow-x: auto; padding: 6px 16px 10px; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; font-weight: 650; padding: 8px 0; }
td { padding: 6px 0; border-top: 1px solid var(--line); vertical-align: top; }
td + td { text-align: right; padding-left: 14px; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.warn { border-left: 5px solid #d1495b; padding: 4px 18px; }
.none { color: var(--soft); }
</style>
</head>
<body>
<main>
<h1>$title</h1>
<p class="sub">$subtitle</p>
<div class="cards">
$cards
</div>
$warnings
$sections
<h2>Numbers</h2>
<div class="tables">
$tables
</div>
</main>
</body>
</html>
""")


@dataclass(frozen=True)
class Card:
    """A headline number with its name and a note.

    >>> Card("integral", "1.02(1)").html()
    '<div class="card"><div class="name">integral</div><div class="value">1.02(1)</div></div>'
    """

    name: str
    value: str
    note: str = ""

    def html(self) -> str:
        """As a part of a page."""
        parts = [("name", self.name), ("value", self.value), ("note", self.note)]
        inner = "".join(f'<div class="{kind}">{escape(text)}</div>' for kind, text in parts if text)
        return f'<div class="card">{inner}</div>'


@dataclass(frozen=True)
class Picture:
    """A figure, drawn as SVG, with its name and caption.

    >>> Picture("weights", "Weights f/q.", b"<svg/>").html()[:57]
    '<figure id="weights"><img src="data:image/svg+xml;base64,'
    """

    name: str
    caption: str
    svg: bytes
    wide: bool = False

    def html(self) -> str:
        """As a part of a page."""
        image = f'<img src="data:image/svg+xml;base64,{base64.b64encode(self.svg).decode()}" alt="{escape(self.name)}">'
        kind = ' class="wide"' if self.wide else ""
        return f'<figure id="{escape(self.name)}"{kind}>{image}<figcaption>{escape(self.caption)}</figcaption></figure>'


@dataclass(frozen=True)
class Table:
    """Rows of cells, the first of each row being its name; tables of many columns take the whole width.

    With `inline` it brings the little style that it needs where there is no page around it, as in a notebook.

    >>> Table("Calls", [("training", "100")]).html()
    '<div class="table"><table><caption>Calls</caption><tr><td>training</td><td>100</td></tr></table></div>'
    """

    caption: str
    rows: Sequence[Sequence[str]]
    inline: bool = False

    def html(self) -> str:
        """As a part of a page."""
        look = ' style="text-align: left"' if self.inline else ""
        body = "".join(f"<tr>{''.join(f'<td{look}>{escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows)
        kind = "table wide" if any(len(row) > 2 for row in self.rows) else "table"
        return f'<div class="{kind}"><table><caption{look}>{escape(self.caption)}</caption>{body}</table></div>'


@dataclass(frozen=True)
class Page:
    """A report.

    Parameters
    ----------
    title, subtitle
        Plain text, as everything else.
    cards, tables
        Headline numbers, and what stands at the end.
    warnings
        Shown in a box.
    sections
        Figures by the heading of their section; sections without figures are left out.

    Examples
    --------
    >>> page = Page("a run", "seed 1", [Card("integral", "1.02(1)")], warnings=["few points"])
    >>> "<li>few points</li>" in page.html()
    True
    """

    title: str
    subtitle: str
    cards: Sequence[Card] = ()
    tables: Sequence[Table] = ()
    warnings: Sequence[str] = ()
    sections: Mapping[str, Sequence[Picture]] = field(default_factory=dict)

    @property
    def pictures(self) -> Iterator[Picture]:
        """All figures in their order."""
        for pictures in self.sections.values():
            yield from pictures

    def html(self) -> str:
        """The page as one file."""
        items = "".join(f"<li>{escape(line)}</li>" for line in self.warnings)
        return _PAGE.substitute(
            title=escape(self.title),
            subtitle=escape(self.subtitle),
            cards="\n".join(card.html() for card in self.cards),
            warnings=f'<h2>Warnings</h2><div class="warn"><ul>{items}</ul></div>' if items else "",
            sections="\n".join(_section(name, pictures) for name, pictures in self.sections.items() if pictures),
            tables="\n".join(table.html() for table in self.tables),
        )


def _section(name: str, pictures: Sequence[Picture]) -> str:
    body = "\n".join(picture.html() for picture in pictures)
    return f'<h2>{escape(name)}</h2>\n<div class="plots">\n{body}\n</div>'
