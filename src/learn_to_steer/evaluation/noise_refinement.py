"""FOR-like noise refinement: look at the finished picture, mend what is missing from the same noise, keep the better.

*Source:* FOR, arXiv 2503.06506, stage 2. *Differs:* any detector answers in place of a VQA model and of questions
written by a language model: an object's "yes" is its best score, a relation's whether its boxes hold it. Where the
verifier is also the detector that scores, the score is the better of two tries by the scorer's own eye: name another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from learn_to_steer import catalog
from learn_to_steer.benchmarks import BenchmarkPrompt, found_as
from learn_to_steer.errors import UnsupportedError
from learn_to_steer.evaluation.generate import Job, Picture, draw
from learn_to_steer.evaluation.model import Model
from learn_to_steer.evaluation.score import Judge, find_detector, judge
from learn_to_steer.evaluation.self_test import require_knowing
from learn_to_steer.geometry import Detection
from learn_to_steer.objectives._for_repair import ForRepair
from learn_to_steer.steering import Steerer

DOUBT = 0.5  # an object whose "yes" is below this is mended


def find_verifier(name: str, objective: str, prompts: Sequence[BenchmarkPrompt], device: str = "cpu") -> Judge:
    """The detector called ``name`` on ``device``, for the second stage of ``objective``.

    Raises UnsupportedError for another objective than FOR's unified loss, UnknownNameError for an object of ``prompts``
    that the detector cannot see.
    """
    if catalog.normal(objective) != "for-unified":
        raise UnsupportedError("a verifier belongs to FOR's second stage: use it with the objective for-unified")
    verifier = find_detector(name, device)
    require_knowing(verifier)
    for prompt in prompts:
        judge(prompt, [], verifier.vocabulary)
    return verifier


def draw_refined(model: Model, verifier: Judge, jobs: Sequence[Job], seed: int) -> list[Picture]:
    """As ``draw`` (steered), each picture or its second try, whichever ``verifier`` says yes to more.

    ``model`` is steered by FOR's unified loss. Seconds and passes are those of both.
    """
    assert model.steered is not None
    first = draw(model, jobs, seed, steer=True)
    kept = []
    for job, picture in zip(jobs, first, strict=True):
        if not job.relations:
            kept.append(picture)
            continue
        answers, sure = _asked(verifier, job, picture)
        doubted = [n for n, answer in enumerate(answers) if answer < DOUBT] or [answers.index(min(answers))]
        repair = ForRepair(doubted)
        settings = model.steered.config.changed(profile="for-refinement", refinement=repair.schedule["refinement"])
        steered = Steerer(repair, settings).on(model.pipe)
        second = draw(replace(model, steered=steered), [job], seed, steer=True)[0]
        better = second if _asked(verifier, job, second)[1] > sure else picture
        kept.append(_with_cost(better, picture, second))
    return kept


def _asked(verifier: Judge, job: Job, picture: Picture) -> tuple[list[float], float]:
    """The "yes" of each object, in the order of their numbers, and the mean over objects and relations."""
    prompt = BenchmarkPrompt(0, job.prompt, job.relations, {})
    boxes: list[Detection] = verifier.look([picture.image], [prompt])[0]
    # An object said twice is two to steering, which tells them by their place in the prompt.
    ends = [end for r in job.relations for end in ((r.subject, r.subject_span), (r.object, r.object_span))]
    best = [next(iter(found_as(name, boxes, verifier.vocabulary)), None) for name, _ in dict.fromkeys(ends)]
    answers = [0.0 if one is None else one.score for one in best]
    held = judge(prompt, boxes, verifier.vocabulary)["held"]
    return answers, sum([*answers, *map(float, held)]) / (len(answers) + len(held))


def _with_cost(kept: Picture, first: Picture, second: Picture) -> Picture:
    """``kept`` with what both tries cost."""
    assert first.report is not None and second.report is not None and kept.report is not None
    other = second if kept is first else first
    assert other.report is not None
    steps = [*other.report.steps, *kept.report.steps]
    return Picture(kept.image, replace(kept.report, steps=steps), first.seconds + second.seconds)
