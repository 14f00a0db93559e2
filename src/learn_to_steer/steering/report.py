"""What was done to each image, and how sure the objective is of the result."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from learn_to_steer.prompts import Relation


@dataclass
class StepReport:
    """One denoising step of one image. ``probability`` is per relation, as last seen in the step."""

    step: int
    level: float
    passes: int = 0
    checks: int = 0
    probability: list[float] = field(default_factory=list)


@dataclass
class ImageReport:
    """One image: what was asked, what it cost, how it ended.

    ``passes`` had a backward, ``checks`` were forwards that found nothing left to do. ``converged`` says
    that the relations together reached the wanted probability when they were last looked at.
    """

    prompt: str
    relations: list[Relation]
    steps: list[StepReport] = field(default_factory=list)
    converged: bool = False
    backoffs: int = 0
    note: str = ""

    @property
    def passes(self) -> int:
        return sum(step.passes for step in self.steps)

    @property
    def checks(self) -> int:
        return sum(step.checks for step in self.steps)

    @property
    def probability(self) -> list[float]:
        """The last seen probability of each relation; empty when nothing was steered."""
        return self.steps[-1].probability if self.steps else []

    def as_dict(self) -> dict[str, Any]:
        return {
            "prompt": self.prompt,
            "relations": [relation.as_list() for relation in self.relations],
            "steered": bool(self.steps),
            "converged": self.converged,
            "probability": self.probability,
            "passes": self.passes,
            "checks": self.checks,
            "backoffs": self.backoffs,
            "note": self.note,
            "steps": [asdict(step) for step in self.steps],
        }


@dataclass
class SteeringReport:
    """One pipeline call. ``seconds`` is the time spent steering, over all its images."""

    images: list[ImageReport]
    config: dict[str, Any]
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return {
            "config": self.config,
            "seconds": self.seconds,
            "images": [image.as_dict() for image in self.images],
        }
