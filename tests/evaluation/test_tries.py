"""``evaluate`` with several tries: rows, summary, resuming, and verifier and scorer that are different eyes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from learn_to_steer import storage
from learn_to_steer.errors import UnsupportedError
from learn_to_steer.evaluation import evaluate, evaluate_model, summarise
from learn_to_steer.geometry import Detection
from learn_to_steer.verification import verify

PROMPTS = [
    {"prompt": "a dog to the left of a cat"},
    {"prompt": "a dog and a cat", "relations": [["cat", "right of", "dog"]]},
]
DOG, CAT = Detection("dog", 0.9, (0, 20, 20, 40)), Detection("cat", 0.8, (40, 20, 60, 40))


class Killed(BaseException):
    """Ends a run as a signal would."""


@pytest.fixture
def config(config_of):
    return config_of(PROMPTS, images=3, batch=4, device="cpu", tries=3)


@pytest.fixture
def fickle(stub_scorer):
    """An eye that takes about a third of all images for right, by their pixels."""

    def find(image: Image.Image) -> list[Detection]:
        kind = int(np.asarray(image, dtype=int).sum()) % 3
        return [[DOG, CAT], [DOG], []][kind]

    return stub_scorer(find, name="fickle")


@pytest.fixture
def patient(stub_scorer):
    """``patient()``: an eye that takes every third image that it sees for right."""

    def build():
        looks = itertools.count()
        return stub_scorer(lambda image: [DOG, CAT] if next(looks) % 3 == 2 else [DOG], name="patient")

    return build


def rows_of(config):
    return [row | {"seconds": 0} for row in storage.read_jsonl(Path(config.out) / "results.jsonl")]


def images_of(config):
    return {path.relative_to(config.out).as_posix(): path.read_bytes() for path in Path(config.out).rglob("*.png")}


def test_rows_and_summary_tell_what_the_verifier_says(config, left_dog, patient):
    summary = evaluate(config, scorer=left_dog, verifier=patient())
    rows = rows_of(config)
    satisfied = [row["satisfied"] for row in rows]
    # It sees the four images of the first batch, then three of them, then two; two of the second, two, and one.
    assert satisfied == [False, True, True, True, True, False]
    assert [row["tries"] for row in rows] == [row["passes"] for row in rows] == [3, 2, 1, 3, 2, 3]
    assert rows[0]["why"] == "patient: missing: cat" and rows[1]["why"] == "patient: as the prompt says"
    assert summary["tries_per_image"] == sum(row["tries"] for row in rows) / len(rows)
    # To the scorer every image is right.
    found = summary["verifier"]
    assert found["agreement"] == found["recall"] == found["satisfied"] == sum(satisfied) / len(rows)
    assert (found["precision"], found["images"], summary["verified_by"]) == (1.0, len(rows), {"name": "patient"})
    assert not verify(config.out).problems


def test_agreement_is_with_images_that_are_right_and_have_each_object_once():
    common = {"relations": [["dog", "left of", "cat"]], "held": [True], "on_axis": [True], "present": True}
    outcomes = [(True, True, True), (True, False, True), (False, True, False), (True, True, False)]
    rows = [
        common | {"index": n, "sample": 0, "correct": correct, "once": once, "satisfied": satisfied, "reason": ""}
        for n, (correct, once, satisfied) in enumerate(outcomes)
    ]
    found = summarise(rows)["verifier"]
    assert (found["agreement"], found["precision"], found["recall"]) == (0.5, 0.5, 0.5)
    assert summarise([row | {"satisfied": None} for row in rows])["verifier"] is None


def test_a_stopped_evaluation_ends_with_the_same_images(config, left_dog, fickle, tmp_path, monkeypatch):
    evaluate(config, scorer=left_dog, verifier=fickle)
    append, left = storage.append_jsonl, iter(range(3))

    def dies(path, row):
        if next(left, None) is None:
            raise Killed
        append(path, row)

    cut = replace(config, out=str(tmp_path / "cut"))
    monkeypatch.setattr(evaluate_model.storage, "append_jsonl", dies)
    with pytest.raises(Killed):
        evaluate(cut, scorer=left_dog, verifier=fickle)
    monkeypatch.setattr(evaluate_model.storage, "append_jsonl", append)
    evaluate(cut, scorer=left_dog, verifier=fickle)
    assert images_of(cut) == images_of(config)
    assert rows_of(cut) == rows_of(config)


def test_the_batch_has_no_influence_on_what_is_drawn(config, left_dog, stub_scorer, tmp_path):
    config = replace(config, images=2, tries=2)
    never = stub_scorer(lambda image: [DOG], name="never")  # so that rounding does not change the number of tries
    evaluate(config, scorer=left_dog, verifier=never)
    alone = replace(config, batch=1, out=str(tmp_path / "alone"))
    evaluate(alone, scorer=left_dog, verifier=never)
    one, other = images_of(config), images_of(alone)
    for name in one:
        pixels = [np.asarray(Image.open(folder / name), dtype=float) for folder in (Path(config.out), Path(alone.out))]
        assert np.abs(pixels[0] - pixels[1]).max() <= 2
    assert one.keys() == other.keys()


def test_another_number_of_tries_is_another_evaluation(config):
    assert "tries" not in replace(config, tries=1).decisive()  # folders of version 0.1.0 can be completed
    assert config.decisive()["tries"] == 3


def test_images_that_are_not_steered_are_drawn_again_too(config, left_dog, patient):
    unsteered = replace(config, objective="none", classifier=None, settings={})
    evaluate(unsteered, scorer=left_dog, verifier=patient())
    rows = rows_of(config)
    assert [row["tries"] for row in rows] == [3, 2, 1, 3, 2, 3]
    assert {row["passes"] for row in rows} == {0} and not rows[0]["satisfied"]


def test_the_verifier_is_not_the_scorer(config, left_dog):
    with pytest.raises(UnsupportedError, match="choose another --verifier"):
        evaluate(config, scorer=left_dog, verifier=left_dog)
    with pytest.raises(UnsupportedError, match="emoji:some/folder would select the images that it scores"):
        evaluate(replace(config, detector="emoji", verifier="emoji:some/folder"))
    with pytest.raises(UnsupportedError, match="no classifier looks"):
        evaluate(replace(config, objective="none", classifier=None), scorer=left_dog)
    with pytest.raises(UnsupportedError, match="nothing judges"):  # the threshold is above 1
        evaluate(config, scorer=left_dog)
    assert not Path(config.out).exists()
