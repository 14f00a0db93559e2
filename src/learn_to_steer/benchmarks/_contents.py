"""GenEval's rule for what a picture must hold and must not: classes, how many of each, in which colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from learn_to_steer.benchmarks._names import found_as
from learn_to_steer.benchmarks._protocol import BenchmarkPrompt, Score
from learn_to_steer.geometry import Detection


def score_contents(
    prompt: BenchmarkPrompt, detections: Sequence[Detection], canonical: Mapping[str, str] | None = None
) -> Score:
    """Score one image by ``include`` and ``exclude`` of its prompt's metadata line.

    Of every included class there must be ``count`` detections; where a ``color`` is given, the ``count`` best of
    them must have it. An excluded class fails the image from ``count`` detections on, which is how GenEval asks
    for an exact number. Raises UnknownNameError when ``canonical`` does not know an object. *Source:* GenEval
    (arXiv 2310.11513).
    """
    missing, reasons, present = [], [], True
    for entry in prompt.metadata["include"]:
        name, count = entry["class"], entry["count"]
        best = found_as(name, detections, canonical)[:count]
        present &= len(best) == count
        if not best:
            missing.append(name)
        elif len(best) < count:
            reasons.append(f"too few: {len(best)} of {count} {name}")
        elif "color" in entry and any(one.color != entry["color"] for one in best):
            seen = ", ".join(one.color or "unknown" for one in best)
            reasons.append(f"wrong colour: {name} is {seen}, not {entry['color']}")
    for entry in prompt.metadata.get("exclude", []):
        number = len(found_as(entry["class"], detections, canonical))
        if number >= entry["count"]:
            reasons.append(f"too many: {number} {entry['class']}, not {entry['count'] - 1}")
    if missing:
        reasons.insert(0, f"missing: {', '.join(missing)}")
    return Score(not reasons, present, (), "; ".join(reasons))
