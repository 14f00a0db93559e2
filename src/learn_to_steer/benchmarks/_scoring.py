"""GenEval's rule on boxes, asked of every relation's own pair, with a reason for each failure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from learn_to_steer.benchmarks._protocol import BenchmarkPrompt
from learn_to_steer.catalog import unknown
from learn_to_steer.geometry import Detection, basic_relations, holds, iou
from learn_to_steer.prompts import Relation

FUSED = 0.9  # two classes in boxes of a higher IoU are one thing seen twice
IRREGULAR = {"mice": "mouse", "people": "person", "men": "man", "women": "woman", "children": "child", "geese": "goose"}


@dataclass(frozen=True)
class Score:
    """The verdict on one image.

    ``present``: every object was found. ``held``: one answer per relation, in the prompt's order.
    ``correct``: all of them held. ``reason``: empty when correct, else what was wrong, "; " between several.
    """

    correct: bool
    present: bool
    held: tuple[bool, ...]
    reason: str


def score_relations(
    prompt: BenchmarkPrompt, detections: Sequence[Detection], canonical: Mapping[str, str] | None = None
) -> Score:
    """Score one image by the relations of its prompt.

    ``detections`` are those above the detector's own threshold; of each class the best-scoring box counts.
    ``canonical`` maps every name and alias of the detector's vocabulary to the class it reports; without it
    names are compared as written, plurals tolerated. A relation is tested on its own pair only; boxes of IoU
    above 0.9 never hold a relation.

    Raises UnknownNameError when ``canonical`` does not know an object. *Source:* GenEval (arXiv 2310.11513).
    """
    best: dict[str, Detection] = {}
    for detection in detections:
        if detection.name not in best or detection.score > best[detection.name].score:
            best[detection.name] = detection
    found: dict[str, Detection | None] = {}
    for name in (name for relation in prompt.relations for name in (relation.subject, relation.object)):
        if canonical is not None:
            found[name] = best.get(class_of(name, canonical))
        else:
            found[name] = next((best[form] for form in _forms(name) if form in best), None)
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


def class_of(name: str, canonical: Mapping[str, str]) -> str:
    """The detector's class for an object as a prompt writes it: an alias or a plural is understood.

    Raises UnknownNameError, naming the nearest match, for an object outside the vocabulary.
    """
    for form in _forms(name):
        if form in canonical:
            return canonical[form]
    raise unknown("object (the detector cannot see it)", name, canonical)


def _failure(relation: Relation, subject: Detection, reference: Detection) -> str:
    """Why a pair of boxes fails its relation; empty when it holds."""
    if iou(subject.box, reference.box) > FUSED:
        return f"fused: {relation.subject} and {relation.object} share a box"
    if holds(subject.box, relation.predicate, reference.box):
        return ""
    wanted = f"{relation.subject} {relation.predicate} {relation.object}"
    seen = sorted(basic_relations(subject.box, reference.box))
    return f"wrong side: {wanted} (is {' and '.join(seen)})" if seen else f"ambiguous: {wanted} (no clear axis)"


def _forms(name: str) -> Iterator[str]:
    """``name`` in lower case, then the singulars it may be the plural of."""
    word = " ".join(name.lower().split())
    yield word
    *rest, last = word.split(" ")
    if last in IRREGULAR:
        yield " ".join([*rest, IRREGULAR[last]])
    for ending, singulars in (("ves", ("fe", "f")), ("ies", ("y", "ie")), ("es", ("", "e")), ("s", ("",))):
        if word.endswith(ending):
            yield from (word.removesuffix(ending) + singular for singular in singulars)
