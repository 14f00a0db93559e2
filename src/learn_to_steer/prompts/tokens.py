"""A prompt as words: where each stands, and which are another's (quoted) or no words at all (weights)."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Words (with their apostrophes, straight or curly), then commas and dashes, then ends of sentences.
_TOKEN = re.compile(
    r"\d+(?:[.,/:]\d+)+\w*|[^\W_]+(?:['\u2019][^\W_]+)*|[,;:&+/\u2014\u2013]|[.!?|]|(?<=\s)-(?=\s)|\n\s*\n"
)
_QUOTED = re.compile(
    r"\"[^\"]*\"|\u201c[^\u201d]*\u201d|\u00ab[^\u00bb]*\u00bb|(?<!\w)'[^']*'(?!\w)|(?<!\w)\u2018[^\u2019]*\u2019(?!\w)"
)
# "(dog:1.2)" is a dog with a weight, "<lora:ink:0.8>" and "--ar 16:9" are for a program.
_MARKUP = re.compile(r":\s*\d*\.\d+|:\s*\d+(?=\s*[)\]])|<[^<>]*>|--[a-z]+(?:\s+[\d.:]+)?", re.IGNORECASE)
QUOTE = '"'


@dataclass(frozen=True)
class Token:
    """A word in lower case (``QUOTE`` for a whole quotation) and its characters."""

    text: str
    span: tuple[int, int]


def tokens(prompt: str) -> list[Token]:
    """The words and marks of a prompt, left to right.

    What stands in quotation marks is one token: its words are lettering in the picture or a title. A prompt that
    is quoted as a whole is read as if it were not.
    """
    closed = [found.span() for found in _QUOTED.finditer(prompt) if found.group() != prompt.strip()]
    hidden = [found.span() for found in _MARKUP.finditer(prompt)]
    found = [Token(QUOTE, span) for span in closed]
    for token in _TOKEN.finditer(prompt):
        if not any(start <= token.start() < end for start, end in closed + hidden):
            text = token.group().lower()
            found.append(Token(text if text.strip() else ".", token.span()))
    return sorted(found, key=lambda token: token.span)
