"""Recording a pipeline's conditioning uses nothing up and leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from learn_to_steer.conditioning import record
from learn_to_steer.errors import UnsupportedError
from learn_to_steer.families import Call, find
from learn_to_steer.steering.loop import index_batch

PROMPTS = ["a dog", "a cat and a kite"]


def test_a_recording_is_the_pipelines_own_conditioning(tiny_sd: Any) -> None:
    recording = record(tiny_sd, find(tiny_sd), PROMPTS, 64, 64)
    assert recording.batch == 2
    latents, time = torch.randn(2, 16, 8, 8), torch.tensor(500)
    with torch.no_grad():
        text = tiny_sd.encode_prompt(PROMPTS, "cpu", 1, False)[0]
        expected = tiny_sd.unet(latents, time, encoder_hidden_states=text).sample
        assert torch.equal(recording(latents, time), expected)


def test_recording_leaves_no_trace(tiny_sd: Any) -> None:
    tiny_sd.set_progress_bar_config(disable=False, desc="mine")
    state = torch.get_rng_state()
    record(tiny_sd, find(tiny_sd), PROMPTS, 64, 96)
    assert torch.equal(torch.get_rng_state(), state)
    assert tiny_sd._progress_bar_config == {"disable": False, "desc": "mine"}
    assert not tiny_sd.unet._forward_pre_hooks


def test_the_latents_take_the_asked_size(tiny_sd: Any) -> None:
    recording = record(tiny_sd, find(tiny_sd), PROMPTS, 64, 96)
    assert recording.call.latents.shape == (2, 16, 8, 12)


def test_some_rows_of_a_call(tiny_sd: Any) -> None:
    recording = record(tiny_sd, find(tiny_sd), PROMPTS, 64, 64)
    second = replace(recording, call=index_batch(recording.call, torch.tensor([1]), 2))
    latents, time = torch.randn(2, 16, 8, 8), torch.tensor(500)
    with torch.no_grad():
        expected = recording(latents, time)[1:]
        torch.testing.assert_close(second(latents[1:], time), expected, rtol=1e-4, atol=1e-5)


def test_every_batched_argument_is_cut_alike() -> None:
    rest = {
        "residuals": (torch.arange(4), [torch.arange(8).reshape(4, 2)]),
        "added_cond_kwargs": {"ids": torch.arange(4), "scale": 0.5},
        "mask": torch.ones(3),
    }
    cut = index_batch(Call(torch.zeros(4, 1), torch.tensor(7), rest), torch.tensor([2, 3]), 4)
    assert cut.latents.shape == (2, 1) and cut.time == 7
    assert cut.rest["residuals"][0].tolist() == [2, 3]
    assert cut.rest["residuals"][1][0].tolist() == [[4, 5], [6, 7]]
    assert cut.rest["added_cond_kwargs"]["ids"].tolist() == [2, 3]
    assert cut.rest["mask"].shape == (3,)  # not of the batch


def test_mask_channels_are_refused(tiny_sd: Any) -> None:
    with pytest.raises(UnsupportedError, match="inpainting"):
        find(tiny_sd).read(tiny_sd.unet, (torch.zeros(2, 33, 8, 8), 500), {})
