"""Images, evaluations and labels that were refused are scored once the remedy in the message is done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from told import told

from learn_to_steer import benchmarks, statistics, storage
from learn_to_steer.evaluation import EvaluateConfig, ScoreConfig, Scorer, evaluate, scoring
from learn_to_steer.evaluation import score as score_images
from learn_to_steer.evaluation.image_folders import find_images
from learn_to_steer.evaluation.prompt_selection import PromptSelection
from learn_to_steer.evaluation.run_comparison import load_reference
from learn_to_steer.geometry import Detection, holds
from learn_to_steer.report.audit import agreement, audit_page, row_agreement
from learn_to_steer.report.pages import contact_sheet

PROMPTS = ["a dog to the left of a cat", "a cat to the left of a dog"]
DOG, CAT = Detection("dog", 0.9, (0, 2, 2, 4)), Detection("cat", 0.8, (4, 2, 6, 4))


class Seer:
    """A detector that sees the same in every image."""

    counting = None
    tells_colors = False

    def __init__(self, name: str = "seer", *seen: Detection) -> None:
        self.name, self.identity, self.seen = name, {"name": name}, list(seen or (DOG, CAT))

    def detect(self, images: Any, queries: Any = None) -> list[list[Detection]]:
        return [list(self.seen) for _ in images]


def white(prompt: list[str], **sampling: Any) -> Any:
    return SimpleNamespace(images=[Image.new("RGB", (8, 8), "white") for _ in prompt])


MODEL: Any = SimpleNamespace(pipe=white, sampling={}, fingerprints={}, steered=None)
SCORER = Scorer(Seer(), {"dog": "dog", "cat": "cat"})


def prompt_file(folder: Path, prompts: list[str]) -> str:
    path = folder / f"prompts-{len(list(folder.iterdir()))}.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    return str(path)


@pytest.fixture
def config(tmp_path: Path) -> EvaluateConfig:
    return EvaluateConfig(objective="none", prompts=prompt_file(tmp_path, PROMPTS), images=2, out=str(tmp_path / "out"))


@pytest.fixture
def run(config: EvaluateConfig) -> Callable[..., Path]:
    """``run(**changes)``: evaluates and returns the folder."""

    def once(**changes: Any) -> Path:
        changed = replace(config, **changes)
        evaluate(changed, model=MODEL, scorer=SCORER)
        return Path(changed.out)

    return once


def score(folder: Path, **options: Any) -> Any:
    return score_images(
        ScoreConfig(str(folder), detector="seer", **({"out": str(folder.parent / "scored")} | options)), scorer=SCORER
    )


def test_evaluations(run: Callable[..., Path], tmp_path: Path) -> None:
    out = run()
    with told("choose another --out or remove the folder"):
        run(seed=5)
    run(seed=5, out=str(tmp_path / "other"))
    shutil.rmtree(out)
    run(seed=5)
    shutil.rmtree(out)
    edited = prompt_file(tmp_path, PROMPTS)
    run(prompts=edited)
    Path(edited).write_text("".join(json.dumps({"prompt": one}) + "\n" for one in PROMPTS[::-1]))
    with told("choose another --out or remove the folder"):
        run(prompts=edited)
    shutil.rmtree(out)
    run(prompts=edited)
    rows = storage.read_jsonl(out / "results.jsonl")
    lines = [
        row | ({"scores": {}} if n == 0 else {}) | ({"tag": "other"} if n == 0 else {}) for n, row in enumerate(rows)
    ]
    (out / "results.jsonl").write_bytes(b"".join(map(storage.jsonl_line, lines)))
    with told("remove the row, and the image is generated again"):
        run(prompts=edited)
    (out / "results.jsonl").write_bytes(b"".join(map(storage.jsonl_line, lines[1:])))
    run(prompts=edited)
    (out / "config.json").write_text("{")
    with told("repair it, or remove the folder"):
        run(prompts=edited)
    shutil.rmtree(out)
    run(prompts=edited)


def test_images_of_a_stopped_evaluation(run: Callable[..., Path]) -> None:
    out = run()
    (out / "summary.json").unlink()
    with told("run evaluate again to complete it"):
        score(out)
    run()
    score(out)


def test_folders_of_images(run: Callable[..., Path], config: EvaluateConfig, tmp_path: Path) -> None:
    given = {"prompts": config.prompts}
    with told("name the folder of the images, or a JSON-lines file that lists them"):
        score(tmp_path / "nowhere")
    with told("name a folder of images or a JSON-lines file that lists them"):
        find_images(tmp_path / "nowhere", benchmarks.load_file(config.prompts), 1)
    out = run()
    assert find_images(out, benchmarks.load_file(config.prompts), 1)
    score(out)
    with told("choose another folder"):
        score(out, out=str(out))
    listed = tmp_path / "listed.jsonl"

    def listing(*rows: dict[str, Any]) -> None:
        listed.write_text("".join(json.dumps(row) + "\n" for row in rows))

    images = [str(path.relative_to(tmp_path)) for path in sorted((out / "images").glob("*/samples/*.png"))]
    whole = [{"image": image, "prompt": PROMPTS[n // 2]} for n, image in enumerate(images)]
    listing(*whole)
    score(listed, out=str(tmp_path / "a"), **given)
    listing({"image": images[0], "index": 0, "prompt": PROMPTS[1]}, *whole[2:])
    with told("correct one of the two"):
        score(listed, out=str(tmp_path / "b"), **given)
    for corrected in ({"index": 1, "prompt": PROMPTS[1]}, {"index": 0, "prompt": PROMPTS[0]}):
        rows = [{"image": images[0]} | corrected, whole[0], whole[2]]
        listing(*rows)
        score(listed, out=str(tmp_path / f"c{corrected['index']}"), images=1, **given)
    (tmp_path / "loose").mkdir()
    shown = Image.new("RGB", (8, 8))
    shown.save(tmp_path / "loose" / "first.png")
    with told("list other layouts in a JSON-lines file with 'image' and 'prompt'"):
        score(tmp_path / "loose", out=str(tmp_path / "d"), **given)
    listing(*({"image": "loose/first.png", "prompt": prompt} for prompt in PROMPTS))
    score(listed, out=str(tmp_path / "e"), **given)
    listing(*whole[:3])
    with told("score fewer prompts with --limit, or fewer images with --images"):
        score(listed, out=str(tmp_path / "f"), **given)
    score(listed, out=str(tmp_path / "g"), images=1, **given)
    listing({"image": "loose/first.png", "prompt": "a dog above a cat"})
    with told("or fewer images with --images"):
        score(listed, out=str(tmp_path / "h"), **given)


def test_images_that_a_verifier_selected(run: Callable[..., Path], tmp_path: Path) -> None:
    out = run()
    settings = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(settings | {"verifier": "seer"}))
    with told("choose another --detector"):
        score(out)
    score_images(ScoreConfig(str(out), detector="another", out=str(tmp_path / "scored")), scorer=SCORER)


def test_images_of_other_prompts(run: Callable[..., Path], config: EvaluateConfig, tmp_path: Path) -> None:
    out = run()
    other = prompt_file(tmp_path, ["a dog above a cat", "a cat above a dog"])
    with told("name the benchmark or the file of prompts that they were generated from"):
        score(out, prompts=other)
    score(out, prompts=config.prompts)
    selection = PromptSelection(None, other, None, None, 0)
    with told("name the prompts that they were generated from"):
        selection.select(SCORER, among=[7])
    assert replace(selection, file=config.prompts).select(SCORER, among=[0])


def test_prompts(tmp_path: Path) -> None:
    empty = PromptSelection(None, None, None, None, 0)
    with told("name a benchmark or a file of prompts, one of the two"):
        empty.check()
    replace(empty, benchmark="unseen").check()
    file = prompt_file(tmp_path, PROMPTS)
    both = replace(empty, file=file, data="x.txt")
    with told("leave one of them out"):
        both.check()
    replace(both, data=None).check()
    with told("choose another --detector or benchmark"):
        replace(empty, benchmark="unseen").select(SCORER)
    replace(empty, benchmark="unseen").select(scoring.load_scorer("emoji"))
    with told("leave --data out"):
        replace(empty, benchmark="unseen", data="x.txt").check()
    with told("write one JSON object with a 'prompt' on each line"):
        benchmarks.load_file(prompt_file(tmp_path, []))
    assert benchmarks.load_file(file)
    with told("reword it or give 'relations'"):
        benchmarks.load_file(prompt_file(tmp_path, ["a dog and a cat"]))
    given = tmp_path / "given.jsonl"
    given.write_text(json.dumps({"prompt": "a dog and a cat", "relations": [["dog", "above", "cat"]]}))
    assert benchmarks.load_file(given)
    given.write_text('{"prompt": "a dog above a cat", "note": "\\ud800"}')
    with told("write it anew"):
        benchmarks.load_file(given)
    given.write_text('{"prompt": "a dog above a cat", "note": ""}')
    assert benchmarks.load_file(given)


def test_colours() -> None:
    counting = PromptSelection("geneval-counting", None, None, 4, 0)
    colours = replace(counting, benchmark="geneval-colors")
    objects = {
        name
        for benchmark in ("colors", "counting")
        for one in benchmarks.prompts(f"geneval-{benchmark}")
        for name in one.objects
    }
    scorer = Scorer(Seer(), {name: name for name in objects})
    with told("choose another --detector, or a benchmark without colours such as geneval-counting"):
        colours.select(scorer)
    assert counting.select(scorer)
    scorer.detector.tells_colors = True
    assert colours.select(scorer)


@pytest.mark.slow
def test_detectors() -> None:
    prompt = SimpleNamespace(prompt=PROMPTS[0], objects=("dog", "cat"), metadata={}, relations=())
    image = Image.new("RGB", (8, 8))
    with told("name a --detector for images of"):
        scoring.default_detector("flux:schnell")
    assert scoring.default_detector("sd:emoji") == "emoji"
    images = scoring.load_scorer("emoji").self_test_images
    with told("install them again, or choose another --detector"):
        scoring.run_self_test(Scorer(Seer(), {"dog": "dog"}, images))
    scoring.run_self_test(scoring.load_scorer("emoji-templates"))

    class Fickle(Seer):
        def detect(self, images: Any, queries: Any = None) -> list[list[Detection]]:
            return [self.seen[: len(images)] for _ in images]

    with told("installation or choose another --detector"):
        scoring.require_repeatable(Scorer(Fickle(), None), image, prompt)  # type: ignore[arg-type]
    scoring.require_repeatable(SCORER, image, prompt)  # type: ignore[arg-type]
    with told("repair its installation or choose another --detector"):
        scoring.require_finite([replace(DOG, score=float("nan"))])
    scoring.require_finite([DOG])
    with told("repair it, "):
        scoring.require_some(SCORER, [[]] * 1000, "then run it again")
    scoring.require_some(SCORER, [[DOG]] + [[]] * 999, "then run it again")


def test_classes_of_a_detector(tmp_path: Path) -> None:
    people = {"man": "person", "woman": "person", "dog": "dog"}
    both, other = benchmarks.load_file(prompt_file(tmp_path, [f"a man left of a {name}" for name in ("woman", "dog")]))
    with told("choose another --detector, or name other objects"):
        Scorer(Seer(), people).score(both, [])
    Scorer(Seer(), None).score(both, [])
    Scorer(Seer(), people).score(other, [])


def test_comparisons(run: Callable[..., Path], tmp_path: Path) -> None:
    first, second = run(), run(out=str(tmp_path / "second"))
    with told("name it with --against"):
        score(second, similarity="dino")
    with told("choose another folder"):
        load_reference(str(first), None, str(first), {})
    with told("score; name the --out of one of them"):
        load_reference(str(tmp_path), None, str(second), {})
    score(second, against=str(first))
    with told("score its images with the same detector, and compare with that run"):
        load_reference(str(first), None, str(second), {"name": "other"})
    score(first, out=str(tmp_path / "same"))
    load_reference(str(tmp_path / "same"), None, str(second), SCORER.identity)


def test_labels(run: Callable[..., Path], tmp_path: Path) -> None:
    out = run()
    rows = storage.read_jsonl(out / "results.jsonl")
    labels = {"00000-0000": "right"}
    with told("name the labels.json that the page saves"):
        row_agreement(rows, [labels])  # type: ignore[arg-type]
    with told("name the labels.json that its page saved"):
        row_agreement(rows, {"00009-0000": "right"})
    with told("label images on the page and save them"):
        row_agreement(rows, {})
    assert agreement(out, labels)["pictures"] == 1
    with told("name the --out of evaluate"):
        audit_page(tmp_path)
    audit_page(out)
    (out / "images" / "00000" / "samples" / "0000.png").unlink()
    with told("audit the folder that evaluate wrote"):
        audit_page(out)
    run()
    audit_page(out)


def test_numbers_and_pages() -> None:
    with told("0.95 is usual"):
        statistics.clustered_interval([True, False], [0, 1], level=95)
    statistics.clustered_interval([True, False], [0, 1], level=0.95)
    with told("give two of the same length, not empty"):
        statistics.cohens_kappa([True], [])
    statistics.cohens_kappa([True, False], [True, True])
    with told("; use one of"):
        holds((0, 0, 1, 1), "near", (2, 2, 3, 3))
    assert holds((0, 0, 1, 1), "left of", (2, 0, 3, 1))
    image = Image.new("RGB", (8, 8))
    with told("give at least one image and column, and one value for each image"):
        contact_sheet([image], [], 1)
    contact_sheet([image], [True], 1)
