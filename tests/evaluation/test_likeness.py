"""How alike two pictures are: embeddings of tiny models, and what lies outside the boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    ViTImageProcessor,
)

from learn_to_steer.errors import DataError
from learn_to_steer.evaluation.likeness import background, embedder


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture
def dino(tmp_path: Path) -> str:
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 28, "width": 28}).save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.fixture
def clip(tmp_path: Path) -> str:
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text, vision = small | {"vocab_size": 50}, small | {"image_size": 28, "patch_size": 14}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).save_pretrained(tmp_path)
    CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize(("name", "channels"), [("dino", 16), ("clip", 12), ("emoji", None)])
def test_the_same_picture_is_alike_and_another_less(
    name: str, channels: int | None, request: pytest.FixtureRequest
) -> None:
    embed = embedder(name if name == "emoji" else request.getfixturevalue(name))
    pictures = [picture(seed) for seed in range(3)] + [Image.new("RGB", (64, 48), "white")]
    found, again = embed(pictures), embed(pictures[:2])
    assert torch.cosine_similarity(found[:2], again).tolist() == pytest.approx([1.0] * 2, abs=1e-5)
    assert torch.cosine_similarity(found[0], found[3], dim=0) < 0.999
    if channels:
        assert embed(pictures).shape == (4, channels)


def test_an_embedder_that_is_not_there() -> None:
    with pytest.raises(DataError, match="could not be loaded"):
        embedder("./nowhere")


def test_background_is_what_lies_outside_all_boxes() -> None:
    base = picture(0, (100, 100))
    mine = base.copy()
    mine.paste((255, 255, 255), (10, 10, 30, 30))
    assert background(mine, base, [(10, 10, 30, 30)], []) == pytest.approx((0.0, 0.29, 0.29), abs=0.01)
    difference, deviation, there = background(mine, base, [], [(60, 60, 80, 80)]) or (0, 0, 0)
    assert difference == pytest.approx(0.5 * 400 / (10_000 - 24 * 24), abs=0.002)
    dull = Image.new("RGB", (100, 100), "grey")
    assert (background(dull, base, [], []) or (0, 1, 0))[1] < 1e-9 and deviation > 0.2 < there
    assert background(mine, base, [(0, 0, 100, 100)], []) is None
    with pytest.raises(DataError, match="one size"):
        background(mine, picture(1), [], [])
