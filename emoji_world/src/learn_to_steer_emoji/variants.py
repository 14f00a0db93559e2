"""The packaged models, and how each is sampled and steered."""

from __future__ import annotations

from typing import Any

from learn_to_steer.families import Variant
from learn_to_steer.families.defaults import FEW_STEP_LEVELS, FIRST_STEP
from learn_to_steer_emoji.vocabulary import untaught_words

_DATA = "package:learn_to_steer_emoji/data"
_SD, _FLUX = f"{_DATA}/sd-emoji", f"{_DATA}/flux-emoji"
_COMMON: dict[str, Any] = {
    "resolution": 128,
    "step_size": 5.0,
    "detector": "emoji",
    "untaught_words": untaught_words,
}
_FLUX_COMMON: dict[str, Any] = {
    **_COMMON,
    "image_source": "emoji-tidy",
    "arguments": {"max_sequence_length": 48},
}

VARIANTS = (
    Variant(
        "sd:emoji",
        "sd",
        _SD,
        steps=25,
        guidance=4.0,
        classifier=f"{_DATA}/sd-emoji-classifier",
        image_source="emoji",
        # On validation prompts a higher threshold corrects no more positions and duplicates some objects.
        tuned_settings={"threshold": 0.8},
        **_COMMON,
    ),
    Variant(
        "flux:emoji",
        "flux",
        _FLUX,
        steps=25,
        guidance=6.0,
        classifier=f"{_DATA}/flux-emoji-classifier",
        shared_components={"vae": _SD, "tokenizer": _SD},
        **_FLUX_COMMON,
    ),
    Variant(
        "flux:emoji-schnell",
        "flux",
        f"{_DATA}/flux-emoji-schnell",
        steps=4,
        guidance=0.0,
        classifier=f"{_DATA}/flux-emoji-schnell-classifier",
        levels=FEW_STEP_LEVELS,
        # Only one step is steered. On validation prompts six larger moves are as good there as ten of the usual size.
        tuned_settings={"iterations": 6, "step_size": 0.03},
        steering=FIRST_STEP,
        shared_components={
            "vae": _SD,
            "tokenizer": _SD,
            **dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer_2"), _FLUX),
        },
        **_FLUX_COMMON,
    ),
)
