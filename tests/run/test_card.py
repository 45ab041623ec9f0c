"""The run card: every kind of wrong key is named with its path, its value and what is allowed."""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from pathlib import Path

import pytest

from nisampler.errors import CardError
from nisampler.integration.integrator import IntegrationConfig
from nisampler.run.card import Card, allowed_keys, load_card, parse_card
from nisampler.run.sections import EventSettings
from nisampler.training.config import FlowSettings, TrainingConfig
from nisampler.unweighting.unweighter import UnweightingConfig

ROOT = Path(__file__).resolve().parents[2]
MINIMAL = 'process = "camel4"\n'


def refuse(text: str, *expected: str) -> str:
    with pytest.raises(CardError) as caught:
        parse_card(text, "mine.toml")
    message = str(caught.value)
    for part in ("mine.toml", *expected):
        assert part in message, message
    return message


def test_defaults_are_those_of_the_core() -> None:
    card = parse_card(MINIMAL)
    assert card.training == TrainingConfig()
    assert card.integration == IntegrationConfig()
    assert card.unweighting == UnweightingConfig()
    assert card.events == EventSettings()
    assert (card.seed, card.device, card.threads) == (1, "auto", 1)


SECTIONS = ["training", "training.flow", "training.tree", "training.channels", "integration", "unweighting", "events"]
SECTIONS += ["integrand"]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_of_a_section_can_be_set(section: str) -> None:
    """Each field, written as its own default, is accepted under its own name."""
    default = attrgetter(section)(parse_card(MINIMAL))
    fields = dataclasses.fields(default)
    assert allowed_keys(tuple(section.split("."))) == tuple(field.name for field in fields)
    for field in fields:
        value = getattr(default, field.name)
        if value is None or dataclasses.is_dataclass(value):
            continue
        text = str(value).lower() if isinstance(value, bool) else repr(value)
        card = parse_card(f"{MINIMAL}[{section}]\n{field.name} = {text}\n")
        assert getattr(attrgetter(section)(card), field.name) == value


def test_values_reach_the_dataclasses() -> None:
    text = MINIMAL + "[training]\ncalls = 20_000\n[training.flow]\nlearning_rate = 1\nbatch = 500\n"
    text += "[events]\nformats = ['h5', 'lhe']\n"
    card = parse_card(text)
    assert card.training == TrainingConfig(calls=20_000, flow=FlowSettings(learning_rate=1.0, batch=500))
    assert card.events.formats == ("h5", "lhe")


def test_overrides_replace_values() -> None:
    card = parse_card(MINIMAL + "seed = 4\n[events]\nn = 5\n", overrides={"seed": 9, "events.n": 7, "device": "cpu"})
    assert (card.seed, card.events.n, card.device) == (9, 7, "cpu")
    with pytest.raises(CardError, match=r"events\.n = -1"):
        parse_card(MINIMAL, overrides={"events.n": -1})


