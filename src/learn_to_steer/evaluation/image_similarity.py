"""How similar two images of the same prompt and noise are: as a whole, and in the background.

Source: Learn-to-Steer paper, Table 5 (cosine similarity of DINO and CLIP embeddings) and Fig. 10 (backgrounds that
steering dulls). Published numbers hold for one checkpoint of an embedder, so the embedder is always named with the
result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from PIL.Image import Image
from torch import Tensor
from torch.nn import functional

from learn_to_steer import registry
from learn_to_steer.errors import DataError
from learn_to_steer.evaluation.image_folders import open_image
from learn_to_steer.geometry import Box
from learn_to_steer.statistics import clustered_interval, paired_interval

Embedder = Callable[[Sequence[Image]], Float[Tensor, "images channels"]]
BOX_MARGIN = 0.1  # share of a box's side that is added on every side: a detector's boxes are tight
BATCH = 16


@dataclass(frozen=True)
class ImagePair:
    """An image and the reference image of the same prompt and noise.

    Attributes:
        prompt: Number of the prompt; pairs of one prompt are not independent.
        image: File of the image.
        reference: File of the reference image.
        boxes: Boxes of the objects in the image, in pixels.
        reference_boxes: Boxes of the objects in the reference image, in pixels.
    """

    prompt: int
    image: Path
    reference: Path
    boxes: Sequence[Box]
    reference_boxes: Sequence[Box]


class BackgroundChange(NamedTuple):
    """What differs between two images outside all boxes; colors range from 0 to 1.

    Attributes:
        difference: Mean absolute difference.
        deviation: Standard deviation of the image; a dulled background has less than the reference.
        reference_deviation: Standard deviation of the reference image.
    """

    difference: float
    deviation: float
    reference_deviation: float


def find_embedder(name: str, device: str = "cpu") -> Embedder:
    """Load an image embedder.

    Args:
        name: A plug-in's name (``learn-to-steer list embedders``), or the folder or hub id of a CLIP model (its image
            embedding) or of a model such as DINO (the class token of its last layer).
        device: Where the embedder runs.

    Returns:
        A function from images to embeddings.

    Raises:
        DataError: The model cannot be loaded.
    """
    if name in registry.names("embedders"):
        embedder: Embedder = registry.load("embedders", name).load(device)
        return embedder
    return _transformers_embedder(name, device)


def background_change(
    image: Image, reference: Image, boxes: Sequence[Box], reference_boxes: Sequence[Box]
) -> BackgroundChange | None:
    """Compare two images outside all boxes.

    Args:
        image: The image.
        reference: The reference image, of the same size.
        boxes: Boxes of the objects in the image, in pixels.
        reference_boxes: Boxes of the objects in the reference image, in pixels.

    Returns:
        The change; None if the boxes, with a margin, cover everything.

    Raises:
        DataError: The images differ in size.
    """
    if image.size != reference.size:
        raise DataError(f"only images of one size can be compared, not {image.size} and {reference.size}")
    outside: Bool[ndarray, "height width"] = np.ones((image.height, image.width), dtype=bool)
    for left, top, right, bottom in (*boxes, *reference_boxes):
        across, down = BOX_MARGIN * (right - left), BOX_MARGIN * (bottom - top)
        rows = slice(max(int(top - down), 0), max(int(np.ceil(bottom + down)), 0))
        outside[rows, max(int(left - across), 0) : max(int(np.ceil(right + across)), 0)] = False
    if not outside.any():
        return None
    ours, theirs = _pixels(image)[outside], _pixels(reference)[outside]
    return BackgroundChange(float(np.abs(ours - theirs).mean()), float(ours.std(0).mean()), float(theirs.std(0).mean()))


def paired_similarity(embedder: Embedder, pairs: Sequence[ImagePair]) -> dict[str, Any]:
    """Measure how similar images are to their references.

    Args:
        embedder: Embeds images.
        pairs: The images.

    Returns:
        ``similarity``: cosine of the embeddings of a pair, as [mean, low, high] with the 95 % bootstrap interval over
        prompts. ``similarity_to_strangers``: mean cosine to the references of other prompts (None if there are none).
        ``background``: number of ``pictures`` with a background, ``difference`` as [mean, low, high], ``deviation``
        of the image minus that of the reference (negative: dulled) as [mean, low, high], and ``deviation_there``, the
        mean of the references; absent if no pair has a background.

    Raises:
        DataError: An image cannot be read, or the images of a pair differ in size.
    """
    embeddings, references = [], []
    changes: list[tuple[int, BackgroundChange]] = []
    for start in range(0, len(pairs), BATCH):  # images are held batch by batch, embeddings all together
        part = pairs[start : start + BATCH]
        ours, theirs = [open_image(pair.image) for pair in part], [open_image(pair.reference) for pair in part]
        for pair, image, reference in zip(part, ours, theirs, strict=True):
            change = background_change(image, reference, pair.boxes, pair.reference_boxes)
            if change is not None:
                changes.append((pair.prompt, change))
        embeddings.append(embedder(ours).cpu())
        references.append(embedder(theirs).cpu())
    found = _similarities(torch.cat(embeddings), torch.cat(references), [pair.prompt for pair in pairs])
    if changes:
        prompts = [prompt for prompt, _ in changes]
        differences, deviations, before = zip(*(change for _, change in changes), strict=True)
        found["background"] = {
            "pictures": len(changes),
            "difference": _mean_and_interval(differences, prompts),
            "deviation": list(paired_interval(deviations, before, prompts)),
            "deviation_there": sum(before) / len(before),
        }
    return found


def _similarities(
    embeddings: Float[Tensor, "images channels"], references: Float[Tensor, "images channels"], prompts: Sequence[int]
) -> dict[str, Any]:
    values = functional.cosine_similarity(embeddings, references).tolist()
    # Any two images of one kind are similar to some degree: compare with images of other prompts.
    half = len(prompts) // 2
    rotated = [*range(half, len(prompts)), *range(half)]
    strangers = [
        float(functional.cosine_similarity(embeddings[n], references[other], dim=0))
        for n, other in enumerate(rotated)
        if prompts[n] != prompts[other]
    ]
    mean = sum(strangers) / len(strangers) if strangers else None
    return {"similarity": _mean_and_interval(values, prompts), "similarity_to_strangers": mean}


def _mean_and_interval(values: Sequence[float], prompts: Sequence[int]) -> list[float]:
    low, high = clustered_interval(values, prompts)
    return [sum(values) / len(values), low, high]


def _transformers_embedder(name: str, device: str) -> Embedder:
    try:
        from transformers import AutoImageProcessor, AutoModel

        processor: Any = AutoImageProcessor.from_pretrained(name)
        network: Any = AutoModel.from_pretrained(name).to(device).eval()
    except (OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"the embedder {name} could not be loaded: {reason}") from error

    @torch.no_grad()
    def embed(images: Sequence[Image]) -> Tensor:
        inputs = processor(images=[image.convert("RGB") for image in images], return_tensors="pt").to(device)
        if not hasattr(network, "get_image_features"):
            tokens: Tensor = network(**inputs).last_hidden_state[:, 0]
            return tokens.float()
        output = network.get_image_features(**inputs)
        features: Tensor = output if isinstance(output, Tensor) else output.pooler_output
        return features.float()

    return embed


def _pixels(image: Image) -> Float[ndarray, "height width 3"]:
    """RGB from 0 to 1."""
    return np.asarray(image.convert("RGB"), dtype=np.float64) / 255
