"""What every benchmark of the catalog keeps: tested for new files before their authors write a test."""

from __future__ import annotations

from collections import Counter

import pytest

from learn_to_steer import benchmarks, catalog
from learn_to_steer.benchmarks import BenchmarkPrompt, score_relations, stratified
from learn_to_steer.emoji.sprites import canonical_names, object_names
from learn_to_steer.errors import UnknownNameError
from learn_to_steer.geometry import OPPOSITE, Detection
from learn_to_steer.prompts import parse

NAMES = benchmarks.benchmark_names()
COUNTS = {"geneval-position": 100}  # the others hold 200
STEP = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}


def layout(prompt: BenchmarkPrompt, mirrored: bool = False) -> list[Detection]:
    """Boxes on which every relation holds; mirrored at a point, on which none does."""
    places: dict[str, tuple[float, float]] = {}
    for relation in prompt.relations:
        x, y = places.setdefault(relation.subject, (len(places), len(places)))
        dx, dy = STEP[relation.predicate]
        places.setdefault(relation.object, (x - 50 * dx, y - 50 * dy))
    sign = -1 if mirrored else 1
    vocabulary = canonical_names()
    return [
        Detection(vocabulary.get(name, name), 0.9, (sign * x - 5, sign * y - 5, sign * x + 5, sign * y + 5))
        for name, (x, y) in places.items()
    ]


def test_the_promised_names_are_there_once() -> None:
    forms = ("3-2", "4-2", "4-3", "5-3")
    multi = {f"multi-relation-{split}{form}" for split in ("", "unseen-") for form in forms}
    assert {"geneval-position", "geneval-position-val", "unseen", *multi} <= set(NAMES)
    declared = [n for file in catalog.names("benchmarks") for n in catalog.load("benchmarks", file).NAMES]
    assert declared == NAMES


def test_an_unknown_benchmark_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'geneval-position'"):
        benchmarks.prompts("geneval-positon")
    assert benchmarks.prompts("multi_relation_3_2") == benchmarks.prompts("multi-relation-3-2")


@pytest.mark.parametrize("name", NAMES)
def test_prompts_are_unique_countable_and_repeat(name: str) -> None:
    prompts = benchmarks.prompts(name)
    assert len(prompts) == COUNTS.get(name, 200)
    assert len({p.prompt for p in prompts}) == len(prompts)
    assert len({p.index for p in prompts}) == len(prompts)
    assert prompts == benchmarks.prompts(name)


@pytest.mark.parametrize("name", NAMES)
def test_the_parser_reads_what_the_benchmark_says(name: str) -> None:
    for prompt in benchmarks.prompts(name):
        parsed = parse(prompt.prompt)
        assert parsed == prompt.relations
        for mine, read in zip(prompt.relations, parsed, strict=True):
            assert (mine.subject_span, mine.object_span) == (read.subject_span, read.object_span)
            assert mine.subject_span is not None
            assert prompt.prompt[slice(*mine.subject_span)] == mine.subject


@pytest.mark.parametrize("name", NAMES)
def test_metadata_points_from_subject_to_reference(name: str) -> None:
    for prompt in benchmarks.prompts(name):
        include = prompt.metadata["include"]
        read = [
            [entry["class"], entry["position"][0], include[entry["position"][1]]["class"]]
            for entry in include
            if "position" in entry
        ]
        assert read == [relation.as_list() for relation in prompt.relations]


@pytest.mark.parametrize("name", NAMES)
def test_perfect_boxes_score_all_and_swapped_boxes_none(name: str) -> None:
    vocabulary = canonical_names()
    for prompt in benchmarks.prompts(name, vocabulary):
        perfect = score_relations(prompt, layout(prompt), vocabulary)
        assert perfect.correct, perfect.reason
        swapped = score_relations(prompt, layout(prompt, mirrored=True), vocabulary)
        assert swapped.present
        assert not any(swapped.held)
        for relation in prompt.relations:
            assert f"(is {OPPOSITE[relation.predicate]})" in swapped.reason


@pytest.mark.parametrize("name", [name for name in NAMES if "unseen" in name])
def test_unseen_benchmarks_hold_unseen_objects_only(name: str) -> None:
    objects = {n for p in benchmarks.prompts(name) for r in p.relations for n in (r.subject, r.object)}
    assert objects <= set(object_names("unseen"))
    assert len(objects) >= 10


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("multi")])
def test_multi_relation_prompts_follow_their_form(name: str) -> None:
    objects, relations = int(name[-3]), int(name[-1])
    for prompt in benchmarks.prompts(name):
        assert len({n for r in prompt.relations for n in (r.subject, r.object)}) == objects
        assert len({r.predicate for r in prompt.relations}) == len(prompt.relations) == relations
        assert " a umbrella" not in prompt.prompt


@pytest.mark.parametrize("limit", [4, 10, 40, 500])
def test_a_subset_is_stratified_seeded_and_in_file_order(limit: int) -> None:
    prompts = benchmarks.prompts("geneval-position")
    chosen = stratified(prompts, limit, seed=0)
    assert len(chosen) == min(limit, 100)
    assert [p.index for p in chosen] == sorted(p.index for p in chosen)
    assert chosen == stratified(prompts, limit, seed=0)
    everything = Counter(p.relations[0].predicate for p in prompts)
    for predicate, count in Counter(p.relations[0].predicate for p in chosen).items():
        assert abs(count - len(chosen) * everything[predicate] / 100) <= 1
    if limit < 100:
        assert chosen != stratified(prompts, limit, seed=1)


def test_an_empty_subset_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        stratified(benchmarks.prompts("unseen"), 0, seed=0)
