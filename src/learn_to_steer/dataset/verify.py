"""Is a folder of maps whole? Counts, shapes, hashes, and that both prompts of every picture are there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from learn_to_steer import storage
from learn_to_steer.dataset.shards import Manifest, paths, split_of, totals
from learn_to_steer.errors import DataError
from learn_to_steer.maps import Layout


def verify(folder: str | Path) -> dict[str, Any]:
    """The counts of a whole folder of maps; raises DataError naming the first file that is not as recorded."""
    folder = Path(folder)
    manifest = Manifest.read(folder)
    if not manifest.complete:
        raise DataError(f"{folder} is not complete: run collect again with the same settings to finish it")
    home: dict[int, str] = {}
    for shard in manifest.shards:
        for group in _check_shard(folder, shard, manifest):
            if home.setdefault(group, split_of(shard)) != split_of(shard):
                raise DataError(f"{folder}: picture {group} is in two splits; collect again")
    counts = totals(folder, manifest.shards)
    if counts != manifest.counts:
        raise DataError(f"{folder}: the manifest counts {manifest.counts}, the shards hold {counts}; collect again")
    return counts


def _check_shard(folder: Path, shard: str, manifest: Manifest) -> set[int]:
    """Check one shard; the pictures in it."""
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
    twins = Counter((row["group"], row["kind"]) for row in rows)
    groups = {row["group"] for row in rows}
    if any(twins[group, kind] != len(manifest.levels) for group in groups for kind in ("true", "wrong")):
        raise DataError(f"{lines}: a picture lacks one of its prompts at some level; delete it and run collect again")
    return groups
