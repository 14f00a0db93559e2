"""Which detector looks at the images of an evaluation while they are drawn: never the one that scores them."""

from __future__ import annotations

from collections.abc import Sequence

from learn_to_steer import registry
from learn_to_steer.benchmarks import BenchmarkPrompt
from learn_to_steer.configs import EvaluateConfig
from learn_to_steer.errors import UnsupportedError
from learn_to_steer.evaluation.model import UNSTEERED
from learn_to_steer.evaluation.noise_refinement import is_unified_loss
from learn_to_steer.evaluation.scoring import Scorer, load_scorer
from learn_to_steer.model_names import named_variant
from learn_to_steer.steering.report import CLASSIFIER
from learn_to_steer.steering.verifiers import default_verifier


def verifier_name(config: EvaluateConfig, scorer: str, given: Scorer | None = None) -> str | None:
    """Return the name of the verifier of an evaluation, before anything is loaded.

    Args:
        config: The settings.
        scorer: Name of the detector that scores, without its source.
        given: The verifier, where it is not the one that ``config`` names.

    Returns:
        A detector's name, with its source if one is named; ``CLASSIFIER`` for the classifier's last look; None if
        nothing looks at the images.

    Raises:
        UnsupportedError: It is the scorer, nothing can judge, or the loss draws images again by a rule of its own.
    """
    name = given.detector.name if given else config.verifier
    if config.tries > 1:
        if is_unified_loss(config.objective):
            raise UnsupportedError(
                f"the loss {config.objective} has a second stage of its own in place of several tries; leave --tries "
                "out, or choose another --loss"
            )
        name = name or default_verifier(named_variant(config.model), scorer)
    if name is not None and is_same_detector(name, scorer):
        raise UnsupportedError(
            f"{name} would select the images that it scores, so that the score says nothing; choose another --verifier "
            "or --detector"
        )
    if name == CLASSIFIER and registry.normal(config.objective) == UNSTEERED:
        raise UnsupportedError("no classifier looks at images that are not steered; name a detector as --verifier")
    return name


def is_same_detector(name: str, other: str) -> bool:
    """Whether two names, with or without a source of weights, are those of one detector."""
    kinds = [registry.normal(one.partition(":")[0]) for one in (name, other)]
    return kinds[0] == kinds[1]


def find_verifier(
    name: str | None, prompts: Sequence[BenchmarkPrompt], device: str, given: Scorer | None = None
) -> Scorer | None:
    """Load the verifier.

    Args:
        name: What ``verifier_name`` returned.
        prompts: The prompts, whose objects it must know.
        device: The torch device of the detector.
        given: The verifier, where it is loaded already.

    Returns:
        A detector that passed its self-test; None for the classifier, and if nothing looks at the images.

    Raises:
        UnknownNameError: There is no such detector, or it does not know an object.
        DataError: The detector cannot be used.
    """
    if name is None or name == CLASSIFIER:
        return None
    verifier = given or load_scorer(name, device)
    verifier.require_objects(prompts)
    return verifier
