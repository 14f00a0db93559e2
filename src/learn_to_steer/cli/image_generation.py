"""What ``generate`` does: make images with and without steering, score them, and write images, pages and a report."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL.Image import Image

from learn_to_steer import storage
from learn_to_steer.benchmarks import BenchmarkPrompt
from learn_to_steer.configs import GenerateConfig
from learn_to_steer.errors import DataError, PromptError, UnknownNameError
from learn_to_steer.evaluation import (
    GeneratedImage,
    Job,
    Model,
    Scorer,
    draw,
    load_scorer,
    open_model,
    png_bytes,
    steerable,
    takes_callback,
)
from learn_to_steer.evaluation.model import LEARNED
from learn_to_steer.families import find
from learn_to_steer.placement import resolve_device
from learn_to_steer.prompts import Relation, analyse, load_nlp, locate, parse
from learn_to_steer.report import LatentTrajectory, ObjectMaps, Panel, comparison_page, draw_maps, object_maps
from learn_to_steer.steering import DetectorVerifier, ImageReport
from learn_to_steer.steering.inputs import select_relations, untaught_words, warn_of_untaught_words
from learn_to_steer.steering.report import CLASSIFIER, LeftOut
from learn_to_steer.steering.tries import UnsteeredPipeline, require_judge
from learn_to_steer.steering.verifiers import default_verifier

log = logging.getLogger(__name__)
Relations = tuple[Relation, ...]
Verdict = dict[str, Any] | None


@dataclass(frozen=True)
class _Seen:
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
        """What was seen: the verdict, or as much as the detector can tell."""
        if self.verdict is not None:
            return "correct" if self.verdict["correct"] else f"wrong ({self.verdict['reason']})"
        parts = {"does not know": self.unknown, "sees": self._objects(True), "sees no": self._objects(False)}
        return "; ".join(f"{verb} {', '.join(names)}" for verb, names in parts.items() if names)

    def _objects(self, state: bool | None) -> list[str]:
        return [name for name, seen in self.details["objects"].items() if seen is state] if self.details else []


@dataclass(frozen=True)
class _PromptResult:
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
    seen: list[tuple[_Seen, _Seen]]
    maps: ObjectMaps | None


def generate_images(config: GenerateConfig, on_progress: Callable[[int, int], None]) -> list[str]:
    """Make the images of all prompts and write them, with pages and a report, into ``config.out``.

    Args:
        config: The model, its steering and the prompts.
        on_progress: Called after every denoising step with the number of steps done and their total.

    Returns:
        Lines to print: one per image, and where the files are.

    Raises:
        PromptError: A prompt is empty or does not name the given relations, or one of these cannot be steered.
        SteerError: As ``open_model``.
    """
    relations_of_prompts = _relations(config)
    storage.check_folder(config.out)
    model = open_model(config)
    # What cannot be steered is reported before the first image.
    divided = [
        steerable(model, prompt, relations, found=not (config.relations or config.strict))
        for prompt, relations in zip(config.prompts, relations_of_prompts, strict=True)
    ]
    warn_of_untaught_words(model.pipe, config.prompts)
    scorer = _scorer(model)
    verifier = _verifier(model, config)
    out = Path(config.out)
    storage.remove_leftovers(out)
    resolved = {"steering": model.steered.config.image_settings()} if model.steered else {}
    storage.write_json(out / "config.json", asdict(config) | {"sampling": model.sampling} | resolved)
    if not takes_callback(model.pipe):
        log.warning(
            "%s takes no callback_on_step_end, so progress is not shown and maps.png is not made",
            type(model.pipe).__name__,
        )
    calls = sum(2 if model.steered and kept else 1 for kept, _ in divided)
    counter = _StepCounter(on_progress, calls * model.sampling["num_inference_steps"])
    results = [
        _generate(model, prompt, relations, *parts, config, scorer, verifier, counter)
        for prompt, relations, parts in zip(config.prompts, relations_of_prompts, divided, strict=True)
    ]
    _write(out, config, model, results)
    return [*_summary_lines(results, config.objective), f"See {out / 'compare.png'}"]


def _relations(config: GenerateConfig) -> list[Relations]:
    """What every prompt is steered to."""
    if not config.prompts:
        raise PromptError("no prompt is given; say what the image shows, e.g. 'a dog to the left of a cat'")
    if config.relations:
        if len(config.prompts) > 1:
            raise PromptError(
                f"--relation is about one prompt, but {len(config.prompts)} are given; run them one by one"
            )
        prompt = config.prompts[0]
        parse(prompt)  # for its errors
        return [tuple(locate(prompt, Relation.from_text(text)) for text in config.relations)]
    nlp = load_nlp(config.nlp) if config.nlp else None
    analyses = [analyse(prompt, nlp=nlp) for prompt in config.prompts]
    for warning in filter(None, (analysis.warning for analysis in analyses)):
        log.warning("%s; correct them with --relation", warning)
    relations_of_prompts = [analysis.relations for analysis in analyses]
    for prompt, relations in zip(config.prompts, relations_of_prompts, strict=True):
        if not relations and config.objective != "none":
            message = f"no spatial relation found in {prompt!r}"
            if config.strict:
                raise PromptError(f"{message}; reword it or give --relation")
            log.warning("%s: its images are not steered; reword it or give --relation", message)
    return relations_of_prompts


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
) -> _PromptResult:
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
            _look(steered, prompt, relations, scorer) if steered else [_Seen()] * len(base),
            strict=True,
        )
    )
    untaught = untaught_words(model.pipe, prompt)
    return _PromptResult(prompt, relations, kept, left_out, untaught, base, steered, seen, maps)


def _look(images: list[GeneratedImage], prompt: str, relations: Relations, scorer: Scorer | None) -> list[_Seen]:
    """What the detector sees in each image."""
    if scorer is None or not relations:
        return [_Seen()] * len(images)
    expected = BenchmarkPrompt(0, prompt, relations, {})
    seen = []
    for boxes in scorer.detect([image.image for image in images], [expected] * len(images)):
        try:
            verdict: Verdict = scorer.score(expected, boxes)
        except UnknownNameError as error:
            log.debug("images are not scored: %s", error)
            verdict = None
        seen.append(_Seen(verdict, scorer.seen(expected, boxes)))
    return seen


def _write(out: Path, config: GenerateConfig, model: Model, results: list[_PromptResult]) -> None:
    """Write the images, the two pages and the report."""
    report = []
    pages = []
    for p, result in enumerate(results):
        images = []
        for i, (base, seen) in enumerate(zip(result.base, result.seen, strict=True)):
            entry: dict[str, Any] = {"index": i, "base": f"base-{p:02d}-{i:02d}.png"}
            entry |= {"base_verdict": seen[0].verdict, "base_seen": seen[0].details}
            _save(out / entry["base"], base.image)
            if result.steered:
                steered = result.steered[i]
                entry |= {"steered": f"steered-{p:02d}-{i:02d}.png", "steered_verdict": seen[1].verdict}
                entry["steered_seen"] = seen[1].details
                entry["steering"] = steered.report.as_dict() if steered.report else None
                entry["seconds"] = {"base": base.seconds, "steered": steered.seconds}
                _save(out / entry["steered"], steered.image)
            elif base.report:  # several tries without steering
                entry["steering"] = base.report.as_dict()
            images.append(entry)
        relations = [relation.as_list() for relation in result.relations]
        notes = {"left_out": [one.as_dict() for one in result.left_out], "untaught_words": list(result.untaught)}
        report.append({"prompt": result.prompt, "relations": relations, **notes, "images": images})
        pages.append((result.prompt, *_panels(result, config.objective)))
    _save(out / "compare.png", comparison_page(pages))
    maps = [(result.prompt, result.maps, _first_images(result)) for result in results if result.maps]
    if maps:
        _save(out / "maps.png", draw_maps(maps, model.sampling["num_inference_steps"]))
    facts = {"model": config.model, "seed": config.seed, "sampling": model.sampling, "fingerprints": model.fingerprints}
    storage.write_json(out / "report.json", facts | {"prompts": report})


def _panels(result: _PromptResult, loss: str) -> tuple[list[Panel], list[Panel]]:
    """The base and the steered images of a prompt, as the comparison page shows them."""
    if not result.relations:
        note = "no relation to steer to"
        return [Panel(image.image) for image in result.base], [
            Panel(image.image, note=note) for image in result.steered
        ]
    base = [
        Panel(image.image, seen.correct, _seen_note(seen))
        for image, (seen, _) in zip(result.base, result.seen, strict=True)
    ]
    steered = []
    for image, (_, seen) in zip(result.steered, result.seen, strict=False):
        notes = [_seen_note(seen), _estimate(image, loss)]
        steered.append(Panel(image.image, seen.correct, "; ".join(filter(None, notes))))
    return base, steered


def _seen_note(seen: _Seen) -> str:
    """What the detector sees, if there is one."""
    return "" if seen.details is None else f"detector: {seen.in_words()}"


def _estimate(image: GeneratedImage, loss: str) -> str:
    """The classifier's probability of each relation, in words. It is read off attention maps, not off the image."""
    # Only the learned loss reports true probabilities.
    if loss != LEARNED or image.report is None or not image.report.probability:
        return ""
    return "classifier's estimate " + ", ".join(f"{one:.0%}" for one in image.report.probability)


