"""Settings and arguments whose ranges stand in their types, checked by pydantic with one message everywhere.

`settings` makes a frozen dataclass whose fields are checked when it is made, in Python and in a run card alike;
`checked` checks one value. What is wrong is a `ConfigError` that names the field, the value and what it must be.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache, wraps
from numbers import Integral, Real
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import annotated_types
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from nisampler.errors import ConfigError

T = TypeVar("T")

_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a string", Any: "a value"}
_LIMITS = (
    *((annotated_types.Ge, "ge", "at least"), (annotated_types.Gt, "gt", "more than")),
    *((annotated_types.Le, "le", "at most"), (annotated_types.Lt, "lt", "less than")),
)
_CONFIG = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False)


def _whole(value: Any) -> Any:
    """NumPy's integers as Python's; everything else as it is, booleans included."""
    return value if isinstance(value, bool) or not isinstance(value, Integral) else int(value)


def _real(value: Any) -> Any:
    """NumPy's numbers as Python's; everything else as it is, booleans included."""
    return value if isinstance(value, bool) or not isinstance(value, Real) else float(value)


_MOST = 10**15
"""Largest number of anything that is counted: it fits 64 bits, and a double."""
Whole = Annotated[int, BeforeValidator(_whole)]
"""An integer of Python or NumPy."""
Count = Annotated[Whole, Field(ge=1, le=_MOST)]
"""1, 2, 3 ..."""
Several = Annotated[Whole, Field(ge=2, le=_MOST)]
"""2, 3, 4 ..."""
Natural = Annotated[Whole, Field(ge=0, le=_MOST)]
"""0, 1, 2 ..."""
Threads = Annotated[Whole, Field(ge=1, le=1024)]
"""Of the CPU."""
Dimension = Annotated[Whole, Field(ge=1, le=10_000)]
"""Coordinates of an integrand."""
Coordinates = Annotated[Whole, Field(ge=1, le=1 << 20)]
"""Coordinates of a flow: a shower has one for each voxel."""
Width = Annotated[Whole, Field(ge=1, le=8192)]
"""Units of a layer of a network."""
Depth = Annotated[Whole, Field(ge=1, le=1000)]
"""Layers of a network, or blocks of a flow."""
Finite = Annotated[float, BeforeValidator(_real)]
"""A finite number."""
Positive = Annotated[Finite, Field(gt=0.0)]
"""A finite number above zero."""
NonNegative = Annotated[Finite, Field(ge=0.0)]
"""A finite number, zero included."""
Limit = Annotated[float, Field(allow_inf_nan=True), BeforeValidator(_real), Field(gt=0.0)]
"""A number above zero, or infinity for no limit."""
Fraction = Annotated[Finite, Field(ge=0.0, lt=1.0)]
"""In [0, 1)."""
Row = Annotated[tuple[T, ...], Field(strict=False)]
"""A tuple, which may be given as a list; `Row[Count]` holds counts."""


def words(hint: Any) -> str:
    """What a type allows, for a message.

    >>> words(Annotated[int, Field(ge=3)] | None)
    'a whole number, at least 3'
    >>> words(Literal["auto", "cpu"])
    '"auto" or "cpu"'
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits = [text for part in arguments[1:] for text in _limits(part)]
        return ", ".join([words(arguments[0]), *([" and ".join(limits)] if limits else [])])
    if origin is Literal:
        return " or ".join(f'"{value}"' if isinstance(value, str) else str(value) for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(words(part) for part in arguments if part is not type(None))
    if origin is Callable:
        return "a function, given in Python"
    if origin in (tuple, list, Sequence):
        count = "" if arguments[1:] in ((), (...,)) else f" of {len(arguments)} values"
        return f"a list{count}, each {words(arguments[0])}"
    if origin in (dict, Mapping) or hasattr(hint, "__dataclass_fields__"):
        return "a table"
    return _NAMES.get(hint, getattr(hint, "__name__", str(hint)))


def _limits(part: Any) -> list[str]:
    """Words for what stands beside a type in `Annotated`."""
    limits = [
        (text, getattr(item, name))
        for item in getattr(part, "metadata", [part])
        for kind, name, text in _LIMITS
        if isinstance(item, kind)
    ]
    return [f"{text} {limit:g}" for text, limit in limits if limit != _MOST]


def shown(value: Any) -> str:
    """A value as a message shows it, at most 60 characters.

    >>> shown("auto"), shown([1, 2])
    ('"auto"', '[1, 2]')
    """
    text = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else _repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _repr(value: Any) -> str:
    """What `repr` gives, or the type of what has none, such as a number of too many digits."""
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__name__}>"


def must_be(name: str, value: Any, hint: Any) -> str:
    """The message about a value that its type does not allow.

    >>> must_be("calls", 0, Count)
    'calls = 0: must be a whole number, at least 1'
    """
    largest = f", at most {_MOST:g}" if isinstance(value, int) and value > _MOST else ""
    return f"{name} = {shown(value)}: must be {words(hint)}{largest}"


