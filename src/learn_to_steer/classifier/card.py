"""The model card beside a classifier: what it reads and tells apart, on which data, how well, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from learn_to_steer.classifier.network import ClassifierConfig
from learn_to_steer.maps import Layout

PAPER = "https://arxiv.org/abs/2509.02295"


def card(config: ClassifierConfig, metrics: Mapping[str, Any], data: Mapping[str, Any], parameters: int) -> str:
    """README.md of a classifier. ``metrics`` as ``train`` writes them; ``data`` says what it was trained on.

    Of ``data`` are used: ``model``, ``source``, ``note`` (licence of the pictures), ``inversion`` and ``pictures``.
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
            "Reads from a text-to-image model's own attention maps how two objects lie to each other; its gradient",
            f"moves the latents until they lie as the prompt says ([paper]({PAPER})). It fits one model and no other.",
            "",
            "| | |",
            "|---|---|",
            listed,
            "",
            *_measured(metrics),
            "## Use",
            "",
            "```python",
            "from learn_to_steer import Steerer",
            "",
            'steered = Steerer.from_pretrained("THIS FOLDER OR HUB ID").on(pipe)',
            'out = steered("a dog to the right of a teddy bear")',
            "```",
            "",
            "These weights have the licence that their publisher names here; pictures and base model have their own.",
            "",
        ]
    )


def _measured(metrics: Mapping[str, Any]) -> list[str]:
    """The section on held-out accuracy; nothing when nothing was measured."""
    found = metrics.get("test") or metrics.get("val")
    if not isinstance(found, Mapping) or "accuracy" not in found:
        return []
    low, high = found["accuracy_interval"]
    probe = found["leakage"]["both"]
    return [
        "## Measured",
        "",
        f"On {found['pictures']} held-out pictures, all noise levels, right [95 %]: "
        f"{found['accuracy']:.2f} [{low:.2f}, {high:.2f}].",
        "",
        "| " + " | ".join(found["per_relation"]) + " |",
        "|" + "---|" * len(found["per_relation"]),
        "| " + " | ".join(f"{share:.2f}" for share in found["per_relation"].values()) + " |",
        "",
        f"Leakage probe: right on {probe['true_prompts']:.2f} under true prompts and {probe['wrong_prompts']:.2f} "
        f"under prompts with a wrong word, which it names in {probe['names_prompted_word']:.2f} "
        f"(by chance {probe['by_chance']:.2f}).",
        "",
    ]
