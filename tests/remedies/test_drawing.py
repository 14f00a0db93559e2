"""Collections of pictures that the model draws, which were refused, work once the remedy is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from told import tells, told

from learn_to_steer import inversion, registry
from learn_to_steer.collection import CollectConfig, collect, estimate_drawing
from learn_to_steer.collection.picture_labels import LabellingDetector, PictureLabels, load_labels
from learn_to_steer.geometry import Detection
from learn_to_steer.sources import SourceRequest, drawn

CONFIG = CollectConfig("tiny", "drawn", inversion="path", limit=2, side=64, detectors="emoji", contrast=False)


class Seer:
    """Finds a first and a second object side by side."""

    name, tells_colors, counting, identity = "seer", False, None, {"name": "seer"}

    def detect(self, images: Any, queries: Any = None) -> Any:
        return [[Detection(name, 1.0, (20 * n, 0, 20 * n + 9, 9)) for n, name in enumerate(q.names)] for q in queries]


def test_files_of_objects(tmp_path: Path) -> None:
    path = tmp_path / "objects.txt"
    for content, remedy in (
        (b"\xff\xfedog", "save it so, with one object on each line"),
        (b"dog\n7\n", "write it like: teddy bear"),
        (b"dog\n", "and a relation needs two; write one name on each line"),
    ):
        path.write_bytes(content)
        with told(remedy):
            drawn.read_objects(path)
    path.write_text("dog\nteddy bear\n")
    assert drawn.read_objects(path) == ("dog", "teddy bear")
    request = SourceRequest(2, 0, 64, objects=("dog", "puppy"))
    with told("name more objects (--objects)"):
        drawn.planned(request)
    assert len(drawn.planned(replace(request, objects=("dog", "puppy", "teapot")))) == 2


def test_objects_that_a_detector_has_no_class_for(
    tiny_sd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "objects.txt"
    path.write_text("dog\ncat\ncentrifuge\n")
    own = replace(CONFIG, objects=str(path))
    with told("leave them out, or choose detectors that look for any word (--detectors owlv2)"):
        estimate_drawing(tiny_sd, own)
    with monkeypatch.context() as patch:
        any_word = PictureLabels([LabellingDetector(Seer(), registry.load("detectors", "owlv2").vocabulary())])
        patch.setattr("learn_to_steer.collection.preparation.load_labels", lambda *_: any_word)
        assert "centrifuge" in estimate_drawing(tiny_sd, replace(own, detectors="owlv2")).objects
    path.write_text("dog\ncat\n")
    assert estimate_drawing(tiny_sd, own).objects == ("dog", "cat")


def test_sources_and_inversions_that_do_not_fit(tiny_sd: Any, run: Callable[..., str], tmp_path: Path) -> None:
    with told("need each other: use --source drawn with --inversion path, or neither"):
        estimate_drawing(tiny_sd, replace(CONFIG, inversion="noise"))
    assert estimate_drawing(tiny_sd, CONFIG).pictures == 2
    with told("use it with --inversion path"):
        registry.load("sources", "drawn").images(SourceRequest(1, 0, 64))
    with told("use --source drawn, or another --inversion"):
        inversion.load("path")(None, None)  # type: ignore[arg-type]
    refused = run("collect", "--source", "emoji", "--inversion", "path", "--out", tmp_path / "x", fails=True)
    assert tells(refused, "use --source drawn with --inversion path")


def test_the_same_detector_twice() -> None:
    with told("the detectors 'emoji,emoji' have to be different; give names"):
        load_labels("emoji,emoji", "cpu")
    with told("have to be different; give names such as 'owlv2,grounding-dino'"):
        load_labels("emoji,", "cpu")
    assert len(load_labels("emoji, emoji-templates", "cpu").detectors) == 2


def test_too_little_memory_to_draw(tiny_sd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = PictureLabels([LabellingDetector(Seer(), None)])
    monkeypatch.setattr("learn_to_steer.collection.preparation.load_labels", lambda *_: labels)
    config = replace(CONFIG, limit=1, arguments={"num_inference_steps": 2}, levels=(0.9,))
    usual = type(tiny_sd).__call__

    def limited(self: Any, *args: Any, **arguments: Any) -> Any:
        if "generator" in arguments and arguments["height"] > 32:
            raise torch.OutOfMemoryError
        return usual(self, *args, **arguments)

    monkeypatch.setattr(type(tiny_sd), "__call__", limited)
    with told("(--offload model, --quantize 4bit), or draw smaller pictures (--side)"):
        collect(tiny_sd, tmp_path / "large", config, progress=False)
    assert collect(tiny_sd, tmp_path / "small", replace(config, side=32), progress=False).complete
