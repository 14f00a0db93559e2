"""What the training scripts of the embedded models share: one resumable loop with EMA and time left."""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import distributed, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "src" / "learn_to_steer_emoji" / "data"
# In the user's cache and not in the tree, so that hours of training outlive a fresh clone.
CHECKPOINTS = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "learn-to-steer" / "checkpoints"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Under `torchrun --nproc-per-node N` every process takes its own batches and the gradients are averaged. Two
# processes of one thread are twice as fast as one of two where other tenants take turns on the cores: threads
# meet hundreds of times a step, processes once.
RANK, WORLD = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
# Without instructions for bf16, a CPU multiplies matrices in it a hundred times more slowly than in fp32.
FAST_BF16 = DEVICE.type == "cuda" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
AnyModule = TypeVar("AnyModule", bound=nn.Module)
TELL = 20.0  # seconds between two lines of progress
torch.set_flush_denormal(True)  # denormal gradients slow a CPU step down tenfold


def autocast() -> torch.autocast:
    """bf16 where it is fast: on CUDA, and on CPUs that have instructions for it."""
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=FAST_BF16)


def fast_copy(module: AnyModule) -> AnyModule:
    """A copy of ``module`` to compute with: in bf16 where that is fast."""
    copied = copy.deepcopy(module)
    return copied.bfloat16() if FAST_BF16 else copied


class Ema:
    """Exponential moving average of a module's floating-point parameters, warmed up from zero."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {k: v.detach().clone() for k, v in module.state_dict().items()}

    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, value in module.state_dict().items():
            if value.is_floating_point():
                self.shadow[key].lerp_(value.detach(), 1 - decay)
            else:
                self.shadow[key].copy_(value)


def decayed(step: int, steps: int, warmup: int, tail: float) -> float:
    """Learning-rate factor: linear warm-up, flat, linear decay to 2 % over the last ``tail`` of the steps."""
    return min(1.0, (step + 1) / max(warmup, 1), max(0.02, (steps - step) / (tail * steps)))


def orthogonalized(matrix: torch.Tensor) -> torch.Tensor:
    """Nearly the closest matrix whose singular values are all 1: five Newton-Schulz steps (Jordan et al., 2024)."""
    kind = torch.bfloat16 if FAST_BF16 else matrix.dtype
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).to(kind)
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return (x.T if tall else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """torch.optim.Muon with rates that match AdamW's; unlike that one in fp32 on CPUs where bf16 is slow."""

    def __init__(self, matrices: list[nn.Parameter], lr: float, weight_decay: float, momentum: float = 0.95) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                momentum, state = group["momentum"], self.state[matrix]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(matrix)
                mean = state["momentum_buffer"].lerp_(matrix.grad, 1 - momentum)
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                size = 0.2 * max(matrix.shape) ** 0.5  # gives the change the size that AdamW's has
                matrix.sub_(orthogonalized(matrix.grad.lerp(mean, momentum)), alpha=group["lr"] * size)


class Optimizer:
    """AdamW; with ``muon``, Muon for the hidden matrices (convolutions as rows of outputs) and AdamW for what is left.

    Muon learns more from each sample, and samples are what two cores are short of.
    """

    def __init__(self, module: nn.Module, rate: float, weight_decay: float, muon: bool, edges: tuple[str, ...]) -> None:
        inner = {
            name: p for name, p in module.named_parameters() if p.ndim >= 2 and not any(edge in name for edge in edges)
        }
        # Muon takes matrices alone: these share the storage of the parameters that they flatten.
        self.flat = [(p, nn.Parameter(p.detach().view(p.shape[0], -1))) for p in inner.values()] if muon else []
        hidden = {id(p) for p, _ in self.flat}
        rest = [p for p in module.parameters() if id(p) not in hidden]
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.99), weight_decay=weight_decay)
        ]
        if muon:
            # Each process works on its share and sends the result round: Muon is a fifth of a step on a CPU.
            mine = [matrix for _, matrix in self.flat[RANK::WORLD]]
            self.parts.append(Muon(mine, rate, weight_decay))

    def step(self, rate: float) -> None:
        for parameter, matrix in self.flat:
            matrix.grad = None if parameter.grad is None else parameter.grad.view_as(matrix)
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()
        if self.flat and WORLD > 1:
            for rank in range(WORLD):
                share = [matrix.data for _, matrix in self.flat[rank::WORLD]]
                sent = torch.cat([matrix.flatten() for matrix in share])
                distributed.broadcast(sent, rank)
                if rank != RANK:
                    scatter(sent, share)

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


