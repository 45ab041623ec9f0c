"""Settings and arguments: ranges in types, one message in Python and in cards."""

from __future__ import annotations

import copy
import dataclasses
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import Field

from nisampler.base.checks import Count, Natural, Positive, Row, Whole, checked, settings, words
from nisampler.errors import ConfigError


@settings
class Net:
    """A class of settings with everything that the others use."""

    layers: Annotated[Whole, Field(ge=2)] = 3
    rate: Positive = 1.0
    kind: Literal["mlp", "unet"] = "mlp"
    batch: Count | None = None
    sizes: Row[Count] = (1, 2)

    def __post_init__(self) -> None:
        if self.layers == 13:
            raise ConfigError("layers must not be 13")


@settings
class Model:
    """Settings inside settings."""

    net: Net
    name: str = ""


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layers": 1}, "layers = 1: must be a whole number, at least 2"),
        ({"layers": True}, "layers = true: must be a whole number, at least 2"),
        ({"layers": 2.0}, "layers = 2.0: must be a whole number, at least 2"),
        ({"layers": 13}, "layers must not be 13"),
        ({"rate": 0}, "rate = 0: must be a number, more than 0"),
        ({"rate": float("nan")}, "rate = nan: must be a number, more than 0"),
        ({"rate": float("inf")}, "rate = inf: must be a number, more than 0"),
        ({"kind": "vit"}, 'kind = "vit": must be "mlp" or "unet"'),
        ({"batch": 0}, "batch = 0: must be a whole number, at least 1"),
        ({"sizes": [1, 0]}, r"sizes\[2\] = 0: must be a whole number, at least 1"),
        ({"sizes": 3}, "sizes = 3: must be a list, each a whole number, at least 1"),
        ({"layer": 3}, "Net has no setting layer; it has layers, rate, kind, batch, sizes"),
    ],
)
def test_wrong_settings_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        Net(**values)


def test_missing_and_foreign_settings() -> None:
    with pytest.raises(ConfigError, match=r"^Model needs net: a table$"):
        Model()  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"^net = 3: must be a table$"):
        Model(net=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^Net takes its 5 settings by name: layers"):
        Net(3, 2.0, "mlp", 1, (1,), 6)  # type: ignore[call-arg]


def test_numbers_of_numpy_are_numbers() -> None:
    net = Net(layers=np.int64(4), rate=np.float32(0.5), batch=np.int32(2))  # type: ignore[arg-type]
    assert (net.layers, net.rate, net.batch) == (4, 0.5, 2)
    assert all(type(value) in (int, float) for value in (net.layers, net.rate, net.batch))
    assert checked("n", np.uint8(3), Count) == 3


def test_settings_are_frozen_values() -> None:
    net = Net(sizes=[3, 4])  # type: ignore[arg-type]
    assert net == copy.deepcopy(net) and hash(net) == hash(copy.copy(net)) and net.sizes == (3, 4)
    assert dataclasses.replace(net, layers=5).layers == 5
    with pytest.raises(ConfigError, match="layers = 0"):
        dataclasses.replace(net, layers=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        net.layers = 4  # type: ignore[misc]
    assert dataclasses.asdict(Model(net=net))["net"]["sizes"] == (3, 4)


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (0, Count, "n = 0: must be a whole number, at least 1"),
        (-1, Natural, "n = -1: must be a whole number, at least 0"),
        (1e3, Count, "n = 1000.0: must be a whole number, at least 1"),
        (True, Count, "n = true: must be a whole number, at least 1"),
        ("5", Positive, 'n = "5": must be a number, more than 0'),
    ],
)
def test_arguments_are_checked_with_the_same_words(value: Any, hint: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        checked("n", value, hint)


def test_words_of_compound_types() -> None:
    assert words(tuple[float, float]) == "a list of 2 values, each a number"
    assert words(dict[str, int]) == words(Model) == "a table"
    assert (
        words(Annotated[float, Field(gt=0, le=1)] | Literal["auto"]) == 'a number, more than 0 and at most 1 or "auto"'
    )
