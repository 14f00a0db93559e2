"""Writes tiny pipelines as single files in the authors' layout: the inverse of what diffusers converts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

State = dict[str, Tensor]

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPEN_CLIP = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
_FIRST = "transformer_blocks"


def write(pipe: Any, path: Path, family: str, *, encoders: bool = True, vae: bool = True, **extra: Tensor) -> Path:
    """Write the weights of a pipeline to one file.

    Args:
        pipe: A tiny pipeline.
        path: The file.
        family: "sd", "sd2", "sdxl", "sd3" or "flux".
        encoders: Whether to write the text encoders.
        vae: Whether to write the VAE.
        **extra: Further tensors.
    """
    convert = {"sd3": sd3, "flux": flux}.get(family)
    state = prefixed("model.diffusion_model.", convert(pipe.transformer) if convert else unet(pipe.unet))
    if vae:
        state |= prefixed("vae." if convert else "first_stage_model.", autoencoder(pipe.vae))
    if encoders:
        state |= text(pipe, family)
    save_file({name: tensor.contiguous().clone() for name, tensor in {**state, **extra}.items()}, path)
    return path


def prefixed(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def text(pipe: Any, family: str) -> State:
    if family == "sd2":
        return open_clip(pipe.text_encoder, "cond_stage_model.model.")
    if family == "sd":
        return prefixed("cond_stage_model.transformer.", clip(pipe.text_encoder))
    if family == "sdxl":
        second = open_clip(pipe.text_encoder_2, "conditioner.embedders.1.model.")
        return prefixed("conditioner.embedders.0.transformer.", clip(pipe.text_encoder)) | second
    large = pipe.text_encoder_3 if family == "sd3" else pipe.text_encoder_2
    state = prefixed("text_encoders.clip_l.transformer.", clip(pipe.text_encoder))
    if family == "sd3":
        state |= prefixed("text_encoders.clip_g.transformer.", clip(pipe.text_encoder_2))
    t5 = {name: tensor for name, tensor in large.state_dict().items() if name != "encoder.embed_tokens.weight"}
    return state | prefixed("text_encoders.t5xxl.transformer.", t5)


def unet(model: Any) -> State:
    layers = model.config.layers_per_block
    state = {}
    for name, tensor in model.state_dict().items():
        stem, kind = name.rsplit(".", 1)
        if stem in _UNET:
            state[f"{_UNET[stem]}.{kind}"] = tensor
            continue
        block, level, part, index, rest = re.fullmatch(
            r"(down_blocks|mid_block|up_blocks)\.?(\d*)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)",
            name,
        ).groups()
        if part == "resnets":
            head = rest.rsplit(".", 1)[0]
            rest = f"{_RESNET[head]}.{kind}"
        number = int(index)
        if block == "mid_block":
            place = f"middle_block.{1 if part == 'attentions' else 2 * number}"
        elif block == "down_blocks":
            first = 1 + (layers + 1) * int(level)
            place = f"input_blocks.{first + number}.{0 if part == 'resnets' else 1}"
            if part == "downsamplers":
                place, rest = f"input_blocks.{first + layers}.0", f"op.{kind}"
        else:
            first = (layers + 1) * int(level)
            place = f"output_blocks.{first + number}.{0 if part == 'resnets' else 1}"
            if part == "upsamplers":
                after = 2 if hasattr(model.up_blocks[int(level)], "attentions") else 1
                place = f"output_blocks.{first + layers}.{after}"
        state[f"{place}.{rest}"] = tensor
    return state


def autoencoder(model: Any) -> State:
    last = len(model.config.block_out_channels) - 1
    state = {}
    for name, tensor in model.state_dict().items():
        name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        if "mid_block.attentions.0" in name:
            name = name.replace("mid_block.attentions.0", "mid.attn_1")
            for ours, theirs in _VAE_ATTENTION.items():
                name = name.replace(f".{ours}.", f".{theirs}.")
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
        name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{last - int(m[1])}.block", name)
        name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", name)
        state[name] = tensor
    return state


def clip(model: Any) -> State:
    state = {}
    for name, tensor in model.state_dict().items():
        if name != "text_projection.weight":
            state[name if name.startswith("text_model.") else f"text_model.{name}"] = tensor
    projection = getattr(model, "text_projection", None)
    return state if projection is None else state | {"text_projection.weight": projection.weight}


def open_clip(model: Any, prefix: str) -> State:
    own = {name.removeprefix("text_model."): tensor for name, tensor in model.state_dict().items()}
    state = {
        "positional_embedding": own["embeddings.position_embedding.weight"],
        "token_embedding.weight": own["embeddings.token_embedding.weight"],
        "ln_final.weight": own["final_layer_norm.weight"],
        "ln_final.bias": own["final_layer_norm.bias"],
    }
    if "text_projection.weight" in own:
        state["text_projection"] = own["text_projection.weight"].T
    for index in range(model.config.num_hidden_layers):
        layer, theirs = f"encoder.layers.{index}.", f"transformer.resblocks.{index}."
        for kind in ("weight", "bias"):
            three = [own[f"{layer}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            state[f"{theirs}attn.in_proj_{kind}"] = torch.cat(three)
            state[f"{theirs}attn.out_proj.{kind}"] = own[f"{layer}self_attn.out_proj.{kind}"]
            for ours, name in _OPEN_CLIP.items():
                state[f"{theirs}{name}.{kind}"] = own[f"{layer}{ours}.{kind}"]
    return prefixed(prefix, state)


def swapped(tensor: Tensor) -> Tensor:
    """The authors' last modulation is (shift, scale), that of diffusers (scale, shift)."""
    scale, shift = tensor.chunk(2)
    return torch.cat([shift, scale])


