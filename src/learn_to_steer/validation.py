"""Checks values against the types and limits of a dataclass or pydantic model; errors name the field and its value.

``check_fields`` is for a config, whoever made it: a file, the command line or Python. ``validated`` is for a value that
was read from a JSON file.

A field's type is its annotation. Its limits are those of pydantic's ``Field`` in the annotation, or of typer's
``Option``, which the command line shows. Numbers are finite unless the annotation allows otherwise.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from numbers import Integral, Number, Real
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

from learn_to_steer.errors import DataError, SteerError
from learn_to_steer.plain_text import LONGEST, shown

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError


def check_fields(
    config: Any,
    what: str,
    error: type[SteerError] = DataError,
    names: Mapping[str, str] | None = None,
    examples: Mapping[str, str] | None = None,
) -> None:
    """Check the fields of a frozen dataclass; call it in ``__post_init__``.

    Booleans are no numbers, texts that look like numbers are none either, and 2.0 is no integer. Lists become tuples,
    paths become texts, and NumPy's numbers those of Python.

    Args:
        config: The instance. Its fields are replaced by the checked values.
        what: What one field is called in messages, such as "the steering setting".
        error: The class of the error.
        names: What a field is called in messages, where that is not its name.
        examples: What a field looks like, by its name, for messages.

    Raises:
        SteerError: Of the class ``error``; a field has the wrong type or is out of range. The message names the field
            and the value.
    """
    from pydantic import ValidationError

    config_type: Any = type(config)
    for name, adapter in _adapters(config_type).items():
        value = getattr(config, name)
        hint = f"; it is {examples[name]}" if examples and name in examples else ""
        label = f"{what} {(names or {}).get(name, name)}"
        try:
            value = adapter.validate_python(_plain(value), strict=True)
        except RecursionError as problem:
            raise error(f"{label} cannot be {shown(value)}: it is nested too deeply{hint}") from problem
        except ValidationError as problem:
            raise error(f"{_first_problem(problem, label)}{hint}") from problem
        if not isinstance(value, Mapping):  # a mapping stays the caller's own
            object.__setattr__(config, name, value)


class Checked:
    """A base of frozen dataclasses whose fields are checked when an instance is made.

    Raises:
        DataError: A setting has the wrong type or is out of range.
    """

    def __post_init__(self) -> None:
        check_fields(self, "the setting")


def validated(value: Any, schema: Any, where: str, remedy: str) -> Any:
    """Return a value that was read from JSON as an instance of a schema. No value is converted to another type.

    Args:
        value: The value.
        schema: A pydantic model, a dataclass, or a type such as ``dict[str, int]``.
        where: Where the value stands, for the message.
        remedy: What the user can do, for the message.

    Raises:
        DataError: The value does not fit; the message names the field and its value.
    """
    from pydantic import ValidationError

    try:
        return _schema_adapter(schema).validate_json(json.dumps(value, allow_nan=False), strict=True)
    except ValidationError as problem:
        raise DataError(f"{where}: {_first_problem(problem)}; {remedy}") from problem
    except (TypeError, ValueError, RecursionError) as problem:  # for example a tensor, or NaN
        raise DataError(f"{where}: it holds something else than JSON can; {remedy}") from problem


def _first_problem(error: ValidationError, name: str = "") -> str:
    """Which part of a value is wrong, and why; ``name`` is what the whole value is called."""
    first = error.errors(include_url=False)[0]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])[:LONGEST]
    place = f"{name}{path}".removeprefix(".") or "the value"
    if first["type"] == "missing":
        return f"{place} is missing"
    message = f"{first['msg'][0].lower()}{first['msg'][1:]}"
    if first["type"] == "value_error":  # of a validator of this package, whose message says everything
        return message.removeprefix("value error, ")
    return f"{place} cannot be {shown(first['input'])}: {message}"


@cache
def _schema_adapter(schema: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(schema)


@cache
def _adapters(config_type: type[Any]) -> dict[str, TypeAdapter[Any]]:
    """The check of each field, by its name."""
    from pydantic import ConfigDict, TypeAdapter

    hints = get_type_hints(config_type, include_extras=True)
    return {
        name: TypeAdapter(_with_limits(hint), config=ConfigDict(allow_inf_nan=False)) for name, hint in hints.items()
    }


def _with_limits(hint: Any) -> Any:
    """A type, with the limits of its command-line option as limits that pydantic knows."""
    from pydantic import Field

    if get_origin(hint) is not Annotated:
        return hint
    limits = {
        key: getattr(extra, bound)
        for extra in get_args(hint)[1:]
        for bound, key in (("min", "ge"), ("max", "le"))
        if getattr(extra, bound, None) is not None
    }
    return Annotated[hint, Field(**limits)] if limits else hint


def _plain(value: Any) -> Any:
    """Lists as tuples, all the way down; a path as text, and another library's number as one of Python."""
    if isinstance(value, list | tuple):
        return tuple(_plain(part) for part in value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Number) and not isinstance(value, bool | int | float):
        return int(value) if isinstance(value, Integral) else float(value) if isinstance(value, Real) else value
    return value
