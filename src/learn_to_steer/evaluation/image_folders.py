"""Find and read images by prompt and number: GenEval's folders, T2I-CompBench's file names, or a manifest.

A missing image is an error: nobody would notice that results are those of an incomplete set.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from learn_to_steer.benchmarks import BenchmarkPrompt
from learn_to_steer.errors import DataError
from learn_to_steer.storage import read_jsonl

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class PromptImage(NamedTuple):
    """The file of one image of a prompt.

    Attributes:
        prompt: The prompt.
        sample: Number of the image among those of the prompt.
        path: The file; it may not exist yet.
    """

    prompt: BenchmarkPrompt
    sample: int
    path: Path

    @property
    def key(self) -> tuple[int, int]:
        """Index of the prompt and number of the image."""
        return self.prompt.index, self.sample


def metadata_path(image: Path) -> Path:
    """Where ``evaluate`` puts the metadata of the prompt of an image, in GenEval's format."""
    return image.parents[1] / "metadata.jsonl"


def find_images(
    location: str | Path, prompts: Sequence[BenchmarkPrompt], images_per_prompt: int | None = None
) -> list[PromptImage]:
    """Find the images of all prompts.

    Args:
        location: One of: a folder of ``<index>/samples/<number>.png`` (GenEval; ``<index>/metadata.jsonl`` is compared
            with the prompt), also inside ``images/`` as ``evaluate`` leaves it; a folder of ``<prompt>_<number>.png``
            (T2I-CompBench), also inside ``samples/``; a JSON-lines file whose rows have ``image`` (a path relative to
            that file) and ``prompt`` or ``index``.
        prompts: The prompts.
        images_per_prompt: How many images of each prompt to take, lowest numbers first. None: as many as the prompt
            with the most images has.

    Returns:
        The images in order of prompt and number.

    Raises:
        DataError: Images are missing, or belong to other prompts.
    """
    location = Path(location)
    if location.is_file():
        by_prompt = _from_manifest(location, prompts)
    elif not location.is_dir():
        raise DataError(f"{location} does not exist; name a folder of images or a JSON-lines file that lists them")
    else:
        root = location / "images" if (location / "images").is_dir() else location
        numbered = any(entry.is_dir() and entry.name.isdecimal() for entry in root.iterdir())
        by_prompt = _from_numbered_folders(root, prompts) if numbered else _from_file_names(location, prompts)
    needed = max(images_per_prompt or max((len(files) for files in by_prompt), default=0), 1)
    lacking = [(p, len(files)) for p, files in zip(prompts, by_prompt, strict=True) if len(files) < needed]
    if lacking:
        prompt, count = lacking[0]
        missing = sum(needed - have for _, have in lacking)
        raise DataError(
            f"{missing} images are missing in {location}: {len(lacking)} of {len(prompts)} prompts have too few; "
            f"the first is number {prompt.index}, {prompt.prompt!r}, has {count} of {needed}; "
            "score fewer prompts with --limit, or fewer images with --images"
        )
    return [
        PromptImage(prompt, sample, file)
        for prompt, files in zip(prompts, by_prompt, strict=True)
        for sample, file in enumerate(files[:needed])
    ]


def _from_numbered_folders(root: Path, prompts: Sequence[BenchmarkPrompt]) -> list[list[Path]]:
    """The images of each prompt in GenEval's layout."""
    folders = {int(entry.name): entry for entry in root.iterdir() if entry.is_dir() and entry.name.isdecimal()}
    by_prompt: list[list[Path]] = []
    for prompt in prompts:
        folder = folders.get(prompt.index)
        if folder is None:
            by_prompt.append([])
            continue
        metadata = folder / "metadata.jsonl"
        rows = read_jsonl(metadata) if metadata.is_file() else []
        if rows and _content(rows[0]) != _content(prompt.metadata):
            raise DataError(
                f"{metadata} is about {rows[0].get('prompt')!r}, but prompt {prompt.index} is {prompt.prompt!r}: "
                "these are images of another benchmark, or of its prompts in another order; name the benchmark or the "
                "file of prompts that they were generated from"
            )
        samples = folder / "samples"
        files = [file for file in _image_files(samples) if file.stem.isdecimal()] if samples.is_dir() else []
        by_prompt.append(sorted(files, key=lambda file: int(file.stem)))
    return by_prompt


def _content(metadata: dict[str, object]) -> object:
    """The objects that a metadata line lists, however its prompt is worded; the prompt where it lists none."""
    return metadata.get("include") or metadata.get("prompt")


def _from_file_names(folder: Path, prompts: Sequence[BenchmarkPrompt]) -> list[list[Path]]:
    """The images of each prompt in T2I-CompBench's layout."""
    root = folder / "samples" if (folder / "samples").is_dir() else folder
    by_title: dict[str, list[tuple[int, Path]]] = {}
    for file in _image_files(root):
        title, _, number = file.stem.rpartition("_")
        if title and number.isdecimal():
            by_title.setdefault(_normalized(title), []).append((int(number), file))
    if not by_title:
        raise DataError(
            f"{folder} holds neither folders <number>/samples (GenEval) nor files <prompt>_<k>.png (T2I-CompBench); "
            "list other layouts in a JSON-lines file with 'image' and 'prompt'"
        )
    return [
        [file for _, file in sorted(entry for title in _titles(prompt) for entry in by_title.get(title, []))]
        for prompt in prompts
    ]


def _titles(prompt: BenchmarkPrompt) -> list[str]:
    """The normalized texts of a prompt: as it is written here, and as in the benchmark's own file."""
    original = prompt.metadata.get("prompt")
    return sorted({_normalized(prompt.prompt), *([_normalized(original)] if isinstance(original, str) else [])})


def _normalized(text: str) -> str:
    return " ".join(text.lower().rstrip(".").split())


def _from_manifest(path: Path, prompts: Sequence[BenchmarkPrompt]) -> list[list[Path]]:
    """The images of each prompt that a JSON-lines file lists."""
    by_key: dict[object, list[Path]] = {}
    titles = {prompt.index: _titles(prompt) for prompt in prompts}
    for number, row in enumerate(read_jsonl(path, allow_torn=False), 1):
        key = row.get("index", row.get("prompt"))
        typed = isinstance(row.get("index", 0), int) and isinstance(row.get("prompt", ""), str)
        if not isinstance(row.get("image"), str) or key is None or not typed:
            raise DataError(f"{path}, row {number}: a row needs 'image', and 'prompt' (text) or 'index' (a number)")
        expected = titles.get(key) if isinstance(key, int) else None
        if expected is not None and "prompt" in row and _normalized(row["prompt"]) not in expected:
            raise DataError(
                f"{path}, row {number}: prompt {key} is {expected[0]!r}, not {row['prompt']!r}; correct one of the two"
            )
        file = path.parent / row["image"]
        if not os.path.isfile(file):  # also if its name is too long
            raise DataError(f"{path}, row {number}: the image {file} does not exist; paths are relative to this file")
        by_key.setdefault(_normalized(key) if isinstance(key, str) else key, []).append(file)
    return [
        by_key.get(prompt.index) or [file for title in _titles(prompt) for file in by_key.get(title, [])]
        for prompt in prompts
    ]


def _image_files(folder: Path) -> Iterable[Path]:
    return (file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
