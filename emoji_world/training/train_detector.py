"""Train the emoji world's detector on rendered scenes and near misses, then report how good it is.

    python training/train_detector.py --steps 2500
    python training/train_detector.py --steps 9999 --minutes 20 --redrawn 1024  # go on, with pictures of the base model

Resumable; on a GPU when there is one. Rendering is dearer than a training step, so pictures live in a
rolling pool: a few new ones a step, and every use gets a fresh augmentation. With ``--redrawn`` every other
batch is of scenes that the base model has redrawn (redraw.py).
"""

from __future__ import annotations

import argparse
import json
from collections import Counter

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional

from detector_scenes import Labels, augment, sample
from learn_to_steer.geometry import Detection, iou
from learn_to_steer_emoji.centre_point import STRIDE, DetectorNet, decode
from learn_to_steer_emoji.sprites import object_names
from loop import CHECKPOINTS, DEVICE, MODELS, autocast, half, train
from redraw import redrawn

WIDTHS = (32, 48, 96, 128)
SHAPES = ((128, 128), (96, 128), (128, 96))
SHARES = (0.8, 0.1, 0.1)
NAMES = object_names()


class Pool:
    """Pictures of one shape; the oldest make room for ``fresh`` new ones at every draw."""

    def __init__(self, shape: tuple[int, int], start: int, limit: int, rng: np.random.Generator) -> None:
        self.shape, self.limit = shape, limit
        self.pictures, self.labels = sample(start, rng, shape)

    def draw(self, count: int, fresh: int, rng: np.random.Generator) -> tuple[torch.Tensor, list[Labels]]:
        pictures, labels = sample(fresh, rng, self.shape)
        self.pictures = torch.cat([self.pictures, pictures])[-self.limit :]
        self.labels = (self.labels + labels)[-self.limit :]
        chosen = rng.choice(len(self.labels), min(count, len(self.labels)), replace=False)
        return augment(self.pictures[torch.from_numpy(chosen)], [self.labels[i] for i in chosen], rng)


def targets(labels: list[Labels], shape: tuple[int, int]) -> tuple[torch.Tensor, ...]:
    """Heat (n, classes, h, w), its weight, boxes (n, 4, h, w) and where they count (n, 1, h, w)."""
    rows, columns = shape[0] // STRIDE, shape[1] // STRIDE
    heat = np.zeros((len(labels), len(NAMES), rows, columns), dtype=np.float32)
    weight = np.ones_like(heat)
    box = np.zeros((len(labels), 4, rows, columns), dtype=np.float32)
    counts = np.zeros((len(labels), 1, rows, columns), dtype=np.float32)
    y, x = np.mgrid[:rows, :columns] + 0.5
    for n, label in enumerate(labels):
        for c, around in label.ignored:
            x0, y0, x1, y1 = (v / STRIDE for v in around)
            weight[n, c][(x > x0) & (x < x1) & (y > y0) & (y < y1)] = 0
        for c, around in label.objects:
            x0, y0, x1, y1 = (v / STRIDE for v in around)
            cx, cy, w, h = (x0 + x1) / 2, (y0 + y1) / 2, max(x1 - x0, 0.25), max(y1 - y0, 0.25)
            row, column = min(int(cy), rows - 1), min(int(cx), columns - 1)
            sigma = 0.4 + 0.1 * np.sqrt(w * h)
            peak = np.exp(-((x - column - 0.5) ** 2 + (y - row - 0.5) ** 2) / (2 * sigma**2)).astype(np.float32)
            heat[n, c] = np.maximum(heat[n, c], peak)
            weight[n, c][peak > 0.1] = 1
            near = (slice(max(row - 1, 0), row + 2), slice(max(column - 1, 0), column + 2))
            box[(n, 0, *near)], box[(n, 1, *near)] = (cx - x)[near], (cy - y)[near]
            box[(n, 2, *near)], box[(n, 3, *near)] = np.log(w), np.log(h)
            counts[(n, 0, *near)] = 1
    return tuple(torch.from_numpy(part).to(DEVICE) for part in (heat, weight, box, counts))


