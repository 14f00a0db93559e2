"""Plain and steered calls from four threads on the same denoisers: every image as if it were drawn alone."""

from __future__ import annotations

import copy
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from learn_to_steer import Steerer, load_pipeline
from learn_to_steer.families import find

THREADS = 4
PROMPTS = ("a dog to the left of a cat", "a pizza above a horse")
MODELS = ("sd:emoji", "flux:emoji-schnell")
SIZE = {"height": 64, "width": 64, "output_type": "latent"}


class Worker:
    """The pipelines of one thread: two for each model, on the denoisers of all, with tokenizers of their own."""

    def __init__(self, models: dict[str, Any], steerers: dict[str, Any], steps: int) -> None:
        self.steps = steps
        self.pipes: dict[str, list[Any]] = {}
        self.steered: dict[str, list[Any]] = {}
        for name, pipe in models.items():
            self.pipes[name] = [_sibling(pipe) for _ in range(2)]
            self.steered[name] = [steerers[name].on(one) for one in self.pipes[name]]

    def draw(self, name: str, number: int, kind: str) -> torch.Tensor:
        """Draw job ``number`` of a model; its images depend on the name, the number and the kind alone."""
        first, second = self.pipes[name]
        run = self.steered[name][0] if kind.startswith("steered") else first
        more: dict[str, Any] = {}
        inside: list[torch.Tensor] = []
        if kind.endswith("in it"):
            inner = self.steered[name][1] if "a steered" in kind else second

            def callback(_: Any, step: int, __: Any, values: dict[str, Any]) -> dict[str, Any]:
                inside.append(_call(inner, number + 1, self.steps))
                return values

            more["callback_on_step_end"] = callback
        return torch.cat([_call(run, number, self.steps, **more), *inside])


KINDS = ("plain", "steered", "steered, a plain one in it", "plain, a steered one in it", "steered, a steered one in it")


def _call(pipe: Any, number: int, steps: int, **more: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(number)
    images: torch.Tensor = pipe(
        PROMPTS[number % 2], generator=generator, num_inference_steps=steps, **SIZE, **more
    ).images
    return images


def _sibling(pipe: Any) -> Any:
    parts = pipe.components | {"scheduler": type(pipe.scheduler).from_config(pipe.scheduler.config)}
    # Tokenizers written in Rust cannot be used by two threads at once.
    parts |= {name: copy.deepcopy(part) for name, part in parts.items() if name.startswith("tokenizer")}
    more = {"requires_safety_checker": False} if "safety_checker" in parts else {}
    other = type(pipe)(**parts, **more)
    other.set_progress_bar_config(disable=True)
    return other


def _state(models: dict[str, Any]) -> list[Any]:
    modules = [module for pipe in models.values() for module in getattr(pipe, find(pipe).denoiser).modules()]
    return [
        (dict(m._forward_hooks), dict(m._forward_pre_hooks), sorted(vars(m)), [p.requires_grad for p in m.parameters()])
        for m in modules
    ] + [getattr(module, "gradient_checkpointing", None) for module in modules]


@pytest.mark.parametrize(
    ("calls", "steps", "checkpointing"),
    [
        (8, 1, True),
        pytest.param(200, 2, False, marks=pytest.mark.slow),
        pytest.param(200, 2, True, marks=pytest.mark.slow),
    ],
)
def test_mixed_calls_from_several_threads(calls: int, steps: int, checkpointing: bool) -> None:
    models = {name: load_pipeline(name) for name in MODELS}
    steerers = {}
    for name in MODELS:
        one = Steerer.from_pretrained(name)
        steerers[name] = Steerer(one.loss, one.config.changed(checkpointing=checkpointing, window=0.6, iterations=1))
    workers = [Worker(models, steerers, steps) for _ in range(THREADS)]
    jobs = [(name, number, kind) for name in MODELS for number in range(2) for kind in KINDS]
    random.Random(0).shuffle(jobs)
    jobs = (jobs * (calls // len(jobs) + 1))[:calls]

    def all_of(worker: Worker, part: list[Any]) -> list[torch.Tensor]:
        depth = torch._C._len_torch_function_stack()
        images = [worker.draw(*job) for job in part]
        assert torch._C._len_torch_function_stack() == depth
        return images

    def in_threads(parts: list[list[Any]]) -> list[list[torch.Tensor]]:
        with ThreadPoolExecutor(THREADS) as threads:
            done = [threads.submit(all_of, worker, part) for worker, part in zip(workers, parts, strict=False)]
            return [one.result() for one in done]

    for pipe in models.values():
        _call(pipe, 0, 1)  # diffusers puts its own marks on some modules at their first use
    before = _state(models)
    known = list(dict.fromkeys(jobs))
    alone: dict[Any, torch.Tensor] = dict(zip(known, in_threads([known])[0], strict=True))
    parts = [jobs[n::THREADS] for n in range(THREADS)]
    for part, images in zip(parts, in_threads(parts), strict=True):
        for job, image in zip(part, images, strict=True):
            assert torch.equal(image, alone[job]), job
    assert _state(models) == before
    assert all(image.isfinite().all() for image in alone.values())
