"""Which pipelines can be steered, and what a call may ask for: img2img, ControlNet, textual inversion, ..."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch

from learn_to_steer.errors import PromptError, UnsupportedError
from learn_to_steer.families.sd import FAMILY
from learn_to_steer.losses.base import LossOutput
from learn_to_steer.prompts import parse
from learn_to_steer.steering.arguments import nested_relations
from learn_to_steer.steering.inputs import read_targets

PROMPT = "a dog to the left of a cat"
CHAIN = "a dog to the left of a cat above a pizza"
SETTINGS: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 4.0, "output_type": "latent"}


def draw(pipe: Any, prompt: str = PROMPT, **more: Any) -> Any:
    sized = {} if "image" in more and "strength" in more else {"height": 64, "width": 64}
    return pipe(prompt, generator=torch.Generator().manual_seed(0), **(SETTINGS | sized | more))


class Reworked:
    """A loss whose losses go through ``change``."""

    def __init__(self, sound: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.sound, self.spec, self.change = sound, sound.spec, change

    def predicates(self) -> tuple[str, ...]:
        return tuple(self.sound.predicates())

    def __call__(self, maps: Any, pairs: Any, info: Any) -> LossOutput:
        output = self.sound(maps, pairs, info)
        return LossOutput(self.change(output.loss), output.probability)


def img2img(tiny_sd: Any) -> Any:
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**tiny_sd.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_img2img_is_steered_by_noise_level(tiny_sd: Any, tiny_steerer: Any) -> None:
    pipe, image = img2img(tiny_sd), torch.rand(1, 3, 64, 64)
    stock = draw(pipe, image=image, strength=0.75).images
    out = draw(tiny_steerer(pipe), image=image, strength=0.75)
    # Of four steps the first is skipped; the second is still in the noisier half.
    assert [step.step for step in out.steering.images[0].steps] == [1]
    assert (out.images - stock).abs().max() > 1e-2


def test_nothing_left_to_steer_is_said(tiny_sd: Any, tiny_steerer: Any, caplog: Any) -> None:
    pipe, image = img2img(tiny_sd), torch.rand(1, 3, 64, 64)
    with caplog.at_level(logging.WARNING):
        out = draw(tiny_steerer(pipe, by_step_index=True), image=image, strength=0.5)
    assert torch.equal(out.images, draw(pipe, image=image, strength=0.5).images)
    assert "no denoising step" in out.steering.images[0].note and "no denoising step" in caplog.text


def test_controlnet_residuals_follow_the_samples(tiny_sd: Any, tiny_steerer: Any) -> None:
    """One of two images stops at once: its row leaves the batch, and so must its residuals."""
    control = diffusers.ControlNetModel.from_unet(tiny_sd.unet, conditioning_channels=3)
    with torch.no_grad():
        for layer in control.controlnet_down_blocks:
            layer.weight.normal_(0, 0.5)
    pipe = diffusers.StableDiffusionControlNetPipeline(
        **tiny_sd.components, controlnet=control.eval(), requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    hints = torch.rand(2, 3, 64, 64)

    def both(steered: Any, prompts: list[str], rows: list[int]) -> Any:
        seeds = [torch.Generator().manual_seed(row) for row in rows]
        return steered(prompts, image=hints[rows], generator=seeds, **SETTINGS)

    steered = tiny_steerer(pipe)
    mixed = both(steered, ["a dog and a cat", PROMPT], [0, 1])
    alone = both(steered, [PROMPT], [1])
    assert mixed.steering.images[1].passes == 4
    torch.testing.assert_close(mixed.images[1:], alone.images, rtol=1e-3, atol=1e-3)
    assert not torch.equal(mixed.images[1], both(pipe, ["a dog and a cat", PROMPT], [0, 1]).images[1])


def test_inpainting_models_are_refused(tiny_sd: Any) -> None:
    with pytest.raises(UnsupportedError, match="inpainting"):
        FAMILY.read(tiny_sd.unet, (torch.zeros(2, 33, 8, 8), torch.tensor(500)), {})


def test_perturbed_attention_guidance_is_refused(tiny_sd: Any, tiny_steerer: Any) -> None:
    pipe = diffusers.StableDiffusionPAGPipeline(
        **tiny_sd.components, requires_safety_checker=False, pag_applied_layers=["mid"]
    )
    pipe.set_progress_bar_config(disable=True)
    with pytest.raises(UnsupportedError, match="perturbed-attention"):
        draw(tiny_steerer(pipe), pag_scale=3.0)


def test_a_models_own_sampling_is_used_where_none_is_given(tiny_sd: Any, tiny_steerer: Any) -> None:
    tiny_sd.steering_defaults = {"num_inference_steps": 2, "height": 64, "width": 96, "output_type": "latent"}
    steered = tiny_steerer()
    assert steered(PROMPT).images.shape[-2:] == (8, 12)
    out = steered(PROMPT, num_inference_steps=4, height=None)
    assert out.images.shape[-2:] == (8, 12)
    assert [step.step for step in out.steering.images[0].steps] == [0, 1]


def test_the_step_keeps_its_signature(tiny_sd: Any, tiny_steerer: Any) -> None:
    """Pipelines look there for eta and generator."""
    seen = []

    def look(pipe: Any, *_: Any) -> dict[str, Any]:
        seen.append(set(inspect.signature(pipe.scheduler.step).parameters))
        return {}

    draw(tiny_steerer(), callback_on_step_end=look)
    assert {"eta", "generator"} <= seen[0]


def test_multi_vector_embeddings_shift_the_columns(tiny_sd: Any, tiny_steerer: Any) -> None:
    tiny_sd.load_textual_inversion({"<pup>": torch.randn(3, 16)}, token="<pup>")
    loss_function = tiny_steerer().loss
    prompt = "a <pup> dog to the left of a cat"
    (plain,) = read_targets(tiny_sd, FAMILY, loss_function, "a new dog to the left of a cat", None, None, {})
    (longer,) = read_targets(tiny_sd, FAMILY, loss_function, prompt, ["dog | left of | cat"], None, {})
    assert longer.prompt == prompt
    ids = tiny_sd.tokenizer(tiny_sd.maybe_convert_prompt(prompt, tiny_sd.tokenizer)).input_ids
    words = tiny_sd.tokenizer("a new dog to the left of a cat").input_ids
    for (column, *_), (other, *_) in zip(longer.columns, plain.columns, strict=True):
        assert ids[column] == words[other]


@pytest.mark.parametrize("relations", [None, ["<pup> | left of | cat"], "parsed"])
def test_a_token_of_several_vectors_is_an_object_with_all_its_columns(
    tiny_sd: Any, tiny_steerer: Any, relations: Any
) -> None:
    tiny_sd.load_textual_inversion({"<pup>": torch.randn(3, 16)}, token="<pup>")
    prompt = "a <pup> to the left of a cat"
    given = list(parse(prompt)) if relations == "parsed" else relations
    (target,) = read_targets(tiny_sd, FAMILY, tiny_steerer().loss, prompt, given, None, {})
    ids = tiny_sd.tokenizer(tiny_sd.maybe_convert_prompt(prompt, tiny_sd.tokenizer)).input_ids
    names = tiny_sd.tokenizer.convert_ids_to_tokens([ids[column] for column in target.columns[0]])
    assert [relation.as_list() for relation in target.relations] == [["<pup>", "left of", "cat"]]
    assert names == ["<pup>", "<pup>_1", "<pup>_2"]
    cat = tiny_sd.tokenizer("cat").input_ids[1:-1]
    assert [ids[column] for column in target.columns[1]] == cat


def test_another_object_is_not_steered_in_place_of_a_token(tiny_sd: Any, tiny_steerer: Any) -> None:
    tiny_sd.load_textual_inversion({"<pup>": torch.randn(2, 16)}, token="<pup>")
    prompt = "a dog and <pup> left of a cat"
    (target,) = read_targets(tiny_sd, FAMILY, tiny_steerer().loss, prompt, None, None, {})
    found = [relation.as_list() for relation in target.relations]
    assert found == [["dog", "left of", "cat"], ["<pup>", "left of", "cat"]]


def test_several_relations_in_one_list() -> None:
    three = ["a | left of | b", "b | above | c", "c | below | d"]
    assert nested_relations([three], 1) == [three]
    assert nested_relations(three, 1) == [three]
    assert nested_relations([["dog", "left of", "cat"]], 1) == [[["dog", "left of", "cat"]]]
    with pytest.raises(PromptError, match="2 prompts"):
        nested_relations(three, 2)


def test_embeddings_need_one_entry_of_columns_a_row(tiny_sd: Any, tiny_steerer: Any) -> None:
    positive, negative = tiny_sd.encode_prompt([PROMPT, PROMPT], "cpu", 1, True)
    given = {"relations": [["dog | left of | cat"]], "prompt_embeds": positive, "negative_prompt_embeds": negative}
    with pytest.raises(PromptError, match="2 rows but columns 1"):
        draw(tiny_steerer(), None, columns=[{"dog": [2], "cat": [8]}], **given)


def test_columns_beyond_the_text_are_refused(tiny_sd: Any, tiny_steerer: Any) -> None:
    positive, negative = tiny_sd.encode_prompt(PROMPT, "cpu", 1, True)
    given = {"relations": ["dog | left of | cat"], "prompt_embeds": positive, "negative_prompt_embeds": negative}
    with pytest.raises(PromptError, match="77 columns"):
        draw(tiny_steerer(), None, columns=[{"dog": [2], "cat": [80]}], **given)


def test_long_embeddings_have_more_columns(tiny_sd: Any, tiny_steerer: Any) -> None:
    """Two windows of 77, as prompt-weighting libraries make them."""
    positive, negative = tiny_sd.encode_prompt(PROMPT, "cpu", 1, True)
    given = {"prompt_embeds": positive.repeat(1, 2, 1), "negative_prompt_embeds": negative.repeat(1, 2, 1)}
    relations = ["dog | left of | cat"]
    out = draw(tiny_steerer(), None, relations=relations, columns=[{"dog": [2], "cat": [100]}], **given)
    assert out.steering.images[0].passes == 4


@pytest.mark.parametrize(("flat", "passes"), [(0, 0), (1, 4)])
def test_the_worst_relation_is_worked_on(tiny_sd: Any, tiny_steerer: Any, flat: int, passes: int) -> None:
    """The first relation's loss is made the larger one, but flat: worked on, it moves nothing."""
    stock = draw(tiny_sd, CHAIN).images
    steered = tiny_steerer()
    add = 100.0 if flat == 0 else -100.0
    steered.loss = Reworked(
        steered.loss, lambda loss: torch.stack([loss[:, 0].detach() + add + 0 * loss[:, 1], loss[:, 1]], dim=1)
    )
    assert torch.equal(draw(steered, CHAIN).images, stock) == (passes == 0)


def test_an_fp16_overflow_lowers_the_scale_and_not_the_rate(tiny_sd: Any, tiny_steerer: Any) -> None:
    tiny_sd.to(torch.float16)
    stock = draw(tiny_sd).images
    steered = tiny_steerer(passes=4)
    steered.loss = Reworked(steered.loss, lambda loss: loss * 1e6)
    out = draw(steered)
    assert out.steering.images[0].backoffs == 0 and not out.steering.images[0].note
    assert out.images.isfinite().all() and not torch.equal(out.images, stock)
