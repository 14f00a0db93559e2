"""The loop inside one denoising step: attention maps, loss, gradient, update, until every image is good enough.

``SteeringLoop.steer`` is the place to start. ``SteeringLoop`` holds what is fixed during a pipeline call, ``CallState``
what changes during it. For one denoising step, ``DenoisingStep`` holds what is fixed and ``ImageState`` what changes
(``steering/state.py``). ``examples/minimal.py`` states the method without batches and safeguards.

Latents are those that the denoiser is fed, so that a move is the same with every scheduler; some schedulers scale
their own before (Euler: by 1 / sqrt(sigma^2 + 1)).

Source:
    Paper (arXiv 2509.02295), section 3 and algorithm 1; with the "official" profile, the loop of the authors' code.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from learn_to_steer.attention import AttentionCapture, run_until_captured
from learn_to_steer.families import Call, Family
from learn_to_steer.losses.base import Loss, LossOutput, StepInfo
from learn_to_steer.maps import AttentionMaps, columns_to_weights
from learn_to_steer.steering.config import SteeringConfig
from learn_to_steer.steering.inputs import Target, word_columns
from learn_to_steer.steering.report import ImageReport, StepReport
from learn_to_steer.steering.state import CallState, DenoisingStep, Evaluation, ImageState

FP16_LOSS_SCALE = 1024.0  # fp16 gradients of a loss near its target would underflow
LOSS_SCALE_DIVISOR = 32.0  # applied when they overflow instead
MAX_BACKOFFS = 3  # in one denoising step


@dataclass(frozen=True)
class SteeringLoop:
    """Moves the latents of one denoising step until the loss is satisfied or the iterations are used up.

    Attributes:
        family: The facts of the model family.
        denoiser: The UNet or transformer.
        loss: The loss.
        capture: Reads the attention maps that the loss needs.
        config: The settings.
        targets: What each image of the call is steered towards.
    """

    family: Family
    denoiser: nn.Module
    loss: Loss
    capture: AttentionCapture
    config: SteeringConfig
    targets: Sequence[Target]

    def steer(
        self, step: DenoisingStep, latents: Float[Tensor, "images *latents"], state: CallState
    ) -> Float[Tensor, "images *latents"]:
        """Run the iterations of one denoising step. Every image stops on its own and then leaves the batch.

        Args:
            step: The denoising step.
            latents: Of all images, as the denoiser is fed them, but in fp32.
            state: Of this pipeline call; the reports and counts in it are kept up to date.

        Returns:
            The latents after the last update. Images that needed no move keep their bits.
        """
        images = self._begin_step(step, latents, state)
        remaining = [image for image in images if self._needs_moves(image, state)]
        refinements, _ = refinement_at(self.config, step.info)
        for iteration in range(refinements + self.config.iterations):
            if not remaining:
                break
            evaluation = self.evaluate(step, remaining, iteration, state)
            self._count(remaining, evaluation, state)
            remaining = self._update(remaining, evaluation, state)
        after = latents.clone()
        for image in images:
            after[image.index] = image.latents
        return after

    def _begin_step(self, step: DenoisingStep, latents: Tensor, state: CallState) -> list[ImageState]:
        """The images that are steered in this step, with a report for each."""
        step_size, loss_scale = step_size_at(self.config, step.info), loss_scale_of(step.call)
        refinements, refine_until = refinement_at(self.config, step.info)
        images = []
        for i, target in enumerate(self.targets):
            left = state.iterations[i] < self.config.max_iterations
            if not target.object_pairs or not (left or self.config.check_while_sampling):
                continue
            report = StepReport(step.info.step, step.info.noise_level)
            state.reports[i].steps.append(report)
            start = latents[i], torch.zeros_like(latents[i])
            images.append(ImageState(i, latents[i], step_size, loss_scale, refinements, refine_until, report, start))
        return images

    @contextmanager
    def checking(self, step: DenoisingStep, first_row: int, state: CallState) -> Iterator[None]:
        """Read the loss off a forward that the pipeline makes anyway; images that satisfy it rest in the next step.

        What the loss remembers (``LossOutput.memory``) stays as it was after the last iteration.

        Args:
            step: The denoising step, after ``steer``.
            first_row: Of the conditional rows in the batch of that forward.
            state: Of this pipeline call. The reports and ``satisfied`` are brought up to date.
        """
        indices = [i for i, target in enumerate(self.targets) if target.object_pairs]
        rows = torch.tensor(indices) + first_row
        with self._capturing(self._of_images(step, indices), indices, state, rows) as maps:
            yield
            began = time.monotonic()
            output = self.loss(maps(), [self.targets[i].object_pairs for i in indices], step.info)
            losses = self._reduce(output.loss, indices, 0)
            for n, i in enumerate(indices):
                self._note_probability(output, n, state.reports[i], state.reports[i].steps[-1])
            state.satisfied = {i for n, i in enumerate(indices) if self._is_satisfied(output, losses, n, i, step.info)}
            state.seconds += time.monotonic() - began

    def evaluate(
        self, step: DenoisingStep, images: Sequence[ImageState], iteration: int, state: CallState
    ) -> Evaluation:
        """One forward and, unless every image is satisfied, one backward; ``iteration`` counts them in this step."""
        indices = [image.index for image in images]
        latents = torch.stack([image.latents for image in images])
        with self.loss_at(step, latents, indices, state) as (output, leaf):
            refining = [self._needs_refinement(output, n, image) for n, image in enumerate(images)]
            losses = self._reduce(output.loss, indices, iteration)
            if output.refinement is not None and any(refining):
                refinement = self._reduce(output.refinement, indices, iteration)
                losses = torch.where(torch.tensor(refining, device=losses.device), refinement, losses)
            unsatisfied = [
                refining[n] or not self._is_satisfied(output, losses, n, i, step.info) for n, i in enumerate(indices)
            ]
            gradient = torch.zeros_like(latents)
            if any(unsatisfied):
                rows = [n for n in range(len(images)) if unsatisfied[n]]
                loss_scale = torch.tensor([image.loss_scale for image in images], device=latents.device)
                (scaled,) = torch.autograd.grad((losses * loss_scale)[rows].sum(), leaf)
                gradient = scaled.detach() / loss_scale.view(-1, *[1] * (latents.ndim - 1))
        return Evaluation(output, refining, unsatisfied, gradient)

    @contextmanager
    def loss_at(
        self, step: DenoisingStep, latents: Float[Tensor, "some *latents"], indices: Sequence[int], state: CallState
    ) -> Iterator[tuple[LossOutput, Float[Tensor, "some *latents"]]]:
        """Compute the loss at some latents. The gradient has to be taken inside the context.

        Args:
            step: The denoising step.
            latents: Of the images at ``indices``, as the denoiser is fed them, but in fp32.
            indices: Of the images in the pipeline call.
            state: Of this pipeline call; what the loss remembers is read and updated.

        Yields:
            What the loss returned, and the leaf tensor with respect to which its gradient is to be taken.
        """
        call = self._of_images(step, indices)
        with torch.enable_grad():
            leaf = latents.detach().requires_grad_()
            model_input = leaf.to(call.latents.dtype)
            with self._capturing(call, indices, state) as maps:
                run_until_captured(
                    self.denoiser, self.family.write(replace(call, latents=model_input)) | {"return_dict": False}
                )
                output = self.loss(maps(), [self.targets[i].object_pairs for i in indices], step.info)
                state.loss_memory.update(zip(indices, output.memory, strict=False))
                yield output, leaf

    def _of_images(self, step: DenoisingStep, indices: Sequence[int]) -> Call:
        """The denoiser call of some images."""
        return index_batch(step.call, torch.tensor(indices), len(self.targets))

    @contextmanager
    def _capturing(
        self, call: Call, indices: Sequence[int], state: CallState, rows: Int[Tensor, " images"] | None = None
    ) -> Iterator[Callable[[], AttentionMaps]]:
        """Capture what the loss reads of the images at ``indices``; ``rows`` are theirs in a larger batch."""
        targets = [self.targets[i] for i in indices]
        tokens, device = self.family.text_length(call), call.latents.device
        spans = self.family.spans(self.denoiser, call)
        weights = columns_to_weights([target.columns for target in targets], tokens, spans)
        every_column = self.loss.spec.columns == "every"
        captured = torch.eye(tokens).expand(len(indices), -1, -1) if every_column else weights
        size = self.family.latent_size(self.denoiser, call)
        with self.capture.capture(captured, *size, rows, spans) as captured_maps:

            def maps() -> AttentionMaps:
                result = replace(captured_maps(), memory=tuple(state.loss_memory.get(i) for i in indices))
                if not every_column:
                    return result
                words = word_columns(targets, tokens, spans).to(device)
                return replace(result, objects=weights.to(device), words=words)

            yield maps

    def _count(self, images: Sequence[ImageState], evaluation: Evaluation, state: CallState) -> None:
        """Enter an evaluation into the reports and the counts."""
        for n, image in enumerate(images):
            self._note_probability(evaluation.output, n, state.reports[image.index], image.report)
            image.report.passes += evaluation.unsatisfied[n]
            image.report.checks += not evaluation.unsatisfied[n]
            state.iterations[image.index] += evaluation.unsatisfied[n]
            image.refinements_left = image.refinements_left - 1 if evaluation.refining[n] else 0
            image.regular += not evaluation.refining[n]

    def _note_probability(self, output: LossOutput, n: int, report: ImageReport, step: StepReport) -> None:
        """Enter what the loss says of the ``n``-th evaluated image. The last evaluation decides on convergence."""
        if output.loss[n].isfinite().all():
            step.probability = output.probability[n, : len(report.relations)].tolist()
        report.converged = self._probability(step.probability) >= self.config.threshold

    def _update(self, images: Sequence[ImageState], evaluation: Evaluation, state: CallState) -> list[ImageState]:
        """Move the unsatisfied images; returns those that another iteration is made for."""
        finite = evaluation.gradient.flatten(1).isfinite().all(dim=1).tolist()
        unfinished = []
        for n, image in enumerate(images):
            if not evaluation.unsatisfied[n]:
                continue
            state.failures[image.index] += not finite[n]
            moved = self._move(image, evaluation.gradient[n], finite[n], state.reports[image.index])
            if moved and self._has_iterations_left(image, state):
                unfinished.append(image)
        return unfinished

    def _move(self, image: ImageState, gradient: Tensor, finite: bool, report: ImageReport) -> bool:
        """Move one image's latents against the gradient; False when the image is given up for this step.

        After a gradient that is not finite, the loss scale is lowered (fp16 only) and nothing moves. If it cannot be
        lowered any further, the image goes back to its last good latents and takes half the step from there.
        """
        if finite:
            image.last_good = image.latents, self._direction(gradient)
        elif image.loss_scale > 1:
            image.loss_scale /= LOSS_SCALE_DIVISOR
            return True
        else:
            report.backoffs += 1
            image.failures += 1
            image.step_size /= 2
        latents, direction = image.last_good
        if image.failures > MAX_BACKOFFS and not finite:
            image.latents = latents
            return False
        image.latents = latents - image.step_size * direction
        if self.config.keep_norm:
            image.latents = image.latents * (latents.norm() / image.latents.norm().clamp_min(1e-12))
        return True

    def _direction(self, gradient: Tensor) -> Tensor:
        """The gradient of one image, clipped and normalised as configured."""
        if self.config.clip is not None:
            gradient = gradient * (self.config.clip / gradient.norm().clamp_min(self.config.clip))
        if not self.config.normalised:
            return gradient
        return gradient / gradient.square().mean().sqrt().clamp_min(1e-12)

    def _needs_moves(self, image: ImageState, state: CallState) -> bool:
        """Whether iterations are made for an image in this step, as far as is known at its beginning."""
        waits = image.index in state.satisfied and not image.refinements_left
        return not waits and state.iterations[image.index] < self.config.max_iterations

    def _has_iterations_left(self, image: ImageState, state: CallState) -> bool:
        in_step = image.refinements_left > 0 or image.regular < self.config.iterations
        return in_step and state.iterations[image.index] < self.config.max_iterations

    def _reduce(
        self, losses: Float[Tensor, "images relations"], indices: Sequence[int], iteration: int
    ) -> Float[Tensor, " images"]:
        """One loss per image: of all its relations, of the worst, or of the one whose turn it is."""
        if self.config.relation_reduction == "worst":
            return losses.max(dim=1).values
        if self.config.relation_reduction == "sum":
            return losses.sum(dim=1)
        turns = [iteration % len(self.targets[i].object_pairs) for i in indices]
        return losses.gather(1, torch.tensor(turns, device=losses.device)[:, None])[:, 0]

    def _is_satisfied(self, output: LossOutput, losses: Tensor, n: int, index: int, info: StepInfo) -> bool:
        """The stop rule for the ``n``-th evaluated image, which is number ``index`` of the call."""
        if self.config.loss_targets:
            target = self.config.loss_targets[min(info.step, len(self.config.loss_targets) - 1)]
            return bool(losses[n] <= target)
        relations = len(self.targets[index].object_pairs)
        return self._probability(output.probability[n, :relations].tolist()) >= self.config.threshold

    def _probability(self, relations: Sequence[float]) -> float:
        """The probability of the stop rule: the product over relations, as if independent, or the lowest."""
        if not relations:
            return 0.0
        return math.prod(relations) if self.config.stop == "all" else min(relations)

    def _needs_refinement(self, output: LossOutput, n: int, image: ImageState) -> bool:
        """Whether the ``n``-th evaluated image is in refinement and has not reached its target."""
        if image.refinements_left <= 0:
            return False
        relations = len(self.targets[image.index].object_pairs)
        allowed = output.refinable is None or bool(output.refinable[n, :relations].all())
        return allowed and bool(output.probability[n, :relations].min() < image.refine_until)


def loss_scale_of(call: Call) -> float:
    """Return the factor of the loss while its gradient is computed: above 1 in fp16 only."""
    return FP16_LOSS_SCALE if call.latents.dtype == torch.float16 else 1.0


def step_size_at(config: SteeringConfig, info: StepInfo) -> float:
    """Return the step size in one denoising step, in units of the denoiser's input per unit of the direction.

    Args:
        config: The settings; ``step_size`` is a number, as in every config of a ``SteeredPipeline``.
        info: Noise level and index of the step.

    Raises:
        ValueError: ``step_size`` is None.
    """
    if config.step_size is None:
        raise ValueError("step_size is None: Steerer.on sets it to what the model needs")
    step_size = config.step_size
    if config.decay != 1.0:
        step_size *= math.sqrt(1 - (1 - config.decay) * info.step / max(info.steps - 1, 1))
    return step_size * info.noise_level**2 if config.by_variance else step_size


def refinement_at(config: SteeringConfig, info: StepInfo) -> tuple[int, float]:
    """Return the most refinement iterations before one denoising step, and the probability that ends them."""
    rows = [row for row in config.refinement if int(row[0] * info.steps + 0.5) == info.step]
    return (int(rows[0][1]), float(rows[0][2])) if rows else (0, 0.0)


def index_batch(call: Call, index: Int[Tensor, " rows"], batch: int) -> Call:
    """Return a denoiser call with some of the rows of another.

    Every tensor whose first axis is the batch is indexed, nested ones too (ControlNet residuals,
    ``added_cond_kwargs``), and so is every list in ``call.lists``; what is in ``call.shared`` is not.

    Args:
        call: The denoiser call.
        index: The rows to keep, in the new order.
        batch: Number of rows of ``call``.
    """

    def indexed(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[index.to(value.device)] if value.ndim and value.shape[0] == batch else value
        if isinstance(value, (tuple, list)):
            return type(value)(indexed(v) for v in value)
        if isinstance(value, Mapping):
            return {key: indexed(v) for key, v in value.items()}
        return value

    lists = {name: tuple(entries[i] for i in index.tolist()) for name, entries in call.lists.items()}
    return Call(indexed(call.latents), indexed(call.time), indexed(call.rest), call.shared, lists)