def test_card_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        setattr(parse_card(MINIMAL), "seed", 2)  # noqa: B010


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[training.flow]\nbacth = 5", ("unknown key training.flow.bacth = 5", "mean training.flow.batch?", "clip")),
        ("[training]\nbacth = 5", ("unknown key training.bacth = 5", "did you mean training.flow.batch?")),
        ("[training]\nhidden = 5", ("unknown key training.hidden = 5", "did you mean training.flow.hidden?")),
        ("[training]\nleaves = 5", ("unknown key training.leaves = 5", "did you mean training.tree.leaves?")),
        ("[training]\ndrop = 0.0", ("unknown key training.drop = 0.0", "did you mean training.channels.drop?")),
        ("proces = 'x'", ("unknown key proces", "did you mean process?", "integration")),
        ("batch = 5", ("unknown key batch", "did you mean training.flow.batch?")),
        ("[training]\nseed = 5", ("unknown key training.seed", "did you mean seed?")),
        ("[zzz]\nq = 1", ("unknown key zzz", "the top of the card: process")),
        ("[training.flow]\nbatch = '5'", ('training.flow.batch = "5"', "must be a whole number")),
        ("[training.flow]\nbatch = 2.5", ("training.flow.batch = 2.5", "must be a whole number")),
        ("[training.flow]\nbatch = true", ("training.flow.batch = true", "must be a whole number")),
        ("[training.flow]\nlearning_rate = 'fast'", ('training.flow.learning_rate = "fast"', "must be a number")),
        ("[training]\ntree = true", ("training.tree = true", "must be a table")),
        ("[training.tree]\non = 1", ("training.tree.on = 1", "must be true or false")),
        ("[training.flow]\noptimizer = 'sgd'", ('training.flow.optimizer = "sgd"', "given in Python")),
        ("[training]\ncalls = 6000\n[training.flow]\nbatch = 301", ("flow.batch must be at most calls/20 = 300",)),
        ("[training]\nsampler = 'flwo'", ('training.sampler = "flwo"', '"auto" or "flow" or "vegas"')),
        ("[training]\nsampler = 3", ("training.sampler = 3", '"auto" or "flow"')),
        ("[training]\nevents = -1", ("training.events = -1", "at least 0")),
        ("[training.costs]\ngrid = 0", ("training.costs.grid = 0", "more than 0")),
        ("[training.costs]\ncall = 0.0", ("training.costs.call = 0.0", "more than 0")),
        ("[training.costs]\ncall = 1.0\ngrib = 1.0", ("unknown key training.costs.grib", "training.costs.grid?")),
        ("[training]\ncosts = 5", ("training.costs = 5", "must be a table")),
        ("[training]\ncalls = 3", ("training.calls = 3", "at least 100")),
        ("[training.flow]\ndivergence = 'kul'", ("training.flow.divergence", "kul")),
        ("[integration]\nmethod = 'simpson'", ("integration.method", "sobol")),
        ("[integration]\npoints = 1", ("integration.points = 1", "at least")),
        ("[unweighting]\noverweight = 1.5", ("unweighting.overweight = 1.5", "at least 0 and less than 1")),
        ("[unweighting]\npolicy = 'none'", ("unweighting.policy", "bootstrap")),
        ("[events]\nn = -1", ("events.n = -1", "at least 0")),
        ("[events]\nshard_size = 0", ("events.shard_size = 0", "at least 1")),
        ("[events]\nformats = ['root']", ('events.formats[1] = "root"', '"lhe.gz" or "lhe.zst" or "lhe" or "h5"')),
        ("[events]\ncompression_level = 12", ("compression_level = 12", "lhe.gz has levels from 0 to 9")),
        ("[events]\nformats = ['lhe.zst']\ncompression_level = 0", ("lhe.zst has levels from 1 to 19",)),
        ("[events]\nformats = 'h5'", ('events.formats = "h5"', "a list, each")),
        ("[events]\nformats = ['h5', 'h5']", ("events.formats", "each once")),
        ("[events]\nformats = []", ("events.formats", "at least one")),
        ("[integrand]\nkind = 'rust'", ("integrand.kind", '"scalar"')),
        ("[integrand]\nnonfinite = 1.0", ("integrand.nonfinite = 1.0", "at least 0 and less than 1")),
        ("[integrand]\ndomain = [[0, 1, 2]]", ("integrand.domain", "of 2 values")),
        ("seed = -1", ("seed = -1: must be", "at least 0")),
        ("seed = 1.5", ("seed = 1.5", "must be a whole number")),
        ("device = 'gpu'", ('device = "gpu"', "'cuda'")),
        ("device = 1", ("device = 1", "must be a string")),
        ("threads = 0", ("threads = 0", "at least 1")),
        ("threads = 'many'", ('threads = "many"', "a whole number")),
        ("training = 5", ("training = 5", "must be a table")),
        ("parameters = 5", ("parameters = 5", "must be a table")),
        ("[training.flow]\nlearning_rate = nan", ("training.flow.learning_rate = nan", "must be finite")),
        ("[parameters]\nx = [1.0, inf]", ("parameters.x = inf", "must be finite")),
        ("[parameters]\nx = 2020-01-01", ("parameters.x", "dates and times")),
    ],
)
def test_wrong_keys_are_named(text: str, expected: tuple[str, ...]) -> None:
    refuse(MINIMAL + text, *expected)


def test_missing_and_empty_process() -> None:
    refuse("seed = 1", "process is missing", "must be a string")
    refuse("process = ''", "process")
    refuse("process = 3", "process = 3", "must be a string")


def test_all_problems_are_listed_at_once() -> None:
    message = refuse(MINIMAL + "sede = 1\n[events]\nn = 'x'\n[training.flow]\nbatch = 'y'\n")
    assert len(message.splitlines()) == 4


def test_broken_toml_and_files(tmp_path: Path) -> None:
    refuse("process = \nseed = 1", "not valid TOML", "line 1")
    with pytest.raises(CardError, match=r"cannot read the card .*none\.toml"):
        load_card(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"process = '\xff'")
    with pytest.raises(CardError, match="not UTF-8"):
        load_card(tmp_path / "latin.toml")


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.name)
def test_examples_are_valid(path: Path) -> None:
    assert isinstance(load_card(path), Card)


def test_example_comments_tell_the_defaults() -> None:
    """Keys of the example that its comments do not call changed have their default values."""
    card = load_card(ROOT / "examples" / "ee_to_3jets.toml")
    assert dataclasses.replace(card.training, calls=TrainingConfig().calls, events=None) == TrainingConfig()
    assert dataclasses.replace(card.integration, points=IntegrationConfig().points) == IntegrationConfig()
    assert card.unweighting == UnweightingConfig()
    assert dataclasses.replace(card.events, formats=None, weights=None) == EventSettings()
