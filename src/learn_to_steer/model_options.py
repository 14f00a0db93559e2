"""The options that say which model is loaded and how its weights are held. Imports no torch.

``configs`` has the settings of the tasks, which begin with these.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from typer import Option

from learn_to_steer.registry import DEFAULT_MODEL
from learn_to_steer.shared_options import MODELS_OWN
from learn_to_steer.validation import Checked

_model = partial(Option, rich_help_panel="Model")
_sampling = partial(Option, rich_help_panel="Sampling")


@dataclass(frozen=True)
class PlacementConfig(Checked):
    """Which model is loaded, and how its weights are held."""

    model: Annotated[
        str,
        _model(
            help="A name (see: list models), a folder in diffusers' format, a .safetensors file, or a hub id.",
            metavar="MODEL",
        ),
    ] = DEFAULT_MODEL
    base: Annotated[
        str | None,
        _model(
            help="For a model of one file: folder or hub id of the model that it was made from. Its tokenizers are "
            "used, and what else the file lacks.",
            show_default="the cache of the hub",
            metavar="DIR|ID",
        ),
    ] = None
    revision: Annotated[
        str | None, _model(help="Branch, tag or commit of a hub id.", show_default="main", metavar="NAME")
    ] = None
    lora: Annotated[
        tuple[str, ...],
        _model(
            help="Add a LoRA adapter, a file, folder or hub id (needs the extra 'lora'). May be repeated.",
            show_default="none",
            metavar="PATH[:SCALE]",
        ),
    ] = ()
    device: Annotated[
        str,
        _model(
            help="cpu, cuda, cuda:1, ..., or mps (untested); auto: the CUDA GPU if there is one, else the CPU.",
            metavar="NAME",
        ),
    ] = "auto"
    dtype: Annotated[
        str | None,
        _model(
            help="Number format of the weights: bfloat16, float16 or float32.",
            show_default="the model's own; float32 on the CPU and mps",
            metavar="NAME",
        ),
    ] = None
    offload: Annotated[
        str | None,
        _model(
            help="model: keep on the GPU only the component that is running. Saves GPU memory, takes longer.",
            show_default="the whole model stays on the GPU",
            metavar="HOW",
        ),
    ] = None
    quantize: Annotated[
        str | None,
        _model(help="8bit or 4bit weights (needs the extra 'quant').", show_default="off", metavar="BITS"),
    ] = None


@dataclass(frozen=True)
class PipelineConfig(PlacementConfig):
    """A model and its scheduler."""

    scheduler: Annotated[
        str | None,
        _sampling(help="Scheduler of diffusers (see: list schedulers).", show_default=MODELS_OWN, metavar="CLASS"),
    ] = None
