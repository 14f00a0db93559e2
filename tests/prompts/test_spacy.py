"""spaCy as a tagger with a veto, with its real English model where it is installed."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from learn_to_steer.errors import PromptError, SteerError, UnsupportedError
from learn_to_steer.prompts import analyse, load_nlp, parse

MODEL = "en_core_web_sm"
FOLDER = Path(__file__).parent
COMPOUNDS = (
    "teddy bear",
    "fire hydrant",
    "semi truck",
    "hot dog",
    "stop sign",
    "hot air balloon",
    "hair drier",
    "t-shirt",
)


@pytest.fixture(scope="module")
def nlp() -> Any:
    pytest.importorskip("spacy")
    try:
        return load_nlp(MODEL)
    except UnsupportedError as error:
        pytest.skip(str(error))


@pytest.mark.nlp
@pytest.mark.parametrize("name", COMPOUNDS)
@pytest.mark.parametrize(
    "form", ["a {} left of a cat", "A cat is above the {}.", "two cats below a red {}, oil painting"]
)
def test_compounds_are_read_as_the_grammar_alone_reads_them(nlp: Any, name: str, form: str) -> None:
    for spelled in (name, name.replace(" ", "-")):
        prompt = form.format(spelled)
        assert len(parse(prompt)) == 1
        assert parse(prompt, nlp=nlp) == parse(prompt)


@pytest.mark.nlp
@pytest.mark.slow
def test_it_takes_away_and_never_adds(nlp: Any) -> None:
    rows = [json.loads(line) for line in (FOLDER / "long.jsonl").read_text(encoding="utf-8").splitlines()]
    for name in ("kinds.json", "dense.json", "cases.json"):
        rows += json.loads((FOLDER / name).read_text(encoding="utf-8"))
    alone = [set(parse(row["prompt"])) for row in rows]
    checked = [set(parse(row["prompt"], nlp=nlp)) for row in rows]
    assert all(some <= every for some, every in zip(checked, alone, strict=True))
    kept = sum(map(len, checked)) / sum(map(len, alone))
    assert kept > 0.93
    assert kept < 1


@pytest.mark.nlp
def test_a_verb_that_was_read_as_a_noun_is_named(nlp: Any) -> None:
    prompt = "Dogs zigzagged and snoozled under a table"
    found = analyse(prompt, nlp=nlp)
    assert {phrase.reason for phrase in found.passed_over} <= {"not a noun", "unclear subject", "no subject"}
    assert len(found.relations) <= len(parse(prompt))


@pytest.mark.nlp
@pytest.mark.parametrize(
    "prompt",
    ["(hair over one eye:1.3)", "a <toy> above a (teddy bear:1.2)", "?!", "\\(a\\)", "a {dog|wolf} above a cat"],
)
def test_it_reads_markup_as_the_grammar_does(nlp: Any, prompt: str) -> None:
    assert parse(prompt, nlp=nlp) == parse(prompt)


def stand_in(monkeypatch: pytest.MonkeyPatch, tags: dict[str, str]) -> Any:
    """A pipeline that tags words by a table, and every other word as a noun."""

    class Doc:
        def __init__(self, vocab: Any, words: list[str]) -> None:
            self.tokens = [types.SimpleNamespace(text=word, pos_=tags.get(word, "NOUN")) for word in words]

    class Pipeline:
        vocab = None

        def __call__(self, doc: Doc) -> Any:
            return doc.tokens

    monkeypatch.setitem(sys.modules, "spacy.tokens", types.SimpleNamespace(Doc=Doc))
    return Pipeline()


def test_a_noun_that_it_calls_a_verb_gives_no_relation(monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = "glorps above a table"
    assert len(parse(prompt)) == 1
    found = analyse(prompt, nlp=stand_in(monkeypatch, {"glorps": "VERB"}))
    assert found.relations == ()
    assert [(phrase.reason, phrase.noun) for phrase in found.passed_over] == [("not a noun", "glorps")]


def test_the_grammar_is_sure_of_compounds_and_of_nouns_with_an_article(monkeypatch: pytest.MonkeyPatch) -> None:
    nlp = stand_in(monkeypatch, {"bear": "VERB", "glorp": "VERB", "teddy-bear": "VERB", "lamp-post": "VERB"})
    assert len(parse("teddy bear left of a glorp", nlp=nlp)) == 1
    assert len(parse("lamp post left of a glorp", nlp=nlp)) == 1


def test_a_pipeline_without_a_tagger_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("a", "dog", "above", "cat")
    with pytest.raises(PromptError, match="tagger"):
        parse("a dog above a cat", nlp=stand_in(monkeypatch, dict.fromkeys(words, "")))


def test_without_spacy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'learn-to-steer\[nlp\]'"):
        load_nlp(MODEL)


def test_a_model_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> Any:
        if name in ("there", "en_long_name"):
            return name
        raise OSError(f"[E050] Can't find model '{name}'.")

    util = types.SimpleNamespace(get_installed_models=lambda: ["de_other", "en_long_name"])
    monkeypatch.setitem(sys.modules, "spacy", types.SimpleNamespace(load=load, util=util))
    assert load_nlp("there") == "there"
    assert load_nlp("en_long") == "en_long_name"
    with pytest.raises(SteerError, match=r"no model 'fr'.*spacy download fr.*learn-to-steer\[nlp\]"):
        load_nlp("fr")
