"""How similar two images are: embeddings of tiny models, and what lies outside the boxes."""

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
from learn_to_steer.evaluation.run_comparison import ImagePair, background_change, find_embedder, paired_similarity


def random_image(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
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
def test_the_same_image_is_similar_and_another_less_so(
    name: str, channels: int | None, request: pytest.FixtureRequest
) -> None:
    embed = find_embedder(name if name == "emoji" else request.getfixturevalue(name))
    images = [random_image(seed) for seed in range(3)] + [Image.new("RGB", (64, 48), "white")]
    found, again = embed(images), embed(images[:2])
    assert torch.cosine_similarity(found[:2], again).tolist() == pytest.approx([1.0] * 2, abs=1e-5)
    assert torch.cosine_similarity(found[0], found[3], dim=0) < 0.999
    if channels:
        assert embed(images).shape == (4, channels)


def test_an_embedder_that_is_not_there() -> None:
    with pytest.raises(DataError, match="could not be loaded"):
        find_embedder("./nowhere")


def test_background_is_what_lies_outside_all_boxes() -> None:
    base = random_image(0, (100, 100))
    mine = base.copy()
    mine.paste((255, 255, 255), (10, 10, 30, 30))
    assert background_change(mine, base, [(10, 10, 30, 30)], []) == pytest.approx((0.0, 0.29, 0.29), abs=0.01)
    difference, deviation, there = background_change(mine, base, [], [(60, 60, 80, 80)]) or (0, 0, 0)
    assert difference == pytest.approx(0.5 * 400 / (10_000 - 24 * 24), abs=0.002)
    dull = Image.new("RGB", (100, 100), "grey")
    assert (background_change(dull, base, [], []) or (0, 1, 0))[1] < 1e-9 and deviation > 0.2 < there
    assert background_change(mine, base, [(0, 0, 100, 100)], []) is None
    with pytest.raises(DataError, match="one size"):
        background_change(mine, random_image(1), [], [])


@pytest.fixture
def pairs(tmp_path: Path) -> list[ImagePair]:
    """Two images of each of two prompts; the references have a duller background, outside the first one's box."""
    listed = []
    for number in range(4):
        image = random_image(number, (40, 40))
        reference = Image.blend(image, Image.new("RGB", image.size, "grey"), 0.5)
        image.save(tmp_path / f"{number}.png")
        reference.save(tmp_path / f"{number}-reference.png")
        boxes = [(0, 0, 40, 40)] if number == 0 else []
        paths = (tmp_path / f"{number}.png", tmp_path / f"{number}-reference.png")
        listed.append(ImagePair(number // 2, *paths, boxes, []))
    return listed


def test_pairs_are_compared_with_their_own_references_and_with_those_of_other_prompts(pairs: list[ImagePair]) -> None:
    # Embeddings that tell the prompts apart: images 0 and 1 point one way, 2 and 3 the other way.
    answers = iter([[[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 2, [[1.0, 0.0]] + [[0.0, 1.0]] * 3])
    found = paired_similarity(lambda images: torch.tensor(next(answers)), pairs)
    assert found["similarity"][0] == 0.75  # the second image differs from its reference
    assert found["similarity"][1] == 0.5 and found["similarity"][2] == 1.0
    assert found["similarity_to_strangers"] == 0.25  # image 3 points as the reference of image 1 does
    background = found["background"]
    assert background["pictures"] == 3  # the box of the first leaves no background
    assert background["deviation"][0] == pytest.approx(background["deviation_there"], rel=0.02)
    assert background["deviation"][1] > 0.1
    assert background["difference"][1] <= background["difference"][0] <= background["difference"][2]


def test_pairs_of_one_prompt_have_no_strangers_and_may_have_no_background(pairs: list[ImagePair]) -> None:
    found = paired_similarity(lambda images: torch.ones(len(images), 2), pairs[:1])
    assert found == {"similarity": [pytest.approx(1.0)] * 3, "similarity_to_strangers": None}


@pytest.mark.parametrize(("columns", "in_background"), [((58, 60), False), ((80, 82), False), ((57, 58), True)])
def test_a_tenth_of_a_box_around_it_is_no_background(columns: tuple[int, int], in_background: bool) -> None:
    base = random_image(0, (100, 100))
    changed = base.copy()
    changed.paste((255, 255, 255), (columns[0], 60, columns[1], 80))
    for boxes in (([(60, 60, 80, 80)], []), ([], [(60, 60, 80, 80)])):
        change = background_change(changed, base, *boxes)
        assert change is not None and (change.difference > 0) is in_background
