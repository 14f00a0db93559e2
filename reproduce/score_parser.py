"""Score the prompt parser on labelled prompts: how many are read exactly, precision, recall, and false alarms.

    python reproduce/score_parser.py labelled.jsonl
    python reproduce/score_parser.py labelled.jsonl --part work --errors
    python reproduce/score_parser.py labelled.jsonl --nlp en_core_web_sm

A line of the file is a JSON object with a ``prompt`` and its ``relations``: triplets that have to be found. Optional
keys: ``optional``, triplets that count neither as right nor as wrong; ``also_named``, other names that count for the
objects of a triplet; ``needs``, why a triplet is out of the grammar's reach ("pronoun"), one entry per relation.
Triplets are compared by the last word of each name. Intervals of 95 % are bootstrapped over prompts.

``--part`` splits the file by a hash of each prompt: 100 prompts to work on, the others to look at rarely.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learn_to_steer.prompts import load_nlp, parse

PART = 100  # prompts to work on
SAMPLES = 2000


@dataclass(frozen=True)
class Score:
    """What one prompt adds to the totals."""

    exact: bool
    right: int  # triplets found that are labelled
    found: int  # triplets found, without debatable ones
    labelled: int
    reachable: int  # labelled, without those that need a pronoun or an ellipsis resolved
    without: bool  # no relation is labelled
    false_alarm: bool  # ... but one is found that is not debatable


def names(row: dict[str, Any], triplet: Sequence[str]) -> tuple[set[str], str, set[str]]:
    """The last words of all names of both objects of a labelled triplet, and its predicate."""
    subjects, objects = {triplet[0]}, {triplet[2]}
    for labelled, its_subjects, its_objects in row.get("also_named", []):
        if labelled == list(triplet):
            subjects |= set(its_subjects)
            objects |= set(its_objects)
    return {head(name) for name in subjects}, triplet[1], {head(name) for name in objects}


def head(name: str) -> str:
    """The last word of a name, in lower case."""
    return name.lower().replace("-", " ").split()[-1]


def score(row: dict[str, Any], found: Sequence[Sequence[str]]) -> tuple[Score, list[tuple[str, str, str]], list[Any]]:
    """Score what was found in the prompt of ``row``; also return what is wrong and what is missing."""
    missing = [names(row, triplet) for triplet in row["relations"]]
    optional = [names(row, triplet) for triplet in row.get("optional", [])]
    wrong, debatable = [], 0
    for subject, predicate, reference in found:
        matches = [
            kind
            for kind in (missing, optional)
            if any(head(subject) in a and predicate == r and head(reference) in b for a, r, b in kind)
        ]
        if not matches:
            wrong.append((subject, predicate, reference))
        elif matches[0] is missing:
            missing.remove(
                next(t for t in missing if head(subject) in t[0] and predicate == t[1] and head(reference) in t[2])
            )
        else:
            debatable += 1
    labelled, right = len(row["relations"]), len(row["relations"]) - len(missing)
    result = Score(
        exact=not missing and not wrong,
        right=right,
        found=len(found) - debatable,
        labelled=labelled,
        reachable=labelled - min(len(missing), len([need for need in row.get("needs", []) if need])),
        without=not labelled,
        false_alarm=not labelled and bool(wrong),
    )
    return result, wrong, missing


def ratio(above: int, below: int) -> float:
    return above / below if below else float("nan")


MEASURES: dict[str, Callable[[Sequence[Score]], float]] = {
    "exact": lambda s: ratio(sum(x.exact for x in s), len(s)),
    "precision": lambda s: ratio(sum(x.right for x in s), sum(x.found for x in s)),
    "recall": lambda s: ratio(sum(x.right for x in s), sum(x.labelled for x in s)),
    "recall without pronouns": lambda s: ratio(sum(x.right for x in s), sum(x.reachable for x in s)),
}


def interval(scores: Sequence[Score], measure: Callable[[Sequence[Score]], float]) -> tuple[float, float]:
    """The bootstrapped interval of 95 %."""
    chance = random.Random(0)
    values = sorted(measure(chance.choices(scores, k=len(scores))) for _ in range(SAMPLES))
    return values[int(0.025 * SAMPLES)], values[int(0.975 * SAMPLES)]


def part(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The rows of one part of the file."""
    rows = sorted(rows, key=lambda row: hashlib.sha256(row["prompt"].encode()).hexdigest())
    return {"all": rows, "work": rows[:PART], "held-out": rows[PART:]}[name]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The labelled prompts of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def scores(rows: Sequence[dict[str, Any]], nlp: Any = None, errors: bool = False) -> list[Score]:
    """Parse and score each prompt; print what is not read exactly if ``errors``."""
    results = []
    for row in rows:
        result, wrong, missing = score(row, [relation.as_list() for relation in parse(row["prompt"], nlp=nlp)])
        results.append(result)
        if errors and (wrong or missing):
            print(row["prompt"])
            print("".join(f"    wrong    {' | '.join(triplet)}\n" for triplet in wrong), end="")
            print("".join(f"    missing  {'/'.join(a)} | {r} | {'/'.join(b)}\n" for a, r, b in missing))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labelled", type=Path)
    parser.add_argument("--part", choices=("all", "work", "held-out"), default="all")
    parser.add_argument("--nlp", help="a spaCy model")
    parser.add_argument("--errors", action="store_true", help="show the prompts that are not read exactly")
    options = parser.parse_args()
    nlp = load_nlp(options.nlp) if options.nlp else None
    results = scores(part(read_rows(options.labelled), options.part), nlp, options.errors)
    print(f"{len(results)} prompts")
    for name, measure in MEASURES.items():
        low, high = interval(results, measure)
        print(f"{name:24}{measure(results):.3f}  ({low:.3f} to {high:.3f})")
    alarms, without = sum(x.false_alarm for x in results), sum(x.without for x in results)
    print(f"{'without a relation':24}{alarms} of {without} got one")


if __name__ == "__main__":
    main()
