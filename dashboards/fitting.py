"""Whether values are of their declared types, in objects whose library does not look."""

import types
import typing
from collections.abc import Iterator
from enum import Enum
from typing import Any


def misfits_of(made: Any, modules: str, path: str = "dashboard") -> Iterator[tuple[str, str]]:
    """Where in an object of these modules a value is not of its declared type, and what it is."""
    if isinstance(made, list | tuple):
        for place, part in enumerate(made):
            yield from misfits_of(part, modules, f"{path}[{place}]")
    elif isinstance(made, dict):
        for key, part in made.items():
            yield from misfits_of(part, modules, f"{path}.{key}")
    elif type(made).__module__.startswith(modules) and not isinstance(made, Enum):
        for name, declared in typing.get_type_hints(type(made)).items():
            value = getattr(made, name)
            if not fits(value, declared):
                yield f"{path}.{name}", f"{value!r} is not a {declared}"
            yield from misfits_of(value, modules, f"{path}.{name}")


def fits(value: Any, declared: Any) -> bool:
    """Whether a value is of a type, as far into lists and dicts as the type says."""
    origin, parts = typing.get_origin(declared), typing.get_args(declared)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is typing.Literal:
        return value in parts
    if origin is list:
        return isinstance(value, list) and all(fits(each, parts[0]) for each in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(k, parts[0]) and fits(v, parts[1]) for k, v in value.items())
    if declared is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if declared is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return declared is Any or isinstance(value, declared)
