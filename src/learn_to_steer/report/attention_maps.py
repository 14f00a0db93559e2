"""The attention maps of each object over the steps, computed from kept latents and drawn (``maps.png``).

Steering captures maps only of images that still need it, and before their update. To show base and steered images in
the same way, a pipeline call keeps the latents of a few steps; the denoiser runs on them again afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from numpy import ndarray
from PIL import Image
from torch import Tensor

from learn_to_steer.attention import AttentionCapture
from learn_to_steer.conditioning import record
from learn_to_steer.families import find
from learn_to_steer.maps import columns_to_weights
from learn_to_steer.prompts import Relation
from learn_to_steer.report.layout import INK, SOFT, column, framed, row, scaled_size, text, with_margin

STEPS = 5  # steps that are kept
MAP_SIDE = 16  # side of the maps, in tokens
IMAGE_SIDE = 96  # shorter side of a drawn map and image, in pixels
LABEL_WIDTH = 130  # pixels
# Evenly spaced from dark to light. Lightness grows steadily, so that the page can be read in a greyscale print.
COLORS = np.array([(13, 8, 35), (66, 15, 104), (135, 33, 107), (201, 62, 75), (245, 125, 21), (252, 255, 184)])


class LatentTrajectory:
    """Keeps the latents of a few steps: pass it to a pipeline as ``callback_on_step_end``.

    Attributes:
        kept: Index of a step -> the scheduler's timestep, and the denoiser's input in that step: the latents of all
            images of the call, scaled by the scheduler.
    """

    def __init__(self, steps: int, keep: int = STEPS) -> None:
        """Choose the steps to keep.

        Args:
            steps: Number of denoising steps of the call.
            keep: Number of steps to keep, evenly spaced. The first step cannot be kept: diffusers calls the callback
                only after it.
        """
        self._steps = {round(index) + 1 for index in np.linspace(0, max(steps - 2, 0), keep)}
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, pipe: Any, step: int, _: Any, values: dict[str, Any]) -> dict[str, Any]:
        """Keep the latents with which the next step starts; the arguments are those of diffusers' callback."""
        times = pipe.scheduler.timesteps
        if step + 1 in self._steps and step + 1 < len(times):
            latents, time = values["latents"], times[step + 1]
            if hasattr(pipe.scheduler, "scale_model_input"):
                latents = pipe.scheduler.scale_model_input(latents, time)
            self.kept[step + 1] = (time, latents.detach().clone())
        return values


@dataclass(frozen=True)
class ObjectMaps:
    """Attention maps of some images of one prompt.

    Attributes:
        objects: Names of the objects.
        steps: Indices of the denoising steps.
        values: The maps; each sums to 1.
    """

    objects: tuple[str, ...]
    steps: tuple[int, ...]
    values: Float32[ndarray, "images steps objects height width"]


def object_maps(
    pipe: Any,
    prompt: str,
    relations: Sequence[Relation],
    samples: Sequence[tuple[LatentTrajectory, int]],
    sampling: Mapping[str, Any],
) -> ObjectMaps:
    """Compute the attention maps of a prompt's objects, averaged over all channels (layers and heads).

    The cost is one forward of the denoiser for each image and kept step.

    Args:
        pipe: The pipeline that generated the images.
        prompt: Their prompt.
        relations: The relations whose objects are shown, with their spans in the prompt.
        samples: For each image the trajectory of its pipeline call, and its number in that call. All calls must have
            the same steps.
        sampling: Keyword arguments of these calls.

    Returns:
        The maps.
    """
    family = find(pipe)
    mentions = [(r.subject, r.subject_span) for r in relations] + [(r.object, r.object_span) for r in relations]
    objects = {span: name for name, span in mentions if span is not None}
    drawn = family.drawn_size(pipe, sampling["height"], sampling["width"], sampling)
    snapshot = record(pipe, family, [prompt] * len(samples), *drawn, sampling)
    tokens = family.text_length(snapshot.call)
    columns = family.token_indices(pipe, prompt, list(objects), sampling)
    capture = AttentionCapture(family.attention_layers(snapshot.denoiser), spec=None)
    spans = family.spans(snapshot.denoiser, snapshot.call)
    weights = columns_to_weights([columns] * len(samples), tokens, spans)
    size = family.latent_size(snapshot.denoiser, snapshot.call)
    steps = sorted(samples[0][0].kept)
    maps_by_step = []
    for step in steps:
        time = family.model_timestep(pipe, samples[0][0].kept[step][0])
        latents = torch.stack([trajectory.kept[step][1][number] for trajectory, number in samples])
        with torch.no_grad(), capture.capture(weights, *size, spans=spans) as maps:
            snapshot(latents, time)
            maps_by_step.append(maps().stack(MAP_SIDE).mean(dim=2).float().cpu())
    values = torch.stack(maps_by_step, dim=1).numpy()
    return ObjectMaps(tuple(objects.values()), tuple(steps), values)


