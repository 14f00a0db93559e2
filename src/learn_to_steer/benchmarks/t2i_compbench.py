"""T2I-CompBench's spatial prompts: the 300 of its validation file, and the 215 that ask for one of four relations.

Source: arXiv 2307.06350; Karine-Huang/T2I-CompBench, ``examples/dataset/spatial_val.txt`` and
``UniDet_eval/2D_spatial_eval.py``.

The prompt file is not part of this package; the user gives or downloads it. The four-relation subset is worded as in
the Learn-to-Steer paper ("on the top of" becomes "above"). The paper counts 216 such prompts; by exact phrase the file
holds 215.

The authors' detector, UniDet, does not run with current libraries, so the rule takes the boxes of any detector. It
matches nouns with classes in two ways. ``fixed`` matches every noun that the detector knows. ``official`` leaves out
the nine nouns that the authors' exact comparison with UniDet's compound labels ("cattle, cow") can never find, so that
a third of the prompts cannot score.
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
SHORT, LONG = 479, 480  # pixels: upper limits of the sides of an image as the authors' detector sees it
NEAR = 150  # pixels of such an image
OVERLAP = 0.1  # IoU up to which a pair scores in full


def prompts(name: str, vocabulary: Mapping[str, str] | None, data: str | None) -> list[BenchmarkPrompt]:
    """The prompts of one set; see ``learn_to_steer.benchmarks.prompts``.

    ``t2i-compbench-spatial`` has the prompts as written; they have no relations where the phrase is "next to", "near"
    or "on side of".

    Args:
        name: One of ``NAMES``.
        vocabulary: Every name and alias that a detector knows; only prompts with these objects are returned.
        data: Path of the published file, or "download".

    Returns:
        The prompts; ``index`` is the line in the file, from 0.

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
    canonical: Mapping[str, str] | None = None,
    size: Size | None = None,
) -> Score:
    """T2I-CompBench's rule; a ``Rule``.

    ``scores`` hold the points, in [0, 1], by ``official`` and by ``fixed`` matching, and whether official matching can
    find both nouns at all (``matchable``). ``correct`` means that both objects are found, placed as the prompt says
    and, for a relation, hardly overlap.

    Args:
        prompt: The prompt of the image.
        detections: What the detector found, above its own threshold.
        canonical: Every name and alias that the detector knows -> the class it reports; None to compare as written.
        size: Width and height of the image; needed for phrases of nearness, which are measured in pixels.

    Returns:
        The score.

    Raises:
        UnknownNameError: ``canonical`` does not contain an object of the prompt.
        ValueError: A phrase of nearness is scored without ``size``.
    """
    reference, subject = (entry["class"] for entry in prompt.metadata["include"])
    said = prompt.metadata["phrase"]
    found = {noun: next(iter(matching_detections(noun, detections, canonical)), None) for noun in (subject, reference)}
    first, second = found[subject], found[reference]
    value = _value(said, first.box, second.box, size) if first and second else 0.0
    official = [None if noun in NEVER_MATCHED else one for noun, one in found.items()]
    scores = {
        "official": _points(official, value),
        "fixed": _points(list(found.values()), value),
        "matchable": float(not {subject, reference} & {*NEVER_MATCHED}),
    }
    missing = [noun for noun, one in found.items() if one is None]
    correct = value == 1
    reason = ""
    if missing:
        reason = f"missing: {', '.join(missing)}"
    elif not correct:
        apart = "far apart" if said in NEARNESS else "overlapping"
        reason = f"{apart if value else 'wrong side'}: {subject} {said} {reference}"
    return Score(correct, not missing, (correct,) * len(prompt.relations), reason, scores)


def metrics(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """T2I-CompBench's numbers.

    Args:
        rows: Rows of ``results.jsonl``, one an image.

    Returns:
        Mean points by ``official`` and by ``fixed`` matching; ``official_ceiling``, the most that official matching
        allows; ``rate``, the share of correct images.
    """
    official, fixed, ceiling = (
        sum(row["scores"][name] for row in rows) / len(rows) for name in ("official", "fixed", "matchable")
    )
    rate = sum(row["correct"] for row in rows) / len(rows)
    return {"official": official, "official_ceiling": ceiling, "fixed": fixed, "rate": rate}


def _prompt(index: int, line: str, *, reworded: bool) -> BenchmarkPrompt:
    read = LINE.fullmatch(line)
    if read is None:
        raise DataError(f"cannot read the prompt {line!r}; it should be like 'a dog on the left of a cat'")
    subject, said, reference = read.groups()
    facts = {"tag": NAMES[0], "phrase": said}
    if said in NEARNESS:
        include = [{"class": noun, "count": 1} for noun in (reference, subject)]
        return BenchmarkPrompt(index, line, (), {**facts, "include": include, "prompt": line})
    relation = Relation(subject, RELATIONS[said][0], reference)
    metadata = geneval_line(line, [relation]) | facts
    # Only the phrase is changed: "a airplane" stays.
    text = line.replace(f" {said} ", f" {phrase(relation.predicate)} ") if reworded else line
    return BenchmarkPrompt(index, text, (locate(text, relation),), metadata)


def _value(said: str, subject: Box, reference: Box, size: Size | None) -> float:
    """How well two boxes fit a phrase, in [0, 1]: the authors' position score."""
    offsets = [(reference[a] + reference[a + 2] - subject[a] - subject[a + 2]) / 2 for a in (0, 1)]
    if said in NEARNESS:
        if size is None:
            raise ValueError(f"{said!r} is measured in pixels; give the size of the image")
        scale = min(SHORT / min(size), LONG / max(size))
        across, along = sorted(abs(offset) * scale for offset in offsets)
        return 1.0 if across < NEAR else NEAR / along
    _, axis, sign = RELATIONS[said]
    if sign * offsets[axis] <= abs(offsets[1 - axis]):
        return 0.0
    shared = iou(subject, reference)
    return 1.0 if shared < OVERLAP else OVERLAP / shared


def _points(found: Sequence[Detection | None], value: float) -> float:
    """A quarter of each object's score, plus half of ``value`` if both are found; sums below a half count as 0."""
    points = sum(0.25 * one.score for one in found if one)
    if all(found):
        points += 0.5 * value
    return points if points >= 0.5 else 0.0
