"""The colours of detected objects, by zero-shot classification with CLIP as in GenEval.

Source: GenEval, arXiv 2310.11513; djghosh13/geneval, ``evaluation/evaluate_images.py``.

Differs: CLIP ViT-L/14 comes from transformers, not from open_clip; the weights are the same, OpenAI's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

from learn_to_steer.detectors._networks import (
    CLIP_COLORS,
    encode,
    load_network,
    load_tokenizer,
    normalise,
    to_tensor,
)
from learn_to_steer.geometry import Box
from learn_to_steer.vocabulary import COLORS

DEFAULT = "openai/clip-vit-large-patch14"
TEMPLATES = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")
BACKGROUND = "#999999"  # the pixels around the object are set to it


class ColorClassifier:
    """Classifies the colour of an object from a crop.

    Args:
        model: A CLIPModel of transformers.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._embeddings: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def classify(self, crops: Sequence[Image.Image], names: Sequence[str]) -> list[str]:
        """Classify the colours of objects.

        Args:
            crops: RGB images, each filled by one object.
            names: The objects' names.

        Returns:
            One of ``vocabulary.COLORS`` for each crop.
        """
        if not crops:
            return []
        side = self.model.config.vision_config.image_size
        pixels = normalise(torch.cat([to_tensor(_square(crop, side)) for crop in crops]), CLIP_COLORS)
        images = self.model.vision_model(pixel_values=pixels.to(self.model.device)).pooler_output
        images = functional.normalize(self.model.visual_projection(images), dim=-1)
        similarities = (self._colors_of(name) @ image for name, image in zip(names, images, strict=True))
        return [COLORS[int(similarity.argmax())] for similarity in similarities]

    def _colors_of(self, name: str) -> Float[Tensor, "colors features"]:
        """One unit vector per colour: the mean of the text embeddings of all templates for ``name``."""
        if name not in self._embeddings:
            texts = [template.format(color=color, name=name) for color in COLORS for template in TEMPLATES]
            length = self.model.config.text_config.max_position_embeddings
            tokens = encode(self.tokenizer, texts, length, self.model.device)
            embedded = self.model.text_projection(self.model.text_model(**tokens).pooler_output)
            embedded = functional.normalize(embedded, dim=-1).reshape(len(COLORS), len(TEMPLATES), -1)
            self._embeddings[name] = functional.normalize(embedded.mean(1), dim=-1)
        return self._embeddings[name]


def load_colors(device: str = "cpu", source: str = DEFAULT) -> ColorClassifier:
    """Load CLIP.

    Args:
        device: The torch device.
        source: A folder in transformers' format, or a hub id.

    Returns:
        The classifier.

    Raises:
        DataError: CLIP cannot be loaded.
    """
    from transformers import CLIPModel

    model, _ = load_network(CLIPModel, source, device)
    return ColorClassifier(model, load_tokenizer(source, model.config.text_config.vocab_size))


def isolate(image: Image.Image, mask: Bool[Tensor, "height width"], box: Box) -> Image.Image:
    """Cut an object out of an image.

    Args:
        image: An RGB image.
        mask: The object's pixels.
        box: Its box (x0, y0, x1, y1) in pixels.

    Returns:
        The image inside the box, with the pixels outside the mask grey.
    """
    shape = Image.fromarray(mask.cpu().numpy())
    background = Image.new("RGB", image.size, BACKGROUND)
    x0, y0, x1, y1 = (int(edge) for edge in box)
    return Image.composite(image, background, shape).crop((x0, y0, x1, y1))


def _square(crop: Image.Image, side: int) -> Image.Image:
    """Resize the short side to ``side`` pixels, then crop the central square, without the ends of long objects."""
    short = min(crop.size)
    width, height = (max(int(side * length / short), side) for length in crop.size)
    x, y = round((width - side) / 2), round((height - side) / 2)
    return crop.resize((width, height), Image.Resampling.BICUBIC).crop((x, y, x + side, y + side))
