"""Check a folder that a verb of the command line wrote: structure, types, hashes, counts, images."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from os.path import lexists
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from learn_to_steer import classifier, storage
from learn_to_steer.classifier.file import FILE as CLASSIFIER
from learn_to_steer.collection.shards import Manifest, check_counts, check_shard, split_of
from learn_to_steer.errors import DataError, SteerError
from learn_to_steer.evaluation.image_folders import metadata_path
from learn_to_steer.evaluation.results import summarise
from learn_to_steer.evaluation.score_images import CachedDetections
from learn_to_steer.image_files import is_whole, read_image
from learn_to_steer.plain_text import shown
from learn_to_steer.result_rows import FILE as RESULTS
from learn_to_steer.result_rows import Number, image_path, read_rows
from learn_to_steer.training import checkpoint
from learn_to_steer.validation import validated

Share = Annotated[float, Field(ge=0, le=1)]
ROW = {"prompt", "relations", "correct", "present", "held", "on_axis", "reason", "boxes"}
AGAIN = {
    "collection": "run collect again with the same settings",
    "classifier": "run train again with the same settings",
    "evaluation": "run evaluate again with the same settings",
    "score": "run score again with the same settings",
    "images": "run generate again with the same settings",
    "prompts": "run export-prompts again",
}


@dataclass(frozen=True)
class Finding:
    """The state of one part of a folder.

    Attributes:
        part: A file, or the name of a group of files.
        note: What it holds; empty if it is damaged.
        problem: What is wrong, and how to mend it; empty if it is whole.
    """

    part: str
    note: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Verification:
    """What a folder holds, and the state of its parts.

    Attributes:
        kind: "collection", "classifier", "evaluation", "score", "images" (of ``generate``) or "prompts" (exported).
        findings: The parts, in the order in which they were checked.
    """

    kind: str
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> list[Finding]:
        """The parts that are damaged or missing."""
        return [finding for finding in self.findings if finding.problem]


class _Metrics(BaseModel):
    model_config = ConfigDict(extra="allow")

    best_epoch: Number
    val: dict[str, Any]
    config: dict[str, Any]
    history: list[checkpoint.Epoch]


class _Summary(BaseModel):
    model_config = ConfigDict(extra="allow")

    accuracy: Share
    accuracy_interval: Annotated[list[Share], Field(min_length=2, max_length=2)]
    both_present: Share
    prompts: Number
    images: Number
    per_relation: dict[str, dict[str, Number | Share | None]]
    failures: dict[str, Number]
    metrics: dict[str, Any] = {}
    config: dict[str, Any] = {}
    versions: dict[str, str] = {}
    against: dict[str, Any] | None = None


class _ReportedImage(BaseModel):
    model_config = ConfigDict(extra="allow")

    index: Number
    base: Annotated[str, Field(pattern=r"^[\w-]+\.png$")]
    steered: Annotated[str, Field(pattern=r"^[\w-]+\.png$")] | None = None
    base_verdict: dict[str, Any] | None
    steered_verdict: dict[str, Any] | None = None
    steering: dict[str, Any] | None = None
    seconds: dict[str, Annotated[float, Field(ge=0)]] | None = None


class _ReportedPrompt(BaseModel):
    prompt: str
    relations: list[Annotated[list[str], Field(min_length=3, max_length=3)]]
    images: Annotated[list[_ReportedImage], Field(min_length=1)]


class _Report(BaseModel):
    model_config = ConfigDict(extra="allow")

    model: str
    seed: Annotated[int, Field(ge=0)]
    sampling: dict[str, Any]
    fingerprints: dict[str, str]
    prompts: Annotated[list[_ReportedPrompt], Field(min_length=1)]


class _ExportedSet(BaseModel):
    prompts: Number
    sha256: dict[str, str]


def verify(folder: str | Path) -> Verification:
    """Check a folder that ``collect``, ``train``, ``evaluate``, ``score``, ``generate`` or ``export-prompts`` wrote.

    Nothing is changed, and no model is loaded.

    Args:
        folder: The folder.

    Returns:
        What it holds, and the state of every part of it.

    Raises:
        DataError: It is no folder, or holds nothing that these verbs write.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; name one that collect, train, evaluate, score or generate wrote")
    kind = _kind(folder)
    return Verification(kind, tuple(_CHECKS[kind](folder)))


