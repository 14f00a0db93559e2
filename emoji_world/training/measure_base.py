"""How good is a base model, unsteered? Objects present, each exactly once, relations right; with intervals.

    python training/measure_base.py --model sd:emoji --weights base.safetensors --minutes 30 --out out/measures
    python training/measure_base.py --model sd:emoji --crops 100 --out out/naming     # crops to be named by a person

Measures are drawn in turns, so that all of them have come as far when ``--minutes`` are over. The intervals (95 %)
resample prompts, since pictures of one prompt succeed or fail together. Writes measures.json.

With ``--crops`` it writes numbered sheets of single objects, cut from pictures of "a X and a Y", and labels.json, which
tells what they were to be. Every box counts that the detector is a little sure of, whatever it takes it for, and a
picture without any is shown whole: blots are not left out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from learn_to_steer import storage
from learn_to_steer.benchmarks import BenchmarkPrompt, matching_detections, prompts, score_relations
from learn_to_steer.evaluation import ModelConfig, open_model
from learn_to_steer.evaluation.generation import Job, draw
from learn_to_steer.evaluation.model import Model
from learn_to_steer.geometry import Detection
from learn_to_steer.statistics import clustered_interval
from learn_to_steer_emoji.detector import EmojiDetector, load, vocabulary
from pairs import and_jobs

BATCH = 12
# Name of a measure -> the benchmarks that its prompts are from, and what is counted; "{-}" is "-val" or nothing.
MEASURES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "and": ((), ("present", "once")),
    "position": (("geneval-position{-}",), ("present", "once", "right")),
    "dense": (("phrasing-dense",), ("present", "once")),
    "3 objects": (("multi-relation{-}-3-2",), ("present",)),
    "4 objects": (("multi-relation{-}-4-2", "multi-relation{-}-4-3"), ("present",)),
    "5 objects": (("multi-relation{-}-5-3",), ("present",)),
}
LOW_THRESHOLD = 0.15  # of boxes to crop: half-drawn objects are to be seen too
MARGIN = 0.15  # around a crop, as a share of its longer side
SIDE, COLUMNS, ROWS = 160, 5, 5  # pixels of a crop on a sheet, and crops on it


@dataclass
class Measure:
    """One kind of prompts, and the verdicts so far.

    Attributes:
        name: What the lines of progress call it.
        prompts: The prompts, in the order in which they are drawn.
        counted: Names of the verdicts that are reported.
        verdicts: Verdict -> one value a picture.
        clusters: The prompt of every picture.
    """

    name: str
    prompts: list[BenchmarkPrompt]
    counted: tuple[str, ...]
    verdicts: dict[str, list[bool]] = field(default_factory=dict)
    clusters: list[str] = field(default_factory=list)

    def add(self, prompt: BenchmarkPrompt, found: Sequence[Detection]) -> None:
        """Judge one picture.

        Args:
            prompt: What it was drawn for.
            found: What the detector saw in it.
        """
        self.clusters.append(prompt.prompt)
        for name, value in judged(prompt, found, vocabulary()).items():
            self.verdicts.setdefault(name, []).append(value)

    def summary(self) -> dict[str, Any]:
        """Share and interval of every counted verdict, and the number of pictures and prompts."""
        shares = {
            name: {
                "share": float(np.mean(self.verdicts[name])),
                "interval": clustered_interval(self.verdicts[name], self.clusters),
            }
            for name in self.counted
            if self.clusters
        }
        return {**shares, "pictures": len(self.clusters), "prompts": len(set(self.clusters))}

    def line(self) -> str:
        """The summary in words."""
        told = self.summary()
        shares = [
            f"{n} {s['share']:.3f} [{s['interval'][0]:.2f}, {s['interval'][1]:.2f}]"
            for n, s in told.items()
            if n in self.counted
        ]
        return f"{self.name:10} {', '.join(shares)}  ({told['pictures']} pictures of {told['prompts']} prompts)"


def judged(prompt: BenchmarkPrompt, found: Sequence[Detection], words: Mapping[str, str]) -> dict[str, bool]:
    """The verdicts on one picture.

    Args:
        prompt: What it was drawn for.
        found: What the detector saw in it.
        words: Every name the detector understands -> its class.

    Returns:
        ``present``: all objects are there; ``once``: each exactly once; ``right``: all relations hold.
    """
    counts = [len(matching_detections(name, found, words)) for name in prompt.objects]
    return {
        "present": all(counts),
        "once": all(count == 1 for count in counts),
        "right": score_relations(prompt, found, words).correct,
    }


def chosen(name: str, count: int, split: str) -> list[BenchmarkPrompt]:
    """Prompts of a measure: ``count`` of them, or all where its benchmarks have fewer."""
    sources, _ = MEASURES[name]
    if not sources:
        pairs, jobs = and_jobs(count, np.random.default_rng(0))
        return [
            BenchmarkPrompt(index, job.prompt, (), {"include": [{"class": word, "count": 1} for word in pair]})
            for index, (pair, job) in enumerate(zip(pairs, jobs, strict=True))
        ]
    sets = [prompts(_benchmark(source, split), vocabulary()) for source in sources]
    mixed = [prompt for together in zip(*sets, strict=False) for prompt in together] if len(sets) > 1 else sets[0]
    return [mixed[i] for i in np.random.default_rng(0).permutation(len(mixed))[:count]]


def _benchmark(source: str, split: str) -> str:
    """The name of a benchmark's split."""
    return source.replace("{-}", "-val" if split == "val" else "")


