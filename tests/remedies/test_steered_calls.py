"""A steered call that was refused works once the remedy in the message is done."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest
import torch
from told import tells, told
from transformers import AutoTokenizer

from learn_to_steer import families, load_pipeline
from learn_to_steer.families import find
from learn_to_steer.losses.learned import Learned
from learn_to_steer.maps import columns_to_weights
from learn_to_steer.prompts import Relation, parse, token_indices
from learn_to_steer.steering import SteeredPipeline, Steerer, SteeringConfig, Verdict, profile
from learn_to_steer.steering.compatibility import object_view
from learn_to_steer.steering.inputs import select_relations, warn_of_untaught_words

PROMPT = "a dog to the left of a cat"
DOG_LEFT, TRIPLE = "dog | left of | cat", ("dog", "left of", "cat")
FAST: dict[str, Any] = {"height": 64, "width": 64, "num_inference_steps": 2, "output_type": "latent"}


@pytest.fixture
def put_on(random_classifier: Callable[..., Any]) -> Callable[..., Any]:
    """``put_on(pipe)``: the pipeline, steered by a random classifier; one pass a step."""

    def build(pipe: Any) -> SteeredPipeline:
        config = profile("default").changed(passes=1, threshold=2.0)
        return Steerer(Learned(random_classifier(pipe).requires_grad_(False)), config).on(pipe)

    return build


@pytest.fixture
def steered(tiny_sd: Any, put_on: Callable[..., Any]) -> Callable[..., Any]:
    pipe = put_on(tiny_sd)

    def call(prompt: Any = PROMPT, **arguments: Any) -> Any:
        return pipe(prompt, **(FAST | arguments)).steering.images

    return call


def test_prompts(steered: Callable[..., Any]) -> None:
    with told("give at least one string"):
        steered([])
    assert len(steered([PROMPT])) == 1
    with told("describe the image, e.g. 'a dog to the left of a cat'"):
        parse("")
    assert parse("a dog to the left of a cat")
    with told("write it anew"):
        parse("a dog \ud800 above a cat")
    assert parse("a dog above a cat")


def test_forms_of_relations(steered: Callable[..., Any]) -> None:
    with told("; for several prompts a list each"):
        steered(relations=5)
    for form in (DOG_LEFT, TRIPLE, Relation(*TRIPLE), [DOG_LEFT, ("cat", "right of", "dog")]):
        assert steered(relations=form)[0].passes > 0
    assert len(steered([PROMPT, PROMPT], relations=[[DOG_LEFT], [TRIPLE]])) == 2
    with told('write it as "dog | left of | cat"'):
        steered(relations=["dog left of cat"])
    steered(relations=["dog | left of | cat"])
    with told("name the objects as the prompt does"):
        steered(relations=["hound | left of | cat"])


def test_columns(steered: Callable[..., Any]) -> None:
    with told("give a list of whole numbers, as in [5]"):
        steered(relations=DOG_LEFT, columns={"dog": 5})
    assert steered(relations=DOG_LEFT, columns={"dog": [5]})[0].passes > 0
    two = {"relations": [[DOG_LEFT], [DOG_LEFT]]}
    with told("give one a row"):
        steered([PROMPT, PROMPT], **two, columns=[{"dog": [2]}])
    steered([PROMPT, PROMPT], **two, columns=[{"dog": [2]}, {}])
    with told("name two objects, each in a place of its own, and give columns under two different names"):
        steered(relations=DOG_LEFT, columns={"dog": [2], "cat": [2]})
    steered(relations=DOG_LEFT, columns={"dog": [2], "cat": [8]})


def test_embeddings(tiny_sd: Any, steered: Callable[..., Any]) -> None:
    embeds = tiny_sd.encode_prompt(PROMPT, "cpu", 1, False)[0].detach()
    given: dict[str, Any] = {"prompt_embeds": embeds, "guidance_scale": 1.0}
    with told("give a prompt, or prompt_embeds with relations and columns"):
        steered(None)
    steered(PROMPT)
    with told("give relations, and columns with the text columns of each object"):
        steered(None, **given)
    assert steered(None, **given, relations=DOG_LEFT, columns=[{"dog": [2], "cat": [8]}])[0].passes > 0


def test_objects_beyond_the_text(steered: Callable[..., Any]) -> None:
    long = "very " * 90
    with told("shorten it or name the object earlier"):
        steered(f"a dog to the left of a {long} cat", relations=DOG_LEFT)
    assert steered(f"a dog to the left of a cat, {long}", relations=DOG_LEFT)[0].passes > 0
    assert steered("a dog to the left of a very very cat", relations=DOG_LEFT)[0].passes > 0


def test_objects_of_no_token(tiny_sd: Any) -> None:
    with told("use another word"):
        token_indices(tiny_sd.tokenizer, "a  dog", [(1, 2)])
    assert token_indices(tiny_sd.tokenizer, "a dog", [(2, 5)]) == [(2,)]

    class Family:
        """A family of a plug-in that finds no column for a dog."""

        def token_indices(self, pipe: Any, text: str, spans: Any, arguments: Any) -> list[tuple[int, ...]]:
            return [() if text[slice(*span)] == "dog" else (span[0],) for span in spans]

    def left_out(text: str, relation: Relation, columns: Any = None) -> str:
        _, reasons = select_relations(None, Family(), None, text, [relation], {}, columns)  # type: ignore[arg-type]
        return " ".join(one.reason for one in reasons)

    assert tells(left_out("dog, cat", Relation("dog", "left of", "cat", (0, 3), (5, 8))), "use another word")
    assert not left_out("pup, cat", Relation("pup", "left of", "cat", (0, 3), (5, 8)))
    assert tells(left_out("dog, cat", Relation("dog", "left of", "cat")), "give its columns")
    assert not left_out("dog, cat", Relation("dog", "left of", "cat"), {"dog": [1], "cat": [3]})


def test_tokenizers_without_offsets() -> None:
    class Slow:
        """Spells every word as one that is not in the prompt."""

        is_fast = False
        all_special_ids = (0,)
        model_max_length = 77
        unk_token_id = None

        def __call__(self, prompt: str, **options: Any) -> dict[str, list[int]]:
            return {"input_ids": [0, *range(1, len(prompt.split()) + 1), 0]}

        def convert_ids_to_tokens(self, ids: Any) -> list[str]:
            return ["x"] * len(ids)

        def convert_tokens_to_string(self, tokens: Any) -> str:
            return "".join(tokens)

    with told("load the fast tokenizer (use_fast=True)"):
        token_indices(Slow(), "a dog", [(2, 5)])
    folder = files("learn_to_steer_emoji").joinpath("data", "sd-emoji", "tokenizer")
    assert token_indices(AutoTokenizer.from_pretrained(str(folder), use_fast=True), "a dog", [(2, 5)]) == [(2,)]


def test_second_prompts(tiny_flux: Any, put_on: Callable[..., Any]) -> None:
    steered = put_on(tiny_flux)
    short = FAST | {"max_sequence_length": 48}
    with told("give one for each"):
        steered([PROMPT] * 3, prompt_2=[PROMPT] * 2, **short)
    assert len(steered([PROMPT] * 3, prompt_2=[PROMPT] * 3, **short).steering.images) == 3


def test_tries(tiny_sd: Any, put_on: Callable[..., Any], random_classifier: Callable[..., Any]) -> None:
    class Pleased:
        name, identity = "pleased", None

        def look(self, images: Any, prompts: Any) -> list[Verdict]:
            return [Verdict(True, 1.0) for _ in images]

    steered = put_on(tiny_sd)  # its threshold is above 1
    looked_at: dict[str, Any] = {"tries": 2, "verifier": Pleased(), **FAST, "output_type": "pil"}
    with told("name a detector as verifier (--verifier, see: list detectors), or leave out tries (--tries)"):
        steered(PROMPT, **FAST, tries=2)
    assert steered(PROMPT, **looked_at).steering.images[0].satisfied
    steered(PROMPT, **FAST)
    with told("leave output_type out, or use verifier='classifier'"):
        steered(PROMPT, **looked_at | {"output_type": "latent"})
    steered(PROMPT, **{name: value for name, value in looked_at.items() if name != "output_type"})
    stopping = profile("default").changed(passes=1, threshold=0.9)
    other = Steerer(Learned(random_classifier(tiny_sd).requires_grad_(False)), stopping).on(tiny_sd)
    other(PROMPT, **looked_at | {"output_type": "latent", "verifier": "classifier"})
    with told("leave them out and give a generator"):
        steered(PROMPT, **looked_at, latents=torch.zeros(1, 16, 8, 8))
    steered(PROMPT, **looked_at, generator=torch.Generator())
    with told("call it once for each prompt, or leave out tries"):
        steered([PROMPT] * 2, **looked_at, ip_adapter_image_embeds=[torch.zeros(2, 1, 4)])
    with told("give the name of a detector (see: list detectors), or an object with the method look"):
        steered(PROMPT, **looked_at | {"verifier": 7})


def test_strict(steered: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    with told("drop strict"):
        steered(f"a dog above a {'very ' * 90} cat", strict=True)
    steered(f"a dog above a {'very ' * 90} cat")
    with told("give relations=[...] or drop strict"):
        steered("a dog", strict=True)
    steered("a dog and a cat", strict=True, relations=[DOG_LEFT])
    with caplog.at_level(logging.WARNING):
        steered("a dog")
    assert "unsteered" in caplog.text


def test_weights_of_inference_mode(tiny_sd: Any, put_on: Callable[..., Any]) -> None:
    with torch.inference_mode():
        inside = deepcopy(tiny_sd.unet)
    outside, tiny_sd.unet = tiny_sd.unet, inside
    with told("load it outside (torch.no_grad() is fine)"):
        put_on(tiny_sd)(PROMPT, **FAST)
    with torch.no_grad():
        tiny_sd.unet = deepcopy(outside)
    put_on(tiny_sd)(PROMPT, **FAST)
    with torch.inference_mode(), told("call it outside torch.inference_mode() (no_grad is fine)"):
        put_on(tiny_sd)(PROMPT, **FAST)
    put_on(tiny_sd)(PROMPT, **FAST)


def test_perturbed_attention(tiny_sd: Any, put_on: Callable[..., Any]) -> None:
    from diffusers import StableDiffusionPAGPipeline

    pipe = StableDiffusionPAGPipeline(**tiny_sd.components, requires_safety_checker=False, pag_applied_layers=["mid"])
    pipe.set_progress_bar_config(disable=True)
    for given in ({}, {"pag_scale": 3.0}, {"guidance_scale": 1.0}):  # without guidance there are two rows all the same
        with told("turn it off (pag_scale=0)"):
            put_on(pipe)(PROMPT, **FAST, **given)
    put_on(pipe)(PROMPT, **FAST, pag_scale=0)
    pipe(PROMPT, **FAST)  # the pipeline remembers its last scale
    put_on(pipe)(PROMPT, **FAST, pag_scale=0)


def test_caches_of_activations(tiny_flux: Any, put_on: Callable[..., Any]) -> None:
    from diffusers import FirstBlockCacheConfig, FluxPipeline, FluxTransformer2DModel
    from diffusers.hooks import apply_first_block_cache

    apply_first_block_cache(tiny_flux.transformer, FirstBlockCacheConfig())
    short = FAST | {"max_sequence_length": 48}
    with told("or load the pipeline anew"):
        put_on(tiny_flux)(PROMPT, **short)
    fresh = FluxTransformer2DModel.from_config(tiny_flux.transformer.config).eval()
    anew = FluxPipeline(**{**tiny_flux.components, "transformer": fresh})
    anew.set_progress_bar_config(disable=True)
    put_on(anew)(PROMPT, **short)


def test_the_kind_of_prediction(tiny_sd: Any, random_classifier: Callable[..., Any]) -> None:
    learned = Learned(random_classifier(tiny_sd).requires_grad_(False))
    config = profile("default").changed(update="prediction", passes=1, threshold=2.0)
    tiny_sd.scheduler.register_to_config(prediction_type="v_prediction")
    with told(
        "use a model whose scheduler has prediction_type 'epsilon', or move the latents (--profile fixed-budget)"
    ):
        Steerer(learned, config).on(tiny_sd)
    Steerer(learned, profile("fixed-budget").changed(passes=1)).on(tiny_sd)(PROMPT, **FAST)
    tiny_sd.scheduler.register_to_config(prediction_type="epsilon")
    Steerer(learned, config).on(tiny_sd)(PROMPT, **FAST)


def test_another_thread(tiny_sd: Any, put_on: Callable[..., Any]) -> None:
    steered, other = put_on(tiny_sd), put_on(deepcopy(tiny_sd))
    inside, go_on = threading.Event(), threading.Event()
    results = []

    def wait(*arguments: Any) -> Any:
        inside.set()
        assert go_on.wait(60)
        return arguments[-1]

    def first() -> None:
        results.append(steered(PROMPT, **FAST, callback_on_step_end=wait))

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(60)
    with told("wait longer (timeout=SECONDS, or None for ever), or load a model for each thread"):
        steered(PROMPT, **FAST, timeout=0.01)
    other(PROMPT, **FAST, timeout=0.01)
    go_on.set()
    steered(PROMPT, **FAST, timeout=None)
    thread.join()
    assert len(results) == 1


def test_schedulers_that_cannot_be_copied(tiny_sd: Any, put_on: Callable[..., Any]) -> None:
    tiny_sd.scheduler.lock = threading.Lock()
    with told("set a new one: pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)"):
        put_on(tiny_sd)(PROMPT, **FAST)
    tiny_sd.scheduler = type(tiny_sd.scheduler).from_config(tiny_sd.scheduler.config)
    put_on(tiny_sd)(PROMPT, **FAST)


def test_parts_replaced_during_a_call(tiny_sd: Any, put_on: Callable[..., Any]) -> None:
    new = type(tiny_sd.scheduler).from_config(tiny_sd.scheduler.config)

    def set_new(pipe: Any, step: int, time: Any, values: dict[str, Any]) -> dict[str, Any]:
        pipe.scheduler = new
        return values

    with told("set it before the call"):
        put_on(tiny_sd)(PROMPT, **FAST, callback_on_step_end=set_new)
    tiny_sd.scheduler = new
    put_on(tiny_sd)(PROMPT, **FAST)


def test_what_a_steerer_is_made_of(tiny_sd: Any, random_classifier: Callable[..., Any]) -> None:
    classifier = random_classifier(tiny_sd)
    with told("for the classifier of a model use Steerer.from_pretrained(NAME)"):
        Steerer(classifier)
    Steerer.from_pretrained("sd:emoji")
    with told("make one, e.g. SteeringConfig(threshold=0.9)"):
        Steerer(Learned(classifier), {"threshold": 0.9})  # type: ignore[arg-type]
    Steerer(Learned(classifier), SteeringConfig(threshold=0.9))
    with told("families.resolve(NAME) returns one"):
        Steerer(Learned(classifier), variant="sd:emoji")  # type: ignore[arg-type]
    Steerer(Learned(classifier), variant=families.resolve("sd:emoji"))
    with told("give the name of a model, a folder or a hub id"):
        Steerer.from_pretrained(5)  # type: ignore[arg-type]
    with told("give the name of a branch, tag or commit"):
        Steerer.from_pretrained("sd:emoji", revision=5)  # type: ignore[arg-type]
    Steerer.from_pretrained("sd:emoji", revision="main")


def test_a_classifier_of_another_model(
    tiny_sd: Any, tiny_flux: Any, random_classifier: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    other, own = random_classifier(tiny_flux), random_classifier(tiny_sd)
    with told("this model is sd"):
        Steerer(Learned(other)).on(tiny_sd)
    foreign = random_classifier(tiny_sd)
    layout = foreign.layout.as_dict()
    renamed = layout["layers"][0] | {"name": "down_blocks.7.attn2"}
    foreign.config = replace(foreign.config, layout=layout | {"layers": [renamed, *layout["layers"][1:]]})
    with told("use the classifier trained for this model"):
        Steerer(Learned(foreign)).on(tiny_sd)
    Steerer(Learned(own)).on(tiny_sd)
    with told("use the classifier trained for this model"):
        own(torch.rand(1, 2, 99, 16, 16), torch.zeros(1, dtype=torch.long))
    own.config = replace(own.config, trained_on={"model": "sd:1.5", "weights": "0" * 64})
    Steerer(Learned(own)).on(tiny_sd)
    assert tells(caplog.text, "use the classifier of this model")
    caplog.clear()
    own.config = replace(own.config, trained_on={})
    Steerer(Learned(own)).on(tiny_sd)
    assert not caplog.text


def test_models_that_are_fed_more_than_latents(tiny_sd: Any, put_on: Callable[..., Any]) -> None:
    from diffusers import UNet2DConditionModel

    text_to_image = tiny_sd.unet
    tiny_sd.unet = UNet2DConditionModel.from_config(text_to_image.config, in_channels=33)
    with told("use the weights of a text-to-image model"):
        put_on(tiny_sd)(PROMPT, **FAST, latents=torch.zeros(1, 33, 8, 8))
    tiny_sd.unet = text_to_image
    put_on(tiny_sd)(PROMPT, **FAST)


def test_calls_that_feed_more_than_latents(tiny_sd: Any, put_on: Callable[..., Any]) -> None:
    text = {"encoder_hidden_states": torch.zeros(1, 77, 32)}
    with told("use a text-to-image pipeline"):
        find(tiny_sd).read(tiny_sd.unet, (torch.zeros(1, 9, 8, 8), torch.tensor(1)), text)
    put_on(tiny_sd)(PROMPT, **FAST)


def test_classes_that_cannot_be_derived_from() -> None:
    class Pipeline:
        part = 1

    sealed = type("Sealed", (Pipeline,), {"__init_subclass__": classmethod(_refuse)})
    with told("use a class of diffusers"):
        object_view(sealed(), part=2)
    assert object_view(Pipeline(), part=2).part == 2


def _refuse(cls: type) -> None:
    raise TypeError("sealed")


def test_columns_outside_the_text() -> None:
    with told("name it earlier in the prompt, or give other columns"):
        columns_to_weights([[[80]]], 77)
    assert columns_to_weights([[[5]]], 77)[0, 0, 5] == 1


def test_timeouts(steered: Callable[..., Any]) -> None:
    for wrong in ("long", -1, float("nan"), True):
        with told("give a number of seconds from 0, or None to wait for ever"):
            steered(timeout=wrong)
    for right in (0, 0.5, None):
        steered(timeout=right)


def test_words_that_a_model_was_never_taught(caplog: pytest.LogCaptureFixture) -> None:
    pipe = load_pipeline("sd:emoji")
    warn_of_untaught_words(pipe, ["a zeppelin above a dog"])
    assert tells(caplog.text, "so use other words")
    caplog.clear()
    warn_of_untaught_words(pipe, ["a cat above a dog"])
    assert not caplog.text
