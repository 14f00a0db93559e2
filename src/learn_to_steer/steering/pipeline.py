"""One steered pipeline call: its targets, the hooks that last as long as the call, and its report.

Before a denoising step the loop moves the latents. The denoiser and the scheduler's ``step`` are then given the moved
ones. Whatever was changed on the pipeline is restored when the call ends, also after an exception.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from learn_to_steer.attention import AttentionCapture
from learn_to_steer.errors import PromptError, SteerError, UnsupportedError
from learn_to_steer.families import Call, Family
from learn_to_steer.losses.base import Loss, StepInfo
from learn_to_steer.steering.arguments import Columns, RelationLike
from learn_to_steer.steering.compatibility import check_pipeline, disable_compile
from learn_to_steer.steering.config import SteeringConfig
from learn_to_steer.steering.inputs import Target, read_targets, with_sampling_defaults
from learn_to_steer.steering.loop import CallState, DenoisingStep, SteeringLoop, index_batch
from learn_to_steer.steering.noise_search import search
from learn_to_steer.steering.report import ImageReport, SteeringReport

log = logging.getLogger(__name__)


class SteeredPipeline:
    """A pipeline with steering on it. Call it as you would call the pipeline; ``Steerer.on`` makes it.

    Attributes:
        pipe: The user's diffusers pipeline.
        family: Its family.
        loss: The loss.
        config: The settings, ``step_size`` included.
    """

    def __init__(self, pipe: Any, family: Family, loss: Loss, config: SteeringConfig) -> None:
        self.pipe, self.family, self.loss, self.config = pipe, family, loss, config

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        relations: RelationLike | Sequence[RelationLike] | Sequence[Sequence[RelationLike]] | None = None,
        columns: Columns | Sequence[Columns] | None = None,
        strict: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Run the pipeline, steered.

        Args:
            prompt: One prompt, or a list of them.
            relations: Used instead of the relations in the prompts: one or a list for one prompt, a list of lists for
                several. Each is a ``Relation``, ``"dog | left of | cat"`` or a triple. One that cannot be steered is
                an error.
            columns: The text columns (token positions) of each object's name, for each prompt. With text they are
                used instead of those of the name in the prompt. With ``prompt_embeds``, which also need
                ``relations``, every object must have some.
            strict: Whether a prompt without a relation, or with a relation that cannot be steered, is an error.
                Otherwise such a relation is left out, and images without any are made unsteered, with a warning.
            **kwargs: Passed on to the pipeline. Arguments that are not given are taken from
                ``pipe.steering_defaults``, which pipelines of ``load_pipeline`` have.

        Returns:
            The pipeline's own output, with a ``SteeringReport`` as ``.steering``. With ``return_dict=False``, the
            report is appended to the tuple.

        Raises:
            PromptError: A prompt or relation cannot be understood, or not be steered.
            UnsupportedError: Steering does not work with this scheduler, pipeline or setting.
            CaptureError: A layer's attention could not be read.
        """
        kwargs = with_sampling_defaults(self.pipe, kwargs)
        prompt_targets = read_targets(self.pipe, self.family, self.loss, prompt, relations, columns, kwargs, strict)
        _require_relations(prompt_targets, strict)
        copies = int(kwargs.get("num_images_per_prompt", 1))
        targets = [target for target in prompt_targets for _ in range(copies)]
        state = CallState(
            reports=[
                ImageReport(target.prompt, list(target.relations), left_out=list(target.left_out)) for target in targets
            ],
            iterations=[0] * len(targets),
        )
        report = SteeringReport(state.reports, self.config)
        if prompt is not None:
            kwargs["prompt"] = prompt if isinstance(prompt, str) else list(prompt)
        if not any(target.relations for target in targets):
            return _with_report(self.pipe(**kwargs), report)
        check_pipeline(self.pipe, self.family)
        with disable_compile(self.pipe):
            denoiser = getattr(self.pipe, self.family.denoiser)
            modules = self.family.attention_layers(denoiser), self.family.attention(denoiser)
            capture = AttentionCapture(*modules, self.loss.spec)
            loop = SteeringLoop(self.family, denoiser, self.loss, capture, self.config, targets)
            with hooked(self.pipe, loop, state):
                output = self.pipe(**kwargs)
        report.seconds = state.seconds
        self._note_unsteered(targets, state)
        return _with_report(output, report)

    def _note_unsteered(self, targets: Sequence[Target], state: CallState) -> None:
        """Note and log when no denoising step fell into the steered window (img2img of low strength)."""
        reports = [report for target, report in zip(targets, state.reports, strict=True) if target.object_pairs]
        unsteered = [report for report in reports if not report.steps]
        for report in unsteered:
            report.note = f"no denoising step fell into the steered window (first {self.config.window:.0%}); unsteered"
        if unsteered:
            log.warning("%d of %d images: %s", len(unsteered), len(targets), unsteered[0].note)