def sd3(model: Any) -> State:
    own = model.state_dict()
    names = {
        "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
        "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
        "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
        "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
        "pos_embed.proj": "x_embedder.proj",
        "context_embedder": "context_embedder",
        "proj_out": "final_layer.linear",
    }
    block_names = {
        "attn.to_out.0": "x_block.attn.proj",
        "attn.to_add_out": "context_block.attn.proj",
        "attn2.to_out.0": "x_block.attn2.proj",
        "norm1.linear": "x_block.adaLN_modulation.1",
        "norm1_context.linear": "context_block.adaLN_modulation.1",
        "ff.net.0.proj": "x_block.mlp.fc1",
        "ff.net.2": "x_block.mlp.fc2",
        "ff_context.net.0.proj": "context_block.mlp.fc1",
        "ff_context.net.2": "context_block.mlp.fc2",
        "attn.norm_q": "x_block.attn.ln_q",
        "attn.norm_k": "x_block.attn.ln_k",
        "attn.norm_added_q": "context_block.attn.ln_q",
        "attn.norm_added_k": "context_block.attn.ln_k",
        "attn2.norm_q": "x_block.attn2.ln_q",
        "attn2.norm_k": "x_block.attn2.ln_k",
    }
    merged = {"attn.to_": "x_block.attn", "attn2.to_": "x_block.attn2", "attn.add_": "context_block.attn"}
    last = model.config.num_layers - 1
    state = {"pos_embed": own["pos_embed.pos_embed"]}
    state |= renamed(own, "", names) | merged_blocks(own, _FIRST, "joint_blocks", block_names, merged)
    for kind in ("weight", "bias"):
        name = f"joint_blocks.{last}.context_block.adaLN_modulation.1.{kind}"
        state[name] = swapped(state[name])
        state[f"final_layer.adaLN_modulation.1.{kind}"] = swapped(own[f"norm_out.linear.{kind}"])
    return state


def flux(model: Any) -> State:
    own = model.state_dict()
    embedders = {"timestep": "time_in", "text": "vector_in", "guidance": "guidance_in"}
    names = {
        f"time_text_embed.{ours}_embedder.linear_{number}": f"{theirs}.{part}"
        for ours, theirs in embedders.items()
        for number, part in ((1, "in_layer"), (2, "out_layer"))
    }
    names |= {"context_embedder": "txt_in", "x_embedder": "img_in", "proj_out": "final_layer.linear"}
    block_names = {
        "norm1.linear": "img_mod.lin",
        "norm1_context.linear": "txt_mod.lin",
        "ff.net.0.proj": "img_mlp.0",
        "ff.net.2": "img_mlp.2",
        "ff_context.net.0.proj": "txt_mlp.0",
        "ff_context.net.2": "txt_mlp.2",
        "attn.to_out.0": "img_attn.proj",
        "attn.to_add_out": "txt_attn.proj",
    }
    merged = {"attn.to_": "img_attn", "attn.add_": "txt_attn"}
    state = renamed(own, "", names) | merged_blocks(own, _FIRST, "double_blocks", block_names, merged)
    for index in range(model.config.num_layers):
        for ours, side in (("norm_", "img"), ("norm_added_", "txt")):
            for short, long in (("q", "query"), ("k", "key")):
                state[f"double_blocks.{index}.{side}_attn.norm.{long}_norm.scale"] = own[
                    f"{_FIRST}.{index}.attn.{ours}{short}.weight"
                ]
    for index in range(model.config.num_single_layers):
        ours, theirs = f"single_{_FIRST}.{index}.", f"single_blocks.{index}."
        state |= renamed(own, ours, {"norm.linear": "modulation.lin", "proj_out": "linear2"}, theirs)
        for short, long in (("q", "query"), ("k", "key")):
            state[f"{theirs}norm.{long}_norm.scale"] = own[f"{ours}attn.norm_{short}.weight"]
        for kind in ("weight", "bias"):
            parts = [own[f"{ours}attn.to_{part}.{kind}"] for part in "qkv"] + [own[f"{ours}proj_mlp.{kind}"]]
            state[f"{theirs}linear1.{kind}"] = torch.cat(parts)
    for kind in ("weight", "bias"):
        state[f"final_layer.adaLN_modulation.1.{kind}"] = swapped(own[f"norm_out.linear.{kind}"])
    return state


def renamed(own: Mapping[str, Tensor], prefix: str, names: Mapping[str, str], new_prefix: str = "") -> State:
    return {
        f"{new_prefix}{theirs}.{kind}": own[f"{prefix}{ours}.{kind}"]
        for ours, theirs in names.items()
        for kind in ("weight", "bias")
        if f"{prefix}{ours}.{kind}" in own
    }


def merged_blocks(
    own: Mapping[str, Tensor], stack: str, name: str, names: Mapping[str, str], merged: Mapping[str, str]
) -> State:
    """The blocks of a stack under their authors' names, with queries, keys and values in one tensor."""
    state: State = {}
    for index in range(1 + max(int(key.split(".")[1]) for key in own if key.startswith(f"{stack}."))):
        ours, theirs = f"{stack}.{index}.", f"{name}.{index}."
        state |= renamed(own, ours, names, theirs)
        for start, place in merged.items():
            end = "_proj" if start.endswith("add_") else ""
            for kind in ("weight", "bias"):
                keys = [f"{ours}{start}{part}{end}.{kind}" for part in "qkv"]
                if keys[0] in own:
                    state[f"{theirs}{place}.qkv.{kind}"] = torch.cat([own[key] for key in keys])
    return state
