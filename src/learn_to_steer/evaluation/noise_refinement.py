"""Noise refinement after FOR: check the finished image, generate it again from refined noise, keep the better one.

Source: FOR, arXiv 2503.06506, stage 2.

Differs: the authors take questions from a language model and answers from a VQA model; here a detector, the verifier,
answers. The answer for an object is its highest detection score, the answer for a relation whether it holds.

The verifier should not be the detector that scores the results: it would score images that it selected itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from learn_to_steer import registry
from learn_to_steer.benchmarks import BenchmarkPrompt, matching_detections
from learn_to_steer.evaluation.generation import GeneratedImage, Job, draw
from learn_to_steer.evaluation.model import Model
from learn_to_steer.evaluation.scoring import Scorer
from learn_to_steer.losses.for_unified import ForStage2
from learn_to_steer.steering import Steerer

LOSS = "for-unified"
DOUBT = 0.5  # objects with an answer below it are refined


def is_unified_loss(loss: str) -> bool:
    """Whether ``loss`` names FOR's unified loss, the only one with a second stage."""
    return registry.normal(loss) == LOSS


def draw_refined(model: Model, verifier: Scorer, jobs: Sequence[Job], seed: int) -> list[GeneratedImage]:
    """Generate steered images as ``draw`` does, each a second time from refined noise, and keep the better ones.

    Args:
        model: A model steered by FOR's unified loss.
        verifier: The detector that selects the objects to refine, and the better image.
        jobs: The images to generate.
        seed: Seed of the noise of all images.

    Returns:
        One image per job, with the time and iterations of both images. Jobs without relations are generated once.
    """
    assert model.steered is not None
    images = []
    for job, first in zip(jobs, draw(model, jobs, seed, steer=True), strict=True):
        if not job.relations:
            images.append(first)
            continue
        answers, confidence = _verify(verifier, job, first)
        doubtful = [n for n, answer in enumerate(answers) if answer < DOUBT] or [answers.index(min(answers))]
        stage2 = ForStage2(doubtful)
        settings = model.steered.config.changed(profile="for-refinement", refinement=stage2.schedule["refinement"])
        steered = Steerer(stage2, settings).on(model.pipe)
        second = draw(replace(model, steered=steered), [job], seed, steer=True)[0]
        other, better = (first, second) if _verify(verifier, job, second)[1] > confidence else (second, first)
        images.append(_with_cost_of_both(better, other))
    return images


def _verify(verifier: Scorer, job: Job, generated: GeneratedImage) -> tuple[list[float], float]:
    """The answer for each object, in the loss's order, and the mean answer over objects and relations."""
    prompt = BenchmarkPrompt(0, job.prompt, job.relations, {})
    detections = verifier.detect([generated.image], [prompt])[0]
    # Steering tells objects apart by their place in the prompt: one that is mentioned twice is two objects.
    mentions = [mention for r in job.relations for mention in ((r.subject, r.subject_span), (r.object, r.object_span))]
    best = [
        next(iter(matching_detections(name, detections, verifier.vocabulary)), None)
        for name, _ in dict.fromkeys(mentions)
    ]
    answers = [0.0 if one is None else one.score for one in best]
    held = verifier.score(prompt, detections)["held"]
    return answers, sum([*answers, *map(float, held)]) / (len(answers) + len(held))


def _with_cost_of_both(better: GeneratedImage, other: GeneratedImage) -> GeneratedImage:
    """``better`` with the seconds and steps of both images."""
    assert better.report is not None and other.report is not None
    steps = [*other.report.steps, *better.report.steps]
    return GeneratedImage(better.image, replace(better.report, steps=steps), better.seconds + other.seconds)