def checked(name: str, value: Any, hint: Any) -> Any:
    """The value, if its type allows it; an integer of NumPy becomes one of Python.

    Raises
    ------
    ConfigError
        Naming the argument, its value and what it must be.

    Examples
    --------
    >>> checked("n", 5, Count)
    5
    """
    try:
        return _adapter(hint).validate_python(value)
    except ValidationError as error:
        raise ConfigError(must_be(name, value, hint)) from error


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint) if is_dataclass(hint) else TypeAdapter(hint, config=_CONFIG)


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def settings(cls: type[T]) -> type[T]:
    """A frozen dataclass whose fields are checked against their types when it is made.

    What relates several fields is checked in ``__post_init__``, which raises `ConfigError` itself.

    Raises
    ------
    ConfigError
        Where an instance is made with a wrong value or an unknown name.

    Examples
    --------
    >>> @settings
    ... class Net:
    ...     layers: Count = 3
    >>> Net(layers=0)
    Traceback (most recent call last):
    ...
    nisampler.errors.ConfigError: layers = 0: must be a whole number, at least 1
    """
    made: Any = pydantic_dataclass(cls, frozen=True, config=_CONFIG)
    plain: Callable[..., None] = made.__init__

    @wraps(plain)
    def init(self: Any, *arguments: Any, **values: Any) -> None:
        try:
            plain(self, *arguments, **values)
        except ValidationError as error:
            lines = dict.fromkeys(_problem(made, item) for item in error.errors())
            raise ConfigError("; ".join(lines)) from error

    made.__init__ = init
    return cast(type[T], made)


def _problem(owner: type, item: Mapping[str, Any]) -> str:
    """The message about one entry of a pydantic error on a class of settings."""
    if "error" in item.get("ctx", {}):
        return str(item["ctx"]["error"])
    hints = get_type_hints(owner, include_extras=True)
    known = {field.name: hints[field.name] for field in fields(owner) if field.init}
    first = item["loc"][0] if item["loc"] else ""
    if item["type"] == "unexpected_positional_argument":
        return f"{owner.__name__} takes its {len(known)} settings by name: {', '.join(known)}"
    name = list(known)[first] if isinstance(first, int) else str(first)
    if name not in known:
        return f"{owner.__name__} has no setting {name}; it has {', '.join(known)}"
    hint = known[name]
    if item["type"] in ("missing", "missing_argument"):
        short = len(item["loc"]) > 1  # a list with fewer values than it needs
        return must_be(name, item["input"], hint) if short else f"{owner.__name__} needs {name}: {words(hint)}"
    for step in item["loc"][1:]:
        if isinstance(step, int):
            name, hint = f"{name}[{step + 1}]", element(hint)
    return must_be(name, item["input"], hint)


def element(hint: Any) -> Any:
    """The type of an element of a list or tuple, inside `Annotated` and unions too.

    >>> element(list[int] | None)
    <class 'int'>
    """
    for part in (hint, *get_args(hint)):
        if get_origin(part) in (tuple, list):
            return get_args(part)[0]
        if get_origin(part) is Annotated:
            return element(get_args(part)[0])
    return Any


def to_data(value: Any) -> dict[str, Any]:
    """Settings as plain data that JSON can hold; `from_data` gives back equal ones.

    >>> @settings
    ... class Net:
    ...     layers: tuple[int, ...] = (3, 4)
    >>> to_data(Net())
    {'layers': [3, 4]}
    """
    hint: Any = type(value)
    return cast(dict[str, Any], _adapter(hint).dump_python(value, mode="json"))


def from_data(owner: type[T], data: Any) -> T:
    """Settings from plain data, such as JSON holds.

    Raises
    ------
    ConfigError
        If a value is unknown, missing or wrong; the message names it with its path.

    Examples
    --------
    >>> @settings
    ... class Net:
    ...     layers: Row[Count] = (3, 4)
    >>> from_data(Net, {"layers": [5]})
    Net(layers=(5,))
    """
    hint: Any = owner
    try:
        return cast(T, _adapter(hint).validate_json(json.dumps(data)))
    except ValidationError as error:
        raise ConfigError("; ".join(dict.fromkeys(_line(owner, data, item) for item in _nearest(error)))) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{owner.__name__} is not made of plain data: {error}") from error


def _nearest(error: ValidationError) -> list[Any]:
    """The errors of a validation; of what fits no member of a union only those of the first member."""
    items = error.errors()
    firsts: dict[tuple[int | str, ...], str] = {}
    for item in items:
        for place, step in enumerate(item["loc"]):
            if isinstance(step, str) and step[:1].isupper():
                firsts.setdefault(item["loc"][:place], step)
    return [
        item
        for item in items
        if all(firsts.get(item["loc"][:place], step) == step for place, step in enumerate(item["loc"]))
    ]


def _line(owner: type, data: Any, item: Mapping[str, Any]) -> str:
    """The message about one entry, with the path of the value."""
    path, hint = "", owner
    for step in item["loc"]:
        members = [part for part in (hint, *get_args(hint), *get_args(element(hint))) if hasattr(part, "__name__")]
        if isinstance(step, int):
            path, hint = f"{path}[{step + 1}]", element(hint)
        elif any(part.__name__ == step for part in members):
            hint = next(part for part in members if part.__name__ == step)
        else:
            path = f"{path}.{step}" if path else step
            hint = get_type_hints(hint, include_extras=True).get(step, Any) if hasattr(hint, "__mro__") else Any
    if "error" in item.get("ctx", {}):
        return f"{path}: {item['ctx']['error']}" if path else str(item["ctx"]["error"])
    if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown setting {path}"
    if item["type"] in ("missing", "missing_argument"):
        return f"{path} is missing: it must be {words(hint)}"
    return must_be(path, item["input"], hint) if path else must_be(owner.__name__, item["input"], owner)
