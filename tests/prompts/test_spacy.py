"""The adapter for spaCy, on stand-ins for its documents: no model is needed, and none is measured here."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass, field
from typing import Any

import pytest

from learn_to_steer.errors import PromptError, SteerError, UnsupportedError
from learn_to_steer.prompts import load_nlp, parse
from learn_to_steer.prompts.spacy_nouns import noun_phrases


@dataclass(eq=False)
class Token:
    """What the adapter reads of a ``spacy.tokens.Token``."""

    text: str
    idx: int
    pos_: str
    dep_: str = "dep"
    head: Any = None


@dataclass
class Doc:
    """A document of noun chunks: lists of tokens, as a ``Span`` is one to iterate over."""

    noun_chunks: list[list[Token]] = field(default_factory=list)


def document(prompt: str, *chunks: str) -> Doc:
    """Each chunk as "a/DET tall/ADJ floor/NOUN+ lamp/NOUN": + is compounded to the last word, the root."""
    doc, at = Doc(), 0
    for chunk in chunks:
        words = [word.rsplit("/", 1) for word in chunk.split()]
        at = prompt.index(" ".join(text for text, _ in words), at)
        tokens = []
        for text, tag in words:
            at = prompt.index(text, at)
            tokens.append(Token(text, at, tag.rstrip("+"), "compound" if tag.endswith("+") else "det"))
            at += len(text)
        tokens[-1].dep_ = "pobj"
        for token in tokens:
            token.head = tokens[-1]
        tokens[-1].head = Token("of", -1, "ADP")
        doc.noun_chunks.append(tokens)
    return doc


def read(prompt: str, *chunks: str) -> list[list[str]]:
    found = parse(prompt, nlp=lambda text: document(text, *chunks))
    for relation in found:
        assert prompt[slice(*relation.subject_span)].lower() == relation.subject
        assert prompt[slice(*relation.object_span)].lower() == relation.object
    return [relation.as_list() for relation in found]


def test_names_keep_compounds_and_lose_adjectives() -> None:
    prompt = "a red Sports car to the left of a tall floor lamp"
    chunks = ("a/DET red/ADJ Sports/NOUN+ car/NOUN", "the/DET left/NOUN", "a/DET tall/ADJ floor/NOUN+ lamp/NOUN")
    assert read(prompt, *chunks) == [["sports car", "left of", "floor lamp"]]


def test_known_compounds_stay_whole_whatever_the_tagger_says() -> None:
    assert read("a hot dog above a bus", "a/DET hot/ADJ dog/NOUN", "a/DET bus/NOUN") == [["hot dog", "above", "bus"]]
    (noun,) = noun_phrases(document("my hot air balloon", "my/PRON hot/ADJ air/NOUN+ balloon/NOUN"))
    assert noun.name == (3, 18)


def test_verbs_that_our_grammar_does_not_know_are_no_nouns() -> None:
    prompt = "the dog snoozes under the table"
    assert read(prompt, "the/DET dog/NOUN", "the/DET table/NOUN") == [["dog", "below", "table"]]


def test_the_right_occurrence() -> None:
    prompt = "a dog left of a cat and a dog above a bird"
    nlp = document(prompt, "a/DET dog/NOUN", "a/DET cat/NOUN", "a/DET dog/NOUN", "a/DET bird/NOUN")
    spans = [(r.subject_span, r.object_span) for r in parse(prompt, nlp=lambda text: nlp)]
    assert spans == [((2, 5), (16, 19)), ((26, 29), (38, 42))]


def test_the_grammar_around_the_nouns_is_ours() -> None:
    assert read("Above the bench hangs a clock.", "the/DET bench/NOUN", "a/DET clock/NOUN") == [
        ["clock", "above", "bench"]
    ]
    assert read("a building under construction", "a/DET building/NOUN", "construction/NOUN") == []
    assert read("a flock of over 100 birds", "a/DET flock/NOUN", "over/ADP 100/NUM birds/NOUN") == []
    assert read("no dog above a cat", "no/DET dog/NOUN", "a/DET cat/NOUN") == []


def test_pronouns_name_nothing() -> None:
    assert read("a cat with a dog above it", "a/DET cat/NOUN", "a/DET dog/NOUN", "it/PRON") == []
    prompt = "a dog and the one above a cat"
    assert read(prompt, "a/DET dog/NOUN", "the/DET one/PRON", "a/DET cat/NOUN") == []


def test_a_pipeline_without_a_parser_is_refused() -> None:
    class Bare:
        @property
        def noun_chunks(self) -> Any:
            raise ValueError("[E029] noun_chunks requires the dependency parse")

    with pytest.raises(PromptError, match="with a parser"):
        parse("a dog above a cat", nlp=lambda text: Bare())


def test_without_spacy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(UnsupportedError, match=r"learn-to-steer\[nlp\]"):
        load_nlp("en_core_web_sm")


def test_a_model_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> Any:
        if name == "there":
            return "pipeline"
        raise OSError(f"[E050] Can't find model '{name}'.")

    monkeypatch.setitem(sys.modules, "spacy", types.SimpleNamespace(load=load))
    assert load_nlp("there") == "pipeline"
    with pytest.raises(SteerError, match=r"no model 'en'.*learn-to-steer\[nlp\]"):
        load_nlp("en")