def _kind(folder: Path) -> str:
    files = {entry.name for entry in folder.iterdir()}
    if "manifest.json" in files and "shards" not in files and _exported(folder):
        return "prompts"
    for kind, names in (
        ("collection", {"manifest.json", "shards"}),
        ("classifier", {CLASSIFIER, checkpoint.FILE}),
        ("images", {"report.json"}),
        ("score", {"detections.jsonl"}),
        ("evaluation", {RESULTS} if files & {"config.json", "images"} else set()),
        ("score", {RESULTS}),
    ):
        if names & files:
            return kind
    settings = storage.read_json(folder / "config.json", dict[str, Any]) if "config.json" in files else {}
    for kind, name in (("evaluation", "detector"), ("images", "relations")):
        if name in settings:
            return kind
    raise DataError(
        f"{folder} holds nothing that can be verified; name a folder that collect, train, evaluate, score or generate "
        "wrote"
    )


def _exported(folder: Path) -> bool:
    """Whether manifest.json is one of ``export-prompts``."""
    try:
        storage.read_json(folder / "manifest.json", dict[str, _ExportedSet])
    except DataError:
        return False
    return True


def _finding(part: str, check: Callable[[], str]) -> Finding:
    """The finding of a check that returns what a part holds, or raises."""
    try:
        return Finding(part, note=check())
    except SteerError as error:
        return Finding(part, problem=str(error))


def _collection(folder: Path) -> Iterator[Finding]:
    again = AGAIN["collection"]
    try:
        manifest = Manifest.read(folder)
    except SteerError as error:
        yield Finding("manifest.json", problem=str(error))
        return
    facts = f"{len(manifest.shards)} shards, {len(manifest.classes)} classes, {len(manifest.levels)} noise levels"
    yield Finding("manifest.json", note=facts)
    if not manifest.complete:
        yield Finding("collection", problem=f"it is not finished; {again}")
    splits: dict[int, str] = {}
    damaged = False
    for shard in manifest.shards:
        twice: list[int] = []

        def check(shard: str = shard, twice: list[int] = twice) -> str:
            groups = check_shard(folder, shard, manifest)
            twice += [group for group in groups if splits.setdefault(group, split_of(shard)) != split_of(shard)]
            if twice:
                raise DataError(f"image {twice[0]} is in two splits; collect again into another folder")
            return f"{len(groups)} images"

        finding = _finding(f"shards/{shard}", check)
        damaged = damaged or bool(finding.problem)
        yield finding
    if manifest.complete and not damaged:

        def counts() -> str:
            check_counts(folder, manifest)
            return ", ".join(f"{split} {count} rows" for split, count in manifest.counts["rows"].items())

        yield _finding("counts", counts)


def _classifier(folder: Path) -> Iterator[Finding]:
    path = folder / CLASSIFIER
    if lexists(path):

        def weights() -> str:
            config = classifier.load(path).config
            return f"{len(config.classes)} classes, {config.channels} maps per object"

        yield _finding(CLASSIFIER, weights)
    else:
        yield Finding(CLASSIFIER, problem=f"it is missing, so the training is not finished; {AGAIN['classifier']}")
    path = folder / checkpoint.FILE
    metrics = folder / "metrics.json"
    if lexists(path):
        yield _finding(checkpoint.FILE, lambda: f"{len(checkpoint.read(path)['history'])} epochs")
    if lexists(metrics):

        def measured() -> str:
            found = storage.read_json(metrics, _Metrics, f"delete it, and {AGAIN['classifier']}")
            return f"best epoch {found.best_epoch} of {len(found.history)}"

        yield _finding("metrics.json", measured)
    elif lexists(path):  # a classifier from elsewhere has neither
        yield Finding("metrics.json", problem=f"it is missing, so the training is not finished; {AGAIN['classifier']}")
    yield from _settings(folder, AGAIN["classifier"])


def _settings(folder: Path, again: str) -> Iterator[Finding]:
    path = folder / "config.json"
    if lexists(path):
        remedy = f"delete it, and {again}"
        yield _finding("config.json", lambda: f"{len(storage.read_json(path, dict[str, Any], remedy))} settings")


def _evaluation(folder: Path) -> Iterator[Finding]:
    again = AGAIN["evaluation"]
    if lexists(folder / "config.json"):
        yield from _settings(folder, again)
    else:
        yield Finding("config.json", problem=f"it is missing; {again}")
    rows = yield from _rows(folder, again)
    if rows is None:
        return
    damaged: dict[Path, str] = {}
    for row in rows:
        path = image_path(folder, row["index"], row["sample"])
        for file, check in ((path, _check_image), (metadata_path(path), _check_metadata)):
            try:
                check(file)
            except DataError as error:
                damaged[file] = str(error)
    for file, reason in damaged.items():
        yield Finding(file.relative_to(folder).as_posix(), problem=f"{reason}; {again}")
    if not damaged:
        yield Finding("images", note=f"{len(rows)} can be read")
    yield from _summary(folder, rows, again)


