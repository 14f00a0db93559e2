"""Train the emoji world's detector on rendered scenes and near misses, then print how good it is.

    python training/train_detector.py --steps 2500     # resumable; hours on two cores, or on a GPU if there is one
    python training/train_detector.py --steps 9999 --minutes 20 --redrawn 1024     # go on, also with redrawn scenes

Rendering costs more than a training step, so that images are kept in a pool: each step adds a few new ones, and every
use is augmented anew. With ``--redrawn``, every other batch consists of scenes that the base model has redrawn
(redraw.py).
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
    """Images of one shape. New ones come in at every draw, and the oldest go."""

    def __init__(self, shape: tuple[int, int], start: int, limit: int, rng: np.random.Generator) -> None:
        """Render ``start`` images of ``shape`` (height, width); the pool will never hold more than ``limit``."""
        self.shape, self.limit = shape, limit
        self.images, self.labels = sample(start, rng, shape)

    def draw(self, count: int, fresh: int, rng: np.random.Generator) -> tuple[torch.Tensor, list[Labels]]:
        """Render ``fresh`` new images, then draw ``count`` of the pool, augmented."""
        images, labels = sample(fresh, rng, self.shape)
        self.images = torch.cat([self.images, images])[-self.limit :]
        self.labels = (self.labels + labels)[-self.limit :]
        rows = rng.choice(len(self.labels), min(count, len(self.labels)), replace=False)
        return augment(self.images[torch.from_numpy(rows)], [self.labels[i] for i in rows], rng)


def targets(labels: list[Labels], shape: tuple[int, int]) -> tuple[torch.Tensor, ...]:
    """Make the network's targets.

    Args:
        labels: Of n images.
        shape: Height and width of the images in pixels.

    Returns:
        Heatmaps (n, classes, rows, columns), their weights, boxes (n, 4, rows, columns), and 1 in the cells whose boxes
        count (n, 1, rows, columns).
    """
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
    """Compute the penalty-reduced focal loss, per object. Source: arXiv 1904.07850, equation 1 (exponents 2 and 4)."""
    yes, no = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    probability = logits.sigmoid()
    peak = heat > 0.999
    loss = torch.where(peak, (1 - probability).square() * yes, (1 - heat).pow(4) * probability.square() * no)
    return -(loss * weight).sum() / peak.sum().clamp_min(1)


@torch.no_grad()
def detect(net: DetectorNet, images: torch.Tensor, threshold: float) -> list[list[Detection]]:
    """Detect the objects of images (n, 3, height, width), 64 at a time."""
    results: list[list[Detection]] = []
    for part in images.split(64):  # type: ignore[no-untyped-call]
        heat, box = net(part.to(DEVICE))
        results += decode(heat.cpu(), box.cpu(), NAMES, threshold, (part.shape[2], part.shape[3]))
    return results


def score(results: list[list[Detection]], labels: list[Labels], threshold: float) -> dict[str, float]:
    """Compare detections with labels.

    A detection belongs to an object if the IoU of their boxes is above one half. One that belongs to an ignored object
    is not counted.

    Args:
        results: Detections of each image.
        labels: Of each image.
        threshold: Detections below it are left out.

    Returns:
        Shares: ``found`` and ``correct`` of the objects (as any class; as their own), ``class_accuracy`` of the objects
        found, ``false`` of the detections, ``near_misses_taken`` of the images with a near miss.
    """
    totals: Counter[str] = Counter()
    for detections, label in zip(results, labels, strict=True):
        kept = [d for d in detections if d.score >= threshold]
        free = set(range(len(label.objects)))
        totals.update(objects=len(free), misses=bool(label.misses))
        tricked = False
        for d in kept:
            hits = [k for k in free if iou(d.box, label.objects[k][1]) > 0.5]
            correct = [k for k in hits if NAMES[label.objects[k][0]] == d.name]
            if hits:
                free.discard((correct or hits)[0])
                totals.update(found=1, correct=bool(correct))
            elif any(NAMES[c] == d.name and iou(d.box, box) > 0.3 for c, box in label.ignored):
                continue
            tricked |= not hits and any(iou(d.box, box) > 0.3 for box in label.misses)
            totals.update(detections=1, false=not correct)
        totals.update(tricked=tricked)
    return {
        "found": totals["found"] / max(totals["objects"], 1),
        "correct": totals["correct"] / max(totals["objects"], 1),
        "class_accuracy": totals["correct"] / max(totals["found"], 1),
        "false": totals["false"] / max(totals["detections"], 1),
        "near_misses_taken": totals["tricked"] / max(totals["misses"], 1),
    }


def best_threshold(net: DetectorNet, by_base: torch.Tensor, base_labels: list[Labels]) -> float:
    """Find the threshold with the most correct and fewest false detections.

    Rendered scenes with near misses and scenes redrawn by the base model count alike.
    """
    rng = np.random.default_rng(21)
    rendered, labels = augment(*sample(500, rng, near_misses=0.35), rng)
    sets = [(detect(net, rendered, 0.15), labels), (detect(net, by_base, 0.15), base_labels)]

    def quality(threshold: float) -> float:
        shares = [score(results, truth, threshold) for results, truth in sets]
        return sum(share["correct"] - share["false"] for share in shares)

    return max((round(0.2 + 0.025 * k, 3) for k in range(25)), key=quality)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch", type=int, default=64, help="images a step")
    parser.add_argument("--fresh", type=int, default=16, help="new images a step")
    parser.add_argument(
        "--minutes", type=float, help="lower the learning rate to zero over this many minutes, then stop"
    )
    parser.add_argument("--redrawn", type=int, default=0, help="number of scenes that the base model redraws")
    parser.add_argument("--held-out", type=int, default=1000, help="scenes for the final measurement")
    parser.add_argument("--name", default="detector", help="folder of the checkpoints; only 'detector' is packaged")
    options = parser.parse_args()
    torch.manual_seed(0)
    net = DetectorNet(len(NAMES), WIDTHS).to(DEVICE, memory_format=torch.channels_last)  # type: ignore[call-overload]
    print(f"{sum(p.numel() for p in net.parameters()):,} parameters on {DEVICE}", flush=True)
    pools: dict[int, Pool] = {}
    from_base = redrawn(options.redrawn, 41) if options.redrawn else None

    def loss_of(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        rng = np.random.default_rng((2, step))
        which = int(rng.choice(len(SHAPES), p=SHARES))
        if which not in pools:
            pools[which] = Pool(SHAPES[which], 4 * options.batch, 24 * options.batch, rng)
        images, labels = pools[which].draw(options.batch, options.fresh, rng)
        if from_base and step % 2:
            which, rows = 0, rng.choice(options.redrawn, options.batch, replace=False)
            images, labels = augment(from_base[0][torch.from_numpy(rows)], [from_base[1][i] for i in rows], rng)
        heat, weight, box, counts = targets(labels, SHAPES[which])
        with autocast():
            logits, boxes = net(images.to(DEVICE, memory_format=torch.channels_last))
        classes = focal_loss(logits.float(), heat, weight)
        place = ((boxes.float() - box).abs() * counts).sum() / (4 * counts.sum()).clamp_min(1)
        return classes + place, {"heat": classes.item(), "box": place.item()}

    weights = half(train(options.name, net, loss_of, steps=options.steps, rate=2e-3, minutes=options.minutes))
    # Measured with the weights that are packaged: rounded to fp16, computed with in fp32.
    net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in weights.items()})
    net.eval()
    by_base, base_labels = redrawn(256, 43)
    threshold = best_threshold(net, by_base[:128], base_labels[:128])
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
    for title, images, truth in (
        ("clean scenes", clean, labels),
        ("redrawn by the base", by_base[128:], base_labels[128:]),
        ("softened and noisy", rough, rough_labels),
        ("one near miss each", tricky, tricky_labels),
    ):
        result = score(detect(net, images, threshold), truth, threshold)
        print(f"{title:20}", "  ".join(f"{key} {value:.4f}" for key, value in result.items()), flush=True)


if __name__ == "__main__":
    main()