def _require_relations(targets: Sequence[Target], strict: bool) -> None:
    """Log prompts that cannot be steered; raise PromptError for them if ``strict``."""
    for index, target in enumerate(targets):
        if not target.relations:
            what = f"prompt {index + 1} of {len(targets)} names no relation that can be steered"
            if strict:
                raise PromptError(f"{what}; give relations=[...] or drop strict")
            log.warning("%s: its images are made unsteered", what)


def _with_report(output: Any, report: SteeringReport) -> Any:
    """The pipeline's output with the report on it."""
    if isinstance(output, tuple):
        return (*output, report)
    try:
        output.steering = report
    except AttributeError as error:
        raise UnsupportedError(
            f"the pipeline returned a {type(output).__name__}, which cannot carry a report"
        ) from error
    return output


@contextmanager
def hooked(pipe: Any, loop: SteeringLoop, state: CallState) -> Iterator[None]:
    """Steer the pipeline call that is made inside the context; afterwards the pipeline is as it was before.

    Args:
        pipe: A diffusers pipeline.
        loop: The steering loop of this call.
        state: The state of this call; updated as the call goes on.
    """
    denoiser, scheduler = loop.denoiser, pipe.scheduler
    hooks = _Hooks(pipe, loop, state)
    with ExitStack() as restore:
        own_step = scheduler.__dict__.get("step")
        restore.callback(_restore_step, scheduler, own_step)
        scheduler.step = hooks.steered_step(scheduler.step)
        if loop.config.checkpointing and not getattr(denoiser, "is_gradient_checkpointing", False):
            restore.callback(denoiser.disable_gradient_checkpointing)  # type: ignore[arg-type]
            denoiser.enable_gradient_checkpointing()  # type: ignore[operator]
        for parameter in denoiser.parameters():
            if parameter.requires_grad:
                restore.callback(parameter.requires_grad_, True)
                parameter.requires_grad_(False)
        handle = denoiser.register_forward_pre_hook(hooks.before_denoiser, with_kwargs=True)
        restore.callback(handle.remove)
        yield


def _restore_step(scheduler: Any, own_step: Any) -> None:
    if own_step is None:
        scheduler.__dict__.pop("step", None)
    else:
        scheduler.step = own_step


