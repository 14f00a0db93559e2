"""Compare a run with another one on the images that both have: how often each is correct, how similar the images are.

Source: Learn-to-Steer paper, Table 5 (cosine similarity of DINO and CLIP embeddings) and Fig. 10 (backgrounds that
steering dulls). Similarities depend on the embedder's checkpoint, so results always name it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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

from learn_to_steer import registry, storage
from learn_to_steer.errors import DataError
from learn_to_steer.evaluation.image_folders import PromptImage
from learn_to_steer.evaluation.results import Row
from learn_to_steer.geometry import Box
from learn_to_steer.image_files import read_image
from learn_to_steer.result_rows import image_path, read_rows, row_key
from learn_to_steer.statistics import clustered_interval, paired_interval

REQUIRED = {"index", "sample", "prompt", "correct", "present"}
Embedder = Callable[[Sequence[Image]], Float[Tensor, "images channels"]]
BOX_MARGIN = 0.1  # share of a box's size that is added on every side, since detectors' boxes are tight
BATCH = 16


@dataclass(frozen=True)
class ReferenceRun:
    """The run of ``evaluate`` or ``score`` to compare with.

    Attributes:
        folder: Its folder, as the user named it.
        rows: Its rows of ``results.jsonl``.
        similarity: Name of the embedder that compares the images; None to compare the rows only.
    """

    folder: str
    rows: Sequence[Row]
    similarity: str | None = None


def load_reference(
    folder: str | None, similarity: str | None, out: str, identity: Mapping[str, Any]
) -> ReferenceRun | None:
    """Load the run to compare with.

    Args:
        folder: Folder of that run; None for no comparison.
        similarity: Name of the embedder that compares the images; None to compare the rows only.
        out: Folder of the run that is to be compared.
        identity: Identity of the detector of the run that is to be compared.

    Returns:
        The reference run; None without a folder.

    Raises:
        DataError: The folder has no rows, or it is ``out`` itself. Another detector scored that run, so that the
            difference would be that of the detectors. Or an embedder is named, but no folder.
    """
    if folder is None:
        if similarity is not None:
            raise DataError("--similarity compares images with those of another evaluation; name it with --against")
        return None
    if Path(folder).resolve() == Path(out).resolve():
        raise DataError(f"--out {out} is the run to compare with (--against); choose another folder")
    rows = read_rows(Path(folder))
    required = REQUIRED | ({"boxes"} if similarity else set())
    if not rows or not all(row.keys() >= required for row in rows):
        raise DataError(f"{folder} holds no results.jsonl of evaluate or score; name the --out of one of them")
    summary = Path(folder) / "summary.json"
    scored_by = None
    if summary.is_file():
        scored_by = storage.read_json(summary, dict[str, Any], "repair it, or make it again").get("judged_by")
    if scored_by is not None and scored_by != dict(identity):
        raise DataError(
            f"{folder} was scored by the detector {scored_by}, not by {dict(identity)}; score its images with the same "
            "detector, and compare with that run"
        )
    return ReferenceRun(folder, rows, similarity)


def compare_runs(
    images: Sequence[PromptImage], rows: Sequence[Row], reference: ReferenceRun, device: str
) -> dict[str, Any]:
    """Compare a run with a reference run.

    Args:
        images: The images of the run.
        rows: Their rows of ``results.jsonl``.
        reference: The run to compare with; it must be a run of ``evaluate`` if images are compared.
        device: Where the embedder runs.

    Returns:
        The ``folder`` of the reference, the differences of ``compare_rows`` and, with an embedder, its name and the
        values of ``paired_similarity``.

    Raises:
        DataError: The runs share no image, or images are missing.
    """
    try:
        comparison = {"folder": reference.folder, **compare_rows(rows, reference.rows)}
    except ValueError as error:
        raise DataError(f"{reference.folder} cannot be compared with these images: {error}") from error
    if reference.similarity is None:
        return comparison
    embedder = find_embedder(reference.similarity, device)
    similarities = paired_similarity(embedder, _pair_images(images, rows, reference))
    return comparison | {"embedder": reference.similarity, **similarities}


def compare_rows(rows: Sequence[Row], reference: Sequence[Row]) -> dict[str, Any]:
    """Compute how much a run differs from a reference run, on the images that both have.

    Args:
        rows: Rows of ``results.jsonl``.
        reference: Rows of the reference run.

    Returns:
        The number of ``images``; for ``correct``, ``present`` and, if all rows have it, ``once``: the share in the run
        minus the share in the reference, as [difference, low, high] with the 95 % bootstrap interval over prompts.

    Raises:
        ValueError: The runs share no image, or an image has different prompts in the two runs.
    """
    references = {row_key(row): row for row in reference}
    pairs = [(row, references[row_key(row)]) for row in rows if row_key(row) in references]
    for row, other in pairs:
        if row["prompt"] != other["prompt"]:
            raise ValueError(f"number {row['index']} is {row['prompt']!r} here and {other['prompt']!r} there")
    if not pairs:
        raise ValueError("the two evaluations have no image in common")
    prompts = [row["index"] for row, _ in pairs]
    differences: dict[str, Any] = {"images": len(pairs)}
    with_once = all(row.get("once") is not None for pair in pairs for row in pair)
    for key in ("correct", "present", "once") if with_once else ("correct", "present"):
        here, there = [float(a[key]) for a, _ in pairs], [float(b[key]) for _, b in pairs]
        differences[key] = list(paired_interval(here, there, prompts))
    return differences


@dataclass(frozen=True)
class ImagePair:
    """An image and the reference image of the same prompt and noise.

    Attributes:
        prompt: Index of the prompt; pairs of one prompt are not independent.
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
    """The change between two images outside all boxes; colours range from 0 to 1.

    Attributes:
        difference: Mean absolute difference.
        deviation: Standard deviation of the image's colours; lower than the reference's if the background is duller.
        reference_deviation: Standard deviation of the reference image's colours.
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
        The change; None if the boxes, with a margin of 10 % of their size, cover everything.

    Raises:
        DataError: The images differ in size.
    """
    if image.size != reference.size:
        raise DataError(
            f"an image of {image.size} pixels cannot be compared with one of {reference.size}; make them of one size"
        )
    outside: Bool[ndarray, "height width"] = np.ones((image.height, image.width), dtype=bool)
    for left, top, right, bottom in (*boxes, *reference_boxes):
        margin_x, margin_y = BOX_MARGIN * (right - left), BOX_MARGIN * (bottom - top)
        rows = slice(max(int(top - margin_y), 0), max(int(np.ceil(bottom + margin_y)), 0))
        outside[rows, max(int(left - margin_x), 0) : max(int(np.ceil(right + margin_x)), 0)] = False
    if not outside.any():
        return None
    ours, theirs = _pixels(image)[outside], _pixels(reference)[outside]
    return BackgroundChange(float(np.abs(ours - theirs).mean()), float(ours.std(0).mean()), float(theirs.std(0).mean()))


