"""Strategies for damaged files: edits of the bytes of a file, and edits of the values in a JSON tree.

An edit is plain data, so that a fault that was found can be written down as an ``@example``.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

DELETE = "<delete>"
TWICE = "<twice>"
NOT_FINITE = (float("nan"), float("inf"), float("-inf"))
WORDS = ("", " ", "dog", "left of", "true", "wrong", "train-0000", "../..", "\x00", "\x1b[31m", "\ud800", "9" * 5000)
NUMBERS = (0, -1, 1, 2, 3, 7, 0.5, -0.0, 1e308, 1e-320, 2**31, 2**63, 2**64, 10**400, *NOT_FINITE)

scalars = st.one_of(st.none(), st.booleans(), st.sampled_from(NUMBERS), st.sampled_from(WORDS), st.text(max_size=5))
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS[:6]), inner, max_size=3)
)
tree_edits = st.lists(
    st.tuples(st.integers(0, 10_000), st.just(DELETE) | st.just(TWICE) | values), min_size=1, max_size=3
)
byte_edits = st.lists(
    st.tuples(st.integers(0, 1_000_000), st.integers(0, 4), st.binary(max_size=4)), min_size=1, max_size=4
)
Edits = Sequence[tuple[int, Any]]


def edited_bytes(content: bytes, edits: Sequence[tuple[int, int, bytes]]) -> bytes:
    """``content`` with some bytes replaced: from each place on, so many are removed and others are put there.

    Of 4 bytes removed and none inserted, the rest of the content is meant.
    """
    for at, removed, inserted in edits:
        at %= len(content) + 1
        end = len(content) if removed == 4 and not inserted else at + removed
        content = content[:at] + inserted + content[end:]
    return content


def edited_tree(value: Any, edits: Edits) -> Any:
    """A copy of a JSON value in which some parts, counted in reading order, are deleted, doubled or replaced."""
    holder = [copy.deepcopy(value)]
    for number, change in edits:
        places = list(_places(holder))
        if not places:
            break
        parent, key = places[number % len(places)]
        if change == DELETE:
            del parent[key]
        elif change == TWICE:
            if isinstance(parent, list):
                parent.insert(key, copy.deepcopy(parent[key]))
            else:
                parent[f"{key} "] = copy.deepcopy(parent[key])
        else:
            parent[key] = change
    return holder[0] if holder else None


def as_json(value: Any) -> bytes:
    """JSON with what Python's writer lets through: NaN, infinity and lone surrogates."""
    return json.dumps(value).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in list(items):
        yield value, key
        yield from _places(part)