def focal_loss(logits: torch.Tensor, heat: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Penalty-reduced focal loss of CornerNet and CenterNet (exponents 2 and 4), per object."""
    yes, no = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    probability = logits.sigmoid()
    peak = heat > 0.999
    loss = torch.where(peak, (1 - probability).square() * yes, (1 - heat).pow(4) * probability.square() * no)
    return -(loss * weight).sum() / peak.sum().clamp_min(1)


@torch.no_grad()
def found(net: DetectorNet, pictures: torch.Tensor, threshold: float) -> list[list[Detection]]:
    """Detections of every picture, 64 at a time."""
    seen: list[list[Detection]] = []
    for part in pictures.split(64):  # type: ignore[no-untyped-call]
        heat, box = net(part.to(DEVICE))
        seen += decode(heat.cpu(), box.cpu(), NAMES, threshold, (part.shape[2], part.shape[3]))
    return seen


def score(seen: list[list[Detection]], labels: list[Labels], threshold: float) -> dict[str, float]:
    """Shares of objects found (any class; right class), of false detections, and of near misses taken for real.

    A detection belongs to an object when their boxes overlap by half; one on an ignored spot counts nowhere.
    """
    totals: Counter[str] = Counter()
    for detections, label in zip(seen, labels, strict=True):
        kept = [d for d in detections if d.score >= threshold]
        free = set(range(len(label.objects)))
        totals.update(objects=len(free), misses=bool(label.misses))
        tricked = False
        for d in kept:
            hits = [k for k in free if iou(d.box, label.objects[k][1]) > 0.5]
            right = [k for k in hits if NAMES[label.objects[k][0]] == d.name]
            if hits:
                free.discard((right or hits)[0])
                totals.update(found=1, right=bool(right))
            elif any(NAMES[c] == d.name and iou(d.box, box) > 0.3 for c, box in label.ignored):
                continue
            tricked |= not hits and any(iou(d.box, box) > 0.3 for box in label.misses)
            totals.update(detections=1, false=not right)
        totals.update(tricked=tricked)
    return {
        "found": totals["found"] / max(totals["objects"], 1),
        "right": totals["right"] / max(totals["objects"], 1),
        "class_accuracy": totals["right"] / max(totals["found"], 1),
        "false": totals["false"] / max(totals["detections"], 1),
        "near_misses_taken": totals["tricked"] / max(totals["misses"], 1),
    }


def best_threshold(net: DetectorNet, by_base: torch.Tensor, base_labels: list[Labels]) -> float:
    """Where right finds minus false detections peak: on rendered scenes with near misses and on redrawn ones alike."""
    rng = np.random.default_rng(21)
    rendered, labels = augment(*sample(500, rng, near_misses=0.35), rng)
    sets = [(found(net, rendered, 0.15), labels), (found(net, by_base, 0.15), base_labels)]

    def worth(threshold: float) -> float:
        results = [score(seen, truth, threshold) for seen, truth in sets]
        return sum(result["right"] - result["false"] for result in results)

    return max((round(0.2 + 0.025 * k, 3) for k in range(25)), key=worth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--fresh", type=int, default=16, help="new pictures a step")
    parser.add_argument("--minutes", type=float, help="let the rate fall to nothing over this time, then stop")
    parser.add_argument("--redrawn", type=int, default=0, help="scenes that the base model redraws")
    parser.add_argument("--held-out", type=int, default=1000, help="scenes of the final measurement")
    parser.add_argument("--name", default="detector", help="checkpoint folder; only 'detector' is packaged")
    options = parser.parse_args()
    torch.manual_seed(0)
    net = DetectorNet(len(NAMES), WIDTHS).to(DEVICE, memory_format=torch.channels_last)  # type: ignore[call-overload]
    print(f"{sum(p.numel() for p in net.parameters()):,} parameters on {DEVICE}", flush=True)
    pools: dict[int, Pool] = {}
    own = redrawn(options.redrawn, 41) if options.redrawn else None

    def loss_of(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        rng = np.random.default_rng((2, step))
        which = int(rng.choice(len(SHAPES), p=SHARES))
        if which not in pools:
            pools[which] = Pool(SHAPES[which], 4 * options.batch, 24 * options.batch, rng)
        pictures, labels = pools[which].draw(options.batch, options.fresh, rng)
        if own and step % 2:
            which, chosen = 0, rng.choice(options.redrawn, options.batch, replace=False)
            pictures, labels = augment(own[0][torch.from_numpy(chosen)], [own[1][i] for i in chosen], rng)
        heat, weight, box, counts = targets(labels, SHAPES[which])
        with autocast():
            logits, boxes = net(pictures.to(DEVICE, memory_format=torch.channels_last))
        classes = focal_loss(logits.float(), heat, weight)
        place = ((boxes.float() - box).abs() * counts).sum() / (4 * counts.sum()).clamp_min(1)
        return classes + place, {"heat": classes.item(), "box": place.item()}

    weights = half(train(options.name, net, loss_of, steps=options.steps, rate=2e-3, minutes=options.minutes))
    # What is measured is what is packaged: the fp16 numbers, computed with in fp32.
    net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in weights.items()})
    net.eval()
    seen_by_base, base_labels = redrawn(256, 43)
    threshold = best_threshold(net, seen_by_base[:128], base_labels[:128])
    folder = MODELS / "detector" if options.name == "detector" else CHECKPOINTS / options.name / "packaged"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors")
    config = {"classes": NAMES, "widths": WIDTHS, "stride": STRIDE, "threshold": threshold}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    print(f"threshold {threshold}, saved to {folder}", flush=True)
    rng = np.random.default_rng(31)
    clean, labels = sample(options.held_out, rng, near_misses=0)
    rough, rough_labels = augment(clean, labels, rng)
    tricky, tricky_labels = sample(options.held_out, rng, near_misses=1)
    for title, pictures, truth in (
        ("clean scenes", clean, labels),
        ("redrawn by the base", seen_by_base[128:], base_labels[128:]),
        ("softened and noisy", rough, rough_labels),
        ("one near miss each", tricky, tricky_labels),
    ):
        result = score(found(net, pictures, threshold), truth, threshold)
        print(f"{title:20}", "  ".join(f"{key} {value:.4f}" for key, value in result.items()), flush=True)


if __name__ == "__main__":
    main()
