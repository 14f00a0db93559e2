"""The markup of prompts for user interfaces: what is no English, and what stands for one word.

    (dog:1.3)  [dog]  dog::2  dog++     emphasis: the dog counts
    <lora:ink:0.8>  --ar 16:9           settings: skipped
    cat \\(animal\\)                      which cat is meant: the cat counts
    {dog|wolf}  [dog|wolf]              one of several: the first counts
    [dog:wolf:0.5]                      first a dog, from the middle on a wolf: the dog counts
    BREAK  AND                          a new part of the prompt begins
    <toy>                               a token that was added to the tokenizer: a word

Everything is replaced by as many blanks, so that offsets stay those of the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

Span = tuple[int, int]
MARKUP = re.compile(r"[<>()\[\]{}\\|]|::|--|\+\+|[\u2014\u2013][a-z]|:\s*\d*\.\d|\b[A-Z]{3,}\b")
"""What every prompt with markup has somewhere."""

_TOKEN = re.compile(r"<[^\s<>:/]+>")
_SETTING = re.compile(r"<[^<>]*>")
_ESCAPED = re.compile(r"\\[(\[][^()\[\]\\]*\\[)\]]")
_CHOICE = re.compile(r"\{([^{}]*\|[^{}]*)\}|\[([^\[\]]*\|[^\[\]]*)\]")
_OPTION_WEIGHT = re.compile(r"^\s*(?:[\d.-]+\$\$(?:[^$|]*\$\$)?)?\s*(?:\d*\.?\d+::)?")
_EDIT = re.compile(r"\[([^\[\]:]*):([^\[\]:]*):\s*\d*\.?\d+\s*\]")
_KEYWORD = re.compile(r"\b(?:BREAK|AND|ADDCOL|ADDROW|ADDCOMM|ADDBASE)\b")
_WEIGHT = re.compile(
    r":\s*-?\d*\.\d+|:\s*-?\d+(?=\s*[)\]])|(?<=\))-?\d+(?:\.\d+)?|(?<=[\w)\"])(?:\++|--+)(?=[\s,.)]|$)"
)
_PART_WEIGHT = re.compile(r"::\s?-?(?:\d+(?:\.\d+)?|\.\d+)?")
_VALUE = r"(?:\s+(?:[\d.:]+|raw|cute|expressive|original|scenic)(?=\s|$))?"
_DASHED = r"(?<!\S)[\u2014\u2013](?:ar|aspect|v|version|test|testp|style|stylize|s|q|quality|seed|niji|c|chaos|no)\b"
_FLAG = re.compile(rf"(?:(?<!\S)--no\b[^-]*)|(?:(?<!\S)--[a-z]+|{_DASHED}){_VALUE}", re.IGNORECASE)
# An explanation, not an emphasis: a word, then a bracket with an article in it. "in (a forest)" is none.
_ASIDE = re.compile(r"([^\W\d_]+) (\((?:a|an|the) [^():]*\))")
_BRACKETS = re.compile(r"[()\[\]{}\\<>]")
_PASSES = 8  # of nested choices


def mask(prompt: str, tokens: Collection[str] = (), before_noun: Collection[str] = ()) -> tuple[str, dict[Span, str]]:
    """Blank the markup of a prompt.

    Args:
        prompt: The prompt.
        tokens: Tokens that were added to the tokenizer; each is one word, whatever its characters.
        before_noun: Words after which a bracket is no explanation of the noun before it.

    Returns:
        The prompt, as long as before; and the tokens in it, by the span of all their vectors.
    """
    text = prompt
    words: dict[Span, str] = {}
    for span, name in _find_tokens(prompt, tokens):
        words[span] = name
        text = _blank(text, span, "\ue000")
    text = _ESCAPED.sub(_blanks, _SETTING.sub(_blanks, text))
    for pattern, keep in ((_CHOICE, _first_choice), (_EDIT, _first_edit)):
        for _ in range(_PASSES):
            text, changed = pattern.subn(keep, text)
            if not changed:
                break
    for found in _ASIDE.finditer(text):
        if found[1].lower() not in before_noun and not found[1].endswith("ing"):
            text = _blank(text, found.span(2))
    if any(letter.islower() for letter in prompt):
        text = _KEYWORD.sub(lambda found: ".".ljust(len(found.group())), text)
    text = _FLAG.sub(_blanks, text)
    text = _PART_WEIGHT.sub(lambda found: ("," if found.group()[-1].isdigit() else ".").ljust(len(found.group())), text)
    text = _WEIGHT.sub(_blanks, text)
    return _BRACKETS.sub(" ", text), words


def _find_tokens(prompt: str, tokens: Collection[str]) -> Iterator[tuple[Span, str]]:
    """The tokens in the prompt, with the further vectors of each: "<toy> <toy>_1 <toy>_2"."""
    known = sorted((token for token in tokens if token in prompt), key=len, reverse=True)
    names = [name for name in known if not (re.search(r"_\d+$", name) and name.rpartition("_")[0] in known)]
    patterns = [rf"(?<!\w){re.escape(name)}(?!\w)" if name[0].isalnum() else re.escape(name) for name in names]
    end = 0
    for found in re.finditer("|".join([*patterns, _TOKEN.pattern]), prompt):
        if found.start() < end:
            continue  # a further vector of the token before
        end = vectors_end(prompt, found.group(), found.end())
        yield (found.start(), end), found.group()


def vectors_end(prompt: str, name: str, end: int) -> int:
    """Return where the further vectors of a token end, which textual inversion writes after it.

    Args:
        prompt: The prompt, with "<toy> <toy>_1" for a token of two vectors.
        name: The token, "<toy>".
        end: Where it ends.
    """
    number = 1
    while prompt.startswith(f" {name}_{number}", end):
        end += len(f" {name}_{number}")
        number += 1
    return end


def _first_choice(found: re.Match[str]) -> str:
    """Keep the first alternative of "{dog|wolf}"."""
    inner = found[1] if found[1] is not None else found[2]
    first = inner.split("|")[0]
    weight = _OPTION_WEIGHT.match(first)
    lead = weight.end() if weight else 0
    return (" " * (1 + lead) + first[lead:]).ljust(len(found.group()))


def _first_edit(found: re.Match[str]) -> str:
    """Keep what "[dog:wolf:0.5]" begins with, or what "[:wolf:0.5]" adds."""
    if found[1].strip():
        return (" " + found[1]).ljust(len(found.group()))
    return (" " * (2 + len(found[1])) + found[2]).ljust(len(found.group()))


def _blanks(found: re.Match[str]) -> str:
    return " " * len(found.group())


def _blank(text: str, span: Span, filler: str = " ") -> str:
    return text[: span[0]] + filler * (span[1] - span[0]) + text[span[1] :]
