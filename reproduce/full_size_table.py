"""Every variant at its full size, without weights: layers, maps, memory and operations of a pass that ends early.

    python reproduce/full_size_table.py                      # all variants: some ten minutes on one core
    python reproduce/full_size_table.py --model sdxl:base    # one of them; the others' rows stay

The denoiser is built from its real config on torch's meta device, in the dtype in which it is held on a GPU, and fed
one image of the variant's resolution, and as long a text as its pipeline encodes by default. Nothing is downloaded.
Counted are, for a classifier of random weights that reads the first third of the layers, the bytes that a pass keeps
for its backward, without and with gradient checkpointing, and the FLOPs of matrix products, convolutions and attention,
by torch's ``FlopCounterMode``: of an image with eight passes against an unsteered one. Text encoders and the VAE are in
none of the numbers. Results go to docs/results/full_size_table.json, and as a table to docs/full_size.md.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench_full_size import count_call
from learn_to_steer import registry, storage
from learn_to_steer.families import Call, Variant, variants
from learn_to_steer.loading import skeleton

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "full_size_table.json"
PAGE = ROOT / "docs" / "full_size.md"
PASSES = 8
CARD = 22 * 2**30
"""Bytes of a 24 GB card that are left beside the driver, the kernels' buffers and the image."""

Make = Callable[[Any, int, Callable[..., torch.Tensor]], Call]


