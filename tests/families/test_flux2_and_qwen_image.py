"""What FLUX.2 and Qwen-Image have of their own: chat templates, padding on the left, and other ways of guidance."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

from learn_to_steer.conditioning import record
from learn_to_steer.configs import ModelConfig
from learn_to_steer.evaluation.model import open_model
from learn_to_steer.families import find, of_config, resolve
from learn_to_steer.families.testing import tiny
from learn_to_steer.loading import skeleton
from learn_to_steer.sampling import remember, sampling_arguments
from learn_to_steer.steering.loop import SteeringLoop, index_batch

# Of diffusers' Euler scheduler with new versions of NumPy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROMPT = "a dog to the left of a cat"
DOG, CAT = (2, 5), (23, 26)
SHORT = {"max_sequence_length": 200}


def draw(pipe: Any, prompt: Any = PROMPT, **more: Any) -> Any:
    sized = {} if "image" in more else {"height": 64, "width": 64}
    settings = {"num_inference_steps": 2, "output_type": "latent", "generator": seeded(0), **sized, **SHORT}
    return pipe(prompt=prompt, **(settings | more))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def is_steered(pipe: Any, steer: Any, **more: Any) -> None:
    mine, stock = draw(steer(pipe), **more), draw(pipe, **more)
    assert mine.steering.images[0].passes > 0 and (mine.images - stock.images).abs().max() > 1e-3


def words(pipe: Any, columns: Any, ids: list[int]) -> list[str]:
    tokenizer = find(pipe).tokenizer(pipe)
    return [tokenizer.decode([ids[column] for column in group]).strip() for group in columns]


@pytest.mark.parametrize(
    ("model", "layers", "channels"),
    [
        ("flux2:dev", 56, 2688),
        ("flux2:klein", 25, 600),
        ("qwen-image", 60, 1440),
        ("qwen-image:2512", 60, 1440),
    ],
)
def test_layouts_of_the_released_models(model: str, layers: int, channels: int) -> None:
    family, empty = skeleton(model)
    layout = family.layout(empty)
    assert (family.name, len(layout.layers), layout.channels) == (resolve(model).family, layers, channels)


@torch.no_grad()
@pytest.mark.parametrize("name", ["flux2", "qwen-image"])
def test_latents_of_images_are_normalised_as_in_the_pipeline(name: str) -> None:
    pipe, images = tiny(name), torch.rand(1, 3, 64, 96)
    if name == "flux2":
        expected = pipe._pack_latents(pipe._encode_vae_image(images * 2 - 1, None))
    else:
        latents = pipe.vae.encode(images[:, :, None] * 2 - 1).latent_dist.mode()
        mean, deviation = (torch.tensor(pipe.vae.config[part]) for part in ("latents_mean", "latents_std"))
        latents = (latents - mean.view(1, -1, 1, 1, 1)) / deviation.view(1, -1, 1, 1, 1)
        expected = pipe._pack_latents(latents, 1, 4, 8, 12)
    torch.testing.assert_close(find(pipe).encode(pipe, images), expected, rtol=1e-4, atol=1e-5)


# FLUX.2


@pytest.mark.parametrize("longest", [160, 224])
def test_columns_of_a_text_that_is_filled_up_on_the_left(longest: int) -> None:
    pipe = tiny("flux2")
    family, seen = find(pipe), []
    pipe.text_encoder.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"][0].tolist()), with_kwargs=True
    )
    arguments = {"max_sequence_length": longest}
    pipe.encode_prompt(PROMPT, device="cpu", **arguments)
    assert len(seen[0]) == longest and seen[0][0] == pipe.tokenizer.pad_token_id
    columns = family.token_indices(pipe, PROMPT, [DOG, CAT], arguments)
    assert words(pipe, columns, seen[0]) == ["dog", "cat"]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("has_start", [True, False])
def test_columns_with_a_processor(has_start: bool, side: str) -> None:
    """As Mistral's is: it adds a start token unless the chat template has one."""
    pipe = tiny("flux2")
    inner = pipe.tokenizer
    inner.padding_side = side
    if not has_start:
        inner.chat_template = inner.chat_template.replace(inner.bos_token, "")

    class Processor:
        tokenizer = inner

        def apply_chat_template(self, messages: Any, tokenize: bool = True, **settings: Any) -> Any:
            told = {name: settings.pop(name) for name in ("add_generation_prompt",)}
            texts = inner.apply_chat_template(messages, tokenize=False, **told)
            if not tokenize:
                return texts
            settings.pop("return_dict")
            return inner(texts, add_special_tokens=not texts[0].startswith(inner.bos_token), **settings)

    pipe.tokenizer = Processor()
    seen: list[list[int]] = []
    pipe.text_encoder.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"][0].tolist()), with_kwargs=True
    )
    pipe.encode_prompt(PROMPT, device="cpu", **SHORT)
    assert seen[0].count(inner.bos_token_id) == 1
    assert words(pipe, find(pipe).token_indices(pipe, PROMPT, [DOG, CAT], SHORT), seen[0]) == ["dog", "cat"]


