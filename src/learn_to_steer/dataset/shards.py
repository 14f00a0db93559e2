"""Shards on the disk: whole or not there, with hashes; and the manifest that ties them together."""

from __future__ import annotations

import json
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
    """What a folder of maps is: how it was made, what its numbers mean, which shards belong to it.

    ``settings`` decide the content (compared when a run is taken up again); ``shards`` are all ids, done or not;
    ``counts`` are filled in when the last one is done: rows and pictures per split, dropped pictures per reason.
    ``skipped`` is what the source left out before that, per reason a count and examples; ``chosen`` is a hash of the
    pictures it gave, empty for drawn ones.
    """

    settings: dict[str, Any]
    weights: str
    layout: dict[str, Any]
    fingerprint: str
    classes: list[str]
    levels: list[float]
    source_note: str
    shards: list[str]
    versions: dict[str, str]
    counts: dict[str, Any] = field(default_factory=dict)
    complete: bool = False
    skipped: dict[str, Any] = field(default_factory=dict)
    chosen: str = ""
    schema: int = SCHEMA

    def write(self, folder: Path) -> None:
        """Write ``manifest.json``, atomically."""
        storage.write_json(folder / MANIFEST, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read a folder's manifest; DataError when there is none, or of another schema, or its layout was changed."""
        path = folder / MANIFEST
        if not path.is_file():
            raise DataError(f"{folder} has no {MANIFEST}: it is not a folder of collected maps; make one with collect")
        value = storage.read_json(path)
        if not isinstance(value, dict) or value.get("schema") != SCHEMA:
            raise DataError(f"{path} has another schema than {SCHEMA}; collect again with this version")
        try:
            manifest = cls(**value)
        except TypeError as error:
            raise DataError(f"{path} is not a whole manifest ({error}); collect again") from error
        if Layout.from_dict(manifest.layout).fingerprint != manifest.fingerprint:
            raise DataError(f"{path}: layout and fingerprint disagree, the file was changed by hand; collect again")
        return manifest

    def require_same(self, other: Manifest, folder: Path) -> None:
        """Raise DataError, naming the first difference, unless both describe the same collection."""
        for key in self.settings.keys() | other.settings.keys():
            mine, theirs = self.settings.get(key), other.settings.get(key)
            if mine != theirs:
                raise DataError(
                    f"{folder} was collected with {key} {mine!r}, not {theirs!r}; use another folder for that"
                )
        for key in ("weights", "fingerprint", "levels", "shards"):
            if getattr(self, key) != getattr(other, key):
                raise DataError(
                    f"{folder} was collected from another model or world ({key} differ); use another folder"
                )
        if self.chosen != other.chosen:
            raise DataError(
                f"{folder} was begun with other picture files (some came, went or changed); restore them, or use "
                "another folder"
            )


def paths(folder: Path, shard: str) -> tuple[Path, Path, Path]:
    """A shard's tensors, its rows, and the file that says that it is done."""
    place = folder / "shards"
    return place / f"{shard}.safetensors", place / f"{shard}.jsonl", place / f"{shard}.json"


def split_of(shard: str) -> str:
    return shard.rsplit("-", 1)[0]


def write_shard(
    folder: Path,
    shard: str,
    tensors: Mapping[str, Tensor],
    rows: Sequence[Mapping[str, Any]],
    dropped: Sequence[Mapping[str, Any]],
) -> None:
    """Write tensors, rows and, last, the file of counts and hashes; a kill before that leaves the shard undone."""
    maps, lines, done = paths(folder, shard)
    storage.save_tensors(maps, tensors)
    storage.write_atomic(lines, "".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows))
    pictures = len({row["group"] for row in rows})
    hashes = {path.name: storage.sha256(path) for path in (maps, lines)}
    storage.write_json(done, {"rows": len(rows), "pictures": pictures, "dropped": list(dropped), "sha256": hashes})


def is_done(folder: Path, shard: str) -> bool:
    """Whether all three files of a shard are there; verify also asks whether they are whole."""
    return all(path.is_file() for path in paths(folder, shard))


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of a killed run."""
    for path in (folder / "shards").glob(".*.tmp"):
        path.unlink(missing_ok=True)


def totals(folder: Path, shards: Sequence[str]) -> dict[str, Any]:
    """Rows and pictures per split, and dropped pictures per reason, of finished shards."""
    counts: dict[str, Any] = {"rows": {}, "pictures": {}, "dropped": {}}
    for shard in shards:
        done = storage.read_json(paths(folder, shard)[2])
        for key in ("rows", "pictures"):
            counts[key][split_of(shard)] = counts[key].get(split_of(shard), 0) + done[key]
        for entry in done["dropped"]:
            counts["dropped"][entry["reason"]] = counts["dropped"].get(entry["reason"], 0) + 1
    return counts
