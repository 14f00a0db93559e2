"""Keep the attention maps of some images of an evaluation, for its report."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from learn_to_steer.benchmarks import BenchmarkPrompt
from learn_to_steer.configs import EvaluateConfig
from learn_to_steer.evaluation.generation import Job
from learn_to_steer.evaluation.image_folders import PromptImage
from learn_to_steer.evaluation.model import Model
from learn_to_steer.families import find
from learn_to_steer.report import LatentTrajectory, object_maps
from learn_to_steer.report.kept_maps import write_maps
from learn_to_steer.result_rows import image_id
from learn_to_steer.steering.inputs import select_relations

log = logging.getLogger(__name__)


class MapKeeper:
    """Keeps the latents of a few steps while a batch is drawn, and computes the maps of its objects afterwards."""

    def __init__(self, config: EvaluateConfig, model: Model, prompts: Sequence[BenchmarkPrompt]) -> None:
        """Choose the images: the first ``config.maps`` of all, none if an image is drawn several times."""
        self._model, self._out = model, Path(config.out)
        keys = ((prompt.index, sample) for prompt in prompts for sample in range(config.images))
        self._wanted = set(islice(keys, config.maps))
        if config.maps and config.tries > 1:
            log.warning("no attention maps are kept, since images are drawn several times; leave out --tries")
            self._wanted = set()

    def trajectory(self, batch: Sequence[PromptImage]) -> LatentTrajectory | None:
        """What has to see the steps of a batch (``callback_on_step_end``); None if none of its maps are wanted."""
        if not any(target.key in self._wanted for target in batch):
            return None
        return LatentTrajectory(self._model.sampling["num_inference_steps"])

    def keep(self, batch: Sequence[PromptImage], jobs: Sequence[Job], trajectory: LatentTrajectory | None) -> None:
        """Compute and write the wanted maps of a batch, at the cost of a forward for each image and kept step."""
        if trajectory is None or not trajectory.kept:
            return
        numbered = [(n, target) for n, target in enumerate(batch) if target.key in self._wanted]
        for _, group in groupby(numbered, key=lambda entry: entry[1].prompt.index):
            members = list(group)
            job = jobs[members[0][0]]
            pipe, sampling = self._model.pipe, self._model.sampling
            # Only objects within the text that the model reads have maps.
            shown, _ = select_relations(pipe, find(pipe), None, job.prompt, job.relations, sampling)
            if not shown:
                continue
            samples: list[tuple[LatentTrajectory, int]] = [(trajectory, n) for n, _ in members]
            maps = object_maps(pipe, job.prompt, shown, samples, sampling)
            for number, (_, target) in enumerate(members):
                key: dict[str, Any] = {"index": target.prompt.index, "sample": target.sample}
                write_maps(self._out, image_id(key), maps, number)