def test_a_base_model_is_guided_and_only_its_prompt_is_steered(steer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny("flux2:klein")
    with torch.no_grad():
        negative, _ = pipe.encode_prompt("a pizza", device="cpu", **SHORT)
    moved, steer_step = [], SteeringLoop.steer

    def spied(*args: Any) -> Any:
        moved.append(steer_step(*args))
        return moved[-1]

    monkeypatch.setattr(SteeringLoop, "steer", spied)
    steered = steer(pipe, by_step_index=True, window=0.5)
    usual = draw(steered, guidance_scale=4.0)
    other = draw(steered, guidance_scale=4.0, negative_prompt_embeds=negative)
    alone = draw(steered, guidance_scale=1.0)
    assert all((images - alone.images).abs().max() > 1e-4 for images in (usual.images, other.images))
    assert (usual.images - other.images).abs().max() > 1e-4
    assert torch.equal(moved[0], moved[2]) and torch.equal(moved[1], moved[2])


def test_how_klein_models_are_usually_sampled() -> None:
    pipe = tiny("flux2:klein")
    base = find(pipe).default_variant(pipe, "some/folder")
    assert (base.steps, base.guidance, base.steering) == (50, 4.0, {})
    pipe.register_to_config(is_distilled=True)
    few = find(pipe).default_variant(pipe, "some/folder")
    assert (few.steps, few.guidance, few.steering) == (4, 1.0, {"by_step_index": True, "window": 0.2})
    dev = find(tiny("flux2")).default_variant(tiny("flux2"), "some/folder")
    assert (dev.name, dev.steps, dev.guidance, dev.resolution) == ("some/folder", 50, 4.0, 1024)


# Qwen-Image


def test_guidance_of_qwen_image_is_true_guidance() -> None:
    arguments = sampling_arguments(resolve("qwen-image"))
    assert arguments["true_cfg_scale"] == 4.0 and arguments["negative_prompt"] == " "
    assert "guidance_scale" not in arguments
    pipe = tiny("qwen-image")
    remember(pipe, resolve("qwen-image"))
    model = open_model(ModelConfig(model="qwen-image", objective="for-spatial", guidance=2.5, device="cpu"), pipe=pipe)
    assert model.sampling["true_cfg_scale"] == 2.5 and "guidance_scale" not in model.sampling


def test_one_negative_prompt_is_for_all_prompts(steer: Any) -> None:
    pipe = tiny("qwen-image")
    remember(pipe, resolve("qwen-image"))
    out = draw(steer(pipe), [PROMPT, "a cat above a dog"])
    assert all(image.passes > 0 for image in out.steering.images)
    stock = draw(pipe, [PROMPT, "a cat above a dog"], true_cfg_scale=4.0, negative_prompt=[" ", " "]).images
    unsteered = draw(steer(pipe), [PROMPT, "a cat above a dog"], relations=[[], []]).images
    assert torch.equal(unsteered, stock)


def test_columns_begin_after_the_tokens_that_the_pipeline_drops() -> None:
    pipe = tiny("qwen-image")
    ids = pipe.tokenizer(pipe.prompt_template_encode.format(PROMPT)).input_ids[pipe.prompt_template_encode_start_idx :]
    columns = find(pipe).token_indices(pipe, PROMPT, [DOG, CAT], SHORT)
    assert words(pipe, columns, ids) == ["dog", "cat"]
    with torch.no_grad():
        text, _ = pipe.encode_prompt(PROMPT, device="cpu")
    assert text.shape[1] == len(ids)


def test_padding_on_the_left_changes_nothing(steer: Any) -> None:
    """The pipeline puts the states of every text at the beginning, whichever side the tokenizer fills up."""
    pipe, prompts = tiny("qwen-image"), [PROMPT, "a red kite on a large green boat, above a small blue horse"]
    right = draw(steer(pipe), prompts, true_cfg_scale=1.0)
    pipe.tokenizer.padding_side = "left"
    left = draw(steer(pipe), prompts, true_cfg_scale=1.0)
    assert all(image.passes > 0 for image in left.steering.images)
    torch.testing.assert_close(left.images, right.images, rtol=1e-3, atol=1e-3)


def test_several_images_of_a_prompt_with_other_modulation(steer: Any) -> None:
    """The transformer of newer models reads the number of images from an argument that some pipelines fill wrongly."""
    parts = tiny("qwen-image").components
    # diffusers drops what it lists as defaults, changed or not.
    config = {key: value for key, value in parts["transformer"].config.items() if key != "_use_default_values"}
    newer = type(parts["transformer"]).from_config({**config, "zero_cond_t": True})
    assert newer.zero_cond_t
    newer.load_state_dict(parts["transformer"].state_dict())
    pipe = diffusers.QwenImagePipeline(**parts | {"transformer": newer.eval()})
    prompts = ["a dog and a cat", PROMPT]
    mine, stock = (
        draw(one, prompts, true_cfg_scale=1.0, generator=[seeded(0), seeded(1)]).images for one in (steer(pipe), pipe)
    )
    alone = draw(steer(pipe), true_cfg_scale=1.0, generator=seeded(1)).images[0]
    both = record(pipe, find(pipe), prompts, 64, 64, SHORT).call
    one = index_batch(both, torch.tensor([1]), 2)
    with torch.no_grad():
        assert len(pipe.transformer(**find(pipe).write(one))[0]) == 1
    assert torch.equal(mine[0], stock[0]) and (mine[1] - stock[1]).abs().max() > 1e-3
    torch.testing.assert_close(mine[1], alone, rtol=1e-3, atol=1e-3)
    out = draw(steer(pipe), num_images_per_prompt=2, true_cfg_scale=1.0)
    assert all(image.passes > 0 for image in out.steering.images)


def test_img2img(steer: Any) -> None:
    pipe = diffusers.QwenImageImg2ImgPipeline(**tiny("qwen-image").components)
    is_steered(pipe, steer, image=torch.rand(1, 3, 64, 64), strength=1.0, height=64, width=64, true_cfg_scale=1.0)


def test_inpainting(steer: Any) -> None:
    pipe = diffusers.QwenImageInpaintPipeline(**tiny("qwen-image").components)
    given = {"image": torch.rand(1, 3, 64, 64), "mask_image": torch.ones(1, 1, 64, 64), "strength": 1.0}
    is_steered(pipe, steer, height=64, width=64, true_cfg_scale=1.0, **given)


def test_a_controlnet(steer: Any) -> None:
    """With guidance."""
    whole = tiny("qwen-image")
    control = diffusers.QwenImageControlNetModel.from_transformer(
        whole.transformer, num_layers=1, attention_head_dim=16, num_attention_heads=2
    ).eval()
    with torch.no_grad():
        for layer in control.controlnet_blocks:
            layer.weight.normal_(0, 0.5)
    pipe = diffusers.QwenImageControlNetPipeline(**whole.components, controlnet=control)
    is_steered(pipe, steer, control_image=torch.rand(1, 3, 64, 64), negative_prompt=" ")


def test_layered_models_belong_to_no_family() -> None:
    config = {**tiny("qwen-image").transformer.config, "_class_name": "QwenImageTransformer2DModel"}
    assert of_config(config) is not None
    assert of_config({**config, "use_layer3d_rope": True}) is None
