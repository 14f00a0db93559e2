"""Score pictures that are there already: of this package, of another one, by another detector or rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from learn_to_steer import benchmarks, storage
from learn_to_steer.configs import ScoreConfig
from learn_to_steer.errors import DataError
from learn_to_steer.evaluation.against import difference, others
from learn_to_steer.evaluation.chosen import every, judged
from learn_to_steer.evaluation.detections import detect_all
from learn_to_steer.evaluation.folders import find_pictures
from learn_to_steer.evaluation.run import digest, prompt_row, versions, write_rows
from learn_to_steer.evaluation.score import find_detector, judge, usual_detector
from learn_to_steer.evaluation.self_test import require_knowing
from learn_to_steer.evaluation.summary import summarise

COST = ("passes", "checks", "converged", "probability", "note", "seconds")


def score(config: ScoreConfig, on_progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Detect, judge and summarise; the summary is also written to ``<out>/summary.json``.

    What was detected is kept in ``<out>/detections.jsonl`` and not looked for again. Raises DataError for pictures
    that are missing or unreadable and for a broken detector, and the errors of ``evaluate``.
    """
    storage.check_folder(config.out)
    config = _completed(config)
    out = Path(config.out)
    if out.resolve() == Path(config.pictures).resolve():
        raise DataError(f"--out {out} is where the pictures lie, and their results; choose another folder")
    every(config, None)
    assert config.detector is not None  # _completed has found one, or raised
    detector = find_detector(config.detector, config.device)
    require_knowing(detector)
    theirs = others(config.against, config.similarity, config.out, detector.detector.identity)
    made = {(row["index"], row["sample"]): row for row in _made(Path(config.pictures))}
    chosen = judged(config, detector, {index for index, _ in made} or None)
    placed = find_pictures(config.pictures, chosen, config.images)
    seen = detect_all(detector, placed, out / "detections.jsonl", on_progress)
    rule = benchmarks.rule(config.benchmark, detector.detector.counting)
    rows = {}
    for (prompt, sample, _), (boxes, size) in zip(placed, seen, strict=True):
        known = made.get((prompt.index, sample), {})
        cost = {name: known.get(name) for name in COST}
        verdict = judge(prompt, boxes, detector.vocabulary, rule, size)
        rows[prompt.index, sample] = prompt_row(prompt, sample) | cost | verdict
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
        summary["against"] = difference(listed, theirs, placed, config.against, config.similarity, config.device)
    storage.write_json(out / "summary.json", summary)
    return summary


def _completed(config: ScoreConfig) -> ScoreConfig:
    """``config`` with prompts and detector of the evaluation that made the pictures, unless others are named.

    Raises DataError when no detector is named and none is known to fit.
    """
    if not Path(config.pictures).exists():
        raise DataError(f"{config.pictures} does not exist; name the folder of the pictures, or a manifest")
    path = Path(config.pictures) / "config.json"
    theirs: Any = storage.read_json(path) if path.is_file() else {}
    if theirs and config.benchmark is None and config.prompts is None:
        config = replace(config, **{name: theirs.get(name) for name in ("benchmark", "prompts", "data")})
    detector = config.detector or theirs.get("detector") or usual_detector(theirs.get("model"))
    return replace(config, detector=detector)


def _made(folder: Path) -> list[dict[str, Any]]:
    """The rows of the evaluation that made the pictures; none for pictures of other tools.

    Raises DataError for an evaluation that has not been finished: its pictures are not the whole set.
    """
    if not (folder / "config.json").is_file() or not (folder / "results.jsonl").is_file():
        return []
    if not (folder / "summary.json").is_file():
        raise DataError(f"the evaluation in {folder} was stopped before its end; run evaluate again to complete it")
    return storage.read_jsonl(folder / "results.jsonl")
