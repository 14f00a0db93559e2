"""spaCy's noun chunks in place of our own: only for callers who pass a pipeline; spaCy is not imported here.

Tested on hand-built stand-ins for spaCy's documents. How a real model does on prompts has not been measured.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from learn_to_steer.errors import PromptError, UnsupportedError
from learn_to_steer.prompts import nouns
from learn_to_steer.prompts.chunks import Noun


def load_nlp(model: str) -> Any:
    """The spaCy pipeline called ``model``, e.g. "en_core_web_sm".

    Raises UnsupportedError when spaCy or the model is not installed, saying how to get it.
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


def noun_phrases(doc: Any) -> list[Noun]:
    """The object phrases of a spaCy ``Doc``: its noun chunks, each with the characters that name its object.

    The name is the chunk's root with the nouns compounded to it ("a tall floor lamp" -> "floor lamp"), or a known
    noun of several words that ends there ("hot dog"). Chunks whose root is a pronoun name nothing.
    ``doc`` may be anything with ``noun_chunks``, whose tokens have ``text``, ``idx``, ``pos_``, ``dep_`` and
    ``head``. Raises PromptError when the pipeline has no parser, without which there are no chunks.
    """
    try:
        chunks = list(doc.noun_chunks)
    except ValueError as error:  # spaCy's own way to say so
        raise PromptError(f"this spaCy pipeline finds no noun chunks; load one with a parser ({error})") from error
    found = []
    for chunk in chunks:
        tokens = list(chunk)
        inside = {token.idx for token in tokens}
        # Whose head lies outside the chunk heads it; the last one, should a parser leave several.
        roots = [token for token in tokens if token.head.idx not in inside or token.head.idx == token.idx]
        root = roots[-1] if roots else tokens[-1]
        if root.pos_ not in ("NOUN", "PROPN"):
            continue
        last = tokens.index(root)
        first = last
        while first > 0 and tokens[first - 1].dep_ == "compound" and tokens[first - 1].head.idx in inside:
            first -= 1
        for begin in range(first):
            if tuple(token.text.lower() for token in tokens[begin : last + 1]) in nouns.COMPOUNDS:
                first = begin
                break
        end = root.idx + len(root.text)
        found.append(Noun((tokens[0].idx, end), (tokens[first].idx, end)))
    return found
