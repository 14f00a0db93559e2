"""Refuses what cannot be steered before a step is made, and names the remedy; runs compiled denoisers eagerly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from learn_to_steer.errors import UnsupportedError
from learn_to_steer.families import Family
from learn_to_steer.steering.config import SteeringConfig

DENOISERS = ("unet", "transformer")


def check_pipeline(pipe: Any, family: Family) -> None:
    """Refuse a pipeline whose images steering would corrupt, or whose denoiser has no gradient.

    Args:
        pipe: A diffusers pipeline.
        family: Its family, which lists the schedulers and pipelines that were tested.

    Raises:
        UnsupportedError: The scheduler, pipeline class, cache, offloading or torch mode does not work with steering;
            the message names the remedy.
    """
    scheduler = type(pipe.scheduler).__name__
    if scheduler not in family.schedulers:
        usual = family.schedulers[0]
        raise UnsupportedError(
            f"{scheduler} is not known to step the latents that it is given, as steering needs (PNDM, Heun, KDPM2 and "
            f"UniPC rebuild them from stored values); set another one, e.g. pipe.scheduler = {usual}.from_config("
            f"pipe.scheduler.config), or --scheduler {usual}. "
            f"Supported: {', '.join(name.removesuffix('Scheduler') for name in family.schedulers)}"
        )
    kinds = [kind.__name__ for kind in type(pipe).__mro__]
    if not set(kinds) & set(family.pipelines):
        raise UnsupportedError(
            f"{kinds[0]} has not been tried with steering; use the same weights in {family.pipelines[0]} "
            f"({family.pipelines[0]}.from_pipe(pipe)), or in one of: {', '.join(family.pipelines[1:])}"
        )
    if torch.is_inference_mode_enabled():
        raise UnsupportedError("steering needs gradients: call it outside torch.inference_mode() (no_grad is fine)")
    if getattr(pipe, "do_perturbed_attention_guidance", False):
        raise UnsupportedError("perturbed-attention guidance cannot be steered: turn it off (pag_scale=0)")
    denoiser = getattr(pipe, family.denoiser)
    if kind := _cache(denoiser):
        raise UnsupportedError(
            f"pipe.{family.denoiser} reuses old activations ({kind}), whose maps are not those of the moved latents; "
            f"switch it off while steering (pipe.{family.denoiser}.disable_cache()), or load the pipeline anew"
        )
    if any(_offloaded_in_groups(module) for module in denoiser.modules()):
        raise UnsupportedError(
            f"pipe.{family.denoiser} is offloaded in groups, and the weights are gone when the backward needs them; "
            "load the pipeline anew and use pipe.enable_model_cpu_offload() (--offload model)"
        )


def check_update(pipe: Any, config: SteeringConfig) -> None:
    """Refuse ``update="prediction"`` for a model that does not predict the noise.

    Args:
        pipe: A diffusers pipeline.
        config: The settings.

    Raises:
        UnsupportedError: The model predicts something else; the message says what.
    """
    kind = pipe.scheduler.config.get("prediction_type", "flow")
    if config.update == "prediction" and kind != "epsilon":
        raise UnsupportedError(
            f"{config.profile} adds to the predicted noise, but the model predicts {kind!r}; use a model whose "
            "scheduler has prediction_type 'epsilon', or move the latents (--profile fixed-budget)"
        )


def _cache(denoiser: nn.Module) -> str:
    """The diffusers cache that is on, by the model's own method or by an ``apply_...`` function; empty if none is."""
    if getattr(denoiser, "is_cache_enabled", False):
        return type(denoiser._cache_config).__name__.removesuffix("Config")
    for module in denoiser.modules():
        for hook in getattr(getattr(module, "_diffusers_hook", None), "hooks", {}).values():
            if "cache" in type(hook).__module__ or "broadcast" in type(hook).__module__:
                return type(hook).__name__
    return ""


def _offloaded_in_groups(module: nn.Module) -> bool:
    """Whether diffusers' group offloading takes this module's weights away after its forward."""
    hooks = getattr(module, "_diffusers_hook", None)
    return hooks is not None and hooks.get_hook("group_offloading") is not None


def refuse_wrapped(pipe: Any) -> None:
    """Refuse a denoiser whose kernels have no backward, before ``families.find`` looks for its class.

    Args:
        pipe: A diffusers pipeline.

    Raises:
        UnsupportedError: The denoiser runs on such kernels; the message names another way to save memory.
    """
    for name in DENOISERS:
        if type(getattr(pipe, name, None)).__module__.partition(".")[0] == "nunchaku":
            raise UnsupportedError(
                f"pipe.{name} runs on nunchaku's kernels, which have no gradient; load the model's own weights, "
                "quantised with --quantize 4bit if they are too large"
            )


@contextmanager
def disable_compile(pipe: Any) -> Iterator[None]:
    """Undo ``torch.compile`` and ``.compile()`` of the denoiser inside the context; both are restored afterwards.

    Maps and their gradients need the plain modules.

    Args:
        pipe: A diffusers pipeline.
    """
    denoisers: dict[str, Any] = {name: getattr(pipe, name, None) for name in DENOISERS}
    with ExitStack() as restore:
        for name, denoiser in denoisers.items():
            if hasattr(denoiser, "_orig_mod"):
                restore.callback(setattr, pipe, name, denoiser)
                setattr(pipe, name, denoiser._orig_mod)
            if not isinstance(denoiser, nn.Module):
                continue
            for module in getattr(denoiser, "_orig_mod", denoiser).modules():
                if module._compiled_call_impl is not None:
                    restore.callback(setattr, module, "_compiled_call_impl", module._compiled_call_impl)
                    module._compiled_call_impl = None
        yield
