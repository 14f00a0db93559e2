"""What is seen of a picture while it is drawn: the picture foreseen at each step, and attention maps of its objects.

All is read off the forwards that the pipeline makes anyway; the drawn picture is the same as without. It runs in the
process that holds the model.
"""

from __future__ import annotations

import io
import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from learn_to_steer.attention import CrossAttentionRecorder
from learn_to_steer.column_maps import Attention, ColumnMaps, ColumnWeights
from learn_to_steer.families import Call, find
from learn_to_steer.maps import AttentionMaps, MapSpec, columns_to_weights
from learn_to_steer.report.attention_maps import COLORS, MAP_SIDE
from learn_to_steer.serve.jobs import StepSeen
from learn_to_steer.steering.config import SteeringConfig
from learn_to_steer.steering.loop import index_batch
from learn_to_steer.steering.report import ImageReport

SIDE = 256  # longest side of a foreseen picture, in pixels
MAP_PIXELS = 64  # width of a map
SHARE = 0.3  # of the time, spent at most on decoding foreseen pictures
FEW_STEPS = 8  # up to so many, all are decoded
log = logging.getLogger(__name__)


class _Onlooker(CrossAttentionRecorder):
    """Reads a layer beside the recorder of the steering, which makes calls of its own: the first is the model's."""

    _failed = False

    def attend(self, attention: Attention, stock: Callable[[], Tensor]) -> Float[Tensor, "batch heads queries width"]:
        """See ``EagerAttention.attend``."""
        output = stock()
        if self.maps is None and not self._failed:
            try:
                with torch._C.DisableTorchFunction():  # what is computed here is no attention of the model
                    super().attend(attention, lambda: output)
            except Exception:
                log.exception("the maps of a layer could not be read")
                self._failed = True
        return output


