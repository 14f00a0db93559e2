"""What a steered call takes: what the pipeline takes; anything else is an error of our own before it is drawn."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from learn_to_steer import Relation, Steerer
from learn_to_steer.errors import PromptError, SteerError
from learn_to_steer.families import resolve
from learn_to_steer.families.flux import FAMILY as FLUX
from learn_to_steer.families.sd import FAMILY
from learn_to_steer.losses.base import Loss
from learn_to_steer.losses.learned import Learned
from learn_to_steer.steering.inputs import Target, read_targets

PROMPT = "a dog to the left of a cat"
LONG = "a dog to the left of a cat, " + "very bright light and " * 40 + "a cup above a pizza"
SETTINGS: dict[str, Any] = {"num_inference_steps": 2, "height": 64, "width": 64, "output_type": "latent"}


@pytest.fixture
def loss(tiny_sd: Any, random_classifier: Any) -> Learned:
    return Learned(random_classifier(tiny_sd))


@pytest.fixture
def read(tiny_sd: Any, loss: Loss) -> Any:
    """``read(prompt, relations, columns, **arguments)`` -> targets."""

    def targets(
        prompt: Any, relations: Any = None, columns: Any = None, strict: Any = False, **more: Any
    ) -> list[Target]:
        return read_targets(tiny_sd, FAMILY, loss, prompt, relations, columns, more, strict)

    return targets


@pytest.fixture
def drawn(tiny_sd: Any) -> Iterator[list[None]]:
    """One entry for each call of the text encoder or the UNet."""
    calls: list[None] = []
    hooks = [m.register_forward_pre_hook(lambda *_: calls.append(None)) for m in (tiny_sd.unet, tiny_sd.text_encoder)]
    yield calls
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        (LONG, "beyond the 77 tokens"),
        ("a dog to the left of a cat and a cup below and to the right of a pizza", "cannot be steered with this loss"),
    ],
)
def test_what_cannot_be_steered_is_left_out(
    tiny_sd: Any, tiny_steerer: Any, drawn: list[None], caplog: Any, prompt: str, reason: str
) -> None:
    """Alone among other prompts; the rest of its prompt and of the batch is steered."""
    with caplog.at_level(logging.WARNING):
        report = tiny_steerer()(["a cat above a dog", prompt], **SETTINGS).steering
    assert all(image.passes for image in report.images)
    whole, partly = report.images
    assert not whole.left_out and [r.as_list() for r in partly.relations] == [["dog", "left of", "cat"]]
    (left_out,) = partly.as_dict()["left_out"]
    assert left_out["relation"][0] == "cup" and reason in left_out["reason"] and reason in caplog.text
    drawn.clear()
    with pytest.raises(PromptError, match=reason):
        tiny_steerer()(prompt, strict=True, **SETTINGS)
    with pytest.raises(PromptError, match=reason):
        tiny_steerer()(prompt, relations=[Relation(*left_out["relation"])], **SETTINGS)
    assert not drawn


def test_losses_that_read_every_word_take_long_prompts(tiny_sd: Any, loss: Learned) -> None:
    loss.spec = replace(loss.spec, columns="every")
    (target,) = read_targets(tiny_sd, FAMILY, loss, LONG, None, None, {})
    assert target.words[:9] == tuple(range(1, 10)) and 70 < target.words[-1] < 76 and len(target.left_out) == 1


def test_an_object_without_a_token_is_left_out(tiny_sd: Any, loss: Learned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(FAMILY), "token_indices", lambda *_: [()])
    (target,) = read_targets(tiny_sd, FAMILY, loss, PROMPT, None, None, {})
    assert not target.relations and "no text column" in target.left_out[0].reason


def test_empty_prompts_are_made_unsteered(tiny_sd: Any, tiny_steerer: Any) -> None:
    report = tiny_steerer()(["", PROMPT], **SETTINGS).steering
    assert [bool(image.passes) for image in report.images] == [False, True]
    seed = torch.Generator().manual_seed
    mine = tiny_steerer()("", generator=seed(0), **SETTINGS).images
    assert torch.equal(mine, tiny_sd("", generator=seed(0), **SETTINGS).images)
    with pytest.raises(PromptError, match="strict"):
        tiny_steerer()("", strict=True, **SETTINGS)


@pytest.mark.parametrize("second", ["", ["", ""], None, "a cat above a dog", ["a cat above a dog"]])
def test_second_prompts_are_what_the_pipeline_takes(tiny_flux: Any, steer: Any, second: Any) -> None:
    prompts = [PROMPT, "a cup above a pizza"]
    settings = SETTINGS | {"max_sequence_length": 48}
    report = steer(tiny_flux)(prompts, prompt_2=second, **settings).steering
    expected = {
        "": [["dog", "left of", "cat"], ["cup", "above", "pizza"]],
        "['', '']": [None, None],
        "None": [["dog", "left of", "cat"], ["cup", "above", "pizza"]],
    }.get(str(second), [["cat", "above", "dog"]] * 2)
    assert [image.relations[0].as_list() if image.relations else None for image in report.images] == expected
    assert [bool(image.passes) for image in report.images] == [bool(one) for one in expected]


def test_second_prompts_that_fit_no_prompt(tiny_flux: Any, random_classifier: Any) -> None:
    loss = Learned(random_classifier(tiny_flux))
    for more in ({"prompt_2": ["a"] * 3}, {"prompt_2": "a", "num_images_per_prompt": 2}, {"prompt_2": [1, 2]}):
        with pytest.raises(PromptError, match=r"second prompts|prompt_2"):
            read_targets(tiny_flux, FLUX, loss, [PROMPT, PROMPT], None, None, more)


@pytest.mark.parametrize(
    "given",
    [
        "cat | above | dog",
        ("cat", "above", "dog"),
        ["cat", "above", "dog"],
        Relation("cat", "above", "dog"),
        ["cat | above | dog"],
        [["cat", "above", "dog"]],
        [Relation("cat", "above", "dog")],
        [[("cat", "above", "dog")]],
    ],
)
def test_forms_of_one_relation(read: Any, given: Any) -> None:
    (target,) = read(PROMPT, given)
    assert target.relations == (Relation("cat", "above", "dog"),)
    assert read([PROMPT], given)[0].columns == target.columns


GARBAGE: list[tuple[str, dict[str, Any]]] = [
    ("prompt", {"prompt": 5}),
    ("prompt", {"prompt": [PROMPT, 5]}),
    ("prompt", {"prompt": []}),
    ("prompt", {"prompt": {"a": 1}}),
    ("not valid text", {"prompt": PROMPT + "\ud800"}),
    *[
        ("cannot read the relation", {"relations": one})
        for one in (5, "dog", {"a": 1}, [5], [[5]], [None], {1, 2}, b"a")
    ],
    ("cannot read the relation", {"relations": [["dog", "left of"]]}),
    ("unknown predicate", {"relations": "dog | beside | cat"}),
    ("span", {"relations": Relation("dog", "left of", "cat", subject_span=("a", 2))}),  # type: ignore[arg-type]
    ("span", {"relations": Relation("dog", "left of", "cat", subject_span=5)}),  # type: ignore[arg-type]
    ("2 lists", {"prompt": [PROMPT] * 2, "relations": ["dog | left of | cat"]}),
    ("'cow'", {"columns": {"cow": [2]}}),
    ("77 columns", {"columns": {"dog": [77]}}),
    ("from 0 to 76", {"columns": {"dog": [-1]}}),
    ("list of whole numbers", {"columns": {"dog": []}}),
    ("list of whole numbers", {"columns": {"dog": torch.tensor(2)}}),
    ("whole numbers", {"columns": {"dog": torch.arange(77) == 2}}),
    ("whole numbers", {"columns": {"dog": [True]}}),
    ("whole numbers", {"columns": {"dog": [2.0]}}),
    ("whole numbers", {"columns": {"dog": ["2"]}}),
    ("list of whole numbers", {"columns": {"dog": 2}}),
    ("list of whole numbers", {"columns": {"dog": "2"}}),
    ("key 5", {"columns": {5: [2]}}),
    ("columns is", {"columns": [[2], [8]]}),
    ("columns is", {"columns": 5}),
    ("columns 2 entries", {"columns": [{}, {}]}),
    (r"both objects", {"columns": {"dog": [2], "cat": [2]}}),
    ("strict is", {"strict": "no"}),
    ("num_images_per_prompt", {"num_images_per_prompt": "2"}),
    ("num_images_per_prompt", {"num_images_per_prompt": 0}),
    ("num_images_per_prompt", {"num_images_per_prompt": None}),
    ("max_sequence_length", {"max_sequence_length": "x", "columns": {"dog": [2]}}),
    ("prompt_embeds", {"prompt": None}),
    ("prompt_embeds is", {"prompt": None, "prompt_embeds": 5}),
]


@pytest.mark.parametrize(("told", "given"), GARBAGE)
def test_garbage_is_refused_by_name(
    tiny_sd: Any, tiny_steerer: Any, drawn: list[None], told: str, given: dict[str, Any]
) -> None:
    if "both" in told:
        given = given | {"relations": "dog | left of | cat"}
    with pytest.raises(PromptError, match=told):
        tiny_steerer()(**({"prompt": PROMPT} | SETTINGS | given))
    assert not drawn


def test_columns_are_used_with_text_too(read: Any) -> None:
    (plain,) = read(PROMPT)
    for given in ({"dog": [3, 4]}, [{"dog": (3, 4)}], [{"dog": torch.tensor([3, 4])}], {"dog": [3, 4, 3]}):
        (changed,) = read(PROMPT, columns=given)
        assert changed.columns == ((3, 4), plain.columns[1])


def test_two_objects_of_one_name_are_two_places_in_the_text(tiny_steerer: Any, read: Any) -> None:
    prompt = "a dog to the left of another dog"
    (target,) = read(prompt)
    assert len(target.columns) == 2 and not set(target.columns[0]) & set(target.columns[1])
    assert read(prompt, "dog | left of | dog")[0].columns == target.columns
    assert tiny_steerer()(prompt, **SETTINGS).steering.images[0].passes
    embeds = torch.zeros(1, 77, 16)
    with pytest.raises(PromptError, match="two different names"):
        read(None, ["dog | left of | dog"], [{"dog": [2]}], prompt_embeds=embeds)
    with pytest.raises(PromptError, match="'cow'"):
        read(None, ["dog | left of | cat"], [{"dog": [2], "cat": [5], "cow": [8]}], prompt_embeds=embeds)
    (apart,) = read(None, ["dog | left of | other dog"], [{"dog": [2], "other dog": [8]}], prompt_embeds=embeds)
    assert apart.columns == ((2,), (8,))


def test_words_that_a_model_was_never_taught_are_told_once(tiny_sd: Any, tiny_steerer: Any, caplog: Any) -> None:
    tiny_sd.steering_variant = replace(resolve("sd:1.4"), name="toy", untaught_words=lambda prompt: ("frog",))
    tiny_sd.steering_defaults = {}
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            tiny_steerer()("a frog to the left of a cat, twice", **SETTINGS)
    assert caplog.text.count("toy was never taught these words") == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: Steerer("flux:emoji"),  # type: ignore[arg-type]
        lambda: Steerer(None),  # type: ignore[arg-type]
        lambda: Steerer.from_pretrained(5),  # type: ignore[arg-type]
        lambda: Steerer.from_pretrained(None),  # type: ignore[arg-type]
        lambda: Steerer.from_pretrained("sd:emoji", {"threshold": 0.9}),  # type: ignore[arg-type]
        lambda: Steerer.from_pretrained("sd:emoji", revision=5),  # type: ignore[arg-type]
        lambda: Steerer.from_pretrained("sd:emoji").on("sd:emoji"),
        lambda: Steerer.from_pretrained("sd:emoji").on(None),
    ],
)
def test_a_steerer_of_something_else(make: Any) -> None:
    with pytest.raises(SteerError):
        make()
