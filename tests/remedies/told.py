"""``told`` and ``tells``: a message names a remedy. ``test_remedies.py`` looks for the texts in tests that use them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from learn_to_steer.errors import SteerError


@contextmanager
def told(remedy: str) -> Iterator[None]:
    """The code inside raises an error whose message holds ``remedy``, which the test then does."""
    with pytest.raises((SteerError, ValueError), match=re.escape(remedy)):
        yield


def tells(text: str, remedy: str) -> bool:
    """Whether a text, such as stderr or a log, holds a remedy, which the test then does."""
    return remedy in " ".join(text.split())
