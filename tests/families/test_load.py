"""From a model's name to a pipeline."""

from __future__ import annotations

import pytest
import torch

from learn_to_steer.errors import DataError, UnknownNameError
from learn_to_steer.families import Variant, sd
from learn_to_steer.families._load import load_pipeline, package_folder


def test_folder(saved_sd, capfd):
    pipe, variant = load_pipeline(str(saved_sd))
    assert type(pipe.scheduler).__name__ == "DDIMScheduler"
    assert (variant.family, variant.side, variant.steps, variant.classifier) == ("sd", 64, 50, None)
    assert pipe.unet.dtype == torch.float32
    assert capfd.readouterr().err == ""


def test_variant_brings_its_scheduler_and_half_weights_are_widened(saved_sd, tiny_sd, monkeypatch):
    tiny_sd.to(torch.float16).save_pretrained(saved_sd)
    variant = Variant("sd:tiny", "sd", str(saved_sd), 64, 7, 3.0, 5.0, scheduler={"class": "EulerDiscreteScheduler"})
    monkeypatch.setattr(sd, "VARIANTS", (variant,))
    pipe, found = load_pipeline("sd:tiny")
    assert found is variant
    assert type(pipe.scheduler).__name__ == "EulerDiscreteScheduler"
    assert {parameter.dtype for parameter in pipe.unet.parameters()} == {torch.float32}
    assert type(load_pipeline("sd:tiny", scheduler="DDPMScheduler")[0].scheduler).__name__ == "DDPMScheduler"


def test_names_that_are_nothing():
    with pytest.raises(UnknownNameError, match="did you mean 'sd:emoji'"):
        load_pipeline("sd:emojis")
    with pytest.raises(DataError, match="does not exist"):
        load_pipeline("some/folder/here")
    with pytest.raises(DataError, match=r"runs/train_base\.py"):
        package_folder("package:nothing-here")
    assert package_folder("owner/name") == "owner/name"
