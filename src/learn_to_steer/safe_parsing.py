"""Parses YAML and JSON that may be hostile or wrong: depth and the effect of aliases are limited.

Whatever is wrong becomes a ``DataError`` that names the place.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from learn_to_steer.errors import DataError

if TYPE_CHECKING:
    import yaml

StrPath = str | os.PathLike[str]
DEEPEST = 40  # levels of lists and mappings inside each other
MOST_NODES = 10_000  # values of a YAML file, with every alias counted as what it stands for
TOO_DEEP = f"it is nested more than {DEEPEST} levels deep"


@dataclass(frozen=True)
class YamlMapping:
    """The mapping in a YAML file.

    Attributes:
        values: Its values by key, in order.
        lines: The line of each key, counted from 1.
    """

    values: dict[Any, Any]
    lines: dict[Any, int]


class _RefusedError(ValueError):
    """JSON that Python's parser accepts and this module does not."""


def parse_json(data: str | bytes, where: str, remedy: str = "correct it", *, finite: bool = True) -> Any:
    """Return the value of a JSON text.

    Args:
        data: The text; as bytes it is UTF-8, perhaps with a byte order mark.
        where: What holds the text, for messages.
        remedy: What the user can do, for messages.
        finite: Whether to refuse NaN and infinite numbers, which are not JSON, though Python writes them.

    Raises:
        DataError: It is not JSON, a key occurs twice, or it is nested too deep.
    """
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        value = json.loads(
            text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant if finite else None
        )
        reason = TOO_DEEP if _depth(value) > DEEPEST else ""
    except json.JSONDecodeError as error:
        where += f", line {error.lineno}" if "\n" in text else ""
        reason = f"not valid JSON, column {error.colno}: {error.msg}"
    except RecursionError:
        reason = TOO_DEEP
    except UnicodeDecodeError:
        reason = "not UTF-8 text"
    except _RefusedError as error:
        reason = f"not valid JSON: {error}"
    except ValueError:  # Python's limit
        reason = "an integer has too many digits"
    if reason:
        raise DataError(f"{where}: {reason}; {remedy}")
    return value


def parse_yaml(data: bytes, path: StrPath) -> YamlMapping:
    """Return the mapping in the content of a YAML file; an empty file holds an empty one.

    Args:
        data: The content: UTF-8, perhaps with a byte order mark.
        path: The file, for messages.

    Raises:
        DataError: It is not YAML, or holds something else than one mapping; a key occurs twice; it is too deep or
            long, or its aliases make it so.
    """
    import yaml

    text = _yaml_text(data, path)
    try:
        loader = yaml.SafeLoader(text)
        _check_events(text, path)
        root = loader.get_single_node()
        if root is None:
            return YamlMapping({}, {})
        if not isinstance(root, yaml.MappingNode):
            raise DataError(f"{path} must hold one 'option: value' per line")
        _measure(root, path, {}, ())
        loader.flatten_mapping(root)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        raise DataError(f"{path}{place}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    except RecursionError as error:
        raise DataError(f"{path} cannot be read: {TOO_DEEP}") from error
    values, lines = {}, {}
    for key_node, value_node in root.value:
        line = key_node.start_mark.line + 1
        try:
            key = loader.construct_object(key_node, deep=True)
            values[key] = loader.construct_object(value_node, deep=True)
        except Exception as error:  # a date in month 13, an integer of too many digits, an unknown tag, ...
            reason = getattr(error, "problem", None) or (
                str(error) if isinstance(error, ValueError) else "a wrong type"
            )
            name = key_node.value if isinstance(key_node, yaml.ScalarNode) else "a list or mapping as a key"
            raise DataError(f"{path}, line {line}: {name} cannot be read: {reason}") from error
        lines[key] = line
    return YamlMapping(values, lines)


def _yaml_text(data: bytes, path: StrPath) -> str:
    """The text of a YAML file; DataError if it is none."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8") from error
    odd = next((n for n, char in enumerate(text) if char < " " and char not in "\t\n\r"), None)
    if odd is not None:
        raise DataError(f"{path}, line {text.count(chr(10), 0, odd) + 1}: not valid YAML: a control character")
    return text


def _check_events(text: str, path: StrPath) -> None:
    """Check depth and length while the text is read: to build what it says could take minutes."""
    import yaml

    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST or count > MOST_NODES:
            reason = TOO_DEEP if depth > DEEPEST else f"it holds more than {MOST_NODES} values"
            raise DataError(f"{path}, line {event.start_mark.line + 1} cannot be read: {reason}")


def _measure(node: yaml.Node, path: StrPath, sizes: dict[int, int], parents: tuple[int, ...]) -> int:
    """The number of values in a node, with aliases counted as what they stand for; also checks depth and keys."""
    import yaml

    line = node.start_mark.line + 1
    if id(node) in parents:
        raise DataError(f"{path}, line {line}: a value contains itself (&name and *name)")
    if len(parents) > DEEPEST:
        raise DataError(f"{path}, line {line} cannot be read: {TOO_DEEP}")
    if id(node) in sizes:
        return sizes[id(node)]
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        keys = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in keys:
                    raise DataError(f"{path}, line {key.start_mark.line + 1}: {key.value} is given twice")
                keys.add(key.value)
            children += [key, value]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    size = 1
    for child in children:
        size += _measure(child, path, sizes, (*parents, id(node)))
        if size > MOST_NODES:
            raise DataError(f"{path}, line {line}: its aliases (*name) stand for more than {MOST_NODES} values")
    sizes[id(node)] = size
    return size


def _depth(value: Any) -> int:
    """How many levels of lists and mappings are inside each other."""
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RefusedError(f"{next(key for key in keys if keys.count(key) > 1)[:80]!r} is given twice")
    return value


def _refuse_constant(name: str) -> None:
    raise _RefusedError(f"{name} is no number of JSON")
