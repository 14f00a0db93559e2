"""The model card of a classifier: inputs and outputs, training data, accuracy, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from learn_to_steer.classifier.network import ClassifierConfig
from learn_to_steer.maps import Layout

PAPER = "https://arxiv.org/abs/2509.02295"


def model_card(config: ClassifierConfig, metrics: Mapping[str, Any], data: Mapping[str, Any], parameters: int) -> str:
    """Return the model card, the content of README.md.

    Args:
        config: The classifier's config.
        metrics: The metrics, as ``train`` writes them. ``fit`` adds ``trial``, what ``fitting.trial.Trial.compare``
            returns, and ``warnings``, sentences without a full stop.
        data: The training data: ``model``, ``base_model`` (a hub id), ``source``, ``note`` (licence of the images),
            ``inversion`` and ``pictures``, all optional.
        parameters: The number of parameters.
    """
    layout = Layout.from_dict(config.layout) if config.layout else None
    steps = "loop steps " + ", ".join(map(str, config.steps)) if config.steps else ""
    levels = "noise levels " + ", ".join(f"{level:.3g}" for level in config.levels)
    facts = {
        "classes": ", ".join(config.classes),
        "reads": f"{config.channels} attention maps of side {config.side} for each of two objects",
        "layout": f"{layout.family}, {len(layout.layers)} layers, fingerprint `{layout.fingerprint}`" if layout else "",
        "clock": steps or levels,
        "parameters": f"{parameters:,}",
        "model": str(data.get("model", "")),
        "data": ", ".join(str(data[key]) for key in ("source", "pictures", "inversion") if data.get(key)),
        "licence of the data": str(data.get("note", "")),
        "imported from": str(metrics.get("imported_from", "")),
    }
    listed = "\n".join(f"| {name} | {value.replace('|', '/')} |" for name, value in facts.items() if value)
    return "\n".join(
        [
            "---",
            "library_name: learn-to-steer",
            "tags: [text-to-image, spatial-relations, attention, steering]",
            *([f"base_model: {data['base_model']}"] if data.get("base_model") else []),
            "---",
            "",
            "# Relation classifier",
            "",
            "Reads the spatial relation of two objects from the attention maps of a text-to-image model; its gradient",
            f"steers the latents towards the relation in the prompt ([paper]({PAPER})). It fits one model only.",
            "",
            "| | |",
            "|---|---|",
            listed,
            "",
            *_warnings(metrics),
            *_trial(metrics),
            *_measured(metrics),
            *_calibration(metrics),
            *_depths(metrics),
            "## Use",
            "",
            "```python",
            "from learn_to_steer import Steerer",
            "",
            'steered = Steerer.from_pretrained("THIS FOLDER OR HUB ID").on(pipe)',
            'out = steered("a dog to the right of a teddy bear")',
            "```",
            "",
            "The publisher of these weights names their licence above; images and base model have their own.",
            "",
        ]
    )


def above_chance(probe: Mapping[str, Any]) -> float | None:
    """Return how much more often than by chance a wrong relation of the prompt is predicted; None if not measured.

    Args:
        probe: The leakage probe, as ``train`` writes it. Files of version 0.1.0 lack its number of rows.
    """
    return None if probe.get("rows") == 0 else float(probe["names_prompted_word"] - probe["by_chance"])


def _warnings(metrics: Mapping[str, Any]) -> list[str]:
    """The section on what a user should know first; empty when there is nothing."""
    texts = metrics.get("warnings")
    return ["## Warnings", "", *(f"- {text[:1].upper()}{text[1:]}." for text in texts), ""] if texts else []


def _trial(metrics: Mapping[str, Any]) -> list[str]:
    """The section on images of new prompts, with and without steering; empty when none were drawn."""
    trial = metrics.get("trial")
    if not isinstance(trial, Mapping):
        return []
    words = {"right": "right", "present": "all objects present", "once": "each object exactly once"}
    lines = []
    for key, label in words.items():
        its = trial[key]
        difference, low, high = its["difference"]
        shares = f"{its['unsteered']:.2f} | {its['steered']:.2f} | {difference:+.2f} [{low:+.2f}, {high:+.2f}]"
        lines.append(f"| {label} | {shares} |")
    return [
        "## Does steering help?",
        "",
        f"{trial['images']} prompts, one image each, with and without steering from the same noise,",
        f"scored by {trial['detector']}, the detector that labelled the training images.",
        f"{trial['new_prompts']} of the prompts are not among those of the training images,",
        f"{trial['new_pairs']} name two objects that none of these has both. Shares of images:",
        "",
        "| | unsteered | steered | difference, 95 % interval |",
        "|---|---|---|---|",
        *lines,
        "",
        f"Steering took {trial['passes']:.1f} iterations for each image.",
        "",
    ]


def _measured(metrics: Mapping[str, Any]) -> list[str]:
    """The section on held-out accuracy; empty when nothing was measured."""
    held_out = metrics.get("test") or metrics.get("val")
    if not isinstance(held_out, Mapping) or "accuracy" not in held_out:
        return []
    low, high = held_out["accuracy_interval"]
    probe = held_out["leakage"]["both"]
    above = above_chance(probe)
    leakage = "Leakage probe: not measured, since no held-out prompt names a wrong relation."
    if above is not None:
        # Wanted of classifiers that learned from images of the model's own, whose prompts it may have obeyed.
        own = "trial" in metrics or "warnings" in metrics
        excess = f"; {above:+.2f} above it, at most .10 is wanted" if own else ""
        leakage = (
            f"Leakage probe: accuracy {probe['true_prompts']:.2f} under true prompts, {probe['wrong_prompts']:.2f} "
            f"under prompts with a wrong relation, which is predicted for {probe['names_prompted_word']:.2f} of them "
            f"(by chance {probe['by_chance']:.2f}{excess})."
        )
    return [
        "## Measured",
        "",
        f"Accuracy on {held_out['pictures']} held-out images, all noise levels [95 % interval]: "
        f"{held_out['accuracy']:.2f} [{low:.2f}, {high:.2f}].",
        "",
        "| " + " | ".join(held_out["per_relation"]) + " |",
        "|" + "---|" * len(held_out["per_relation"]),
        "| " + " | ".join(f"{share:.2f}" for share in held_out["per_relation"].values()) + " |",
        "",
        leakage,
        "",
    ]


def _calibration(metrics: Mapping[str, Any]) -> list[str]:
    """The section on temperatures and calibration; empty when nothing was fitted."""
    measured = metrics.get("calibration")
    if not isinstance(measured, Mapping):
        return []
    lines = (
        f"| {float(level):.3g} | {its['temperature']:.2f} | {its['error']['before']:.3f} "
        f"| {its['error']['after']:.3f} |"
        for level, its in measured["per_level"].items()
    )
    if measured["split"] == "test":
        images = f"{measured['pictures']} test images, which had no part in the fit"
    else:
        images = f"the same {measured['pictures']} images; on others the error with temperatures may be larger"
    return [
        "## Calibration",
        "",
        "Before a probability is computed, the logits are divided by the temperature of the noise level. The",
        "temperatures were fitted on the validation images. Expected calibration error (the mean difference between",
        f"confidence and the share of right predictions), without and with them, on {images}:",
        "",
        "| noise level | temperature | error without | error with |",
        "|---|---|---|---|",
        *lines,
        "",
    ]


def _depths(metrics: Mapping[str, Any]) -> list[str]:
    """The section on the choice of the depth; empty when none was chosen."""
    table = metrics.get("depths")
    if not isinstance(table, Mapping):
        return []
    tried, compared = table["tried"], table.get("steered")
    chosen, full = table["chosen"], tried[-1]["depth"]
    by_accuracy = compared[0]["depth"] if compared else chosen
    read = f"all {full} layers" if chosen == full else f"the first {chosen} of {full} layers; an iteration ends there"
    lines = [
        "## Depth",
        "",
        f"It reads {read}. For each depth below, a classifier was trained with the same settings. Accuracy on",
        f"{table['pictures']} validation images, at the {len(table['levels'])} noise levels that are steered:",
        "",
        "| layers read | accuracy |",
        "|---|---|",
        *(f"| {each['depth']} | {each['accuracy']:.3f} |" for each in tried),
        "",
        "The smallest depth is chosen whose accuracy is at most one standard error of the best accuracy "
        f"({table['standard_error']:.3f}) below it: {by_accuracy}.",
        "",
    ]
    if compared:
        lines += [
            f"The choice was checked by steering {compared[0]['images']} validation prompts, one image each, with it",
            "and with the classifier of all layers. It is worse if the whole 95 % interval of the difference is below",
            "0; then the next larger depth is taken. Share of images that are right:",
            "",
            "| layers read | right | right with all layers | difference, 95 % interval | worse |",
            "|---|---|---|---|---|",
        ]
        for each in compared:
            low, high = each["difference_interval"]
            shares = f"{each['accuracy']:.2f} | {each['full_accuracy']:.2f} | [{low:.2f}, {high:.2f}]"
            lines.append(f"| {each['depth']} | {shares} | {'yes' if each['worse'] else 'no'} |")
        lines.append("")
    return lines