class _Hooks:
    """What runs inside a pipeline call: before the denoiser, and in place of the scheduler's step."""

    def __init__(self, pipe: Any, loop: SteeringLoop, state: CallState) -> None:
        self.pipe, self.loop, self.state = pipe, loop, state
        self.family, self.config, self.scheduler = loop.family, loop.config, pipe.scheduler

    def before_denoiser(
        self, denoiser: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Steer when a new denoising step begins, and feed the denoiser the moved latents."""
        state = self.state
        if state.optimising:
            return None
        if self.pipe.scheduler is not self.scheduler:
            raise SteerError("the pipeline's scheduler was replaced during a steered call; set it before the call")
        call = self.family.read(denoiser, args, kwargs)
        if state.step_is_new:
            self._begin_step()
            self._steer(call)
        if state.moved_latents is None:
            return None
        return (), self.family.write(replace(call, latents=self._with_moves(call.latents, state.input_scale)))

    def steered_step(self, step: Any) -> Any:
        """The scheduler's ``step``, starting from the moved latents."""

        # Pipelines inspect the signature for eta and generator; wraps keeps it visible.
        @functools.wraps(step)
        def stepped(model_output: Any, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
            state = self.state
            sample = self._with_moves(sample, 1.0)
            if state.prediction_offset is not None:
                model_output = model_output + state.prediction_offset.to(model_output.dtype)
            state.moved_latents = state.prediction_offset = None
            result = step(model_output, timestep, sample, *args, **kwargs)
            state.step_is_new = True
            return result

        return stepped

    def _begin_step(self) -> None:
        """Count the denoising step. Steps are counted, since some schedulers repeat timesteps."""
        state = self.state
        state.step_is_new = False
        # The first step of a pipeline that starts late in the schedule (img2img) is not step 0.
        scheduled = len(self.scheduler.timesteps)
        run = getattr(self.pipe, "num_timesteps", None) if state.step < 0 else None
        state.step += 1 + (scheduled - run if run else 0)

    def _steer(self, call: Call) -> None:
        """Run the loop on the conditional rows, if this step is steered, and keep the moved latents in the state."""
        state, images = self.state, len(self.loop.targets)
        batch = call.latents.shape[0]
        if batch not in (images, 2 * images):
            raise UnsupportedError(
                f"the denoiser is called with {batch} rows for {images} images; only one or two per image can be "
                "steered (turn off perturbed-attention guidance)"
            )
        timestep = call.time.flatten()[-1:]
        if not self._is_in_window(timestep):
            return
        began = time.monotonic()
        conditional = index_batch(call, torch.arange(batch - images, batch), batch) if batch > images else call
        state.input_scale = self._input_scale(call, timestep)
        info = StepInfo(self.family.noise_level(self.pipe, timestep), state.step, len(self.scheduler.timesteps))
        step = DenoisingStep(conditional, info, state.input_scale)
        before = conditional.latents.float()
        if step.scale != 1.0:
            before = before / step.scale
        state.optimising = True
        try:
            search_noise = state.step == 0 and self.config.search is not None
            start = search(self.loop, step, before, state) if search_noise else before
            after = self.loop.steer(step, start, state)
        finally:
            state.optimising = False
        self._keep(before, after)
        state.seconds += time.monotonic() - began

    def _keep(self, before: Tensor, after: Tensor) -> None:
        """Keep what the loop moved for the denoiser call and the scheduler step that follow."""
        state = self.state
        if self.config.update == "prediction":
            # The scheduler removes the predicted noise, so the move is subtracted from the prediction.
            state.prediction_offset, after = before - after, before
        # Only the images that moved: the others keep the bits of their latents.
        state.moved_rows = (after != before).flatten(1).any(1).nonzero().flatten()
        state.moved_latents = after[state.moved_rows].detach() if len(state.moved_rows) else None

    def _is_in_window(self, timestep: Tensor) -> bool:
        if self.config.by_step_index:
            steps = len(self.scheduler.timesteps)
            return self.config.start * steps <= self.state.step < self.config.window * steps
        return self.config.start <= self.family.progress(self.pipe, timestep) <= self.config.window

    def _input_scale(self, call: Call, timestep: Tensor) -> float:
        """The factor by which the scheduler scaled the denoiser's input (Euler: 1 / sqrt(sigma^2 + 1))."""
        if not hasattr(self.scheduler, "scale_model_input"):
            return 1.0
        one = torch.ones(1, device=call.latents.device, dtype=torch.float64)
        return float(self.scheduler.scale_model_input(one, timestep[0]))

    def _with_moves(self, latents: Tensor, scale: float) -> Tensor:
        """``latents`` with the moved rows replaced, in both halves under guidance; other rows keep their bits."""
        if self.state.moved_latents is None:
            return latents
        moved = latents.clone()
        after = self.state.moved_latents if scale == 1.0 else self.state.moved_latents * scale
        images = len(self.loop.targets)
        for half in range(latents.shape[0] // images):
            moved[self.state.moved_rows + half * images] = after.to(latents.dtype)
        return moved
