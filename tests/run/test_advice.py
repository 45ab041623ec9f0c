"""Cards that `new` writes say the defaults and run, for every process; `card` knows every key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from commands import call
from pydantic import Field, InstanceOf

from nisampler.base.checks import Count, Row
from nisampler.base.described import Setting, described, summary
from nisampler.errors import AmplitudeError, CardError, UnknownProcessError
from nisampler.run.advice.cards import card_text
from nisampler.run.advice.keys import PARTICLES, all_parameters, card_keys, find, inside, parameter_keys, toml
from nisampler.run.card import Card, allowed_keys, parse_card
from nisampler.run.lookup import available, create
from nisampler.run.pipeline import execute, start
from nisampler.ui.monitor import SILENT

ROOT = Path(__file__).resolve().parents[2]
OWN = f"{ROOT / 'examples' / 'my_matrix_element.py'}:MuonPair"
STRINGS = [PARTICLES, "p p > t t~ j", "e+ e- > mu+ mu- h", "p p > t t~, t > b e+ ve, t~ > b~ mu- vm~"]
PROCESSES = [*sorted(available()), "camel4", "genz_gaussian3", *STRINGS, OWN]
# Nothing but the size of the run.
SMALL: dict[str, Any] = {
    "training.calls": 3000,
    "training.sampler": "vegas",
    "integration.points": 2000,
    "events.n": 20,
}


@pytest.mark.parametrize("process", PROCESSES)
def test_a_card_of_every_process_says_its_defaults(process: str) -> None:
    """What is written is what is taken where nothing is written, in the card and in the process."""
    card = parse_card(card_text(process))
    plain = Card(process=process)
    for name in set(Card.model_fields) - {"process", "parameters"}:
        assert getattr(card, name) == getattr(plain, name), name
    energy = {"sqrt_s": 500.0} if process.startswith("e+") else {}
    assert create(process, card.parameters).parameters == create(process, energy).parameters


@pytest.mark.parametrize("process", PROCESSES)
def test_a_card_of_every_process_runs_to_the_end(process: str, tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text(card_text(process))
    with start(tmp_path / "card.toml", tmp_path / "run", SMALL, SILENT) as directory:
        assert execute(directory, SILENT)["unweighting"]["n_events"] == SMALL["events.n"]


def test_a_card_with_small_numbers_written_into_it_runs(tmp_path: Path) -> None:
    text = card_text("ee_to_3jets")
    for key, value in SMALL.items():
        name = key.rpartition(".")[2]
        table = text.index(f"[{key.partition('.')[0]}]")
        line = re.compile(rf"^(# )?{name} =.*$", re.MULTILINE).search(text, table)
        assert line is not None
        text = f"{text[: line.start()]}{name} = {toml(value)}{text[line.end() :]}"
    (tmp_path / "card.toml").write_text(text)
    code, out, err = call("run", tmp_path / "card.toml", "-o", tmp_path / "run")
    assert code == 0, err
    assert "integral" in out and (tmp_path / "run" / "result.json").is_file()


def keys_of(text: str) -> set[str]:
    """Full paths of all keys of a card, those behind a sign, too."""
    found, table = set(), ""
    for line in text.splitlines():
        if match := re.match(r"(?:# )?\[([a-z.]+)\]$", line):
            table = f"{match[1]}."
        elif match := re.match(r"(?:# )?([a-z_0-9]+) =( |$)", line):
            found.add(table + match[1])
    return found


def settable(path: tuple[str, ...] = ()) -> set[str]:
    """Full paths of all keys that the reader of cards allows, tables left out; `optimizer` is for Python alone."""
    found = set()
    for name in allowed_keys(path):
        full = (*path, name)
        found |= settable(full) or {".".join(full)}
    return found - {"training.flow.optimizer", "parameters"}


@pytest.mark.parametrize("process", ["camel", "z_prime", PARTICLES])
def test_every_key_is_there(process: str) -> None:
    names = {field.name for field in fields(create(process).parameters)} if process != "camel" else {"dim", "sigma"}
    assert keys_of(card_text(process)) == settable() | {f"parameters.{name}" for name in names}


def test_what_stands_behind_a_sign_can_be_uncommented() -> None:
    """Every key without a default takes one where it stands, and a table that is not there becomes one."""
    text = card_text("drell_yan")
    values = {"batch": "256", "points": "5000", "scales": '"7-point"', "formats": '["h5"]', "m_max": "200.0"}
    for name, value in values.items():
        text, count = re.subn(rf"^# {name} = ", f"{name} = {value}", text, flags=re.MULTILINE)
        assert count == 1
    text = re.sub(
        r"^# (\[training.costs\]|(call|grid|tree|growth|\w*small\w*|\w*large\w*) = )", r"\1", text, flags=re.MULTILINE
    )
    card = parse_card(text)
    assert (card.training.flow.batch, card.integration.points, card.events.formats) == (256, 5000, ("h5",))
    assert card.training.costs is not None and card.parameters["m_max"] == 200.0


def test_cards_are_toml_of_a_width_that_can_be_read() -> None:
    for process in ("w_plus_jets", PARTICLES):
        text = card_text(process)
        assert max(map(len, text.splitlines())) <= 120
        assert tomllib.loads(text)["process"] == process


def test_texts_are_about_something() -> None:
    """Nearly all keys say what they are for, and no key says None, which a card has no word for."""
    keys = [*card_keys(), *all_parameters()]
    assert [str(key) for key in keys if not key.meaning] == []
    assert [str(key) for key in keys if re.search(r"\bNone\b|``|:\w+:`", key.meaning)] == []


def test_own_code_without_types(tmp_path: Path) -> None:
    """Its parameters are in the card, one that has no default as needed; a ready callable has none."""
    lines = (
        "class Slope:",
        "    dim = 1",
        "    def __init__(self, power, scale=2.0, label=None):",
        "        self.power = power",
    )
    (tmp_path / "mine.py").write_text(
        "\n".join([*lines, "    def __call__(self, u):", "        return u[:, 0] ** self.power", ""])
    )
    text = card_text(f"{tmp_path / 'mine.py'}:Slope")
    assert re.search(r"^power = +# a value, needed$", text, re.MULTILINE)
    assert "\nscale = 2.0" in text and "\n# label =" in text
    with pytest.raises(CardError, match="not valid TOML"):
        parse_card(text)
    assert parse_card(text.replace("power = ", "power = 3 ")).parameters == {"power": 3, "scale": 2.0}
    (tmp_path / "ready.py").write_text("def flat(u):\n    return u[:, 0]\nflat.dim = 1\n")
    assert "[parameters]" not in card_text(f"{tmp_path / 'ready.py'}:flat")


def test_unknown_processes_are_named() -> None:
    with pytest.raises(UnknownProcessError, match="Did you mean 'drell_yan'"):
        card_text("drell_yam")
    with pytest.raises(AmplitudeError, match="unknown particle 'q'"):
        card_text("p p > q q")
    with pytest.raises(UnknownProcessError, match="no file"):
        card_text("nowhere.py:density")


def test_find() -> None:
    assert [str(key) for key in find("training.flow.batch")] == ["training.flow.batch"]
    assert find("batch") == find("flow.batch")
    assert [str(key) for key in find("events")] == ["events"], "a full path goes first"
    assert {str(key) for key in find("alpha_s")} == {"events.variations.alpha_s", "parameters.alpha_s"}
    (jets,) = find("pt_jet_min")
    assert {"z_jets", PARTICLES} <= set(jets.processes) and jets.setting.allowed == "a number, more than 0"
    assert len(find("m_min")) > 1 and [key.default for key in find("m_min", "z_jets")] == ["66.0"]
    assert [str(key) for key in inside(find("training.choice")[0])] == ["training.choice.choose_by"]
    assert inside(find("parameters")[0], "camel") == parameter_keys("camel")


@pytest.mark.parametrize(
    ("name", "near"), [("flow.bacth", "training.flow.batch"), ("pt_jet_mn", "parameters.pt_jet_min"), ("cals", "calls")]
)
def test_unknown_keys_name_the_nearest(name: str, near: str) -> None:
    with pytest.raises(CardError, match=rf"no key {name} in a card; the nearest: .*{near}"):
        find(name)
    with pytest.raises(CardError, match="lists all"):
        find("§§")


# Settings as they describe themselves


class Base:
    """First.

    Attributes
    ----------
    a, b
        Two ``lengths``
        in :math:`mm`.
    """

    def __init__(self, a: float, b: Callable[[], int] | Row[Count] | None = None, *rest: int, c: Any = 3) -> None:
        self.all = (a, b, rest, c)


class Derived(Base):
    """Second: `[derived.part]`.

    Parameters
    ----------
    a : float
        Its own.

    Raises
    ------
    b
        No setting.
    """


def test_described() -> None:
    a, b, c = described(Derived)
    assert (a.text, a.others, b.text, b.others, c.text) == (
        "Its own.",
        ("a",),
        "Two `lengths` in `mm`.",
        ("a", "b"),
        "",
    )
    assert (a.needed, b.needed, b.default, c.default) == (True, False, None, 3)
    assert b.allowed == "a list, each a whole number, at least 1"
    assert summary(Derived) == "Second"
    assert described(lambda x, **more: x)[0].hint is Any and len(described(lambda x, **more: x)) == 1
    assert described(dict) == (), "nothing is known of it"


@pytest.mark.parametrize(
    "hint",
    [
        None,
        Callable[[], int],
        Card | None,
        InstanceOf[Path],
        tuple[Any, ...],
        tuple[Callable[[], int], ...],
        Path,
        Callable[[], int] | None,
    ],
)
def test_only_what_text_can_give_is_plain(hint: Any) -> None:
    plain = Setting("x", hint, None).plain
    assert (plain is Card) if hint == Card | None else plain is None


def test_plain_keeps_limits() -> None:
    limited = Annotated[int, Field(ge=3)]
    assert Setting("x", limited | Literal["auto"] | Path | None, 3).allowed == 'a whole number, at least 3 or "auto"'
    assert Setting("x", tuple[str | Path, ...], ()).allowed == "a list, each a string"
    assert is_dataclass(find("training")[0].setting.plain)


@pytest.mark.parametrize("value", [12, 123456, -20000, 0.1, 1e-9, 1e300, 'a "b" é', True, (1, ("x", 2.0)), [], 2**62])
def test_toml_reads_what_it_writes(value: Any) -> None:
    read = tomllib.loads(f"x = {toml(value)}")["x"]
    assert read == ([value[0], list(value[1])] if isinstance(value, tuple) else value)
    assert toml([value, None]) == ""
