"""Draw new prompts with and without steering, from the same noise, to see whether a classifier helps.

The prompts name objects that occur in the collection, two at a time, in pairs that no training image was drawn of as
far as there are such pairs, then in words that none was. The images are scored by the detector that labelled the
collection.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence, Set
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

from learn_to_steer import storage
from learn_to_steer.collection import Manifest, benchmark_pairs, progress_bar
from learn_to_steer.collection.shards import paths
from learn_to_steer.configs import EvaluateConfig
from learn_to_steer.distributed import WorkerPool
from learn_to_steer.errors import DataError
from learn_to_steer.evaluation import Model, Scorer, evaluate, load_scorer, open_model
from learn_to_steer.evaluation.model import LEARNED, UNSTEERED
from learn_to_steer.fitting.config import FitConfig
from learn_to_steer.geometry import BASIC
from learn_to_steer.placement import resolve_device
from learn_to_steer.prompts import relation_prompt
from learn_to_steer.result_rows import read_rows
from learn_to_steer.statistics import paired_interval

PROMPTS = "prompts.jsonl"
BATCH = 8


class Trial:
    """The prompts of a trial, and the pipeline that draws them.

    Args:
        config: The settings.
        pipe: The pipeline, as ``load_pipeline`` returns it.
        detector: Name of the detector that scores, with its source if it has one.
        collection: The folder of the collection; it must be complete.
        folder: The folder of the trial.
        pool: Workers that draw instead, with the methods of ``EvaluationWorker``; ``pipe`` is not used then.
        progress: Whether to show progress bars.
    """

    def __init__(
        self,
        config: FitConfig,
        pipe: Any,
        detector: str,
        collection: Path,
        folder: Path,
        *,
        pool: WorkerPool | None = None,
        progress: bool = False,
    ) -> None:
        # Paths in an evaluation's settings must not depend on where the command runs.
        self.folder = folder.resolve()
        self._pipe, self._pool, self._progress = pipe, pool, progress
        self._scorer: Scorer = load_scorer(detector, "cpu" if pool else resolve_device(config.device))
        known = DrawnPrompts.read(collection)
        lines = trial_prompts(known, config.trial, config.seed)
        self._prompts, self._new = len(lines), count_new(known, lines)
        storage.write_atomic(self.folder / PROMPTS, b"".join(map(storage.jsonl_line, lines)))
        self._config = EvaluateConfig(
            **{
                name: getattr(config, name)
                for name in ("model", "base", "revision", "scheduler", "lora", "device", "dtype", "offload")
            },
            quantize=config.quantize,
            steps=config.steps,
            guidance=config.guidance,
            height=config.side,
            width=config.side,
            objective=UNSTEERED,
            prompts=str(self.folder / PROMPTS),
            detector=detector,
            images=1,
            batch=config.batch or BATCH,
            seed=config.seed + 1,  # no image of the collection has this noise
        )

    def run(self, source: Path | None) -> Path:
        """Draw and score the prompts, or go on where that was stopped.

        Args:
            source: The folder of the classifier to steer by; None: without steering.

        Returns:
            The folder of the evaluation.
        """
        name, config = "unsteered", self._config
        if source is not None:
            name, config = source.name, replace(config, objective=LEARNED, classifier=str(source.resolve()))
        model: Model | None = None
        if self._pool:
            fingerprints = self._pool.ask("resolved", config)["fingerprints"]
        else:
            model = open_model(config, self._pipe)
            fingerprints = model.fingerprints
        # A folder of its own for everything that the images depend on: then no other run can be in it.
        content = [config.decisive(), fingerprints, self._scorer.identity, storage.sha256(self.folder / PROMPTS)]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:8]
        out = self.folder / f"{name}-{digest}"
        task = "trial, unsteered" if source is None else f"trial of {name}"
        with progress_bar(task, self._prompts, "images") if self._progress else nullcontext(lambda _: None) as count:
            before = 0

            def on_progress(done: int, total: int) -> None:
                nonlocal before
                count(done - before)
                before = done

            evaluate(replace(config, out=str(out)), on_progress, model=model, scorer=self._scorer, pool=self._pool)
        return out

    def steered(self, source: Path) -> dict[tuple[int, int], bool]:
        """Tell which images are right when a classifier steers.

        Args:
            source: The folder of the classifier.

        Returns:
            Whether each image is right, by the numbers of its prompt and of the image.
        """
        return {(row["index"], row["sample"]): row["correct"] for row in read_rows(self.run(source))}

    def compare(self, source: Path) -> dict[str, Any]:
        """Compare images that a classifier steered with unsteered ones of the same noise.

        Args:
            source: The folder of the classifier.

        Returns:
            What ``compare_trials`` and ``count_new`` return, the name of the ``detector``, and the ``folders`` of both
            evaluations.
        """
        folders = {"unsteered": self.run(None), "steered": self.run(source)}
        rows = {name: read_rows(folder) for name, folder in folders.items()}
        compared = compare_trials(rows["unsteered"], rows["steered"])
        names = {name: folder.name for name, folder in folders.items()}
        return compared | self._new | {"detector": self._config.detector, "folders": names}


def compare_trials(unsteered: Sequence[Mapping[str, Any]], steered: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Compare rows of two evaluations of the same prompts and noise.

    Args:
        unsteered: The rows without steering.
        steered: The rows with steering, in the same order.

    Returns:
        The number of ``images``; for each of ``right`` (objects and relation), ``present`` (all objects) and ``once``
        (each object exactly once) the shares ``unsteered`` and ``steered`` and their ``difference`` with its 95 %
        interval, paired by image; ``passes`` and ``seconds`` of an image; and whether steering ``helps``: the whole
        interval of the difference in ``right`` is above 0.
    """
    prompts = [row["index"] for row in unsteered]
    compared: dict[str, Any] = {"images": len(prompts)}
    for name, key in (("right", "correct"), ("present", "present"), ("once", "once")):
        sides = [[float(bool(row[key])) for row in rows] for rows in (unsteered, steered)]
        without, with_steering = (sum(values) / len(values) for values in sides)
        difference = paired_interval(sides[1], sides[0], prompts)
        compared[name] = {"unsteered": without, "steered": with_steering, "difference": list(difference)}
    compared["passes"] = sum(row["passes"] for row in steered) / len(steered)
    compared["seconds"] = {
        name: sum(row["seconds"] for row in rows) / len(rows)
        for name, rows in (("unsteered", unsteered), ("steered", steered))
    }
    compared["helps"] = compared["right"]["difference"][1] > 0
    return compared


