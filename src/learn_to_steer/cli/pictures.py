"""What ``generate`` does: draw, steer, judge, and lay out the pages."""

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
from learn_to_steer.prompts import Relation, load_nlp, locate, parse
from learn_to_steer.report import LatentTrajectory, ObjectMaps, Panel, comparison_page, draw_maps, object_maps
from learn_to_steer.steering.inputs import check_predicates

log = logging.getLogger(__name__)
Relations = tuple[Relation, ...]
Verdict = dict[str, Any] | None


@dataclass(frozen=True)
class _Drawn:
    """One prompt done: pictures and verdicts, image by image, and the maps of the first image."""

    prompt: str
    relations: Relations
    base: list[GeneratedImage]
    steered: list[GeneratedImage]
    verdicts: list[tuple[Verdict, Verdict]]
    maps: ObjectMaps | None


def make_pictures(config: GenerateConfig, on_progress: Callable[[int, int], None]) -> list[str]:
    """Write everything into ``config.out``; lines that say what came of it.

    ``on_progress`` is told how many denoising steps are done, of how many. Raises PromptError for prompts and
    relations, and the errors of ``open_model``.
    """
    asked = _relations(config)
    storage.check_folder(config.out)
    model = open_model(config)
    if model.steered:
        check_predicates(model.steered.objective, chain.from_iterable(asked))
    detector = _detector(model)
    out = Path(config.out)
    resolved = {"steering": model.steered.config.image_settings()} if model.steered else {}
    storage.write_json(out / "config.json", asdict(config) | {"sampling": model.sampling} | resolved)
    calls = sum(2 if model.steered and relations else 1 for relations in asked)
    ticker = _Ticker(on_progress, calls * model.sampling["num_inference_steps"])
    drawn = [
        _draw(model, prompt, relations, config, detector, ticker)
        for prompt, relations in zip(config.prompts, asked, strict=True)
    ]
    _write(out, config, model, drawn)
    return [*_lines(drawn), f"Look at {out / 'compare.png'}"]


def _relations(config: GenerateConfig) -> list[Relations]:
    """What every prompt is steered to."""
    if not config.prompts:
        raise PromptError("no prompt is given; say what to draw, e.g. 'a dog to the left of a cat'")
    if config.relations:
        if len(config.prompts) > 1:
            raise PromptError(
                f"--relation is about one prompt, but {len(config.prompts)} are given; run them one by one"
            )
        prompt = config.prompts[0]
        parse(prompt)
        return [tuple(locate(prompt, Relation.from_text(text)) for text in config.relations)]
    nlp = load_nlp(config.nlp) if config.nlp else None
    found = [parse(prompt, nlp=nlp) for prompt in config.prompts]
    for prompt, relations in zip(config.prompts, found, strict=True):
        if not relations and config.objective != "none":
            message = f"no spatial relation found in {prompt!r}"
            if config.strict:
                raise PromptError(f"{message}; reword it or give --relation")
            log.warning("%s: it is drawn unsteered; reword it or give --relation", message)
    return found


def _detector(model: Model) -> Scorer | None:
    """The scorer for the frames' colours, where a detector is known that knows all that the model draws."""
    if model.variant.detector is None:
        return None
    try:
        return load_scorer(model.variant.detector)
    except DataError as error:
        log.debug("pictures are not judged: %s", error)
        return None


class _Ticker:
    """Counts denoising steps over several pipeline calls."""

    def __init__(self, on_progress: Callable[[int, int], None], total: int) -> None:
        self._on_progress, self._total, self._done = on_progress, total, 0

    def watching(self, trace: LatentTrajectory) -> Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]:
        def on_step(pipe: Any, step: int, time: Any, values: dict[str, Any]) -> dict[str, Any]:
            self._done += 1
            self._on_progress(min(self._done, self._total), self._total)
            return trace(pipe, step, time, values)

        return on_step


def _draw(
    model: Model, prompt: str, relations: Relations, config: GenerateConfig, detector: Scorer | None, ticker: _Ticker
) -> _Drawn:
    jobs = [Job(prompt, relations, index) for index in range(config.images)]
    traces = [LatentTrajectory(model.sampling["num_inference_steps"]) for _ in range(2)]
    base = draw(model, jobs, config.seed, steer=False, on_step=ticker.watching(traces[0]))
    steered: list[GeneratedImage] = []
    maps = None
    if model.steered and relations:
        steered = draw(model, jobs, config.seed, steer=True, on_step=ticker.watching(traces[1]))
    elif model.steered:
        # Nothing to steer to: the steered call would give the very same pictures.
        steered = base
    if relations and traces[0].kept:
        rows = [(trace, 0) for trace in traces if trace.kept]
        maps = object_maps(model.pipe, prompt, relations, rows, model.sampling)
    verdicts = list(
        zip(
            _verdicts(base, prompt, relations, detector),
            _verdicts(steered, prompt, relations, detector) if steered else [None] * len(base),
            strict=True,
        )
    )
    return _Drawn(prompt, relations, base, steered, verdicts, maps)


