"""How much faster steering is than a loop that works like the authors' code: seconds per image in one run.

    python reproduce/bench_authors_way.py --prompts 4     # about two minutes on two cores

Both have the same noise, on the same machine. Like the authors' code means: one image at a time, explicit attention in
every layer, the maps of all 77 text tokens kept, trainable parameters, and their schedule (16 passes in each step of
the first half, gradients not normalised). Writes out/bench_authors_way.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from learn_to_steer import storage
from learn_to_steer.attention import AttentionCapture
from learn_to_steer.benchmarks import prompts, stratified
from learn_to_steer.configs import ModelConfig
from learn_to_steer.evaluation.generation import Job, draw, noise_generator
from learn_to_steer.evaluation.model import Model, open_model
from learn_to_steer.losses.base import LossOutput, ObjectPair, StepInfo
from learn_to_steer.losses.learned import Learned
from learn_to_steer.maps import AttentionMaps
from learn_to_steer.prompts import token_indices
from learn_to_steer.steering import ImageReport, profile
from learn_to_steer.steering.inputs import Target
from learn_to_steer.steering.loop import SteeringLoop
from learn_to_steer.steering.pipeline import run_steered
from learn_to_steer.steering.state import CallState
from learn_to_steer_emoji.sprites import canonical_names


class FromAllColumns:
    """The learned loss on maps of every text column, as the authors keep them."""

    def __init__(self, learned: Learned, columns: Sequence[Sequence[int]]) -> None:
        self.learned, self.columns, self.spec = learned, columns, learned.spec

    def __call__(self, maps: AttentionMaps, pairs: Sequence[Sequence[ObjectPair]], info: StepInfo) -> LossOutput:
        picked = tuple(
            torch.stack([layer[:, list(group)].mean(1) for group in self.columns], dim=1) for layer in maps.layers
        )
        return self.learned(AttentionMaps(picked), pairs, info)


def authors_way(model: Model, job: Job, seed: int) -> tuple[float, int]:
    """Steer one image like the authors' code; return its seconds and passes."""
    steered: Any = model.steered
    pipe, family = model.pipe, steered.family
    relation = job.relations[0]
    spans = [span for span in (relation.subject_span, relation.object_span) if span]
    columns = token_indices(pipe.tokenizer, job.prompt, spans)
    every = tuple((column,) for column in range(77))
    state = CallState([ImageReport(job.prompt, [relation])], [0])
    stand_in: Any = FromAllColumns(steered.loss, columns)  # it has what the loop asks for
    loop = SteeringLoop(
        family,
        pipe.unet,
        stand_in,
        AttentionCapture(family.attention_layers(pipe.unet), family.attention(pipe.unet), method="explicit"),
        profile("official", model.variant.step_size),
        [Target(job.prompt, (relation,), (ObjectPair(0, relation.predicate, 1),), every)],
    )
    began = time.monotonic()
    generator = noise_generator(seed, job.prompt, job.index)
    pipe.unet.requires_grad_(True)
    run_steered(pipe, loop, state, {"prompt": job.prompt, "generator": generator, **model.sampling})
    pipe.unet.requires_grad_(False)
    return time.monotonic() - began, state.reports[0].passes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sd:emoji", help="a Stable Diffusion model")
    parser.add_argument("--classifier", help="another classifier than the model's own")
    parser.add_argument("--prompts", type=int, default=4, help="validation prompts, one image each")
    parser.add_argument("--batch", type=int, default=4, help="images in one call of ours")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/bench_authors_way.json"))
    options = parser.parse_args()
    model = open_model(ModelConfig(model=options.model, classifier=options.classifier))
    subset = stratified(prompts("geneval-position-val", canonical_names()), options.prompts, options.seed)
    jobs = [Job(p.prompt, p.relations, 0) for p in subset]
    draw(model, jobs[:1], options.seed, steer=True)  # warm up
    ours, plain, passes = 0.0, 0.0, 0
    for start in range(0, len(jobs), options.batch):
        part = jobs[start : start + options.batch]
        plain += sum(p.seconds for p in draw(model, part, options.seed, steer=False))
        steered = draw(model, part, options.seed, steer=True)
        ours += sum(p.seconds for p in steered)
        passes += sum(p.report.passes for p in steered if p.report)
    theirs = [authors_way(model, job, options.seed) for job in jobs]
    count = len(jobs)
    result = {
        "prompts": count,
        "seconds_unsteered": plain / count,
        "seconds_ours": ours / count,
        "seconds_authors_way": sum(s for s, _ in theirs) / count,
        "times_faster": sum(s for s, _ in theirs) / ours,
        "passes_ours": passes / count,
        "passes_authors_way": sum(p for _, p in theirs) / count,
        "threads": torch.get_num_threads(),
        "config": model.steered.config.as_dict() if model.steered else {},
        "seed": options.seed,
    }
    storage.write_json(options.out, result)
    print(result)


if __name__ == "__main__":
    main()
