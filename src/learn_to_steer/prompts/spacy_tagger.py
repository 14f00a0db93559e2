"""A spaCy pipeline as a tagger: which words of a prompt are no nouns.

The grammar knows prompts and their markup better, so it reads first. spaCy sees the words that the grammar sees, with
compounds and hyphenated words whole. A relation whose noun it calls a verb, an adverb or an adjective is left out: it
never adds one. spaCy is imported only here.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from learn_to_steer.errors import PromptError, UnsupportedError
from learn_to_steer.prompts.tagging import QUOTE, TaggedPrompt
from learn_to_steer.vocabulary import CLASSES

_NOT_NOUNS = ("VERB", "AUX", "ADV", "ADJ")
_COMMON_OBJECTS = {word for name in CLASSES for word in name.split()}


def load_nlp(model: str) -> Any:
    """Load a spaCy pipeline.

    Args:
        model: Its name, e.g. "en_core_web_sm". An installed package that provides it under a longer name is taken too.

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
        for name in spacy.util.get_installed_models():
            if name.startswith(f"{model}_"):
                return spacy.load(name)
        raise UnsupportedError(
            f"spaCy has no model {model!r}; python -m spacy download {model} (spaCy itself: pip install "
            "'learn-to-steer[nlp]')"
        ) from error


def words_no_nouns(tagged: TaggedPrompt, nlp: Any) -> set[int]:
    """Return the words that a spaCy pipeline takes for a verb, an adverb or an adjective.

    Args:
        tagged: The prompt.
        nlp: The pipeline.

    Returns:
        The indices of these words. Compounds, hyphenated words, quotations and names of common objects are not among
        them.

    Raises:
        PromptError: The pipeline does not tag parts of speech.
    """
    words: list[str] = []
    single: list[int | None] = []  # the index of the word in the prompt, unless the grammar is sure of it
    index = 0
    while index < len(tagged.texts):
        length = max(tagged.compound_at(index), 1)
        while index + length < len(tagged.texts) and tagged.gap_before(index + length) == "-":
            length += 1
        start, end = tagged.spans[index][0], tagged.spans[index + length - 1][1]
        token = index in tagged.names
        words.append("thing" if token else "-".join(tagged.text[start:end].split()) or ".")
        sure = length > 1 or token or tagged.texts[index] == QUOTE or tagged.texts[index] in _COMMON_OBJECTS
        single.append(None if sure else index)
        index += length
    if not words:
        return set()
    doc_class = import_module("spacy.tokens").Doc
    tags = [token.pos_ for token in nlp(doc_class(nlp.vocab, words=words))]
    if not any(tags):
        raise PromptError("this spaCy pipeline tags no parts of speech; load one with a tagger, e.g. en_core_web_sm")
    return {index for index, tag in zip(single, tags, strict=True) if index is not None and tag in _NOT_NOUNS}
