"""The whole evaluation: prompts in, pictures, rows and a summary out; what is done is not done again."""

from __future__ import annotations

import hashlib
import io
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from PIL.Image import Image

from learn_to_steer import benchmarks, storage
from learn_to_steer.benchmarks import BenchmarkPrompt, Rule
from learn_to_steer.configs import EvaluateConfig
from learn_to_steer.errors import DataError
from learn_to_steer.evaluation.against import difference, others
from learn_to_steer.evaluation.chosen import every, judged
from learn_to_steer.evaluation.detections import require_same_twice, require_seeing, require_sound
from learn_to_steer.evaluation.folders import image_path
from learn_to_steer.evaluation.generate import Job, Picture, draw
from learn_to_steer.evaluation.model import Model, open_model
from learn_to_steer.evaluation.noise_refinement import draw_refined, find_verifier
from learn_to_steer.evaluation.score import Judge, find_detector, judge, usual_detector
from learn_to_steer.evaluation.self_test import require_knowing
from learn_to_steer.evaluation.summary import summarise
from learn_to_steer.loading import resolve_device

LIBRARIES = ("learn-to-steer", "torch", "diffusers", "transformers", "numpy", "pillow")
Key = tuple[int, int]


def evaluate(
    config: EvaluateConfig, on_progress: Callable[[int, int], None] | None = None, model: Model | None = None
) -> dict[str, Any]:
    """Run ``config`` and return the summary, which is also written to ``<out>/summary.json``.

    Writes ``config.json``, ``images/<index>/metadata.jsonl`` and ``samples/<k>.png`` (GenEval's layout) and
    ``results.jsonl``, one line an image. Images that are there and listed are kept. ``on_progress`` is told how
    many images are done, of how many. ``model`` is one that is open already, changed in ways that ``config`` has no
    words for; its ``fingerprints`` should tell so. Raises DataError when the folder holds another evaluation, and the
    errors of the parts, also for a broken detector (``detections``).
    """
    out = Path(config.out)
    name = config.detector or usual_detector(config.model)
    config = replace(config, detector=name)
    # Cheap mistakes are found before any weights are loaded.
    storage.check_folder(out)
    every(config, None)
    device = resolve_device(config.device)
    detector = find_detector(name, device)
    require_knowing(detector)
    chosen = judged(config, detector)
    theirs = others(config.against, config.similarity, config.out, detector.detector.identity)
    rule = benchmarks.rule(config.benchmark, detector.detector.counting)
    verifier = find_verifier(config.verifier, config.objective, chosen, device) if config.verifier else None
    model = model or open_model(config)
    resolved = {
        "sampling": model.sampling,
        "fingerprints": model.fingerprints,
        "judged_by": dict(detector.detector.identity),
        **({"steering": model.steered.config.image_settings()} if model.steered else {}),
        **({"verified_by": dict(verifier.detector.identity)} if verifier else {}),
    }
    _claim(out, config, resolved)
    wanted = [(prompt, sample) for prompt in chosen for sample in range(config.images)]
    rows = _listed(out)
    _same_prompts(out, wanted, rows)
    missing = [(prompt, sample) for prompt, sample in wanted if (prompt.index, sample) not in rows]
    for start in range(0, len(missing), config.batch):
        if on_progress:
            on_progress(len(wanted) - len(missing) + start, len(wanted))
        batch = missing[start : start + config.batch]
        _make(model, detector, verifier, rule, batch, config, out, first=not rows and start == 0)
    if on_progress:
        on_progress(len(wanted), len(wanted))
    rows = _listed(out)
    lost = [image_path(out, prompt.index, sample) for prompt, sample in wanted if (prompt.index, sample) not in rows]
    if lost:
        raise DataError(f"{len(lost)} images are missing after generation (first: {lost[0]}); run it again")
    write_rows(out, rows)
    counted = [rows[prompt.index, sample] for prompt, sample in wanted]
    require_seeing(detector, [row["boxes"] for row in counted])
    summary = summarise(counted) | {
        "metrics": benchmarks.metrics(config.benchmark, counted),
        "config": config.as_dict(),
        **resolved,
        "prompts_sha256": digest(chosen),
        "versions": versions(),
    }
    if config.against:
        placed = [(prompt, sample, image_path(out, prompt.index, sample)) for prompt, sample in wanted]
        summary["against"] = difference(counted, theirs, placed, config.against, config.similarity, device)
    storage.write_json(out / "summary.json", summary)
    return summary