def paired_similarity(embedder: Embedder, pairs: Sequence[ImagePair]) -> dict[str, Any]:
    """Measure how similar images are to their references.

    Args:
        embedder: A function from images to embeddings.
        pairs: The images and their references.

    Returns:
        - ``similarity``: cosine similarity of the embeddings of a pair, as [mean, low, high] with the 95 % bootstrap
          interval over prompts;
        - ``similarity_to_strangers``: mean cosine similarity to the references of other prompts (None if there are
          none);
        - ``background`` (absent if no pair has one): the number of ``pictures`` that have one; ``difference``, see
          ``BackgroundChange``, as [mean, low, high]; ``deviation``, that of the image minus that of the reference
          (negative if the image is duller), as [mean, low, high]; ``deviation_there``, the references' mean.

    Raises:
        DataError: An image cannot be read, or the images of a pair differ in size.
    """
    embeddings, references = [], []
    changes: list[tuple[int, BackgroundChange]] = []
    for start in range(0, len(pairs), BATCH):  # only one batch of images is in memory at a time
        part = pairs[start : start + BATCH]
        ours, theirs = [read_image(pair.image) for pair in part], [read_image(pair.reference) for pair in part]
        for pair, image, reference in zip(part, ours, theirs, strict=True):
            change = background_change(image, reference, pair.boxes, pair.reference_boxes)
            if change is not None:
                changes.append((pair.prompt, change))
        embeddings.append(embedder(ours).cpu())
        references.append(embedder(theirs).cpu())
    result = _similarities(torch.cat(embeddings), torch.cat(references), [pair.prompt for pair in pairs])
    if changes:
        prompts = [prompt for prompt, _ in changes]
        differences, deviations, reference_deviations = zip(*(change for _, change in changes), strict=True)
        result["background"] = {
            "pictures": len(changes),
            "difference": _mean_and_interval(differences, prompts),
            "deviation": list(paired_interval(deviations, reference_deviations, prompts)),
            "deviation_there": sum(reference_deviations) / len(reference_deviations),
        }
    return result


def _pair_images(images: Sequence[PromptImage], rows: Sequence[Row], reference: ReferenceRun) -> list[ImagePair]:
    """Pair each image with the reference run's, where that run has it."""
    by_key = {row_key(row): row for row in rows}
    reference_by_key = {row_key(row): row for row in reference.rows}
    pairs = []
    for image in images:
        if image.key not in reference_by_key:
            continue
        path = image_path(Path(reference.folder), *image.key)
        if not path.is_file():
            raise DataError(f"the image {path} is missing; --similarity needs the folder that evaluate wrote")
        boxes, reference_boxes = _boxes(by_key[image.key]), _boxes(reference_by_key[image.key])
        pairs.append(ImagePair(image.prompt.index, image.path, path, boxes, reference_boxes))
    return pairs


def _boxes(row: Row) -> list[tuple[float, float, float, float]]:
    return [tuple(entry["box"]) for entry in row["boxes"]]


def _similarities(
    embeddings: Float[Tensor, "images channels"], references: Float[Tensor, "images channels"], prompts: Sequence[int]
) -> dict[str, Any]:
    values = functional.cosine_similarity(embeddings, references).tolist()
    # Any two images of one model are somewhat similar. The similarity to images of other prompts shows how much.
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

        processor: Any = AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
        network: Any = AutoModel.from_pretrained(name, trust_remote_code=False).to(device).eval()
    except (OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"the embedder {name} could not be loaded ({reason}); name a plug-in, or the folder or hub id of a model"
        ) from error

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
    """The RGB values, from 0 to 1."""
    return np.asarray(image.convert("RGB"), dtype=np.float64) / 255
