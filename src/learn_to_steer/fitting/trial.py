"""Draw new prompts with and without steering, from the same noise, to see whether a classifier helps.

The prompts name objects that occur in the collection, two at a time, in pairs that it has no image of as far as there
are such pairs. The images are scored by the detector that labelled the collection.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from learn_to_steer import storage
from learn_to_steer.collection import Manifest, benchmark_pairs
from learn_to_steer.collection.shards import paths
from learn_to_steer.configs import EvaluateConfig
from learn_to_steer.errors import DataError
from learn_to_steer.evaluation import Model, Scorer, evaluate, load_scorer, open_model
from learn_to_steer.evaluation.model import LEARNED, UNSTEERED
from learn_to_steer.fitting.config import FitConfig
from learn_to_steer.geometry import BASIC
from learn_to_steer.loading import resolve_device
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
    """

    def __init__(self, config: FitConfig, pipe: Any, detector: str, collection: Path, folder: Path) -> None:
        # Paths in an evaluation's settings must not depend on where the command runs.
        self.folder = folder.resolve()
        self._pipe = pipe
        self._scorer: Scorer = load_scorer(detector, resolve_device(config.device))
        lines = trial_prompts(collection, config.trial, config.seed)
        storage.write_atomic(self.folder / PROMPTS, b"".join(map(storage.jsonl_line, lines)))
        self._config = EvaluateConfig(
            **{name: getattr(config, name) for name in ("model", "revision", "lora", "device", "dtype", "offload")},
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
        model: Model = open_model(config, self._pipe)
        # A folder of its own for everything that the images depend on: then no other run can be in it.
        content = [config.decisive(), model.fingerprints, self._scorer.identity, storage.sha256(self.folder / PROMPTS)]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:8]
        out = self.folder / f"{name}-{digest}"
        evaluate(replace(config, out=str(out)), model=model, scorer=self._scorer)
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
            What ``compare_rows`` returns, the name of the ``detector``, and the folders of both evaluations.
        """
        folders = {"unsteered": self.run(None), "steered": self.run(source)}
        rows = {name: read_rows(folder) for name, folder in folders.items()}
        compared = compare_trials(rows["unsteered"], rows["steered"])
        names = {name: folder.name for name, folder in folders.items()}
        return compared | {"detector": self._config.detector, "folders": names}


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


def trial_prompts(collection: Path, count: int, seed: int) -> list[dict[str, Any]]:
    """Return prompts of two objects and a relation that a collection was not made from, as lines of a prompt file.

    Args:
        collection: The folder of the collection.
        count: The number of prompts. The four basic relations take turns, also for the same pair.
        seed: Seed of the choice.

    Returns:
        Lines with ``prompt`` and ``relations``. Pairs that a benchmark names are left out, and pairs that the
        collection has in its training images come last.

    Raises:
        DataError: The collection has fewer than two objects.
    """
    manifest = Manifest.read(collection)
    names, trained = set[str](), set[frozenset[str]]()
    for shard in manifest.shards:
        for row in storage.read_jsonl(paths(collection, shard)[1], allow_torn=False):
            pair = frozenset((row["subject"], row["object"]))
            names |= pair
            if shard.startswith("train"):
                trained.add(pair)
    random_numbers = random.Random(seed)
    every = [pair for pair in combinations(sorted(names), 2)]
    held_out = benchmark_pairs()
    pairs = [pair for pair in every if frozenset(pair) not in held_out] or every
    if not pairs:
        raise DataError(f"{collection} has images of fewer than two objects; name more of them (--objects)")
    random_numbers.shuffle(pairs)
    pairs.sort(key=lambda pair: frozenset(pair) in trained)
    lines: list[dict[str, Any]] = []
    for number in range(count):
        round, place = divmod(number, len(pairs))
        subject, reference = pairs[place] if random_numbers.random() < 0.5 else reversed(pairs[place])
        predicate = BASIC[(place + round) % len(BASIC)]
        text = relation_prompt(subject, predicate, reference)
        lines.append({"prompt": text, "relations": [[subject, predicate, reference]]})
    return lines
