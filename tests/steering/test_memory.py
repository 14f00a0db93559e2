"""The memory of a pass, counted without data, is what autograd really keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from learn_to_steer.attention import AttentionCapture
from learn_to_steer.conditioning import record
from learn_to_steer.families import find
from learn_to_steer.maps import columns_to_weights
from learn_to_steer.steering.memory import estimate

PROMPT = "a dog to the left of a cat"


def really_kept(recording: Any) -> int:
    """Bytes of the storages that a real forward on the CPU saves, weights apart."""
    family, denoiser = recording.family, recording.denoiser
    denoiser.requires_grad_(False)
    known = {p.untyped_storage().data_ptr() for p in denoiser.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    leaf = torch.randn_like(recording.call.latents).requires_grad_()
    weights = columns_to_weights([((1,), (2,))], family.text_length(recording.call))
    size = family.latent_size(recording.call)
    capture = AttentionCapture(family.attention_layers(denoiser), method="indicator")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), capture.capture(weights, *size) as maps:
        recording(leaf, recording.call.time)
        maps()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("name", ["tiny_sd", "tiny_flux"])
def test_the_estimate_is_what_autograd_keeps(name: str, request: pytest.FixtureRequest) -> None:
    pipe = request.getfixturevalue(name)
    more = {"max_sequence_length": 48} if name == "tiny_flux" else {}
    recording = record(pipe, find(pipe), [PROMPT], 64, 64, more)
    need = estimate(pipe, find(pipe), recording)
    assert need.kept == pytest.approx(really_kept(recording), rel=0.05)
    assert need.checkpointed < need.kept
    # With checkpointing: the inputs of all blocks, and one block while it is recomputed.
    getattr(pipe, find(pipe).denoiser).enable_gradient_checkpointing()
    one_block = need.kept / len(find(pipe).attention_layers(recording.denoiser))
    assert need.checkpointed == pytest.approx(really_kept(recording) + one_block, rel=0.05)
    held = [p for part in pipe.components.values() if isinstance(part, torch.nn.Module) for p in part.parameters()]
    assert need.weights == sum(p.numel() * p.element_size() for p in held)


def test_it_is_per_image(tiny_sd: Any) -> None:
    one, three = (record(tiny_sd, find(tiny_sd), [PROMPT] * n, 64, 64) for n in (1, 3))
    assert estimate(tiny_sd, find(tiny_sd), one) == estimate(tiny_sd, find(tiny_sd), three)
