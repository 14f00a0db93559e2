"""Colours of found objects as GenEval tells them: zero-shot, with CLIP.

*Source:* GenEval (arXiv 2310.11513). *Differs:* CLIP ViT-L/14 comes through transformers, not open_clip; the weights
are the same OpenAI ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch.nn import functional

from learn_to_steer.detectors._hub import encode, load_network, load_tokenizer
from learn_to_steer.detectors._pictures import CLIP_COLORS, normalise, to_tensor
from learn_to_steer.geometry import Box

DEFAULT = "openai/clip-vit-large-patch14"
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
TEMPLATES = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")
GROUND = "#999999"  # painted over all that is not the object


class ColorTeller:
    """Tells an object's colour from a crop. ``model`` is a CLIPModel of transformers, ``tokenizer`` its own."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._words: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def tell(self, crops: Sequence[Image.Image], names: Sequence[str]) -> list[str]:
        """The colour, one of COLORS, of the object ``names[i]`` that fills the RGB picture ``crops[i]``."""
        if not crops:
            return []
        side = self.model.config.vision_config.image_size
        pixels = normalise(torch.cat([to_tensor(_square(crop, side)) for crop in crops]), CLIP_COLORS)
        seen = self.model.vision_model(pixel_values=pixels.to(self.model.device)).pooler_output
        seen = functional.normalize(self.model.visual_projection(seen), dim=-1)
        alike = (self._colors_of(name) @ one for name, one in zip(names, seen, strict=True))
        return [COLORS[int(likeness.argmax())] for likeness in alike]

    def _colors_of(self, name: str) -> torch.Tensor:
        """Unit embeddings (10, width) of the colours of ``name``: the templates' mean."""
        if name not in self._words:
            texts = [template.format(color=color, name=name) for color in COLORS for template in TEMPLATES]
            length = self.model.config.text_config.max_position_embeddings
            tokens = encode(self.tokenizer, texts, length, self.model.device)
            said = self.model.text_projection(self.model.text_model(**tokens).pooler_output)
            said = functional.normalize(said, dim=-1).reshape(len(COLORS), len(TEMPLATES), -1)
            self._words[name] = functional.normalize(said.mean(1), dim=-1)
        return self._words[name]


def load_colors(device: str = "cpu", source: str = DEFAULT) -> ColorTeller:
    """CLIP from ``source``, a folder or hub id. Raises DataError when it cannot be loaded."""
    from transformers import CLIPModel

    model, _ = load_network(CLIPModel, source, device)
    return ColorTeller(model, load_tokenizer(source, model.config.text_config.vocab_size))


def isolate(picture: Image.Image, mask: torch.Tensor, box: Box) -> Image.Image:
    """The object of ``mask`` (H, W), bool, cut out of an RGB ``picture`` along its ``box``, on grey."""
    shape = Image.fromarray(mask.cpu().numpy())
    ground = Image.new("RGB", picture.size, GROUND)
    x0, y0, x1, y1 = (int(edge) for edge in box)
    return Image.composite(picture, ground, shape).crop((x0, y0, x1, y1))


def _square(crop: Image.Image, side: int) -> Image.Image:
    """The middle of ``crop`` after its short side was made ``side``: of long objects CLIP does not see the ends."""
    short = min(crop.size)
    width, height = (max(int(side * length / short), side) for length in crop.size)
    x, y = round((width - side) / 2), round((height - side) / 2)
    return crop.resize((width, height), Image.Resampling.BICUBIC).crop((x, y, x + side, y + side))
