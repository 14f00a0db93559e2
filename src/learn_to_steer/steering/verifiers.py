"""Verifiers: what looks at a finished image and says whether it shows what its prompt says.

A verifier is usually a detector: every object of a relation is to be there exactly once, and every relation is to hold
by GenEval's rule. The detector that scores results should be another one, or it would score images that it selected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from learn_to_steer.benchmarks import BenchmarkPrompt, detected_numbers, score_relations
from learn_to_steer.detectors import Detector, LoadedDetector, Query
from learn_to_steer.errors import UnknownNameError
from learn_to_steer.families import Variant
from learn_to_steer.geometry import DIRECTIONS, Detection
from learn_to_steer.steering.report import CLASSIFIER

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Verdict:
    """What a verifier says of one image.

    Attributes:
        satisfied: Whether the image shows what its prompt says.
        score: How much of it the image shows, in [0, 1]; of several tries the one with the highest score is kept.
        reason: Why the image is not satisfactory; empty if it is.
    """

    satisfied: bool
    score: float
    reason: str = ""


class Verifier(Protocol):
    """Looks at finished images."""

    @property
    def name(self) -> str:
        """What reports call it."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that its verdicts depend on, as JSON."""

    def look(self, images: Sequence[Image], prompts: Sequence[BenchmarkPrompt]) -> list[Verdict | None]:
        """Judge images.

        Args:
            images: The images.
            prompts: The prompt of each image, with its relations.

        Returns:
            A verdict for each image; None if the verifier cannot judge it.
        """


@dataclass(frozen=True)
class DetectorVerifier:
    """A detector as a verifier.

    Attributes:
        detector: Finds objects in images.
        vocabulary: Every word that it knows -> the class it reports; None if it looks for any word.
    """

    detector: Detector
    vocabulary: Mapping[str, str] | None

    @property
    def name(self) -> str:
        """The detector's name."""
        return self.detector.name

    @property
    def identity(self) -> dict[str, Any]:
        """All that the detections depend on."""
        return dict(self.detector.identity)

    def look(self, images: Sequence[Image], prompts: Sequence[BenchmarkPrompt]) -> list[Verdict | None]:
        """See ``Verifier.look``. The score is the share of objects and relations that are as they should be."""
        queries = [Query(tuple(sorted(prompt.objects))) for prompt in prompts]
        detected = self.detector.detect(images, queries)
        return [self._verdict(prompt, one) for prompt, one in zip(prompts, detected, strict=True)]

    def _verdict(self, prompt: BenchmarkPrompt, detections: Sequence[Detection]) -> Verdict | None:
        """The verdict on one image; None if an object or a relation is unknown."""
        if any(relation.predicate not in DIRECTIONS for relation in prompt.relations):
            return None
        try:
            score = score_relations(prompt, detections, self.vocabulary)
            numbers = detected_numbers(prompt.relations, detections, self.vocabulary)
        except UnknownNameError:
            return None
        several = [f"too many: {n} {name}, not {wanted}" for name, (n, wanted) in numbers.items() if n > wanted]
        right = sum(score.held) + sum(number == wanted for number, wanted in numbers.values())
        whole = len(score.held) + len(numbers)
        return Verdict(right == whole, right / whole, "; ".join(filter(None, (score.reason, *several))))


@lru_cache(maxsize=1)
def load_verifier(name: str, device: str = "cpu") -> Verifier:
    """Load a detector as a verifier. The one that was loaded last is kept.

    Args:
        name: A detector's name, or "name:SOURCE" for other weights of it (a folder or hub id).
        device: The torch device of the detector.

    Raises:
        UnknownNameError: There is no such detector.
        DataError: Its weights are missing or unusable.
    """
    loaded = LoadedDetector.load(name, device)
    return DetectorVerifier(loaded.detector, loaded.vocabulary)


def default_verifier(variant: Variant | None, scorer: str = "") -> str:
    """Return the name of the verifier of a model's images where the user names none.

    Args:
        variant: The model; None if unknown.
        scorer: Name of the detector that scores the images; it is not returned.

    Returns:
        The first of ``Variant.verifiers`` that is not the scorer; ``CLASSIFIER`` if there is none.
    """
    names = variant.verifiers if variant else ()
    return next((name for name in names if name != scorer), CLASSIFIER)
