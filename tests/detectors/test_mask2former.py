"""GenEval's after-processing on answers made by hand, and the whole detector with a tiny random network."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from PIL import Image

from learn_to_steer.benchmarks import geneval
from learn_to_steer.detectors import _color_classifier, mask2former
from learn_to_steer.detectors._color_classifier import ColorClassifier, isolate, load_colors
from learn_to_steer.detectors._networks import keep_ratio
from learn_to_steer.detectors.base import Query
from learn_to_steer.detectors.mask2former import PER_CLASS, Mask2FormerDetector, instances, load, vocabulary
from learn_to_steer.errors import DataError
from learn_to_steer.vocabulary import CLASSES, COLORS

ALL = (64, 64)


def answer(*queries: tuple[dict[int, float], tuple[int, int, int, int] | None, float], side: int = 64):
    """Logits of queries, each: share of every class named (the rest is "nothing"), mask box, logit inside it."""
    classes, masks = torch.full((len(queries), 81), 1e-9), torch.full((len(queries), side, side), -20.0)
    for i, (shares, box, logit) in enumerate(queries):
        for number, share in shares.items():
            classes[i, number] = share
        classes[i, 80] = 1 - sum(shares.values())
        if box is not None:
            masks[i, box[1] : box[3], box[0] : box[2]] = logit
    return classes.log(), masks


class Fixed:
    """A network whose answer is fixed: two dogs, one of them in the upper left quarter of its input."""

    device = torch.device("cpu")

    def __call__(self, pixel_values):
        self.shape = tuple(pixel_values.shape)
        height, width = (side // 4 for side in self.shape[2:])
        classes, _ = answer(({16: 0.9}, None, 0.0), ({16: 0.6}, None, 0.0))
        masks = torch.full((2, height, width), -20.0)
        masks[0, : height // 2, : width // 2] = 20.0
        masks[1] = 20.0
        return type("Answer", (), {"class_queries_logits": classes[None], "masks_queries_logits": masks[None]})


class Stub:
    """Tells the colour of a crop's middle; what is not red is blue."""

    def __init__(self):
        self.calls = []

    def classify(self, crops, names):
        self.calls += list(zip(crops, names, strict=True))
        middles = [crop.getpixel((crop.width // 2, crop.height // 2)) for crop in crops]
        return ["red" if middle[0] > 200 and middle[1] < 100 else "blue" for middle in middles]


def test_names_are_the_benchmarks():
    assert {name for line in geneval.lines(geneval.SEED) for name in (entry["class"] for entry in line["include"])} == {
        *CLASSES
    }
    assert len(CLASSES) == 80 and COLORS[0] == "red" and len(COLORS) == 10
    words = vocabulary()
    assert len(words) == 83 and set(words.values()) == set(CLASSES)
    assert words["mouse"] == words["computer mouse"] == "computer mouse"
    assert (words["remote"], words["keyboard"]) == ("tv remote", "computer keyboard")


def test_box_is_the_masks_extent_and_score_is_share_times_quality():
    (one,) = instances(*answer(({16: 0.9}, (8, 16, 40, 24), 2.0)), ALL, ALL, ALL)
    assert (one.detection.name, one.detection.box) == ("dog", (8.0, 16.0, 40.0, 24.0))
    assert one.detection.score == pytest.approx(0.9 * torch.tensor(2.0).sigmoid().item(), rel=1e-5)
    assert one.mask.sum() == 32 * 8 and one.mask[16, 8] and not one.mask[24, 8]


def test_one_query_can_give_two_classes_but_only_the_hundred_best_pairs_count():
    found = instances(*answer(({16: 0.5, 15: 0.4}, (0, 0, 9, 9), 20.0)), ALL, ALL, ALL)
    assert [(one.detection.name, one.detection.box) for one in found] == [
        ("dog", (0.0, 0.0, 9.0, 9.0)),
        ("cat", (0.0, 0.0, 9.0, 9.0)),
    ]
    # 60 queries of two classes each are 120 pairs, seven classes deep: the weakest 20 are not looked at.
    crowd = [({2 * i % 80: 0.50, (2 * i + 1) % 80: 0.4 - i / 1000}, (0, 0, 5, 5), 20.0) for i in range(60)]
    found = instances(*answer(*crowd), ALL, ALL, ALL)
    assert len(found) == 100
    assert min(one.detection.score for one in found) == pytest.approx(0.4 - 39 / 1000, abs=1e-4)


def test_threshold_is_strict():
    quality_one = 40.0  # a sigmoid of 1 in fp32
    below, above = (answer(({16: share}, (0, 0, 9, 9), quality_one)) for share in (0.3, 0.3001))
    assert instances(*below, ALL, ALL, ALL) == []
    assert len(instances(*above, ALL, ALL, ALL)) == 1
    # The share alone passes, but not with the mask's quality of 0.73.
    assert instances(*answer(({16: 0.4}, (0, 0, 9, 9), 1.0)), ALL, ALL, ALL) == []


def test_empty_masks_and_nothing_are_dropped():
    assert instances(*answer(({16: 0.9}, None, 0.0), ({}, (0, 0, 9, 9), 9.0)), ALL, ALL, ALL) == []
    # A logit of exactly 0 is outside of the mask.
    assert instances(*answer(({16: 0.9}, (0, 0, 9, 9), 0.0)), ALL, ALL, ALL) == []


def test_best_sixteen_of_a_class():
    dogs = [({16: 0.5 + i / 100}, (0, 0, 9, 9), 20.0) for i in range(20)]
    found = instances(*answer(*dogs, ({15: 0.4}, (0, 0, 9, 9), 20.0)), ALL, ALL, ALL)
    scores = [one.detection.score for one in found if one.detection.name == "dog"]
    assert len(scores) == PER_CLASS and scores == sorted(scores, reverse=True)
    assert min(scores) == pytest.approx(0.54, abs=1e-4)
    assert found[-1].detection.name == "cat"


def test_padding_is_cropped_before_the_mask_is_scaled():
    """Input of 64 x 64 of which a 32 high, 64 wide part is the image, itself 100 high and 200 wide."""
    masks = answer(({16: 0.9}, (4, 4, 8, 8), 20.0), ({15: 0.9}, (0, 9, 16, 16), 20.0), side=16)
    (one,) = instances(*masks, padded=(64, 64), inside=(32, 64), size=(100, 200))
    assert one.detection.name == "dog"  # the cat lay in the padding
    assert one.mask.shape == (100, 200)
    assert one.detection.box == pytest.approx((50, 50, 100, 100), abs=5)
    assert len(instances(*masks, padded=(64, 64), inside=(64, 64), size=(100, 200))) == 2


def test_images_are_scaled_padded_and_turned_upright():
    assert keep_ratio((512, 512), 800, 1333) == (800, 800)
    assert keep_ratio((480, 640), 800, 1333) == (800, 1067)
    assert keep_ratio((300, 1200), 800, 1333) == (333, 1333)
    network = Fixed()
    detector = Mask2FormerDetector(network)
    image = Image.new("RGB", (120, 30))
    found = detector.detect([image])[0]
    assert network.shape == (1, 3, 352, 1344)
    assert [one.score for one in found] == pytest.approx([0.9, 0.6], abs=1e-3)
    assert found[0].box == pytest.approx((0, 0, 60, 15), abs=1)
    assert found[1].box == (0, 0, 120, 30)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    turned = Image.new("RGB", (60, 30))
    turned.info["exif"] = exif.tobytes()
    assert detector.detect([turned])[0][1].box == (0, 0, 30, 60)


def test_colors_are_those_of_the_object_alone_and_only_when_a_query_wants_them():
    stub, loaded = Stub(), []
    detector = Mask2FormerDetector(Fixed(), colors=lambda: loaded.append(1) or stub)
    image = Image.new("RGB", (64, 64), "blue")
    image.paste((255, 0, 0), (0, 0, 32, 32))
    plain = detector.detect([image], [Query(("dog",))])[0]
    assert [one.color for one in plain] == [None, None] and not loaded
    found = detector.detect([image, image], [Query(("dog",), colors=True), Query(("dog",))])
    assert [one.color for one in found[0]] == ["red", "blue"]
    assert [one.color for one in found[1]] == [None, None]
    detector.detect([image], [Query(("dog",), colors=True)])
    assert loaded == [1]
    (crop, name), _ = stub.calls[:2]
    assert name == "dog" and crop.size == tuple(int(edge) for edge in found[0][0].box[2:])


def test_what_is_not_the_object_is_grey():
    mask = torch.zeros(10, 20, dtype=torch.bool)
    mask[2:6, 3:9] = True
    mask[2, 3] = False
    crop = isolate(Image.new("RGB", (20, 10), "red"), mask, (3.0, 2.0, 9.0, 6.0))
    assert crop.size == (6, 4)
    assert crop.getpixel((0, 0)) == (0x99, 0x99, 0x99) and crop.getpixel((1, 0)) == (255, 0, 0)


def test_color_is_the_nearest_mean_of_three_texts(clip_folder, noise):
    """The real CLIP class, tiny; the same arithmetic by transformers' own forward."""
    classifier = load_colors("cpu", str(clip_folder))
    crops = [noise(40, 90), noise(32, 32), noise(3, 1)]
    named = classifier.classify(crops, ["dog", "cat", "dog"])
    assert len(named) == 3 and set(named) <= set(COLORS)
    texts = [t.format(color=c, name="cat") for c in _color_classifier.COLORS for t in _color_classifier.TEMPLATES]
    assert texts[:3] == ["a photo of a red cat", "a photo of a red-colored cat", "a photo of a red object"]
    tokens = classifier.tokenizer(texts, padding=True, return_tensors="pt")
    pixels = _color_classifier.normalise(_color_classifier.to_tensor(crops[1]), _color_classifier.CLIP_COLORS)
    with torch.no_grad():
        answer = classifier.model(pixel_values=pixels, **tokens)
    means = answer.text_embeds.reshape(10, 3, -1).mean(1)
    similarity = (means / means.norm(dim=1, keepdim=True)) @ answer.image_embeds[0]
    assert named[1] == _color_classifier.COLORS[int(similarity.argmax())]
    assert classifier.classify([], []) == []


def test_texts_of_a_class_are_read_once(clip_folder, noise, monkeypatch):
    classifier = load_colors("cpu", str(clip_folder))
    classifier.classify([noise(9, 9)], ["dog"])
    monkeypatch.setattr(classifier, "tokenizer", None)
    classifier.classify([noise(9, 9)], ["dog"])


@pytest.fixture
def smaller(monkeypatch):
    """Inputs of up to 96 pixels, to save time."""
    monkeypatch.setattr(mask2former, "SHORT", 64)
    monkeypatch.setattr(mask2former, "LONG", 96)


def test_real_network_in_a_folder(mask2former_folder, noise, capfd, smaller, monkeypatch):
    from transformers import Mask2FormerForUniversalSegmentation
    from transformers.models.mask2former import modeling_mask2former

    detector = load("cpu", str(mask2former_folder))
    assert capfd.readouterr() == ("", "")
    assert json.loads(json.dumps(detector.identity)) == detector.identity
    assert detector.identity["weights"].startswith("sha256:")
    assert not detector.model.training and {p.dtype for p in detector.model.parameters()} == {torch.float32}
    # Left without its loss the network answers as transformers' whole class does.
    monkeypatch.setattr(modeling_mask2former, "requires_backends", lambda *_: None)
    whole = Mask2FormerForUniversalSegmentation.from_pretrained(mask2former_folder).eval()
    pixels = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        mine, theirs = detector.model(pixel_values=pixels), whole(pixel_values=pixels)
    assert torch.equal(mine.class_queries_logits, theirs.class_queries_logits)
    assert torch.equal(mine.masks_queries_logits, theirs.masks_queries_logits)
    with torch.no_grad():  # make it sure of something: class 4, which its file calls "aeroplane"
        detector.model.class_predictor.bias[4] += 20
    found = detector.detect([noise(60, 40), noise(33, 50).convert("L")])
    assert {one.name for some in found for one in some} == {"airplane"}
    for (width, height), some in zip(((60, 40), (33, 50)), found, strict=True):
        assert some and all(0 <= d.box[0] < d.box[2] <= width and 0 <= d.box[1] < d.box[3] <= height for d in some)
        assert all(0.3 < d.score <= 1 for d in some)
    assert detector.detect([]) == []


def test_colors_through_the_whole_chain(mask2former_folder, clip_folder, noise, smaller):
    model = load("cpu", str(mask2former_folder)).model
    with torch.no_grad():
        model.class_predictor.bias[16] += 20
    detector = Mask2FormerDetector(model, colors=lambda: load_colors("cpu", str(clip_folder)))
    (found,) = detector.detect([noise(40, 40)], [Query(("dog",), colors=True)])
    assert found and {one.color for one in found} <= set(COLORS)
    assert isinstance(detector._colors, ColorClassifier)


def test_other_classes_are_refused(mask2former_folder, tmp_path):
    shutil.copytree(mask2former_folder, tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    config["id2label"]["0"] = "wall"
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="not COCO's 80"):
        load("cpu", str(tmp_path / "other"))
