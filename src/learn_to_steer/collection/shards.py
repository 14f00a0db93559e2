"""The files of a collection: the manifest and the shards, and a check of their content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from learn_to_steer import storage
from learn_to_steer.errors import DataError
from learn_to_steer.geometry import BASIC, DIAGONAL, NEUTRAL
from learn_to_steer.maps import Layout
from learn_to_steer.validation import validated

SCHEMA: Final = 1
MANIFEST = "manifest.json"
PICTURES = "pictures"  # folder of the pictures that the model drew
# The sets of relations that a collection may have, beside the basic ones.
EXTRA_CLASSES: tuple[set[str], ...] = (set(), {NEUTRAL}, {*DIAGONAL}, {NEUTRAL, *DIAGONAL})
COUNTS = {"rows", "pictures", "dropped"}
AGAIN = "restore the file, or collect again into another folder"
MOST = 2**31  # of rows, images, channels and so on
Count = Annotated[int, Field(ge=0, le=MOST)]


@dataclass(frozen=True)
class Manifest:
    """The content of ``manifest.json``: how a collection was made, the meaning of its labels, and its shards."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    settings: dict[str, Any]
    """The settings that determine the content; compared when a run is resumed."""
    weights: str
    """Hash of the denoiser's weights; see ``digests.sampled_weights``."""
    layout: dict[str, Any]
    """The ``Layout`` of the maps."""
    fingerprint: str
    """Hash of the layout."""
    classes: Annotated[list[str], Field(min_length=2, max_length=1000)]
    """Names of the relations, in the order of their labels."""
    levels: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1, max_length=1000)]
    """Noise levels in (0, 1], noisiest first."""
    source_note: str
    """Where the images come from, and their licence."""
    shards: list[Annotated[str, Field(pattern=r"^[a-z]+-[0-9]{4,9}$")]]
    """Ids of all shards, finished or not."""
    versions: dict[str, str]
    """Versions of the installed packages."""
    counts: dict[str, dict[str, Count]] = field(default_factory=dict)
    """Rows and images per split, and dropped images per reason; empty until the collection is complete."""
    complete: bool = False
    """Whether all shards are done."""
    skipped: dict[str, Any] = field(default_factory=dict)
    """What the source skipped: a count and examples for each reason."""
    chosen: str = ""
    """Hash of the list of images, for sources that read a file; otherwise ""."""
    drawn: dict[str, Any] = field(default_factory=dict)
    """Of pictures that the model drew: what was drawn and how, and once complete, the yield."""
    schema: Literal[1] = SCHEMA
    """Version of this file's format."""

    def write(self, folder: Path) -> None:
        """Write ``manifest.json`` into ``folder``, atomically."""
        storage.write_json(folder / MANIFEST, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Return the manifest of a collection.

        Args:
            folder: The folder of the collection.

        Raises:
            DataError: The file is missing, has another schema, or its layout does not match its fingerprint.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise DataError(f"{folder} has no {MANIFEST}, so it is not a collection; make one with 'collect'")
        value = storage.read_json(path, remedy=AGAIN)
        schema = value.get("schema") if isinstance(value, dict) else None
        if schema != SCHEMA or isinstance(schema, bool):
            raise DataError(f"{path} does not have schema {SCHEMA}; {AGAIN}, with this version")
        manifest: Manifest = validated(value, cls, str(path), AGAIN)
        layout: Layout = validated(manifest.layout, Layout, f"{path}: layout", AGAIN)
        if layout.fingerprint != manifest.fingerprint:
            raise DataError(f"{path}: layout and fingerprint do not match: the file was edited; {AGAIN}")
        for name, values in (("classes", manifest.classes), ("shards", manifest.shards)):
            if len(set(values)) < len(values):
                raise DataError(f"{path}: {name}: a value is listed twice; {AGAIN}")
        if set(manifest.classes) not in (set(BASIC) | extra for extra in EXTRA_CLASSES):
            raise DataError(
                f"{path}: classes: {', '.join(BASIC)} are expected, perhaps {NEUTRAL} and diagonals; {AGAIN}"
            )
        if manifest.counts.keys() != (COUNTS if manifest.complete else set()):
            raise DataError(f"{path}: counts: {', '.join(sorted(COUNTS))} are expected; {AGAIN}")
        return manifest

    def require_same(self, other: Manifest, folder: Path) -> None:
        """Check that a run with another manifest would make the same collection.

        Args:
            other: The manifest of the new run.
            folder: The folder of this collection, for the message.

        Raises:
            DataError: They differ; the message names the first difference.
        """
        for key in self.settings.keys() | other.settings.keys():
            mine, theirs = self.settings.get(key), other.settings.get(key)
            if mine != theirs:
                raise DataError(f"{folder} was collected with {key} {mine!r}, not {theirs!r}; use another folder")
        for key in ("weights", "fingerprint", "levels", "shards"):
            if getattr(self, key) != getattr(other, key):
                raise DataError(
                    f"{folder} was collected from another model or source ({key} differ); use another folder"
                )
        if self.chosen != other.chosen:
            if self.drawn:
                raise DataError(
                    f"{folder} was collected with other objects or detectors (their lists or weights changed); use "
                    "another folder"
                )
            raise DataError(
                f"{folder} was collected from other image files (some came, went or changed); restore them, or use "
                "another folder"
            )


class _DroppedImage(BaseModel):
    picture: str
    reason: str


class Yield(BaseModel):
    """What came of the pictures of a shard that the model drew."""

    pictures: Count
    """The number of pictures drawn."""
    words: Count
    """The number of relation words about pairs whose relation is seen."""
    obeyed: Count
    """How many of these words are true."""
    contrast: bool
    """Whether the pictures were also read under wrong words."""
    labels: dict[str, Count]
    """The number of pairs by label."""
    skipped: dict[str, Any]
    """The pairs that are left out: a count and examples for each reason."""


class ShardRecord(BaseModel):
    """The content of ``<shard>.json``, which marks a shard as finished."""

    rows: Count
    """The number of rows."""
    pictures: Count
    """The number of images."""
    dropped: list[_DroppedImage]
    """The images that failed the quality check."""
    sha256: dict[str, str]
    """The hash of each of the shard's other files, by name."""
    drawn: Yield | None = None
    """Of pictures that the model drew."""

    @classmethod
    def read(cls, folder: Path, shard: str) -> ShardRecord:
        """Return the record of a shard.

        Args:
            folder: The folder of the collection.
            shard: The id of the shard.

        Raises:
            DataError: The file is missing or malformed.
        """
        record: ShardRecord = storage.read_json(paths(folder, shard)[2], cls, "delete it and run collect again")
        return record


class _Row(BaseModel):
    """What is read back of a line of ``<shard>.jsonl``."""

    group: Count
    kind: str
    subject: str = ""
    object: str = ""


def paths(folder: Path, shard: str) -> tuple[Path, Path, Path]:
    """Return the paths of a shard: its tensors, its rows, and the file that marks it as finished."""
    parent = folder / "shards"
    return parent / f"{shard}.safetensors", parent / f"{shard}.jsonl", parent / f"{shard}.json"


def split_of(shard: str) -> str:
    """Return the split in a shard id: "train-0000" -> "train"."""
    return shard.rsplit("-", 1)[0]


def write_shard(
    folder: Path,
    shard: str,
    tensors: Mapping[str, Tensor],
    rows: Sequence[Mapping[str, Any]],
    dropped: Sequence[Mapping[str, Any]],
    pictures: Sequence[Mapping[str, Any]] | None = None,
    drawn: Mapping[str, Any] | None = None,
) -> None:
    """Write the files of a shard, the one with counts and hashes last.

    Args:
        folder: The folder of the collection.
        shard: The id of the shard.
        tensors: Maps, labels and so on, one entry a row.
        rows: What is written as JSON for each row.
        dropped: The images that failed the quality check, with the reason.
        pictures: What is seen in each picture that the model drew.
        drawn: The content of a ``Yield``.
    """
    maps, lines, done = paths(folder, shard)
    storage.save_tensors(maps, tensors)
    storage.write_atomic(lines, b"".join(map(storage.jsonl_line, rows)))
    images = len({row["group"] for row in rows})
    if pictures is not None:
        storage.write_atomic(folder / PICTURES / f"{shard}.jsonl", b"".join(map(storage.jsonl_line, pictures)))
    hashes = {path.name: storage.sha256(path) for path in (maps, lines)}
    record = {"rows": len(rows), "pictures": images, "dropped": list(dropped), "sha256": hashes}
    storage.write_json(done, record if drawn is None else record | {"drawn": dict(drawn)})


def is_done(folder: Path, shard: str) -> bool:
    """Tell whether all files of a shard exist; ``verify`` also checks their content."""
    return all(path.is_file() for path in paths(folder, shard))


def totals(folder: Path, shards: Sequence[str]) -> dict[str, Any]:
    """Count rows and images per split, and dropped images per reason, over finished shards."""
    counts: dict[str, Any] = {"rows": {}, "pictures": {}, "dropped": {}}
    for shard in shards:
        record = ShardRecord.read(folder, shard)
        for key, count in (("rows", record.rows), ("pictures", record.pictures)):
            counts[key][split_of(shard)] = counts[key].get(split_of(shard), 0) + count
        for image in record.dropped:
            counts["dropped"][image.reason] = counts["dropped"].get(image.reason, 0) + 1
    return counts


def total_yield(folder: Path, shards: Sequence[str]) -> dict[str, Any]:
    """Add up what came of the pictures that the model drew, over finished shards: the content of a ``Yield``."""
    total: dict[str, Any] = {"pictures": 0, "words": 0, "obeyed": 0, "contrast": False, "labels": {}, "skipped": {}}
    for shard in shards:
        drawn = ShardRecord.read(folder, shard).drawn
        if drawn is None:
            raise DataError(f"{paths(folder, shard)[2]} does not say what was drawn; delete it and run collect again")
        for key in ("pictures", "words", "obeyed"):
            total[key] += getattr(drawn, key)
        total["contrast"] |= drawn.contrast
        for label, count in drawn.labels.items():
            total["labels"][label] = total["labels"].get(label, 0) + count
        for reason, case in drawn.skipped.items():
            known = total["skipped"].setdefault(reason, {"count": 0, "examples": case["examples"]})
            known["count"] += case["count"]
    return total | {"labels": dict(sorted(total["labels"].items())), "skipped": dict(sorted(total["skipped"].items()))}


def verify(folder: str | Path) -> dict[str, Any]:
    """Check a collection: counts, shapes, hashes, and that both prompts of every image are there.

    Args:
        folder: The folder of the collection.

    Returns:
        Its counts: rows and images per split, dropped images per reason.

    Raises:
        DataError: The collection is not complete, or a file differs from what was recorded; the message names it.
    """
    folder = Path(folder)
    manifest = Manifest.read(folder)
    if not manifest.complete:
        raise DataError(f"{folder} is not complete: run collect again with the same settings to finish it")
    split_by_image: dict[int, str] = {}
    for shard in manifest.shards:
        for group in check_shard(folder, shard, manifest):
            if split_by_image.setdefault(group, split_of(shard)) != split_of(shard):
                raise DataError(f"{folder}: image {group} is in two splits; {AGAIN}")
    check_counts(folder, manifest)
    return manifest.counts


def check_counts(folder: Path, manifest: Manifest) -> None:
    """Raise DataError unless the shards of a collection hold as many rows and images as its manifest says."""
    counts = totals(folder, manifest.shards)
    if counts != manifest.counts:
        raise DataError(
            f"{folder}: the manifest counts {manifest.counts}, the shards hold {counts}; run collect again with the "
            "same settings"
        )


def load_shard(folder: Path, shard: str, manifest: Manifest) -> dict[str, Tensor]:
    """Read the tensors of a shard, after a check of its hashes and of every value.

    Args:
        folder: The folder of the collection.
        shard: The id of the shard.
        manifest: The manifest of the collection.

    Returns:
        ``maps``, ``label``, ``prompted``, ``level`` and ``group``, one entry a row.

    Raises:
        DataError: A file is missing or differs from what was recorded, or a row holds an impossible value; the message
            names the shard and the row.
    """
    maps, lines, done = paths(folder, shard)
    for path in (maps, lines, done):
        if not path.exists():
            raise DataError(f"{path} is missing; run collect again with the same settings")
    record = ShardRecord.read(folder, shard)
    for path in (maps, lines):
        if storage.sha256(path) != record.sha256.get(path.name):
            raise DataError(f"{path} does not match its recorded hash; delete it and run collect again")
    tensors, _ = storage.load_tensors(maps)
    layout = Layout.from_dict(manifest.layout)
    ends = {"label": len(manifest.classes), "prompted": len(manifest.classes), "level": len(manifest.levels)}
    expected = {
        "maps": (torch.float16, (record.rows, 2, layout.channels, layout.side, layout.side)),
        **{name: (torch.int64, (record.rows,)) for name in (*ends, "group")},
    }
    for name, (dtype, shape) in expected.items():
        if name not in tensors:
            raise DataError(f"{maps} holds no {name}; delete it and run collect again")
        if (tensors[name].dtype, tuple(tensors[name].shape)) != (dtype, shape):
            raise DataError(
                f"{maps} holds {name} of shape {tuple(tensors[name].shape)} and type {tensors[name].dtype}, not "
                f"{shape} and {dtype}; delete it and run collect again"
            )
    for name, end in {**ends, "group": MOST}.items():
        wrong = ((tensors[name] < 0) | (tensors[name] >= end)).nonzero().flatten().tolist()
        if wrong:
            raise DataError(
                f"{maps}, row {wrong[0]}: {name} is {int(tensors[name][wrong[0]])}, not 0 to {end - 1}; delete it and "
                "run collect again"
            )
    finite = tensors["maps"].isfinite().flatten(1).all(dim=1)
    if not finite.all():
        row = int((~finite).nonzero()[0])
        raise DataError(f"{maps}, row {row}: a map has values that are not finite; delete it and run collect again")
    return {name: tensors[name] for name in expected}


def check_shard(folder: Path, shard: str, manifest: Manifest) -> set[int]:
    """Check one shard: as ``load_shard``, and that both prompts of every image are there at every level.

    Args:
        folder: The folder of the collection.
        shard: The id of the shard.
        manifest: The manifest of the collection.

    Returns:
        The numbers of its images.

    Raises:
        DataError: As ``load_shard``, or a prompt is missing.
    """
    groups = load_shard(folder, shard, manifest)["group"].tolist()
    lines = paths(folder, shard)[1]
    rows = storage.read_jsonl(lines, _Row, allow_torn=False)
    if [row["group"] for row in rows] != groups:
        raise DataError(f"{lines} has other rows than the tensors; delete it and run collect again")
    kinds = ("drawn",) if manifest.drawn else ("true", "wrong")
    images = [(row["group"], row.get("subject"), row.get("object")) for row in rows]
    wanted = {(*image, kind) for image in images for kind in kinds}
    found = Counter((*image, row["kind"]) for image, row in zip(images, rows, strict=True))
    if any(found[one] != len(manifest.levels) for one in wanted | set(found)):
        raise DataError(
            f"{lines}: an image lacks one of its prompts at some noise level; delete it and run collect again"
        )
    return set(groups)