def average(gradients: list[torch.Tensor]) -> None:
    """Mean over the processes, in place."""
    flat = torch.cat([g.flatten() for g in gradients])
    distributed.all_reduce(flat)
    scatter(flat / WORLD, gradients)


def elapsed(began: float) -> float:
    """Seconds since ``began`` by the first process's clock, so that all of them end at the same step."""
    seconds = torch.tensor(time.monotonic() - began)
    if WORLD > 1:
        distributed.broadcast(seconds, 0)
    return float(seconds)


def everywhere(condition: bool) -> bool:
    """Whether ``condition`` holds in every process."""
    holds = torch.tensor(float(condition))
    if WORLD > 1:
        distributed.all_reduce(holds, distributed.ReduceOp.MIN)
    return bool(holds)


def scatter(flat: torch.Tensor, tensors: list[torch.Tensor]) -> None:
    """Copy the parts of ``flat`` into ``tensors``."""
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):  # type: ignore[no-untyped-call]
        tensor.copy_(part.view_as(tensor))


def train(
    name: str,
    module: nn.Module,
    loss_of: Callable[[int], tuple[torch.Tensor, dict[str, float]]],
    *,
    steps: int,
    rate: float,
    weight_decay: float = 0.01,
    ema_decay: float = 0.998,
    clip: float = 1.0,
    save_every: int = 200,
    on_save: Callable[[int, dict[str, torch.Tensor]], None] | None = None,
    compute_copy: nn.Module | None = None,
    muon: bool = False,
    tail: float = 0.35,
    minutes: float | None = None,
    cool: float | None = None,
    save_minutes: float | None = None,
    warmup: int = 100,
    edges: tuple[str, ...] = ("embedding", "conv_in", "conv_out", "what"),
) -> dict[str, torch.Tensor]:
    """Train until ``steps`` steps are done or ``minutes`` are over; go on from the newest checkpoint.

    A checkpoint gets its name only once it is whole: killing the script loses no more than what came after the last.

    Args:
        name: Of the folder of checkpoints, and in the lines of progress.
        module: What is trained.
        loss_of: Computes the loss of a step, and numbers to tell beside it.
        steps: Where training ends, counted from the very first.
        rate: The highest learning rate.
        weight_decay: Of all parameters.
        ema_decay: Of the averaged weights.
        clip: The largest norm of the gradient.
        save_every: Steps between checkpoints.
        on_save: Gets the step and the averaged weights of a checkpoint.
        compute_copy: The ``fast_copy`` of ``module``, if ``loss_of`` computes with it (in bf16 a fifth faster on a CPU
            than autocast): weights go to it and gradients come from it every step.
        muon: Trains matrices with Muon, and with AdamW only the others and those whose name holds one of ``edges``.
        tail: Share of the steps over which the rate falls, without ``minutes``.
        minutes: The rate falls to nothing over so many minutes from now on, however many steps they are.
        cool: With ``minutes``: the rate falls in the last so many of them alone, so that training can be resumed at its
            full rate as often as needed and cooled down once.
        save_minutes: Minutes between checkpoints, in place of ``save_every``.
        warmup: Steps over which the rate rises, unless the moments of the optimizer come from a checkpoint.
        edges: Embeddings, and what maps into or out of the network.

    Returns:
        The averaged weights.
    """
    if WORLD > 1:
        distributed.init_process_group("nccl" if DEVICE.type == "cuda" else "gloo")
    folder = CHECKPOINTS / name
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = Optimizer(module, rate, weight_decay, muon, edges)
    ema, start = Ema(module, ema_decay), 0
    if (folder / "state.json").exists():
        start = json.loads((folder / "state.json").read_text())["step"]
        stored = load_file(folder / f"{start}.safetensors", device=str(DEVICE))
        module.load_state_dict({k[6:]: v for k, v in stored.items() if k.startswith("model.")})
        ema.shadow = {k[4:]: v for k, v in stored.items() if k.startswith("ema.")}
        moments = folder / f"{start}.{RANK}-of-{WORLD}.pt"
        if everywhere(moments.exists()):  # else it was made by other processes: moments are soon rebuilt
            optimizer.load_state_dict(torch.load(moments, weights_only=True))
            warmup = 0
        print(f"{name}: resumed at step {start} of {steps} (process {RANK} of {WORLD})", flush=True)

    def save(step: int) -> None:
        torch.save(optimizer.state_dict(), folder / f"tmp-{RANK}.pt")
        os.replace(folder / f"tmp-{RANK}.pt", folder / f"{step}.{RANK}-of-{WORLD}.pt")
        if RANK:
            return
        # Cloned, since safetensors refuses tied weights.
        tensors = {f"model.{k}": v.contiguous().clone() for k, v in module.state_dict().items()}
        tensors |= {f"ema.{k}": v.contiguous() for k, v in ema.shadow.items()}
        save_file(tensors, folder / "tmp.safetensors")
        os.replace(folder / "tmp.safetensors", folder / f"{step}.safetensors")
        (folder / "tmp.json").write_text(json.dumps({"step": step}))
        os.replace(folder / "tmp.json", folder / "state.json")
        for old in folder.glob("*.*"):
            if old.name.split(".")[0].isdigit() and int(old.name.split(".")[0]) < step:
                old.unlink()
        if on_save is not None:
            on_save(step, ema.shadow)

    began, told, saved = time.monotonic(), -TELL, 0.0
    running: dict[str, float] = {}
    for step in range(start, steps):
        spent = elapsed(began)
        over = spent / (60 * minutes) if minutes else 0.0
        if over >= 1:
            save(step)
            break
        if compute_copy is not None:
            with torch.no_grad():
                torch._foreach_copy_(list(compute_copy.parameters()), list(module.parameters()))
        loss, parts = loss_of(step)
        if not torch.isfinite(loss):
            raise SystemExit(f"{name}: the loss is {loss.item()} at step {step}; lower the rate and resume")
        module.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if WORLD > 1:
            average([p.grad for p in (compute_copy or module).parameters() if p.grad is not None])
        if compute_copy is not None:
            for master, fast in zip(module.parameters(), compute_copy.parameters(), strict=True):
                master.grad = None if fast.grad is None else fast.grad.float()
                fast.grad = None
        nn.utils.clip_grad_norm_(module.parameters(), clip)
        left = (1 - over) * (minutes / cool if minutes and cool else 1.0)
        falling = min(1.0, (step + 1 - start) / max(warmup, 1), max(0.02, left))
        optimizer.step(rate * (falling if minutes else decayed(step, steps, warmup, tail)))
        ema.update(module, step)
        for key, value in {"loss": loss.item(), **parts}.items():
            running[key] = value if key not in running else 0.95 * running[key] + 0.05 * value
        if RANK == 0 and spent - told >= TELL:
            told = spent
            pace = (time.monotonic() - began) / (step + 1 - start)
            left = 60 * minutes - spent if minutes else pace * (steps - step - 1)
            shown = "  ".join(f"{k} {v:.4f}" for k, v in running.items())
            print(f"{name} {step + 1}/{steps}  {shown}  {pace:.2f} s/step  {left / 60:.0f} min left", flush=True)
        due = spent - saved >= 60 * save_minutes if save_minutes else (step + 1) % save_every == 0
        if due or step + 1 == steps:
            saved = spent
            save(step + 1)
    return ema.shadow


