"""The hooks that live for one pipeline call: steer before the denoiser, then step the moved latents."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from learn_to_steer.errors import SteerError, UnsupportedError
from learn_to_steer.families import Call, Family
from learn_to_steer.objectives._protocol import Clock
from learn_to_steer.replay import sliced
from learn_to_steer.steering.noise_search import search
from learn_to_steer.steering.refine import Refiner


class Session:
    """State of one call: the step it is in and the moved latents of that step."""

    def __init__(self, pipe: Any, family: Family, refiner: Refiner) -> None:
        self.pipe, self.family, self.refiner = pipe, family, refiner
        self.scheduler = pipe.scheduler
        self.seconds = 0.0
        self._rows = torch.tensor([], dtype=torch.long)  # samples that moved in this step
        self._step = -1
        self._fresh = True
        self._busy = False
        self._after: Tensor | None = None
        self._push: Tensor | None = None  # what the objective adds to the prediction of this step
        self._scale = 1.0

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Hooks, frozen parameters and checkpointing for the inside; everything as before afterwards."""
        denoiser: nn.Module = self.refiner.denoiser
        trainable = [p for p in denoiser.parameters() if p.requires_grad]
        own_step = self.scheduler.__dict__.get("step")
        switch = self.refiner.config.checkpointing and not getattr(denoiser, "is_gradient_checkpointing", False)
        handle = denoiser.register_forward_pre_hook(self._before_denoiser, with_kwargs=True)
        try:
            for parameter in trainable:
                parameter.requires_grad_(False)
            if switch:
                denoiser.enable_gradient_checkpointing()  # type: ignore[operator]
            self.scheduler.step = self._wrapped(self.scheduler.step)
            yield
        finally:
            handle.remove()
            for parameter in trainable:
                parameter.requires_grad_(True)
            if switch:
                denoiser.disable_gradient_checkpointing()  # type: ignore[operator]
            if own_step is None:
                self.scheduler.__dict__.pop("step", None)
            else:
                self.scheduler.step = own_step

    def _wrapped(self, step: Any) -> Any:
        # Pipelines look into the signature for eta and generator; wraps keeps it visible.
        @functools.wraps(step)
        def steer_then_step(model_output: Any, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
            moved = self._moved(sample, 1.0)
            model_output = self._pushed(model_output)
            self._after = None
            result = step(model_output, timestep, moved, *args, **kwargs)
            self._fresh = True
            return result

        return steer_then_step

    def _before_denoiser(
        self, denoiser: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self._busy:
            return None
        if self.pipe.scheduler is not self.scheduler:
            raise SteerError("the pipeline's scheduler was replaced during a steered call; set it before the call")
        call = self.family.read(denoiser, args, kwargs)
        if self._fresh:
            self._fresh = False
            # A pipeline that starts late in the schedule (img2img) says how many steps it makes.
            total = len(self.scheduler.timesteps)
            made = getattr(self.pipe, "num_timesteps", None) if self._step < 0 else None
            self._step += 1 + (total - made if made else 0)
            self._begin(call)
        if self._after is None:
            return None
        return (), self.family.write(replace(call, latents=self._moved(call.latents, self._scale)))

    def _begin(self, call: Call) -> None:
        """A new denoising step: refine the conditional rows and remember by how much they moved."""
        count = len(self.refiner.samples)
        batch = call.latents.shape[0]
        if batch not in (count, 2 * count):
            raise UnsupportedError(
                f"the denoiser is called with {batch} rows for {count} images; only one or two a sample can be steered "
                "(turn off perturbed-attention guidance)"
            )
        moment = call.time.flatten()[-1:]
        if not self._in_window(moment):
            return
        began = time.monotonic()
        conditional = sliced(call, torch.arange(batch - count, batch), batch) if batch > count else call
        self._scale = self._input_scale(call, moment)
        clock = Clock(self.family.noise_level(self.pipe, moment), self._step, len(self.scheduler.timesteps))
        before = conditional.latents.float()
        if self._scale != 1.0:
            before = before / self._scale
        self._busy = True
        try:
            first = self._step == 0 and self.refiner.config.search is not None
            start = search(self.refiner, conditional, before, self._scale, clock) if first else before
            after = self.refiner(conditional, start, self._scale, clock)
        finally:
            self._busy = False
        if self.refiner.config.update == "prediction":
            # Noise that is added to the prediction is what a step takes away: against the move.
            self._push, after = before - after, before
        # A sample that needed no move keeps the bits of its latents.
        self._rows = (after != before).flatten(1).any(1).nonzero().flatten()
        self._after = after[self._rows].detach() if len(self._rows) else None
        self.seconds += time.monotonic() - began

    def _pushed(self, prediction: Tensor) -> Tensor:
        if self._push is None:
            return prediction
        push, self._push = self._push.to(prediction.dtype), None
        return prediction + push

    def _in_window(self, moment: Tensor) -> bool:
        config = self.refiner.config
        if config.by_step_index:
            steps = len(self.scheduler.timesteps)
            return config.start * steps <= self._step < config.window * steps
        return config.start <= self.family.elapsed(self.pipe, moment) <= config.window

    def _input_scale(self, call: Call, moment: Tensor) -> float:
        """What the scheduler multiplied the latents with before feeding them (Euler: 1 / sqrt(sigma^2 + 1))."""
        if not hasattr(self.scheduler, "scale_model_input"):
            return 1.0
        one = torch.ones(1, device=call.latents.device, dtype=torch.float64)
        return float(self.scheduler.scale_model_input(one, moment[0]))

    def _moved(self, latents: Tensor, scale: float) -> Tensor:
        """``latents`` with the rows that moved replaced in every half; other rows keep their bits."""
        if self._after is None:
            return latents
        moved = latents.clone()
        after = self._after if scale == 1.0 else self._after * scale
        count = len(self.refiner.samples)
        for half in range(latents.shape[0] // count):
            moved[self._rows + half * count] = after.to(latents.dtype)
        return moved
