"""The HTML of a report: one file, no scripts, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
<h2>Figures of the run</h2>
<div class="plots">
$run_plots
</div>
$distributions
<h2>Numbers</h2>
<div class="tables">
$tables
</div>
</main>
</body>
</html>
""")


def card(name: str, value: str, note: str = "") -> str:
    """A headline number."""
    parts = [("name", name), ("value", value), ("note", note)]
    inner = "".join(f'<div class="{kind}">{escape(text)}</div>' for kind, text in parts if text)
    return f'<div class="card">{inner}</div>'


def plot(uri: str, name: str, caption: str) -> str:
    """A figure from a data URI."""
    image = f'<img src="{escape(uri)}" alt="{escape(name)}">'
    return f'<figure id="{escape(name)}">{image}<figcaption>{escape(caption)}</figcaption></figure>'


def table(caption: str, rows: Iterable[tuple[str, str]]) -> str:
    """A table of names and values."""
    body = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows)
    return f'<div class="table"><table><caption>{escape(caption)}</caption>{body}</table></div>'


def warnings(lines: Sequence[str]) -> str:
    """A box with the warnings of the run, or nothing."""
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<h2>Warnings</h2><div class="warn"><ul>{items}</ul></div>'


def page(
    title: str,
    subtitle: str,
    cards: Sequence[str],
    warning_box: str,
    run_plots: Sequence[str],
    distributions: Sequence[str],
    tables: Sequence[str],
) -> str:
    """The whole page; everything but the title and subtitle is HTML made by the functions of this module."""
    section = ""
    if distributions:
        body = "\n".join(distributions)
        section = f'<h2>Distributions: weighted against unweighted</h2>\n<div class="plots">\n{body}\n</div>'
    return _PAGE.substitute(
        title=escape(title),
        subtitle=escape(subtitle),
        cards="\n".join(cards),
        warnings=warning_box,
        run_plots="\n".join(run_plots),
        distributions=section,
        tables="\n".join(tables),
    )
