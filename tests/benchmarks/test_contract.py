"""What every benchmark of the catalog keeps: tested for new files before their authors write a test."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from functools import cache

import pytest

from learn_to_steer import benchmarks, registry
from learn_to_steer.benchmarks import BenchmarkPrompt, stratified
from learn_to_steer.errors import DataError, UnknownNameError
from learn_to_steer.geometry import DIRECTIONS, OPPOSITE, Detection
from learn_to_steer.prompts import parse
from learn_to_steer_emoji.sprites import canonical_names, object_names

NAMES = [name for name in benchmarks.benchmark_names() if not benchmarks.reads(name)]
READING = [name for name in benchmarks.benchmark_names() if benchmarks.reads(name)]
COUNTS = {  # the others hold 200
    "geneval": 553,
    "geneval-single-object": 80,
    "geneval-two-object": 99,
    "geneval-counting": 80,
    "geneval-colors": 94,
    "geneval-position": 100,
    "geneval-color-attr": 100,
    "phrasing-plain": 191,
    "phrasing-dense": 191,
    "visor": 25280,
    "visor-1000": 1000,
}
RUNNABLE = {  # of these, how many the emoji world has the objects for; all of the others
    "diagonals": 70,
    "geneval": 270,
    "geneval-single-object": 48,
    "geneval-two-object": 27,
    "geneval-counting": 46,
    "geneval-colors": 53,
    "geneval-position": 58,
    "geneval-color-attr": 38,
    "multi-relation-ood-3-2": 98,
    "multi-relation-ood-4-2": 89,
    "multi-relation-ood-4-3": 88,
    "multi-relation-ood-5-3": 64,
    "ood": 124,
    "visor": 9024,
    "visor-1000": 361,
}
PINNED = {
    "diagonals": "4b68b6e990ceca94",
    "geneval": "2b531654384662a8",
    "geneval-single-object": "a227c8608e55ca32",
    "geneval-two-object": "954cb8f2bcf7969c",
    "geneval-counting": "1154e7818d57012a",
    "geneval-colors": "14da47634fb0b9c0",
    "geneval-position": "c9bb513502662155",
    "geneval-color-attr": "56b25e1f4775f0f1",
    "geneval-position-val": "86d423895871d638",
    "multi-relation-3-2": "4cdd807c41a7f6c5",
    "multi-relation-4-2": "563367e7c7e98da6",
    "multi-relation-4-3": "1be3c67015f14344",
    "multi-relation-5-3": "a73a8dc8a83c7aca",
    "multi-relation-unseen-3-2": "a4b3eaa6be8c1b63",
    "multi-relation-unseen-4-2": "921df2d83297b215",
    "multi-relation-unseen-4-3": "76d33455c7b90b8f",
    "multi-relation-unseen-5-3": "5e9f185cad2c5c7c",
    "multi-relation-ood-3-2": "299ef0d5671e9f13",
    "multi-relation-ood-4-2": "0854ebd98e09a47e",
    "multi-relation-ood-4-3": "0d4227cae9707980",
    "multi-relation-ood-5-3": "985a61d2cdccd99a",
    "multi-relation-val-3-2": "41e83214f4fdca98",
    "multi-relation-val-4-2": "8ddcfe17e380eb03",
    "multi-relation-val-4-3": "2afdf4da53ddf59d",
    "multi-relation-val-5-3": "6534003af3188f63",
    "ood": "a5f5e9078409b3b7",
    "phrasing-and": "49da7c5e25c047a1",
    "phrasing-same": "6cc3cfe3b9f05ad7",
    "phrasing-plain": "8210e7e2a237a7e8",
    "phrasing-dense": "beb985c49324825e",
    "unseen": "4387c8c91b6f5f91",
    "visor": "52ae8ad8fd8183f3",
    "visor-1000": "ada5e98c3365398b",
}


@cache
def prompts_of(name: str, runnable: bool = False) -> list[BenchmarkPrompt]:
    return benchmarks.prompts(name, canonical_names() if runnable else None)


def some(name: str, runnable: bool = False) -> list[BenchmarkPrompt]:
    """All prompts, or every so-manieth of a benchmark of many thousands."""
    prompts = prompts_of(name, runnable)
    return prompts[:: 1 + len(prompts) // 1000]


def layout(prompt: BenchmarkPrompt, mirrored: bool = False) -> list[Detection]:
    """Boxes on which every relation holds; mirrored at a point, on which none does."""
    places: dict[str, tuple[float, float]] = {}
    for relation in prompt.relations:
        x, y = places.setdefault(relation.subject, (len(places), len(places)))
        step = {axis: -50 if lower else 50 for axis, lower in DIRECTIONS[relation.predicate]}
        places.setdefault(relation.object, (x - step.get(0, 0), y - step.get(1, 0)))
    sign = -1 if mirrored else 1
    return [
        Detection(canonical_names()[name], 0.95, (sign * x - 5, sign * y - 5, sign * x + 5, sign * y + 5))
        for name, (x, y) in places.items()
    ]


def contents(prompt: BenchmarkPrompt, spoiled: bool = False) -> list[Detection]:
    """What a prompt without a relation asks for; spoiled: of another colour, one too many, or not there."""
    found = []
    for place, entry in enumerate(prompt.metadata["include"]):
        color = entry.get("color")
        if spoiled and color:
            color = "red" if color == "blue" else "blue"
        count = entry["count"] + (spoiled and "exclude" in prompt.metadata)
        if not (spoiled and "color" not in entry and "exclude" not in prompt.metadata and place == 0):
            name = canonical_names()[entry["class"]]
            found += [Detection(name, 0.95, (x, 50 * place, x + 9, 50 * place + 9), color) for x in range(count)]
    return found


def test_the_promised_names_are_there_once() -> None:
    forms = ("3-2", "4-2", "4-3", "5-3")
    multi = {f"multi-relation-{split}{form}" for split in ("", "unseen-", "ood-", "val-") for form in forms}
    tasks = {f"geneval-{task}" for task in ("single-object", "two-object", "counting", "colors", "color-attr")}
    position = {"geneval-position", "geneval-position-val"}
    phrasing = {f"phrasing-{form}" for form in ("and", "same", "plain", "dense")}
    single = {"unseen", "ood", "diagonals", "visor", "visor-1000"}
    assert {"geneval", *tasks, *position, *single, *phrasing, *multi} == set(NAMES)
    assert READING == ["t2i-compbench-spatial", "t2i-compbench-four-relations"]
    declared = [n for file in registry.names("benchmarks") for n in registry.load("benchmarks", file).NAMES]
    assert declared == benchmarks.benchmark_names()


def test_an_unknown_benchmark_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'geneval-position'"):
        benchmarks.prompts("geneval-positon")
    assert benchmarks.prompts("multi_relation_3_2") == benchmarks.prompts("multi-relation-3-2")


@pytest.mark.parametrize("name", NAMES)
def test_prompts_are_unique_countable_and_repeat(name: str) -> None:
    prompts = prompts_of(name)
    assert len(prompts) == COUNTS.get(name, 200)
    assert len({p.prompt for p in prompts}) == len(prompts)
    assert len({p.index for p in prompts}) == len(prompts)
    listed = [[p.index, p.prompt, [relation.as_list() for relation in p.relations]] for p in prompts]
    assert hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16] == PINNED[name]
    assert len(prompts_of(name, runnable=True)) == RUNNABLE.get(name, len(prompts))


@pytest.mark.parametrize("name", READING)
def test_benchmarks_that_read_a_file_say_which(name: str) -> None:
    with pytest.raises(DataError, match="--data FILE"):
        benchmarks.prompts(name)


@pytest.mark.parametrize("name", NAMES)
def test_benchmarks_that_read_no_file_take_none(name: str) -> None:
    with pytest.raises(DataError, match="reads no file"):
        benchmarks.prompts(name, data="prompts.txt")


@pytest.mark.parametrize("name", NAMES)
def test_the_parser_reads_what_the_benchmark_says(name: str) -> None:
    for prompt in some(name):
        parsed = parse(prompt.prompt)
        assert parsed == prompt.relations
        for mine, read in zip(prompt.relations, parsed, strict=True):
            assert (mine.subject_span, mine.object_span) == (read.subject_span, read.object_span)
            assert mine.subject_span is not None
            assert prompt.prompt[slice(*mine.subject_span)] == mine.subject


@pytest.mark.parametrize("name", NAMES)
def test_metadata_points_from_subject_to_reference(name: str) -> None:
    for prompt in some(name):
        include = prompt.metadata["include"]
        read = [
            [entry["class"], entry["position"][0], include[entry["position"][1]]["class"]]
            for entry in include
            if "position" in entry
        ]
        assert read == [relation.as_list() for relation in prompt.relations]


@pytest.mark.parametrize("name", NAMES)
def test_perfect_images_score_all_and_spoiled_ones_none(name: str) -> None:
    rule, vocabulary = benchmarks.rule(name), canonical_names()
    for prompt in some(name, runnable=True):
        scene = layout if prompt.relations else contents
        perfect = rule(prompt, scene(prompt), vocabulary)
        assert perfect.correct and perfect.present and all(perfect.held), (prompt.prompt, perfect.reason)
        assert perfect.reason == ""
        spoiled = rule(prompt, scene(prompt, True), vocabulary)
        assert not spoiled.correct and not any(spoiled.held)
        assert spoiled.reason
        assert len(perfect.held) == len(spoiled.held) == len(prompt.relations)
        assert not rule(prompt, [], vocabulary).present


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("visor")])
def test_swapped_boxes_fail_for_their_side(name: str) -> None:
    rule, vocabulary = benchmarks.rule(name), canonical_names()
    for prompt in prompts_of(name, runnable=True):
        swapped = rule(prompt, layout(prompt, mirrored=True), vocabulary)
        for relation in prompt.relations:
            assert swapped.present
            vertical, _, horizontal = OPPOSITE[relation.predicate].partition(" ")
            diagonal = vertical in ("above", "below") and horizontal
            seen = f"{vertical} and {horizontal}" if diagonal else OPPOSITE[relation.predicate]
            assert f"(is {seen})" in swapped.reason


@pytest.mark.parametrize("name", [name for name in NAMES if "unseen" in name])
def test_unseen_benchmarks_hold_unseen_objects_only(name: str) -> None:
    objects = {n for p in prompts_of(name) for r in p.relations for n in (r.subject, r.object)}
    assert objects <= set(object_names("unseen"))
    assert len(objects) >= 10


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("multi")])
def test_multi_relation_prompts_follow_their_form(name: str) -> None:
    objects, relations = int(name[-3]), int(name[-1])
    for prompt in prompts_of(name):
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


def test_a_subset_keeps_the_share_of_every_task() -> None:
    chosen = stratified(benchmarks.prompts("geneval"), 55, seed=0)
    tasks = Counter(p.metadata["tag"] for p in chosen)
    assert tasks == {
        **{"single_object": 8, "two_object": 10, "counting": 8, "colors": 9},
        **{"position": 10, "color_attr": 10},
    }


def test_what_can_be_held_out_of_training_leaves_something() -> None:
    names = set(benchmarks.held_out_names())
    assert {"geneval-position", "diagonals", "ood"} <= names
    assert not names & {"visor", "visor-1000", *READING}


def test_an_empty_subset_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        stratified(benchmarks.prompts("unseen"), 0, seed=0)


@pytest.mark.parametrize("form", ["3-2", "4-2", "4-3", "5-3"])
def test_prompts_to_tune_on_share_none_with_the_test_set(form: str) -> None:
    tested = {prompt.prompt for prompt in prompts_of(f"multi-relation-{form}")}
    assert not tested & {prompt.prompt for prompt in prompts_of(f"multi-relation-val-{form}")}