def put(model: Model, weights: Path) -> None:
    """Replace the weights of those parts of a pipeline that a file has.

    Args:
        model: Whose pipeline it is.
        weights: A safetensors file with names like ``unet.conv_in.weight``: the part, then its own name.
    """
    stored = load_file(weights)
    parts = {name.split(".")[0] for name in stored} & set(model.pipe.components)  # a training aid is no part of it
    if not parts:
        raise SystemExit(f"{weights} holds no part of the pipeline: {', '.join(sorted(model.pipe.components))}")
    for part in parts:
        own = {name.removeprefix(f"{part}."): value for name, value in stored.items() if name.startswith(f"{part}.")}
        getattr(model.pipe, part).load_state_dict(own)


def measure(model: Model, measures: Sequence[Measure], seeds: Sequence[int], minutes: float | None) -> None:
    """Draw and judge the pictures of all measures, a batch of each in turn, and tell how far it is.

    Args:
        model: The unsteered model.
        measures: Get the verdicts.
        seeds: One picture of every prompt for each.
        minutes: Time to stop after; None draws all.
    """
    detector, began = load(), time.monotonic()
    waiting = {
        m.name: [(seed, m.prompts[i : i + BATCH]) for seed in seeds for i in range(0, len(m.prompts), BATCH)]
        for m in measures
    }
    total, done = sum(len(batch) for batches in waiting.values() for _, batch in batches), 0
    while any(waiting.values()):
        for one in measures:
            spent = (time.monotonic() - began) / 60
            if minutes is not None and spent >= minutes:
                return
            if not waiting[one.name]:
                continue
            seed, batch = waiting[one.name].pop(0)
            jobs = [Job(prompt.prompt, (), 0) for prompt in batch]
            pictures = [picture.image for picture in draw(model, jobs, seed, steer=False)]
            for prompt, found in zip(batch, detector.detect(pictures), strict=True):
                one.add(prompt, found)
            done += len(batch)
            left = (time.monotonic() - began) / 60 * (total - done) / done
            left = left if minutes is None else min(left, minutes - (time.monotonic() - began) / 60)
            print(f"{one.line()}  {max(left, 0):.0f} min left", flush=True)


