"""A collection as the model's own images give it, made of synthetic maps, and ``fit`` with it instead of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from learn_to_steer.collection import Manifest
from learn_to_steer.collection.shards import totals, write_shard
from learn_to_steer.fitting import fit_model
from learn_to_steer.geometry import BASIC, NEUTRAL
from learn_to_steer.maps import Layout, MapLayer
from learn_to_steer.training import TrainConfig

MISSING = "pair: both of its objects are missing"
NAMES = ("dog", "cat", "key", "vase", "robot")
CLASSES = (*sorted(BASIC), NEUTRAL)
LAYOUT = Layout("sd", (MapLayer("down_blocks.0.a.attn2", 1, 1), MapLayer("up_blocks.0.a.attn2", 1, 0)), side=4)
TOP, BOTTOM, LEFT, RIGHT = (0, slice(None)), (3, slice(None)), (slice(None), 0), (slice(None), 3)
PLACES = {"above": (TOP, BOTTOM), "below": (BOTTOM, TOP), "left of": (LEFT, RIGHT), "right of": (RIGHT, LEFT)}
SMALL = {"rate": 2e-2, "width": 8, "hidden": 8, "head_hidden": 8, "layers": 1, "head_layers": 1, "head_heads": 2}


def write_collection(folder: Path, splits: dict[str, int], labels: tuple[str, ...], obeys: bool) -> Manifest:
    """A finished collection. The maps show the label; the prompt names it, too, if the model ``obeys``."""
    generator = torch.Generator().manual_seed(0)
    start, words, obeyed = 0, 0, 0
    for split, images in splits.items():
        pictures: list[dict[str, Any]] = []
        maps, rows = torch.rand(images, 2, 2, 4, 4, generator=generator), []
        for row in range(images):
            group = start + row
            label = labels[group % len(labels)]
            for side, place in enumerate(PLACES.get(label, ())):
                maps[row, side, :, *place] += 20
            first, second = NAMES[group % 5], NAMES[(group + 1) % 5]
            prompted = label if obeys else CLASSES[(group // 5) % 5]
            rows.append(
                {
                    "picture": f"drawn-0-{group}",
                    "group": group,
                    "subject": first,
                    "relation": label,
                    "object": second,
                    "prompt": f"a {first} {prompted} a {second}",
                    "prompted": prompted,
                    "kind": "drawn",
                    "level": 0,
                    "seed": 0,
                    "quality": 0.0,
                }
            )
            words += prompted != NEUTRAL
            obeyed += prompted == label != NEUTRAL
            pictures.append(picture(folder, rows[-1]))
        start += images
        tensors = {
            "maps": (maps / maps.sum((-2, -1), keepdim=True)).half(),
            "label": torch.tensor([CLASSES.index(str(row["relation"])) for row in rows], dtype=torch.int64),
            "prompted": torch.tensor([CLASSES.index(str(row["prompted"])) for row in rows], dtype=torch.int64),
            "level": torch.zeros(images, dtype=torch.int64),
            "group": torch.tensor([row["group"] for row in rows], dtype=torch.int64),
        }
        dropped = [{"picture": f"{split}-lost", "reason": MISSING}] * 2 if images else []
        pictures += [picture(folder, rows[0] | {"picture": lost["picture"]}, "<i>nothing</i>") for lost in dropped]
        write_shard(folder, f"{split}-0000", tensors, rows, dropped, pictures)
    shards = [f"{split}-0000" for split in splits]
    manifest = Manifest(
        settings={"model": "sd:emoji", "side": 128, "source": "drawn", "inversion": "path", "limit": start + 8},
        weights="0",
        layout=LAYOUT.as_dict(),
        fingerprint=LAYOUT.fingerprint,
        classes=list(CLASSES),
        levels=[0.9],
        source_note="drawn by the model",
        shards=shards,
        versions={},
        counts=totals(folder, shards),
        complete=True,
        skipped={MISSING: {"count": 7, "examples": ["drawn-0-1"]}},
        drawn={
            "pictures": start + 8,
            "words": words,
            "obeyed": obeyed,
            "contrast": False,
            "labels": {
                label: sum(n % len(labels) == place for n in range(start)) for place, label in enumerate(labels)
            },
            "objects": list(NAMES),
            "detectors": [{"name": "emoji"}],
        },
    )
    manifest.write(folder)
    return manifest


def picture(folder: Path, row: dict[str, Any], reason: str = "") -> dict[str, Any]:
    """What is written of an image that the model drew; the image itself is written, too."""
    path = folder / "pictures" / f"{row['picture']}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), "white").save(path)
    pair = {key: row[key] for key in ("subject", "prompted", "object", "relation")}
    return {
        "picture": row["picture"],
        "file": path.name,
        "prompt": row["prompt"],
        "detections": [[{"name": row["subject"], "score": 0.9, "box": [1, 2, 11, 22]}]],
        "pairs": [pair | {"used": not reason, "reason": reason}],
    }


@dataclass
class Stage:
    """What the next call of ``fit`` finds instead of a model that draws."""

    splits: dict[str, int] = field(default_factory=lambda: {"train": 120, "val": 40, "test": 40})
    labels: tuple[str, ...] = CLASSES
    obeys: bool = False
    collected: list[Any] = field(default_factory=list)
    """The settings of each collection."""


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """No model is loaded; ``collect`` writes what the stage says; the network that is trained is small."""
    stage = Stage()
    variant = SimpleNamespace(resolution=128, arguments={}, guidance=1.0, detector="emoji", steps=4)

    def collect(pipe: Any, out: Path, config: Any, *, progress: bool) -> Manifest:
        stage.collected.append(config)
        return write_collection(Path(out), stage.splits, stage.labels, stage.obeys)

    monkeypatch.setattr(fit_model, "open_pipeline", lambda config, **_: (None, variant))
    monkeypatch.setattr(fit_model, "collect", collect)
    monkeypatch.setattr(fit_model, "TrainConfig", lambda **settings: TrainConfig(**settings | SMALL))
    return stage


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """``run("fit", ...)``: exit code, stdout and stderr of a command."""
    from learn_to_steer.cli import main

    def command(*words: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return command
