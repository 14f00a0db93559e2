"""Make the images of one prompt, with and without steering, and look at them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from learn_to_steer.benchmarks import BenchmarkPrompt
from learn_to_steer.configs import GenerateConfig
from learn_to_steer.errors import DataError, UnknownNameError
from learn_to_steer.evaluation import (
    GeneratedImage,
    Job,
    Model,
    Scorer,
    draw,
    load_scorer,
    open_model,
    steerable,
    takes_callback,
)
from learn_to_steer.families import find
from learn_to_steer.placement import resolve_device
from learn_to_steer.prompts import Relation
from learn_to_steer.report import LatentTrajectory, ObjectMaps, object_maps
from learn_to_steer.steering import DetectorVerifier
from learn_to_steer.steering.inputs import select_relations, untaught_words, warn_of_untaught_words
from learn_to_steer.steering.report import CLASSIFIER, LeftOut
from learn_to_steer.steering.tries import UnsteeredPipeline, require_judge
from learn_to_steer.steering.verifiers import default_verifier

log = logging.getLogger(__name__)
Relations = tuple[Relation, ...]
Verdict = dict[str, Any] | None


@dataclass(frozen=True)
class Seen:
    """What a detector sees in an image.

    Attributes:
        verdict: The score; None if the detector does not know all objects, or there is none.
        details: For each object whether it is there, and for each relation whether it holds; see ``Scorer.seen``. None
            without a detector.
    """

    verdict: Verdict = None
    details: dict[str, Any] | None = None

    @property
    def correct(self) -> bool | None:
        """Whether the image is correct; None if it was not scored."""
        return None if self.verdict is None else bool(self.verdict["correct"])

    @property
    def unknown(self) -> list[str]:
        """The objects that the detector does not know."""
        return self._objects(None)

    def in_words(self) -> str:
        """Return what was seen: the verdict, or as much as the detector can tell."""
        if self.verdict is not None:
            return "correct" if self.verdict["correct"] else f"wrong ({self.verdict['reason']})"
        parts = {"does not know": self.unknown, "sees": self._objects(True), "sees no": self._objects(False)}
        return "; ".join(f"{verb} {', '.join(names)}" for verb, names in parts.items() if names)

    def _objects(self, state: bool | None) -> list[str]:
        return [name for name, seen in self.details["objects"].items() if seen is state] if self.details else []


@dataclass(frozen=True)
class PromptResult:
    """The images of one prompt.

    Attributes:
        prompt: The prompt.
        relations: Its relations; empty for none.
        kept: Those that it is steered to.
        left_out: Those that cannot be steered.
        untaught: The words that the model was never taught.
        base: The images without steering.
        steered: Those with steering; empty if nothing is steered.
        seen: What the detector sees in each base image and its steered one.
        maps: The attention maps of the first image; None for a prompt without relations.
    """

    prompt: str
    relations: Relations
    kept: Relations
    left_out: tuple[LeftOut, ...]
    untaught: tuple[str, ...]
    base: list[GeneratedImage]
    steered: list[GeneratedImage]
    seen: list[tuple[Seen, Seen]]
    maps: ObjectMaps | None


class ImageMaker:
    """Makes the images of the prompts of ``generate``, in this process or in that of a worker.

    Args:
        config: The model, its steering and the prompts.
        relations: The relations of every prompt.

    Raises:
        PromptError: A relation that was given cannot be steered.
        SteerError: As ``open_model``.
    """

    def __init__(self, config: GenerateConfig, relations: Sequence[Relations]) -> None:
        self._config, self._relations = config, relations
        self._model = open_model(config)
        # What cannot be steered is reported before the first image.
        self._divided = [
            steerable(self._model, prompt, its, found=not (config.relations or config.strict))
            for prompt, its in zip(config.prompts, relations, strict=True)
        ]
        warn_of_untaught_words(self._model.pipe, config.prompts)
        if not takes_callback(self._model.pipe):
            log.warning(
                "%s takes no callback_on_step_end, so progress is not shown and maps.png is not made",
                type(self._model.pipe).__name__,
            )
        self._scorer, self._verifier = _scorer(self._model), _verifier(self._model, config)
        self._counter = _StepCounter(lambda done, total: None, 0)

    def describe(self) -> ModelFacts:
        """Return what is written about the model."""
        model, steered = self._model, self._model.steered
        calls = [2 if steered and kept else 1 for kept, _ in self._divided]
        steering = steered.config.image_settings() if steered else None
        return ModelFacts(model.sampling, model.fingerprints, steering, calls)

    def count(self, on_progress: Callable[[int, int], None]) -> None:
        """Call ``on_progress`` after every denoising step with the number of steps done and their total."""
        self._counter = _StepCounter(on_progress, self.describe().steps)

    def make(self, number: int) -> PromptResult:
        """Return the images of the prompt with this number."""
        return _generate(
            self._model,
            self._config.prompts[number],
            self._relations[number],
            *self._divided[number],
            self._config,
            self._scorer,
            self._verifier,
            self._counter,
        )


@dataclass(frozen=True)
class ModelFacts:
    """What is written about a model.

    Attributes:
        sampling: The arguments of every pipeline call.
        fingerprints: Short hashes of the weights.
        steering: The settings of the steering; None without it.
        calls: The number of pipeline calls of every prompt.
    """

    sampling: dict[str, Any]
    fingerprints: dict[str, str]
    steering: dict[str, Any] | None
    calls: list[int]

    @property
    def steps(self) -> int:
        """The number of denoising steps of all calls."""
        return sum(self.calls) * int(self.sampling["num_inference_steps"])


def _scorer(model: Model) -> Scorer | None:
    """A scorer with the model's own detector; None for models that have none."""
    if model.variant.detector is None:
        return None
    try:
        return load_scorer(model.variant.detector)
    except DataError as error:
        log.debug("images are not scored: %s", error)
        return None


