"""Evaluate a model: generate images, score them, summarise. An evaluation that was stopped can be continued."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from learn_to_steer import benchmarks, storage
from learn_to_steer.benchmarks import Rule
from learn_to_steer.configs import EvaluateConfig
from learn_to_steer.errors import DataError
from learn_to_steer.evaluation.generation import GeneratedImage, Job, draw, steerable
from learn_to_steer.evaluation.image_folders import PromptImage, image_path, metadata_path
from learn_to_steer.evaluation.model import Model, open_model
from learn_to_steer.evaluation.noise_refinement import draw_refined, is_unified_loss
from learn_to_steer.evaluation.prompt_selection import PromptSelection
from learn_to_steer.evaluation.results import (
    Key,
    Row,
    library_versions,
    prompt_fields,
    prompts_digest,
    row_key,
    summarise,
    write_rows,
)
from learn_to_steer.evaluation.run_comparison import compare_runs, load_reference
from learn_to_steer.evaluation.scoring import (
    Scorer,
    default_detector,
    load_scorer,
    require_finite,
    require_repeatable,
    require_some,
)
from learn_to_steer.evaluation.verifier_choice import find_verifier, verifier_name
from learn_to_steer.image_files import is_whole, png_bytes
from learn_to_steer.placement import resolve_device
from learn_to_steer.result_rows import FILE as RESULTS
from learn_to_steer.result_rows import read_rows
from learn_to_steer.steering import DetectorVerifier
from learn_to_steer.steering.report import CLASSIFIER
from learn_to_steer.steering.tries import UnsteeredPipeline, require_judge

log = logging.getLogger(__name__)
# Rows of an older version lack some of these; their images are generated again.
REQUIRED = {"prompt", "tag", "relations", "correct", "present", "held", "on_axis", "reason", "scores", "boxes"}


@dataclass(frozen=True)
class _Evaluation:
    """What every batch of one evaluation needs."""

    config: EvaluateConfig
    model: Model
    scorer: Scorer
    verifier: Scorer | None
    rule: Rule
    jobs: Mapping[int, Job]  # by number of the prompt: what its images are steered to

    @property
    def out(self) -> Path:
        return Path(self.config.out)

    def resolved(self) -> dict[str, Any]:
        """The settings in effect, and the identities of the model and the detectors."""
        steered = self.model.steered
        return {
            "sampling": self.model.sampling,
            "fingerprints": self.model.fingerprints,
            "judged_by": self.scorer.identity,
            **({"steering": steered.config.image_settings()} if steered else {}),
            **({"verified_by": identity} if (identity := self._verified_by()) else {}),
        }

    def _verified_by(self) -> dict[str, Any] | None:
        """The identity of the verifier; None if nothing looks at the images."""
        if self.verifier:
            return self.verifier.identity
        return {"name": CLASSIFIER} if self.config.verifier else None

    def run_batch(self, batch: Sequence[PromptImage], finished: Set[Key], check_detector: bool) -> None:
        """Generate and score one batch, and save those of its images that are not finished yet.

        The whole batch is generated: in a smaller one, the images would differ by rounding. A row is written after its
        image, so an image with a row is complete.
        """
        jobs = [replace(self.jobs[prompt.index], index=sample) for prompt, sample, _ in batch]
        seed = self.config.seed
        if self.verifier and is_unified_loss(self.config.objective):
            generated = draw_refined(self.model, self.verifier, jobs, seed)
        else:
            detector = DetectorVerifier(self.verifier.detector, self.verifier.vocabulary) if self.verifier else None
            verifier = detector or self.config.verifier
            generated = draw(self.model, jobs, seed, steer=True, tries=self.config.tries, verifier=verifier)
        if check_detector:
            require_repeatable(self.scorer, generated[0].image, batch[0].prompt)
        detected = self.scorer.detect([one.image for one in generated], [target.prompt for target in batch])
        for detections in detected:
            require_finite(detections)
        for target, job, one, detections in zip(batch, jobs, generated, detected, strict=True):
            if target.key in finished:
                continue
            storage.write_atomic(target.path, png_bytes(one.image))
            _write_metadata(target)
            score = self.scorer.score(target.prompt, detections, self.rule, one.image.size)
            left_out = {"left_out": [relation.as_dict() for relation in job.left_out]} if job.left_out else {}
            row = prompt_fields(target.prompt, target.sample) | _cost(one) | left_out | score
            storage.append_jsonl(self.out / RESULTS, row)


def evaluate(
    config: EvaluateConfig,
    on_progress: Callable[[int, int], None] | None = None,
    *,
    model: Model | None = None,
    scorer: Scorer | None = None,
    verifier: Scorer | None = None,
) -> dict[str, Any]:
    """Evaluate a model on a benchmark or on the user's own prompts.

    Writes ``config.json``, ``images/<index>/metadata.jsonl`` and ``images/<index>/samples/<number>.png`` (GenEval's
    layout), ``results.jsonl`` (a row per image) and ``summary.json``. Existing images with a row are kept. The others
    are equal, to the bit, to those of an evaluation that was not stopped, unless ``batch``, ``images`` or ``limit`` was
    changed in between.

    Args:
        config: The settings.
        on_progress: Called with the number of finished images and their total.
        model: A model to evaluate instead of the one that ``config`` names, such as one with changed weights. Its
            ``fingerprints`` must tell models apart, since images of different models are not mixed.
        scorer: The detector that scores, instead of the one that ``config`` names.
        verifier: The detector that looks at finished images, instead of the one that ``config`` names.

    Returns:
        The summary: the values of ``summarise``, the benchmark's own ``metrics``, the settings and versions, and the
        comparison with another run as ``against`` if ``config`` names one.

    Raises:
        DataError: The folder holds another evaluation or damaged files, or the detector is broken.
        UnsupportedError: The verifier is the scorer, or nothing judges the images of several tries.
        PromptError: A relation of the benchmark, or one that a file of prompts gives, cannot be steered.
        SteerError: Anything that ``open_model``, ``load_scorer`` and ``PromptSelection.select`` raise.
    """
    detector = scorer.detector.name if scorer else config.detector or default_detector(config.model)
    config = replace(config, detector=detector)
    config = replace(config, verifier=verifier_name(config, detector.partition(":")[0], verifier))
    # Mistakes in the settings and damaged rows are reported before any weights are loaded.
    storage.check_folder(config.out)
    read_rows(Path(config.out))
    selection = PromptSelection(config.benchmark, config.prompts, config.data, config.limit, config.seed)
    selection.check()
    device = resolve_device(config.device)
    scorer = scorer or load_scorer(detector, device)
    prompts = selection.select(scorer)
    reference = load_reference(config.against, config.similarity, config.out, scorer.identity)
    verifier = find_verifier(config.verifier, prompts, device, verifier)
    rule = selection.rule(scorer)
    model = model or open_model(config)
    if config.verifier == CLASSIFIER:
        require_judge(model.steered or UnsteeredPipeline(model.pipe))
    # A relation that cannot be steered is reported before the first image.
    jobs = {
        prompt.index: Job(prompt.prompt, kept, 0, left_out)
        for prompt in prompts
        for kept, left_out in [steerable(model, prompt.prompt, prompt.relations, found=prompt.parsed)]
    }
    evaluation = _Evaluation(config, model, scorer, verifier, rule, jobs)
    _claim_folder(evaluation)
    targets = [
        PromptImage(prompt, sample, image_path(evaluation.out, prompt.index, sample))
        for prompt in prompts
        for sample in range(config.images)
    ]
    _run_missing(evaluation, targets, on_progress)
    rows = _finished_rows(evaluation.out)
    absent = [target.path for target in targets if target.key not in rows]
    if absent:
        raise DataError(
            f"{len(absent)} images have no file or no row after the evaluation (first: {absent[0]}); run it again"
        )
    write_rows(evaluation.out, rows)
    selected = [rows[target.key] for target in targets]
    boxes = [row["boxes"] for row in selected]
    require_some(scorer, boxes, "or look at the images: perhaps the model draws nothing")
    summary = summarise(selected) | {
        "metrics": benchmarks.metrics(config.benchmark, selected),
        "config": config.as_dict(),
        **evaluation.resolved(),
        "prompts_sha256": prompts_digest(prompts),
        "versions": library_versions(),
    }
    if reference:
        summary["against"] = compare_runs(targets, selected, reference, device)
    storage.write_json(evaluation.out / "summary.json", summary)
    return summary


def _run_missing(
    evaluation: _Evaluation, targets: Sequence[PromptImage], on_progress: Callable[[int, int], None] | None
) -> None:
    """Generate and score the images that do not exist yet or have no row, in the batches of all images."""
    rows = _finished_rows(evaluation.out)
    _require_same_prompts(evaluation, targets, rows)
    done = sum(target.key in rows for target in targets)
    check_detector = not rows
    for start in range(0, len(targets), evaluation.config.batch):
        batch = targets[start : start + evaluation.config.batch]
        missing = sum(target.key not in rows for target in batch)
        if not missing:
            continue
        if on_progress:
            on_progress(done, len(targets))
        evaluation.run_batch(batch, rows.keys(), check_detector)
        done, check_detector = done + missing, False
    for target in targets:
        _write_metadata(target)
    if on_progress:
        on_progress(len(targets), len(targets))


def _write_metadata(target: PromptImage) -> None:
    """Write the line that GenEval's layout has for each prompt, unless it is there."""
    path = metadata_path(target.path)
    line = storage.jsonl_line(target.prompt.metadata)
    if not path.is_file() or path.read_bytes() != line:
        storage.write_atomic(path, line)


