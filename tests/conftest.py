"""Fixtures for all tests: tiny pipelines of random weights, built in code, and a random classifier."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Random tensors that a test draws without a generator are the same in every run and in every order."""
    import torch

    torch.manual_seed(0)


def _tiny_vae(**factors: float) -> Any:
    """A random VAE that reduces by a factor of 8, with 16 latent channels."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=2,
        mid_block_add_attention=False,
        **factors,
    )


@pytest.fixture
def tiny_sd() -> Iterator[Any]:
    """A StableDiffusionPipeline of random weights for images of 64 x 64 pixels, built anew for every test.

    The VAE reduces by a factor of 8. Cross-attention is at two resolutions; its maps have 14 channels (7 layers x 2
    heads). The tokenizer is that of the emoji models; the scheduler is DDIM, epsilon prediction, 1000 times.
    """
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        folder = files("learn_to_steer_emoji").joinpath("data", "sd-emoji", "tokenizer")
        tokenizer = CLIPTokenizer.from_pretrained(str(folder))
        unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=16,
            out_channels=16,
            block_out_channels=(16, 32),
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=4,
        )
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=77,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        vae = _tiny_vae(scaling_factor=1.0, shift_factor=0.0)
        scheduler = DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        )
        pipe = StableDiffusionPipeline(
            vae=vae.eval(),
            text_encoder=text_encoder.eval(),
            tokenizer=tokenizer,
            unet=unet.eval(),
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipe.set_progress_bar_config(disable=True)
        yield pipe


@pytest.fixture
def tiny_flux() -> Iterator[Any]:
    """A FluxPipeline of random weights, with embedded guidance as in FLUX.1-dev, built anew for every test.

    Two double and two single blocks of 2 heads: 8 channels. 64 x 64 pixels are 4 x 4 image tokens. The tokenizers are
    those of the emoji models.
    """
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

    data = files("learn_to_steer_emoji").joinpath("data")
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        tokenizer = CLIPTokenizer.from_pretrained(str(data / "sd-emoji" / "tokenizer"))
        second = T5TokenizerFast.from_pretrained(str(data / "flux-emoji" / "tokenizer_2"))
        small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        pipe = FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
            vae=_tiny_vae(scaling_factor=0.7, shift_factor=0.1).eval(),
            text_encoder=CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, max_position_embeddings=77, **small
                )
            ).eval(),
            tokenizer=tokenizer,
            text_encoder_2=T5EncoderModel(
                T5Config(vocab_size=len(second), d_model=24, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
            ).eval(),
            tokenizer_2=second,
            transformer=FluxTransformer2DModel(
                in_channels=64,
                num_layers=2,
                num_single_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=24,
                pooled_projection_dim=16,
                guidance_embeds=True,
                axes_dims_rope=(4, 6, 6),
            ).eval(),
        )
        with torch.no_grad():  # a random transformer's own output is nearly zero
            pipe.transformer.proj_out.weight.normal_(0, 0.3)
        pipe.set_progress_bar_config(disable=True)
        yield pipe


@pytest.fixture
def random_classifier() -> Callable[..., Any]:
    """``random_classifier(pipe, depth=None, **sizes)``: an untrained classifier of the first ``depth`` layers."""
    import torch

    from learn_to_steer.classifier import ClassifierConfig, RelationClassifier
    from learn_to_steer.families import find

    def build(pipe: Any, depth: int | None = None, **sizes: Any) -> Any:
        family = find(pipe)
        layout = family.layout(getattr(pipe, family.denoiser))
        layout, _ = layout.some(family.running_order(layout.layers)[:depth])
        small = {"width": 32, "layers": 1, "hidden": 32, "head_layers": 1, "head_hidden": 32}
        levels = (0.99, 0.95, 0.9, 0.8)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return RelationClassifier(
                ClassifierConfig(
                    classes=("above", "below", "is", "left of", "right of"),
                    channels=layout.channels,
                    times=len(levels),
                    levels=levels,
                    layout=layout.as_dict(),
                    **(small | sizes),
                )
            ).eval()

    return build


@pytest.fixture
def saved_sd(tiny_sd: Any, random_classifier: Callable[..., Any], tmp_path: Path) -> Path:
    """The folder of ``tiny_sd`` as a diffusers model; ``classifier`` in it holds a random classifier for it."""
    from learn_to_steer.classifier import save

    folder = tmp_path / "tiny-sd"
    tiny_sd.save_pretrained(folder)
    save(random_classifier(tiny_sd), folder / "classifier")
    return folder


def _wrong_values(value: Any) -> list[Any]:
    """Values that are of another type than ``value``, or impossible for a count."""
    values = [None, "text", 7, -1, 2**70, 1.5, float("nan"), True, [], ["text"], [[[[]]]], {}, {"a": {"b": []}}]
    if isinstance(value, bool):
        return [one for one in values if not isinstance(one, bool)]
    if isinstance(value, int):
        return [one for one in values if type(one) is not int or not 0 <= one < 2**40]
    if isinstance(value, float):
        return [one for one in values if not isinstance(one, int | float) or isinstance(one, bool) or one != one]
    return [one for one in values if type(one) is not type(value)]


def _with_wrong_values(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if name:
        yield from ((f"{name}={wrong!r}", wrong) for wrong in _wrong_values(value))
    if isinstance(value, dict):
        for key, part in value.items():
            yield from ((label, value | {key: one}) for label, one in _with_wrong_values(part, f"{name}.{key}"))
    elif isinstance(value, list) and value:
        yield from ((label, [one, *value[1:]]) for label, one in _with_wrong_values(value[0], f"{name}[0]"))


@pytest.fixture
def with_wrong_values() -> Callable[[Any], Iterator[tuple[str, Any]]]:
    """``with_wrong_values(value)``: copies of a JSON object, each with one field of a wrong type, and their labels.

    A label is the path of the field and its new value, such as ".counts.rows=None".
    """
    return _with_wrong_values


@pytest.fixture
def spoil() -> Callable[[Path], Iterator[str]]:
    """``for how in spoil(path)``: damages a file in ways that no reader may accept, and restores it at the end."""

    def ways(path: Path) -> Iterator[str]:
        whole = path.read_bytes()
        contents = {
            "cut": whole[: len(whole) // 2],
            "empty": b"",
            "not UTF-8": b'{"a": "\xff\xfe"}\n{"b": 1}\n',
            "not JSON": b"\x00\x01\n{}\n",
            "nested": b"[" * 100_000 + b"\n{}\n",
            "digits": b'{"index": ' + b"9" * 5000 + b"}\n{}\n",
            "another type": b"[1, 2]\n{}\n",
        }
        for how, content in contents.items():
            path.write_bytes(content)
            yield how
        path.unlink()
        path.mkdir()
        yield "a folder"
        path.rmdir()
        path.symlink_to(path.name)
        yield "a loop of links"
        path.unlink()
        path.write_bytes(whole)

    return ways


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in in place of Ray; see ``tests/distributed/ray_stand_in.py``."""
    import logging
    import os
    import sys

    from ray_stand_in import StandIn

    module = StandIn()
    monkeypatch.setitem(sys.modules, "ray", module)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    package = logging.getLogger("learn_to_steer")
    handlers, level = list(package.handlers), package.level
    yield module
    package.handlers[:] = handlers
    package.setLevel(level)
