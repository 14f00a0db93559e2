"""The verb ``fit``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from learn_to_steer.cli.console import show
from learn_to_steer.distributed import check_options
from learn_to_steer.fitting.config import FitConfig


def fit(config: FitConfig) -> None:
    """Make a classifier for a model from images that the model draws itself.

    The model draws prompts of two and more objects; a detector says what is where in the images; the classifier learns
    to read it off the attention maps of that very drawing. No data set is needed. In the end, new prompts are drawn
    with and without steering. Writes the classifier, README.md, report.html and report.json into --out. If it is
    stopped, run the same command again: it goes on where it stopped.
    """
    check_options(config, config.device)  # before torch is imported, which takes long
    # These import torch.
    import logging

    from learn_to_steer.fitting import fit_model

    if config.limit == 0:
        for line in fit_model.explain(config):
            show(line)
        return
    for name in ("collection", "training", "fitting"):  # log how long it will take, and what is chosen
        logging.getLogger(f"learn_to_steer.{name}").setLevel(logging.INFO)
    report = fit_model.fit(config)
    show(f"Made: {config.out}, to be used with --classifier {config.out}")
    for line in _lines(report):
        show(line)
    show(f"Look at {config.out}/report.html")


def _lines(report: Mapping[str, Any]) -> list[str]:
    drawn, classifier, trial = report["drawn"], report["classifier"], report["trial"]
    low, high = classifier["accuracy_interval"]
    lines = [
        f"drawn           {drawn['images']} images, of which {drawn['usable']} can be used",
        f"classifier      reads {classifier['depth']} of {classifier['layers']} layers; accuracy "
        f"{classifier['accuracy']:.3f} (95 %: {low:.3f} to {high:.3f}) on {classifier['pictures']} held-out images",
    ]
    excess = report["leakage"]["above_chance"]
    if excess is not None:
        lines.append(f"prompt's words  a wrong one is predicted {excess:+.3f} above chance")
    if trial:
        right = trial["right"]
        difference, low, high = right["difference"]
        lines.append(
            f"steering        {right['unsteered']:.3f} right unsteered, {right['steered']:.3f} steered on "
            f"{trial['images']} prompts: {difference:+.3f} (95 %: {low:+.3f} to {high:+.3f})"
        )
    return lines
