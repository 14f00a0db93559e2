"""Text and relations: what a prompt asks for, where it says so, and how to say it."""

from learn_to_steer.prompts._spacy import load_nlp
from learn_to_steer.prompts.parser import parse
from learn_to_steer.prompts.phrases import PREDICATES, phrase
from learn_to_steer.prompts.relation import Relation, article, locate, relation_prompt
from learn_to_steer.prompts.spans import token_columns

__all__ = [
    "PREDICATES",
    "Relation",
    "article",
    "load_nlp",
    "locate",
    "parse",
    "phrase",
    "relation_prompt",
    "token_columns",
]
