"""Score pictures that are there already: of this package, of another one, by another detector or rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from learn_to_steer import benchmarks, storage
from learn_to_steer.benchmarks import BenchmarkPrompt
from learn_to_steer.errors import DataError
from learn_to_steer.evaluation.chosen import every, judged
from learn_to_steer.evaluation.detections import detect_all
from learn_to_steer.evaluation.folders import find_pictures
from learn_to_steer.evaluation.pairs import alike
from learn_to_steer.evaluation.run import digest, versions, write_rows
from learn_to_steer.evaluation.score import find_detector, judge
from learn_to_steer.evaluation.summary import compared, summarise

COST = ("passes", "checks", "converged", "probability", "note", "seconds")


@dataclass(frozen=True)
class ScoreConfig:
    """Pictures and what they should show.

    ``pictures`` is a folder or manifest as in ``find_pictures``. ``benchmark``, ``prompts``, ``data``, ``limit`` and
    ``seed`` choose prompts as in ``EvaluateConfig``; a folder that ``evaluate`` left knows its own. ``images`` a
    prompt (None: all). ``against`` is the folder of another evaluation or scoring, whose difference is reported; with
    ``similarity`` (an embedder of ``likeness``) an evaluation's pictures are compared too. ``out`` gets detections,
    rows and summary.
    """

    pictures: str
    benchmark: str | None = None
    prompts: str | None = None
    data: str | None = None
    detector: str = "emoji"
    device: str = "cpu"
    images: int | None = None
    limit: int | None = None
    seed: int = 0
    against: str | None = None
    similarity: str | None = None
    out: str = "out/score"


def score(config: ScoreConfig, on_progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Detect, judge and summarise; the summary is also written to ``<out>/summary.json``.

    What was detected is kept in ``<out>/detections.jsonl`` and not looked for again. Raises DataError for pictures
    that are missing or unreadable and for a broken detector, and the errors of ``evaluate``.
    """
    config = _completed(config)
    if config.similarity and not config.against:
        raise DataError("--similarity is to another evaluation's pictures: name it with --against")
    others = _rows(Path(config.against)) if config.against else []
    every(config, None)
    detector = find_detector(config.detector, config.device)
    made = {(row["index"], row["sample"]): row for row in _rows(Path(config.pictures), required=False)}
    chosen = judged(config, detector, {index for index, _ in made} or None)
    placed = find_pictures(config.pictures, chosen, config.images)
    out = Path(config.out)
    seen = detect_all(detector, placed, out / "detections.jsonl", on_progress)
    rule = benchmarks.rule(config.benchmark)
    rows = {}
    for (prompt, sample, _), (boxes, size) in zip(placed, seen, strict=True):
        known = made.get((prompt.index, sample), {})
        cost = {name: known.get(name) for name in COST}
        verdict = judge(prompt, boxes, detector.vocabulary, rule, size)
        rows[prompt.index, sample] = _row(prompt, sample) | cost | verdict
    write_rows(out, rows)
    listed = list(rows.values())
    summary = summarise(listed) | {
        "metrics": benchmarks.metrics(config.benchmark, listed),
        "config": asdict(config),
        "judged_by": dict(detector.detector.identity),
        "prompts_sha256": digest(chosen),
        "versions": versions(),
    }
    if config.against:
        try:
            summary["against"] = {"folder": config.against, **compared(listed, others)}
        except ValueError as error:
            raise DataError(f"{config.against} cannot be compared with these pictures: {error}") from error
        if config.similarity:
            summary["against"] |= alike(config.similarity, config.device, placed, listed, config.against, others)
    storage.write_json(out / "summary.json", summary)
    return summary


def _completed(config: ScoreConfig) -> ScoreConfig:
    """``config`` with the prompts of the evaluation that made the pictures, unless others are named."""
    path = Path(config.pictures) / "config.json"
    if config.benchmark is not None or config.prompts is not None or not path.is_file():
        return config
    theirs = storage.read_json(path)
    return replace(config, benchmark=theirs["benchmark"], prompts=theirs["prompts"], data=theirs["data"])


def _rows(folder: Path, required: bool = True) -> list[dict[str, Any]]:
    """The rows of an evaluation or scoring; DataError when they are ``required`` and not there."""
    path = folder / "results.jsonl"
    if not path.is_file():
        if required:
            raise DataError(f"{folder} holds no results.jsonl; name the folder of an evaluation or a scoring")
        return []
    return storage.read_jsonl(path)


def _row(prompt: BenchmarkPrompt, sample: int) -> dict[str, Any]:
    return {
        "index": prompt.index,
        "sample": sample,
        "tag": prompt.metadata.get("tag", ""),
        "prompt": prompt.prompt,
        "relations": [relation.as_list() for relation in prompt.relations],
    }
