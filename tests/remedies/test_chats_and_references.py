"""Prompts in a chat template that cannot be steered, and reference images beside the latents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image
from told import told

from learn_to_steer.families import find
from learn_to_steer.families.testing import tiny
from learn_to_steer.losses.learned import Learned
from learn_to_steer.steering import Steerer

PROMPT = "a dog to the left of a cat"
SPANS = [(2, 5), (23, 26)]
SHORT = {"max_sequence_length": 200}


@pytest.fixture
def steer(random_classifier: Callable[..., Any]) -> Callable[[Any], Any]:
    return lambda pipe: Steerer(Learned(random_classifier(pipe).requires_grad_(False))).on(pipe)


def draw(steered: Any, prompt: Any = PROMPT, **more: Any) -> Any:
    settings = {"num_inference_steps": 1, "output_type": "latent", "height": 64, "width": 64}
    return steered(prompt=prompt, **settings, **SHORT, **more)


def is_steered(out: Any) -> bool:
    report = out.steering.images[0]
    return bool(report.relations) and report.passes + sum(step.checks for step in report.steps) > 0


def test_a_prompt_that_the_template_changes(steer: Any) -> None:
    steered = steer(tiny("flux2"))
    with told("leave out white space at its ends, and special words such as [IMG]"):
        draw(steered, "a [IMG]dog to the left of a cat", relations="dog | left of | cat")
    assert is_steered(draw(steered, "a dog to the left of a cat", relations="dog | left of | cat"))


def test_a_prompt_that_the_pipeline_writes_itself(steer: Any) -> None:
    pipe = tiny("flux2")
    with told("call pipe.upsample_prompt before, and give its result as the prompt"):
        draw(steer(pipe), caption_upsample_temperature=0.15)
    pipe.tokenizer.tokenizer = pipe.tokenizer  # as processors have one
    written = pipe.tokenizer("a large dog to the left of a cat", return_tensors="pt", add_special_tokens=False)
    pipe.text_encoder.generate = lambda input_ids, **_: torch.cat([input_ids, written.input_ids], dim=1)
    prompts = pipe.upsample_prompt(PROMPT)
    out = draw(steer(pipe), prompts)
    assert prompts == ["a large dog to the left of a cat"] and is_steered(out)


@pytest.mark.parametrize("name", ["flux2", "flux2:klein"])
def test_reference_images(steer: Any, name: str) -> None:
    pipe, image = tiny(name), Image.new("RGB", (64, 64))
    with told("; leave image out"):
        draw(steer(pipe), image=image)
    assert is_steered(draw(steer(pipe)))
    subject, reference = find(pipe).token_indices(pipe, PROMPT, SPANS, SHORT)
    with torch.no_grad():
        text, _ = pipe.encode_prompt(PROMPT, device="cpu", **SHORT)
    found = {"dog": subject, "cat": reference}
    columns = [{word: [column % text.shape[1] for column in its] for word, its in found.items()}]
    given = {"relations": [["dog | left of | cat"]], "columns": columns, "prompt_embeds": text}
    with told("; use a text-to-image pipeline without reference images"):
        draw(steer(pipe), None, image=image, **given)
    assert is_steered(draw(steer(pipe), None, **given))


@pytest.mark.parametrize("name", ["Flux2KleinInpaintPipeline", "Flux2KleinKVPipeline"])
def test_pipelines_with_reference_images(steer: Any, name: str) -> None:
    """A klein model's text encoder is not that of the family's first pipeline."""
    pipe = getattr(diffusers, name)(**tiny("flux2:klein").components)
    with told("use the same weights in Flux2KleinPipeline (Flux2KleinPipeline.from_pipe(pipe))"):
        steer(pipe)
    assert is_steered(draw(steer(diffusers.Flux2KleinPipeline.from_pipe(pipe)), guidance_scale=1.0))


def test_pipelines_that_edit(steer: Any) -> None:
    pipe = diffusers.QwenImageEditPipeline(**tiny("qwen-image").components, processor=None)
    with told("use the same weights in QwenImagePipeline (QwenImagePipeline.from_pipe(pipe))"):
        steer(pipe)
    assert is_steered(draw(steer(diffusers.QwenImagePipeline.from_pipe(pipe)), true_cfg_scale=1.0))


def test_a_transformer_that_is_fed_other_images(steer: Any) -> None:
    pipe = tiny("qwen-image")
    family, fed = find(pipe), {"encoder_hidden_states": torch.zeros(1, 5, 24), "timestep": torch.ones(1)}
    with told("; use QwenImagePipeline"):
        two = {"hidden_states": torch.zeros(1, 32, 16), "img_shapes": [[(1, 4, 4), (1, 4, 4)]]}
        family.read(pipe.transformer, (), fed | two)
    assert is_steered(draw(steer(pipe), true_cfg_scale=1.0))


def test_a_transformer_that_is_fed_lists_of_images(steer: Any) -> None:
    pipe = tiny("z-image")
    fed = {"x": [[torch.zeros(4, 1, 8, 8)] * 2], "t": torch.ones(1), "cap_feats": [torch.zeros(5, 24)]}
    with told("; use ZImagePipeline"):
        find(pipe).read(pipe.transformer, (), fed)
    assert is_steered(draw(steer(pipe), guidance_scale=0.0))


def test_a_tokenizer_with_another_template() -> None:
    pipe = tiny("qwen-image")
    family, own = find(pipe), pipe.prompt_template_encode_start_idx
    pipe.prompt_template_encode_start_idx = 110  # 107 tokens stand before the prompt
    with told("load the pipeline with the tokenizer that comes with the model"):
        family.token_indices(pipe, PROMPT, SPANS, SHORT)
    pipe.prompt_template_encode_start_idx = own
    assert family.token_indices(pipe, PROMPT, SPANS, SHORT)
