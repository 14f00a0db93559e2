"""Checkpointing that is left open is switched on where an iteration would not fit; what will never fit is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from learn_to_steer.configs import ModelConfig
from learn_to_steer.errors import UnsupportedError
from learn_to_steer.evaluation import model as models
from learn_to_steer.evaluation.model import open_model
from learn_to_steer.steering.memory import MemoryEstimate

GIB = 2**30


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, saved_sd: Path) -> Any:
    """``gpu(free, kept, checkpointed)``: the opened model's settings, as if on a GPU with so much room (GiB)."""
    from diffusers import StableDiffusionPipeline

    def opened(free: float, kept: float, checkpointed: float) -> Any:
        need = MemoryEstimate(GIB, int(kept * GIB), int(checkpointed * GIB))
        monkeypatch.setattr(StableDiffusionPipeline, "_execution_device", torch.device("cuda"))
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (int(free * GIB), 0))
        monkeypatch.setattr(models, "record", lambda *_: None)
        monkeypatch.setattr(models, "estimate", lambda *_: need)
        config = ModelConfig(model=str(saved_sd), classifier=str(saved_sd / "classifier"), device="cpu")
        return open_model(config).steered.config  # type: ignore[union-attr]

    return opened


@pytest.mark.parametrize(("free", "checkpointing"), [(1.5, True), (1.7, False)])
def test_an_iteration_peaks_above_what_it_keeps(gpu: Any, free: float, checkpointing: bool) -> None:
    """At 1.6 times of it: the working space of the kernels, and gradients beside what they come from."""
    assert gpu(free, kept=1.0, checkpointed=0.1).checkpointing is checkpointing


def test_what_does_not_fit_at_all_is_refused(gpu: Any) -> None:
    with pytest.raises(UnsupportedError, match="even with gradient checkpointing"):
        gpu(1.5, kept=4.0, checkpointed=1.0)
