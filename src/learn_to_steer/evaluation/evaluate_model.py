"""Evaluate a model: generate images, score them, summarise. An evaluation that was stopped can be continued."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from learn_to_steer import benchmarks, storage
from learn_to_steer.benchmarks import Rule
from learn_to_steer.configs import EvaluateConfig
from learn_to_steer.distributed import WorkerPool, check_options, open_workers
from learn_to_steer.errors import DataError, UnsupportedError
from learn_to_steer.evaluation.image_batches import (
    BatchWork,
    Evaluation,
    EvaluationWorker,
    open_evaluation,
    prompt_selection,
    write_metadata,
)
from learn_to_steer.evaluation.image_folders import PromptImage
from learn_to_steer.evaluation.model import Model
from learn_to_steer.evaluation.results import (
    Key,
    Row,
    library_versions,
    prompt_fields,
    prompts_digest,
    summarise,
    write_rows,
)
from learn_to_steer.evaluation.run_comparison import compare_runs, load_reference
from learn_to_steer.evaluation.scoring import (
    Scorer,
    default_detector,
    load_scorer,
    require_some,
)
from learn_to_steer.evaluation.verifier_choice import verifier_name
from learn_to_steer.image_files import is_whole
from learn_to_steer.placement import resolve_device
from learn_to_steer.report.evaluation_report import write_report
from learn_to_steer.result_rows import FILE as RESULTS
from learn_to_steer.result_rows import image_path, read_rows, row_key
from learn_to_steer.worker_process import Shard, shard_name

log = logging.getLogger(__name__)
# Rows of an older version lack some of these; their images are generated again.
REQUIRED = {"prompt", "tag", "relations", "correct", "present", "held", "on_axis", "reason", "scores", "boxes"}


def evaluate(
    config: EvaluateConfig,
    on_progress: Callable[[int, int], None] | None = None,
    *,
    model: Model | None = None,
    scorer: Scorer | None = None,
    verifier: Scorer | None = None,
    pool: WorkerPool | None = None,
) -> dict[str, Any]:
    """Evaluate a model on a benchmark or on the user's own prompts.

    Writes ``config.json``, ``images/<index>/metadata.jsonl`` and ``images/<index>/samples/<number>.png`` (GenEval's
    layout), ``results.jsonl`` (a row per image), ``summary.json`` and ``report.html``, a page to look at. Existing
    images with a row are kept. The others are equal, to the bit, to those of an evaluation that was not stopped, unless
    ``batch``, ``images`` or ``limit`` was changed in between.

    Args:
        config: The settings.
        on_progress: Called with the number of finished images and their total.
        model: A model to evaluate instead of the one that ``config`` names, such as one with changed weights. Its
            ``fingerprints`` must tell models apart, since images of different models are not mixed.
        scorer: The detector that scores, instead of the one that ``config`` names.
        verifier: The detector that looks at finished images, instead of the one that ``config`` names.
        pool: Workers with the methods of ``EvaluationWorker``, instead of those that ``config`` names.

    Returns:
        The summary: the values of ``summarise``, the benchmark's own ``metrics``, the settings and versions, and the
        comparison with another run as ``against`` if ``config`` names one.

    Raises:
        DataError: The folder holds another evaluation or damaged files, or the detector is broken.
        UnsupportedError: The verifier is the scorer, nothing judges the images of several tries, or there are workers,
            which cannot be had or are given a loaded model.
        WorkerError: Batches failed on workers.
        PromptError: A relation of the benchmark, or one that a file of prompts gives, cannot be steered.
        SteerError: Anything that ``open_model``, ``load_scorer`` and ``PromptSelection.select`` raise.
    """
    detector = scorer.detector.name if scorer else config.detector or default_detector(config.model)
    config = replace(config, detector=detector)
    config = replace(config, verifier=verifier_name(config, detector.partition(":")[0], verifier))
    # Mistakes in the settings and damaged rows are reported before any weights are loaded.
    if check_options(config, config.device) and (model or scorer or verifier):
        raise UnsupportedError("workers load the model and the detectors by name; leave --workers and --ray out")
    out = Path(config.out)
    storage.check_folder(out)
    read_rows(out)
    selection = prompt_selection(config)
    selection.check()
    # Workers may have GPUs that this process has not.
    device = "cpu" if config.has_workers or pool else resolve_device(config.device)
    scorer = scorer or load_scorer(detector, device)
    prompts = selection.select(scorer)
    reference = load_reference(config.against, config.similarity, config.out, scorer.identity)
    targets = [
        PromptImage(prompt, sample, image_path(out, prompt.index, sample))
        for prompt in prompts
        for sample in range(config.images)
    ]
    run = _Run(config, scorer, selection.rule(scorer), targets, on_progress)
    if pool is not None:
        resolved = pool.ask("resolved", config.in_process())
        _claim_folder(config, resolved)
        run.missing_on(pool)
    elif config.has_workers:
        batches = math.ceil(len(targets) / config.batch)
        with open_workers(config, EvaluationWorker, config.in_process(), device=config.device, most=batches) as own:
            resolved = own.description
            _claim_folder(config, resolved)
            run.missing_on(own)
    else:
        evaluation, _ = open_evaluation(config, device, model, scorer, verifier)
        resolved = evaluation.resolved()
        _claim_folder(config, resolved)
        run.missing(evaluation)
    rows = _finished_rows(out)
    absent = [target.path for target in targets if target.key not in rows]
    if absent:
        raise DataError(
            f"{len(absent)} images have no file or no row after the evaluation (first: {absent[0]}); run it again"
        )
    write_rows(out, rows)
    selected = [rows[target.key] for target in targets]
    boxes = [row["boxes"] for row in selected]
    require_some(scorer, boxes, "or look at the images: perhaps the model draws nothing")
    summary = summarise(selected) | {
        "metrics": benchmarks.metrics(config.benchmark, selected),
        "config": config.as_dict(),
        **resolved,
        "prompts_sha256": prompts_digest(prompts),
        "versions": library_versions(),
    }
    if reference:
        summary["against"] = compare_runs(targets, selected, reference, device)
    storage.write_json(out / "summary.json", summary)
    write_report(out)
    return summary


@dataclass(frozen=True)
class _Run:
    """Generates and scores the images that do not exist yet or have no row, in the batches of all images."""

    config: EvaluateConfig
    scorer: Scorer
    rule: Rule
    targets: Sequence[PromptImage]
    on_progress: Callable[[int, int], None] | None

    def missing(self, evaluation: Evaluation) -> None:
        """Run the batches one after another in this process."""
        rows = self._rows()
        done = len(rows)
        for number, batch in enumerate(self._batches(rows)):
            self._report(done)
            for row in evaluation.run_batch(batch, rows.keys(), check_detector=not rows and number == 0):
                storage.append_jsonl(evaluation.out / RESULTS, row)
                done += 1
        self._end()

    def missing_on(self, pool: WorkerPool) -> None:
        """Run the batches as shards on workers. Rows are written here, by one process, when their batch is done."""
        rows, config = self._rows(), self.config.in_process()
        out, done = Path(config.out), len(rows)
        shards = []
        for number, batch in enumerate(self._batches(rows)):
            keys = [target.key for target in batch]
            name = shard_name(config.seed, [[*target.key, target.prompt.prompt] for target in batch])
            about = "images {:05d}/{:04d} to {:05d}/{:04d}".format(*keys[0], *keys[-1])
            work = BatchWork(config, keys, set(keys) & rows.keys(), not rows and number == 0)
            shards.append(Shard(name, about, work))

        def keep(shard: Shard, result: list[Row]) -> None:
            nonlocal done
            for row in result:
                storage.append_jsonl(out / RESULTS, row)
            done += len(result)
            self._report(done)

        self._report(done)
        pool.run(shards, out, keep, method="run_batch")
        _remove_leftovers(out)  # of workers that died
        self._end()

    def _rows(self) -> dict[Key, Row]:
        """The rows of finished images of this run."""
        rows = _finished_rows(Path(self.config.out))
        _require_same_prompts(self, rows)
        return {target.key: rows[target.key] for target in self.targets if target.key in rows}

    def _batches(self, rows: Mapping[Key, Row]) -> Iterator[Sequence[PromptImage]]:
        """The batches in which an image is missing."""
        for start in range(0, len(self.targets), self.config.batch):
            batch = self.targets[start : start + self.config.batch]
            if any(target.key not in rows for target in batch):
                yield batch

    def _report(self, done: int) -> None:
        if self.on_progress:
            self.on_progress(done, len(self.targets))

    def _end(self) -> None:
        for target in self.targets:
            write_metadata(target)
        self._report(len(self.targets))


def _claim_folder(config: EvaluateConfig, resolved: dict[str, Any]) -> None:
    """Write ``config.json``; DataError if the folder already holds an evaluation with other settings."""
    out = Path(config.out)
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
    _remove_leftovers(out)
    storage.write_json(path, config.as_dict() | resolved)


def _remove_leftovers(out: Path) -> None:
    storage.remove_leftovers(out, *out.glob("images/*"), *out.glob("images/*/samples"))


def _require_same_prompts(run: _Run, rows: Mapping[Key, Row]) -> None:
    """Raise DataError if rows have other prompts, such as those of a prompt file that was edited since, or scores."""
    out = Path(run.config.out)
    for target in run.targets:
        row, fields = rows.get(target.key), prompt_fields(target.prompt, target.sample)
        if row is None:
            continue
        if (row["prompt"], row["relations"]) != (fields["prompt"], fields["relations"]):
            raise DataError(
                f"{out} holds images of other prompts (number {row['index']} was {row['prompt']!r}, "
                f"now {fields['prompt']!r}); choose another --out or remove the folder"
            )
        names = run.scorer.score(target.prompt, [], run.rule)["scores"].keys()
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
