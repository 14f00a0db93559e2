"""What goes between the server and the process that draws. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from learn_to_steer.prompts import Relation

PNG_KEY = "learn-to-steer"
"""Keyword of the text chunk in a PNG file that holds its settings as JSON."""


@dataclass(frozen=True)
class Job:
    """One picture to draw.

    Attributes:
        prompt: Its prompt.
        seed: Seed of its noise.
        width: In pixels.
        height: In pixels.
        relations: What it is steered to and judged by, with spans.
        found: Whether the relations were found in the prompt. Those that cannot be steered are then left out; of
            relations that a client sent, each is an error.
        steer: Whether it is steered.
        tries: How often it is drawn at most.
        threshold: The probability at which steering stops. None: the model's default.
        steps: Number of denoising steps. None: the model's default.
        strength: Factor of the steering's step size.
        watched: Whether it is told of every denoising step. It is drawn alone, and an unsteered picture, too, is looked
            at by the classifier.
    """

    prompt: str
    seed: int
    width: int
    height: int
    relations: tuple[Relation, ...] = ()
    found: bool = True
    steer: bool = True
    tries: int = 1
    threshold: float | None = None
    steps: int | None = None
    strength: float = 1.0
    watched: bool = False

    @property
    def shape(self) -> tuple[Any, ...]:
        """Jobs of one batch have the same: what is alike for all, and the sizes of the tensors."""
        objects = {
            mention
            for one in self.relations
            for mention in ((one.subject, one.subject_span), (one.object, one.object_span))
        }
        alike = self.width, self.height, self.steer, self.tries, self.threshold, self.steps, self.strength
        alone = (self.prompt, self.seed, self.relations) if self.watched else None
        return *alike, len(self.relations), len(objects), alone

    def settings(self) -> dict[str, Any]:
        """Return what is written into the picture."""
        names = ("prompt", "seed", "width", "height", "steer", "tries", "threshold", "steps", "strength")
        relations = [" | ".join(one.as_list()) for one in self.relations]
        return {name: getattr(self, name) for name in names} | {"relations": relations}


@dataclass(frozen=True)
class Picture:
    """A picture that was drawn: the PNG file, and what steering did.

    Attributes:
        png: The file.
        steering: What clients are told, and what is in the file.
        details: Of a watched job: what else is shown (``page_watch.details``).
    """

    png: bytes
    steering: dict[str, Any]
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StepSeen:
    """A denoising step of a watched job.

    Attributes:
        attempt: Number of the try, from 0.
        step: Index of the step.
        steps: Number of steps of a try.
        picture: The picture foreseen at this step, as JPEG file; None where it is not decoded.
        maps: Attention map of each object, as JPEG file.
    """

    attempt: int
    step: int
    steps: int
    picture: bytes | None = None
    maps: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """A job without a picture: the HTTP status, and why."""

    status: int
    reason: str
