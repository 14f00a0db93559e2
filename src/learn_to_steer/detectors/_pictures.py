"""Pictures as the detectors' networks want them: upright, resized, normalised.

Done here and not by transformers' image processors, since these need torchvision or SciPy, and squash, pad and
resize in other ways than the detectors that are to be followed.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import ImageOps
from PIL.Image import Image
from torch.nn import functional

# Mean and standard deviation of red, green and blue in [0, 1].
IMAGENET_COLORS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP_COLORS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def upright(picture: Image) -> Image:
    """``picture`` in RGB, turned as its EXIF orientation says. Boxes are in the pixels of this."""
    return ImageOps.exif_transpose(picture).convert("RGB")


def to_tensor(picture: Image) -> torch.Tensor:
    """An RGB picture as float32 (1, 3, height, width) in [0, 255]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()


def resize(pixels: torch.Tensor, size: tuple[int, int], antialias: bool = False) -> torch.Tensor:
    """``pixels`` (n, channels, H, W) bilinearly at ``size`` = (height, width), pixel centres at halves."""
    return functional.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=antialias)


def normalise(pixels: torch.Tensor, colors: tuple[tuple[float, ...], tuple[float, ...]]) -> torch.Tensor:
    """``pixels`` (n, 3, H, W) in [0, 255] less the mean, over the standard deviation."""
    mean, deviation = (pixels.new_tensor(values)[:, None, None] * 255 for values in colors)
    return (pixels - mean) / deviation


def keep_ratio(size: tuple[int, int], short: int, long: int) -> tuple[int, int]:
    """The largest (height, width) in the ratio of ``size`` whose sides are at most ``short`` and ``long`` pixels."""
    factor = min(short / min(size), long / max(size))
    height, width = (max(int(side * factor + 0.5), 1) for side in size)
    return height, width