def _check_image(path: Path) -> None:
    if not is_whole(path):
        raise DataError("it is missing or damaged")
    read_image(path)


def _check_metadata(path: Path) -> None:
    if not storage.read_jsonl(path, allow_torn=False):
        raise DataError("it is empty")


def _score(folder: Path) -> Iterator[Finding]:
    again = AGAIN["score"]
    path = folder / "detections.jsonl"
    yield _finding("detections.jsonl", lambda: f"{len(storage.read_jsonl(path, CachedDetections))} images")
    rows = yield from _rows(folder, again)
    if rows is not None:
        yield from _summary(folder, rows, again)


def _rows(folder: Path, again: str) -> Generator[Finding, None, list[dict[str, Any]] | None]:
    """Yield the finding about results.jsonl; return its rows, None if they are damaged."""
    try:
        rows = read_rows(folder)
        for number, row in enumerate(rows, start=1):
            if lacking := sorted(ROW - row.keys()):
                raise DataError(f"results.jsonl, row {number}: {lacking[0]} is missing; remove the row, and {again}")
    except SteerError as error:
        yield Finding("results.jsonl", problem=str(error))
        return None
    if not rows:
        yield Finding("results.jsonl", problem=f"it has no rows; {again}")
        return None
    yield Finding("results.jsonl", note=f"{len(rows)} rows")
    return rows


def _summary(folder: Path, rows: list[dict[str, Any]], again: str) -> Iterator[Finding]:
    path = folder / "summary.json"
    if not lexists(path):
        yield Finding("summary.json", problem=f"it is missing, so the run is not finished; {again}")
        return

    def check() -> str:
        stored = storage.read_json(path, None, f"delete it, and {again}")
        summary: _Summary = validated(stored, _Summary, str(path), f"delete it, and {again}")
        if summary.images > len(rows):
            raise DataError(f"it counts {summary.images} images, but there are {len(rows)} rows; {again}")
        own = summarise(rows)
        # With a smaller --limit or --images, the summary is about a part of the rows.
        for name in own if summary.images == len(rows) else ():
            value = stored.get(name, own[name])  # older versions have fewer values
            if value != own[name] and name != "accuracy_interval":  # which is drawn at random
                raise DataError(f"its {name} is {shown(value)}, that of the rows {shown(own[name])}; {again}")
        return f"accuracy {summary.accuracy:.3f} on {summary.images} images"

    yield _finding("summary.json", check)


def _images(folder: Path) -> Iterator[Finding]:
    again = AGAIN["images"]
    yield from _settings(folder, again)
    path = folder / "report.json"
    if not lexists(path):
        yield Finding("report.json", problem=f"it is missing, so the run is not finished; {again}")
        return
    try:
        report: _Report = storage.read_json(path, _Report, f"delete it, and {again}")
    except SteerError as error:
        yield Finding("report.json", problem=str(error))
        return
    yield Finding("report.json", note=f"{len(report.prompts)} prompts")
    named = [name for p in report.prompts for image in p.images for name in (image.base, image.steered) if name]
    named += ["compare.png", *(["maps.png"] if (folder / "maps.png").exists() else [])]
    damaged = [name for name in named if not is_whole(folder / name)]
    yield from (Finding(name, problem=f"it is missing or damaged; {again}") for name in damaged)
    if not damaged:
        yield Finding("images", note=f"{len(named)} can be read")


def _prompts(folder: Path) -> Iterator[Finding]:
    sets = storage.read_json(folder / "manifest.json", dict[str, _ExportedSet])
    for one in sets.values():
        for name, digest in one.sha256.items():
            whole = (folder / name).is_file() and storage.sha256(folder / name) == digest
            problem = f"it is missing or does not match its recorded hash; {AGAIN['prompts']}"
            yield Finding(name, note=f"{one.prompts} prompts") if whole else Finding(name, problem=problem)


_CHECKS: dict[str, Callable[[Path], Iterator[Finding]]] = {
    "collection": _collection,
    "classifier": _classifier,
    "evaluation": _evaluation,
    "score": _score,
    "images": _images,
    "prompts": _prompts,
}
