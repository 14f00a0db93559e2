"""The report on a steered call: what was done to each image, and the loss's own estimate of the result.

``probability`` is what the classifier reads off the attention maps while the image is made. It says nothing about what
the finished image shows; a verifier does (``steering.tries``), or a detector (``evaluation.Scorer``).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from learn_to_steer.prompts import Relation
from learn_to_steer.steering.config import SteeringConfig

CLASSIFIER = "classifier"  # the name of its last look, where a verifier is named


@dataclass(frozen=True)
class LeftOut:
    """A relation of a prompt that the image is not steered towards.

    Attributes:
        relation: The relation.
        reason: Why it cannot be steered.
    """

    relation: Relation
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Return what is written into report.json."""
        return {"relation": self.relation.as_list(), "reason": self.reason}


@dataclass
class StepReport:
    """One denoising step of one image.

    Attributes:
        step: Index of the step.
        level: Noise level in [0, 1].
        passes: Iterations with a backward.
        checks: Evaluations without a backward, since the image was satisfied. Those in the pipeline's own forward
            (``SteeringConfig.check_while_sampling``) are not counted.
        probability: The loss's estimate for each relation, at the last evaluation in this step, of either kind.
    """

    step: int
    level: float
    passes: int = 0
    checks: int = 0
    probability: list[float] = field(default_factory=list)


@dataclass
class ImageReport:
    """One image: its relations, the cost of steering it, and the result.

    Attributes:
        prompt: Its prompt.
        relations: What it was steered towards.
        steps: The steered denoising steps.
        converged: Whether the probability was at least the threshold at the last evaluation, which is that of the
            pipeline's own forward in the last steered step, or with ``check_while_sampling`` off that before the last
            move.
        backoffs: Number of gradients that were not finite.
        note: A remark for the user; empty if there is none.
        left_out: Relations that were found in the prompt but cannot be steered.
        satisfied: Whether the image shows what it was steered towards, as far as ``verified_by`` can tell. None without
            a relation, and where nothing judges.
        verified_by: What judges: the name of a verifier, or "classifier" for the classifier's last look, which cannot
            see a missing or doubled object.
        reason: What a verifier found wrong.
        tries: How often it was drawn.
        kept_try: Which try it is, counted from 0. The first has the noise of a call without tries.
        discarded: The steered denoising steps of the other tries; they count in ``passes`` and ``checks``.
    """

    prompt: str
    relations: list[Relation]
    steps: list[StepReport] = field(default_factory=list)
    converged: bool = False
    backoffs: int = 0
    note: str = ""
    left_out: list[LeftOut] = field(default_factory=list)
    satisfied: bool | None = None
    verified_by: str = CLASSIFIER
    reason: str = ""
    tries: int = 1
    kept_try: int = 0
    discarded: list[StepReport] = field(default_factory=list)

    @property
    def passes(self) -> int:
        """Iterations with a backward, of all tries."""
        return sum(step.passes for step in [*self.discarded, *self.steps])

    @property
    def checks(self) -> int:
        """Evaluations without a backward, apart from those in the pipeline's own forward, of all tries."""
        return sum(step.checks for step in [*self.discarded, *self.steps])

    @property
    def probability(self) -> list[float]:
        """The loss's estimate for each relation at the last evaluation; empty when the image was not steered.

        It is read off the attention maps. Nothing has looked at the finished image.
        """
        return self.steps[-1].probability if self.steps else []

    @property
    def why(self) -> str:
        """Who judged the image and what is wrong with it, in words."""
        if self.satisfied is None:
            return "not judged" if self.relations else "no relation"
        if self.verified_by == CLASSIFIER:
            estimate = f"its last estimate is {math.prod(self.probability):.2f}"
            return f"{CLASSIFIER}: {estimate}; it cannot see a missing or doubled object"
        return f"{self.verified_by}: {self.reason or 'as the prompt says'}"

    def as_dict(self) -> dict[str, Any]:
        """Return what is written into report.json."""
        return {
            "prompt": self.prompt,
            "relations": [relation.as_list() for relation in self.relations],
            "left_out": [one.as_dict() for one in self.left_out],
            "steered": bool(self.steps),
            "converged": self.converged,
            "probability": self.probability,
            "passes": self.passes,
            "checks": self.checks,
            "backoffs": self.backoffs,
            "note": self.note,
            "satisfied": self.satisfied,
            "tries": self.tries,
            "kept_try": self.kept_try,
            "why": self.why,
            "steps": [asdict(step) for step in self.steps],
        }


@dataclass
class SteeringReport:
    """One pipeline call.

    Attributes:
        images: One report per image, in the order of the output.
        settings: The settings it was steered with.
        seconds: Time spent on steering, for all images together.
    """

    images: list[ImageReport]
    settings: SteeringConfig
    seconds: float = 0.0

    @property
    def config(self) -> dict[str, Any]:
        """The settings under their names in files (``SteeringConfig.as_dict``)."""
        return self.settings.as_dict()