def _outcome(report: ImageReport) -> str:
    """What the verifier says after the last try."""
    tries = "1 try" if report.tries == 1 else f"{report.tries} tries"
    return f"{'satisfied' if report.satisfied else 'not satisfied'} after {tries} ({report.why})"


def _first_images(result: _PromptResult) -> list[tuple[str, Image]]:
    """The first base image and the first steered one, with their titles."""
    images = [("base", result.base[0].image)]
    return [*images, ("steered", result.steered[0].image)] if result.steered else images


def _summary_lines(results: list[_PromptResult], loss: str) -> list[str]:
    """One line per image: what was seen without and with steering, the iterations, and the classifier's estimate."""
    lines = []
    unchecked = False
    for result in results:
        for i, (base, steered) in enumerate(result.seen):
            title = f"{result.prompt} ({i + 1})" if len(result.base) > 1 else result.prompt
            facts = []
            if base.verdict is not None:
                facts.append(f"base {base.in_words()}")
            if steered.verdict is not None:
                facts.append(f"steered {steered.in_words()}")
            if result.relations and not facts:
                unknown = ", ".join(base.unknown)
                facts.append(f"not checked ({f'the detector does not know {unknown}' if unknown else 'no detector'})")
            if report := (result.steered or result.base)[i].report:
                facts += [f"{report.passes} iterations"] if result.steered else []
                if report.tries > 1 or report.verified_by != CLASSIFIER:
                    facts.append(_outcome(report))
            if estimate := _estimate(result.steered[i], loss) if result.steered else "":
                facts.append(estimate)
                unchecked = unchecked or steered.verdict is None
            lines.append(f"{title}: {', '.join(facts)}" if facts else title)
    if unchecked:
        lines.append("The classifier's estimate is read off attention maps; it does not tell what an image shows.")
    return lines


def _save(path: Path, image: Image) -> None:
    storage.write_atomic(path, png_bytes(image))
