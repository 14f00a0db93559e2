"""Pipeline calls whose tensors have the same shapes whatever the images are.

Matrix products of other shapes add in another order. In batches of one shape, an image's bits do not depend on the
other images; on a CPU, they do not depend on its place either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from learn_to_steer.prompts import Relation
from learn_to_steer.steering.loop import SteeringLoop, loss_scale_of
from learn_to_steer.steering.report import StepReport
from learn_to_steer.steering.state import CallState, DenoisingStep, Evaluation, ImageState


class FixedShapeLoop(SteeringLoop):
    """A steering loop that evaluates all images in every iteration, those that need no more moves too."""

    def evaluate(
        self, step: DenoisingStep, images: Sequence[ImageState], iteration: int, state: CallState
    ) -> Evaluation:
        """As ``SteeringLoop.evaluate``. What is computed of images that are not in ``images`` is dropped."""
        wanted = {image.index: image for image in images}
        memory = dict(state.loss_memory)
        everyone = [
            wanted.get(i) or self._resting(i, step) for i, target in enumerate(self.targets) if target.object_pairs
        ]
        evaluation = super().evaluate(step, everyone, iteration, state)
        state.loss_memory.update((i, value) for i, value in memory.items() if i not in wanted)
        rows = [n for n, image in enumerate(everyone) if image.index in wanted]
        output = evaluation.output
        tensors: dict[str, Any] = {name: value[rows] for name, value in vars(output).items() if torch.is_tensor(value)}
        return Evaluation(
            replace(output, **tensors),
            [evaluation.refining[n] for n in rows],
            [evaluation.unsatisfied[n] for n in rows],
            evaluation.gradient[rows],
        )

    def _resting(self, index: int, step: DenoisingStep) -> ImageState:
        """An image that only fills its row."""
        latents = step.call.latents[index].float()
        report = StepReport(step.info.step, step.info.noise_level)
        start = latents, torch.zeros_like(latents)
        return ImageState(index, latents, 0.0, loss_scale_of(step.call), 0, 0.0, report, start)


@dataclass(frozen=True)
class PaddedPipeline:
    """A pipeline that draws a fixed number of images in every call, and returns those that were asked for.

    Attributes:
        pipeline: A ``SteeredPipeline`` or an ``UnsteeredPipeline``.
        rows: Images of every call.
    """

    pipeline: Any
    rows: int

    @property
    def pipe(self) -> Any:
        """The diffusers pipeline."""
        return self.pipeline.pipe

    @property
    def config(self) -> Any:
        """The settings of steering."""
        return self.pipeline.config

    def __call__(
        self,
        prompt: Sequence[str],
        relations: Sequence[Sequence[Relation]],
        generator: Sequence[torch.Generator],
        **arguments: Any,
    ) -> Any:
        """Run the pipeline.

        Args:
            prompt: At most ``rows`` prompts, one for each image.
            relations: The relations of each. Their number is the same for all.
            generator: That of each.
            **arguments: Further arguments, the same for all.

        Returns:
            The pipeline's output and report, cut to the images that were asked for.
        """
        count = len(prompt)
        padding = self.rows - count
        output = self.pipeline(
            prompt=[*prompt, *[prompt[0]] * padding],
            relations=[*relations, *[relations[0]] * padding],
            generator=[*generator, *(torch.Generator("cpu").manual_seed(n) for n in range(padding))],
            **arguments,
        )
        output.images = output.images[:count]
        output.steering.images = output.steering.images[:count]
        return output
