"""The files of a collection: the manifest and the shards, and a check of their content."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from learn_to_steer import storage
from learn_to_steer.errors import DataError
from learn_to_steer.maps import Layout

SCHEMA = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """The content of ``manifest.json``: how a collection was made, the meaning of its labels, and its shards."""

    settings: dict[str, Any]
    """The settings that determine the content; compared when a run is resumed."""
    weights: str
    """Hash of the denoiser's weights; see ``digests.sampled_weights``."""
    layout: dict[str, Any]
    """The ``Layout`` of the maps."""
    fingerprint: str
    """Hash of the layout."""
    classes: list[str]
    """Names of the relations, in the order of their labels."""
    levels: list[float]
    """Noise levels in (0, 1], noisiest first."""
    source_note: str
    """Where the images come from, and their licence."""
    shards: list[str]
    """Ids of all shards, finished or not."""
    versions: dict[str, str]
    """Versions of the installed packages."""
    counts: dict[str, Any] = field(default_factory=dict)
    """Rows and images per split, and dropped images per reason; empty until the collection is complete."""
    complete: bool = False
    """Whether all shards are done."""
    skipped: dict[str, Any] = field(default_factory=dict)
    """What the source skipped: a count and examples for each reason."""
    chosen: str = ""
    """Hash of the list of images, for sources that read a file; otherwise ""."""
    schema: int = SCHEMA
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
        value = storage.read_json(path)
        if not isinstance(value, dict) or value.get("schema") != SCHEMA:
            raise DataError(f"{path} does not have schema {SCHEMA}; collect again with this version")
        try:
            manifest = cls(**value)
        except TypeError as error:
            raise DataError(f"{path} is not a complete manifest ({error}); collect again") from error
        if Layout.from_dict(manifest.layout).fingerprint != manifest.fingerprint:
            raise DataError(f"{path}: layout and fingerprint do not match: the file was edited; collect again")
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
            raise DataError(
                f"{folder} was collected from other image files (some came, went or changed); restore them, or use "
                "another folder"
            )


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
) -> None:
    """Write the three files of a shard, the one with counts and hashes last.

    Args:
        folder: The folder of the collection.
        shard: The id of the shard.
        tensors: Maps, labels and so on, one entry a row.
        rows: What is written as JSON for each row.
        dropped: The images that failed the quality check, with the reason.
    """
    maps, lines, done = paths(folder, shard)
    storage.save_tensors(maps, tensors)
    storage.write_atomic(lines, "".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows))
    images = len({row["group"] for row in rows})
    hashes = {path.name: storage.sha256(path) for path in (maps, lines)}
    storage.write_json(done, {"rows": len(rows), "pictures": images, "dropped": list(dropped), "sha256": hashes})


def is_done(folder: Path, shard: str) -> bool:
    """Tell whether all files of a shard exist; ``verify`` also checks their content."""
    return all(path.is_file() for path in paths(folder, shard))


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that a killed run left behind."""
    for path in (folder / "shards").glob(".*.tmp"):
        path.unlink(missing_ok=True)


def totals(folder: Path, shards: Sequence[str]) -> dict[str, Any]:
    """Count rows and images per split, and dropped images per reason, over finished shards."""
    counts: dict[str, Any] = {"rows": {}, "pictures": {}, "dropped": {}}
    for shard in shards:
        done = storage.read_json(paths(folder, shard)[2])
        for key in ("rows", "pictures"):
            counts[key][split_of(shard)] = counts[key].get(split_of(shard), 0) + done[key]
        for entry in done["dropped"]:
            counts["dropped"][entry["reason"]] = counts["dropped"].get(entry["reason"], 0) + 1
    return counts


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
        for group in _check_shard(folder, shard, manifest):
            if split_by_image.setdefault(group, split_of(shard)) != split_of(shard):
                raise DataError(f"{folder}: image {group} is in two splits; collect again")
    counts = totals(folder, manifest.shards)
    if counts != manifest.counts:
        raise DataError(f"{folder}: the manifest counts {manifest.counts}, the shards hold {counts}; collect again")
    return counts


def _check_shard(folder: Path, shard: str, manifest: Manifest) -> set[int]:
    """Check one shard, and return the numbers of its images."""
    maps, lines, done = paths(folder, shard)
    record = storage.read_json(done)
    for path in (maps, lines):
        if storage.sha256(path) != record["sha256"][path.name]:
            raise DataError(f"{path} does not match its recorded hash; delete it and run collect again")
    tensors, _ = storage.load_tensors(maps)
    layout = Layout.from_dict(manifest.layout)
    count = record["rows"]
    if tuple(tensors["maps"].shape) != (count, 2, layout.channels, layout.side, layout.side):
        raise DataError(f"{maps} holds maps of shape {tuple(tensors['maps'].shape)}, not {count} of the layout")
    rows = storage.read_jsonl(lines)
    if len(rows) != count or any(len(tensors[key]) != count for key in ("label", "prompted", "level", "group")):
        raise DataError(f"{shard} in {folder} has {len(rows)} lines for {count} rows; delete it and run collect again")
    if any(len(tensors[key]) and int(tensors[key].max()) >= len(manifest.classes) for key in ("label", "prompted")):
        raise DataError(f"{maps} has labels beyond the {len(manifest.classes)} classes; collect again")
    prompts = Counter((row["group"], row["kind"]) for row in rows)
    groups = {row["group"] for row in rows}
    if any(prompts[group, kind] != len(manifest.levels) for group in groups for kind in ("true", "wrong")):
        raise DataError(
            f"{lines}: an image lacks one of its prompts at some noise level; delete it and run collect again"
        )
    return groups
