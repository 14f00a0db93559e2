"""What cannot be steered is refused before a step is made, and the message says what to do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import FirstBlockCacheConfig
from diffusers.hooks import apply_first_block_cache

from learn_to_steer.errors import UnsupportedError
from learn_to_steer.steering import Steerer

PROMPT = "a dog to the left of a cat"
SETTINGS: dict[str, Any] = {"height": 64, "width": 64, "num_inference_steps": 2, "output_type": "latent"}
SETTINGS |= {"max_sequence_length": 48}


def test_caches(tiny_flux: Any, steer: Any) -> None:
    tiny_flux.transformer.enable_cache(FirstBlockCacheConfig())
    with pytest.raises(UnsupportedError, match=r"FirstBlockCache.*disable_cache"):
        steer(tiny_flux)(PROMPT, **SETTINGS)
    tiny_flux.transformer.disable_cache()
    assert steer(tiny_flux)(PROMPT, **SETTINGS).steering.images[0].passes > 0


def test_caches_that_were_applied_by_hand(tiny_flux: Any, steer: Any) -> None:
    apply_first_block_cache(tiny_flux.transformer, FirstBlockCacheConfig())
    with pytest.raises(UnsupportedError, match="reuses old activations"):
        steer(tiny_flux)(PROMPT, **SETTINGS)


def test_group_offloading(tiny_flux: Any, steer: Any) -> None:
    steered = steer(tiny_flux)
    where = {"onload_device": torch.device("cpu"), "offload_device": torch.device("cpu")}
    tiny_flux.transformer.enable_group_offload(**where, offload_type="leaf_level")
    with pytest.raises(UnsupportedError, match=r"in groups.*--offload model"):
        steered(PROMPT, **SETTINGS)


def test_kernels_without_a_backward(tiny_flux: Any, steer: Any) -> None:
    foreign = type("NunchakuFluxTransformer2dModel", (torch.nn.Module,), {"__module__": "nunchaku.models"})
    loss_function = steer(tiny_flux).loss
    tiny_flux.transformer = foreign()
    with pytest.raises(UnsupportedError, match=r"nunchaku.*--quantize"):
        Steerer(loss_function).on(tiny_flux)
