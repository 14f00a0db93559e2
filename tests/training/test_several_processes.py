"""Training in two processes, as ``accelerate launch`` starts them, equals training in one with the double batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from learn_to_steer.collection import MapDataset
from learn_to_steer.training.augmentation import Augmentation

ROOT = Path(__file__).resolve().parents[2]
MAPS = ROOT / "tests" / "fixtures" / "edition1" / "collection"
PROGRAM = """
import sys
from learn_to_steer.training import TrainConfig, train
batch, epochs, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
config = TrainConfig(batch=batch, epochs=epochs, width=16, dropout=0.0, rate=0.001, patience=2)
train({maps!r}, out, config, progress=False)
"""


def train(processes: int, batch: int, epochs: int, out: Path) -> dict[str, Any]:
    """Train in so many processes; the metrics."""
    program = out.with_name("program.py")
    program.write_text(PROGRAM.format(maps=str(MAPS)))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launch if processes > 1 else []), str(program), str(batch), str(epochs), str(out)]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return metrics


@pytest.mark.slow
def test_the_same_curve_as_one_process_with_the_double_batch(tmp_path: Path) -> None:
    one, two = train(1, 6, 6, tmp_path / "one"), train(2, 3, 6, tmp_path / "two")
    assert len(one["history"]) == len(two["history"])  # both stop after the same epoch
    for mine, other in zip(one["history"], two["history"], strict=True):
        assert mine == pytest.approx(other, rel=1e-3, abs=1e-4)
    # A run that goes on in two processes ends like one that was not stopped.
    train(2, 3, 2, tmp_path / "parts")
    assert train(2, 3, 6, tmp_path / "parts")["history"] == two["history"]
    assert [path.name for path in (tmp_path / "two").iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("in_memory", [1 << 30, 20_000], ids=["in memory", "from shards"])
def test_processes_divide_the_batches_of_one(in_memory: int) -> None:
    rows = MapDataset.open(MAPS, "train", in_memory=in_memory)
    index = torch.arange(len(rows))

    def batches(size: int, share: tuple[int, int]) -> list[list[int]]:
        return [part.tolist() for part, _ in rows.batches(index, size, torch.Generator().manual_seed(3), share)]

    parts = [batches(2, (number, 3)) for number in range(3)]
    assert sorted(row for part in parts for batch in part for row in batch) == index.tolist()
    if in_memory > 1 << 20:  # the blocks of several shards are shuffled one by one: another order
        whole = batches(6, (0, 1))
        for number, batch in enumerate(whole):
            assert [part[number] for part in parts if len(part) > number] == [
                batch[n::3] for n in range(3) if batch[n::3]
            ]
    for number, part in enumerate(parts):
        for some, maps in rows.batches(index, 2, torch.Generator().manual_seed(3), (number, 3)):
            assert some.tolist() == part.pop(0)
            assert torch.equal(maps, rows.maps(some))


def test_processes_augment_as_one() -> None:
    augment = Augmentation(["above", "below", "left of", "right of", "is"])
    maps, label = torch.rand(7, 2, 3, 4, 4), torch.arange(7) % 5
    whole = augment(maps, label, label, torch.Generator().manual_seed(0))
    for number in range(2):
        its = label[number::2]
        part = augment(maps[number::2], its, its, torch.Generator().manual_seed(0), 7, (number, 2))
        assert all(torch.equal(ours, theirs[number::2]) for ours, theirs in zip(part, whole, strict=True))
