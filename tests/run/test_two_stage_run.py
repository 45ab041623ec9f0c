"""Two-stage unweighting in a run and in one call: when it is taken, what is told of it, and that it resumes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from training_settings import training

import nisampler
from nisampler import UnweightingConfig
from nisampler.errors import ConfigError
from nisampler.run.directory import RunDirectory
from nisampler.run.generation.generate import generate_events
from nisampler.run.pipeline import execute, start
from nisampler.run.report.summary import summary
from nisampler.training.costs import Costs
from nisampler.unweighting import two_stage
from nisampler.unweighting.surrogate import SurrogateConfig
from nisampler.unweighting.two_stage import TwoStageUnweighter

CARD = """process = "camel"
[parameters]
dim = 4
[training]
calls = 8_000
events = {events}
[training.flow]
hidden = 16
layers = 2
[training.costs]
call = 1e-2
[integration]
points = 16_384
[unweighting]
two_stage = "{choice}"
[events]
n = 500
"""


@pytest.fixture(autouse=True)
def _small_surrogate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_stage, "SurrogateConfig", partial(SurrogateConfig, steps=600, hidden=32, layers=2))


def run(folder: Path, name: str, events: int, choice: str = "auto") -> dict[str, Any]:
    card = folder / f"{name}.toml"
    card.write_text(CARD.format(events=events, choice=choice))
    with start(card, folder / name) as directory:
        return execute(directory)


def test_a_run_takes_two_stages_where_they_pay(tmp_path: Path) -> None:
    result = run(tmp_path, "many", 200_000)
    gain = result["unweighting"]["two_stage"]
    assert gain["seconds_with"] < gain["seconds_without"] and gain["calls_with"] < gain["calls_without"]
    assert "two stages" in dict(summary(result, tmp_path))
    assert "two stages: " in (tmp_path / "many" / "run.log").read_text()
    # a single shard ends with a whole batch of 128 wanted events
    assert result["calls"]["generation"] < 1.2 * gain["calls_with"] * 640
    again = run(tmp_path, "again", 200_000)
    files = [(tmp_path / name / "events.h5").read_bytes() for name in ("many", "again")]
    assert files[0] == files[1]
    assert again["calls"] == result["calls"]


def test_a_run_resumes_with_its_surrogate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tmp_path, "whole", 200_000)

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TwoStageUnweighter, "generate", stop)
        run(tmp_path, "killed", 200_000)
    monkeypatch.setattr(two_stage, "prepare_two_stage", stop)  # what was decided is not decided again
    with RunDirectory.open(tmp_path / "killed") as directory:
        resumed = execute(directory)
    assert resumed["calls"] == whole["calls"]
    assert (tmp_path / "killed" / "events.h5").read_bytes() == (tmp_path / "whole" / "events.h5").read_bytes()


def test_more_events_of_a_run_take_two_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, "run", 0, "always")
    directory = RunDirectory.read(tmp_path / "run")
    made = generate_events(directory, 400, 7, tmp_path / "whole")
    first = (tmp_path / "run" / "events.h5").read_bytes()
    whole = (tmp_path / "whole" / "events.h5").read_bytes()
    assert whole != first

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TwoStageUnweighter, "generate", stop)
        generate_events(directory, 400, 7, tmp_path / "killed")
    again = generate_events(directory, 400, 7, tmp_path / "killed")
    assert (tmp_path / "killed" / "events.h5").read_bytes() == whole
    assert again["calls"] == made["calls"]
    other = generate_events(directory, 400, 8, tmp_path / "other")
    assert (tmp_path / "other" / "events.h5").read_bytes() != whole and other["calls"] != made["calls"]


def test_a_run_takes_one_stage_otherwise(tmp_path: Path) -> None:
    for name, events, choice in (("few", 5, "auto"), ("told", 200_000, "never"), ("unknown", 0, "auto")):
        result = run(tmp_path, name, events, choice)
        assert result["unweighting"]["two_stage"] is None, name
        assert "two stages" not in dict(summary(result, tmp_path)), name


def test_a_run_can_be_told_to_take_two(tmp_path: Path) -> None:
    assert run(tmp_path, "always", 0, "always")["unweighting"]["two_stage"] is not None


def test_one_call_takes_two_stages_where_they_pay() -> None:
    def camel(x: torch.Tensor) -> torch.Tensor:
        return sum(((-25 * (x - c / 3) ** 2).sum(1)).exp() for c in (1, 2))  # type: ignore[return-value]

    settings = training(calls=20_000, hidden=16, layers=2, costs=Costs(call=1e-2))
    result = nisampler.integrate(camel, 2, events=200_000, training=settings)
    assert result.stages is not None
    assert f"two stages   {result.stages.gain.line()}" in result.summary()
    assert result.events_per_call > result.efficiencies.chosen
    assert result.events_per_second == 1 / result.stages.gain.seconds_with
    points = result.unweight(2000)
    assert points.x.shape == (2000, 2)
    error = float(points.x.std()) / 2000**0.5
    assert abs(float(points.x.mean(0)[0]) - 0.5) < 4 * error
    one = nisampler.integrate(
        camel, 2, events=200_000, training=settings, unweighting=UnweightingConfig(two_stage="never")
    )
    assert one.stages is None and one.estimate == result.estimate


def test_an_unknown_wish_is_named() -> None:
    with pytest.raises(ConfigError, match='two_stage = "maybe": must be "auto" or "always" or "never"'):
        UnweightingConfig(two_stage="maybe")
