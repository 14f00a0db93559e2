"""What ``generate`` does: make images with and without steering, score them, and write images, pages and a report."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL.Image import Image

from learn_to_steer import storage
from learn_to_steer.cli.prompt_images import ImageMaker, ModelFacts, PromptResult, Relations, Seen
from learn_to_steer.configs import GenerateConfig
from learn_to_steer.distributed import WorkerPool, check_options, open_workers
from learn_to_steer.errors import PromptError
from learn_to_steer.evaluation import (
    GeneratedImage,
    png_bytes,
)
from learn_to_steer.evaluation.model import LEARNED
from learn_to_steer.plain_text import shown
from learn_to_steer.prompts import Relation, analyse, load_nlp, locate, parse
from learn_to_steer.report import Panel, comparison_page, draw_maps
from learn_to_steer.steering import ImageReport
from learn_to_steer.steering.report import CLASSIFIER
from learn_to_steer.worker_process import Shard, shard_name

log = logging.getLogger(__name__)


def generate_images(config: GenerateConfig, on_progress: Callable[[int, int], None]) -> list[str]:
    """Make the images of all prompts and write them, with pages and a report, into ``config.out``.

    Args:
        config: The model, its steering and the prompts.
        on_progress: Called after every denoising step with the number of steps done and their total.

    Returns:
        Lines to print: one per image, and where the files are.

    Raises:
        PromptError: A prompt is empty or does not name the given relations, or one of these cannot be steered.
        WorkerError: Prompts failed on workers.
        SteerError: As ``open_model``.
    """
    relations = _relations(config)
    storage.check_folder(config.out)
    out, alone = Path(config.out), config.in_process()
    if check_options(config, config.device):
        number = len(config.prompts)
        with open_workers(config, ImageMaker, alone, relations, device=config.device, most=number) as pool:
            facts: ModelFacts = pool.description
            _begin(out, config, facts)
            results = _make_on(pool, out, config, facts, on_progress)
    else:
        maker = ImageMaker(alone, relations)
        facts = maker.describe()
        _begin(out, config, facts)
        maker.count(on_progress)
        results = [maker.make(number) for number in range(len(config.prompts))]
    _write(out, config, facts, results)
    return [*_summary_lines(results, config.objective), f"See {out / 'compare.png'}"]


def _begin(out: Path, config: GenerateConfig, facts: ModelFacts) -> None:
    """Write ``config.json``."""
    storage.remove_leftovers(out)
    resolved = {} if facts.steering is None else {"steering": facts.steering}
    storage.write_json(out / "config.json", config.written() | {"sampling": facts.sampling} | resolved)


def _make_on(
    pool: WorkerPool, out: Path, config: GenerateConfig, facts: ModelFacts, on_progress: Callable[[int, int], None]
) -> list[PromptResult]:
    """Make the images on workers; a shard is a prompt."""
    results: dict[int, PromptResult] = {}
    steps = facts.sampling["num_inference_steps"]

    def keep(shard: Shard, result: PromptResult) -> None:
        results[shard.work] = result
        on_progress(steps * sum(facts.calls[number] for number in results), facts.steps)

    shards = [
        Shard(shard_name(config.seed, number, prompt), shown(prompt), number)
        for number, prompt in enumerate(config.prompts)
    ]
    on_progress(0, facts.steps)
    pool.run(shards, out, keep, method="make", kept=False)
    return [results[number] for number in range(len(shards))]


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


def _write(out: Path, config: GenerateConfig, model: ModelFacts, results: list[PromptResult]) -> None:
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


def _panels(result: PromptResult, loss: str) -> tuple[list[Panel], list[Panel]]:
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


def _seen_note(seen: Seen) -> str:
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


def _first_images(result: PromptResult) -> list[tuple[str, Image]]:
    """The first base image and the first steered one, with their titles."""
    images = [("base", result.base[0].image)]
    return [*images, ("steered", result.steered[0].image)] if result.steered else images


def _summary_lines(results: list[PromptResult], loss: str) -> list[str]:
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