def written(name: str) -> bool:
    """Whether there is a checkpoint of what was trained as ``name``."""
    return (CHECKPOINTS / name / "state.json").exists()


def newest(name: str) -> dict[str, torch.Tensor]:
    """EMA weights of the newest checkpoint of what was trained as ``name``."""
    folder = CHECKPOINTS / name
    if not written(name):
        raise SystemExit(f"there is no checkpoint of {name} in {folder}: train it first")
    stored = load_file(folder / f"{json.loads((folder / 'state.json').read_text())['step']}.safetensors")
    return {k[4:]: v for k, v in stored.items() if k.startswith("ema.")}


def half(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights as they are packaged: fp16, contiguous, on the CPU."""
    return {k: (v.half() if v.is_floating_point() else v).cpu().contiguous() for k, v in state.items()}


def clip_encoder(tokenizer: CLIPTokenizer, layers: int, intermediate: int) -> CLIPTextModel:
    """An untrained CLIP text encoder for ``tokenizer``, with ``layers`` layers and that intermediate width."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=intermediate,
            projection_dim=128,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=77,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            attn_implementation="eager",  # the backward of fused attention is slow on a CPU
        )
    )


def package(part: Any, folder: Path) -> None:
    """Write ``part`` with fp16 weights, to be loaded in fp32.

    transformers loads a model in the dtype that its config names, diffusers in fp32 unless told otherwise: a pipeline
    loaded without a word about dtypes would have parts that do not fit together. CLIP's weights get the names that
    those on the hub have: transformers 5 writes others, with which 4 silently leaves the encoder untrained.
    """
    part.half().save_pretrained(folder)
    if isinstance(part, CLIPTextModel):
        stored = load_file(folder / "model.safetensors")
        named = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in stored.items()}
        save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    if "dtype" in config:
        (folder / "config.json").write_text(json.dumps(config | {"dtype": "float32"}, indent=2) + "\n")
