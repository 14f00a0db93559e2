"""A search for a better initial noise, before the first denoising step.

The noise z is replaced by z exp(v/2) + mu. Adam minimises the loss over mu and v, while a second loss pulls them back
to the standard normal distribution.

Source:
    InitNO, Guo et al., CVPR 2024, arXiv 2404.04650; constants as published, the inner loop capped.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from learn_to_steer.steering.loop import SteeringLoop, loss_scale_of
from learn_to_steer.steering.report import StepReport
from learn_to_steer.steering.state import CallState, DenoisingStep

LEARNING_RATE = 1e-2
EPSILON = 1e-3
MAX_DIVERGENCE = 1e-3  # of mu and v from the standard normal distribution; below it nothing is pulled back
MAX_PRIOR_ITERATIONS = 50
SUCCESS = 0.8  # the probability that ends the search


def search(
    loop: SteeringLoop, step: DenoisingStep, latents: Float[Tensor, "images *latents"], state: CallState
) -> Float[Tensor, "images *latents"]:
    """Search for a better noise for each image.

    ``config.search`` holds the number of rounds, the iterations of a round, and further iterations on the best round's
    noise if no round succeeded. The first round starts at the image's own noise. The noise of later rounds is seeded
    by it, so that the result does not depend on the other images of the batch.

    Args:
        loop: Computes the loss at latents (``loss_at``).
        step: The first denoising step.
        latents: The initial noise as the denoiser is fed it, but in fp32.
        state: Of this pipeline call; reports and counts are updated.

    Returns:
        The new noise, likewise; images without relations keep theirs.
    """
    assert loop.config.search is not None
    rounds, iterations, last_iterations = loop.config.search
    after = latents.clone()
    for i, target in enumerate(loop.targets):
        if not target.object_pairs:
            continue
        report = StepReport(step.info.step, step.info.noise_level)
        state.reports[i].steps.append(report)
        one = _ImageSearch(loop, step, i, state, report)
        generator = _generator(latents[i])
        best: tuple[float, Tensor, Tensor] | None = None
        for number in range(rounds):
            start = latents[i] if number == 0 else torch.randn(latents[i].shape, generator=generator)
            start = start.to(latents)
            noise, probability = one.optimise(start, iterations)
            if best is None or probability > best[0]:
                best = (probability, start, noise)
            if probability >= SUCCESS:
                break
        if best is not None:
            probability, start, noise = best
            done = probability >= SUCCESS or not last_iterations
            after[i] = noise if done else one.optimise(start, last_iterations)[0]
        state.loss_memory.pop(i, None)  # it is about noise that is no longer used
    return after


def _generator(latents: Tensor) -> torch.Generator:
    """A random generator whose seed is a hash of ``latents``."""
    digest = hashlib.sha256(latents.float().cpu().numpy().tobytes()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@dataclass(frozen=True)
class _ImageSearch:
    """The search of one image; ``report`` and ``state`` are kept up to date."""

    loop: SteeringLoop
    step: DenoisingStep
    index: int
    state: CallState
    report: StepReport

    def optimise(self, start: Float[Tensor, "*latents"], iterations: int) -> tuple[Float[Tensor, "*latents"], float]:
        """Run up to ``iterations`` of Adam; returns the noise and the probability at the last evaluation."""
        mean, log_variance = torch.zeros_like(start), torch.zeros_like(start)
        optimiser = torch.optim.Adam([mean, log_variance], lr=LEARNING_RATE, eps=EPSILON)
        probability = 0.0
        noise = start
        for _ in range(iterations):
            probability, gradient = self._gradient(noise)
            if not gradient.isfinite().all():
                self.state.reports[self.index].backoffs += 1
                self.state.failures[self.index] += 1
                break
            if probability >= SUCCESS:
                break
            # The chain rule by hand: ``gradient`` is with respect to the noise, a function of mean and log-variance.
            mean.grad, log_variance.grad = gradient, gradient * start * (log_variance / 2).exp() / 2
            optimiser.step()
            pull_to_prior(mean, log_variance, optimiser)
            noise = start * (log_variance / 2).exp() + mean
        return noise, probability

    def _gradient(self, noise: Tensor) -> tuple[float, Tensor]:
        """The lowest probability of a relation, and the gradient of the highest loss."""
        self.report.passes += 1
        self.state.iterations[self.index] += 1
        with self.loop.loss_at(self.step, noise[None], [self.index], self.state) as (output, leaf):
            loss = output.loss if output.search is None else output.search
            scale = loss_scale_of(self.step.call)
            (gradient,) = torch.autograd.grad(loss[0].max() * scale, leaf)
        self.report.probability = output.probability[0].tolist()
        return float(output.probability[0].min()), gradient[0] / scale


def pull_to_prior(
    mean: Float[Tensor, "*latents"], log_variance: Float[Tensor, "*latents"], optimiser: torch.optim.Optimizer
) -> None:
    """Move mean and log-variance towards the standard normal distribution, in place.

    Stops when their Kullback-Leibler divergence from it, averaged over the latents, is at most ``MAX_DIVERGENCE``.

    Args:
        mean: Zero for the standard normal distribution.
        log_variance: Likewise.
        optimiser: The one that fits both to the loss; its running averages are shared.
    """
    for _ in range(MAX_PRIOR_ITERATIONS):
        divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).mean()
        if divergence <= MAX_DIVERGENCE:
            return
        # Its gradient, written out; as in the published loss it is divided by the number of latents.
        mean.grad, log_variance.grad = mean / mean.numel(), 0.5 * (log_variance.exp() - 1) / mean.numel()
        optimiser.step()
