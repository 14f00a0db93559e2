"""T2I-CompBench's spatial prompts: the 300 of its validation file, and the 215 of these with one of four relations.

Source: arXiv 2307.06350; Karine-Huang/T2I-CompBench, ``examples/dataset/spatial_val.txt`` and
``UniDet_eval/2D_spatial_eval.py``.

This package does not contain the prompt file; the user names or downloads it. The four-relation subset is worded as in
the Learn-to-Steer paper ("on the top of" becomes "above"). The paper counts 216 such prompts; by exact phrase the file
holds 215.

The authors' detector, UniDet, does not run with current libraries, so the rule takes the boxes of any detector. There
are two ways to match a prompt's nouns with a detector's classes. ``fixed`` matches every noun that the detector knows.
``official`` never matches nine nouns, as in the authors' evaluation: it compares nouns with UniDet's compound labels
("cattle, cow") for equality. A third of the prompts contain such a noun, and score 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from learn_to_steer.benchmarks._object_names import matching_detections
from learn_to_steer.benchmarks._prompt_files import published_lines
from learn_to_steer.benchmarks.base import BenchmarkPrompt, Score, Size, geneval_line, runnable
from learn_to_steer.errors import DataError
from learn_to_steer.geometry import Box, Detection, iou
from learn_to_steer.prompts import Relation, locate, phrase

NAMES = ("t2i-compbench-spatial", "t2i-compbench-four-relations")
READS = "spatial_val.txt of T2I-CompBench"
HELD_OUT = False  # its pairs are not known without the file
URL = "https://github.com/Karine-Huang/T2I-CompBench/raw/1b7094991a57/examples/dataset/spatial_val.txt"
SHA256 = "bb76dd9862c1f7b11945551fc716b58d592cffab81e3a97e8eef46e5dc878b12"
# Phrase -> predicate, axis of the larger offset (0: x), sign of the object's centre minus the subject's.
RELATIONS = {
    "on the right of": ("right of", 0, -1),
    "on the left of": ("left of", 0, 1),
    "on the top of": ("above", 1, 1),
    "on the bottom of": ("below", 1, -1),
}
NEARNESS = ("next to", "on side of", "near")
LINE = re.compile(rf"an? (\w+) ({'|'.join([*RELATIONS, *NEARNESS])}) an? (\w+)")
NEVER_MATCHED = ("bag", "computer", "cow", "mouse", "painting", "phone", "sofa", "table", "wallet")
SHORT, LONG = 479, 480  # pixels: upper limits of the sides of the image that the authors' detector gets
NEAR = 150  # pixels of such an image
OVERLAP = 0.1  # IoU below which a pair gets full points


def prompts(name: str, vocabulary: Mapping[str, str] | None, data: str | None) -> list[BenchmarkPrompt]:
    """Read the prompts of one set; see ``learn_to_steer.benchmarks.prompts``.

    ``t2i-compbench-spatial`` has the prompts as written; they have no relations where the phrase is "next to", "near"
    or "on side of".

    Args:
        name: One of ``NAMES``.
        vocabulary: Every name and alias that a detector knows -> its class; other objects' prompts are left out.
        data: Path of the published file, or "download".

    Returns:
        The prompts; ``index`` is the number of the line in the file, from 0.

    Raises:
        DataError: The file cannot be read or is not the published one.
    """
    four = name == "t2i-compbench-four-relations"
    numbered = enumerate(published_lines(name, data, URL, SHA256))
    made = [_prompt(number, line, reworded=four) for number, line in numbered]
    return runnable([prompt for prompt in made if prompt.relations or not four], vocabulary)


def score(
    prompt: BenchmarkPrompt,
    detections: Sequence[Detection],
    vocabulary: Mapping[str, str] | None = None,
    size: Size | None = None,
) -> Score:
    """Score an image by T2I-CompBench's rule; a ``Rule``.

    ``scores`` has the points in [0, 1] by ``official`` and by ``fixed`` matching, and whether official matching can
    match both nouns (``matchable``, 1 or 0). ``correct``: both objects were detected, lie as the prompt says and, for
    a relation, overlap by an IoU below 0.1.

    Args:
        prompt: The prompt of the image.
        detections: The detections in the image, above the detector's own threshold.
        vocabulary: Every name and alias that the detector knows -> the class it reports. None: see
            ``matching_detections``.
        size: Width and height of the image in pixels; needed for "next to", "near" and "on side of".

    Returns:
        The score.

    Raises:
        UnknownNameError: ``vocabulary`` does not contain an object of the prompt.
        ValueError: A prompt with "next to", "near" or "on side of" is scored without ``size``.
    """
    reference, subject = (entry["class"] for entry in prompt.metadata["include"])
    words = prompt.metadata["phrase"]
    best = {noun: next(iter(matching_detections(noun, detections, vocabulary)), None) for noun in (subject, reference)}
    first, second = best[subject], best[reference]
    value = _value(words, first.box, second.box, size) if first and second else 0.0
    official = [None if noun in NEVER_MATCHED else one for noun, one in best.items()]
    scores = {
        "official": _points(official, value),
        "fixed": _points(list(best.values()), value),
        "matchable": float(not {subject, reference} & {*NEVER_MATCHED}),
    }
    missing = [noun for noun, one in best.items() if one is None]
    correct = value == 1
    reason = ""
    if missing:
        reason = f"missing: {', '.join(missing)}"
    elif not correct:
        fault = "far apart" if words in NEARNESS else "overlapping"
        reason = f"{fault if value else 'wrong side'}: {subject} {words} {reference}"
    return Score(correct, not missing, (correct,) * len(prompt.relations), reason, scores)


def metrics(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Compute T2I-CompBench's numbers.

    Args:
        rows: Rows of ``results.jsonl``, one for each image.

    Returns:
        Mean points by ``official`` and by ``fixed`` matching; ``official_ceiling``, the highest score that
        official matching allows; ``rate``, the share of correct images.
    """
    official, fixed, ceiling = (
        sum(row["scores"][name] for row in rows) / len(rows) for name in ("official", "fixed", "matchable")
    )
    rate = sum(row["correct"] for row in rows) / len(rows)
    return {"official": official, "official_ceiling": ceiling, "fixed": fixed, "rate": rate}


