"""Find the tokens of an encoded prompt that belong to a span of its characters, for any tokenizer of transformers."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

from learn_to_steer.errors import PromptError, UnsupportedError

Span = tuple[int, int]
_NO_LIMIT = 10**6  # transformers writes "no limit" as a huge model_max_length
# Word boundaries as written by BPE, WordPiece, SentencePiece and byte-level BPE.
_MARKS = ("</w>", "##", "\u2581", "\u0120")


def token_indices(
    tokenizer: Any,
    prompt: str,
    spans: Sequence[Span],
    *,
    max_length: int | None = None,
    before: str = "",
    after: str = "",
    add_special_tokens: bool = True,
) -> list[tuple[int, ...]]:
    """Find the token indices of each character span.

    Args:
        tokenizer: A tokenizer of transformers, fast or slow.
        prompt: The prompt that the spans refer to.
        spans: Character offsets (start, end), one per object.
        max_length: The number of tokens that the model sees, special tokens included; None for the tokenizer's own
            limit.
        before: What a template puts before the prompt.
        after: What it puts after the prompt.
        add_special_tokens: Whether the tokenizer adds special tokens to this text; a chat template may have its own.

    Returns:
        For each span the indices of all tokens that overlap it, in order. Special tokens are counted, and so is what
        stands before the prompt: CLIP's start token has index 0, T5 has none.

    Raises:
        PromptError: A span is empty or outside the prompt, its word lies beyond ``max_length``, or the prompt holds
            half of a surrogate pair.
        UnsupportedError: The tokenizer gives no offsets and cannot be aligned with the text.
    """
    require_characters(prompt)
    limit = tokenizer.model_max_length if max_length is None else max_length
    align = _fast if getattr(tokenizer, "is_fast", False) else _slow
    pieces, tail = align(tokenizer, before + prompt + after, add_special_tokens)
    # Truncation keeps the special tokens at the end, so fewer tokens of the text remain.
    seen = limit - tail if limit < _NO_LIMIT else _NO_LIMIT
    columns = []
    for start, end in spans:
        word = prompt[max(start, 0) : end]
        if not 0 <= start < end <= len(prompt):
            raise PromptError(f"the span ({start}, {end}) lies outside the prompt {prompt!r}")
        left, right = start + len(before), end + len(before)
        found = tuple(column for column, (first, last) in pieces.items() if first < right and last > left)
        if not found:
            raise PromptError(f"the tokenizer has no token for {word!r} in {prompt!r}; use another word")
        if found[-1] >= seen:
            raise PromptError(
                f"{word!r} lies beyond the {limit} tokens that the model reads of this prompt; "
                "shorten it or name the object earlier"
            )
        columns.append(found)
    return columns


def require_characters(prompt: str) -> None:
    """Refuse half of a surrogate pair, which is no character: no tokenizer takes it.

    Args:
        prompt: The prompt.

    Raises:
        PromptError: The prompt holds one.
    """
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise PromptError(
            f"the prompt {prompt!a} is not valid text (it holds half of a surrogate pair); write it anew"
        ) from None


def added_tokens(tokenizer: Any) -> frozenset[str]:
    """Return the tokens that were added to a tokenizer, for example by textual inversion, without special ones.

    Args:
        tokenizer: A tokenizer of transformers.
    """
    added: dict[str, int] = getattr(tokenizer, "get_added_vocab", dict)()
    return frozenset(added) - frozenset(getattr(tokenizer, "all_special_tokens", ()))


def _fast(tokenizer: Any, prompt: str, add_special_tokens: bool) -> tuple[dict[int, Span], int]:
    """Token index -> character span, without special tokens; and the number of special tokens at the end."""
    encoded = tokenizer(
        prompt,
        add_special_tokens=add_special_tokens,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        truncation=False,
        verbose=False,
    )
    special = encoded["special_tokens_mask"]
    offsets = encoded["offset_mapping"]
    pieces = {column: (int(a), int(b)) for column, (a, b) in enumerate(offsets) if a < b and not special[column]}
    return pieces, _tail([bool(flag) for flag in special])


def _slow(tokenizer: Any, prompt: str, add_special_tokens: bool) -> tuple[dict[int, Span], int]:
    """As ``_fast``, by spelling out the prompt token by token, ignoring case, accents and white space."""
    ids = tokenizer(prompt, add_special_tokens=add_special_tokens, truncation=False, verbose=False)["input_ids"]
    special = [token in tokenizer.all_special_ids for token in ids]
    letters = [(letter, at) for at, character in enumerate(prompt) for letter in _folded(character)]
    pieces: dict[int, Span] = {}
    group: list[int] = []
    cursor = 0
    for column, closed in enumerate(special):
        if closed:
            continue
        group.append(column)
        text = _text(tokenizer, [ids[c] for c in group])
        if "\ufffd" in text:  # the bytes of this character are spread over several tokens
            continue
        spelled = _folded(text)
        if "".join(letter for letter, _ in letters[cursor : cursor + len(spelled)]) != spelled:
            raise UnsupportedError(
                f"{type(tokenizer).__name__} gives no character offsets and its piece {text!r} does not spell "
                f"the prompt {prompt!r}; load the fast tokenizer (use_fast=True)"
            )
        if spelled:
            span = (letters[cursor][1], letters[cursor + len(spelled) - 1][1] + 1)
            pieces.update(dict.fromkeys(group, span))
        cursor += len(spelled)
        group = []
    return pieces, _tail(special)


def _text(tokenizer: Any, ids: list[int]) -> str:
    """The text of some token ids, without marks of word boundaries."""
    text: str = tokenizer.convert_tokens_to_string(tokenizer.convert_ids_to_tokens(ids))
    for mark in _MARKS:
        text = text.replace(mark, " ")
    return text


def _folded(text: str) -> str:
    """``text`` in lower case, without accents and white space."""
    decomposed = unicodedata.normalize("NFKD", text.lower())
    return "".join(c for c in decomposed if not c.isspace() and not unicodedata.combining(c))


def _tail(special: list[bool]) -> int:
    """The number of special tokens at the end of an encoding."""
    return next((n for n, flag in enumerate(reversed(special)) if not flag), len(special))
