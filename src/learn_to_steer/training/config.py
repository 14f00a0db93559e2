"""How the classifier is trained, and how large it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from learn_to_steer.classifier import ClassifierConfig
from learn_to_steer.configs import TrainSettings
from learn_to_steer.dataset.shards import Manifest
from learn_to_steer.maps import Layout


@dataclass(frozen=True)
class TrainConfig(TrainSettings):
    """Optimiser as the authors have it for Stable Diffusion; a smaller network, which the embedded models need.

    The authors' sizes are ``width=256``, ``layers=2``, ``hidden=128``, ``dropout=0.3``. ``prompts`` "true" leaves the
    wrong-word prompts out of training (leakage ablation; turn ``augment`` off with it, for a mirrored map no longer
    agrees with the trace of its words). With "both" the true word is still named in every other row, so that a word is
    worth reading; "balanced" weighs rows so that it says nothing. *Source:* official_implementation, section 9;
    "balanced" is ours.
    """

    weight_decay: float = 0.05
    plateau_factor: float = 0.5
    plateau_patience: int = 5
    layers: int = 2
    heads: int = 2
    hidden: int = 128
    head_layers: int = 2
    head_heads: int = 4
    head_hidden: int = 128
    inject: Literal["mid", "pre", "none"] = "mid"
    extractor: Literal["attention", "mean"] = "attention"

    def classifier(self, manifest: Manifest) -> ClassifierConfig:
        """The classifier's config for the maps of ``manifest``."""
        channels = Layout.from_dict(manifest.layout).channels
        return ClassifierConfig(
            classes=tuple(manifest.classes),
            channels=channels,
            times=len(manifest.levels),
            levels=tuple(manifest.levels),
            side=manifest.layout["side"],
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            hidden=self.hidden,
            query_heads=self.heads,
            head_layers=self.head_layers,
            head_heads=self.head_heads,
            head_hidden=self.head_hidden,
            dropout=self.dropout,
            inject=self.inject,
            extractor=self.extractor,
            layout=manifest.layout,
        )