def _verifier(model: Model, config: GenerateConfig) -> DetectorVerifier | str | None:
    """What looks at finished images: a detector, the classifier's last look, or nothing.

    Raises UnsupportedError if nothing can judge them.
    """
    name = config.verifier or (default_verifier(model.variant) if config.tries > 1 else None)
    if name == CLASSIFIER:
        require_judge(model.steered or UnsteeredPipeline(model.pipe))
    if name is None or name == CLASSIFIER:
        return name
    detector = load_scorer(name, resolve_device(config.device))
    return DetectorVerifier(detector.detector, detector.vocabulary)


class _Trajectories:
    """Keeps the latents of every try of a pipeline call: a ``callback_on_step_end``."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._tries: list[LatentTrajectory] = []

    def __call__(self, pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        if step == 0:
            self._tries.append(LatentTrajectory(self._steps))
        return self._tries[-1](pipe, step, timestep, values)

    def of_first(self, images: list[GeneratedImage]) -> LatentTrajectory:
        """That of the try of the first image that was kept; it is the first of its call, too."""
        report = images[0].report if images else None
        return self._tries[report.kept_try if report else 0] if self._tries else LatentTrajectory(self._steps)


class _StepCounter:
    """Counts denoising steps over several pipeline calls."""

    def __init__(self, on_progress: Callable[[int, int], None], total: int) -> None:
        self._on_progress, self._total, self._done = on_progress, total, 0

    def callback(self, trajectory: _Trajectories) -> Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]:
        """A ``callback_on_step_end`` that counts the step and hands it on to ``trajectory``."""

        def on_step_end(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            self._done += 1
            self._on_progress(min(self._done, self._total), self._total)
            return trajectory(pipe, step, timestep, values)

        return on_step_end


def _generate(
    model: Model,
    prompt: str,
    relations: Relations,
    kept: Relations,
    left_out: tuple[LeftOut, ...],
    config: GenerateConfig,
    scorer: Scorer | None,
    verifier: DetectorVerifier | str | None,
    counter: _StepCounter,
) -> PromptResult:
    """Make the images of one prompt and score them."""
    jobs = [Job(prompt, kept, index, left_out) for index in range(config.images)]
    several: dict[str, Any] = {"tries": config.tries, "verifier": verifier}
    latents = [_Trajectories(model.sampling["num_inference_steps"]) for _ in range(2)]
    # Beside steered images the base is one try: the same noise without steering.
    once = {} if model.steered else several
    base = draw(model, jobs, config.seed, steer=False, on_step=counter.callback(latents[0]), **once)
    steered: list[GeneratedImage] = []
    maps = None
    if model.steered and kept:
        steered = draw(model, jobs, config.seed, steer=True, on_step=counter.callback(latents[1]), **several)
    elif model.steered:
        # There is nothing to steer to, and a steered call would make the same images.
        steered = base
    # Without steering, too, only objects within the text that the model reads have maps.
    shown, _ = select_relations(model.pipe, find(model.pipe), None, prompt, kept, model.sampling)
    trajectories = [one.of_first(images) for one, images in zip(latents, (base, steered), strict=True)]
    if shown and trajectories[0].kept:
        first_images = [(trajectory, 0) for trajectory in trajectories if trajectory.kept]
        maps = object_maps(model.pipe, prompt, shown, first_images, model.sampling)
    seen = list(
        zip(
            _look(base, prompt, relations, scorer),
            _look(steered, prompt, relations, scorer) if steered else [Seen()] * len(base),
            strict=True,
        )
    )
    untaught = untaught_words(model.pipe, prompt)
    return PromptResult(prompt, relations, kept, left_out, untaught, base, steered, seen, maps)


def _look(images: list[GeneratedImage], prompt: str, relations: Relations, scorer: Scorer | None) -> list[Seen]:
    """What the detector sees in each image."""
    if scorer is None or not relations:
        return [Seen()] * len(images)
    expected = BenchmarkPrompt(0, prompt, relations, {})
    seen = []
    for boxes in scorer.detect([image.image for image in images], [expected] * len(images)):
        try:
            verdict: Verdict = scorer.score(expected, boxes)
        except UnknownNameError as error:
            log.debug("images are not scored: %s", error)
            verdict = None
        seen.append(Seen(verdict, scorer.seen(expected, boxes)))
    return seen
