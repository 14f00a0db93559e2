"""One steered pipeline call: its targets, its own view of the pipeline, and its report.

The pipeline's own ``__call__`` runs on a view of the pipeline that belongs to the call. What comes to the view's
denoiser and scheduler is the call's, whatever else uses the same model meanwhile. Before a denoising step the loop
moves the latents; the denoiser and the scheduler's ``step`` are then given the moved ones.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from learn_to_steer.attention import AttentionCapture
from learn_to_steer.errors import PromptError, UnsupportedError
from learn_to_steer.families import Call, Family
from learn_to_steer.losses.base import Loss, StepInfo
from learn_to_steer.steering.arguments import Columns, RelationLike
from learn_to_steer.steering.compatibility import (
    TIMEOUT,
    check_pipeline,
    object_view,
    own_scheduler,
    pipeline_view,
    prepared,
    refuse_inference_tensors,
    run_eagerly,
    uncompiled,
    users_callback,
    with_report,
)
from learn_to_steer.steering.config import SteeringConfig
from learn_to_steer.steering.inputs import Target, read_targets, with_sampling_defaults
from learn_to_steer.steering.loop import SteeringLoop, index_batch
from learn_to_steer.steering.noise_search import search
from learn_to_steer.steering.report import ImageReport, SteeringReport
from learn_to_steer.steering.state import CallState, DenoisingStep
from learn_to_steer.steering.tries import draw_best
from learn_to_steer.steering.verifiers import Verifier

log = logging.getLogger(__name__)


class SteeredPipeline:
    """A pipeline with steering on it. Call it as you would call the pipeline; ``Steerer.on`` makes it.

    Attributes:
        pipe: The user's diffusers pipeline.
        family: Its family.
        loss: The loss.
        config: The settings, ``step_size`` included.
        loop_type: The class of the loop inside a denoising step.
    """

    loop_type: type[SteeringLoop] = SteeringLoop

    def __init__(self, pipe: Any, family: Family, loss: Loss, config: SteeringConfig) -> None:
        # The pipeline that a callback is given is another call's.
        self.pipe = getattr(pipe, "steered_pipeline", pipe)
        self.family, self.loss, self.config = family, loss, config

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        relations: RelationLike | Sequence[RelationLike] | Sequence[Sequence[RelationLike]] | None = None,
        columns: Columns | Sequence[Columns] | None = None,
        strict: bool = False,
        timeout: float | None = TIMEOUT,
        tries: int = 1,
        verifier: str | Verifier | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the pipeline, steered.

        Args:
            prompt: One prompt, or a list of them.
            relations: Used instead of those in the prompts: one or a list for one prompt, a list of lists for several.
                Each is a ``Relation``, ``"dog | left of | cat"`` or a triple. One that cannot be steered is an error.
            columns: For each prompt, the text columns (token positions) of objects by name, used instead of those of
                the name in the text. ``prompt_embeds`` need ``relations``, and columns for all objects.
            strict: Whether a prompt without a relation, or with a relation that cannot be steered, is an error.
                Otherwise such a relation is left out, and images without any are made unsteered, with a warning.
            timeout: Seconds to wait while another thread steers the same denoiser. None: as long as it takes. A
                steered call that is begun inside another one, in a callback, never waits.
            tries: How often an image is drawn at most, until it is satisfactory; the best is returned (``draw_best``).
            verifier: What looks at finished images: the name of a detector, a ``Verifier``, or "classifier". None: with
                several tries the model's default, else the classifier, which cannot see a missing or doubled object.
            **kwargs: Passed on to the pipeline. Arguments that are not given are taken from
                ``pipe.steering_defaults``, which pipelines of ``load_pipeline`` have.

        Returns:
            The pipeline's own output, with a ``SteeringReport`` as ``.steering``. With ``return_dict=False``, the
            report is appended to the tuple.

        Raises:
            PromptError: A prompt or relation cannot be understood, or not be steered.
            UnsupportedError: Steering does not work with this scheduler, pipeline or setting.
            CaptureError: A layer's attention could not be read.
            SteerError: Another thread did not finish within ``timeout``.
        """
        if tries != 1 or verifier is not None:
            own = {"prompt": prompt, "relations": relations, "columns": columns, "strict": strict, "timeout": timeout}
            return draw_best(self, own | kwargs, tries, verifier)
        kwargs = with_sampling_defaults(self.pipe, kwargs)
        found = read_targets(self.pipe, self.family, self.loss, prompt, relations, columns, kwargs, strict)
        require_relations(found, strict)
        if prompt is not None:
            kwargs["prompt"] = prompt if isinstance(prompt, str) else list(prompt)
        call = functools.partial(run_steered, self.pipe, arguments=kwargs)
        return with_report(*self.run(call, found, kwargs, timeout))

    def run(
        self, call: Callable[..., Any], found: Sequence[Target], arguments: Mapping[str, Any], timeout: float | None
    ) -> tuple[Any, SteeringReport]:
        """Return what ``call(loop, state)`` returns, and the report; the loop is None if no prompt has a relation."""
        targets = [target for target in found for _ in range(int(arguments.get("num_images_per_prompt", 1)))]
        reports = [ImageReport(one.prompt, list(one.relations), left_out=list(one.left_out)) for one in targets]
        state = CallState(reports=reports, iterations=[0] * len(targets))
        report = SteeringReport(state.reports, self.config)
        if not any(target.relations for target in targets):
            return call(None, state), report
        check_pipeline(self.pipe, self.family, arguments)
        if isinstance(classifier := getattr(self.loss, "classifier", None), nn.Module):
            refuse_inference_tensors(classifier, "the classifier")
        denoiser = uncompiled(getattr(self.pipe, self.family.denoiser))
        with prepared(denoiser, self.config.checkpointing, timeout), self.family.mended(denoiser):
            modules = self.family.attention_layers(denoiser), self.family.attention(denoiser)
            capture = AttentionCapture(*modules, self.loss.spec)
            output = call(self.loop_type(self.family, denoiser, self.loss, capture, self.config, targets), state)
        report.seconds = state.seconds
        for image in state.reports:
            image.satisfied = image.converged if image.steps and self.config.threshold <= 1 else None
        _note_troubles(targets, state, self.config.window)
        return output, report


