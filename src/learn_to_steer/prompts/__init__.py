"""Prompts and the spatial relations they ask for.

``parse`` reads a prompt in three stages: ``tagging`` (words and what each can be), ``chunking`` (nouns and relation
phrases) and ``parser`` (which nouns each relation connects). Harder cases have files of their own: ``markup``,
``phrase_verbs``, ``subjects``, ``coordination`` and ``pronouns``. ``word_lists`` and ``noun_lists`` are the words that
they know. ``relation`` has the relations themselves, their English wordings, and the search for their nouns in a
prompt. ``token_alignment`` finds the tokens of an object.
"""

from learn_to_steer.prompts.parser import Analysis, PassedOver, analyse, parse
from learn_to_steer.prompts.relation import (
    PREDICATES,
    Relation,
    indefinite_article,
    locate,
    phrase,
    predicate_from_text,
    relation_prompt,
    shift_spans,
)
from learn_to_steer.prompts.spacy_tagger import load_nlp
from learn_to_steer.prompts.token_alignment import added_tokens, require_characters, token_indices

__all__ = [
    "PREDICATES",
    "Analysis",
    "PassedOver",
    "Relation",
    "added_tokens",
    "analyse",
    "indefinite_article",
    "load_nlp",
    "locate",
    "parse",
    "phrase",
    "predicate_from_text",
    "relation_prompt",
    "require_characters",
    "shift_spans",
    "token_indices",
]
