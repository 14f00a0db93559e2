"""``doctor``: what is installed, and whether a model can be steered here."""

from __future__ import annotations

import math
import platform
from importlib.util import find_spec
from typing import Any

from learn_to_steer.cli import options
from learn_to_steer.cli.console import package_version
from learn_to_steer.cli.model_options import general, placed, taking

LIBRARIES = ("learn-to-steer", "torch", "diffusers", "transformers", "accelerate", "safetensors", "huggingface-hub")
EXTRAS = {"lora": "peft", "quant": "bitsandbytes", "nlp": "spacy"}


@taking(placed, general)
def doctor(scheduler: options.Scheduler = None, *, chosen: dict[str, Any]) -> None:
    """Show versions and devices, and try one pass of steering on a model.

    Ends with exit code 2 and the remedy when the model cannot be steered.
    """
    import torch

    from learn_to_steer.errors import UnsupportedError
    from learn_to_steer.evaluation.model import ModelConfig, open_pipeline, resolve_device
    from learn_to_steer.steering.probe import probe_pipeline

    print(f"python          {platform.python_version()} on {platform.machine()} {platform.system()}")
    for name in LIBRARIES:
        print(f"{name:16}{package_version(name)}")
    for extra, module in EXTRAS.items():
        state = "installed" if find_spec(module) else f"not installed; pip install 'learn-to-steer[{extra}]'"
        print(f"{module:16}{state}")
    count = torch.cuda.device_count()
    names = ", ".join(torch.cuda.get_device_name(index) for index in range(count))
    print(f"devices         {names or f'cpu alone, {torch.get_num_threads()} threads'}")
    model, where = chosen["model"], resolve_device(chosen["device"])
    pipe, variant = open_pipeline(ModelConfig(**chosen, scheduler=scheduler))
    finding = probe_pipeline(pipe, variant.side, variant.side, variant.arguments)
    if not math.isfinite(finding.gradient) or finding.gradient == 0:
        raise UnsupportedError(
            f"{model} shows its maps but their gradient is {finding.gradient}: run it eagerly and in a wider dtype"
        )
    print(f"{model:16}{finding.layers} layers, {finding.channels} maps an object (layout {finding.fingerprint})")
    if finding.memory:
        sizes = [size / 2**30 for size in (finding.memory.weights, finding.memory.kept, finding.memory.checkpointed)]
        print("memory          {:.2f} GiB of weights; a pass keeps {:.2f} an image, {:.2f} checkpointed".format(*sizes))
    peak = "" if finding.peak is None else f", {finding.peak / 2**30:.1f} GiB above the weights"
    print(f"one pass        {finding.seconds:.2f} s on {where} at {variant.side} px{peak}; gradient is finite")
