"""``Steerer``: a loss and its settings; ``on(pipe)`` puts it on a user's pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from learn_to_steer.classifier import load
from learn_to_steer.families import find
from learn_to_steer.objectives._protocol import Objective
from learn_to_steer.objectives.learned import Learned
from learn_to_steer.steering.compatibility import check_update, disable_compile, refuse_wrapped
from learn_to_steer.steering.config import SteeringConfig, profile
from learn_to_steer.steering.pipeline import SteeredPipeline


class Steerer:
    """Steers pipelines towards the relations in their prompts.

    ::

        steered = Steerer.from_pretrained("path/to/classifier").on(pipe)
        out = steered("a dog to the right of a teddy bear", num_images_per_prompt=4)
        out.images, out.steering
    """

    def __init__(self, objective: Objective, config: SteeringConfig | None = None) -> None:
        self.objective, self._given = objective, config is not None
        self.config = config or profile("default", schedule=objective.schedule)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, config: SteeringConfig | None = None, revision: str | None = None
    ) -> Steerer:
        """The learned objective of a classifier folder or hub id; DataError when there is none."""
        return cls(Learned(load(source, revision)), config)

    def on(self, pipe: Any) -> SteeredPipeline:
        """A callable that runs ``pipe``, steered.

        Raises MismatchError when the classifier was made for another model, UnsupportedError when the objective
        cannot work with this one.
        """
        refuse_wrapped(pipe)
        with disable_compile(pipe):
            family = find(pipe)
            layout = family.layout(getattr(pipe, family.denoiser))
            usual = family.unnamed(pipe, "")
        self.objective.check(layout)
        config = self.config if self._given else self.config.changed(**usual.steering)
        if config.rate is None:
            config = config.changed(rate=usual.rate)
        check_update(pipe, config)
        return SteeredPipeline(pipe, family, self.objective, config)
