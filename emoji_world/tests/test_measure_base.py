"""How unsteered pictures of a base model are judged, and how single objects are cut out of them."""

from pathlib import Path

import pytest
from PIL import Image

from learn_to_steer.benchmarks import BenchmarkPrompt, prompts
from learn_to_steer.geometry import Detection
from learn_to_steer_emoji.detector import vocabulary

TRAINING = Path(__file__).resolve().parents[1] / "training"
DOG, CAT = Detection("dog", 0.9, (10, 40, 40, 70)), Detection("cat", 0.8, (80, 42, 110, 72))


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(TRAINING)
    import measure_base

    return measure_base


def test_a_picture_is_judged_by_what_is_there_how_often_and_where(script):
    (prompt,) = [p for p in prompts("geneval-position-val", vocabulary()) if p.relations[0].predicate == "left of"][:1]
    relation = prompt.relations[0]
    first = Detection(vocabulary()[relation.subject], 0.9, DOG.box)
    second = Detection(vocabulary()[relation.object], 0.8, CAT.box)
    again = Detection(second.name, 0.5, (60, 90, 90, 120))
    assert script.judged(prompt, [first, second], vocabulary()) == {"present": True, "once": True, "right": True}
    assert script.judged(prompt, [first, second, again], vocabulary())["once"] is False
    assert script.judged(prompt, [first], vocabulary()) == {"present": False, "once": False, "right": False}


def test_intervals_resample_prompts_and_not_pictures(script):
    asked = [BenchmarkPrompt(i, text, (), {"include": [{"class": "dog", "count": 1}]}) for i, text in enumerate("abcd")]
    once, often = script.Measure("and", asked, ("present",)), script.Measure("and", asked, ("present",))
    for number, prompt in enumerate(asked):
        for copies, measure in ((1, once), (5, often)):
            for _ in range(copies):
                measure.add(prompt, [DOG] if number % 2 else [CAT])
    assert once.summary()["present"] == often.summary()["present"]
    assert (once.summary()["pictures"], often.summary()["pictures"], often.summary()["prompts"]) == (4, 20, 4)


@pytest.mark.parametrize("name", ["and", "position", "dense", "3 objects", "4 objects", "5 objects"])
def test_every_measure_has_its_prompts(script, name):
    chosen = script.chosen(name, 20, "val")
    assert len({prompt.prompt for prompt in chosen}) == 20
    assert chosen == script.chosen(name, 20, "val")
    expected = int(name[0]) if name[0].isdigit() else 2
    assert all(len(prompt.objects) == expected for prompt in chosen)


def test_crops_stay_within_the_picture(script):
    picture = Image.new("RGB", (128, 128), "white")
    for box in ((0, 0, 30, 40), (100, 90, 128, 128), (0, 0, 128, 128)):
        crop = script.cropped(picture, Detection("dog", 0.3, box))
        assert crop.width == crop.height >= min(max(box[2] - box[0], box[3] - box[1]), 128)
        assert crop.getextrema() == ((255, 255),) * 3
    assert script.cropped(picture, None).size == (128, 128)