def _claim(out: Path, config: EvaluateConfig, resolved: dict[str, Any]) -> None:
    """Write ``config.json``; DataError when the folder already holds an evaluation with other settings."""
    path = out / "config.json"
    mine = json.loads(json.dumps(config.decisive() | resolved))
    if path.exists():
        theirs = storage.read_json(path)
        other = next((name for name in mine if theirs.get(name) != mine[name]), None)
        if other is not None:
            raise DataError(
                f"{out} holds another evaluation ({other} {theirs.get(other)!r}, now {mine[other]!r}); "
                "choose another --out or remove it"
            )
    storage.write_json(path, config.as_dict() | resolved)


def _same_prompts(out: Path, wanted: Sequence[tuple[BenchmarkPrompt, int]], rows: dict[Key, dict[str, Any]]) -> None:
    """Raise DataError when images were made of other prompts (a prompt file that has been edited since)."""
    for prompt, sample in wanted:
        row = rows.get((prompt.index, sample))
        asked = [relation.as_list() for relation in prompt.relations]
        if row is not None and (row["prompt"], row["relations"]) != (prompt.prompt, asked):
            raise DataError(
                f"{out} holds images of other prompts (number {prompt.index} was {row['prompt']!r}, "
                f"now {prompt.prompt!r}); choose another --out or remove it"
            )


def _make(
    model: Model,
    detector: Judge,
    verifier: Judge | None,
    rule: Rule,
    batch: Sequence[tuple[BenchmarkPrompt, int]],
    config: EvaluateConfig,
    out: Path,
    first: bool,
) -> None:
    """Generate, save, judge and list one batch; the row comes last, so that a listed image is whole."""
    jobs = [Job(p.prompt, p.relations, k) for p, k in batch]
    if verifier is None:
        pictures = draw(model, jobs, config.seed, steer=True)
    else:
        pictures = draw_refined(model, verifier, jobs, config.seed)
    if first:
        require_same_twice(detector, pictures[0].image, batch[0][0])
    found = detector.look([picture.image for picture in pictures], [prompt for prompt, _ in batch])
    for seen in found:
        require_sound(seen)
    for (prompt, sample), picture, boxes in zip(batch, pictures, found, strict=True):
        path = image_path(out, prompt.index, sample)
        storage.write_atomic(path, png(picture.image))
        storage.write_atomic(path.parents[1] / "metadata.jsonl", json.dumps(prompt.metadata, ensure_ascii=False) + "\n")
        verdict = judge(prompt, boxes, detector.vocabulary, rule, picture.image.size)
        storage.append_jsonl(out / "results.jsonl", _row(prompt, sample, picture) | verdict)


def _row(prompt: BenchmarkPrompt, sample: int, picture: Picture) -> dict[str, Any]:
    report = picture.report
    return prompt_row(prompt, sample) | {
        "passes": report.passes if report else 0,
        "checks": report.checks if report else 0,
        "converged": bool(report and report.converged),
        "probability": report.probability if report else [],
        "note": report.note if report else "",
        "seconds": picture.seconds,
    }


def prompt_row(prompt: BenchmarkPrompt, sample: int) -> dict[str, Any]:
    """What a row of ``results.jsonl`` says of the prompt and the number of its picture."""
    return {
        "index": prompt.index,
        "sample": sample,
        "tag": prompt.metadata.get("tag", ""),
        "prompt": prompt.prompt,
        "relations": [relation.as_list() for relation in prompt.relations],
    }


def _listed(out: Path) -> dict[Key, dict[str, Any]]:
    """Rows of ``results.jsonl`` whose image is there, by prompt and sample; the last of two rows counts.

    Rows without ``scores`` are of a version that did not know the benchmarks' own; their images are made again.
    """
    path = out / "results.jsonl"
    rows = storage.read_jsonl(path) if path.exists() else []
    known = {(int(row["index"]), int(row["sample"])): row for row in rows if "scores" in row}
    return {key: row for key, row in known.items() if image_path(out, *key).is_file()}


def write_rows(out: Path, rows: dict[Key, dict[str, Any]]) -> None:
    """Rewrite ``results.jsonl`` in order, once each."""
    lines = [json.dumps(rows[key], ensure_ascii=False) + "\n" for key in sorted(rows)]
    storage.write_atomic(out / "results.jsonl", "".join(lines))


def png(image: Image) -> bytes:
    """``image`` as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def digest(prompts: Sequence[BenchmarkPrompt]) -> str:
    """SHA-256 of the prompts, their numbers and relations."""
    listed = [[p.index, p.prompt, [relation.as_list() for relation in p.relations]] for p in prompts]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Python's and the libraries' versions, for the summary."""
    return {name: _version(name) for name in LIBRARIES} | {"python": platform.python_version()}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