class Watch:
    """A context in which a pipeline call is watched. What goes wrong here is logged and never harms the call.

    Args:
        pipe: The pipeline.
        arguments: Those of the call; its first picture is watched. None: nothing is watched.
        rows: Pictures of every call, with those that fill it up.
        tell: Called with every step.
    """

    def __init__(
        self, pipe: Any, arguments: Mapping[str, Any] | None, rows: int, tell: Callable[[StepSeen], None]
    ) -> None:
        self._pipe, self._arguments, self._tell = pipe, arguments, tell
        self._handles, self._hooks = ExitStack(), ExitStack()
        self._attempt, self._step = 0, -1
        self._rows = rows
        self._call: Call | None = None  # the forward of this step, from its beginning
        self._recorders: list[_Onlooker] = []
        self._seen: dict[str, Any] = {}  # what is told of this step
        self._decoding, self._decoded_at = 0.0, -math.inf  # seconds

    def __enter__(self) -> Watch:
        if self._arguments is None:
            return self
        self._guarded(self._begin)
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()
        self._handles.close()

    def step_ends(self, step: int) -> None:
        """Tell of a step; called by the pipeline's ``callback_on_step_end``."""
        if self._arguments is None:
            return
        if step <= self._step:  # the pipeline is called again
            self._attempt += 1
        self._step = step
        steps = int(self._arguments["num_inference_steps"])
        self._tell(StepSeen(self._attempt, step, steps, **self._seen))
        self._call, self._seen = None, {}

    def _begin(self) -> None:
        assert self._arguments is not None
        self._family = find(self._pipe)
        self._denoiser = getattr(self._pipe, self._family.denoiser)
        self._objects: dict[tuple[int, int] | None, str] = {}
        for relation in self._arguments["relations"][0]:
            self._objects.setdefault(relation.subject_span, relation.subject)
            self._objects.setdefault(relation.object_span, relation.object)
        prompt = self._arguments["prompt"][0]
        spans = [span for span in self._objects if span is not None]
        self._columns = self._family.token_indices(self._pipe, prompt, spans, self._arguments) if spans else []
        for handle in (
            self._denoiser.register_forward_pre_hook(self._enter, with_kwargs=True),
            self._denoiser.register_forward_hook(self._leave, always_call=True),
        ):
            self._handles.callback(handle.remove)

    def _enter(self, _: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if self._call is None and not torch.is_grad_enabled():  # steering's own passes need gradients
            self._guarded(lambda: self._start(args, kwargs))

    def _leave(self, _module: nn.Module, _arguments: Any, output: Any) -> None:
        if self._call is not None and not self._seen and not torch.is_grad_enabled():
            self._hooks.close()
            if output is not None:
                self._guarded(lambda: self._finish(output))

    def _start(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._call = call = self._family.read(self._denoiser, args, kwargs)
        self._recorders = []
        if not self._columns:
            return
        batch = len(call.latents)
        row = self._family.first_conditional_row(batch, self._rows)
        spans = self._family.spans(self._denoiser, call)
        spans = spans and spans[row : row + 1]
        weights = ColumnWeights(columns_to_weights([self._columns], self._family.text_length(call), spans))
        rows = torch.tensor([row]) if batch > 1 else None
        latent_size = self._family.latent_size(self._denoiser, call)
        for point in self._family.attention_layers(self._denoiser):
            size = point.layer.size(*latent_size)
            columns = ColumnMaps(weights, point.text, MapSpec().softmax, "auto", size[0] * size[1], spans)
            recorder = _Onlooker(size, columns, rows)
            self._recorders.append(recorder)
            self._record(point.module, recorder)

    def _record(self, module: nn.Module, recorder: _Onlooker) -> None:
        """Hook a recorder in, beside that of the steering, which reads the same forward."""

        def enter(*_: Any) -> None:  # a hook that returned the recorder would replace the arguments
            recorder.__enter__()  # type: ignore[no-untyped-call]

        def leave(*_: Any) -> None:
            recorder.__exit__(None, None, None)  # type: ignore[no-untyped-call]

        self._hooks.callback(module.register_forward_pre_hook(enter).remove)
        self._hooks.callback(module.register_forward_hook(leave, always_call=True).remove)

    def _finish(self, output: Any) -> None:
        self._seen = {"maps": {}}
        maps = tuple(recorder.maps for recorder in self._recorders if recorder.maps is not None)
        if maps and len(maps) == len(self._recorders):
            values = AttentionMaps(maps).stack(MAP_SIDE).mean(dim=2)[0].float().cpu().numpy()
            self._seen["maps"] = {name: _map_file(one) for name, one in zip(self._names(), values, strict=True)}
        few = int(self._arguments["num_inference_steps"]) <= FEW_STEPS if self._arguments else False
        if not few and time.monotonic() - self._decoded_at < self._decoding / SHARE:
            return
        began = time.monotonic()
        self._seen["picture"] = _picture_file(self._foreseen(output[0]))
        self._decoded_at = time.monotonic()
        self._decoding = self._decoded_at - began

    def _names(self) -> list[str]:
        return [name for span, name in self._objects.items() if span is not None]

    def _foreseen(self, output: Any) -> Float[Tensor, "3 height width"]:
        """The picture that the prediction of this step stands for."""
        assert self._call is not None and self._arguments is not None
        call, family, batch = self._call, self._family, len(self._call.latents)
        first = family.first_conditional_row(batch, self._rows)
        prediction = family.predicted(output, call)
        guided = prediction[first : first + 1]
        if batch == 2 * self._rows:
            other = prediction[self._rows - first : self._rows - first + 1]
            guided = other + float(self._arguments.get("guidance_scale", 1.0)) * (guided - other)
        own = index_batch(call, torch.tensor([first]), batch)
        clean = family.predict_clean(self._pipe, own.latents, guided, own.time)
        return family.decode(self._pipe, replace(own, latents=clean.to(own.latents.dtype)))[0]

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            log.exception("a step could not be watched")
            self._hooks.close()
            self._recorders, self._seen = [], self._seen or {"maps": {}}


def details(report: ImageReport, config: SteeringConfig, steering_seconds: float, began: float) -> dict[str, Any]:
    """Return what the page shows of a watched picture, beyond what clients are told.

    Args:
        report: The report on it.
        config: The settings it was drawn with.
        steering_seconds: Time spent on steering.
        began: When drawing began, by ``time.monotonic``.
    """
    return {
        "seconds": time.monotonic() - began,
        "steering_seconds": steering_seconds,
        "curve": [[step.step, list(step.probability), step.passes] for step in report.steps],
        "threshold": config.threshold,
        "why": report.why,
        "verified_by": report.verified_by,
        "reason": report.reason,
        "tries": report.tries,
        "kept_try": report.kept_try,
        "left_out": [one.as_dict() for one in report.left_out],
        "note": report.note,
    }


def _map_file(values: Float[np.ndarray, "height width"]) -> bytes:
    """A map in colour from its lowest to its highest value, as a small JPEG file."""
    low, high = float(values.min()), float(values.max())
    smooth = Image.fromarray(((values - low) / max(high - low, 1e-12)).astype(np.float32)).resize(
        (MAP_PIXELS, MAP_PIXELS * values.shape[0] // values.shape[1]), Image.Resampling.BICUBIC
    )
    ends = np.linspace(0, 1, len(COLORS))
    colored = [np.interp(np.asarray(smooth), ends, COLORS[:, channel]) for channel in range(3)]
    image = Image.fromarray(np.stack(colored, axis=-1).round().astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    return buffer.getvalue()


def _picture_file(picture: Float[Tensor, "3 height width"]) -> bytes:
    pixels = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    return buffer.getvalue()
