"""Results that are saved, loaded, pickled, copied and sent to other processes."""

from __future__ import annotations

import copy
import multiprocessing
import pickle  # noqa: TID251
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_settings import training

import nisampler
from nisampler import IntegrationConfig, Result, TrainingConfig
from nisampler.base.storage import read_sealed, write_sealed
from nisampler.density.integrand import Integrand
from nisampler.errors import ConfigError, CorruptFileError, MissingFunctionError, StorageError
from nisampler.processes.functions.functions import camel

POINTS = IntegrationConfig(points=4096)
BOX = [(10.0, 12.0), (-1.0, 1.0)]


def slope(x: Tensor) -> Tensor:
    return x[:, 0] * (1.0 + x[:, 1] ** 2)


def costly(x: Tensor) -> Tensor:
    return ((-25 * (x - 1 / 3) ** 2).sum(1)).exp() + ((-25 * (x - 2 / 3) ** 2).sum(1)).exp()


class Half:
    """A channel that reaches everything, denser where its coordinate is small or large."""

    dim = 2

    def __init__(self, name: str, small: bool) -> None:
        self.name, self.small = name, small

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        x = u.clone()
        x[:, 0] = torch.sqrt(u[:, 0]) if not self.small else 1.0 - torch.sqrt(u[:, 0])
        return 5.0 * x, self.log_density(x)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x / 5.0
        u = x.clone()
        u[:, 0] = x[:, 0] ** 2 if not self.small else (1.0 - x[:, 0]) ** 2
        return u, self.log_density(x)

    def log_density(self, x: Tensor) -> Tensor:
        near = 1.0 - x[:, 0] if self.small else x[:, 0]
        return torch.log(2.0 * near.clamp(min=1e-12)) - 2.0 * torch.log(torch.tensor(5.0))


def both(x: Tensor) -> Tensor:
    return 1.0 + x[:, 0] * x[:, 1]


def small(sampler: str, **more: Any) -> TrainingConfig:
    return training(calls=6000, sampler=sampler, hidden=8, layers=1, fourier=0, leaves=50, **more)


def make(name: str) -> tuple[Result, Any]:
    """A small result of each kind of sampler, and its function."""
    if name == "vegas in a box":
        return nisampler.integrate(slope, domain=BOX, training=small("vegas", on=False), integration=POINTS), slope
    if name == "flow":
        return nisampler.integrate(costly, 2, training=small("flow"), integration=POINTS, seed=4), costly
    if name == "channels":
        function = nisampler.Multichannel(both, [Half("small", True), Half("large", False)])
        return nisampler.integrate(function, training=small("flow"), integration=POINTS), function
    steps = nisampler.UnweightingConfig(two_stage="always")
    done = nisampler.integrate(camel(2), training=small("vegas"), integration=POINTS, unweighting=steps)
    return done, camel(2)


NAMES = ("vegas in a box", "flow", "channels", "two stages")


@pytest.fixture(scope="module")
def made() -> Callable[[str], tuple[Result, Any]]:
    found: dict[str, tuple[Result, Any]] = {}

    def get(name: str) -> tuple[Result, Any]:
        if name not in found:
            found[name] = make(name)
        return found[name]

    return get


def same(first: Any, second: Any) -> bool:
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in ("x", "u", "weights"))


@pytest.mark.parametrize("name", NAMES)
def test_a_loaded_result_draws_the_same_points(
    name: str, made: Callable[[str], tuple[Result, Any]], tmp_path: Path
) -> None:
    result, function = made(name)
    assert result.save(tmp_path / "kept") == tmp_path / "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"]
    again = nisampler.load(tmp_path / "kept", function)
    assert again.estimate == result.estimate and again.efficiencies == result.efficiencies
    assert again.warnings == result.warnings and again.summary() == result.summary()
    assert same(again.unweight(200, shard=1), result.unweight(200, shard=1))
    assert same(again.sample(50), result.sample(50))
    assert (again.stages is None) == (name != "two stages")
    assert again.unweight(200, shard=1).trials == result.unweight(200, shard=1).trials


@pytest.mark.parametrize("name", NAMES)
def test_without_its_function_a_result_still_draws(
    name: str, made: Callable[[str], tuple[Result, Any]], tmp_path: Path
) -> None:
    result, function = made(name)
    again = nisampler.load(result.save(tmp_path / "kept"))
    assert again.estimate == result.estimate and again.summary() == result.summary()
    points, known = again.sample(50), result.sample(50)
    assert torch.equal(points.u, known.u) and torch.equal(points.log_q, known.log_q)
    if name == "channels":
        with pytest.raises(MissingFunctionError, match="points of channels"):
            _ = points.x
    else:
        assert torch.equal(points.x, known.x)
    for ask in (lambda: points.weights, lambda: points.values, lambda: again.unweight(5)):
        with pytest.raises(MissingFunctionError, match=r"nisampler\.load\(folder, function\)"):
            ask()
    with pytest.raises(MissingFunctionError, match="its values"):
        again.integrand(points.u)
    once_more = nisampler.load(again.save(tmp_path / "again"), function)
    assert same(once_more.unweight(100), result.unweight(100))


