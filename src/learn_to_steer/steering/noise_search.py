"""A search for a better initial noise, before the first step.

The noise z is replaced by z exp(v/2) + mu, and mu and v are fitted to the objective by Adam while they are held near
a standard normal. *Source:* InitNO, arXiv 2404.04650; constants as published, the inner loop capped.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from learn_to_steer.families import Call
from learn_to_steer.objectives._protocol import Clock
from learn_to_steer.steering.refine import HALF_SCALE, Refiner
from learn_to_steer.steering.report import StepReport

LEARNING_RATE = 1e-2
EPSILON = 1e-3
NEAR = 1e-3  # the divergence from a standard normal that is let pass
PULLS = 50
SUCCESS = 0.8


def search(refiner: Refiner, call: Call, latents: Tensor, scale: float, clock: Clock) -> Tensor:
    """``latents`` (samples, ...) in the scheduler's space, each replaced by what its own search found.

    ``config.search`` are rounds, passes of a round, and passes on the best round's noise when none succeeded. Further
    rounds begin with noise that depends on a sample's first one only, and so not on its batch.
    """
    assert refiner.config.search is not None
    rounds, passes, last = refiner.config.search
    found = latents.clone()
    for i, sample in enumerate(refiner.samples):
        if not sample.pairs:
            continue
        step = StepReport(clock.step, clock.level)
        sample.report.steps.append(step)
        one = _One(refiner, call, i, scale, clock, step)
        generator = _generator(latents[i])
        best: tuple[float, Tensor, Tensor] | None = None
        for turn in range(rounds):
            start = latents[i] if turn == 0 else torch.randn(latents[i].shape, generator=generator) / scale
            start = start.to(latents)
            tuned, probability = one.tuned(start, passes)
            if best is None or probability > best[0]:
                best = (probability, start, tuned)
            if probability >= SUCCESS:
                break
        if best is not None:
            found[i] = best[2] if best[0] >= SUCCESS or not last else one.tuned(best[1], last)[0]
        refiner.memory.pop(i, None)
    return found


def _generator(latents: Tensor) -> torch.Generator:
    digest = hashlib.sha256(latents.float().cpu().numpy().tobytes()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@dataclass(frozen=True)
class _One:
    """The search of one sample."""

    refiner: Refiner
    call: Call
    index: int
    scale: float
    clock: Clock
    step: StepReport

    def tuned(self, start: Tensor, passes: int) -> tuple[Tensor, float]:
        """``start`` after up to ``passes`` of Adam, and the last probability seen; stops at success."""
        mean, spread = torch.zeros_like(start), torch.zeros_like(start)
        optimiser = torch.optim.Adam([mean, spread], lr=LEARNING_RATE, eps=EPSILON)
        probability = 0.0
        noise = start
        for _ in range(passes):
            probability, gradient = self._gradient(noise)
            if probability >= SUCCESS or not gradient.isfinite().all():
                break
            # The chain rule by hand: the pass ends at the noise, mean and spread lie before it.
            mean.grad, spread.grad = gradient, gradient * start * (spread / 2).exp() / 2
            optimiser.step()
            self._pull(mean, spread, optimiser)
            noise = start * (spread / 2).exp() + mean
        return noise, probability

    def _gradient(self, noise: Tensor) -> tuple[float, Tensor]:
        factor = HALF_SCALE if self.call.latents.dtype == torch.float16 else 1.0
        self.step.passes += 1
        with self.refiner.judging(self.call, noise[None], [self.index], self.scale, self.clock) as (verdict, leaf):
            loss = verdict.loss if verdict.search is None else verdict.search
            (gradient,) = torch.autograd.grad(loss[0].max() * factor, leaf)
        self.step.probability = verdict.probability[0].tolist()
        return float(verdict.probability[0].min()), gradient[0] / factor

    def _pull(self, mean: Tensor, spread: Tensor, optimiser: torch.optim.Optimizer) -> None:
        """Back towards a standard normal, on the same optimiser."""
        for _ in range(PULLS):
            divergence = -0.5 * (1 + spread - mean**2 - spread.exp()).mean()
            if divergence <= NEAR:
                return
            # Its gradient, written out; the mean's size is in it as in the published loss.
            mean.grad, spread.grad = mean / mean.numel(), 0.5 * (spread.exp() - 1) / mean.numel()
            optimiser.step()
