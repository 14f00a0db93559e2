"""Prompts and the spatial relations they ask for.

``parse`` reads a prompt in three stages: ``tagging`` (words and what each can be), ``chunking`` (nouns and relation
phrases) and ``parser`` (which noun each relation is about). ``relation`` words relations and finds them in a prompt;
``token_alignment`` finds an object's tokens.
"""

from learn_to_steer.prompts.parser import parse
from learn_to_steer.prompts.relation import (
    PREDICATES,
    Relation,
    indefinite_article,
    locate,
    phrase,
    predicate_from_text,
    relation_prompt,
)
from learn_to_steer.prompts.spacy_nouns import load_nlp
from learn_to_steer.prompts.token_alignment import token_indices

__all__ = [
    "PREDICATES",
    "Relation",
    "indefinite_article",
    "load_nlp",
    "locate",
    "parse",
    "phrase",
    "predicate_from_text",
    "relation_prompt",
    "token_indices",
]