def _prompt(index: int, line: str, *, reworded: bool) -> BenchmarkPrompt:
    match = LINE.fullmatch(line)
    if match is None:
        raise DataError(
            f"cannot read the prompt {line!r} in line {index + 1}; write it like 'a dog on the left of a cat'"
        )
    subject, words, reference = match.groups()
    facts = {"tag": NAMES[0], "phrase": words}
    if words in NEARNESS:
        include = [{"class": noun, "count": 1} for noun in (reference, subject)]
        return BenchmarkPrompt(index, line, (), {**facts, "include": include, "prompt": line})
    relation = Relation(subject, RELATIONS[words][0], reference)
    metadata = geneval_line(line, [relation]) | facts
    # Only the phrase is changed: "a airplane" stays.
    text = line.replace(f" {words} ", f" {phrase(relation.predicate)} ") if reworded else line
    return BenchmarkPrompt(index, text, (locate(text, relation),), metadata)


def _value(words: str, subject: Box, reference: Box, size: Size | None) -> float:
    """How well two boxes fit the phrase ``words``, in [0, 1]: the authors' position score."""
    offsets = [(reference[a] + reference[a + 2] - subject[a] - subject[a + 2]) / 2 for a in (0, 1)]
    if words in NEARNESS:
        if size is None:
            raise ValueError(f"{words!r} is measured in pixels; give the size of the image")
        scale = min(SHORT / min(size), LONG / max(size))
        smaller, larger = sorted(abs(offset) * scale for offset in offsets)
        return 1.0 if smaller < NEAR else NEAR / larger
    _, axis, sign = RELATIONS[words]
    if sign * offsets[axis] <= abs(offsets[1 - axis]):
        return 0.0
    overlap = iou(subject, reference)
    return 1.0 if overlap < OVERLAP else OVERLAP / overlap


def _points(objects: Sequence[Detection | None], value: float) -> float:
    """A quarter of each object's score, plus half of ``value`` if both were detected; sums below a half become 0."""
    points = sum(0.25 * one.score for one in objects if one)
    if all(objects):
        points += 0.5 * value
    return points if points >= 0.5 else 0.0
