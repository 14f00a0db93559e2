"""The options of every verb that loads a model, declared once: where it runs, and how it samples and is steered.

A group is a function whose parameters are options and whose result is what they mean to ``ModelConfig``.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature, signature
from typing import Annotated, Any

import typer

from learn_to_steer.cli import options
from learn_to_steer.registry import DEFAULT_MODEL

Group = Callable[..., dict[str, Any]]
Verb = Callable[..., None]


def taking(*groups: Group) -> Callable[[Verb], Verb]:
    """The verb also takes the options of ``groups``, and gets what they mean as the dictionary ``chosen``."""

    def extended(verb: Verb) -> Verb:
        own = [p for p in signature(verb, eval_str=True).parameters.values() if p.name != "chosen"]
        theirs = [(group, signature(group, eval_str=True).parameters) for group in groups]

        def command(**values: Any) -> None:
            chosen: dict[str, Any] = {}
            for group, parameters in theirs:
                chosen |= group(**{name: values.pop(name) for name in parameters})
            verb(**values, chosen=chosen)

        listed = [*own, *(p for _, parameters in theirs for p in parameters.values())]
        command.__name__, command.__doc__ = verb.__name__, verb.__doc__
        command.__signature__ = Signature([p.replace(kind=Parameter.KEYWORD_ONLY) for p in listed])  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in listed}
        return command

    return extended


def placed(
    model: Annotated[str, typer.Option(help="A variant (see: list models), a local diffusers folder, or a hub id.")] = (
        DEFAULT_MODEL
    ),
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a hub id.", show_default="main", metavar="NAME")
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            help="Add a LoRA adapter (extra: lora); may be repeated.", metavar="PATH[:SCALE]", show_default=False
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, cuda:1, ...; 'auto' is the GPU if there is one.", metavar="NAME")
    ] = "auto",
    dtype: Annotated[
        str | None,
        typer.Option(
            help="bfloat16, float16 or float32.", show_default="the model's own; float32 on the CPU", metavar="NAME"
        ),
    ] = None,
    offload: Annotated[
        str | None,
        typer.Option(help="'model': only the part that is running is on the GPU.", show_default=False, metavar="HOW"),
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option(help="'8bit' or '4bit' weights (extra: quant).", show_default=False, metavar="BITS"),
    ] = None,
) -> dict[str, Any]:
    """Which model, and how its weights are held."""
    return {
        "model": model,
        "revision": revision,
        "lora": tuple(lora or ()),
        "device": device,
        "dtype": dtype,
        "offload": offload,
        "quantize": quantize,
    }


def sampled(
    classifier: Annotated[
        str | None,
        typer.Option(help="Folder or hub id of a relation classifier.", show_default="the model's own", metavar="DIR"),
    ] = None,
    profile: Annotated[
        str,
        typer.Option(
            help="How to steer: 'default' stops when sure (baselines: as published), 'equal' is our loop without a "
            "stop, the same for every loss, 'official' is the paper's loop.",
            metavar="NAME",
        ),
    ] = "default",
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change one steering setting; may be repeated.", metavar="NAME=VALUE", show_default=False
        ),
    ] = None,
    checkpointing: Annotated[
        str,
        typer.Option(
            help="Trade time for memory in a steering pass: 'on', 'off', or 'auto': when it would not fit.",
            metavar="WHEN",
        ),
    ] = "auto",
    scheduler: options.Scheduler = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps.", show_default="the model's own")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale.", show_default="the model's own")] = None,
    height: Annotated[int | None, typer.Option(min=8, help="Pixels.", show_default="the model's own")] = None,
    width: Annotated[int | None, typer.Option(min=8, help="Pixels.", show_default="the model's own")] = None,
) -> dict[str, Any]:
    """How it samples, and how it is steered."""
    return {
        "classifier": classifier,
        "profile": profile,
        "settings": options.settings(setting),
        "checkpointing": checkpointing,
        "scheduler": scheduler,
        "steps": steps,
        "guidance": guidance,
        "height": height,
        "width": width,
    }


def general(config: options.Config = None, debug: options.Debug = False) -> dict[str, Any]:
    """``--config`` and ``--debug`` do their work while the line is read."""
    return {}
