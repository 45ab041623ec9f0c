"""The documentation: every block of code runs or is read, every command exists, and the pages link to what is there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import matplotlib as mpl
import pytest
import typer
from matplotlib import pyplot as plt

from nisampler.base.checks import from_data
from nisampler.calo.detector.description import Description
from nisampler.cli import app
from nisampler.run.card import parse_card

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = {
    str(path.relative_to(DOCS)): path.read_text() for path in sorted(DOCS.rglob("*.md")) if "build" not in path.parts
}
SHELL = "(?:bash|sh)"


def blocks(language: str, page: str) -> list[str]:
    found = re.findall(rf"^([ ]*)```{language}\n(.*?)^[ ]*```", PAGES[page], re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for _, block in found]


def with_blocks(language: str) -> list[str]:
    return [page for page in PAGES if blocks(language, page)]


# Blocks


@pytest.mark.parametrize("page", with_blocks("python"))
def test_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page, one after the other, where examples/ is."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks("python", page):
        exec(compile(block, page, "exec"), names)
    plt.close("all")


@pytest.mark.parametrize("page", with_blocks("toml"))
def test_cards_are_read(page: str) -> None:
    """Calorimeters have incident energies; what has no process either is part of a card."""
    for block in blocks("toml", page):
        given = tomllib.loads(block)
        if "incident" in given:
            from_data(Description, given)
            continue
        parse_card(block if "process" in given else f'process = "drell_yan"\n{block}')


@pytest.mark.parametrize("page", with_blocks(SHELL))
def test_commands_exist(page: str) -> None:
    root = typer.main.get_command(app)
    for block in blocks(SHELL, page):
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, done.stderr
        assert wrong(block, root) == []


def wrong(block: str, root: object) -> list[str]:
    """Commands and options of the command line, and files of the clone, that a block names and that do not exist."""
    found = []
    for line in block.replace("\\\n", " ").splitlines():
        words = line.partition("#")[0].split()
        starts = [number for number, word in enumerate(words) if word == "nisampler" or word.endswith("bin/nisampler")]
        for start in starts:
            found += list(unknown(words[start + 1 :], root))
        names = [word for word in words if re.match(r"(examples|benchmarks|docs)/\w", word) and "build" not in word]
        found += [name for name in names if not (ROOT / name.partition(":")[0]).exists()]
    return found


def unknown(words: list[str], group: object) -> Iterator[str]:
    """What a command does not know of these words."""
    command = group
    while words and hasattr(command, "commands"):
        word = words.pop(0)
        found = command.get_command(typer.Context(command), word)  # type: ignore[attr-defined, arg-type]
        if found is None:
            yield word
            return
        command = found
    # conditions of the examples are options of commands that take any
    takes_any = command.context_settings.get("ignore_unknown_options")  # type: ignore[attr-defined]
    open_ones = {"--energy", "--theta", "--phi", "--particle"} if takes_any else set()
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}  # type: ignore[attr-defined]
    yield from (
        word for word in words if word.startswith("-") and word.partition("=")[0] not in {*known, *open_ones, "--help"}
    )


def test_wrong_commands_are_found() -> None:
    root = typer.main.get_command(app)
    assert wrong("nisampler fly card.toml", root) == ["fly"]
    assert wrong("nisampler calo fly", root) == ["fly"]
    assert wrong("mpiexec -n 2 .venv/bin/nisampler run examples/none.toml --speed 1", root) == [
        "--speed",
        "examples/none.toml",
    ]


def test_pages_show_no_other_languages() -> None:
    """What is in no other block is only looked at."""
    languages = {name for text in PAGES.values() for name in re.findall(r"^ *```(\w*)\n", text, re.MULTILINE)} - {""}
    assert languages <= {"python", "bash", "sh", "toml", "text"}


# What is shown of other folders


def test_each_table_of_results_has_its_page() -> None:
    tables = {path.stem for path in (ROOT / "benchmarks" / "results").glob("*.md")}
    pages = {Path(page).stem for page in PAGES if page.startswith("benchmarks/")} - {"index"}
    assert tables == pages
    assert all(f"results/{name}.md" in PAGES[f"benchmarks/{name}.md"] for name in tables)


# The site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages without those of the API, built as the documentation says: a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-t", "quick"]
    done = subprocess.run(
        [*command, "-d", str(folder / "read"), str(DOCS), str(folder / "html")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


class Links(HTMLParser):
    """Addresses that a page links to, those that a browser fetches with it, and its anchors."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.fetched: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.anchors.add(given.get("id", ""))
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload", "preconnect"):
            self.fetched.add(given["href"])
        elif "src" in given:
            self.fetched.add(given["src"])


def dead(site: Path) -> list[str]:
    """Links of the pages to what is not there, and whatever a browser would fetch from elsewhere."""
    pages = {path: Links(path) for path in site.rglob("*.html")}
    found = []
    for page, links in pages.items():
        for link in links.links | links.fetched:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                found += [f"{page.name} fetches {link}"] if link in links.fetched and parts.scheme != "data" else []
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            known = pages.get(target)
            if not target.is_file() or (known and parts.fragment and unquote(parts.fragment) not in known.anchors):
                found.append(f"{page.name} links to {link}")
    return found


def test_site_is_whole_and_needs_no_network(site: Path) -> None:
    assert dead(site) == []
    styles = [path for path in site.rglob("*.css") if re.search(r"url\(['\"]?(https?:)?//|@import", path.read_text())]
    assert styles == []
    assert (site / "index.html").is_file() and (site / "how-to" / "production.html").is_file()


def test_reference_says_what_the_code_says(site: Path) -> None:
    commands, card = (text_of(site / "reference" / f"{name}.html") for name in ("command_line", "card"))
    assert "nisampler calo fit" in commands and "--workers" in commands
    assert "learning_rate" in card and "Peak of a cosine schedule" in card
    assert "pt_jet_min" in text_of(site / "reference" / "parameters.html")


def text_of(page: Path) -> str:
    return re.sub(r"<[^>]+>", "", page.read_text())


def test_dead_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="b.html#there">b</a><a href="c.html">c</a><img src="https://x.y/z.png">')
    (tmp_path / "b.html").write_text('<p id="here"></p><a href="https://arxiv.org">paper</a>')
    found = sorted(dead(tmp_path))
    assert found == ["a.html fetches https://x.y/z.png", "a.html links to b.html#there", "a.html links to c.html"]
