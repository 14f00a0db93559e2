"""Values and text from prompts, file names and foreign files, made safe to show in a message or on a page."""

from __future__ import annotations

import re
from typing import Any

LONGEST = 80  # characters of a value that a message shows

# C0 and C1 controls (escape sequences begin with one), line and paragraph separators, characters that reverse the
# direction of the text around them, and lone surrogates, which no encoding can write.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str) -> str:
    """Return ``text`` with escapes for characters that would not be shown but obeyed, such as ``\\u001b`` for ESC.

    JSON has the same escapes, so JSON text stays what it is.
    """
    return _UNSAFE.sub(lambda found: _SHORT.get(found[0], f"\\u{ord(found[0]):04x}"), text)


def one_line(text: str) -> str:
    """Return ``text`` on one line, as ``printable``: every run of white space becomes a blank."""
    return printable(" ".join(text.split()))


def shown(value: Any) -> str:
    """Return a value as messages show it: as Python writes it, and cut if it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or a list inside itself
        text = f"a very long {type(value).__name__}"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."


def has_lone_surrogate(text: str) -> bool:
    """Return whether ``text`` holds half of a surrogate pair, which is no character and cannot be written to a file.

    JSON files may escape one, and bytes of the command line that are not UTF-8 become such.
    """
    return any("\ud800" <= character <= "\udfff" for character in text)
