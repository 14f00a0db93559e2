"""``parse``, ``export-prompts``, ``list`` and ``doctor``: what a prompt asks for, what there is, what works here."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable
from importlib.util import find_spec
from typing import Annotated

import typer

from learn_to_steer import registry
from learn_to_steer.cli.console import package_version
from learn_to_steer.configs import Data, PipelineConfig
from learn_to_steer.errors import DataError

LIBRARIES = ("learn-to-steer", "torch", "diffusers", "transformers", "accelerate", "safetensors", "huggingface-hub")
EXTRAS = {"lora": "peft", "quant": "bitsandbytes", "nlp": "spacy"}


def parse(
    prompt: Annotated[str, typer.Argument(help="The prompt.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    nlp: Annotated[
        str | None, typer.Option(help="Let this spaCy model find the objects (extra: nlp).", metavar="MODEL")
    ] = None,
) -> None:
    """Show the spatial relations that a prompt asks for. No model is needed."""
    from learn_to_steer import prompts

    relations = prompts.parse(prompt, nlp=prompts.load_nlp(nlp) if nlp else None)
    if as_json:
        print(json.dumps({"relations": [relation.as_list() for relation in relations]}, ensure_ascii=False))
    elif relations:
        for relation in relations:
            print(" | ".join(relation.as_list()))
    else:
        print("no spatial relation found")


def export_prompts(
    out: Annotated[str, typer.Option(help="Folder of the files.", metavar="DIR")],
    benchmark: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this one; may be repeated. See: list benchmarks.",
            metavar="NAME",
            show_default="all; those that read a file with --data only",
        ),
    ] = None,
    data: Data = None,
) -> None:
    """Write the benchmarks' prompts, in one wording of the relations, with what each asks for.

    Each becomes NAME.jsonl and NAME.txt, the prompts alone. evaluate --prompts reads the former, where all prompts
    have a relation. No model is needed.
    """
    from learn_to_steer import benchmarks

    names = benchmark or [
        name for name in benchmarks.benchmark_names() if data is not None or not benchmarks.reads(name)
    ]
    sets = {
        registry.normal(name): benchmarks.prompts(name, data=data if benchmarks.reads(name) else None) for name in names
    }
    for name, facts in benchmarks.export(sets, out).items():
        print(f"{name}: {facts['prompts']} prompts")
    print(f"Written to {out}")


def list_names(
    kind: Annotated[
        str,
        typer.Argument(
            help="models, benchmarks, losses, profiles, detectors, sources, inversions, embedders or schedulers.",
            show_default=False,
        ),
    ],
) -> None:
    """List the names of one kind: models, benchmarks, losses, ..."""
    kinds: dict[str, Callable[[], list[str]]] = {
        "models": _models,
        "benchmarks": _benchmarks,
        "losses": _losses,
        "objectives": _losses,  # the former name
        "detectors": lambda: registry.names("detectors"),
        "sources": lambda: registry.names("sources"),
        "inversions": lambda: registry.names("inversion"),
        "embedders": lambda: registry.names("embedders"),
        "profiles": _profiles,
        "schedulers": _schedulers,
    }
    if registry.normal(kind) not in kinds:
        raise registry.unknown("list", kind, kinds)
    print("\n".join(kinds[registry.normal(kind)]()))


def _losses() -> list[str]:
    return ["none", *registry.names("losses")]


def _models() -> list[str]:
    from learn_to_steer.families import variants
    from learn_to_steer.loading import package_folder

    lines = []
    for name, variant in sorted(variants().items()):
        note = variant.note
        try:
            package_folder(variant.source)
        except DataError:
            note = "its weights are not in this copy"
        facts = f"{variant.source}, {variant.resolution} px, {variant.steps} steps, guidance {variant.guidance:g}"
        lines.append(f"{name:20}{facts}" + (f" ({note})" if note else ""))
    return lines


def _benchmarks() -> list[str]:
    from learn_to_steer.benchmarks import benchmark_names, reads

    return [f"{name:32}reads {reads(name)} (--data)" if reads(name) else name for name in benchmark_names()]


def _profiles() -> list[str]:
    from learn_to_steer.steering.config import PROFILES

    return list(PROFILES)


def _schedulers() -> list[str]:
    known = {name: registry.load("families", name).FAMILY.schedulers for name in registry.names("families")}
    return [f"{scheduler:36}{name}" for name, schedulers in known.items() for scheduler in schedulers]


def doctor(config: PipelineConfig) -> None:
    """Show versions and devices, and try one steering iteration on a model.

    Ends with exit code 2 and the remedy when the model cannot be steered.
    """
    import torch

    from learn_to_steer.errors import UnsupportedError
    from learn_to_steer.evaluation.model import open_pipeline
    from learn_to_steer.loading import resolve_device
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
    device = resolve_device(config.device)
    pipe, variant = open_pipeline(config)
    finding = probe_pipeline(pipe, variant.resolution, variant.resolution, variant.arguments)
    if not math.isfinite(finding.gradient) or finding.gradient == 0:
        raise UnsupportedError(
            f"{config.model} shows its maps but their gradient is {finding.gradient}: run it eagerly and in a wider "
            "dtype"
        )
    print(f"{config.model:16}{finding.layers} layers, {finding.channels} maps an object (layout {finding.fingerprint})")
    if finding.memory:
        sizes = [size / 2**30 for size in (finding.memory.weights, finding.memory.kept, finding.memory.checkpointed)]
        print("memory          {:.2f} GiB of weights; a pass keeps {:.2f} an image, {:.2f} checkpointed".format(*sizes))
    peak = "" if finding.peak is None else f", {finding.peak / 2**30:.1f} GiB above the weights"
    print(f"one pass        {finding.seconds:.2f} s on {device} at {variant.resolution} px{peak}; gradient is finite")
