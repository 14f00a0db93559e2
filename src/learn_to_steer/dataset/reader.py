"""Read collected maps: row numbers in, batches out, from memory when they fit and from the shards otherwise."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from learn_to_steer import storage
from learn_to_steer.dataset.shards import Manifest, paths, split_of
from learn_to_steer.errors import DataError
from learn_to_steer.maps import Layout

IN_MEMORY = 6 * 2**30  # bytes of maps up to which a split is held


@dataclass(frozen=True)
class Rows:
    """The rows of one split.

    ``label`` (true relation), ``prompted`` (relation in the prompt), ``level`` (index) and ``group`` (picture) are
    int64 tensors of one number a row; the prompt was true where ``label`` equals ``prompted``. ``maps`` fetches.
    """

    label: Tensor
    prompted: Tensor
    level: Tensor
    group: Tensor
    _shards: tuple[Path, ...]
    _starts: tuple[int, ...]
    _held: Tensor | None

    @classmethod
    def open(cls, folder: str | Path, split: str, in_memory: int = IN_MEMORY) -> Rows:
        """The rows of ``split`` ("train", "val" or "test"); at most ``in_memory`` bytes of maps are held.

        Raises DataError when the folder is no finished collection or has no row of that split.
        """
        folder = Path(folder)
        manifest = Manifest.read(folder)
        if not manifest.complete:
            raise DataError(f"{folder} is not complete: run collect again with the same settings to finish it")
        count = manifest.counts["rows"].get(split, 0)
        if not count:
            raise DataError(f"{folder} has no {split} pictures; collect more (at least 15 from the emoji source)")
        shards = tuple(paths(folder, shard)[0] for shard in manifest.shards if split_of(shard) == split)
        layout = Layout.from_dict(manifest.layout)
        hold = count * 2 * layout.channels * layout.side**2 * 2 <= in_memory
        parts = [_tensors(shard, with_maps=hold) for shard in shards]
        joined = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        starts = tuple(accumulate((len(part["label"]) for part in parts[:-1]), initial=0))
        numbers = (joined["label"], joined["prompted"], joined["level"], joined["group"])
        return cls(*numbers, shards, starts, joined.get("maps"))

    def __len__(self) -> int:
        return len(self.label)

    def maps(self, index: Sequence[int] | Tensor) -> Tensor:
        """Maps (len(index), 2, channels, side, side) of the rows at ``index``, in that order, fp16."""
        numbers = torch.as_tensor(index, dtype=torch.int64)
        if self._held is not None:
            return self._held[numbers]
        found: dict[int, Tensor] = {}
        by_shard: dict[int, list[int]] = {}
        for number in numbers.tolist():
            by_shard.setdefault(bisect_right(self._starts, number) - 1, []).append(number)
        for shard, members in by_shard.items():
            with safe_open(self._shards[shard], framework="pt") as file:
                stored = file.get_slice("maps")
                for number in members:
                    row = number - self._starts[shard]
                    found[number] = stored[row : row + 1]
        return torch.cat([found[number] for number in numbers.tolist()])


def _tensors(path: Path, *, with_maps: bool) -> dict[str, Tensor]:
    if with_maps:
        return storage.load_tensors(path)[0]
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in ("label", "prompted", "level", "group")}
