"""What ``generate`` does: make images with and without steering, score them, and write images, pages and a report."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from PIL.Image import Image

from learn_to_steer import storage
from learn_to_steer.benchmarks import BenchmarkPrompt
from learn_to_steer.configs import GenerateConfig
from learn_to_steer.errors import DataError, PromptError, UnknownNameError
from learn_to_steer.evaluation import GeneratedImage, Job, Model, Scorer, draw, load_scorer, open_model, png_bytes
from learn_to_steer.evaluation.model import LEARNED
from learn_to_steer.prompts import Relation, analyse, load_nlp, locate, parse
from learn_to_steer.report import LatentTrajectory, ObjectMaps, Panel, comparison_page, draw_maps, object_maps
from learn_to_steer.steering.inputs import check_predicates

log = logging.getLogger(__name__)
Relations = tuple[Relation, ...]
Verdict = dict[str, Any] | None


@dataclass(frozen=True)
class _PromptResult:
    """The images of one prompt.

    Attributes:
        prompt: The prompt.
        relations: What it is steered to; empty for none.
        base: The images without steering.
        steered: Those with steering; empty if nothing is steered.
        verdicts: The scores of each base image and its steered one; None where there is no score.
        maps: The attention maps of the first image; None for a prompt without relations.
    """

    prompt: str
    relations: Relations
    base: list[GeneratedImage]
    steered: list[GeneratedImage]
    verdicts: list[tuple[Verdict, Verdict]]
    maps: ObjectMaps | None


def generate_images(config: GenerateConfig, on_progress: Callable[[int, int], None]) -> list[str]:
    """Make the images of all prompts and write them, with pages and a report, into ``config.out``.

    Args:
        config: The model, its steering and the prompts.
        on_progress: Called after every denoising step with the number of steps done and their total.

    Returns:
        Lines to print: one per image, and where the files are.

    Raises:
        PromptError: A prompt is empty or does not name the given relations, or the loss does not know a relation.
        SteerError: As ``open_model``.
    """
    relations_of_prompts = _relations(config)
    storage.check_folder(config.out)
    model = open_model(config)
    if model.steered:
        check_predicates(model.steered.loss, chain.from_iterable(relations_of_prompts))
    scorer = _scorer(model)
    out = Path(config.out)
    resolved = {"steering": model.steered.config.image_settings()} if model.steered else {}
    storage.write_json(out / "config.json", asdict(config) | {"sampling": model.sampling} | resolved)
    calls = sum(2 if model.steered and relations else 1 for relations in relations_of_prompts)
    counter = _StepCounter(on_progress, calls * model.sampling["num_inference_steps"])
    results = [
        _generate(model, prompt, relations, config, scorer, counter)
        for prompt, relations in zip(config.prompts, relations_of_prompts, strict=True)
    ]
    _write(out, config, model, results)
    return [*_summary_lines(results), f"See {out / 'compare.png'}"]


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


class _StepCounter:
    """Counts denoising steps over several pipeline calls."""

    def __init__(self, on_progress: Callable[[int, int], None], total: int) -> None:
        self._on_progress, self._total, self._done = on_progress, total, 0

    def callback(self, trajectory: LatentTrajectory) -> Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]:
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
    config: GenerateConfig,
    scorer: Scorer | None,
    counter: _StepCounter,
) -> _PromptResult:
    """Make the images of one prompt and score them."""
    jobs = [Job(prompt, relations, index) for index in range(config.images)]
    trajectories = [LatentTrajectory(model.sampling["num_inference_steps"]) for _ in range(2)]
    base = draw(model, jobs, config.seed, steer=False, on_step=counter.callback(trajectories[0]))
    steered: list[GeneratedImage] = []
    maps = None
    if model.steered and relations:
        steered = draw(model, jobs, config.seed, steer=True, on_step=counter.callback(trajectories[1]))
    elif model.steered:
        # There is nothing to steer to, and a steered call would make the same images.
        steered = base
    if relations and trajectories[0].kept:
        first_images = [(trajectory, 0) for trajectory in trajectories if trajectory.kept]
        maps = object_maps(model.pipe, prompt, relations, first_images, model.sampling)
    verdicts = list(
        zip(
            _verdicts(base, prompt, relations, scorer),
            _verdicts(steered, prompt, relations, scorer) if steered else [None] * len(base),
            strict=True,
        )
    )
    return _PromptResult(prompt, relations, base, steered, verdicts, maps)


def _verdicts(images: list[GeneratedImage], prompt: str, relations: Relations, scorer: Scorer | None) -> list[Verdict]:
    """The score of each image; None where the detector does not know the objects."""
    if scorer is None or not relations:
        return [None] * len(images)
    expected = BenchmarkPrompt(0, prompt, relations, {})
    detections = scorer.detect([image.image for image in images], [expected] * len(images))
    try:
        return [scorer.score(expected, boxes) for boxes in detections]
    except UnknownNameError as error:
        log.debug("images are not scored: %s", error)
        return [None] * len(images)


def _write(out: Path, config: GenerateConfig, model: Model, results: list[_PromptResult]) -> None:
    """Write the images, the two pages and the report."""
    report = []
    pages = []
    for p, result in enumerate(results):
        images = []
        for i, (base, verdicts) in enumerate(zip(result.base, result.verdicts, strict=True)):
            entry: dict[str, Any] = {"index": i, "base": f"base-{p:02d}-{i:02d}.png", "base_verdict": verdicts[0]}
            _save(out / entry["base"], base.image)
            if result.steered:
                steered = result.steered[i]
                entry |= {"steered": f"steered-{p:02d}-{i:02d}.png", "steered_verdict": verdicts[1]}
                entry["steering"] = steered.report.as_dict() if steered.report else None
                entry["seconds"] = {"base": base.seconds, "steered": steered.seconds}
                _save(out / entry["steered"], steered.image)
            images.append(entry)
        relations = [relation.as_list() for relation in result.relations]
        report.append({"prompt": result.prompt, "relations": relations, "images": images})
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
        Panel(image.image, _is_correct(verdict), _reason(verdict))
        for image, (verdict, _) in zip(result.base, result.verdicts, strict=True)
    ]
    steered = []
    for image, (_, verdict) in zip(result.steered, result.verdicts, strict=False):
        # Only the learned loss reports true probabilities.
        note = _probabilities(image, result.relations) if loss == LEARNED else ""
        steered.append(Panel(image.image, _is_correct(verdict), note or _reason(verdict)))
    return base, steered


def _is_correct(verdict: Verdict) -> bool | None:
    return None if verdict is None else bool(verdict["correct"])


def _reason(verdict: Verdict) -> str:
    return str(verdict["reason"]) if verdict else ""


def _probabilities(image: GeneratedImage, relations: Relations) -> str:
    """The classifier's probability of each relation, in words."""
    probabilities = image.report.probability if image.report else []
    if len(relations) == 1 and probabilities:
        return f"classifier {probabilities[0]:.0%} sure"
    return ", ".join(f"{' '.join(r.as_list())}: {p:.0%}" for r, p in zip(relations, probabilities, strict=False))


def _first_images(result: _PromptResult) -> list[tuple[str, Image]]:
    """The first base image and the first steered one, with their titles."""
    images = [("base", result.base[0].image)]
    return [*images, ("steered", result.steered[0].image)] if result.steered else images


def _summary_lines(results: list[_PromptResult]) -> list[str]:
    """One line per image: whether it is correct without and with steering, and the iterations it took."""
    lines = []
    for result in results:
        for i, (base, steered) in enumerate(result.verdicts):
            title = f"{result.prompt} ({i + 1})" if len(result.base) > 1 else result.prompt
            facts = []
            if base:
                facts.append(f"base {_in_words(base)}")
            if steered:
                facts.append(f"steered {_in_words(steered)}")
            report = result.steered[i].report if result.steered else None
            if report:
                facts.append(f"{report.passes} iterations")
            lines.append(f"{title}: {', '.join(facts)}" if facts else title)
    return lines


def _in_words(verdict: dict[str, Any]) -> str:
    return "correct" if verdict["correct"] else f"wrong ({verdict['reason']})"


def _save(path: Path, image: Image) -> None:
    storage.write_atomic(path, png_bytes(image))
