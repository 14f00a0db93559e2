"""The page of a run: images with boxes, numbers, and texts that are escaped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from learn_to_steer import storage
from learn_to_steer.evaluation import image_path
from learn_to_steer.fitting import fit_model
from learn_to_steer.fitting.config import FitConfig

SHARE = {"unsteered": 0.0, "steered": 1.0, "difference": [1.0, 0.9, 1.0]}


class OnePair:
    """A trial of one prompt: its unsteered image is blue and wrong, the steered one red and right."""

    helps = True

    def __init__(self, config: Any, pipe: Any, detector: str, collection: Path, folder: Path, **more: Any) -> None:
        self.folder, self.detector = folder, detector

    def steered(self, source: Path) -> dict[tuple[int, int], bool]:
        return {(0, 0): True, (1, 0): False}

    def compare(self, source: Path) -> dict[str, Any]:
        folders = {"unsteered": "unsteered-1", "steered": f"{source.name}-2"}
        for name, right in ((folders["unsteered"], False), (folders["steered"], True)):
            path = image_path(self.folder / name, 0, 0)
            path.parent.mkdir(parents=True)
            Image.new("RGB", (512, 256), "red" if right else "blue").save(path)
            box = {"name": "<b>dog</b>", "score": 0.9, "box": [1, 2, 31.06, 40]}
            line = {"index": 0, "sample": 0, "prompt": "a <dog>", "correct": right, "reason": "wrong side: <x>"}
            storage.append_jsonl(self.folder / name / "results.jsonl", line | {"boxes": [box]})
        facts = {
            "images": 1,
            "new_prompts": 1,
            "new_pairs": 0,
            "passes": 3.0,
            "seconds": {"unsteered": 1.0, "steered": 2.0},
            "helps": self.helps,
        }
        shares = dict.fromkeys(("right", "present", "once"), SHARE)
        return shares | facts | {"folders": folders, "detector": self.detector}


def page_of(out: Path, **settings: Any) -> str:
    fit_model.fit(FitConfig(model="sd:emoji", epochs=1, out=str(out), **settings), progress=False)
    return re.sub(r"\s+", " ", (out / "report.html").read_text())


def test_the_page_shows_pairs_of_images(stage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_model, "Trial", OnePair)
    page = page_of(tmp_path)
    assert page.count('<div class="image right">') == 1 and page.count('<div class="image wrong">') == 1
    assert page.index('class="image wrong"') < page.index('class="image right"')
    assert page.count('viewBox="0 0 512 256"') == 2 and page.count('width="30.1" height="38.0"') == 2
    assert page.count(chr(34) + "data:image/webp;base64,") == 2 + 24 + 6
    assert page.count('<rect x="1.0" y="2.0" width="10.0" height="20.0"/>') == 24 + 6
    assert "a &lt;dog&gt;" in page and "wrong side: &lt;x&gt;" in page and "<b>dog" not in page
    assert "1 of the prompts are not among those of the training images, 0 name two objects" in page
    assert (
        "Steering helps." in page
        and '+1.000 <span class="soft">[+0.900, +1.000]</span>' in page
        and "<code>emoji</code>" in page
    )
    assert (
        "{{" not in page and "{%" not in page and "http:" not in page and "https:" not in page and "<script" not in page
    )
    assert "208 images, of which 200 can be used (96 %)" in page and "The images were not also read" in page
    assert 'both of its objects are missing<td class="n">6' in page and "&lt;i&gt;nothing" in page
    card = (tmp_path / "README.md").read_text()
    assert "| right | 0.00 | 1.00 | +1.00 [+0.90, +1.00] |" in card and "scored by emoji" in card


def test_it_says_when_steering_may_not_help(stage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_model, "Trial", OnePair)
    monkeypatch.setattr(OnePair, "helps", False)
    page = page_of(tmp_path / "fit", detectors="owlv2:folder,emoji")
    assert "It is not certain that steering helps." in page and "<code>owlv2:folder</code>" in page
    assert "In the trial, 1 images, it is not certain" in (tmp_path / "fit" / "README.md").read_text()
    assert "It was not tried" in page_of(tmp_path / "untried", trial=0)
