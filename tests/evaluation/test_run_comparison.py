"""A run beside another one: which images are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from learn_to_steer.benchmarks import BenchmarkPrompt
from learn_to_steer.errors import DataError
from learn_to_steer.evaluation.image_folders import PromptImage
from learn_to_steer.evaluation.run_comparison import ReferenceRun, compare_runs
from learn_to_steer.result_rows import image_path


def row(index: int) -> dict[str, Any]:
    facts = {"index": index, "sample": 0, "prompt": str(index), "correct": index == 0, "present": True}
    return facts | {"boxes": [{"name": "dog", "score": 0.9, "box": [10, 10, 30, 30]}]}


def paint(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save(path)


def test_only_images_of_both_runs_are_compared(tmp_path: Path) -> None:
    images = [PromptImage(BenchmarkPrompt(n, str(n), (), {}), 0, tmp_path / f"{n}.png") for n in range(3)]
    for image in images[:2]:
        paint(image.path)
    paint(image_path(tmp_path, 0, 0))
    rows, reference = [row(n) for n in range(3)], ReferenceRun(str(tmp_path), [row(0), row(1)], "emoji")
    rows[0]["boxes"][0]["box"] = reference.rows[1]["boxes"][0]["box"] = [0, 0, 64, 64]
    with pytest.raises(DataError, match="--similarity needs the folder that evaluate wrote"):
        compare_runs(images, rows, reference, "cpu")
    paint(image_path(tmp_path, 1, 0))
    found = compare_runs(images, rows, reference, "cpu")
    assert (found["folder"], found["images"], found["embedder"]) == (str(tmp_path), 2, "emoji")
    assert found["similarity"] == pytest.approx([1.0] * 3) and "background" not in found  # a box covers each
    rows[0]["boxes"] = []
    assert compare_runs(images, rows, reference, "cpu")["background"]["pictures"] == 1
    rows_only = compare_runs(images, rows, ReferenceRun("folder", [row(2)]), "cpu")
    assert rows_only == {"folder": "folder", "images": 1, "correct": [0.0] * 3, "present": [0.0] * 3}
    with pytest.raises(DataError, match=r"folder cannot be compared with these images: .* no image in common"):
        compare_runs(images, rows, ReferenceRun("folder", [row(7)]), "cpu")
