"""Load a classifier by any of its names, and tell when it was trained on another model than the one it is put on."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from learn_to_steer import registry
from learn_to_steer.classifier import RelationClassifier, load
from learn_to_steer.digests import sampled_weights
from learn_to_steer.errors import UnknownNameError
from learn_to_steer.families import variants
from learn_to_steer.model_names import PACKAGE, classifier_source, find_variant, package_folder

log = logging.getLogger(__name__)


def load_classifier(source: str | Path, revision: str | None = None) -> RelationClassifier:
    """Load a classifier; the one place where its name is resolved.

    Args:
        source: A variant such as "flux:emoji", for the classifier that comes with it; ``package:IMPORT_NAME/FOLDER``;
            a folder, a file, or a hub id ("owner/name").
        revision: Branch, tag or commit of a hub id.

    Returns:
        The classifier. ``config.trained_on`` names its model, if that is known.

    Raises:
        UnknownNameError: ``source`` is neither a variant nor a path that exists.
        DataError: There is no classifier, or it cannot be read.
    """
    if not isinstance(source, (str, Path)):
        raise UnknownNameError(
            f"{source!r} is no model and no classifier; give the name of a model, a folder or a hub id"
        )
    if revision is not None and not isinstance(revision, str):
        raise UnknownNameError(f"{revision!r} is no revision; give the name of a branch, tag or commit")
    variant = find_variant(source) if isinstance(source, str) else None
    if variant is not None:
        place = classifier_source(variant)
    else:
        name = str(source).partition("=")[0]
        if not name.strip() or ("/" not in name and not Path(source).expanduser().exists()):
            raise registry.unknown("model or classifier", str(source), variants())
        place = package_folder(source) if isinstance(source, str) else source
    classifier = load(place, revision)
    if not classifier.config.trained_on and (owner := _comes_with(place)):
        classifier.config = replace(classifier.config, trained_on={"model": owner})
    return classifier


def warn_of_other_model(classifier: RelationClassifier, pipe: Any, denoiser: nn.Module) -> None:
    """Log if a classifier was trained on other weights of the same layout.

    Its file has a digest of the denoiser's weights (``digests.sampled_weights``: the names of all tensors and the first
    64 values of each), which is compared, unless adapters or quantised weights make it meaningless. A packaged
    classifier has none; for it the names of the models are compared. For any other nothing is known.

    Args:
        classifier: The classifier.
        pipe: The pipeline that it is put on.
        denoiser: Its denoiser.
    """
    known = classifier.config.trained_on
    this = getattr(getattr(pipe, "steering_variant", None), "name", "")
    differs = False
    if known.get("weights"):
        differs = _is_plain(denoiser) and not _has_digest(denoiser, known["weights"])
    elif known.get("model") in variants() and this in variants():
        differs = known["model"] != this
    if differs:
        log.warning(
            "the classifier was trained on the maps of %s, not on those of %s (or of the same weights in another "
            "precision): it fits by its layout, but may steer badly; use the classifier of this model",
            known.get("model") or "other weights",
            this or "this pipeline",
        )


def _comes_with(place: Path | str) -> str:
    """Name of the variant whose packaged classifier is at ``place``; empty if there is none."""
    for variant in variants().values():
        if (variant.classifier or "").startswith(PACKAGE) and isinstance(place, Path):
            packaged = package_folder(variant.classifier or "")
            if isinstance(packaged, Path) and packaged.resolve() in (place.resolve(), place.resolve().parent):
                return variant.name
    return ""


def _is_plain(denoiser: nn.Module) -> bool:
    """Whether the weights are at hand, as trained: no adapters, not quantised, not offloaded to the meta device."""
    tensors = list(denoiser.state_dict().values())
    floating = all(tensor.is_floating_point() and not tensor.is_meta for tensor in tensors)
    return floating and not getattr(denoiser, "peft_config", None)


def _has_digest(denoiser: nn.Module, digest: str) -> bool:
    """Whether the weights have a digest, as they are or rounded to half precision, as in a collection on a GPU."""
    return any(sampled_weights(denoiser, dtype) == digest for dtype in (None, torch.bfloat16, torch.float16))