def _claim_folder(evaluation: _Evaluation) -> None:
    """Write ``config.json``; DataError if the folder already holds an evaluation with other settings."""
    out, config, resolved = evaluation.out, evaluation.config, evaluation.resolved()
    path = out / "config.json"
    ours = json.loads(json.dumps(config.decisive() | resolved))
    if path.exists():
        theirs = storage.read_json(path, dict[str, Any], "repair it, or remove the folder")
        name = next((name for name in ours if theirs.get(name) != ours[name]), None)
        if name is not None:
            raise DataError(
                f"{out} holds another evaluation ({name} {theirs.get(name)!r}, now {ours[name]!r}); "
                "choose another --out or remove the folder"
            )
    storage.remove_leftovers(out, *out.glob("images/*"), *out.glob("images/*/samples"))
    storage.write_json(path, config.as_dict() | resolved)


def _require_same_prompts(evaluation: _Evaluation, targets: Sequence[PromptImage], rows: dict[Key, Row]) -> None:
    """Raise DataError if rows have other prompts, such as those of a prompt file that was edited since, or scores."""
    out = evaluation.out
    for target in targets:
        row, fields = rows.get(target.key), prompt_fields(target.prompt, target.sample)
        if row is None:
            continue
        if (row["prompt"], row["relations"]) != (fields["prompt"], fields["relations"]):
            raise DataError(
                f"{out} holds images of other prompts (number {row['index']} was {row['prompt']!r}, "
                f"now {fields['prompt']!r}); choose another --out or remove the folder"
            )
        names = evaluation.scorer.score(target.prompt, [], evaluation.rule)["scores"].keys()
        if row["tag"] != fields["tag"] or not names <= row["scores"].keys():
            raise DataError(
                f"{out / RESULTS}: the row of prompt {row['index']}, image {row['sample']}, lacks the tag or a "
                "score of the benchmark; remove the row, and the image is generated again"
            )


def _finished_rows(out: Path) -> dict[Key, Row]:
    """Complete rows of ``results.jsonl`` whose image is whole; of two rows of one image the last."""
    complete = {row_key(row): row for row in read_rows(out) if row.keys() >= REQUIRED}
    finished = {}
    for key, row in complete.items():
        path = image_path(out, *key)
        if is_whole(path):
            finished[key] = row
        elif path.is_file():
            log.warning("the image %s is damaged and is generated again", path)
    return finished


def _cost(generated: GeneratedImage) -> Row:
    """The part of a row about steering and time."""
    report = generated.report
    judged = {"why": report.why} if report and report.satisfied is not None else {}
    return {
        "passes": report.passes if report else 0,
        "checks": report.checks if report else 0,
        "converged": bool(report and report.converged),
        "probability": report.probability if report else [],
        "note": report.note if report else "",
        "satisfied": report.satisfied if report else None,
        "tries": report.tries if report else 1,
        **judged,
        "seconds": generated.seconds,
    }