def sd(config: Any, side: int, new: Callable[..., torch.Tensor]) -> Call:
    text = {"encoder_hidden_states": new(1, 77, config.cross_attention_dim)}
    return Call(new(1, 4, side // 8, side // 8), new(()), text)


def sdxl(config: Any, side: int, new: Callable[..., torch.Tensor]) -> Call:
    call = sd(config, side, new)
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    more = {"added_cond_kwargs": {"text_embeds": new(1, pooled), "time_ids": new(1, 6)}}
    return Call(call.latents, call.time, {**call.rest, **more})


def sd3(config: Any, side: int, new: Callable[..., torch.Tensor]) -> Call:
    text = new(1, 77 + 256, config.joint_attention_dim)
    rest = {"encoder_hidden_states": text, "pooled_projections": new(1, config.pooled_projection_dim)}
    return Call(new(1, config.in_channels, side // 8, side // 8), new(1), rest)


def flux(config: Any, side: int, new: Callable[..., torch.Tensor]) -> Call:
    places, axes = (side // 16) ** 2, len(config.axes_dims_rope)
    rest = {"encoder_hidden_states": new(1, 512, config.joint_attention_dim)}
    if hasattr(config, "pooled_projection_dim"):
        rest["pooled_projections"] = new(1, config.pooled_projection_dim)
    if getattr(config, "guidance_embeds", False):
        rest["guidance"] = new(1)
    shared = {"img_ids": new(places, axes), "txt_ids": new(512, axes)}
    return Call(new(1, places, config.in_channels), new(1), rest, shared)


def chroma(config: Any, side: int, new: Callable[..., torch.Tensor]) -> Call:
    places = (side // 16) ** 2
    rest = {
        "encoder_hidden_states": new(1, 512, config.joint_attention_dim),
        "attention_mask": torch.ones(1, 512 + places, dtype=torch.bool),
    }
    shared = {"img_ids": new(places, 3), "txt_ids": new(512, 3)}
    return Call(new(1, places, config.in_channels), new(1), rest, shared)


def qwen_image(config: Any, side: int, new: Callable[..., torch.Tensor]) -> Call:
    places = side // 16
    rest = {"encoder_hidden_states": new(1, 512, config.joint_attention_dim), "encoder_hidden_states_mask": None}
    return Call(new(1, places**2, config.in_channels), new(1), rest, {"img_shapes": [[(1, places, places)]]})


def z_image(config: Any, side: int, new: Callable[..., torch.Tensor]) -> Call:
    return Call(
        new(1, config.in_channels, side // 8, side // 8),
        new(1),
        {},
        {},
        {"cap_feats": (new(512, config.cap_feat_dim),)},
    )


def of_captions(width: str, tokens: int, reduced: int = 8) -> Make:
    """Latents and one text with a mask, of transformers whose config names the width of the text ``width``."""

    def make(config: Any, side: int, new: Callable[..., torch.Tensor]) -> Call:
        rest: dict[str, Any] = {
            "encoder_hidden_states": new(1, tokens, getattr(config, width)),
            "encoder_attention_mask": torch.ones(1, tokens, dtype=torch.bool),
        }
        return Call(new(1, config.in_channels, side // reduced, side // reduced), new(1), rest)

    return make


def pixart(config: Any, side: int, new: Callable[..., torch.Tensor]) -> Call:
    call = of_captions("caption_channels", 300)(config, side, new)
    return Call(call.latents, call.time, {**call.rest, "added_cond_kwargs": {"resolution": None, "aspect_ratio": None}})


def auraflow(config: Any, side: int, new: Callable[..., torch.Tensor]) -> Call:
    rest = {"encoder_hidden_states": new(1, 256, config.joint_attention_dim)}
    return Call(new(1, config.in_channels, side // 8, side // 8), new(1), rest)


def cogview4(config: Any, side: int, new: Callable[..., torch.Tensor]) -> Call:
    rest = {"encoder_hidden_states": new(1, 1024, config.text_embed_dim)}
    rest |= {name: new(1, 2) for name in ("original_size", "target_size", "crop_coords")}
    return Call(new(1, config.in_channels, side // 8, side // 8), new(1), rest)


CALLS: dict[str, Make] = {
    "sd": sd,
    "sdxl": sdxl,
    "sd3": sd3,
    "flux": flux,
    "flux2": flux,
    "qwen-image": qwen_image,
    "z-image": z_image,
    "chroma": chroma,
    "pixart": pixart,
    "sana": of_captions("caption_channels", 300, 32),
    "auraflow": auraflow,
    "lumina2": of_captions("cap_feat_dim", 256),
    "cogview4": cogview4,
}


def real_variants() -> dict[str, Variant]:
    """Return the variants whose weights are on the hub, by name."""
    return {name: one for name, one in variants().items() if not one.source.startswith("package:")}


def row(variant: Variant) -> dict[str, Any]:
    """Count one variant."""
    family: Any
    denoiser: Any
    family, denoiser = skeleton(variant.name)
    dtype = getattr(torch, variant.dtype)
    torch.nn.Module.to(denoiser.requires_grad_(False), dtype=dtype)
    call = CALLS[family.name](denoiser.config, variant.resolution, lambda *shape: torch.zeros(*shape, dtype=dtype))
    layout = family.layout(denoiser)
    depth = max(len(layout.layers) // 3, 1)
    rows = 2 if variant.guidance > 1 and not getattr(denoiser.config, "guidance_embeds", False) else 1
    counted = count_call(family, denoiser, call, depth, variant.steps, rows, PASSES)
    return {
        "source": variant.source,
        "unconfirmed": list(variant.unconfirmed),
        "resolution": variant.resolution,
        "steps": variant.steps,
        "guided": rows == 2,
        "dtype": variant.dtype,
        "parameters": sum(one.numel() for one in denoiser.parameters()),
        "layers": counted["layers"],
        "maps": layout.channels,
        **{key: counted[key] for key in ("depth", "kept", "checkpointed", "forward_flops", "pass_flops", "ratio")},
    }


def fits(counted: dict[str, Any]) -> str:
    """Say whether the denoiser and a pass fit a card of 24 GB, and how."""
    for byte, kept, how in (
        (2, "kept", "yes"),
        (2, "checkpointed", "with checkpointing"),
        (1, "kept", "with 8-bit"),
        (1, "checkpointed", "with 8-bit and checkpointing"),
    ):
        if counted["parameters"] * byte + counted[kept] <= CARD:
            return how
    return "no: offload it"


def page(rows: dict[str, dict[str, Any]]) -> str:
    """Return the page of the docs."""
    lines = [
        "# Memory and operations at full size",
        "",
        "Made by `reproduce/full_size_table.py` from the configs, without weights: the denoiser is built on torch's",
        "meta device and fed one image at the variant's resolution. *Maps* are the channels that a classifier of all",
        "layers would read. A pass reads the first third of the layers; *kept* is what it keeps for its backward, in",
        "GiB, without and with gradient checkpointing. *Operations* are those of an image with eight passes against an",
        "unsteered one, all steps of both.",
        "",
        "| model | weights on the hub | pixels | parameters | layers | maps | read | kept | operations | fits 24 GB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in rows.items():
        doubt = f" ({', '.join(one['unconfirmed'])} unconfirmed)" if one["unconfirmed"] else ""
        lines.append(
            f"| `{name}` | `{one['source']}`{doubt} | {one['resolution']} | {one['parameters'] / 1e9:.1f} billion "
            f"| {one['layers']} | {one['maps']} | {one['depth']} | {one['kept'] / 2**30:.1f}, "
            f"{one['checkpointed'] / 2**30:.1f} | {one['ratio']:.2f} | {fits(one)} |"
        )
    lines += [
        "",
        "*Fits 24 GB*: the weights of the denoiser, two bytes each or one with 8-bit (which in fact takes more, since",
        "only linear layers are quantised), and what a pass keeps, are at",
        f"most {CARD >> 30} GiB. Text encoders and the VAE are not counted: `--offload model` keeps them off the card",
        "meanwhile. The kernels' buffers are not counted either, and nothing here was run on a GPU. Models of few",
        "steps have few forwards to compare the passes with. Facts that no public card confirms are marked.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="a variant; may be repeated; all by default")
    options = parser.parse_args()
    registry.load_all("families")
    stored = storage.read_json(RESULTS) if RESULTS.exists() else {}
    every = real_variants()
    for name in options.model or every:
        stored[name] = row(every[name])
        gc.collect()
        print(f"{name}: {stored[name]['layers']} layers, {stored[name]['ratio']:.2f}, {fits(stored[name])}", flush=True)
        stored = {one: stored[one] for one in every if one in stored}
        storage.write_json(RESULTS, stored)
    PAGE.write_text(page(stored), encoding="utf-8")


if __name__ == "__main__":
    main()
