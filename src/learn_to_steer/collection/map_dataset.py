"""Read collected maps in batches: from memory if they fit, otherwise from the shards on disk."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from jaxtyping import Float16, Int64
from safetensors import SafetensorError, safe_open
from torch import Tensor

from learn_to_steer.collection.shards import Manifest, load_shard, paths, split_of
from learn_to_steer.errors import DataError
from learn_to_steer.maps import Layout

IN_MEMORY = 6 * 2**30  # bytes; a split with larger maps is read from the shards


@dataclass(frozen=True)
class MapDataset:
    """The rows of one split. A row is one image under one prompt at one noise level."""

    label: Int64[Tensor, " rows"]
    """Index of the true relation."""
    prompted: Int64[Tensor, " rows"]
    """Index of the relation in the prompt. The prompt is true where it equals ``label``."""
    level: Int64[Tensor, " rows"]
    """Index of the noise level."""
    group: Int64[Tensor, " rows"]
    """Number of the image."""
    _shards: tuple[Path, ...]
    _starts: tuple[int, ...]
    _held: Tensor | None
    """All maps of the split, or None when they are read from the shards."""
    _at_once: int
    """Number of rows whose maps may be held in memory."""
    _channels: list[int] | None = None
    """The channels of a shard that are read; None for all."""

    @classmethod
    def open(
        cls, folder: str | Path, split: str, in_memory: int = IN_MEMORY, channels: list[int] | None = None
    ) -> MapDataset:
        """Open one split of a collection. Hashes and values of all its shards are checked.

        Args:
            folder: The folder of the collection.
            split: "train", "val" or "test".
            in_memory: The most bytes of maps to hold in memory.
            channels: Indices of the channels to read; None for all.

        Raises:
            DataError: The folder is no finished collection, has no row of that split, or a shard is damaged.
        """
        folder = Path(folder)
        manifest = Manifest.read(folder)
        if not manifest.complete:
            raise DataError(f"{folder} is not complete: run collect again with the same settings to finish it")
        count = manifest.counts["rows"].get(split, 0)
        if not count:
            raise DataError(
                f"{folder} has no {split} images; collect more: about one in ten goes to val, one in ten to test"
            )
        names = [shard for shard in manifest.shards if split_of(shard) == split]
        layout = Layout.from_dict(manifest.layout)
        if channels == list(range(layout.channels)):
            channels = None
        width = layout.channels if channels is None else len(channels)
        at_once = in_memory // (2 * width * layout.side**2 * 2)
        hold = count <= at_once
        parts = []
        for name in names:
            tensors = load_shard(folder, name, manifest)
            if not hold:
                del tensors["maps"]
            elif channels is not None:
                tensors["maps"] = tensors["maps"][:, :, channels]
            parts.append(tensors)
        if sum(len(part["label"]) for part in parts) != count:
            raise DataError(
                f"{folder}: the manifest counts {count} {split} rows, its shards hold another number; run collect "
                "again with the same settings"
            )
        joined = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        starts = tuple(accumulate((len(part["label"]) for part in parts[:-1]), initial=0))
        numbers = (joined["label"], joined["prompted"], joined["level"], joined["group"])
        shards = tuple(paths(folder, name)[0] for name in names)
        return cls(*numbers, shards, starts, joined.get("maps"), at_once, channels)

    def __len__(self) -> int:
        return len(self.label)

    def some(self, index: Int64[Tensor, " n"]) -> MapDataset:
        """Return only some of the rows, with their maps in memory.

        Args:
            index: Indices of the rows.
        """
        label, prompted, level, group = (v[index] for v in (self.label, self.prompted, self.level, self.group))
        return MapDataset(label, prompted, level, group, (), (), self.maps(index), self._at_once)

    def maps(self, index: Sequence[int] | Tensor) -> Float16[Tensor, "n 2 channels side side"]:
        """Return the maps of some rows.

        Args:
            index: Indices of the rows, in any order; the maps come in the same order.

        Raises:
            DataError: A shard can no longer be read.
        """
        numbers = torch.as_tensor(index, dtype=torch.int64)
        if self._held is not None:
            return self._held[numbers]
        positions_of_shard: dict[int, list[int]] = {}
        for position, number in enumerate(numbers.tolist()):
            positions_of_shard.setdefault(bisect_right(self._starts, number) - 1, []).append(position)
        maps = torch.empty(0)
        for shard, positions in positions_of_shard.items():
            try:
                with safe_open(self._shards[shard], framework="pt") as file:
                    stored = file.get_slice("maps")
                    if not len(maps):
                        _, pair, all_channels, *size = stored.get_shape()
                        width = all_channels if self._channels is None else len(self._channels)
                        maps = torch.empty(len(numbers), pair, width, *size, dtype=torch.float16)
                    for position in positions:
                        row = int(numbers[position]) - self._starts[shard]
                        values = stored[row : row + 1][0]
                        maps[position] = values if self._channels is None else values[:, self._channels]
            except (OSError, SafetensorError) as error:
                raise DataError(
                    f"{self._shards[shard]} can no longer be read ({error}); run collect again with the same settings"
                ) from error
        return maps

    def batches(
        self, index: Int64[Tensor, " n"], size: int, generator: torch.Generator, share: tuple[int, int] = (0, 1)
    ) -> Iterator[tuple[Int64[Tensor, " batch"], Float16[Tensor, "batch 2 channels side side"]]]:
        """Yield the rows at ``index`` in random order, in batches.

        If the maps are in memory, all rows are shuffled together. Otherwise the shards are shuffled, as many as fit
        into memory (at least one) are read at once, and their rows are shuffled. So every file is read once an epoch.

        Args:
            index: Indices of the rows.
            size: Number of rows in a batch; the last batch may be smaller.
            generator: Determines the order.
            share: The number of this process, and how many there are. Each yields every so many-th row of the same
                order, and reads no other.

        Yields:
            The indices of the rows of a batch, and their maps.
        """
        blocks = [index] if self._held is not None else self._blocks(index, generator)
        waiting: list[tuple[Tensor, Tensor]] = []
        first, step = share
        # With several processes all orders are drawn first: these do not need them after the same batches.
        shuffled = (block[torch.randperm(len(block), generator=generator)] for block in blocks)
        for order in shuffled if step == 1 else list(shuffled):
            passed, order = len(order), order[first::step]
            first = (first - passed) % step
            maps, position = self._read(order)
            start = 0
            while start < len(order):
                end = start + size - sum(len(numbers) for numbers, _ in waiting)
                waiting.append((order[start:end], maps[position[start:end]]))
                start = end
                if end <= len(order):
                    yield _joined(waiting)
                    waiting = []
            del maps, position  # frees this block before the next one is read
        if waiting:
            yield _joined(waiting)

    def _blocks(self, index: Tensor, generator: torch.Generator) -> list[Tensor]:
        """``index``, split into blocks of rows whose shards are read together."""
        shard = torch.bucketize(index, torch.tensor(self._starts), right=True) - 1
        blocks: list[list[Tensor]] = []
        capacity = 0
        for number in torch.randperm(len(self._shards), generator=generator).tolist():
            members = index[shard == number]
            if not blocks or len(members) > capacity:
                blocks.append([])
                capacity = self._at_once
            blocks[-1].append(members)
            capacity -= len(members)
        return [torch.cat(block) for block in blocks]

    def _read(self, order: Tensor) -> tuple[Tensor, Tensor]:
        """Return maps, and the position in them of each row of ``order``."""
        if self._held is not None:
            return self._held, order
        sorted_order, permutation = order.sort()  # so that files are read from front to back
        return self.maps(sorted_order), permutation.argsort()


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([numbers for numbers, _ in parts]), torch.cat([maps for _, maps in parts])
