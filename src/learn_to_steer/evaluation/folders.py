"""Pictures made elsewhere, by prompt and number: GenEval's folders, T2I-CompBench's file names, or a manifest.

A picture that is not there is an error, never a skip: totals of incomplete sets are silently wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from learn_to_steer.benchmarks import BenchmarkPrompt
from learn_to_steer.errors import DataError
from learn_to_steer.storage import read_jsonl

Placed = tuple[BenchmarkPrompt, int, Path]  # prompt, number of its picture, file
ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


def image_path(folder: Path, index: int, sample: int) -> Path:
    """Where ``evaluate`` puts a picture."""
    return folder / "images" / f"{index:05d}" / "samples" / f"{sample:04d}.png"


def find_pictures(place: str | Path, prompts: Sequence[BenchmarkPrompt], images: int | None = None) -> list[Placed]:
    """Every picture of ``prompts`` in ``place``, ``images`` a prompt (None: as many as the prompt that has most).

    ``place`` is one of: a folder ``<number>/samples/<k>.png`` (GenEval; ``<number>/metadata.jsonl`` is compared),
    also inside ``images/`` as ``evaluate`` leaves it; a folder of ``<prompt>_<k>.png`` (T2I-CompBench), also inside
    ``samples/``; a JSON-lines file whose rows have ``image`` (a path, from the file's own folder) and ``prompt`` or
    ``index``. Pictures count from the lowest k. Raises DataError when pictures are missing or of other prompts.
    """
    place = Path(place)
    if place.is_file():
        found = _listed(place, prompts)
    elif not place.is_dir():
        raise DataError(f"{place} does not exist; name a folder of pictures or a JSON-lines manifest")
    else:
        root = place / "images" if (place / "images").is_dir() else place
        numbered = any(entry.is_dir() and entry.name.isdigit() for entry in root.iterdir())
        found = _numbered(root, prompts) if numbered else _titled(place, prompts)
    wanted = images or max((len(files) for files in found), default=0)
    lacking = [(p, len(files)) for p, files in zip(prompts, found, strict=True) if len(files) < max(wanted, 1)]
    if lacking:
        prompt, count = lacking[0]
        missing = sum(max(wanted, 1) - have for _, have in lacking)
        raise DataError(
            f"{missing} pictures are missing in {place}, {len(lacking)} of {len(prompts)} prompts lack some; first: "
            f"number {prompt.index}, {prompt.prompt!r}, has {count} of {max(wanted, 1)} "
            "(score fewer prompts with --limit, or fewer pictures with --images)"
        )
    return [(p, k, file) for p, files in zip(prompts, found, strict=True) for k, file in enumerate(files[:wanted])]


def _numbered(root: Path, prompts: Sequence[BenchmarkPrompt]) -> list[list[Path]]:
    folders = {int(entry.name): entry for entry in root.iterdir() if entry.is_dir() and entry.name.isdigit()}
    found: list[list[Path]] = []
    for prompt in prompts:
        folder = folders.get(prompt.index)
        if folder is None:
            found.append([])
            continue
        told = folder / "metadata.jsonl"
        rows = read_jsonl(told) if told.is_file() else []
        if rows and _meant(rows[0]) != _meant(prompt.metadata):
            raise DataError(
                f"{told} is about {rows[0].get('prompt')!r}, but prompt {prompt.index} is {prompt.prompt!r}: "
                "these are pictures of another benchmark, or of its prompts in another order"
            )
        samples = folder / "samples"
        files = [file for file in _pictures(samples) if file.stem.isdigit()] if samples.is_dir() else []
        found.append(sorted(files, key=lambda file: int(file.stem)))
    return found


def _meant(line: dict[str, object]) -> object:
    """What a metadata line asks for, however it is worded; the prompt where it does not say."""
    return line.get("include") or line.get("prompt")


def _titled(place: Path, prompts: Sequence[BenchmarkPrompt]) -> list[list[Path]]:
    root = place / "samples" if (place / "samples").is_dir() else place
    named: dict[str, list[tuple[int, Path]]] = {}
    for file in _pictures(root):
        title, _, number = file.stem.rpartition("_")
        if title and number.isdigit():
            named.setdefault(_title(title), []).append((int(number), file))
    if not named:
        raise DataError(
            f"{place} holds neither folders <number>/samples (GenEval) nor files <prompt>_<k>.png (T2I-CompBench); "
            "list other layouts in a JSON-lines file with 'image' and 'prompt'"
        )
    return [[file for _, file in sorted(n for title in _titles(p) for n in named.get(title, []))] for p in prompts]


def _titles(prompt: BenchmarkPrompt) -> list[str]:
    """How the prompt is written, here and in the benchmark's own file."""
    own = prompt.metadata.get("prompt")
    return sorted({_title(prompt.prompt), *([_title(own)] if isinstance(own, str) else [])})


def _title(text: str) -> str:
    return " ".join(text.lower().rstrip(".").split())


def _listed(path: Path, prompts: Sequence[BenchmarkPrompt]) -> list[list[Path]]:
    by_index: dict[object, list[Path]] = {}
    titles = {prompt.index: _titles(prompt) for prompt in prompts}
    for number, row in enumerate(read_jsonl(path, allow_torn=False), 1):
        key = row.get("index", row.get("prompt"))
        told = isinstance(row.get("index", 0), int) and isinstance(row.get("prompt", ""), str)
        if not isinstance(row.get("image"), str) or key is None or not told:
            raise DataError(f"{path}, row {number}: a row needs 'image', and 'prompt' (text) or 'index' (a number)")
        meant = titles.get(key) if isinstance(key, int) else None
        if meant is not None and "prompt" in row and _title(row["prompt"]) not in meant:
            raise DataError(f"{path}, row {number}: prompt {key} is {meant[0]!r}, not {row['prompt']!r}")
        file = path.parent / row["image"]
        if not file.is_file():
            raise DataError(f"{path}, row {number}: the picture {file} does not exist")
        by_index.setdefault(_title(key) if isinstance(key, str) else key, []).append(file)
    return [
        by_index.get(p.index) or [file for title in _titles(p) for file in by_index.get(title, [])] for p in prompts
    ]


def _pictures(folder: Path) -> Iterable[Path]:
    return (file for file in folder.iterdir() if file.suffix.lower() in ENDINGS and file.is_file())
