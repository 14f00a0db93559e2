"""FLUX.1's modular pipeline, steered towards the relations in its prompts. A hub repository loads it from here."""

from diffusers import FluxAutoBlocks

from learn_to_steer import Steerer
from learn_to_steer.modular import SteerStep

CLASSIFIER = "OWNER/CLASSIFIER"  # a folder or hub id with a classifier of this model


class SteeredFluxBlocks(FluxAutoBlocks):  # type: ignore[misc]
    """The blocks of FLUX.1 with steering in them."""

    _requirements = {"learn-to-steer": ">=0.1"}  # noqa: RUF012 - as diffusers wants it

    def __init__(self, classifier: str = CLASSIFIER) -> None:
        """Make the blocks.

        Args:
            classifier: A folder or hub id, or the name of a variant, such as "flux:emoji".
        """
        super().__init__()
        self.sub_blocks = SteerStep.into(FluxAutoBlocks(), Steerer.from_pretrained(classifier)).sub_blocks
