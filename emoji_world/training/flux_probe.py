"""How far the first stage of ``flux:emoji`` is: objects on prompts "a X and a Y", positions on validation prompts.

    python training/flux_probe.py --prompts 60     # minutes on one core; between two runs of train_flux.py base

Each step runs the transformer twice (``true_cfg_scale``), since guidance is distilled later. ``check_base.py`` measures
the packaged model; the numbers wanted here are the same.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flux_emoji import Base, tokenizers
from learn_to_steer import benchmarks
from learn_to_steer.benchmarks import stratified
from learn_to_steer.evaluation import ModelConfig, open_model
from learn_to_steer.evaluation.generation import Job, draw
from learn_to_steer.evaluation.scoring import load_scorer
from learn_to_steer.report import contact_sheet
from loop import newest
from pairs import and_jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=60, help="of either kind, one image each")
    parser.add_argument("--scale", type=float, default=5.0, help="true_cfg_scale")
    parser.add_argument("--stage", default="flux-base", help="folder of the checkpoint")
    parser.add_argument("--out", type=Path, default=Path("out/probe.png"), help="64 uncurated pictures")
    options = parser.parse_args()

    base = Base(*tokenizers())
    base.load_state_dict(newest(options.stage))
    model = open_model(ModelConfig(model="flux:emoji", objective="none", dtype="bfloat16"))
    for name, part in base.parts().items():
        getattr(model.pipe, name).load_state_dict(part.state_dict())
    plain = {"guidance_scale": 1.0, "true_cfg_scale": options.scale, "num_inference_steps": 20}
    detector = load_scorer("emoji")

    def drawn(jobs: list[Job]) -> list[Any]:
        pictures = []
        for start in range(0, len(jobs), 20):
            part = jobs[start : start + 20]
            given = replace(model, sampling={**model.sampling, **plain, "negative_prompt": [""] * len(part)})
            pictures += [one.image for one in draw(given, part, 0, steer=False)]
        return pictures

    pairs, jobs = and_jobs(options.prompts, np.random.default_rng(1))
    pictures = drawn(jobs)
    found = [{d.name for d in boxes} for boxes in detector.detector.detect(pictures)]
    present = [set(pair) <= names for pair, names in zip(pairs, found, strict=True)]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(pictures[:64], present[:64], 8).save(options.out)

    prompts = stratified(benchmarks.prompts("geneval-position-val", detector.vocabulary), options.prompts, 0)
    boxes = detector.detect(drawn([Job(p.prompt, p.relations, 0) for p in prompts]), prompts)
    verdicts = [detector.score(p, b) for p, b in zip(prompts, boxes, strict=True)]
    sides = [all(v["on_axis"]) for v in verdicts if v["present"]]
    right = np.mean([v["correct"] for v in verdicts])
    print(f"both present {np.mean(present):.2f} of {len(present)} (wanted .90)")
    print(f"position right {right:.2f} of {len(verdicts)} (wanted .10 to .35)")
    print(f"on the prompted side {np.mean(sides):.2f} of {len(sides)} with both (wanted .52 to .70)")


if __name__ == "__main__":
    main()
