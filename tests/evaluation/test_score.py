"""Images that are there already: three layouts, missing ones, the cache of detections, broken detectors."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from learn_to_steer import benchmarks
from learn_to_steer.errors import DataError, PromptError, UnknownNameError, UnsupportedError
from learn_to_steer.evaluation import ScoreConfig, Scorer, score
from learn_to_steer.evaluation.image_folders import PromptImage, find_images
from learn_to_steer.evaluation.prompt_selection import PromptSelection
from learn_to_steer.evaluation.score_images import detect_images
from learn_to_steer.geometry import Detection
from learn_to_steer.image_files import read_image

PROMPTS = ["a dog to the left of a cat", "a cat to the left of a puppy"]


@pytest.fixture
def scorer(stub_scorer: Callable[..., Scorer]) -> Scorer:
    """Sees a dog to the left of a cat in red images, and nothing in others."""
    pair = [Detection("dog", 0.9, (0, 20, 20, 40)), Detection("cat", 0.8, (40, 20, 60, 40))]
    return stub_scorer(lambda image: pair if image.getpixel((0, 0))[0] > 128 else [])


def paint(path: Path, red: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # One shade of blue per name, so that no two files of a folder are the same.
    Image.new("RGB", (64, 64), (red, 0, zlib.crc32(path.name.encode()) % 256)).save(path)


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    return str(path)


def as_geneval(root: Path, prompts: str) -> Path:
    for prompt in benchmarks.load_file(prompts):
        folder = root / f"{prompt.index:05d}"
        paint(folder / "samples" / "0000.png", 255)
        paint(folder / "samples" / "0001.png", 0)
        (folder / "metadata.jsonl").write_text(json.dumps(prompt.metadata))
        paint(folder / "grid.png", 0)
    return root


def as_compbench(root: Path, prompts: str) -> Path:
    for prompt in PROMPTS:
        paint(root / "samples" / f"{prompt}_000000.png", 255)
        paint(root / "samples" / f"{prompt}_000003.png", 0)
    return root


def as_manifest(root: Path, prompts: str) -> Path:
    rows = []
    for number, prompt in enumerate(PROMPTS):
        for red in (255, 0):
            paint(root / f"{number}-{red}.png", red)
            rows.append({"image": f"{number}-{red}.png", "prompt": f"{prompt.capitalize()}."})  # as people write it
    (root / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root / "list.jsonl"


@pytest.mark.parametrize("layout", [as_geneval, as_compbench, as_manifest])
def test_layouts(layout: Callable[[Path, str], Path], prompts: str, scorer: Scorer, tmp_path: Path) -> None:
    place = layout(tmp_path / "pictures", prompts)
    config = ScoreConfig(str(place), prompts=prompts, detector="stub", out=str(tmp_path / "out"))
    summary = score(config, scorer=scorer)
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    outcomes = [(row["index"], row["sample"], row["correct"], row["present"]) for row in rows]
    assert outcomes == [(0, 0, True, True), (0, 1, False, False), (1, 0, False, True), (1, 1, False, False)]
    assert (summary["accuracy"], summary["both_present"], summary["passes_per_image"]) == (0.25, 0.5, None)
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    before = scorer.detector.seen
    assert score(replace(config, images=1), scorer=scorer)["accuracy"] == 0.5
    assert scorer.detector.seen == before  # all detections came from the cache


def test_missing_and_foreign_images_are_errors(prompts: str, scorer: Scorer, tmp_path: Path) -> None:
    root = as_geneval(tmp_path / "pictures", prompts)
    with pytest.raises(DataError, match="name a --detector"):
        score(ScoreConfig(str(root), prompts=prompts, out=str(tmp_path / "out")))
    config = ScoreConfig(str(root), prompts=prompts, detector="stub", out=str(tmp_path / "out"))
    (root / "00001" / "samples" / "0001.png").unlink()
    with pytest.raises(DataError, match=r"1 images are missing.*number 1.*has 1 of 2"):
        score(config, scorer=scorer)
    assert score(replace(config, images=1), scorer=scorer)["images"] == 2
    other = {"include": [{"class": "bus"}], "prompt": "a bus"}
    (root / "00000" / "metadata.jsonl").write_text(json.dumps(other))
    with pytest.raises(DataError, match="'a bus'"):
        score(replace(config, images=1), scorer=scorer)
    (root / "00000" / "metadata.jsonl").unlink()
    (root / "00000" / "samples" / "0000.png").write_bytes(b"torn")
    with pytest.raises(DataError, match="cannot be read"):
        score(replace(config, images=1), scorer=scorer)
    with pytest.raises(DataError, match="neither folders"):
        score(replace(config, pictures=str(tmp_path / "out"), out=str(tmp_path / "other")), scorer=scorer)
    with pytest.raises(DataError, match="does not exist"):
        score(replace(config, pictures=str(tmp_path / "nowhere")), scorer=scorer)


BOX = (0.0, 0.0, 9.0, 9.0)


@pytest.fixture
def black_images(tmp_path: Path, prompts: str) -> ScoreConfig:
    """Ten images in which a stub detector that looks for red sees nothing."""
    root = tmp_path / "pictures"
    for prompt in PROMPTS:
        for k in range(5):
            paint(root / f"{prompt}_{k:06d}.png", 0)
    return ScoreConfig(str(root), prompts=prompts, detector="stub", out=str(tmp_path / "out"))


def test_a_detector_that_finds_nothing_anywhere_scores_nothing(black_images: ScoreConfig, scorer: Scorer) -> None:
    with pytest.raises(DataError, match=r"sees nothing in any of 10 images.*remove .*detections\.jsonl"):
        score(black_images, scorer=scorer)
    assert score(replace(black_images, images=3), scorer=scorer)["accuracy"] == 0  # six may all be empty


@pytest.mark.parametrize(
    "broken",
    [
        Detection("dog", float("nan"), BOX),
        Detection("dog", 1.5, BOX),
        Detection("dog", 0.9, (0.0, 0.0, float("inf"), 9.0)),
    ],
)
def test_a_detector_that_reports_no_numbers_scores_nothing(
    black_images: ScoreConfig, stub_scorer: Callable[..., Scorer], broken: Detection
) -> None:
    answers = iter([[Detection("dog", 0.9, BOX)]] * 3)  # the check for repeatability passes
    with pytest.raises(DataError, match="no number"):
        score(black_images, scorer=stub_scorer(lambda image: next(answers, [broken])))


@pytest.mark.parametrize(
    "again",
    [
        [],
        [Detection("cat", 0.9, BOX)],
        [Detection("dog", 0.8, BOX)],
        [Detection("dog", 0.9, (0.0, 0.0, 9.0, 6.0))],
        [Detection("dog", 0.9, BOX)] * 2,
    ],
)
def test_a_detector_that_contradicts_itself_scores_nothing(
    black_images: ScoreConfig, stub_scorer: Callable[..., Scorer], again: list[Detection]
) -> None:
    answers = iter([[Detection("dog", 0.9, BOX)]])
    with pytest.raises(DataError, match="contradicts itself"):
        score(black_images, scorer=stub_scorer(lambda image: next(answers, again)))


def test_an_evaluation_is_scored_again_and_compared(prompts: str, scorer: Scorer, tmp_path: Path) -> None:
    made = tmp_path / "made"
    as_geneval(made / "images", prompts)
    (made / "config.json").write_text(
        json.dumps(
            {"model": "some/model", "detector": "stub", "benchmark": None, "prompts": prompts, "data": None, "limit": 1}
        )
    )
    kept = {"passes": 3, "checks": 1, "converged": True, "probability": [0.9], "note": "", "seconds": 2.0}
    listed = [
        {"index": 0, "sample": k, "prompt": PROMPTS[0], "correct": False, "present": True, **kept} for k in (0, 1)
    ]
    (made / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))
    with pytest.raises(DataError, match="stopped before its end"):
        score(ScoreConfig(str(made), out=str(tmp_path / "again")), scorer=scorer)
    (made / "summary.json").write_text("{}")
    with pytest.raises(DataError, match="choose another folder"):
        score(ScoreConfig(str(made), out=str(made)), scorer=scorer)
    summary = score(ScoreConfig(str(made), against=str(made), out=str(tmp_path / "again")), scorer=scorer)
    assert (summary["images"], summary["passes_per_image"], summary["accuracy"]) == (2, 3.0, 0.5)
    assert summary["against"]["correct"][0] == 0.5 and summary["against"]["present"][0] == -0.5
    with pytest.raises(DataError, match=r"no results\.jsonl"):
        score(ScoreConfig(str(made), against=str(tmp_path), out=str(tmp_path / "again")), scorer=scorer)
    (made / "summary.json").write_text(json.dumps({"judged_by": {"name": "another"}}))
    with pytest.raises(DataError, match="was scored by"):
        score(ScoreConfig(str(made), against=str(made), out=str(tmp_path / "again")), scorer=scorer)
    (made / "results.jsonl").write_text(json.dumps(listed[0] | {"index": 99}) + "\n")
    with pytest.raises(PromptError, match="none of the images"):
        score(ScoreConfig(str(made), out=str(tmp_path / "again")), scorer=scorer)
    generated = tmp_path / "generated"
    generated.mkdir()
    (generated / "config.json").write_text('{"model": "sd:emoji"}')
    with pytest.raises(DataError, match="name a benchmark"):
        score(ScoreConfig(str(generated), out=str(tmp_path / "again")), scorer=scorer)


def test_what_selected_the_images_does_not_score_them(prompts: str, scorer: Scorer, tmp_path: Path) -> None:
    made = tmp_path / "made"
    as_geneval(made / "images", prompts)
    settings = {"model": "some/model", "detector": "another", "verifier": "stub:folder", "prompts": prompts}
    kept = {"passes": 3, "satisfied": True, "tries": 2, "why": "stub: as the prompt says", "seconds": 2.0}
    listed = [{"index": 0, "sample": k, "prompt": PROMPTS[0], "correct": False, **kept} for k in (0, 1)]
    (made / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))
    (made / "summary.json").write_text("{}")
    (made / "config.json").write_text(json.dumps(settings))
    config = ScoreConfig(str(made), detector="Stub", out=str(tmp_path / "again"))
    with pytest.raises(UnsupportedError, match=r"Stub selected the images .* choose another --detector"):
        score(config, scorer=scorer)
    (made / "config.json").write_text(json.dumps(settings | {"verifier": "third"}))
    summary = score(config, scorer=scorer)
    assert summary["verifier"]["satisfied"] == 1.0 and summary["tries_per_image"] == 2
    (row, _) = map(json.loads, (tmp_path / "again" / "results.jsonl").read_text().splitlines())
    assert {name: row[name] for name in kept} == kept


def test_samples_are_in_numeric_order_and_other_files_are_ignored(prompts: str, tmp_path: Path) -> None:
    root = as_geneval(tmp_path, prompts)
    for name in ("10", "9", "thumbnail"):
        paint(root / "00000" / "samples" / f"{name}.png", 0)
    found = find_images(root, benchmarks.load_file(prompts)[:1])
    assert [image.path.stem for image in found] == ["0000", "0001", "9", "10"]
    assert [image.key for image in found] == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert len(find_images(root, benchmarks.load_file(prompts), 1)) == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": "0-0.png", "index": 0, "prompt": "another prompt"}, "prompt 0 is 'a dog to the left of a cat'"),
        ({"image": "0-0.png"}, "a row needs"),
        ({"image": "0-0.png", "index": "0"}, "a row needs"),
        ({"image": "nowhere.png", "index": 0}, "does not exist"),
    ],
)
def test_wrong_rows_of_a_manifest(row: dict[str, Any], message: str, prompts: str, tmp_path: Path) -> None:
    manifest = as_manifest(tmp_path, prompts)
    manifest.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=message):
        find_images(manifest, benchmarks.load_file(prompts))


def test_images_are_read_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned by a quarter
    Image.new("RGB", (20, 10)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").size == (10, 20)


def test_the_cache_tells_images_detectors_and_names_apart(
    stub_scorer: Callable[..., Scorer], prompts: str, tmp_path: Path
) -> None:
    paint(tmp_path / "image.png", 255)
    first, second = (PromptImage(prompt, 0, tmp_path / "image.png") for prompt in benchmarks.load_file(prompts))
    found = [Detection("dog", 0.9, (0.0, 0.0, 9.0, 9.0), "red")]
    closed, other, open_ = (stub_scorer(lambda image: found, words) for words in ({"dog": "dog"}, {"dog": "dog"}, None))
    other.detector.identity = {"name": "stub", "threshold": 0.5}

    def looks(scorer: Scorer, image: PromptImage) -> int:
        """How many images the detector is shown for one image: three if it is not in the cache."""
        before = scorer.detector.seen
        assert detect_images(scorer, [image], tmp_path / "cache.jsonl") == [(found, (64, 64))]
        return scorer.detector.seen - before

    # One look for the image, three for the check that the detector repeats itself.
    assert [looks(closed, first), looks(closed, first), looks(closed, second)] == [4, 0, 0]
    assert [looks(other, first), looks(other, second)] == [4, 0]
    # A detector without a vocabulary depends on the query, so another prompt needs another entry.
    prompt = replace(second.prompt, prompt="a dog", relations=(), metadata={"include": [{"class": "dog"}]})
    assert [looks(open_, first), looks(open_, second._replace(prompt=prompt)), looks(open_, first)] == [4, 4, 0]


def test_images_are_scored_by_the_rule_of_their_benchmark(stub_scorer: Callable[..., Scorer], tmp_path: Path) -> None:
    words = {name: name for prompt in benchmarks.prompts("geneval-counting") for name in prompt.objects}
    selection = PromptSelection("geneval-counting", None, None, 1, 0)
    (prompt,) = selection.select(stub_scorer(lambda image: [], words))
    (wanted,) = prompt.metadata["include"]
    paint(tmp_path / "in" / f"{prompt.index:05d}" / "samples" / "0000.png", 255)
    for count, accuracy in ((wanted["count"], 1), (wanted["count"] - 1, 0)):
        boxes = [Detection(wanted["class"], 0.95, (20.0 * n, 0.0, 20.0 * n + 10, 10.0)) for n in range(count)]
        config = ScoreConfig(str(tmp_path / "in"), "geneval-counting", limit=1, out=str(tmp_path / f"out-{count}"))
        scorer = stub_scorer(lambda image, boxes=boxes: boxes, words)
        assert score(config, scorer=scorer)["accuracy"] == accuracy


def test_prompts_are_selected_by_the_seed(stub_scorer: Callable[..., Scorer]) -> None:
    scorer = stub_scorer(lambda image: [], None)

    def chosen(seed: int) -> list[int]:
        return [prompt.index for prompt in PromptSelection("geneval-position", None, None, 5, seed).select(scorer)]

    assert len(chosen(0)) == 5 and chosen(0) == chosen(0) != chosen(1)


def test_mistakes_that_are_found_before_anything_is_scored(
    prompts: str, scorer: Scorer, stub_scorer: Callable[..., Scorer], tmp_path: Path
) -> None:
    config = ScoreConfig(str(as_geneval(tmp_path / "in", prompts)), prompts=prompts, out=str(tmp_path / "out"))
    with pytest.raises(DataError, match="name it with --against"):
        score(replace(config, similarity="emoji"), scorer=scorer)
    with pytest.raises(DataError, match="is the run to compare with"):
        score(replace(config, against=config.out), scorer=scorer)
    with pytest.raises(UnknownNameError, match="cat"):
        score(config, scorer=stub_scorer(lambda image: [], {"dog": "dog"}))
    assert not (tmp_path / "out" / "detections.jsonl").exists()
