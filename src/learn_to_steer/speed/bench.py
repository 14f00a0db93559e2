"""Times a model with and without steering: the same images, one call of each kind after the other, in one process."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL.Image import Image

from learn_to_steer import benchmarks, registry
from learn_to_steer.benchmarks import BenchmarkPrompt
from learn_to_steer.errors import DataError, SteerError
from learn_to_steer.evaluation.generation import GeneratedImage, Job, draw, steerable
from learn_to_steer.evaluation.model import Model
from learn_to_steer.evaluation.scoring import load_scorer
from learn_to_steer.speed.clocks import Cost, FlopCounter, clock_name, measured
from learn_to_steer.speed.config import BenchConfig
from learn_to_steer.speed.models import MeasuredModel, open_measured_model
from learn_to_steer.versions import installed_version

BENCHMARK = "geneval-position-val"
COUNTED = 3  # images whose operations are counted, which also warms up; all images of a model take equal ones
LIBRARIES = ("learn-to-steer", "torch", "diffusers", "transformers")


@dataclass
class _Timed:
    """Pairs of calls of one size, each without and with steering.

    Attributes:
        images: Images of a call.
        prompts: Per pair, the first of its prompts.
        plain: Per pair, the cost of the call without steering.
        steered: Per pair, the cost of the steered call.
        passes: Per steered image, its iterations.
        checks: Per steered image, its evaluations without a backward.
    """

    images: int
    prompts: list[str] = field(default_factory=list)
    plain: list[Cost] = field(default_factory=list)
    steered: list[Cost] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)
    checks: list[int] = field(default_factory=list)

    def summary(self, seed: int) -> dict[str, Any]:
        """Medians over the pairs; seconds are of an image."""
        by_prompt: dict[str, list[float]] = {}
        for prompt, plain, steered in zip(self.prompts, self.plain, self.steered, strict=True):
            by_prompt.setdefault(prompt, []).append(steered.seconds / plain.seconds)
        ratios = [statistics.median(values) for values in by_prompt.values()]
        peaks = {
            name: max((cost.peak for cost in costs if cost.peak is not None), default=None)
            for name, costs in (("peak_bytes", self.steered), ("unsteered_peak_bytes", self.plain))
        }
        return {
            "ratio": statistics.median(ratios),
            "ratio_interval": median_interval(ratios, seed),
            "unsteered_seconds": statistics.median(cost.seconds for cost in self.plain) / self.images,
            "steered_seconds": statistics.median(cost.seconds for cost in self.steered) / self.images,
            "wall_ratio": statistics.median(s.wall / p.wall for s, p in zip(self.steered, self.plain, strict=True)),
            "passes": statistics.fmean(self.passes),
            "checks": statistics.fmean(self.checks),
            **peaks,
        }


def measure_model(config: BenchConfig, on_progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Measure what steering costs on a model.

    Prompts are of the benchmark geneval-position-val. Each is timed in a pair of calls, without and with steering, with
    the same noise; which of the two comes first alternates.

    Args:
        config: The model and the size of the measurement.
        on_progress: Called with the number of images made and their total.

    Returns:
        What ``bench --json`` prints. Among it ``ratio``, the median over prompts of steered by unsteered time at one
        image a call, with its 95 % bootstrap interval; ``passes``, iterations of an image; ``forwards_equivalent``,
        the operations that steering adds to an image by those of one call of the denoiser in the unsteered pipeline;
        ``peak_bytes``, the peak of memory of a steered call, weights included.

    Raises:
        DataError: None of the prompts can be steered.
        SteerError: As ``open_measured_model``.
    """
    opened = open_measured_model(config)
    model, notes = opened.model, list(opened.notes)
    prompts, jobs = _steerable(model, _prompts(opened, config), notes)
    size = min(config.batch, len(jobs))
    together = jobs[: len(jobs) // size * size] if size > 1 else []
    counted = jobs[:: -(-len(jobs) // COUNTED)]
    counter = _Progress(on_progress, 2 * (len(counted) + config.repeats * (len(jobs) + len(together))))
    flops = _count_operations(model, counted, config.seed, counter)
    alone = _Timed(1)
    images: tuple[list[GeneratedImage], list[GeneratedImage]] = ([], [])  # unsteered and steered
    _time(model, jobs, alone, config, counter, images)
    result = _facts(config, opened, flops) | {"prompts": len(jobs)} | alone.summary(config.seed)
    result["forwards_equivalent"] = _forwards_equivalent(flops, result["passes"])
    if together:
        batch = _Timed(size)
        _time(model, together, batch, config, counter)
        result["batch"] = {"images": size} | batch.summary(config.seed)
    if opened.weights == "trained" and model.variant.detector:
        # Loaded only now, so that it is not part of the peak of memory.
        result |= _accuracies(model.variant.detector, images, prompts, notes)
    return result | {"notes": notes}


def median_interval(values: Sequence[float], seed: int = 0, draws: int = 2000) -> tuple[float, float]:
    """Compute the 95 % percentile-bootstrap interval of a median.

    Args:
        values: One value for each prompt.
        seed: Seed of the bootstrap.
        draws: Number of bootstrap samples.
    """
    sample = np.asarray(values)[np.random.default_rng(seed).integers(len(values), size=(draws, len(values)))]
    low, high = np.quantile(np.median(sample, axis=1), [0.025, 0.975])
    return float(low), float(high)


class _Progress:
    """Counts images."""

    def __init__(self, on_progress: Callable[[int, int], None] | None, total: int) -> None:
        self._report, self._total, self._done = on_progress, total, 0

    def add(self, images: int) -> None:
        self._done += images
        if self._report:
            self._report(self._done, self._total)


def _prompts(opened: MeasuredModel, config: BenchConfig) -> list[BenchmarkPrompt]:
    """Prompts of objects that the model's detector knows; of all objects, where no detector is known."""
    detector = opened.model.variant.detector
    vocabulary = registry.load("detectors", detector.partition(":")[0]).vocabulary() if detector else None
    return benchmarks.stratified(benchmarks.prompts(BENCHMARK, vocabulary), config.limit, config.seed)


def _steerable(
    model: Model, prompts: Sequence[BenchmarkPrompt], notes: list[str]
) -> tuple[list[BenchmarkPrompt], list[Job]]:
    """The prompts that can be steered, each with its image; the others are noted."""
    chosen, jobs, reasons = list[BenchmarkPrompt](), list[Job](), list[str]()
    for prompt in prompts:
        kept, left_out = steerable(model, prompt.prompt, prompt.relations, found=True)
        if kept:
            chosen.append(prompt)
            jobs.append(Job(prompt.prompt, kept, 0, left_out))
        else:
            reasons.append(left_out[0].reason)
    if not jobs:
        raise DataError(
            f"none of the {len(prompts)} prompts can be steered: {reasons[0]}; use another classifier or loss"
        )
    if reasons:
        notes.append(f"{len(reasons)} of {len(prompts)} prompts are left out, which cannot be steered: {reasons[0]}")
    return chosen, jobs


def _forwards_equivalent(flops: dict[str, float], passes: float) -> float:
    """The operations that steering adds to an image with so many passes, by those of one call of the denoiser."""
    added = flops["steered"] - flops["unsteered"]
    if flops["passes"]:  # the counted images may have other numbers of passes than the mean of all
        added *= passes / flops["passes"]
    return added / max(flops["forward"], 1)


def _count_operations(model: Model, jobs: Sequence[Job], seed: int, counter: _Progress) -> dict[str, float]:
    """The operations of an image without and with steering, of a denoiser call, and the iterations, in the mean."""
    denoiser = getattr(model.pipe, model.steered.family.denoiser)  # type: ignore[union-attr]
    plain, steered, passes, calls = 0, 0, 0, []
    for job in jobs:
        with FlopCounter() as flops, flops.watched(denoiser):
            draw(model, [job], seed, steer=False)
        plain += flops.total
        calls += flops.of_calls
        with FlopCounter() as flops:
            image = draw(model, [job], seed, steer=True)[0]
        steered += flops.total
        passes += image.report.passes if image.report else 0
        counter.add(2)
    count = len(jobs)
    return {
        "unsteered": plain / count,
        "steered": steered / count,
        "ratio": steered / max(plain, 1),
        "forward": statistics.fmean(calls),
        "passes": passes / count,
        "images": count,
    }


def _time(
    model: Model,
    jobs: Sequence[Job],
    timed: _Timed,
    config: BenchConfig,
    counter: _Progress,
    keep: tuple[list[GeneratedImage], list[GeneratedImage]] | None = None,
) -> None:
    """Time pairs of calls; the images of the first repeat are kept in ``keep``."""
    device = model.pipe._execution_device
    groups = [jobs[start : start + timed.images] for start in range(0, len(jobs), timed.images)]
    if timed.images > 1 and device.type == "cuda":  # kernels are chosen at the first call of a size
        for steer in (False, True):
            draw(model, groups[0], config.seed, steer=steer)
    for repeat in range(config.repeats):
        for number, group in enumerate(groups):
            timed.prompts.append(group[0].prompt)
            steered_first = bool((number + repeat) % 2)
            for steer in (steered_first, not steered_first):
                images, cost = measured(lambda: draw(model, group, config.seed, steer=steer), device)  # noqa: B023
                (timed.steered if steer else timed.plain).append(cost)
                reports = [image.report for image in images if image.report]
                timed.passes += [report.passes for report in reports]
                timed.checks += [report.checks for report in reports]
                counter.add(len(group))
                if keep is not None and repeat == 0:
                    keep[steer].extend(images)


def _accuracies(
    detector: str, images: Sequence[Sequence[GeneratedImage]], prompts: Sequence[BenchmarkPrompt], notes: list[str]
) -> dict[str, Any]:
    """The accuracy without and with steering; without a detector that works, a note says why there is none."""
    try:
        plain, steered = (_accuracy(detector, [one.image for one in made], prompts) for made in images)
    except SteerError as error:  # the measurement is not lost
        notes.append(f"the images are not scored: {error}")
        return {}
    return {"unsteered_accuracy": plain, "accuracy": steered, "detector": detector}


def _accuracy(detector: str, images: Sequence[Image], prompts: Sequence[BenchmarkPrompt]) -> float:
    """The share of images that show what their prompts say, as a detector sees them."""
    scorer = load_scorer(detector)
    rule = benchmarks.rule(BENCHMARK, scorer.detector.counting)
    detections = scorer.detect(images, prompts)
    correct = [
        scorer.score(prompt, boxes, rule, image.size)["correct"]
        for prompt, boxes, image in zip(prompts, detections, images, strict=True)
    ]
    return statistics.fmean(correct)


def _facts(config: BenchConfig, opened: MeasuredModel, flops: dict[str, float]) -> dict[str, Any]:
    """What was measured, and on what."""
    model = opened.model
    device = model.pipe._execution_device
    denoiser = getattr(model.pipe, model.steered.family.denoiser)  # type: ignore[union-attr]
    return {
        "model": config.model,
        "weights": opened.weights,
        "classifier": opened.classifier,
        "loss": registry.normal(config.objective),
        "profile": config.profile,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "dtype": str(denoiser.dtype).removeprefix("torch."),
        "clock": clock_name(device),
        "depth": opened.depth,
        "layers": opened.layers,
        "sampling": model.sampling,
        "benchmark": BENCHMARK,
        "repeats": config.repeats,
        "seed": config.seed,
        "flops": flops,
        "versions": {name: installed_version(name) for name in LIBRARIES},
    }
