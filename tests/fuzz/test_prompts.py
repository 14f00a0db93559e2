"""Any prompt is parsed, or refused with an error of our own; spans and text columns are those of the words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from learn_to_steer.errors import PromptError, SteerError
from learn_to_steer.prompts import PREDICATES, Relation, locate, parse, phrase, relation_prompt, token_indices
from learn_to_steer.steering import SteeringConfig

MORE = settings(max_examples=3 * settings().max_examples)
NOUNS = (
    "dog",
    "cat",
    "teddy bear",
    "hot dog",
    "traffic light",
    "sheep",
    "glass",
    "knives",
    "t-shirt",
    "Öl",
    "犬",
    "🐶",
)
WORDINGS = (*map(phrase, PREDICATES), "on top of", "under", "left of", "next to", "on the right side of", "and", "is")
MARKUP = (
    "(dog:1.3)", "((cat))", "[cat]", "[dog:cat:0.5]", "<lora:style:0.8>", "<toy>", "<hypernet:x>", "BREAK", "AND",
    "{a dog|a cat}", "__animal__", "\\(", "\\)", "(", ")", ":1.2)", "|", ",", ".", ";", "\n", "\t", '"', "'", "$",
    "\u2019s", "a", "an", "the", "two", "3", "its", "it", "which", "that", "of the picture", "in the background",
    "photo of",
)  # fmt: skip
STRANGE = (
    "\x00", "\x1b[31m", "\r", "\x7f", "\u200b", "\u202e", "\ufeff", "e\u0301", "ﬁ", "ß", "İ", "ǅ", "\ud800",
    "\U0010ffff", "\uff11", "²", "…", "—", "\u00a0", "\u2028", "\u0627", "ก็", "👩‍👩‍👧", "a" * 300, "</w>", "▁", "Ġ",
    "##", "<|endoftext|>", "<|startoftext|>", "</s>", "<pad>", "<extra_id_0>",
)  # fmt: skip
parts = st.one_of(
    st.sampled_from(NOUNS),
    st.sampled_from(WORDINGS),
    st.sampled_from(MARKUP),
    st.sampled_from(STRANGE),
    st.text(max_size=6),
)
pieces = st.lists(parts, max_size=24)
prompts = st.builds(lambda words, space: space.join(words), pieces, st.sampled_from((" ", " ", " ", "", "  ", "\n")))
nouns = st.sampled_from(NOUNS[:8])


def letters(text: str) -> str:
    """Lower-case letters and digits only: names are written without line breaks, hyphens and double spaces."""
    return re.sub(r"[\W_]", "", text.lower())


@pytest.fixture(scope="session")
def tokenizers() -> list[Any]:
    """CLIP's and T5's, as the models that are installed with the tests have them."""
    from transformers import CLIPTokenizer, T5TokenizerFast

    data = files("learn_to_steer_emoji").joinpath("data")
    return [
        CLIPTokenizer.from_pretrained(str(data / "sd-emoji" / "tokenizer")),
        T5TokenizerFast.from_pretrained(str(data / "flux-emoji" / "tokenizer_2")),
    ]


@MORE
@given(prompts)
def test_spans_are_those_of_the_nouns(prompt: str) -> None:
    with suppress(PromptError):
        relations = parse(prompt)
        assert relations == parse(prompt)
        for relation in relations:
            for name, span in ((relation.subject, relation.subject_span), (relation.object, relation.object_span)):
                assert span is not None
                assert 0 <= span[0] < span[1] <= len(prompt)
                assert letters(prompt[slice(*span)]) == letters(name)
            (a, b), (c, d) = relation.subject_span or (0, 0), relation.object_span or (0, 0)
            assert b <= c or d <= a
            assert relation.predicate in PREDICATES


@settings(max_examples=2 * settings().max_examples)
@given(
    nouns, st.sampled_from(PREDICATES), nouns, st.lists(st.sampled_from((" ", ", photo", ". 8k", " \n")), max_size=9)
)
def test_a_plain_prompt_keeps_its_relation(subject: str, predicate: str, reference: str, tail: list[str]) -> None:
    if subject == reference:
        return
    found = parse(relation_prompt(subject, predicate, reference) + "".join(tail))
    assert [relation.predicate for relation in found] == [predicate]
    assert letters(found[0].subject) == letters(subject) and letters(found[0].object) == letters(reference)


@MORE
@given(prompts)
@example("a dog to the left of a \ud800 cat")
@example("above ² dog")
def test_columns_spell_the_words(tokenizers: list[Any], prompt: str) -> None:
    with suppress(PromptError):
        relations = parse(prompt)
        spans = [s for one in relations for s in (one.subject_span, one.object_span) if s]
        for tokenizer in tokenizers:
            with suppress(PromptError):
                columns = token_indices(tokenizer, prompt, spans)
                ids = tokenizer(prompt, truncation=False, verbose=False)["input_ids"]
                for span, found in zip(spans, columns, strict=True):
                    assert list(found) == sorted(set(found))
                    word, spelled = letters(prompt[slice(*span)]), letters(tokenizer.decode([ids[c] for c in found]))
                    if word.isascii() and tokenizer.unk_token_id not in [ids[c] for c in found]:
                        assert word in spelled


@given(prompts, st.lists(st.tuples(st.integers(-3, 60), st.integers(-3, 60)), max_size=3))
@example("\ud800", [(0, 1)])
@example("", [(0, 1)])
def test_columns_of_any_span(tokenizers: list[Any], prompt: str, spans: list[tuple[int, int]]) -> None:
    for tokenizer in tokenizers:
        with suppress(SteerError):
            columns = token_indices(tokenizer, prompt, spans)
            assert all(columns) and len(columns) == len(spans)
            assert all(0 <= start < end <= len(prompt) for start, end in spans)


@settings(max_examples=settings().max_examples // 4)
@given(st.lists(parts, min_size=1, max_size=6), st.integers(50, 4000))
@example(["(", "dog"], 4000)
@example(["left of"], 4000)
@example(["{"], 4000)
def test_very_long_prompts(words: list[str], times: int) -> None:
    with suppress(PromptError):
        parse(" ".join(words * (times // len(words)))[:20_000])


@MORE
@given(prompts, nouns | prompts, st.sampled_from(PREDICATES) | st.text(max_size=9), nouns | prompts)
@example("a dog", "dog", "left of", "\ud800")
def test_named_objects_are_found_where_they_stand(prompt: str, subject: str, predicate: str, reference: str) -> None:
    with suppress(PromptError):
        found = locate(prompt, Relation(subject, predicate, reference))
        assert found.as_list() == [subject, predicate, reference]
        for name, span in ((subject, found.subject_span), (reference, found.object_span)):
            assert span is not None and letters(prompt[slice(*span)]) == letters(name)


@MORE
@given(st.text(max_size=20) | st.lists(st.sampled_from((*NOUNS, *WORDINGS, "|", " | ")), max_size=7).map("".join))
def test_a_relation_in_text_is_read_or_refused(text: str) -> None:
    with suppress(PromptError):
        relation = Relation.from_text(text)
        assert Relation.from_text(" | ".join(relation.as_list())) == relation
        assert text.count("|") == 2


@pytest.fixture(scope="session")
def steered() -> Callable[..., Any]:
    """``sd:emoji``, steered by its own classifier; the pipeline that would draw raises ``Drawn`` instead."""
    from learn_to_steer import Steerer, load_pipeline

    pipe = load_pipeline("sd:emoji")
    return Steerer.from_pretrained("sd:emoji").on(pipe)


class Drawn(BaseException):
    """The arguments of the call were accepted."""


names = st.sampled_from(("dog", "cat", "a dog", "dogs", "", " ", "cow", "犬"))
one_relation = st.one_of(
    st.builds(lambda a, p, b: f"{a} | {p} | {b}", names, st.sampled_from((*WORDINGS, "")), names),
    st.lists(st.one_of(names, st.sampled_from(WORDINGS)), min_size=3, max_size=3),
    st.tuples(names, st.sampled_from(WORDINGS), names),
    st.builds(lambda p: Relation("dog", p, "cat"), st.sampled_from(PREDICATES)),
)
garbage = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=3)
    | st.just({1}),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)
PROMPT = "a dog to the left of a cat"
some_prompts = st.sampled_from((PROMPT, [PROMPT], [PROMPT, "a dog above a cat"], ["", PROMPT], "a dog", []))


@MORE
@given(
    some_prompts,
    st.none()
    | one_relation
    | st.lists(one_relation | garbage, max_size=3)
    | st.lists(st.lists(one_relation))
    | garbage,
    st.none() | garbage,
)
@example(PROMPT, "dog | left of | cat", None)
@example(PROMPT, [["dog", "left of", 3]], None)
@example(PROMPT, 5, None)
@example(PROMPT, {"dog": "cat"}, None)
@example(None, ["dog | left of | cat"], [{"dog": 5, "cat": [7]}])
def test_relations_of_any_type(
    steered: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, prompt: Any, relations: Any, columns: Any
) -> None:
    def draw(*args: Any, **kwargs: Any) -> None:
        raise Drawn

    from diffusers import StableDiffusionPipeline

    monkeypatch.setattr(StableDiffusionPipeline, "__call__", draw)
    arguments = {} if columns is None else {"columns": columns}
    with suppress(SteerError, Drawn):
        steered(prompt, relations=relations, num_inference_steps=1, **arguments)


@given(garbage, garbage, garbage)
@example(False, "long", 1)
@example(False, float("nan"), 1)
@example(True, -1, 1)
@example(False, 1.5, 10**400)
def test_other_arguments_of_any_type(
    steered: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, strict: Any, timeout: Any, copies: Any
) -> None:
    def draw(*args: Any, **kwargs: Any) -> None:
        raise Drawn

    from diffusers import StableDiffusionPipeline

    monkeypatch.setattr(StableDiffusionPipeline, "__call__", draw)
    copies = 3 if isinstance(copies, int) and copies > 100 else copies  # so many reports are made
    with suppress(SteerError, Drawn):
        steered(PROMPT, strict=strict, timeout=timeout, num_images_per_prompt=copies, num_inference_steps=1)
        raise AssertionError("nothing was drawn")


SETTINGS = [field.name for field in fields(SteeringConfig)]
values_of_settings = garbage | st.sampled_from(
    ("latents", "prediction", 0, 1, -1, 0.5, 10**400, -0.0, [[0.2, 20, 0.5]])
)


@MORE
@given(st.dictionaries(st.sampled_from(SETTINGS) | st.text(max_size=5), values_of_settings, max_size=3))
@example({"passes": 10**400})
@example({"threshold": float("nan")})
@example({"refinement": [[0.2, 20, 0.5]]})
@example({"profile": "\ud800"})
def test_settings_of_any_value(values: dict[str, Any]) -> None:
    """A config is refused, or comes back from JSON as it was."""
    for make in (SteeringConfig.from_dict, lambda given: SteeringConfig().changed(**given)):
        with suppress(SteerError):
            config = make(values)
            assert SteeringConfig.from_dict(json.loads(json.dumps(config.as_dict(), allow_nan=False))) == config
    known = {name: value for name, value in values.items() if name in SETTINGS}
    with suppress(SteerError):
        SteeringConfig(**known)
