"""Noun phrases from a spaCy pipeline, as an alternative to those of ``chunking``.

spaCy is imported only by ``load_nlp``. How well it reads prompts has not been measured: the tests use documents built
by hand.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from learn_to_steer.errors import PromptError, UnsupportedError
from learn_to_steer.prompts import word_lists
from learn_to_steer.prompts.chunking import GivenNoun


def load_nlp(model: str) -> Any:
    """Load a spaCy pipeline.

    Args:
        model: Its name, e.g. "en_core_web_sm".

    Returns:
        The pipeline, which ``parse`` takes as ``nlp``.

    Raises:
        UnsupportedError: spaCy or the model is not installed; the message says how to get it.
    """
    try:
        spacy = import_module("spacy")
    except ImportError as error:
        raise UnsupportedError(
            "spaCy is not installed; pip install 'learn-to-steer[nlp]', or parse without it"
        ) from error
    try:
        return spacy.load(model)
    except OSError as error:
        raise UnsupportedError(
            f"spaCy has no model {model!r}; python -m spacy download {model} (spaCy itself: learn-to-steer[nlp])"
        ) from error


def noun_phrases(doc: Any) -> list[GivenNoun]:
    """Return the noun chunks of a spaCy document, each with the characters that name its object.

    The name is the chunk's root with its compound nouns ("a tall floor lamp" -> "floor lamp"), or a known noun of
    several words that ends there ("hot dog"). Chunks whose root is a pronoun are left out.

    Args:
        doc: A ``spacy.tokens.Doc``, or anything with ``noun_chunks`` whose tokens have ``text``, ``idx``, ``pos_``,
            ``dep_`` and ``head``.

    Returns:
        The noun phrases in the order of the document.

    Raises:
        PromptError: The pipeline has no parser, which noun chunks need.
    """
    try:
        chunks = list(doc.noun_chunks)
    except ValueError as error:  # raised by spaCy
        raise PromptError(f"this spaCy pipeline finds no noun chunks; load one with a parser ({error})") from error
    found = []
    for chunk in chunks:
        tokens = list(chunk)
        inside = {token.idx for token in tokens}
        # The root's head lies outside the chunk. Some parsers leave several such tokens; the last one counts.
        roots = [token for token in tokens if token.head.idx not in inside or token.head.idx == token.idx]
        root = roots[-1] if roots else tokens[-1]
        if root.pos_ not in ("NOUN", "PROPN"):
            continue
        last = tokens.index(root)
        first = last
        while first > 0 and tokens[first - 1].dep_ == "compound" and tokens[first - 1].head.idx in inside:
            first -= 1
        for begin in range(first):
            if tuple(token.text.lower() for token in tokens[begin : last + 1]) in word_lists.COMPOUND_NOUNS:
                first = begin
                break
        end = root.idx + len(root.text)
        found.append(GivenNoun((tokens[0].idx, end), (tokens[first].idx, end)))
    return found
