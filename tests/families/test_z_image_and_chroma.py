"""What Z-Image and Chroma have of their own: a chat around the prompt, lists, guidance at 1, and a mask on the text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import diffusers
import pytest
import torch

from learn_to_steer.attention import AttentionCapture
from learn_to_steer.conditioning import record
from learn_to_steer.errors import PromptError, UnsupportedError
from learn_to_steer.families import find, resolve
from learn_to_steer.families.testing import tiny
from learn_to_steer.loading import quiet, skeleton
from learn_to_steer.maps import columns_to_weights

PROMPT = "a dog to the left of a cat"
DOG, CAT = (2, 5), (23, 26)
LENGTHS = {"z-image": 80, "chroma": 48}


def draw(pipe: Any, prompt: Any = PROMPT, **more: Any) -> Any:
    settings = {"num_inference_steps": 3, "guidance_scale": 3.0, "output_type": "latent", "max_sequence_length": 80}
    sized = {"height": 64, "width": 64}
    return pipe(prompt, generator=torch.Generator().manual_seed(0), **(settings | sized | more))


def is_steered(pipe: Any, steer: Any, **more: Any) -> None:
    mine, stock = draw(steer(pipe), **more), draw(pipe, **more)
    assert mine.steering.images[0].passes > 0 and (mine.images - stock.images).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("model", "layers", "channels"), [("z-image", 30, 900), ("z-image:turbo", 30, 900), ("chroma", 57, 1368)]
)
def test_layouts_of_the_released_models(model: str, layers: int, channels: int) -> None:
    family, empty = skeleton(model)
    layout = family.layout(empty)
    assert (family.name, len(layout.layers), layout.channels) == (resolve(model).family, layers, channels)


@pytest.mark.parametrize("kind", ["ZImageImg2ImgPipeline", "ChromaImg2ImgPipeline"])
def test_img2img(steer: Any, kind: str) -> None:
    pipe = getattr(diffusers, kind)(**tiny("z-image" if kind.startswith("Z") else "chroma").components)
    is_steered(pipe, steer, image=torch.rand(1, 3, 64, 64), strength=0.9)


def test_inpainting_with_z_image(steer: Any) -> None:
    pipe = diffusers.ZImageInpaintPipeline(**tiny("z-image").components)
    given = {"image": torch.rand(1, 3, 64, 64), "mask_image": torch.ones(1, 1, 64, 64), "strength": 1.0}
    is_steered(pipe, steer, **given)


def small(transformer: Any) -> dict[str, Any]:
    """The sizes of the tiny Z-Image that are no defaults."""
    names = ("dim", "n_layers", "n_refiner_layers", "n_heads", "n_kv_heads", "cap_feat_dim", "axes_dims", "axes_lens")
    return {name: transformer.config[name] for name in names}


def further_parts(kind: str, whole: Any) -> dict[str, Any]:
    """What a pipeline has beside the parts of the usual one."""
    if kind == "ZImageOmniPipeline":
        return {"siglip": None, "siglip_processor": None}
    if kind != "ZImageControlNetPipeline":
        return {}
    sizes = {name: value for name, value in small(whole.transformer).items() if name[:1] in "dn" and name != "n_layers"}
    return {"controlnet": diffusers.ZImageControlNetModel(control_layers_places=[0], control_in_dim=16, **sizes)}


@pytest.mark.parametrize("kind", ["ZImageOmniPipeline", "ZImageControlNetPipeline", "ChromaInpaintPipeline"])
def test_other_pipelines_are_refused_with_advice(steer: Any, kind: str) -> None:
    whole = tiny("chroma" if kind.startswith("Chroma") else "z-image")
    pipe = getattr(diffusers, kind)(**whole.components, **further_parts(kind, whole))
    usual = type(whole)
    with pytest.raises(UnsupportedError, match=rf"{kind} has not been tried.*{usual.__name__}.from_pipe\(pipe\)"):
        steer(pipe)
    with quiet():
        told = usual.from_pipe(pipe)
    is_steered(told, steer)


def test_the_omni_model_is_none_of_the_family() -> None:
    whole = tiny("z-image")
    omni = type(whole.transformer)(**small(whole.transformer), siglip_feat_dim=8)
    with pytest.raises(UnsupportedError, match="with other inputs or another text than those of z-image"):
        find(type(whole)(**{**whole.components, "transformer": omni}))


def test_a_transformer_that_is_fed_further_images_is_refused() -> None:
    whole = tiny("z-image")
    image = torch.zeros(16, 1, 8, 8)
    with pytest.raises(UnsupportedError, match=r"fed further images.*use ZImagePipeline"):
        find(whole).read(whole.transformer, ([[image, image]], torch.ones(1), [[torch.zeros(3, 24)]]), {})


@pytest.mark.parametrize(
    ("prompt", "word"), [(PROMPT, "dog"), ("user", "user"), ("a", "a"), ("a cat{{ 1 }}dog <|im_start|>user", "dog")]
)
def test_columns_of_a_word_in_a_chat(prompt: str, word: str) -> None:
    """Also if the template has the same words."""
    pipe = tiny("z-image")
    at = prompt.index(word)
    (columns,) = find(pipe).token_indices(pipe, prompt, [(at, at + len(word))], {})
    chat = [{"role": "user", "content": prompt}]
    ids = pipe.tokenizer.apply_chat_template(chat, tokenize=True, add_generation_prompt=True, return_dict=True)[
        "input_ids"
    ]
    assert pipe.tokenizer.decode([ids[column] for column in columns]).strip() == word
    ahead = pipe.tokenizer.decode(ids[: columns[0]])
    assert ahead.rstrip() == f"<|im_start|>user\n{prompt[:at]}".rstrip()


def test_a_template_that_changes_the_prompt_is_refused() -> None:
    pipe = tiny("z-image")
    pipe.tokenizer.chat_template = "{{ messages[0].content | upper }}"
    with pytest.raises(UnsupportedError, match="changes the prompt 'a dog"):
        find(pipe).token_indices(pipe, PROMPT, [DOG], {})


def test_guidance_that_ends_before_the_last_step(steer: Any) -> None:
    """The batch has one half from then on."""
    pipe = tiny("z-image")
    mine = draw(steer(pipe, window=1.0), cfg_truncation=0.1)
    assert len(mine.steering.images[0].steps) == 3
    assert not torch.equal(mine.images, draw(pipe, cfg_truncation=0.1).images)


@pytest.mark.parametrize("name", ["z-image", "chroma"])
def test_several_images_of_a_prompt(steer: Any, name: str) -> None:
    pipe = tiny(name)
    given = {"max_sequence_length": LENGTHS[name], "num_images_per_prompt": 2}
    prompts = [PROMPT, "a small red bird above a large green boat and a kite"]
    mine, stock = (draw(one, prompts, **given) for one in (steer(pipe), pipe))
    assert [len(image.relations) for image in mine.steering.images] == [1, 1, 2, 2]
    assert ((mine.images - stock.images).abs().flatten(1).max(dim=1).values > 1e-3).all()


@pytest.mark.parametrize("embeds", [torch.zeros(3, 24), [torch.zeros(1, 3, 24)], [], "text"])
def test_embeddings_of_another_shape(steer: Any, embeds: Any) -> None:
    with pytest.raises(PromptError, match=r"prompt_embeds is .*; it must be a tensor of shape"):
        draw(
            steer(tiny("z-image")), None, prompt_embeds=embeds, relations=["dog | left of | cat"], columns={"dog": [5]}
        )


@torch.no_grad()
def test_latents_keep_the_digits_that_the_transformer_is_not_fed(steer: Any) -> None:
    """A move of almost nothing changes almost nothing, although the transformer is fed bfloat16."""
    pipe = tiny("z-image")
    pipe.transformer.to(torch.bfloat16)
    stock = draw(pipe, guidance_scale=0.0)
    for size, least, most in ((1e-8, 1e-10, 1e-6), (1.0, 1e-3, 1e3)):
        mine = draw(steer(pipe, step_size=size), guidance_scale=0.0)
        assert mine.steering.images[0].passes > 0 and mine.images.dtype == torch.float32
        assert least < (mine.images - stock.images).abs().max() < most


@torch.no_grad()
def test_padding_of_chroma_is_no_part_of_the_maps() -> None:
    """With a mask that hides it, the maps are those of a text without."""
    pipe = tiny("chroma")
    family, found = find(pipe), []
    columns = family.token_indices(pipe, PROMPT, [DOG, CAT], {})
    own = len(pipe.tokenizer(PROMPT)["input_ids"]) + 1  # and one token of padding
    for length in (own, 48):
        recording = record(pipe, family, [PROMPT], 64, 64, {"max_sequence_length": length})
        mask = recording.call.rest["attention_mask"].bool()
        call = replace(recording.call, rest={**recording.call.rest, "attention_mask": mask})
        (span,) = family.spans(pipe.transformer, call) or ()
        assert (span.start, span.length, span.image) == (0, own, length)
        latents = torch.randn(call.latents.shape, generator=torch.Generator().manual_seed(0))
        capture = AttentionCapture(family.attention_layers(pipe.transformer))
        with capture.capture(columns_to_weights([columns], length, [span]), 4, 4, spans=[span]) as maps:
            replace(recording, call=call)(latents, call.time)
            found.append(maps().layers)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_chroma_without_a_mask_has_all_columns() -> None:
    pipe = tiny("chroma")
    call = record(pipe, find(pipe), [PROMPT], 64, 64, {"max_sequence_length": 48}).call
    unmasked = replace(call, rest={**call.rest, "attention_mask": None})
    assert find(pipe).spans(pipe.transformer, unmasked) is None


@pytest.mark.parametrize("name", ["z-image", "chroma"])
def test_a_folder_is_sampled_as_the_family_usually_is(name: str) -> None:
    pipe = tiny(name)
    mine, usual = find(pipe).default_variant(pipe, "some/folder"), resolve(name)
    assert mine == replace(usual, name="some/folder", source="some/folder")


@pytest.mark.parametrize("model", ["z-image:turbo"])
def test_a_few_step_model_is_steered_in_its_first_step(steer: Any, model: str) -> None:
    variant = resolve(model)
    mine = draw(
        steer(tiny("z-image"), **variant.steering), num_inference_steps=variant.steps, guidance_scale=variant.guidance
    )
    assert [step.step for step in mine.steering.images[0].steps] == [0]
