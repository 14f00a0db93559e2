"""The published prompt file comes out byte for byte, and the validation set keeps away from it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

from learn_to_steer import benchmarks
from learn_to_steer.benchmarks import geneval
from learn_to_steer_emoji.sprites import canonical_names

PUBLISHED = "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13"
PUBLISHED_PROMPTS = "55b6e3650e980c13daf30569eb666e000faf19bfc2b7b4cbe999fcdb7aa9d680"


def test_the_published_files_come_out_byte_for_byte() -> None:
    lines = geneval.lines(geneval.SEED)
    written = "".join(json.dumps(line) + "\n" for line in lines)
    assert hashlib.sha256(written.encode()).hexdigest() == PUBLISHED
    texts = "".join(line["prompt"] + "\n" for line in lines)
    assert hashlib.sha256(texts.encode()).hexdigest() == PUBLISHED_PROMPTS


def test_position_prompts_keep_the_folder_number_and_the_original_line() -> None:
    prompts = benchmarks.prompts("geneval-position")
    assert [p.index for p in prompts] == list(range(353, 453))
    counts = Counter(p.relations[0].predicate for p in prompts)
    assert counts == {"below": 28, "right of": 27, "above": 26, "left of": 19}
    assert prompts[0].metadata["prompt"] == "a photo of a dog right of a teddy bear"
    assert prompts[0].prompt == "a photo of a dog to the right of a teddy bear"
    assert prompts[0].relations[0].as_list() == ["dog", "right of", "teddy bear"]
    for p in prompts:
        original = (
            p.metadata["prompt"].replace(" left of ", " to the left of ").replace(" right of ", " to the right of ")
        )
        assert p.prompt == original
        assert p.metadata["include"][1]["class"] == p.relations[0].subject
        assert p.metadata["include"][0]["class"] == p.relations[0].object


def test_a_vocabulary_keeps_the_runnable_prompts_only() -> None:
    names = canonical_names()
    everything, kept = benchmarks.prompts("geneval-position"), benchmarks.prompts("geneval-position", names)
    assert 50 <= len(kept) < 100
    assert kept == [p for p in everything if p.relations[0].subject in names and p.relations[0].object in names]
    assert any("computer keyboard" in (r.subject, r.object) for p in kept for r in p.relations)  # an alias


def test_validation_prompts_share_no_pair_with_the_test_set() -> None:
    def pairs(name: str) -> set[frozenset[str]]:
        return {frozenset((p.relations[0].subject, p.relations[0].object)) for p in benchmarks.prompts(name)}

    assert not pairs("geneval-position") & pairs("geneval-position-val")
    for vocabulary in (None, canonical_names()):
        prompts = benchmarks.prompts("geneval-position-val", vocabulary)
        assert len(prompts) == 200
        assert min(Counter(p.relations[0].predicate for p in prompts).values()) >= 30
