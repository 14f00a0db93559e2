from __future__ import annotations

import json
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CLIPTokenizer, PreTrainedTokenizerFast

from learn_to_steer.errors import PromptError, UnsupportedError
from learn_to_steer.prompts import parse, token_indices

START, END = "<|startoftext|>", "<|endoftext|>"
PROMPT = "A photo of a dog, left of a Teddy bear and a dog above a café!"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A CLIP tokenizer whose merges know "dog", "photo" and "bear" whole, and "teddy" as "te" + "ddy"."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [
        "p h",
        "o t",
        "ph ot",
        "phot o</w>",
        "d o",
        "do g</w>",
        "b e",
        "be a",
        "bea r</w>",
        "t e",
        "d d",
        "dd y</w>",
    ]
    merges += ["o f</w>", "l e", "le f", "lef t</w>", "c a", "ca f"]
    vocabulary = letters + [f"{letter}</w>" for letter in letters] + [pair.replace(" ", "") for pair in merges]
    ids = {piece: index for index, piece in enumerate([*vocabulary, START, END])}
    folder = tmp_path_factory.mktemp("clip")
    (folder / "vocab.json").write_text(json.dumps(ids))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77)  # its constructor changed in transformers 5


@pytest.fixture(scope="module")
def t5() -> Any:
    """A unigram tokenizer in T5's manner: no start token, words begin with a blank that may stand alone."""
    pieces = [
        "<pad>",
        "</s>",
        "<unk>",
        "▁",
        "▁A",
        "▁a",
        "▁photo",
        "▁of",
        "▁dog",
        "▁left",
        "▁Ted",
        "dy",
        "▁bear",
        "▁and",
        "te",
        "a",
    ]
    vocabulary = [(piece, -float(rank)) for rank, piece in enumerate(pieces)] + [
        (letter, -50.0) for letter in "abcdefghijklmnopqrstuvwxyzé,!" if letter != "a"
    ]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", model_max_length=512
    )


@pytest.fixture(scope="module")
def wordpiece() -> Any:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=60, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False)
    tokenizer.train_from_iterator(["a photo of a dog left of a teddy bear and above a cafe , !"] * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")


class Slow:
    """What transformers' tokenizers without offsets offer, over the pieces of a fast one."""

    is_fast = False

    def __init__(self, fast: Any) -> None:
        self.fast = fast
        self.model_max_length = fast.model_max_length
        self.all_special_ids = fast.all_special_ids

    def __call__(self, prompt: str, **options: Any) -> dict[str, list[int]]:
        assert not options.get("return_offsets_mapping")
        return {"input_ids": self.fast(prompt, truncation=False)["input_ids"]}

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return list(self.fast.convert_ids_to_tokens(ids))

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        ids = self.fast.convert_tokens_to_ids(tokens)
        return str(self.fast.backend_tokenizer.decode(ids, skip_special_tokens=False))


def pieces(tokenizer: Any, columns: tuple[int, ...], prompt: str = PROMPT) -> list[str]:
    ids = tokenizer(prompt)["input_ids"]
    return list(tokenizer.convert_ids_to_tokens([ids[column] for column in columns]))


def span(word: str, start: int = 0) -> tuple[int, int]:
    at = PROMPT.index(word, start)
    return at, at + len(word)


def test_clip_gives_every_piece_of_every_word(clip: Any) -> None:
    dog, bear, second, cafe = token_indices(
        clip, PROMPT, [span("dog"), span("Teddy bear"), span("dog", 20), span("café")]
    )
    assert pieces(clip, dog) == ["dog</w>"]
    assert pieces(clip, bear) == ["te", "ddy</w>", "bear</w>"]
    assert pieces(clip, second) == ["dog</w>"]
    assert second > bear > dog
    assert pieces(clip, cafe)[0] == "caf"
    assert len(cafe) >= 2


def test_clip_counts_its_start_token(clip: Any) -> None:
    assert token_indices(clip, "dog", [(0, 3)]) == [(1,)]


def test_columns_of_a_repeated_noun_are_those_of_its_own_occurrence(clip: Any) -> None:
    prompt = "a dog left of a bear and a dog above a bear"
    first, second = parse(prompt)
    columns = token_indices(clip, prompt, [first.subject_span, second.subject_span])
    assert columns[0] != columns[1]
    assert pieces(clip, columns[0], prompt) == pieces(clip, columns[1], prompt) == ["dog</w>"]


def test_t5_has_no_start_token_and_no_lone_blanks(t5: Any) -> None:
    assert token_indices(t5, "dog of", [(0, 3)]) == [(0,)]
    dog, bear = token_indices(t5, PROMPT, [span("dog"), span("Teddy bear")])
    assert pieces(t5, dog) == ["▁dog"]
    assert pieces(t5, bear) == ["▁Ted", "dy", "▁bear"]
    prompt = "a tea"  # "▁" stands alone before "te"
    assert "▁" in pieces(t5, tuple(range(4)), prompt)
    (tea,) = token_indices(t5, prompt, [(2, 5)])
    assert pieces(t5, tea, prompt) == ["te", "a"]


def test_wordpiece(wordpiece: Any) -> None:
    (bear,) = token_indices(wordpiece, PROMPT, [span("Teddy bear")])
    assert "".join(pieces(wordpiece, bear)).replace("##", "") == "teddybear"


@pytest.mark.parametrize("name", ["clip", "wordpiece"])
def test_slow_tokenizers_agree_with_fast_ones(name: str, request: pytest.FixtureRequest) -> None:
    fast = request.getfixturevalue(name)
    spans = [span("dog"), span("Teddy bear"), span("dog", 20), span("café"), span("photo")]
    assert token_indices(Slow(fast), PROMPT, spans) == token_indices(fast, PROMPT, spans)


def test_slow_tokenizer_that_does_not_spell_the_prompt_is_refused(clip: Any) -> None:
    slow = Slow(clip)
    slow.convert_tokens_to_string = lambda tokens: "?"  # type: ignore[method-assign]
    with pytest.raises(UnsupportedError, match="use_fast"):
        token_indices(slow, "dog", [(0, 3)])


@pytest.mark.parametrize("slow", [False, True])
def test_a_word_beyond_the_truncation_is_named(clip: Any, slow: bool) -> None:
    tokenizer = Slow(clip) if slow else clip
    prompt = "dog of bear"  # start, dog, of, bear, end
    assert token_indices(tokenizer, prompt, [(7, 11)], max_length=5) == [(3,)]
    with pytest.raises(PromptError, match="'bear' lies beyond the 4 tokens"):
        token_indices(tokenizer, prompt, [(7, 11)], max_length=4)
    assert token_indices(tokenizer, prompt, [(0, 3)], max_length=4) == [(1,)]
    long = "of " * 80 + "dog"
    with pytest.raises(PromptError, match="77 tokens"):
        token_indices(tokenizer, long, [(240, 243)])


def test_truncated_encoding_agrees(clip: Any) -> None:
    ids = clip("dog of bear", truncation=True, max_length=4)["input_ids"]
    assert clip.convert_ids_to_tokens(ids) == [START, "dog</w>", "of</w>", END]


@pytest.mark.parametrize("bad", [(3, 3), (-1, 2), (0, 99), (5, 2)])
def test_spans_outside_the_prompt_are_refused(clip: Any, bad: tuple[int, int]) -> None:
    with pytest.raises(PromptError, match="outside"):
        token_indices(clip, "dog of bear", [bad])


def test_a_span_of_spaces_has_no_token(clip: Any) -> None:
    with pytest.raises(PromptError, match="no token"):
        token_indices(clip, "dog of", [(3, 4)])
