"""GenEval's rule on boxes, asked of every relation's own pair, with a reason for each failure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from learn_to_steer.benchmarks._names import found_as
from learn_to_steer.benchmarks._protocol import BenchmarkPrompt, Score, Size
from learn_to_steer.geometry import Detection, basic_relations, holds, iou
from learn_to_steer.prompts import Relation

FUSED = 0.9  # two classes in boxes of a higher IoU are one thing seen twice


def score_relations(
    prompt: BenchmarkPrompt,
    detections: Sequence[Detection],
    canonical: Mapping[str, str] | None = None,
    size: Size | None = None,
) -> Score:
    """Score one image by the relations of its prompt.

    ``detections`` are those above the detector's own threshold; of each class the best-scoring box counts.
    ``canonical`` maps every name and alias of the detector's vocabulary to the class it reports; without it
    names are compared as written, plurals tolerated. A relation is tested on its own pair only; boxes of IoU
    above 0.9 never hold a relation. ``size`` has no effect: all lengths are compared with those of the boxes.

    Raises UnknownNameError when ``canonical`` does not know an object. *Source:* GenEval (arXiv 2310.11513).
    """
    names = (name for relation in prompt.relations for name in (relation.subject, relation.object))
    found = {name: next(iter(found_as(name, detections, canonical)), None) for name in names}
    missing = [name for name, detection in found.items() if detection is None]
    reasons = [f"missing: {', '.join(missing)}"] if missing else []
    held = []
    for relation in prompt.relations:
        subject, reference = found[relation.subject], found[relation.object]
        if subject is None or reference is None:
            held.append(False)
            continue
        failure = _failure(relation, subject, reference)
        held.append(not failure)
        if failure:
            reasons.append(failure)
    return Score(all(held), not missing, tuple(held), "; ".join(reasons))


def _failure(relation: Relation, subject: Detection, reference: Detection) -> str:
    """Why a pair of boxes fails its relation; empty when it holds."""
    if iou(subject.box, reference.box) > FUSED:
        return f"fused: {relation.subject} and {relation.object} share a box"
    if holds(subject.box, relation.predicate, reference.box):
        return ""
    wanted = f"{relation.subject} {relation.predicate} {relation.object}"
    seen = sorted(basic_relations(subject.box, reference.box))
    return f"wrong side: {wanted} (is {' and '.join(seen)})" if seen else f"ambiguous: {wanted} (no clear axis)"
