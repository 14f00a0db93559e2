"""How far template matching agrees with the detector ``emoji`` on pictures that it was not tuned on.

    python training/template_agreement.py      # draws the pictures first, see template_pictures.py

For each model: the recall and the precision of single objects, and how often both give the same verdict on a picture.
An object counts as there if the detector's score is at least ``SURE``; below that, it may be reported or not. The
verdict is whether each object of the prompt is there exactly once and all relations hold, each at its own threshold.
Intervals are clustered by picture. The seconds are CPU time of a picture.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from PIL import Image

from learn_to_steer.benchmarks import BenchmarkPrompt, matching_detections, score_relations
from learn_to_steer.geometry import Detection, iou
from learn_to_steer.statistics import clustered_interval
from learn_to_steer_emoji import template_matching
from learn_to_steer_emoji.detector import load
from learn_to_steer_emoji.sprites import canonical_names
from template_pictures import MODELS, PARTS, pictures

SURE, DOUBTFUL = 0.5, 0.12  # scores of the detector above which an object is there, and below which it is not
OVERLAP = 0.3  # least IoU of two boxes of one object


def reference(images: Sequence[Image.Image]) -> tuple[list[list[Detection]], float]:
    """Detect objects with the detector ``emoji``, also doubtful ones; also return the threshold that it uses."""
    detector = load()
    in_use, detector.threshold = detector.threshold, DOUBTFUL
    return detector.detect(images), in_use


def verdict(prompt: BenchmarkPrompt, detections: Sequence[Detection]) -> bool:
    """Whether each object of the prompt was detected exactly once, and all relations hold."""
    words = canonical_names()
    once = all(len(matching_detections(name, detections, words)) == 1 for name in prompt.objects)
    return once and (not prompt.relations or score_relations(prompt, detections, words).correct)


def is_among(detection: Detection, others: Sequence[Detection]) -> bool:
    return any(one.name == detection.name and iou(one.box, detection.box) > OVERLAP for one in others)


def compared(
    prompts: Sequence[BenchmarkPrompt],
    found: Sequence[Sequence[Detection]],
    known: Sequence[Sequence[Detection]],
    in_use: float,
) -> dict[str, tuple[list[bool], list[int]]]:
    """Compare detections with those of the detector.

    Args:
        prompts: Of the pictures.
        found: What template matching found.
        known: What the detector found, doubtful objects included.
        in_use: The detector's own threshold.

    Returns:
        For each measure the single outcomes, and the number of the picture that each belongs to.
    """
    outcomes: dict[str, tuple[list[bool], list[int]]] = {name: ([], []) for name in ("recall", "precision", "verdict")}

    def add(name: str, outcome: bool, number: int) -> None:
        outcomes[name][0].append(outcome)
        outcomes[name][1].append(number)

    for number, (prompt, mine, theirs) in enumerate(zip(prompts, found, known, strict=True)):
        for one in theirs:
            if one.score >= SURE:
                add("recall", is_among(one, mine), number)
        for one in mine:
            add("precision", is_among(one, theirs), number)
        counted = [one for one in theirs if one.score >= in_use]
        add("verdict", verdict(prompt, mine) == verdict(prompt, counted), number)
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, default="report")
    parser.add_argument("--models", nargs="+", default=MODELS)
    options = parser.parse_args()
    for model in options.models:
        prompts, images = pictures(options.part, model)
        template_matching.find(images[0])  # reads the filters
        began = time.process_time()
        found = [template_matching.find(image) for image in images]
        seconds = (time.process_time() - began) / len(images)
        known, in_use = reference(images)
        line = f"{model:20} {len(images)} pictures, {seconds:.3f} s"
        for name, (values, numbers) in compared(prompts, found, known, in_use).items():
            low, high = clustered_interval(values, numbers)
            line += f"  {name} {sum(values) / len(values):.3f} [{low:.3f}, {high:.3f}] of {len(values)}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
