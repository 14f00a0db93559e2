"""Generate and score the batches of an evaluation, in this process or in that of a worker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from learn_to_steer import storage
from learn_to_steer.benchmarks import BenchmarkPrompt, Rule
from learn_to_steer.configs import EvaluateConfig
from learn_to_steer.evaluation.generation import GeneratedImage, Job, draw, steerable
from learn_to_steer.evaluation.image_folders import PromptImage, metadata_path
from learn_to_steer.evaluation.map_keeping import MapKeeper
from learn_to_steer.evaluation.model import Model, open_model
from learn_to_steer.evaluation.noise_refinement import draw_refined, is_unified_loss
from learn_to_steer.evaluation.prompt_selection import PromptSelection
from learn_to_steer.evaluation.results import Key, Row, prompt_fields
from learn_to_steer.evaluation.scoring import Scorer, load_scorer, require_finite, require_repeatable
from learn_to_steer.evaluation.verifier_choice import find_verifier
from learn_to_steer.image_files import png_bytes
from learn_to_steer.placement import resolve_device
from learn_to_steer.result_rows import image_path
from learn_to_steer.steering import DetectorVerifier
from learn_to_steer.steering.report import CLASSIFIER
from learn_to_steer.steering.tries import UnsteeredPipeline, require_judge


@dataclass(frozen=True)
class Evaluation:
    """What every batch of one evaluation needs."""

    config: EvaluateConfig
    model: Model
    scorer: Scorer
    verifier: Scorer | None
    rule: Rule
    jobs: Mapping[int, Job]  # by number of the prompt: what its images are steered to
    maps: MapKeeper

    @property
    def out(self) -> Path:
        """The folder of the results."""
        return Path(self.config.out)

    def resolved(self) -> dict[str, Any]:
        """Return the settings in effect, and the identities of the model and the detectors."""
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

    def run_batch(self, batch: Sequence[PromptImage], finished: Set[Key], check_detector: bool) -> Iterator[Row]:
        """Generate and score one batch, save those of its images that are not finished yet, and yield their rows.

        The whole batch is generated: in a smaller one, the images would differ by rounding. A row is yielded after its
        image is written, so an image with a row is complete.

        Args:
            batch: The images of the batch.
            finished: The keys of images that are finished.
            check_detector: Whether to check that the detector sees the same in the same image.

        Yields:
            The rows of the images that are new.
        """
        jobs = [replace(self.jobs[prompt.index], index=sample) for prompt, sample, _ in batch]
        seed = self.config.seed
        trajectory = self.maps.trajectory(batch)
        if self.verifier and is_unified_loss(self.config.objective):
            generated = draw_refined(self.model, self.verifier, jobs, seed)
        else:
            detector = DetectorVerifier(self.verifier.detector, self.verifier.vocabulary) if self.verifier else None
            verifier = detector or self.config.verifier
            several: dict[str, Any] = {"tries": self.config.tries, "verifier": verifier}
            generated = draw(self.model, jobs, seed, steer=True, on_step=trajectory, **several)
            self.maps.keep(batch, jobs, trajectory)
        if check_detector:
            require_repeatable(self.scorer, generated[0].image, batch[0].prompt)
        detected = self.scorer.detect([one.image for one in generated], [target.prompt for target in batch])
        for detections in detected:
            require_finite(detections)
        for target, job, one, detections in zip(batch, jobs, generated, detected, strict=True):
            if target.key in finished:
                continue
            storage.write_atomic(target.path, png_bytes(one.image))
            write_metadata(target)
            score = self.scorer.score(target.prompt, detections, self.rule, one.image.size)
            left_out = {"left_out": [relation.as_dict() for relation in job.left_out]} if job.left_out else {}
            yield prompt_fields(target.prompt, target.sample) | _cost(one) | left_out | score


class BatchWork(NamedTuple):
    """What a worker needs to know of a batch: the settings of the evaluation, and the arguments of ``run_batch``."""

    config: EvaluateConfig
    keys: Sequence[Key]
    finished: Set[Key]
    check_detector: bool


class EvaluationWorker:
    """Generates and scores batches of evaluations in a process of its own."""

    def __init__(self, config: EvaluateConfig, pipe: Any = None) -> None:
        """Open the model and the detectors.

        Args:
            config: The settings, with the names of the detectors resolved.
            pipe: The pipeline, as ``load_pipeline`` returns it. None: the one that ``config`` names.
        """
        self._pipe = pipe
        self._open(config)

    def describe(self) -> dict[str, Any]:
        """Return the settings in effect."""
        return self._evaluation.resolved()

    def resolved(self, config: EvaluateConfig) -> dict[str, Any]:
        """Return the settings in effect in another evaluation, which is opened."""
        if config != self._config:
            self._open(config)
        return self.describe()

    def run_batch(self, work: BatchWork) -> list[Row]:
        """Return the rows of a batch."""
        if work.config != self._config:
            self._open(work.config)
        out = self._evaluation.out
        batch = [PromptImage(self._prompts[index], n, image_path(out, index, n)) for index, n in work.keys]
        return list(self._evaluation.run_batch(batch, work.finished, work.check_detector))

    def _open(self, config: EvaluateConfig) -> None:
        model = open_model(config, self._pipe) if self._pipe is not None else None
        self._evaluation, prompts = open_evaluation(config, resolve_device(config.device), model)
        self._config, self._prompts = config, {prompt.index: prompt for prompt in prompts}


def prompt_selection(config: EvaluateConfig) -> PromptSelection:
    """Return how ``config`` chooses its prompts."""
    return PromptSelection(config.benchmark, config.prompts, config.data, config.limit, config.seed)


def open_evaluation(
    config: EvaluateConfig,
    device: str,
    model: Model | None = None,
    scorer: Scorer | None = None,
    verifier: Scorer | None = None,
) -> tuple[Evaluation, list[BenchmarkPrompt]]:
    """Load what the batches need, and check what can be checked before the first image.

    Args:
        config: The settings, with the names of the detectors resolved.
        device: The device of the detectors.
        model: The model, instead of the one that ``config`` names.
        scorer: The detector that scores, instead of the one that ``config`` names.
        verifier: The detector that looks at finished images, instead of the one that ``config`` names.

    Returns:
        What the batches need, and the prompts.

    Raises:
        SteerError: As in ``evaluate``.
    """
    scorer = scorer or load_scorer(config.detector or "", device)
    selection = prompt_selection(config)
    prompts = selection.select(scorer)
    verifier = find_verifier(config.verifier, prompts, device, verifier)
    model = model or open_model(config)
    if config.verifier == CLASSIFIER:
        require_judge(model.steered or UnsteeredPipeline(model.pipe))
    # A relation that cannot be steered is reported before the first image.
    jobs = {
        prompt.index: Job(prompt.prompt, kept, 0, left_out)
        for prompt in prompts
        for kept, left_out in [steerable(model, prompt.prompt, prompt.relations, found=prompt.parsed)]
    }
    maps = MapKeeper(config, model, prompts)
    return Evaluation(config, model, scorer, verifier, selection.rule(scorer), jobs, maps), prompts


def write_metadata(target: PromptImage) -> None:
    """Write the line that GenEval's layout has for each prompt, unless it is there."""
    path = metadata_path(target.path)
    line = storage.jsonl_line(target.prompt.metadata)
    if not path.is_file() or path.read_bytes() != line:
        storage.write_atomic(path, line)


def _cost(generated: GeneratedImage) -> Row:
    """The part of a row about steering and time."""
    report = generated.report
    judged = {"why": report.why} if report and report.satisfied is not None else {}
    return {
        "passes": report.passes if report else 0,
        "checks": report.checks if report else 0,
        "converged": bool(report and report.converged),
        "probability": report.probability if report else [],
        "steps": [asdict(step) for step in report.steps] if report else [],
        "note": report.note if report else "",
        "satisfied": report.satisfied if report else None,
        "tries": report.tries if report else 1,
        **judged,
        "seconds": generated.seconds,
    }