def _verdicts(
    pictures: list[GeneratedImage], prompt: str, relations: Relations, detector: Scorer | None
) -> list[Verdict]:
    """What the detector says of each picture; None where it cannot tell."""
    if detector is None or not relations:
        return [None] * len(pictures)
    wanted = BenchmarkPrompt(0, prompt, relations, {})
    found = detector.detect([picture.image for picture in pictures], [wanted] * len(pictures))
    try:
        return [detector.score(wanted, boxes) for boxes in found]
    except UnknownNameError as error:
        log.debug("pictures are not judged: %s", error)
        return [None] * len(pictures)


def _write(out: Path, config: GenerateConfig, model: Model, drawn: list[_Drawn]) -> None:
    report = []
    pages = []
    for p, done in enumerate(drawn):
        images = []
        for i, (base, verdicts) in enumerate(zip(done.base, done.verdicts, strict=True)):
            entry: dict[str, Any] = {"index": i, "base": f"base-{p:02d}-{i:02d}.png", "base_verdict": verdicts[0]}
            _save(out / entry["base"], base.image)
            if done.steered:
                steered = done.steered[i]
                entry |= {"steered": f"steered-{p:02d}-{i:02d}.png", "steered_verdict": verdicts[1]}
                entry["steering"] = steered.report.as_dict() if steered.report else None
                entry["seconds"] = {"base": base.seconds, "steered": steered.seconds}
                _save(out / entry["steered"], steered.image)
            images.append(entry)
        named = [relation.as_list() for relation in done.relations]
        report.append({"prompt": done.prompt, "relations": named, "images": images})
        pages.append((done.prompt, *_columns(done, config.objective)))
    _save(out / "compare.png", comparison_page(pages))
    blocks = [(done.prompt, done.maps, _sides(done)) for done in drawn if done.maps]
    if blocks:
        _save(out / "maps.png", draw_maps(blocks, model.sampling["num_inference_steps"]))
    facts = {"model": config.model, "seed": config.seed, "sampling": model.sampling, "fingerprints": model.fingerprints}
    storage.write_json(out / "report.json", facts | {"prompts": report})


def _columns(done: _Drawn, objective: str) -> tuple[list[Panel], list[Panel]]:
    if not done.relations:
        plain = "no relation to steer to"
        return [Panel(one.image) for one in done.base], [Panel(one.image, note=plain) for one in done.steered]
    base = [
        Panel(picture.image, _correct(verdict), _reason(verdict))
        for picture, (verdict, _) in zip(done.base, done.verdicts, strict=True)
    ]
    sure = objective == LEARNED  # what the others report is no probability
    steered = [
        Panel(picture.image, _correct(verdict), (sure and _sureness(picture, done.relations)) or _reason(verdict))
        for picture, (_, verdict) in zip(done.steered, done.verdicts, strict=False)
    ]
    return base, steered


def _correct(verdict: Verdict) -> bool | None:
    return None if verdict is None else bool(verdict["correct"])


def _reason(verdict: Verdict) -> str:
    return str(verdict["reason"]) if verdict else ""


def _sureness(picture: GeneratedImage, relations: Relations) -> str:
    """How sure the classifier is of each relation, in words."""
    sure = picture.report.probability if picture.report else []
    if len(relations) == 1 and sure:
        return f"classifier {sure[0]:.0%} sure"
    return ", ".join(f"{' '.join(r.as_list())}: {p:.0%}" for r, p in zip(relations, sure, strict=False))


def _sides(done: _Drawn) -> list[tuple[str, Image]]:
    pictures = [("base", done.base[0].image)]
    return [*pictures, ("steered", done.steered[0].image)] if done.steered else pictures


def _lines(drawn: list[_Drawn]) -> list[str]:
    """One line an image: right or wrong, before and after, and what steering took."""
    lines = []
    for done in drawn:
        for i, (base, steered) in enumerate(done.verdicts):
            words = [f"{done.prompt} ({i + 1})" if len(done.base) > 1 else done.prompt]
            if base:
                words.append(f"base {_word(base)}")
            if steered:
                words.append(f"steered {_word(steered)}")
            report = done.steered[i].report if done.steered else None
            if report:
                words.append(f"{report.passes} passes")
            lines.append(words[0] + (f": {', '.join(words[1:])}" if words[1:] else ""))
    return lines


def _word(verdict: dict[str, Any]) -> str:
    return "right" if verdict["correct"] else f"wrong ({verdict['reason']})"


def _save(path: Path, picture: Image) -> None:
    storage.write_atomic(path, png_bytes(picture))
