"""``Steerer``: a loss and its settings; ``on(pipe)`` puts it on a user's pipeline."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any

from learn_to_steer.errors import UnsupportedError
from learn_to_steer.families import Variant, find
from learn_to_steer.losses.base import Loss
from learn_to_steer.losses.learned import Learned
from learn_to_steer.model_names import find_variant
from learn_to_steer.sampling import loaded_variant
from learn_to_steer.steering.compatibility import check_model, without_compile
from learn_to_steer.steering.config import SteeringConfig, resolve_config
from learn_to_steer.steering.pipeline import SteeredPipeline
from learn_to_steer.steering.refusals import check_update, refuse_modular, refuse_wrapped
from learn_to_steer.steering.trained_classifier import load_classifier, warn_of_other_model


class Steerer:
    """Steers pipelines towards the relations in their prompts.

    ::

        pipe = load_pipeline("flux:emoji")
        steered = Steerer.from_pretrained("flux:emoji").on(pipe)
        out = steered("a dog to the right of a teddy bear", num_images_per_prompt=4)
        out.images, out.steering

    Attributes:
        loss: The loss that is minimised.
        config: The settings before ``on`` adds what the pipeline's model needs.
    """

    def __init__(self, loss: Loss, config: SteeringConfig | None = None, *, variant: Variant | None = None) -> None:
        """Make a steerer of a loss.

        Args:
            loss: The loss.
            config: Exactly these settings. None: those of the loss and of the model (``resolve_config``).
            variant: The model whose tuned settings are used if there is no ``config``. None: the variant that
                ``load_pipeline`` was called with; a pipeline that was loaded otherwise has no tuned settings.
        """
        if not hasattr(loss, "spec"):
            raise UnsupportedError(
                f"{reprlib.repr(loss)} is no loss; for the classifier of a model use Steerer.from_pretrained(NAME)"
            )
        _check_config(config)
        if variant is not None and not isinstance(variant, Variant):
            raise UnsupportedError(f"{reprlib.repr(variant)} is no Variant; families.resolve(NAME) returns one")
        self.loss, self._given, self._variant = loss, config, variant
        self.config = config or resolve_config(loss.schedule, variant)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, config: SteeringConfig | None = None, revision: str | None = None
    ) -> Steerer:
        """Load a classifier and make a steerer of it.

        Args:
            source: A variant such as "flux:emoji": its classifier and its tuned settings are used. Or a classifier:
                a folder, a file, or a hub id ("owner/name").
            config: Exactly these settings instead.
            revision: Branch, tag or commit of a hub id.

        Returns:
            The steerer, not yet on a pipeline.

        Raises:
            UnknownNameError: ``source`` is neither a variant nor a path that exists.
            DataError: There is no classifier, or it cannot be read.
        """
        _check_config(config)
        loaded = load_classifier(source, revision)
        variant = find_variant(source) if isinstance(source, str) else None
        return cls(Learned(loaded), config, variant=variant)

    def on(self, pipe: Any) -> SteeredPipeline:
        """Return a callable that runs ``pipe``, steered. The pipeline itself is not changed.

        A classifier of other weights with the same layout is used, with a warning.

        Args:
            pipe: A diffusers pipeline.

        Returns:
            The steered pipeline, which is called like ``pipe``.

        Raises:
            MismatchError: The classifier was made for another model.
            UnsupportedError: The pipeline belongs to no known model family or cannot be steered, or the loss cannot be
                used with it.
        """
        refuse_modular(pipe)
        return self.attach(pipe)

    def attach(self, pipe: Any) -> SteeredPipeline:
        """Return what steers the calls of ``pipe``, which may be modular; see ``on``."""
        refuse_wrapped(pipe)
        plain = without_compile(pipe)
        family = find(plain)
        check_model(plain, family)
        denoiser = getattr(plain, family.denoiser)
        layout = family.layout(denoiser)
        variant = self._variant or loaded_variant(pipe) or family.default_variant(plain, "")
        self.loss.check(layout)
        if isinstance(self.loss, Learned):
            warn_of_other_model(self.loss.classifier, pipe, denoiser)
        config = self._given or resolve_config(self.loss.schedule, variant)
        if config.step_size is None:
            config = config.changed(step_size=variant.step_size)
        check_update(pipe, config)
        return SteeredPipeline(pipe, family, self.loss, config)


def _check_config(config: object) -> None:
    if config is not None and not isinstance(config, SteeringConfig):
        raise UnsupportedError(
            f"{reprlib.repr(config)} is no SteeringConfig; make one, e.g. SteeringConfig(threshold=0.9)"
        )
