"""The detectors that look for any word: after-processing by hand, and whole with tiny random networks."""

from __future__ import annotations

import json

import pytest
import torch

from learn_to_steer.detectors import clipseg, grounding_dino, owlv2
from learn_to_steer.detectors._open_vocabulary import detections, names_per_image
from learn_to_steer.detectors.base import Query
from learn_to_steer.errors import DataError

MODULES = {"owlv2": owlv2, "grounding-dino": grounding_dino, "clipseg": clipseg}


@pytest.fixture(params=list(MODULES))
def loaded(request, monkeypatch, capfd):
    """Each detector, loaded from a folder with a tiny random network."""
    folder = request.getfixturevalue(f"{request.param.replace('-', '_')}_folder")
    monkeypatch.setattr(grounding_dino, "SHORT", 64)
    monkeypatch.setattr(grounding_dino, "LONG", 96)
    capfd.readouterr()
    detector = MODULES[request.param].load("cpu", str(folder))
    assert capfd.readouterr() == ("", "")  # transformers is kept silent
    return detector


def logit(*shares: float) -> torch.Tensor:
    return torch.tensor(shares).logit()


def test_names_are_reported_as_in_the_query_and_boxes_lie_in_the_image(loaded, noise):
    images = [noise(60, 40), noise(33, 50).convert("L"), noise(60, 40)]
    queries = [Query(("Dog", "cat")), Query(("teapot",)), Query(("cat", "Dog", "cat"), colors=True)]
    if hasattr(loaded, "threshold"):
        loaded.threshold = 0.0
    found = loaded.detect(images, queries)
    assert [{one.name for one in some} for some in found] == [{"Dog", "cat"}, {"teapot"}, {"Dog", "cat"}]
    for image, some in zip(images, found, strict=True):
        assert [one.score for one in some] == sorted((one.score for one in some), reverse=True)
        for one in some:
            assert 0 <= one.box[0] < one.box[2] <= image.width and 0 <= one.box[1] < one.box[3] <= image.height
            assert 0 <= one.score <= 1 and one.color is None
    # The detections of a word do not depend on the other words of the query.
    alone = loaded.detect(images[:1], [Query(("cat",))])[0]
    together = [one for one in found[0] if one.name == "cat"]
    assert [one.score for one in alone] == pytest.approx([one.score for one in together], abs=1e-5)
    assert found[2] == found[0] or {one.name for one in found[2]} == {one.name for one in found[0]}


def test_identity_and_weights(loaded):
    assert json.loads(json.dumps(loaded.identity)) == loaded.identity
    assert loaded.identity["name"] == loaded.name
    assert loaded.identity["weights"].startswith("sha256:")
    assert not loaded.model.training and not loaded.tells_colors
    assert {(p.dtype, p.requires_grad) for p in loaded.model.parameters()} == {(torch.float32, False)}


def test_a_query_without_names_is_an_error(loaded, noise):
    for queries in (None, [Query(())]):
        with pytest.raises(DataError, match=f"the detector {loaded.name} has no vocabulary; give a Query"):
            loaded.detect([noise(9, 9)], queries)
    assert loaded.detect([], []) == []
    with pytest.raises(DataError, match="got 1 images and 2 queries"):
        loaded.detect([noise(9, 9)], [Query(("dog",))] * 2)


def test_they_have_no_vocabulary():
    assert [module.vocabulary() for module in MODULES.values()] == [None] * 3
    assert names_per_image("any", ["image"], [Query(("b", "a", "b"))]) == [("b", "a")]


def test_threshold_is_strict_and_overlapping_boxes_are_one_object():
    boxes = torch.tensor([[0.25, 0.5, 0.5, 1.0], [0.27, 0.5, 0.5, 1.0], [0.75, 0.5, 0.5, 1.0], [0.5, 0.5, 1.0, 1.0]])
    scores = torch.tensor([0.5, 0.9, 0.25, 0.3])
    found = detections("dog", scores, boxes, (200.0, 100.0), (200, 100), 0.25)
    # The first overlaps the second by 0.92, the last one by exactly one half; 0.25 is not above 0.25.
    assert [one.score for one in found] == pytest.approx([0.9, 0.3])
    assert found[0].box == pytest.approx((4, 0, 104, 100))
    assert found[1].box == (0.0, 0.0, 200.0, 100.0)


@pytest.mark.parametrize(("size", "box"), [((200, 100), (50, 50, 150, 100)), ((100, 200), (50, 50, 100, 150))])
def test_owlv2_boxes_are_shares_of_the_padded_square(size, box):
    boxes = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.9, 0.9, 0.1, 0.1]])
    logits = torch.stack([logit(0.9, 0.8), logit(0.1, 0.21)], dim=1)
    found = owlv2.read_output(logits, boxes, ("dog", "cat"), size)
    # The second box lies in the padding, whatever its score.
    assert [(one.name, one.box) for one in found] == [("dog", pytest.approx(box))]


def test_owlv2_keeps_words_apart():
    boxes = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]])
    logits = torch.stack([logit(0.6, 0.5), logit(0.2, 0.7)], dim=1)
    found = owlv2.read_output(logits, boxes, ("dog", "cat"), (80, 80))
    assert [(one.name, round(one.score, 2)) for one in found] == [("cat", 0.7), ("dog", 0.6)]


def test_owlv2_pads_with_grey_to_the_right_and_below(owlv2_folder, noise):
    detector = owlv2.load("cpu", str(owlv2_folder))
    pixels = detector._pixels(noise(64, 32))
    mean, deviation = (torch.tensor(values)[:, None, None] for values in owlv2.CLIP_COLORS)
    pixels = pixels[0] * deviation + mean
    assert pixels.shape == (3, 64, 64)
    assert torch.allclose(pixels[:, 32:], torch.tensor(0.5), atol=1e-5)
    assert pixels[:, :32].std() > 0.2


def test_grounding_dino_takes_the_best_token():
    logits = torch.full((3, 256), -torch.inf)
    logits[:, :3] = torch.stack([logit(0.1, 0.6, 0.3), logit(0.2, 0.25, 0.1), logit(0.5, 0.4, 0.1)])
    boxes = torch.tensor([[0.25, 0.5, 0.5, 1.0], [0.5, 0.5, 0.1, 0.1], [0.9, 0.5, 0.4, 0.5]])
    found = grounding_dino.read_output(logits, boxes, "dog", (200, 100))
    assert [round(one.score, 2) for one in found] == [0.6, 0.5]
    assert found[0].box == pytest.approx((0, 0, 100, 100))
    assert found[1].box == pytest.approx((140, 25, 200, 75))
    assert [grounding_dino.text_for(name) for name in ("Teddy Bear", "dog.")] == ["teddy bear.", "dog."]


def test_clipseg_box_of_the_largest_region():
    seen = torch.zeros(88, 88)
    seen[0:4, 0:4] = 0.99
    seen[10:30, 20:60] = 0.6
    found = clipseg.detection_in_map(seen, "an owl", (176, 44))
    assert (found.name, found.box) == ("an owl", (40.0, 5.0, 120.0, 15.0))
    assert found.score == pytest.approx(0.6)
    assert clipseg.detection_in_map(torch.ones(88, 88), "dog", (61, 7)).box == (0.0, 0.0, 61.0, 7.0)


def test_clipseg_level_is_strict_in_whole_steps():
    for share, is_there in ((120.9 / 255, False), (121.01 / 255, True)):
        assert (clipseg.detection_in_map(torch.full((8, 8), share), "dog", (8, 8)) is not None) is is_there
