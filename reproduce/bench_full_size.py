"""Seconds and memory of one steering pass through the real architectures, with random weights; nothing is downloaded.

    python reproduce/bench_full_size.py                           # all models: about 20 minutes on two cores
    python reproduce/bench_full_size.py --model sd:1.4 --side 512     # one model: five minutes
    python reproduce/bench_full_size.py --model flux:dev --whole      # all blocks of FLUX, for a GPU
    python reproduce/bench_full_size.py --model flux:dev --side 1024 --count   # count without running: one minute

Compared are this package's attention capture, the same with gradient checkpointing, explicit attention that keeps every
map, and a forward pass alone. Each runs in a process of its own, so that peaks of memory do not mix; memory is counted
above the weights. FLUX has its full width, but only 2+2 blocks without ``--whole``. *image* estimates a steered image:
the forwards of all steps and as many passes as steering makes at most, without text encoders and VAE. Results go to
docs/results/full_size.json, by model, size and device. Weights are in bf16 on a GPU, else in fp32.

With ``--count`` nothing is timed and no weights are made: the whole model is on torch's meta device, in the dtype in
which it is held on a GPU. Counted are the bytes that one pass keeps for its backward, and the FLOPs of an image:
``--passes`` passes (8 by default) and the maps of the forwards that are looked at, against the plain forwards. A pass
runs to the last layer that is read: of all layers, and of the first third in running order (``--depth`` sets another
number). FLOPs are those of matrix products, convolutions and attention, by torch's ``FlopCounterMode``, with those of a
random classifier of these layers; text encoders and the VAE are not in them.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from learn_to_steer import storage
from learn_to_steer.attention import AttentionCapture, run_until_captured
from learn_to_steer.classifier import ClassifierConfig, RelationClassifier
from learn_to_steer.families import Call, resolve
from learn_to_steer.geometry import NEUTRAL
from learn_to_steer.loading import skeleton
from learn_to_steer.losses.base import ObjectPair, StepInfo
from learn_to_steer.losses.learned import Learned
from learn_to_steer.maps import columns_to_weights
from learn_to_steer.steering import SteeringConfig
from learn_to_steer.steering.memory import count_kept

ROOT = Path(__file__).resolve().parents[1]
WAYS = ("explicit", "tap", "tap, checkpointed", "forward alone")
MODELS = {"sd:1.4": 512, "sd:2.1": 512, "flux:dev": 512, "flux:schnell": 256}
CUDA = torch.cuda.is_available()


class KeepEverything(TorchFunctionMode):
    """Computes attention explicitly and keeps the probabilities of the text tokens, as an attention processor would."""

    def __init__(self, tokens: int, joint: bool) -> None:
        super().__init__()
        self.tokens, self.joint = tokens, joint
        self.kept: list[torch.Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, key, value = args[:3] if len(args) >= 3 else [kwargs[name] for name in ("query", "key", "value")]
        share = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(dim=-1)
        if self.joint:
            text = query[..., self.tokens :, :] @ key[..., : self.tokens, :].transpose(-2, -1)
            self.kept.append((text * query.shape[-1] ** -0.5).softmax(dim=-1))
        elif key.shape[-2] == self.tokens:
            self.kept.append(share)
        return share @ value


def build(model: str, whole: bool) -> tuple[Any, Any]:
    """Build a denoiser with random weights; return its family and it."""
    family: Any
    empty: Any
    family, empty = skeleton(model)
    # diffusers drops what it lists as defaults, changed or not.
    config = {key: value for key, value in empty.config.items() if key != "_use_default_values"}
    if model.startswith("flux") and not whole:
        config |= {"num_layers": 2, "num_single_layers": 2}
    torch.manual_seed(0)
    dtype = torch.bfloat16 if CUDA else torch.float32
    torch.set_default_dtype(dtype)  # built in bf16 at once: in fp32 it might not fit into a GPU's memory
    with torch.device("cuda" if CUDA else "cpu"):
        denoiser = getattr(diffusers, family.network).from_config(config)
    torch.set_default_dtype(torch.float32)
    return family, denoiser.requires_grad_(False)


def call_of(denoiser: torch.nn.Module, side: int, like: torch.Tensor) -> Call:
    """Make the denoiser's inputs for one image of ``side`` pixels, with random text embeddings, typed as ``like``."""
    config: Any = denoiser.config

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape))).to(like)

    if hasattr(config, "cross_attention_dim"):
        text = {"encoder_hidden_states": drawn(1, 77, config.cross_attention_dim)}
        return Call(drawn(1, 4, side // 8, side // 8), torch.tensor(900.0, device=like.device), text)
    places = side // 16
    ids = torch.zeros(places, places, 3)
    ids[..., 1], ids[..., 2] = torch.arange(places)[:, None], torch.arange(places)[None]
    rest = {
        "encoder_hidden_states": drawn(1, 512, config.joint_attention_dim),
        "pooled_projections": drawn(1, config.pooled_projection_dim),
        "guidance": torch.full((1,), 3.5).to(like) if config.guidance_embeds else None,
    }
    shared = {"img_ids": ids.reshape(-1, 3).to(like), "txt_ids": torch.zeros(512, 3).to(like)}
    return Call(drawn(1, places**2, config.in_channels), torch.tensor([0.9]).to(like), rest, shared)


def held() -> int:
    """Return the bytes in use before a pass; on a GPU, also start to record the peak."""
    if not CUDA:
        return peak()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def peak() -> int:
    """Return the largest number of bytes in use so far."""
    return torch.cuda.max_memory_allocated() if CUDA else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def one(model: str, way: str, side: int, passes: int, whole: bool) -> dict[str, float]:
    """Measure one way in this process: the fastest pass, and the bytes of all."""
    family, denoiser = build(model, whole)
    call = call_of(denoiser, side, next(denoiser.parameters()))
    if way == WAYS[2]:
        denoiser.enable_gradient_checkpointing()
    tokens = family.text_length(call)
    before, seconds, gradient = held(), [], torch.zeros(())
    for _ in range(passes):
        began = time.monotonic()
        leaf = call.latents.detach().clone().requires_grad_()
        arguments = family.write(Call(leaf, call.time, call.rest, call.shared)) | {"return_dict": False}
        if way == WAYS[3]:
            with torch.no_grad():
                denoiser(**arguments)
        elif way == WAYS[0]:
            with KeepEverything(tokens, family.name == "flux") as mode:
                denoiser(**arguments)
            loss: Any = sum(share[..., [1, 2]].float().square().sum() for share in mode.kept)
            (gradient,) = torch.autograd.grad(loss, leaf)
        else:
            capture = AttentionCapture(family.attention_layers(denoiser), family.attention(denoiser))
            weights = columns_to_weights([((1,), (2,))], tokens)
            with capture.capture(weights, *family.latent_size(denoiser, call)) as maps:
                denoiser(**arguments)
                loss = sum(layer.float().square().sum() for layer in maps().layers)
                (gradient,) = torch.autograd.grad(loss, leaf)
        if CUDA:
            torch.cuda.synchronize()
        seconds.append(time.monotonic() - began)
    return {"seconds": min(seconds), "bytes": peak() - before, "gradient": float(gradient.float().norm())}


class FusedKernels(TorchFunctionMode):
    """On the meta device, attention by the kernels that a GPU would use, whose FLOPs torch can count."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        given = dict(zip(("query", "key", "value"), args, strict=False)) | dict(kwargs or {})
        query, key, value = given["query"], given["key"], given["value"]
        if query.dtype == torch.float32:
            return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, True)[0]
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]


def flops(work: Callable[[], object]) -> int:
    """Count the FLOPs of ``work`` on the meta device."""
    with FlopCounterMode(display=False) as counter, FusedKernels():
        work()
    return int(counter.get_total_flops())


def loss_on(family: Any, denoiser: torch.nn.Module, depth: int) -> Learned:
    """Make the learned loss of a random classifier of the first ``depth`` layers, on the meta device."""
    layout = family.layout(denoiser)
    layout, _ = layout.some(family.running_order(layout.layers)[:depth])
    classes = ("above", "below", "left of", "right of", NEUTRAL)
    config = ClassifierConfig(classes, layout.channels, 8, (1.0,) * 8, layout=layout.as_dict())
    with torch.device("meta"):
        return Learned(RelationClassifier(config).requires_grad_(False))


def count(model: str, side: int, depth: int, passes: int) -> dict[str, Any]:
    """Count the bytes that a pass keeps, and the FLOPs of an image of the default number of steps."""
    family: Any
    denoiser: Any
    family, denoiser = skeleton(model)
    variant = resolve(model)
    dtype = getattr(torch, variant.dtype)
    torch.nn.Module.to(denoiser.requires_grad_(False), dtype=dtype)
    call = call_of(denoiser, side, torch.empty(0, dtype=dtype))
    rows = 2 if model.startswith("sd") else 1  # guidance
    return {"dtype": variant.dtype} | count_call(family, denoiser, call, depth, variant.steps, rows, passes)


def count_call(
    family: Any, denoiser: Any, call: Call, depth: int, steps: int, rows: int, passes: int
) -> dict[str, Any]:
    """Count one call on the meta device, for an image of ``steps`` steps with ``rows`` rows each."""
    loss, (height, width) = loss_on(family, denoiser, depth), family.latent_size(denoiser, call)
    spans = family.spans(denoiser, call)
    weights = columns_to_weights([((1,), (2,))], family.text_length(call), spans).to("meta")
    written = family.write(call)
    arguments = {key: value if key in family.masks else on_meta(value) for key, value in written.items()}
    arguments["return_dict"] = False
    fed = next(name for name in ("sample", "hidden_states", "x") if name in arguments)
    capture = AttentionCapture(family.attention_layers(denoiser), family.attention(denoiser), loss.spec)
    pair = [[ObjectPair(0, "left of", 1)]]

    def one_pass(with_gradient: bool) -> None:
        parts = arguments[fed]
        leaves = [one.clone().requires_grad_(with_gradient) for one in (parts if isinstance(parts, list) else [parts])]
        # The counter cannot have a leaf as a module's input.
        given = [one.clone() for one in leaves] if isinstance(parts, list) else leaves[0].clone()
        with (
            torch.enable_grad() if with_gradient else nullcontext(),
            capture.capture(weights, height, width, spans=spans) as maps,
        ):
            run = run_until_captured if with_gradient else lambda module, given: module(**given)
            run(denoiser, arguments | {fed: given})
            output = loss(maps(), pair, StepInfo(1.0, 0))
            if with_gradient:
                torch.autograd.grad(output.loss.sum(), leaves)

    with torch.no_grad():
        forward = flops(lambda: denoiser(**arguments))
        look = flops(lambda: one_pass(with_gradient=False)) - forward
    of_pass = flops(lambda: one_pass(with_gradient=True))
    looks = round(SteeringConfig().window * steps)
    plain = steps * forward * rows
    kept, checkpointed = count_kept(denoiser, family, call, loss.spec)
    return {
        "depth": depth,
        "layers": len(family.attention_layers(denoiser)),
        "kept": kept,
        "checkpointed": checkpointed,
        "forward_flops": forward,
        "pass_flops": of_pass,
        "look_flops": look,
        "steps": steps,
        "passes": passes,
        "looks": looks,
        "ratio": (plain + passes * of_pass + looks * look) / plain,
    }


def on_meta(value: Any) -> Any:
    """``value`` with tensors that have a shape and no data."""
    if isinstance(value, torch.Tensor):
        return value.to("meta")
    if isinstance(value, (list, tuple)):
        return type(value)(on_meta(one) for one in value)
    return {key: on_meta(one) for key, one in value.items()} if isinstance(value, dict) else value


def count_all(models: list[str], side: int | None, depth: int | None, passes: int) -> dict[str, Any]:
    """Count at all layers and at a part of them, and print a line for each."""
    counted = {}
    for model in models:
        family, denoiser = skeleton(model)
        layers = len(family.attention_layers(denoiser))
        for number in (layers, depth or layers // 3):
            row = counted[f"{model}, {side or MODELS[model]} px, counted, {number} of {layers} layers"] = count(
                model, side or MODELS[model], number, passes
            )
            print(
                f"{model} {side or MODELS[model]} px  {number} of {layers} layers: a pass keeps "
                f"{row['kept'] / 2**30:.2f} GiB ({row['checkpointed'] / 2**30:.2f} checkpointed), "
                f"{row['pass_flops'] / row['forward_flops']:.2f} forwards; {row['steps']} steps, {passes} passes and "
                f"{row['looks']} looks: {row['ratio']:.3f} times plain",
                flush=True,
            )
    return counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sides = ", ".join(f"{model} {side}" for model, side in MODELS.items())
    parser.add_argument("--model", action="append", choices=list(MODELS), help="may be repeated; all by default")
    parser.add_argument("--side", type=int, help=f"width and height of the image in pixels (default: {sides})")
    parser.add_argument("--passes", type=int, help="of which the fastest counts: 2; with --count: of an image, 8")
    parser.add_argument("--whole", action="store_true", help="build all blocks of FLUX")
    parser.add_argument("--count", action="store_true", help="count bytes and FLOPs on the meta device")
    parser.add_argument("--depth", type=int, help="with --count: layers read, instead of a third of them")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    models = options.model or list(MODELS)
    timed_passes = options.passes or 2
    if options.way:
        print(json.dumps(one(models[0], options.way, options.side, timed_passes, options.whole)))
        return
    path = ROOT / "docs" / "results" / "full_size.json"
    stored = storage.read_json(path) if path.exists() else {}
    if options.count:
        storage.write_json(path, stored | count_all(models, options.side, options.depth, options.passes or 8))
        return
    device = torch.cuda.get_device_name() if CUDA else f"CPU, {torch.get_num_threads()} threads"
    for model in models:
        side = options.side or MODELS[model]
        results = {}
        for way in WAYS:
            command = [sys.executable, __file__, "--model", model, "--way", way, "--side", str(side)]
            command += ["--passes", str(timed_passes)] + ["--whole"] * options.whole
            done = subprocess.run(command, capture_output=True, text=True)
            results[way] = json.loads(done.stdout) if done.returncode == 0 else {"failed": done.stderr[-300:]}
            print(f"{model} {side} px  {way:20} {results[way]}", flush=True)
        if all("seconds" in results[way] for way in WAYS):
            steps, passes = resolve(model).steps, SteeringConfig().max_iterations
            doubled = 2 if model.startswith("sd") else 1  # guidance
            of_pass = min(results[way]["seconds"] for way in WAYS[1:3])
            results["image"] = {
                "seconds": doubled * steps * results[WAYS[3]]["seconds"] + passes * of_pass,
                "passes": passes,
            }
        blocks = " (2+2 blocks)" if model.startswith("flux") and not options.whole else ""
        stored[f"{model}{blocks}, {side} px, {device}"] = results
        storage.write_json(path, stored)


if __name__ == "__main__":
    main()