def _note_troubles(targets: Sequence[Target], state: CallState, window: float) -> None:
    """Note and log images that no step steered, and gradients that were not finite, whatever fp16's loss scale."""
    unsteered = [r for t, r in zip(targets, state.reports, strict=True) if t.object_pairs and not r.steps]
    for report in unsteered:
        report.note = f"no denoising step fell into the steered window (first {window:.0%}); unsteered"
    if unsteered:
        log.warning("%d of %d images: %s", len(unsteered), len(targets), unsteered[0].note)
    for index, (report, made) in enumerate(zip(state.reports, state.iterations, strict=True)):
        failures = state.failures[index]
        if report.backoffs or failures == made > 0:
            report.note = (
                f"gradient not finite in {failures} of {made} iterations: the model or the loss overflows in its dtype "
                "(try float32 or bfloat16), or weights are damaged"
            )
            log.warning("image %d of %d: %s", index + 1, len(state.reports), report.note)


def require_relations(targets: Sequence[Target], strict: bool) -> None:
    """Log prompts that cannot be steered; raise PromptError for them if ``strict``."""
    for index, target in enumerate(targets):
        if not target.relations:
            what = f"prompt {index + 1} of {len(targets)} names no relation that can be steered"
            if strict:
                raise PromptError(f"{what}; give relations=[...] or drop strict")
            log.warning("%s: its images are made unsteered", what)


