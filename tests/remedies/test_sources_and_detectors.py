"""Sources of images, detectors, inversions and images that were refused work once the remedy is done."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from told import told

from learn_to_steer import families, inversion, registry
from learn_to_steer.benchmarks import t2i_compbench
from learn_to_steer.collection.noise_levels import kept_times, trained_noise_levels
from learn_to_steer.conditioning import record
from learn_to_steer.configs import EvaluateConfig
from learn_to_steer.detectors import Query
from learn_to_steer.detectors._open_vocabulary import names_per_image
from learn_to_steer.evaluation.run_comparison import background_change
from learn_to_steer.evaluation.verifier_choice import verifier_name
from learn_to_steer.image_files import read_image, to_rgb
from learn_to_steer.sources import SourceRequest
from learn_to_steer_emoji import tidy
from learn_to_steer_emoji.scenes import Constraint, Placed, Scene, place, render


def images(source: str, data: Path | None, **options: Any) -> list[Any]:
    request = SourceRequest(9, 0, 16, data=None if data is None else str(data), **options)
    return list(registry.load("sources", source).images(request))


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """An instances file of one image, without a folder of images."""
    boxes = [{"id": k, "image_id": 0, "category_id": k, "bbox": [x, 2, 34, 36]} for k, x in ((1, 1), (2, 25))]
    value = {
        "images": [{"id": 0, "file_name": "0.jpg", "width": 60, "height": 40}],
        "annotations": boxes,
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    }
    path = tmp_path / "instances_train.json"
    path.write_text(json.dumps(value))
    return path


def test_sources_of_boxes(coco: Path) -> None:
    whole = coco.read_text()
    with told("give it with --data"):
        images("coco", None)
    with told("put or link the images to one of"):
        images("coco", coco)
    (coco.parent / "train").mkdir()
    Image.new("RGB", (60, 40)).save(coco.parent / "train" / "0.jpg")
    (one,) = images("coco", coco)
    one.pixels()
    for content, remedy in ((whole[:40], "download or make it again"), ("[]", "; give an instances file of COCO")):
        coco.write_text(content)
        with told(remedy):
            images("coco", coco)
    coco.write_text(whole)
    (one,) = images("coco", coco)
    (coco.parent / "train" / "0.jpg").unlink()
    with told("restore the file and collect again"):
        one.pixels()
    Image.new("RGB", (60, 40)).save(coco.parent / "train" / "0.jpg")
    one.pixels()


def test_sources_of_answers_and_lines(tmp_path: Path) -> None:
    path, lines = tmp_path / "orm.json", tmp_path / "mine.jsonl"
    path.write_text("{}")
    with told("leave out --diagonals"):
        images("image-generation-cot", path, diagonals=True)
    with told("; give the file orm.json of Image-Generation-CoT"):
        images("image-generation-cot", path)
    Image.new("RGB", (60, 40)).save(tmp_path / "0.jpg")
    question = 'The prompt: "a dog to the left of a cat". Does this image show it?'
    talk = [{"from": "human", "value": question}, {"from": "gpt", "value": "yes"}]
    path.write_text(json.dumps([{"image": "0.jpg", "conversations": talk}]))
    assert images("image-generation-cot", path)
    lines.write_text("\n")
    with told("write one line for each image"):
        images("folder", lines)
    objects = [{"name": "dog", "box": [3, 12, 18, 28]}, {"name": "cat", "box": [40, 12, 55, 28]}]
    lines.write_text(json.dumps({"image": "0.jpg", "objects": objects, "relations": [["dog", "left of", "cat"]]}))
    assert images("folder", lines)


def test_sources_of_a_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert len(images("emoji", None)) == 9
    with told("leave out --data"):
        images("emoji", tmp_path)
    monkeypatch.setattr(families, "variants", dict)
    with told("name a --source of labelled images for"):
        families.usual_source("flux:schnell")
    assert {"folder", "coco"} <= set(registry.names("sources"))  # as "list sources" shows


def test_detectors() -> None:
    one = [Image.new("RGB", (8, 8))]
    with told("give a Query with names for each image"):
        names_per_image("owlv2", one, None)
    with told("give one Query an image"):
        names_per_image("owlv2", one, [Query(("dog",))] * 2)
    assert names_per_image("owlv2", one, [Query(("dog",))]) == [("dog",)]
    with told("the detector emoji-templates has no weights; leave out"):
        registry.load("detectors", "emoji-templates").load(source="folder")
    registry.load("detectors", "emoji-templates").load()


def test_detector_folders(tmp_path: Path) -> None:
    with told("name a folder that training/train_detector.py wrote"):
        registry.load("detectors", "emoji").load(source=str(tmp_path))
    written = files("learn_to_steer_emoji").joinpath("data", "detector")
    registry.load("detectors", "emoji").load(source=str(written))


def test_verifiers() -> None:
    config = EvaluateConfig(model="sd:emoji", tries=2)
    with told("choose another --verifier or --detector"):
        verifier_name(replace(config, verifier="emoji"), "emoji")
    assert verifier_name(replace(config, verifier="emoji-templates"), "emoji") == "emoji-templates"
    assert verifier_name(replace(config, verifier="emoji"), "emoji-templates") == "emoji"
    unsteered = replace(config, model="sd:1.4", objective="none")
    with told("name a detector as --verifier"):
        verifier_name(unsteered, "emoji")
    assert verifier_name(replace(unsteered, verifier="owlv2"), "emoji") == "owlv2"
    unified = replace(config, objective="for-unified")
    with told("leave --tries out, or choose another --loss"):
        verifier_name(unified, "emoji")
    assert verifier_name(replace(unified, tries=1), "emoji") is None
    assert verifier_name(replace(unified, objective="for-spatial"), "emoji") == "emoji-templates"


def test_pages_and_losses() -> None:
    small, large = Image.new("RGB", (64, 64)), Image.new("RGB", (96, 64))
    with told("make them of one size"):
        background_change(small, large, [], [])
    assert background_change(small, large.resize((64, 64)), [], [])


def test_prompts_of_compbench() -> None:
    with told("write it like 'a dog on the left of a cat'"):
        t2i_compbench._prompt(0, "dog cat", reworded=False)
    assert t2i_compbench._prompt(0, "a dog on the left of a cat", reworded=False).relations
    with told("give the size of the image"):
        t2i_compbench._value("next to", (0, 0, 1, 1), (2, 0, 3, 1), None)
    assert t2i_compbench._value("next to", (0, 0, 1, 1), (2, 0, 3, 1), (64, 64)) > 0


def test_images(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    Image.fromarray(np.array([[-5.0, 1e6]], dtype=np.float32)).save(path)
    with told("save it with 8 or 16 bits for each colour"):
        read_image(path)
    for saved in (np.array([[0, 255]], dtype=np.uint8), np.array([[0, 65535]], dtype=np.uint16)):
        Image.fromarray(saved).save(path)
        read_image(path)
    deep = Image.new("RGB", (4, 4))
    deep.info["transparency"] = (300, 0, 0)
    with told("save it with 8 bits"):
        to_rgb(deep)
    deep.info["transparency"] = (30, 0, 0)
    to_rgb(deep)
    path.write_bytes(b"II*\x00")
    with told("repair or replace it"):
        read_image(path)
    Image.new("RGB", (4, 4)).save(path)
    read_image(path)


def _task(pipe: Any, times: torch.Tensor) -> Any:
    family = families.find(pipe)
    pictures = torch.rand(1, 3, 64, 64)
    recording = record(pipe, family, ["a dog above a cat"], 64, 64)
    return inversion.InversionTask(pipe, recording, family.encode(pipe, pictures), pictures, times, (1,))


@torch.no_grad()
def test_inversions(tiny_sd: Any, tiny_flux: Any) -> None:
    def invert(name: str, pipe: Any, *times: float, **options: Any) -> None:
        task = _task(pipe, torch.tensor(times))
        inversion.load(name)(task, lambda level, latents, time: task.recording(latents, time).float(), **options)

    with told("start must be 'inverted' or 'noise'"):
        invert("fixed-point", tiny_sd, 641, start="here")
    for start in ("inverted", "noise"):
        invert("fixed-point", tiny_sd, 641, start=start, steps=4)
    with told("give levels above 0"):
        invert("fixed-point", tiny_sd, 0, steps=4)
    with told("use the inversion 'noise'"):
        invert("fixed-point", tiny_flux, 0.5)
    invert("noise", tiny_flux, 0.5)
    with told("use the inversion 'noise' or 'fixed-point'"):
        invert("rf", tiny_sd, 641)
    invert("noise", tiny_sd, 641)
    with told("give levels above 0"):
        invert("rf", tiny_flux, 0.0, gamma=0.5, steps=4)
    invert("rf", tiny_flux, 0.5, gamma=0.5, steps=4)


def test_noise_levels(tiny_sd: Any) -> None:
    family = families.find(tiny_sd)
    with told("name noise levels, or leave them out"):
        trained_noise_levels(tiny_sd, family, families.resolve("sd:emoji"))
    with told("fall on the same time of this scheduler; give fewer"):
        kept_times(tiny_sd, family, (0.9, 0.9000001))
    kept_times(tiny_sd, family, (0.9,))


def test_scenes() -> None:
    rng = np.random.default_rng(0)
    with told("move it inside"):
        render([Scene((Placed("dog", x=5.0),))])
    render([Scene((Placed("dog"),))])
    opposite = [Constraint(0, "left of", 1), Constraint(1, "left of", 0)]
    with told("use fewer objects, or relations that can hold together"):
        place(["dog", "cat"], rng, opposite)
    assert place(["dog"], rng) and place(["dog", "cat"], rng, opposite[:1])

    def crowd(count: int) -> tuple[Placed, ...]:
        return tuple(Placed("dog", x=rng.uniform(0.2, 0.8), y=rng.uniform(0.2, 0.8)) for _ in range(count))

    with told("ask for fewer objects, or for more cells"):
        tidy.arranged(lambda: crowd(9), 4, widths=(2,))
    assert tidy.arranged(lambda: crowd(2), 4, widths=(2,)) and tidy.arranged(lambda: crowd(9), 16, widths=(2,))