@pytest.mark.parametrize("name", NAMES)
def test_copies_and_pickles_draw_the_same_points(name: str, made: Callable[[str], tuple[Result, Any]]) -> None:
    result, _ = made(name)
    expected = result.unweight(100)
    for other in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert same(other.unweight(100), expected) and other.estimate == result.estimate
        before = result.integrand.calls
        other.unweight(10)
        assert result.integrand.calls == before


def test_a_function_that_cannot_be_pickled_is_pythons_error() -> None:
    quick = {"training": small("vegas", on=False), "integration": POINTS}
    result = nisampler.integrate(lambda x: x[:, 0], 1, **quick)  # type: ignore[arg-type]
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(result)


def draw(folder: Path, shard: int) -> tuple[Tensor, Tensor]:
    torch.set_num_threads(1)
    result = nisampler.load(folder, costly)
    points = result.unweight(50, shard)
    return points.x, points.weights


def test_a_pool_of_four_draws_from_one_saved_sampler(made: Callable[[str], tuple[Result, Any]], tmp_path: Path) -> None:
    result, _ = made("flow")
    folder = result.save(tmp_path / "kept")
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("fork")) as pool:
        found = list(pool.map(draw, [folder] * 4, range(4)))
        sent = list(pool.map(type(result).unweight, [result] * 2, [50] * 2, range(2)))
    for shard, (x, weights) in enumerate(found):
        expected = result.unweight(50, shard)
        assert torch.equal(x, expected.x) and torch.equal(weights, expected.weights)
    assert [torch.equal(points.x, found[shard][0]) for shard, points in enumerate(sent)] == [True, True]
    assert len(torch.cat([x for x, _ in found]).unique(dim=0)) == 200


def test_points_lie_in_the_domain(made: Callable[[str], tuple[Result, Any]]) -> None:
    result, _ = made("vegas in a box")
    low, high = torch.tensor(BOX, dtype=torch.float64).unbind(1)
    for points in (result.unweight(500), result.sample(500)):
        assert bool(((points.x >= low) & (points.x <= high)).all()) and bool((points.x[:, 0] > 10.0).any())
        assert torch.allclose(points.x, low + points.u * (high - low), rtol=1e-14)
    points = result.sample(4000)
    assert torch.allclose(points.values, slope(points.x), rtol=1e-12)
    assert torch.allclose(points.weights, points.values * torch.exp(-points.log_q))
    error = float(points.weights.std()) / 4000**0.5
    assert abs(float(points.weights.mean()) - result.estimate.value) < 5 * error


def test_points_of_channels_are_those_that_they_made(made: Callable[[str], tuple[Result, Any]]) -> None:
    result, function = made("channels")
    for points in (result.unweight(500), result.sample(500)):
        assert points.x.shape == (500, 2) and points.u.shape == (500, 3)
        assert torch.equal(points.x, function.points(points.u)[1])
    assert float(points.x.max()) > 4.0
    assert abs(float(result.sample(4000).weights.mean()) / result.estimate.value - 1.0) < 0.05


def test_a_folder_that_holds_anything_is_refused(made: Callable[[str], tuple[Result, Any]], tmp_path: Path) -> None:
    result, function = made("flow")
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(StorageError, match="not empty"):
        result.save(tmp_path)
    with pytest.raises(StorageError, match="holds no finished integration"):
        nisampler.load(tmp_path, function)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_damage_is_named(made: Callable[[str], tuple[Result, Any]], tmp_path: Path) -> None:
    result, function = made("flow")
    folder = result.save(tmp_path / "kept")
    manifest = folder / "integration" / "checkpoint.json"
    manifest.write_text(manifest.read_text().replace('"kind": "torch"', '"kind": "numpy"'))
    with pytest.raises(CorruptFileError, match="integration"):
        nisampler.load(folder, function)
    changes: tuple[tuple[str, dict[str, Any]], ...] = (
        ("integration", {"source": {}}),
        ("integration", {"source": {"device": "cpu", "domain": 3}}),
        ("integration", {"source": {"seed": "x"}}),
        ("sampler", {"history": 1}),
    )
    for count, (stage, change) in enumerate(changes):
        sealed = result.save(tmp_path / f"sealed {count}") / stage / "checkpoint.json"
        data = read_sealed(sealed, "manifest_sha256")
        data["meta"] |= change
        write_sealed(sealed, data, "manifest_sha256")
        with pytest.raises(CorruptFileError, match="does not hold what this release stores"):
            nisampler.load(sealed.parents[1], function)
    with pytest.raises(ConfigError, match="2 coordinates, this one has 3"):
        nisampler.load(result.save(tmp_path / "other"), Integrand(costly, 3, kind="torch"))
