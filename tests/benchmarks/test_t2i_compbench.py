"""T2I-CompBench's rule on the worked examples, and its file: read, checked, fetched. The prompts are our own."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from learn_to_steer import benchmarks
from learn_to_steer.benchmarks import BenchmarkPrompt, Score, t2i_compbench
from learn_to_steer.errors import DataError
from learn_to_steer.geometry import Box, Detection
from learn_to_steer.prompts import parse

ALL, FOUR = t2i_compbench.NAMES
LINES = (
    "a dog next to a sofa",
    "a girl on the top of a horse",
    "a cow on the left of a airplane",
    "a cat on side of a key",
    "a vase on the bottom of a television",
    "a bee on the right of a wallet",
    "a lamp near a cup",
)
SIZE = (480, 480)
HERE, FAR, BESIDE = (0, 0, 100, 100), (300, 310, 400, 410), (200, 20, 300, 120)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of the published form, taken for the published one."""
    digest = hashlib.sha256("".join(line + "\n" for line in LINES).encode()).hexdigest()
    monkeypatch.setattr(t2i_compbench, "SHA256", digest)
    path = tmp_path / "spatial_val.txt"
    path.write_bytes("\r\n".join(LINES).encode())
    return path


def prompt(line: str) -> BenchmarkPrompt:
    return t2i_compbench._prompt(0, line, reworded=False)


def score(line: str, first: Box | None, second: Box | None, size: tuple[int, int] | None = SIZE) -> Score:
    _, one, *_, other = line.split()
    found = [Detection(one, 0.9, first)] if first else []
    found += [Detection(other, 0.8, second)] if second else []
    return t2i_compbench.score(prompt(line), found, None, size)


def test_prompts_as_written_and_in_our_wording(file: Path) -> None:
    everything, four = (benchmarks.prompts(name, None, str(file)) for name in (ALL, FOUR))
    assert [p.prompt for p in everything] == list(LINES)
    assert [len(p.relations) for p in everything] == [0, 1, 1, 0, 1, 1, 0]
    assert [(p.index, p.prompt) for p in four] == [
        (1, "a girl above a horse"),
        (2, "a cow to the left of a airplane"),
        (4, "a vase below a television"),
        (5, "a bee to the right of a wallet"),
    ]
    assert [p.metadata["prompt"] for p in four] == [LINES[p.index] for p in four]
    for p in (*everything, *four):
        read = parse(p.prompt)
        assert read == p.relations
        assert [r.subject_span for r in read] == [r.subject_span for r in p.relations]


def test_a_detector_that_knows_people_and_couches_can_run_girls_and_sofas(file: Path) -> None:
    vocabulary = {name: name for name in ("person", "horse", "dog", "couch", "vase", "tv", "cat", "cow")}
    kept = benchmarks.prompts(ALL, vocabulary, str(file))
    assert [p.index for p in kept] == [0, 1, 4]
    found = [Detection("person", 0.9, HERE), Detection("horse", 0.9, (10, 200, 110, 300))]
    assert t2i_compbench.score(kept[1], found, vocabulary, SIZE).correct


@pytest.mark.parametrize("line", LINES)
def test_perfect_boxes_score_all_and_swapped_ones_none(line: str) -> None:
    places = {"left": BESIDE, "top": (20, 200, 120, 300), "right": BESIDE, "bottom": (20, 200, 120, 300)}
    word = line.split()[4]
    near = word not in places
    first, second = (HERE, BESIDE) if near else (HERE, places[word])
    if word in ("right", "bottom"):
        first, second = second, first
    perfect, swapped = score(line, first, second), score(line, *((HERE, FAR) if near else (second, first)))
    assert (perfect.correct, perfect.reason) == (True, "")
    assert perfect.scores["fixed"] == pytest.approx(0.925)
    assert not swapped.correct and swapped.present
    assert perfect.held == ((True,) if not near else ()) and not any(swapped.held)
    if not near:
        assert swapped.scores["fixed"] == swapped.scores["official"] == 0
        assert swapped.reason.startswith("wrong side: ")


