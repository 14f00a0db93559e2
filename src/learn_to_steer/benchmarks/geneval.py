"""GenEval's six tasks, and a validation set of its position prompts to tune on.

GenEval's prompt files come from one seeded random generator, which all tasks share. As in the Learn-to-Steer
paper the position prompts say "to the left of" where GenEval wrote "left of"; ``metadata`` keeps GenEval's own
line. *Source:* arXiv 2310.11513.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from learn_to_steer.benchmarks._compose import compose
from learn_to_steer.benchmarks._contents import score_contents
from learn_to_steer.benchmarks._protocol import BenchmarkPrompt, Score, Size, runnable
from learn_to_steer.benchmarks._scoring import score_relations
from learn_to_steer.geometry import Detection

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
BY_NAME = {f"geneval-{task.replace('_', '-')}": task for task in TASKS}
NAMES = ("geneval", *BY_NAME, "geneval-position-val")
THRESHOLD = 0.3  # a detection's score must lie above it
COUNTING_THRESHOLD = 0.9
SEED = 43  # GenEval's own
VALIDATION_SEED = 2025
VALIDATION_DRAWS = 1000  # enough for VALIDATION_COUNT prompts even where a third of them can run
VALIDATION_COUNT = 200

# COCO's 80 classes in order, as GenEval names them.
CLASSES = tuple(
    """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
    parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella,
    handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
    surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
    broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop,
    computer mouse, tv remote, computer keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book,
    clock, vase, scissors, teddy bear, hair drier, toothbrush""".replace("\n    ", " ").split(", ")
)
RELATIONS = ("left of", "right of", "above", "below")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
NUMERALS = {2: "two", 3: "three", 4: "four"}


def prompts(name: str, vocabulary: Mapping[str, str] | None = None) -> list[BenchmarkPrompt]:
    """The runnable prompts of ``name``; see ``learn_to_steer.benchmarks.prompts``.

    ``geneval`` is all 553, ``geneval-<task>`` those of one task; ``index`` is the folder number in GenEval's own
    layout. ``geneval-position-val``: 200, none with a pair of objects of the test set, in either order.
    """
    if name != "geneval-position-val":
        tasks = (BY_NAME[name],) if name in BY_NAME else TASKS
        numbered = [(number, line) for number, line in enumerate(lines(SEED)) if line["tag"] in tasks]
        return runnable([_prompt(number, line) for number, line in numbered], vocabulary)
    tested = {_pair(line) for line in lines(SEED) if line["tag"] == "position"}
    drawn = [line for line in lines(VALIDATION_SEED, VALIDATION_DRAWS) if line["tag"] == "position"]
    fresh = [line for line in drawn if _pair(line) not in tested]
    return runnable([_prompt(number, line) for number, line in enumerate(fresh)], vocabulary)[:VALIDATION_COUNT]


def score(
    prompt: BenchmarkPrompt,
    detections: Sequence[Detection],
    canonical: Mapping[str, str] | None = None,
    size: Size | None = None,
    counting: float = COUNTING_THRESHOLD,
) -> Score:
    """GenEval's verdict: detections above 0.3 count, above ``counting`` where objects are counted; a ``Rule``.

    GenEval also keeps no more than 16 detections a class, which no count it asks for comes near. The thresholds
    are for Mask2Former's scores; another detector's mean something else.
    """
    threshold = counting if prompt.metadata["tag"] == "counting" else THRESHOLD
    sure = [one for one in detections if one.score > threshold]
    if prompt.relations:
        return score_relations(prompt, sure, canonical, size)
    return score_contents(prompt, sure, canonical)


def metrics(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """GenEval's numbers: ``tasks``, the share of correct images of each; ``overall``, the plain mean of these;
    ``correct_images``; and ``correct_prompts``, the share of prompts with at least one correct image."""
    tasks: dict[str, list[bool]] = defaultdict(list)
    prompts: dict[int, bool] = defaultdict(bool)
    for row in rows:
        tasks[row["tag"]].append(row["correct"])
        prompts[row["index"]] |= row["correct"]
    shares = {task: _mean(tasks[task]) for task in TASKS if task in tasks}
    return {
        "overall": _mean(list(shares.values())),
        "tasks": shares,
        "correct_images": _mean([row["correct"] for row in rows]),
        "correct_prompts": _mean(list(prompts.values())),
    }


def lines(seed: int, draws: int = 100) -> list[dict[str, Any]]:
    """GenEval's metadata lines from ``draws`` draws a task, repeated ones dropped.

    Seed 43 and 100 draws give the published ``evaluation_metadata.jsonl`` byte for byte.
    """
    rng = np.random.default_rng(seed)
    found = [_line("single_object", [_object(c)], _a(CLASSES[c])) for c in rng.choice(80, size=80, replace=False)]
    for _ in range(draws):
        a, b = rng.choice(80, size=2, replace=False)
        found.append(_line("two_object", [_object(a), _object(b)], f"{_a(CLASSES[a])} and {_a(CLASSES[b])}"))
    for _ in range(draws):
        c, count = rng.choice(80), int(rng.integers(2, 4, endpoint=True))
        plural = CLASSES[c] + ("es" if CLASSES[c].endswith("s") else "s")
        too_many = [{"class": CLASSES[c], "count": count + 1}]
        found.append(_line("counting", [_object(c, count)], f"{NUMERALS[count]} {plural}", too_many))
    for _ in range(draws):
        c, color = rng.choice(79) + 1, COLORS[rng.choice(10)]  # a person has no colour
        found.append(_line("colors", [_object(c, color=color)], _a(f"{color} {CLASSES[c]}")))
    for _ in range(draws):
        a, b = rng.choice(80, size=2, replace=False)
        relation = RELATIONS[rng.choice(4)]
        include = [_object(b), _object(a) | {"position": [relation, 0]}]
        found.append(_line("position", include, f"{_a(CLASSES[a])} {relation} {_a(CLASSES[b])}"))
    for _ in range(draws):
        a, b = rng.choice(79, size=2, replace=False) + 1
        one, two = (COLORS[i] for i in rng.choice(10, size=2, replace=False))
        text = f"{_a(f'{one} {CLASSES[a]}')} and {_a(f'{two} {CLASSES[b]}')}"
        found.append(_line("color_attr", [_object(a, color=one), _object(b, color=two)], text))
    return list({repr(line): line for line in found}.values())


def _object(index: int, count: int = 1, color: str | None = None) -> dict[str, Any]:
    return {"class": CLASSES[index], "count": count} | ({"color": color} if color else {})


def _line(
    tag: str, include: list[dict[str, Any]], text: str, exclude: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    exclusion = {"exclude": exclude} if exclude else {}
    return {"tag": tag, "include": include, **exclusion, "prompt": f"a photo of {text}"}


def _a(noun: str) -> str:
    """GenEval's article: by the first letter alone."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _pair(line: dict[str, Any]) -> frozenset[str]:
    return frozenset(entry["class"] for entry in line["include"])


def _prompt(index: int, line: dict[str, Any]) -> BenchmarkPrompt:
    if line["tag"] != "position":
        return BenchmarkPrompt(index, line["prompt"], (), line)
    reference, subject = line["include"]
    prompt = compose(index, [subject["class"], reference["class"]], [subject["position"][0]])
    return replace(prompt, metadata=line)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
