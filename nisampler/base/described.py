"""Settings as they describe themselves: names, types, defaults, and what their docstrings say of them."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, InstanceOf
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from nisampler.base.checks import words

# The sections of a docstring that describe settings, up to the next section.
_SECTION = re.compile(r"^(?:Parameters|Attributes)\n-+\n(.*?)(?=^\w[^\n]*\n-+$|\Z)", re.MULTILINE | re.DOTALL)
_MARKS = (("``", "`"), (r":\w+:`", "`"))
_OBJECT: Any = InstanceOf
_PLAIN = (int, float, str, bool)


@dataclass(frozen=True)
class Setting:
    """One setting of a class or function.

    Attributes
    ----------
    name
        Its name.
    hint
        Its type as it is annotated, `Any` where it is not.
    default
        Its default; `MISSING` of `dataclasses` where it has to be given.
    text
        What the docstring says of it and of `others`, on one line; empty where it says nothing.
    others
        All names that this text is about.

    Examples
    --------
    >>> Setting("calls", int, 100, "Of the integrand.", ("calls",)).needed
    False
    """

    name: str
    hint: Any
    default: Any
    text: str = ""
    others: tuple[str, ...] = ()

    @property
    def needed(self) -> bool:
        """Whether it has to be given."""
        return self.default is MISSING

    @property
    def plain(self) -> Any:
        """The part of its type that a file of text can give, None if there is none: no functions, no objects."""
        return _plain(self.hint)

    @property
    def allowed(self) -> str:
        """What a file may say, in words.

        >>> from collections.abc import Callable
        >>> Setting("scale", float | Callable[[float], float] | None, None).allowed
        'a number'
        """
        return words(self.plain)


def described(owner: Any) -> tuple[Setting, ...]:
    """The settings of a dataclass, a pydantic model, a class or a function, in their order.

    Parameters
    ----------
    owner
        What has them. Docstrings have sections ``Parameters`` or ``Attributes`` as NumPy's do; what a class does not
        describe is taken from the classes that it is derived from.

    Examples
    --------
    >>> def box(side: float, dim: int = 2):
    ...     '''A cube.
    ...
    ...     Parameters
    ...     ----------
    ...     side
    ...         Length in mm.
    ...     '''
    >>> [(found.name, found.default, found.text) for found in described(box)][1:]
    [('dim', 2, '')]
    >>> described(box)[0].text, described(box)[0].needed
    ('Length in mm.', True)
    """
    texts: dict[str, tuple[str, tuple[str, ...]]] = {}
    for source in reversed(inspect.getmro(owner)) if inspect.isclass(owner) else [_function(owner)]:
        texts |= _documented(vars(source).get("__doc__") if inspect.isclass(source) else source.__doc__)
        if inspect.isclass(source) and "__init__" in vars(source):
            texts |= _documented(source.__init__.__doc__)
    hints = _hints(owner)
    return tuple(
        Setting(name, hints.get(name, Any), default, *texts.get(name, ("", (name,))))
        for name, default in _defaults(owner)
    )


def summary(owner: Any) -> str:
    """The first line of a docstring, without the table that it names: "Flows: `[flow]`." is "Flows".

    >>> summary(Setting)
    'One setting of a class or function'
    """
    first = inspect.cleandoc(owner.__doc__ or "").partition("\n")[0]
    return re.sub(r":? `\[[^]]*\]`", "", _unmarked(first)).rstrip(".")


def _function(owner: Any) -> Any:
    return getattr(owner, "func", owner)


def _documented(doc: str | None) -> Iterator[tuple[str, tuple[str, tuple[str, ...]]]]:
    """Names with the text about each, and all names that the text is about."""
    for section in _SECTION.findall(inspect.cleandoc(doc or "")):
        for head, body in re.findall(r"^(\S[^\n]*)\n((?:[ \t]+[^\n]*\n?|\n)+)", section, re.MULTILINE):
            names = tuple(name.strip() for name in head.partition(" : ")[0].split(","))
            for name in names:
                yield name, (_unmarked(" ".join(body.split())), names)


def _unmarked(text: str) -> str:
    for mark, plain in _MARKS:
        text = re.sub(mark, plain, text)
    return text


def _hints(owner: Any) -> Mapping[str, Any]:
    target = owner if is_dataclass(owner) or _is_model(owner) else _function(owner)
    if inspect.isclass(target) and target is owner and not (is_dataclass(owner) or _is_model(owner)):
        target = target.__init__
    try:
        return get_type_hints(target, include_extras=True)
    except (NameError, TypeError):
        return {}


def _is_model(owner: Any) -> bool:
    return inspect.isclass(owner) and issubclass(owner, BaseModel)


def _defaults(owner: Any) -> Iterator[tuple[str, Any]]:
    """Names of what may be given, with the defaults."""
    if _is_model(owner):
        yield from ((name, _default(info, MISSING)) for name, info in owner.model_fields.items())
    elif is_dataclass(owner):
        yield from ((item.name, _default(item.default, item.default_factory)) for item in fields(owner) if item.init)
    else:
        for name, parameter in _parameters(owner).items():
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                yield name, MISSING if parameter.default is parameter.empty else parameter.default


def _parameters(owner: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(owner).parameters
    except (ValueError, TypeError):
        return {}


def _default(value: Any, factory: Any) -> Any:
    if isinstance(value, FieldInfo):
        value, factory = value.default, value.default_factory or MISSING
    if value is MISSING or value is PydanticUndefined:
        return factory() if factory is not MISSING else MISSING
    return value


def _plain(hint: Any) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is None or hint is type(None) or origin is Callable:
        return None
    if origin in (Union, types.UnionType):
        kept = [part for part in map(_plain, arguments) if part is not None]
        return Union[tuple(kept)] if kept else None  # noqa: UP007
    if origin is Annotated:
        inner = None if any(isinstance(part, _OBJECT) for part in arguments[1:]) else _plain(arguments[0])
        return None if inner is None else Annotated[(inner, *arguments[1:])]
    if origin in (tuple, list):
        # A list of anything is one of objects that Python gives.
        inside = [None if part is Any else part if part is Ellipsis else _plain(part) for part in arguments]
        return None if None in inside else origin[tuple(inside)]
    if hint is not Any and inspect.isclass(hint) and origin is None:
        return hint if hint in _PLAIN or is_dataclass(hint) or hint is dict or _is_model(hint) else None
    return hint