def crops(model: Model, count: int, seed: int, out: Path, tell: Callable[[str], None]) -> None:
    """Draw pictures of two objects and cut one object out of each.

    Args:
        model: The unsteered model.
        count: How many crops.
        seed: Of the pictures and of what is cut.
        out: Folder for sheet-1.png, sheet-2.png, ... and labels.json.
        tell: Is told how far it is.
    """
    usual = load()
    detector, rng = EmojiDetector(usual.net, usual.names, LOW_THRESHOLD), np.random.default_rng(seed)
    pairs, jobs = and_jobs(count, rng)
    cut, labels = [], []
    for start in range(0, count, BATCH):
        pictures = [picture.image for picture in draw(model, jobs[start : start + BATCH], seed, steer=False)]
        for picture, found, pair in zip(pictures, detector.detect(pictures), pairs[start:], strict=False):
            one = found[rng.integers(len(found))] if found else None
            cut.append(cropped(picture, one))
            seen = {"taken_for": one.name, "score": round(one.score, 3)} if one else {"taken_for": None}
            labels.append({"number": len(cut), "prompted": pair, **seen})
        tell(f"{len(cut)} of {count} crops")
    order = rng.permutation(len(cut))
    each = COLUMNS * ROWS
    for page, start in enumerate(range(0, len(cut), each)):
        numbered = [(int(i) + 1, cut[i]) for i in order[start : start + each]]
        contact_sheet(numbered).save(out / f"sheet-{page + 1}.png")
    storage.write_json(out / "labels.json", labels)


def cropped(picture: Image.Image, found: Detection | None) -> Image.Image:
    """A square around a box, a little larger, moved into the picture; without a box the whole picture."""
    if found is None:
        return picture
    left, top, right, bottom = found.box
    side = min(round(max(right - left, bottom - top) * (1 + 2 * MARGIN)), *picture.size)
    x = min(max(round((left + right - side) / 2), 0), picture.width - side)
    y = min(max(round((top + bottom - side) / 2), 0), picture.height - side)
    return picture.crop((x, y, x + side, y + side))


def contact_sheet(numbered: Sequence[tuple[int, Image.Image]]) -> Image.Image:
    """Pictures with their numbers above them, in rows."""
    rows = -(-len(numbered) // COLUMNS)
    page = Image.new("RGB", (COLUMNS * (SIDE + 8), rows * (SIDE + 22)), "white")
    pen = ImageDraw.Draw(page)
    for place, (number, picture) in enumerate(numbered):
        x, y = place % COLUMNS * (SIDE + 8), place // COLUMNS * (SIDE + 22)
        pen.text((x + 4, y + 4), str(number), fill="black")
        page.paste(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x + 4, y + 18))
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sd:emoji")
    parser.add_argument("--weights", type=Path, help="of some or all parts, instead of the model's own")
    parser.add_argument("--measures", nargs="+", choices=list(MEASURES), default=list(MEASURES))
    parser.add_argument("--prompts", type=int, default=150, help="of each measure")
    parser.add_argument("--split", choices=["val", "test"], default="val", help="where a benchmark has both")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one picture of every prompt for each")
    parser.add_argument("--minutes", type=float, help="stop after so long, with what has been drawn by then")
    parser.add_argument("--guidance", type=float, help="instead of the model's usual scale")
    parser.add_argument("--dtype", help="bfloat16 is twice as fast on a CPU that has instructions for it")
    parser.add_argument("--crops", type=int, help="no measures: so many crops of objects, to be named")
    parser.add_argument("--out", type=Path, default=Path("out/measures"))
    options = parser.parse_args()
    model = open_model(
        ModelConfig(model=options.model, objective="none", dtype=options.dtype, guidance=options.guidance)
    )
    if options.weights is not None:
        put(model, options.weights)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.crops:
        crops(model, options.crops, options.seeds[0], options.out, lambda text: print(text, flush=True))
        return
    measures = [
        Measure(name, chosen(name, options.prompts, options.split), MEASURES[name][1]) for name in options.measures
    ]
    measure(model, measures, options.seeds, options.minutes)
    settings = {name: str(value) for name, value in vars(options).items() if value is not None}
    told = {one.name: one.summary() for one in measures}
    storage.write_json(options.out / "measures.json", {"settings": settings, "measures": told})
    for one in measures:
        print(one.line())


if __name__ == "__main__":
    main()
