"""The real architectures at full size, random weights: every layer shows its maps, and the gradient is finite."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

from learn_to_steer.attention import AttentionCapture
from learn_to_steer.families import Call
from learn_to_steer.loading import skeleton
from learn_to_steer.maps import columns_to_weights


def one_pass(family: Any, denoiser: torch.nn.Module, call: Call) -> tuple[int, torch.Tensor]:
    """Channels of the maps, and the gradient of a loss on them."""
    denoiser.requires_grad_(False)
    denoiser.enable_gradient_checkpointing()
    leaf = call.latents.requires_grad_()
    capture = AttentionCapture(family.attention_layers(denoiser), family.attention(denoiser))
    tokens = family.text_length(call)
    with capture.capture(columns_to_weights([((1,), (2,))], tokens), *family.latent_size(denoiser, call)) as maps:
        denoiser(**family.write(Call(leaf, call.time, call.rest, call.shared)) | {"return_dict": False})
        stacked = maps().stack(16)
        (gradient,) = torch.autograd.grad(stacked.square().sum(), leaf)
    return stacked.shape[2], gradient


def stable_diffusion(denoiser: torch.nn.Module, side: int) -> Call:
    config: Any = denoiser.config
    text = torch.randn(1, 77, config.cross_attention_dim, generator=torch.Generator().manual_seed(1))
    latents = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(0))
    return Call(latents, torch.tensor(900.0), {"encoder_hidden_states": text})


def built(model: str, **changes: Any) -> tuple[Any, torch.nn.Module]:
    family, empty = skeleton(model)
    torch.manual_seed(0)
    # diffusers drops what it lists as defaults, changed or not: all 57 blocks of FLUX would be built.
    config = {key: value for key, value in empty.config.items() if key != "_use_default_values"}
    return family, getattr(diffusers, family.network).from_config(config | changes)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "channels"), [("sd:1.4", 128), ("sd:2.1", 195)])
def test_stable_diffusion_at_full_size(model: str, channels: int) -> None:
    family, denoiser = built(model)
    seen, gradient = one_pass(family, denoiser, stable_diffusion(denoiser, 64))
    assert seen == channels
    assert gradient.shape == (1, 4, 64, 64) and gradient.isfinite().all() and gradient.abs().max() > 0


@pytest.mark.parametrize(("model", "channels"), [("sd:1.4", 128), ("sd:2.1", 195)])
def test_a_narrow_stand_in_has_the_same_channels(model: str, channels: int) -> None:
    heads = 8 if model == "sd:1.4" else (5, 10, 20, 20)
    widths = (32, 64, 128, 128) if model == "sd:1.4" else (40, 80, 160, 160)
    changes = {"block_out_channels": widths, "attention_head_dim": heads, "norm_num_groups": 8}
    family, denoiser = built(model, **changes, cross_attention_dim=32)
    seen, gradient = one_pass(family, denoiser, stable_diffusion(denoiser, 16))
    assert seen == channels
    assert gradient.isfinite().all() and gradient.abs().max() > 0


def flux_call(denoiser: torch.nn.Module, side: int) -> Call:
    config: Any = denoiser.config
    ids = torch.zeros(side, side, 3)
    ids[..., 1], ids[..., 2] = torch.arange(side)[:, None], torch.arange(side)[None]
    generator = torch.Generator().manual_seed(0)
    rest = {
        "encoder_hidden_states": torch.randn(1, 64, config.joint_attention_dim, generator=generator),
        "pooled_projections": torch.randn(1, config.pooled_projection_dim, generator=generator),
        "guidance": torch.full((1,), 3.5),
    }
    shared = {"img_ids": ids.reshape(-1, 3), "txt_ids": torch.zeros(64, 3)}
    latents = torch.randn(1, side**2, config.in_channels, generator=generator)
    return Call(latents, torch.tensor([0.9]), rest, shared)


@pytest.mark.slow
def test_flux_at_full_width() -> None:
    family, denoiser = built("flux:dev", num_layers=2, num_single_layers=2)
    seen, gradient = one_pass(family, denoiser, flux_call(denoiser, 32))
    assert seen == 4 * 24
    assert gradient.shape == (1, 1024, 64) and gradient.isfinite().all() and gradient.abs().max() > 0