def run_steered(pipe: Any, loop: SteeringLoop | None, state: CallState, arguments: Mapping[str, Any]) -> Any:
    """Run a call of ``pipe``, steered, and return its output.

    Args:
        pipe: A diffusers pipeline, whose denoiser is ``prepared``.
        loop: The steering loop of this call; None if there is nothing to steer.
        state: The state of this call; updated as the call goes on.
        arguments: Keyword arguments of the call.
    """
    if loop is None:
        return pipe(**arguments)
    if getattr(pipe, "_interrupt", False):  # by an earlier call; this one starts like any other
        pipe._interrupt = False
    hooks = CallHooks(pipe, loop, state)
    if (callback := arguments.get("callback_on_step_end")) is not None:
        wrapped = users_callback(callback, pipe, hooks.view, loop.family.denoiser, hooks.exchange_attributes)
        arguments = {**arguments, "callback_on_step_end": wrapped}
        if hasattr(callback, "tensor_inputs"):  # diffusers' own kind of callbacks, which pipelines know by their class
            arguments["callback_on_step_end_tensor_inputs"] = callback.tensor_inputs
    try:
        return type(pipe).__call__(hooks.view, **arguments)
    finally:
        hooks.end()


class CallHooks:
    """What runs inside a pipeline call: before the denoiser, and in place of the scheduler's step.

    Attributes:
        view: The pipeline that belongs to the call; it also has the attributes ``**own``.
    """

    def __init__(self, pipe: Any, loop: SteeringLoop, state: CallState, **own: Any) -> None:
        self.pipe, self.loop, self.state = pipe, loop, state
        self.family, self.config = loop.family, loop.config
        self.scheduler = own_scheduler(pipe.scheduler, self.steered_step)
        denoiser = object_view(loop.denoiser, __call__=self.call_denoiser)
        self.view = pipeline_view(pipe, {self.family.denoiser: denoiser, "scheduler": self.scheduler, **own})
        self.known = dict(vars(self.view))

    def end(self) -> None:
        """Let go of the views, so that memory is freed without waiting for the garbage collector."""
        self.exchange_attributes()
        del self.view, self.scheduler, self.known

    def exchange_attributes(self) -> None:
        """Set public attributes of the view on the user's pipeline, and stop this call if that one is told to stop."""
        before, self.known = self.known, dict(vars(self.view))
        for name, value in self.known.items():
            if not name.startswith("_") and value is not before.get(name, before):
                setattr(self.pipe, name, value)
        if getattr(self.pipe, "_interrupt", False):
            self.view._interrupt = True

    def call_denoiser(self, *args: Any, **kwargs: Any) -> Any:
        """Steer when a new denoising step begins, and feed the denoiser the moved latents."""
        state, denoiser = self.state, self.loop.denoiser
        call = self.family.read(denoiser, args, kwargs)
        with run_eagerly(), ExitStack() as around:
            if state.step_is_new:
                self._begin_step()
                step = self._steer(call)
                if step is not None and self.config.check_while_sampling:
                    first = self.family.first_conditional_row(len(call.latents), len(self.loop.targets))
                    around.enter_context(self.loop.checking(step, first, state))
            if state.moved_latents is None:
                return denoiser(*args, **kwargs)
            latents = self._with_moves(call.latents, state.moved_latents)
            return denoiser(**self.family.write(replace(call, latents=latents)))

    def steered_step(self, step: Any) -> Any:
        """The scheduler's ``step``, starting from the moved latents."""

        # Pipelines inspect the signature for eta and generator; wraps keeps it visible.
        @functools.wraps(step)
        def stepped(model_output: Any, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
            state = self.state
            if state.moved_latents is not None:
                sample = self._with_moves(sample, self._moved_rows(sample, state.moved_latents))
            if state.prediction_offset is not None:
                model_output = model_output + state.prediction_offset.to(model_output.dtype)
            state.moved_latents = state.prediction_offset = None
            result = step(model_output, timestep, sample, *args, **kwargs)
            state.step_is_new = True
            self.exchange_attributes()
            return result

        return stepped

    def _begin_step(self) -> None:
        """Count the denoising step. Steps are counted, since some schedulers repeat timesteps."""
        state = self.state
        state.step_is_new = False
        # The first step of a pipeline that starts late in the schedule (img2img) is not step 0.
        scheduled = len(self.scheduler.timesteps)
        run = getattr(self.view, "num_timesteps", None) if state.step < 0 else None
        state.step += 1 + (scheduled - run if run else 0)

    def _steer(self, call: Call) -> DenoisingStep | None:
        """Run the loop on the conditional rows and keep the moved latents in the state; None if it is not steered."""
        state, images = self.state, len(self.loop.targets)
        batch = call.latents.shape[0]
        if batch not in (images, 2 * images):
            raise UnsupportedError(
                f"the denoiser is called with {batch} rows for {images} images; only one or two per image can be "
                "steered (turn off perturbed-attention guidance)"
            )
        timestep = call.time.flatten()[-1:]
        if not self._is_in_window(timestep):
            return None
        began = time.monotonic()
        first = self.family.first_conditional_row(batch, images)
        conditional = index_batch(call, torch.arange(first, first + images), batch) if batch > images else call
        state.input_scale = self._input_scale(call, timestep)
        info = StepInfo(self.family.noise_level(self.view, timestep), state.step, len(self.scheduler.timesteps))
        step = DenoisingStep(conditional, info)
        # Cloned, since a user's own latents may come from inference_mode.
        before = conditional.latents.float().clone()
        search_noise = state.step == 0 and self.config.search is not None
        start = search(self.loop, step, before, state) if search_noise else before
        self._keep(before, self.loop.steer(step, start, state), call.latents.dtype)
        state.seconds += time.monotonic() - began
        return step

    def _keep(self, before: Tensor, after: Tensor, fed: torch.dtype) -> None:
        """Keep what the loop moved for the denoiser call and the scheduler step that follow."""
        state = self.state
        if self.config.update == "prediction":
            # The scheduler removes the predicted noise, so the move is subtracted from the prediction.
            state.prediction_offset, after = before - after, before
        # Only the images that moved: the others keep the bits of their latents.
        state.moved_rows = (after != before).flatten(1).any(1).nonzero().flatten()
        state.moved_latents = after[state.moved_rows].detach() if len(state.moved_rows) else None
        state.moves = (after - before)[state.moved_rows].detach() if fed != torch.float32 else None

    def _is_in_window(self, timestep: Tensor) -> bool:
        if self.config.by_step_index:
            steps = len(self.scheduler.timesteps)
            return self.config.start * steps <= self.state.step < self.config.window * steps
        return self.config.start <= self.family.progress(self.view, timestep) <= self.config.window

    def _input_scale(self, call: Call, timestep: Tensor) -> float:
        """The factor by which the scheduler scaled the denoiser's input (Euler: 1 / sqrt(sigma^2 + 1))."""
        if not hasattr(self.scheduler, "scale_model_input"):
            return 1.0
        dtype = torch.float32 if call.latents.device.type == "mps" else torch.float64  # which Apple's GPUs lack
        one = torch.ones(1, device=call.latents.device, dtype=dtype)
        return float(self.scheduler.scale_model_input(one, timestep[0]))

    def _moved_rows(self, sample: Tensor, moved: Tensor) -> Tensor:
        """The moved rows of the scheduler's latents; of those in fp32, no digits are lost to what is fed."""
        moves, scale = self.state.moves, self.state.input_scale
        if moves is None or sample.dtype != torch.float32:
            return moved / scale
        rows = sample[self.state.moved_rows]
        return rows + (moves / scale).reshape(rows.shape)

    def _with_moves(self, latents: Tensor, moved: Tensor) -> Tensor:
        """``latents`` with the moved rows replaced, in both halves under guidance; other rows keep their bits."""
        result, images = latents.clone(), len(self.loop.targets)
        for half in range(latents.shape[0] // images):
            # A pipeline may keep an axis of frames that the denoiser is not fed.
            result[self.state.moved_rows + half * images] = moved.to(latents.dtype).reshape(-1, *latents.shape[1:])
        return result
