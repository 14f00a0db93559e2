"""The loop inside one denoising step: maps, loss, gradient, move, until good enough.

*Source:* paper section 3 and algorithm 1 (official profile: official_implementation, 5).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from learn_to_steer.families import Call, Family
from learn_to_steer.maps import columns_to_weights
from learn_to_steer.objectives._protocol import Clock, Objective, Pair, Verdict
from learn_to_steer.replay import sliced
from learn_to_steer.steering.config import SteeringConfig
from learn_to_steer.steering.report import ImageReport, StepReport
from learn_to_steer.tap import Tap

HALF_SCALE = 1024.0  # fp16 gradients of a loss near its target would underflow
SCALE_STEP = 32.0  # what the scale is divided by when they overflow instead
BACKOFFS = 3


@dataclass(frozen=True)
class Sample:
    """What one image of the batch is steered towards; no pairs: left alone.

    ``columns`` of the text belong to each object, ``words`` to any word of the prompt (unknown when empty).
    """

    pairs: tuple[Pair, ...]
    columns: tuple[tuple[int, ...], ...]
    report: ImageReport
    words: tuple[int, ...] = ()


@dataclass(frozen=True)
class Refiner:
    """Moves the latents of one denoising step."""

    family: Family
    denoiser: nn.Module
    objective: Objective
    tap: Tap
    config: SteeringConfig
    samples: Sequence[Sample]
    memory: dict[int, Any] = field(default_factory=dict)  # what the objective wants to see again, by sample

    def __call__(self, call: Call, latents: Tensor, scale: float, clock: Clock) -> Tensor:
        """``latents`` (samples, ...) in the scheduler's space, fp32, moved; the denoiser is fed ``latents * scale``.

        ``call`` holds the conditional rows. Every sample stops on its own and leaves the batch. A sample whose
        gradient is not finite first gets a smaller loss scale (fp16 only), then goes back to its last good
        latents and tries again with half the rate. Refinement passes come first, then those of every step.
        """
        scales = [HALF_SCALE if call.latents.dtype == torch.float16 else 1.0] * len(self.samples)
        batch = len(self.samples)
        moved = latents.clone()
        rate = self.config.rate_at(clock.step, clock.steps, clock.level)
        rates = [rate / scale**2 if self.config.by_variance else rate] * batch  # variance in the scheduler's space
        extra, target = self.config.refined(clock.step, clock.steps)
        steps: dict[int, StepReport] = {}
        waiting = [i for i, s in enumerate(self.samples) if s.pairs and s.report.passes < self.config.total_passes]
        failures = dict.fromkeys(waiting, 0)
        refinements = dict.fromkeys(waiting, extra)  # passes left before those of every step
        regular = dict.fromkeys(waiting, 0)
        last: dict[int, tuple[Tensor, Tensor]] = {}  # the latest latents with a finite gradient, and its direction
        for i in waiting:
            steps[i] = StepReport(clock.step, clock.level)
            self.samples[i].report.steps.append(steps[i])
        for turn in range(extra + self.config.passes):
            if not waiting:
                break
            rows = torch.tensor(waiting, device=latents.device)
            factors = torch.tensor([scales[i] for i in waiting], device=latents.device)
            left = {i: target for i in waiting if refinements[i]}
            verdict, going, gradient = self._gradient(call, moved[rows], waiting, factors, scale, clock, turn, left)
            for n, i in enumerate(waiting):
                if verdict.loss[n].isfinite().all():
                    steps[i].probability = verdict.probability[n, : len(self.samples[i].pairs)].tolist()
                steps[i].passes += n in going
                steps[i].checks += n not in going
                refinements[i] = refinements[i] - 1 if i in left else 0
                regular[i] += i not in left
            finite = gradient.flatten(1).isfinite().all(dim=1)
            still = []
            for n in going:
                i = waiting[n]
                if not finite[n] and scales[i] > 1:
                    scales[i] /= SCALE_STEP
                elif not finite[n]:
                    failures[i] += 1
                    self.samples[i].report.backoffs += 1
                    rates[i] /= 2
                    good, direction = last.get(i, (latents[i], torch.zeros_like(latents[i])))
                    moved[i] = self._moved(good, rates[i] * direction)
                    if failures[i] > BACKOFFS:
                        moved[i] = good
                        self.samples[i].report.note = f"gradient not finite at step {clock.step}; left where it was"
                        continue
                else:
                    last[i] = (moved[i].clone(), self._direction(gradient[n]))
                    moved[i] = self._moved(last[i][0], rates[i] * last[i][1])
                in_step = refinements[i] or regular[i] < self.config.passes
                if in_step and self.samples[i].report.passes < self.config.total_passes:
                    still.append(i)
            waiting = still
        for i in steps:
            # One ulp of a probability is not worth a pass: "converged" is what the stop rule saw.
            self.samples[i].report.converged = self._probability(steps[i].probability) >= self.config.threshold
        return moved

    def _gradient(
        self,
        call: Call,
        latents: Tensor,
        indices: Sequence[int],
        factors: Tensor,
        scale: float,
        clock: Clock,
        turn: int,
        refined: dict[int, float] | None = None,
    ) -> tuple[Verdict, list[int], Tensor]:
        """Verdict on the samples at ``indices``, which of them go on (positions), and their gradients (zero else).

        ``factors`` scale each sample's loss while its gradient is computed. ``refined`` are the samples that make a
        refinement pass unless they are already at the probability given; those that are leave it.
        """
        pairs = [self.samples[i].pairs for i in indices]
        refined = {} if refined is None else refined
        with self.judging(call, latents, indices, scale, clock) as (verdict, leaf):
            for n, i in enumerate(indices):
                if i in refined and not _needs_refinement(verdict, n, len(pairs[n]), refined[i]):
                    del refined[i]
            losses = self._picked(verdict.loss, pairs, turn)
            if verdict.refinement is not None and refined:
                chosen = torch.tensor([i in refined for i in indices], device=losses.device)
                losses = torch.where(chosen, self._picked(verdict.refinement, pairs, turn), losses)
            going = [
                n
                for n, i in enumerate(indices)
                if i in refined or not self._done(verdict, losses, n, len(pairs[n]), clock)
            ]
            if not going:
                return verdict, going, torch.zeros_like(latents)
            (gradient,) = torch.autograd.grad((losses * factors)[going].sum(), leaf)
        return verdict, going, gradient.detach() / factors.view(-1, *[1] * (latents.ndim - 1))

    @contextmanager
    def judging(
        self, call: Call, latents: Tensor, indices: Sequence[int], scale: float, clock: Clock
    ) -> Iterator[tuple[Verdict, Tensor]]:
        """The verdict on the samples at ``indices`` and the leaf of its gradient, which is to be taken inside."""
        rows = torch.tensor(indices, device=latents.device)
        part = sliced(call, rows, len(self.samples))
        tokens = self.family.text_length(part)
        weights = columns_to_weights([self.samples[i].columns for i in indices], tokens)
        every = self.objective.spec.columns == "every"
        shown = torch.eye(tokens).expand(len(indices), -1, -1) if every else weights
        with torch.enable_grad():
            leaf = latents.detach().requires_grad_()
            fed = (leaf if scale == 1.0 else leaf * scale).to(call.latents.dtype)
            height, width = self.family.latent_size(part)
            with self.tap.reading(shown, height, width) as read:
                self.denoiser(**self.family.write(replace(part, latents=fed)) | {"return_dict": False})
                maps = replace(read(), memory=tuple(self.memory.get(i) for i in indices))
                if every:
                    words = _word_columns([self.samples[i].words for i in indices], tokens)
                    maps = replace(maps, objects=weights.to(latents.device), words=words.to(latents.device))
                verdict = self.objective(maps, [self.samples[i].pairs for i in indices], clock)
                self.memory.update(zip(indices, verdict.memory, strict=False))
                yield verdict, leaf

    def _picked(self, loss: Tensor, pairs: Sequence[Sequence[Pair]], turn: int) -> Tensor:
        """Of losses (samples, relations) that of the relations each sample works on in this pass."""
        if self.config.pick == "worst":
            return loss.max(dim=1).values
        if self.config.pick == "sum":
            return loss.sum(dim=1)
        turns = torch.tensor([turn % len(sample) for sample in pairs], device=loss.device)
        return loss.gather(1, turns[:, None])[:, 0]

    def _done(self, verdict: Verdict, losses: Tensor, n: int, relations: int, clock: Clock) -> bool:
        if self.config.loss_targets:
            target = self.config.loss_targets[min(clock.step, len(self.config.loss_targets) - 1)]
            return bool(losses[n] <= target)
        return self._probability(verdict.probability[n, :relations].tolist()) >= self.config.threshold

    def _probability(self, relations: Sequence[float]) -> float:
        """What the stop rule looks at; 0 of no relations. Those of a picture count as if independent."""
        if not relations:
            return 0.0
        return math.prod(relations) if self.config.stop == "all" else min(relations)

    def _direction(self, gradient: Tensor) -> Tensor:
        if self.config.clip is not None:
            gradient = gradient * (self.config.clip / gradient.norm().clamp_min(self.config.clip))
        if not self.config.normalised:
            return gradient
        return gradient / gradient.square().mean().sqrt().clamp_min(1e-12)

    def _moved(self, latents: Tensor, move: Tensor) -> Tensor:
        moved = latents - move
        if self.config.keep_norm:
            moved = moved * (latents.norm() / moved.norm().clamp_min(1e-12))
        return moved


def _needs_refinement(verdict: Verdict, n: int, relations: int, target: float) -> bool:
    allowed = verdict.refinable is None or bool(verdict.refinable[n, :relations].all())
    return allowed and bool(verdict.probability[n, :relations].min() < target)


def _word_columns(words: Sequence[Sequence[int]], tokens: int) -> Tensor:
    """Which text columns hold words, (samples, tokens); where that is not known, all but the first and the last."""
    mask = torch.zeros(len(words), tokens, dtype=torch.bool)
    for row, columns in zip(mask, words, strict=True):
        if columns:
            row[list(columns)] = True
        else:
            row[1:-1] = True
    return mask