@dataclass(frozen=True)
class DrawnPrompts:
    """What the images of a collection were drawn of.

    Attributes:
        collection: Its folder.
        names: All objects.
        pairs: The pairs of objects that a training image has both of.
        prompts: The prompts of the training images.
    """

    collection: Path
    names: Set[str]
    pairs: Set[frozenset[str]]
    prompts: Set[str]

    @classmethod
    def read(cls, collection: Path) -> DrawnPrompts:
        """Read the rows of a collection.

        Args:
            collection: Its folder.
        """
        names, pairs, prompts = set[str](), set[frozenset[str]](), set[str]()
        for shard in Manifest.read(collection).shards:
            for row in storage.read_jsonl(paths(collection, shard)[1], allow_torn=False):
                pair = frozenset((row["subject"], row["object"]))
                names |= pair
                if shard.startswith("train"):
                    pairs.add(pair)
                    prompts.add(row["prompt"])
        return cls(collection, names, pairs, prompts)


def trial_prompts(known: DrawnPrompts, count: int, seed: int) -> list[dict[str, Any]]:
    """Return prompts of two objects and a relation, as far as possible such that no training image is of them.

    Args:
        known: What the collection was drawn of.
        count: The number of prompts, at most. The four basic relations take turns, also for the same pair.
        seed: Seed of the choice.

    Returns:
        Lines with ``prompt`` and ``relations``, each once: fewer than ``count`` where the objects have no more. Pairs
        that a benchmark names are left out, and pairs that the collection has in its training images come last.

    Raises:
        DataError: The collection has fewer than two objects.
    """
    random_numbers = random.Random(seed)
    every = [pair for pair in combinations(sorted(known.names), 2)]
    held_out = benchmark_pairs()
    pairs = [pair for pair in every if frozenset(pair) not in held_out] or every
    if not pairs:
        raise DataError(f"{known.collection} has images of fewer than two objects; name more of them (--objects)")
    random_numbers.shuffle(pairs)
    pairs.sort(key=lambda pair: frozenset(pair) in known.pairs)
    lines: dict[str, list[str]] = {}
    for number in range(min(count, len(pairs) * len(BASIC) * 2)):
        round, place = divmod(number, len(pairs))
        predicate = BASIC[(place + round) % len(BASIC)]
        both_orders = [(one, predicate, other) for one, other in permutations(pairs[place])]
        random_numbers.shuffle(both_orders)
        texts = {relation_prompt(*relation): list(relation) for relation in both_orders}
        text = min(texts, key=lambda text: (text in lines, text in known.prompts))
        lines[text] = texts[text]
    return [{"prompt": text, "relations": [relation]} for text, relation in lines.items()]


def count_new(known: DrawnPrompts, lines: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count what no training image of a collection was drawn of.

    Args:
        known: What the collection was drawn of.
        lines: What ``trial_prompts`` returned.

    Returns:
        The numbers of ``new_prompts``, and of ``new_pairs``, prompts whose two objects no training image has both.
    """
    pairs = [frozenset((subject, reference)) for line in lines for subject, _, reference in line["relations"]]
    return {
        "new_prompts": sum(line["prompt"] not in known.prompts for line in lines),
        "new_pairs": sum(pair not in known.pairs for pair in pairs),
    }