def draw_maps(prompts: Sequence[tuple[str, ObjectMaps, Sequence[tuple[str, Image.Image]]]], steps: int) -> Image.Image:
    """Draw the maps of some prompts on a page.

    There is a row for each object and image, and a column for each step; the image is at the end of its row. All maps
    of one prompt share a colour scale from their lowest to their highest value. Values are multiples of the value that
    uniform attention would have.

    Args:
        prompts: For each prompt its text, its maps, and for each image of the maps a label and the image itself.
        steps: Number of denoising steps of the calls.

    Returns:
        The page.
    """
    return with_margin(column([_prompt_block(*prompt, steps) for prompt in prompts], gap=32))


def _prompt_block(prompt: str, maps: ObjectMaps, images: Sequence[tuple[str, Image.Image]], steps: int) -> Image.Image:
    size = scaled_size(images[0][1], IMAGE_SIDE)
    low, high = float(maps.values.min()), float(maps.values.max())
    shades = (maps.values - low) / max(high - low, 1e-12)
    head = [text("", LABEL_WIDTH), *(text(f"step {s + 1}/{steps}", size[0], 13, SOFT, "center") for s in maps.steps)]
    lines = [row([*head, text("picture", size[0], 13, SOFT, "center")], gap=6)]
    for number, name in enumerate(maps.objects):
        for which, (label, image) in enumerate(images):
            title = column([text(name, LABEL_WIDTH, 15, INK), text(label, LABEL_WIDTH, 13, SOFT)], gap=0)
            cells = [heatmap(shades[which, step, number], size) for step in range(len(maps.steps))]
            lines.append(row([title, *cells, framed(image, None, size, border=0)], gap=6, middle=True))
    tokens = maps.values.shape[-1] * maps.values.shape[-2]
    width = max(line.width for line in lines)
    return column([text(prompt, width, 19), *lines, _color_scale(low * tokens, high * tokens)], gap=6)


def heatmap(values: Float32[ndarray, "height width"], size: tuple[int, int]) -> Image.Image:
    """Draw a map with values from 0 to 1 in colour, enlarged to ``size`` with bicubic interpolation."""
    smooth = Image.fromarray(np.clip(values, 0, 1).astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    return _colored(np.asarray(smooth))


def _colored(values: Float32[ndarray, "height width"]) -> Image.Image:
    levels = np.linspace(0, 1, len(COLORS))
    channels = [np.interp(values, levels, COLORS[:, channel]) for channel in range(3)]
    return Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))


def _color_scale(low: float, high: float) -> Image.Image:
    bar = _colored(np.tile(np.linspace(0, 1, 140, dtype=np.float32), (12, 1)))
    ends = [text(f"attention {low:.1f}", 104, 13, SOFT), text(f"{high:.1f} times an even spread", 190, 13, SOFT)]
    return row([text("", LABEL_WIDTH, 13), ends[0], bar, ends[1]], 6, middle=True)