def test_worked_examples() -> None:
    left = "a dog on the left of a cat"
    assert score(left, HERE, BESIDE).scores == {
        "official": pytest.approx(0.925),
        "fixed": pytest.approx(0.925),
        "matchable": 1.0,
    }
    # Exactly diagonal is nothing, and so is one object alone, however sure.
    diagonal = score(left, HERE, (200, 200, 300, 300))
    assert diagonal.scores["fixed"] == 0 and diagonal.reason == "wrong side: dog on the left of cat"
    alone = score(left, HERE, None)
    assert (alone.present, alone.scores["fixed"], alone.reason) == (False, 0, "missing: cat")
    assert score("a dog on the top of a cat", HERE, (0, 150, 100, 250)).correct
    # Moved by half its width, IoU 1/3: 0.3 of the relation's half remain.
    shared = score(left, HERE, (50, 0, 150, 100))
    assert shared.scores["fixed"] == pytest.approx(0.25 * 1.7 + 0.5 * 0.1 / (1 / 3))
    assert (shared.correct, shared.reason) == (False, "overlapping: dog on the left of cat")


def test_nearness_is_measured_in_the_detectors_frame() -> None:
    near = "a dog near a cat"
    assert score(near, HERE, (149, 300, 249, 400)).correct
    far = score(near, HERE, FAR)
    assert far.scores["fixed"] == pytest.approx(0.425 + 0.5 * 150 / (310 * 479 / 480))
    assert (far.correct, far.reason) == (False, "far apart: dog near cat")
    assert score(near, HERE, FAR, (1024, 1024)).correct  # the same pixels of a larger image
    assert not score(near, HERE, FAR, (480, 320)).correct
    with pytest.raises(ValueError, match="size of the image"):
        score(near, HERE, FAR, None)


@pytest.mark.parametrize("noun", ["bag", "computer", "cow", "mouse", "painting", "phone", "sofa", "table", "wallet"])
def test_nouns_that_the_official_matching_cannot_find(noun: str) -> None:
    for line in (f"a {noun} on the left of a cat", f"a dog on the left of a {noun}"):
        scores = score(line, HERE, BESIDE).scores
        assert scores == {"official": 0, "fixed": pytest.approx(0.925), "matchable": 0}


def test_metrics_tell_the_ceiling() -> None:
    outcomes = [score(f"a {one} on the left of a cat", HERE, BESIDE) for one in ("dog", "cow")]
    rows = [{"scores": v.scores, "correct": v.correct} for v in outcomes]
    assert benchmarks.metrics(FOUR, rows) == {
        "official": pytest.approx(0.4625),
        "official_ceiling": 0.5,
        "fixed": pytest.approx(0.925),
        "rate": 1.0,
    }


def test_other_files_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--data FILE, or download it with --data download"):
        benchmarks.prompts(ALL)
    with pytest.raises(DataError, match=r"cannot read .*nothing\.txt"):
        benchmarks.prompts(ALL, data=str(tmp_path / "nothing.txt"))
    file.write_text("\n".join(LINES[:-1]))
    with pytest.raises(DataError, match="does not hold the published prompts"):
        benchmarks.prompts(ALL, data=str(file))


def test_a_download_is_checked_and_kept(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a file's address, so that no network is needed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(t2i_compbench, "URL", file.as_uri())
    whole = file.read_bytes()
    file.write_bytes(b"an error page")
    with pytest.raises(DataError, match="does not hold the published prompts"):
        benchmarks.prompts(ALL, data="download")
    assert not (tmp_path / "cache").exists()
    file.write_bytes(whole)
    first = benchmarks.prompts(ALL, data="download")
    file.unlink()
    assert benchmarks.prompts(ALL, data="download") == first
    (kept,) = (tmp_path / "cache" / "learn-to-steer").iterdir()
    kept.unlink()
    with pytest.raises(DataError, match=r"cannot download .*--data FILE"):
        benchmarks.prompts(ALL, data="download")
