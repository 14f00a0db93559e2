"""Compare a run with another one on the images that both have: which is correct more often, how similar they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learn_to_steer import storage
from learn_to_steer.errors import DataError
from learn_to_steer.evaluation.image_folders import PromptImage, image_path
from learn_to_steer.evaluation.image_similarity import ImagePair, find_embedder, paired_similarity
from learn_to_steer.evaluation.results import Row, row_key
from learn_to_steer.statistics import paired_interval

REQUIRED = {"index", "sample", "prompt", "correct", "present"}


@dataclass(frozen=True)
class ReferenceRun:
    """The evaluation or scoring to compare with.

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
        DataError: The folder has no rows, it is ``out`` itself, or another detector scored it: the difference would
            be that of the detectors. Or an embedder is named, but no folder.
    """
    if folder is None:
        if similarity is not None:
            raise DataError("--similarity is to another evaluation's images: name it with --against")
        return None
    if Path(folder).resolve() == Path(out).resolve():
        raise DataError(f"--out {out} is the run to compare with; choose another folder")
    path = Path(folder) / "results.jsonl"
    rows = storage.read_jsonl(path) if path.is_file() else []
    if not rows or not set(rows[0]) >= REQUIRED:
        raise DataError(f"{folder} holds no results.jsonl of evaluate or score; name the folder of one")
    summary = Path(folder) / "summary.json"
    scored_by = storage.read_json(summary).get("judged_by") if summary.is_file() else None
    if scored_by is not None and scored_by != dict(identity):
        raise DataError(
            f"{folder} was scored by {scored_by}, not by {dict(identity)}; score those images too, "
            "then compare the two scorings"
        )
    return ReferenceRun(folder, rows, similarity)


def compare_runs(
    images: Sequence[PromptImage], rows: Sequence[Row], reference: ReferenceRun, device: str
) -> dict[str, Any]:
    """Compare a run with a reference run.

    Args:
        images: The images of the run.
        rows: Their rows of ``results.jsonl``.
        reference: The run to compare with; it must be an evaluation's folder if images are compared.
        device: Where the embedder runs.

    Returns:
        The ``folder`` of the reference, the differences of ``compare_rows`` and, with an embedder, its name and the
        values of ``paired_similarity``.

    Raises:
        DataError: The runs share no image, or images are missing.
    """
    try:
        found = {"folder": reference.folder, **compare_rows(rows, reference.rows)}
    except ValueError as error:
        raise DataError(f"{reference.folder} cannot be compared with these images: {error}") from error
    if reference.similarity is None:
        return found
    embedder = find_embedder(reference.similarity, device)
    similarities = paired_similarity(embedder, _pair_images(images, rows, reference))
    return found | {"embedder": reference.similarity, **similarities}


def compare_rows(rows: Sequence[Row], reference: Sequence[Row]) -> dict[str, Any]:
    """Subtract the rows of a reference run from those of a run, on the images that both have.

    Args:
        rows: Rows of ``results.jsonl``.
        reference: Rows of the reference run.

    Returns:
        The number of ``images``; for ``correct``, ``present`` and, if all rows say, ``once``: [difference, low, high]
        of the shares, with the 95 % bootstrap interval over prompts.

    Raises:
        ValueError: The runs share no image, or an image was made of another prompt.
    """
    references = {row_key(row): row for row in reference}
    pairs = [(row, references[row_key(row)]) for row in rows if row_key(row) in references]
    for row, other in pairs:
        if row["prompt"] != other["prompt"]:
            raise ValueError(f"number {row['index']} is {row['prompt']!r} here and {other['prompt']!r} there")
    if not pairs:
        raise ValueError("the two evaluations have no image in common")
    prompts = [row["index"] for row, _ in pairs]
    found: dict[str, Any] = {"images": len(pairs)}
    counted = all(row.get("once") is not None for pair in pairs for row in pair)
    for key in ("correct", "present", "once") if counted else ("correct", "present"):
        here, there = [float(a[key]) for a, _ in pairs], [float(b[key]) for _, b in pairs]
        found[key] = list(paired_interval(here, there, prompts))
    return found


def _pair_images(images: Sequence[PromptImage], rows: Sequence[Row], reference: ReferenceRun) -> list[ImagePair]:
    """Each image that the reference run has too, beside that run's own."""
    by_key = {row_key(row): row for row in rows}
    reference_by_key = {row_key(row): row for row in reference.rows}
    pairs = []
    for image in images:
        if image.key not in reference_by_key:
            continue
        path = image_path(Path(reference.folder), *image.key)
        if not path.is_file():
            raise DataError(f"{path} is missing; --similarity needs the folder that evaluate wrote")
        boxes, reference_boxes = _boxes(by_key[image.key]), _boxes(reference_by_key[image.key])
        pairs.append(ImagePair(image.prompt.index, image.path, path, boxes, reference_boxes))
    return pairs


def _boxes(row: Row) -> list[tuple[float, float, float, float]]:
    return [tuple(entry["box"]) for entry in row["boxes"]]
