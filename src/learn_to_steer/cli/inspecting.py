"""The verbs that show something: ``parse``, ``export-prompts``, ``list`` and ``doctor``."""

from __future__ import annotations

import json
import math
import platform
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

import typer

from learn_to_steer import registry
from learn_to_steer.cli.console import show
from learn_to_steer.errors import DataError
from learn_to_steer.model_options import PipelineConfig
from learn_to_steer.shared_options import Data, SpacyModel
from learn_to_steer.versions import installed_version

if TYPE_CHECKING:
    from learn_to_steer.prompts import Analysis, Relation

LIBRARIES = ("learn-to-steer", "torch", "diffusers", "transformers", "accelerate", "safetensors", "huggingface-hub")
# Extra -> the package that it installs, and what for.
EXTRAS = {
    "lora": ("peft", "--lora"),
    "quant": ("bitsandbytes", "--quantize"),
    "nlp": ("spacy", "--nlp"),
}


def parse(
    prompt: Annotated[str, typer.Argument(help="The prompt.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object instead of text.")] = False,
    nlp: SpacyModel = None,
) -> None:
    """Show the spatial relations that are found in a prompt, where, and what is passed over and why.

    No model is loaded.
    """
    from learn_to_steer import prompts

    found = prompts.analyse(prompt, nlp=prompts.load_nlp(nlp) if nlp else None)
    if as_json:
        show(json.dumps(_as_object(found), ensure_ascii=False))
        return
    for relation in found.relations:
        show(" | ".join(relation.as_list()))
        show("    " + ", ".join(f"{name}: characters {span[0]} to {span[1]}" for name, span in _spans(relation)))
    if not found.relations:
        show("no spatial relation found")
    for phrase in found.passed_over:
        about = f": {phrase.noun}" if phrase.noun else ""
        show(f"passed over: {phrase.wording} ({phrase.reason}{about})")
        show(f"    characters {phrase.span[0]} to {phrase.span[1]}")
    if found.warning:
        show(f"warning: {found.warning}", sys.stderr)


def _spans(relation: Relation) -> list[tuple[str, tuple[int, int]]]:
    """The objects of a relation with their characters in the prompt."""
    spans = ((relation.subject, relation.subject_span), (relation.object, relation.object_span))
    return [(name, span) for name, span in spans if span is not None]


def _as_object(found: Analysis) -> dict[str, Any]:
    """What ``parse --json`` prints."""
    return {
        "relations": [relation.as_list() for relation in found.relations],
        "spans": [[list(span) for _, span in _spans(relation)] for relation in found.relations],
        "passed_over": [
            {"wording": phrase.wording, "span": list(phrase.span), "reason": phrase.reason, "noun": phrase.noun}
            for phrase in found.passed_over
        ],
        "warning": found.warning,
    }


def export_prompts(
    out: Annotated[str, typer.Option(help="Folder to write to.", metavar="DIR")],
    benchmark: Annotated[
        list[str] | None,
        typer.Option(
            help="A benchmark to write (see: list benchmarks). May be repeated.",
            metavar="NAME",
            show_default="all; without --data those that read no file",
        ),
    ] = None,
    data: Data = None,
) -> None:
    """Write the prompts of benchmarks to files, with the relations that each prompt asks for.

    Each benchmark becomes NAME.jsonl, with prompts and relations, and NAME.txt, with the prompts alone. evaluate
    --prompts reads a NAME.jsonl in which all prompts have a relation. No model is loaded.
    """
    from learn_to_steer import benchmarks, storage

    storage.check_folder(out)
    names = benchmark or [
        name for name in benchmarks.benchmark_names() if data is not None or not benchmarks.reads(name)
    ]
    sets = {
        registry.normal(name): benchmarks.prompts(name, data=data if benchmarks.reads(name) else None) for name in names
    }
    for name, facts in benchmarks.export(sets, out).items():
        show(f"{name}: {facts['prompts']} prompts")
    show(f"Written to {out}")


def list_names(
    kind: Annotated[
        str,
        typer.Argument(
            help="What to list: models, benchmarks, losses, profiles, detectors, sources, inversions, embedders or "
            "schedulers.",
            show_default=False,
        ),
    ],
) -> None:
    """List the names that options take: models, benchmarks, losses, ..."""
    listings: dict[str, Callable[[], list[str]]] = {
        "models": _models,
        "benchmarks": _benchmarks,
        "losses": _losses,
        "objectives": _losses,  # the former name of losses
        "detectors": lambda: registry.names("detectors"),
        "sources": lambda: registry.names("sources"),
        "inversions": lambda: registry.names("inversion"),
        "embedders": lambda: registry.names("embedders"),
        "profiles": _profiles,
        "schedulers": _schedulers,
    }
    if registry.normal(kind) not in listings:
        choices = [name for name in listings if name != "objectives"]
        raise registry.unknown("kind of names", kind, choices)
    for line in listings[registry.normal(kind)]():
        show(line)


def _losses() -> list[str]:
    return ["none", *registry.names("losses")]


def _models() -> list[str]:
    from learn_to_steer.families import variants
    from learn_to_steer.model_names import package_folder

    lines = []
    for name, variant in sorted(variants().items()):
        note = variant.note
        try:
            package_folder(variant.source)
        except DataError:
            note = "its weights are not installed"
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
    families = {name: registry.load("families", name).FAMILY for name in registry.names("families")}
    return [f"{scheduler:36}{name}" for name, family in families.items() for scheduler in family.schedulers]


def doctor(config: PipelineConfig) -> None:
    """Show versions and devices, and check that a model can be steered on this machine.

    Runs a few steering iterations of one image. If that is not possible, it says why and what to do, and ends with exit
    code 2.
    """
    import torch

    from learn_to_steer.errors import UnsupportedError
    from learn_to_steer.evaluation.model import open_pipeline
    from learn_to_steer.placement import resolve_device
    from learn_to_steer.steering.probe import probe_pipeline

    show(f"python          {platform.python_version()} on {platform.machine()} {platform.system()}")
    for name in LIBRARIES:
        show(f"{name:16}{installed_version(name)}")
    for extra, (module, option) in EXTRAS.items():
        advice = f"not installed; only {option} needs it: pip install 'learn-to-steer[{extra}]'"
        state = installed_version(module) if find_spec(module) else advice
        show(f"{module:16}{state}")
    count = torch.cuda.device_count()
    names = ", ".join(torch.cuda.get_device_name(index) for index in range(count))
    if torch.backends.mps.is_available():
        names = names or "mps (Apple's GPU, untested)"
    show(f"devices         {names or f'cpu only, {torch.get_num_threads()} threads'}")
    device = resolve_device(config.device)
    pipe, variant = open_pipeline(config, steered=True)
    result = probe_pipeline(pipe, variant.resolution, variant.resolution, variant.arguments)
    if not math.isfinite(result.gradient) or result.gradient == 0:
        raise UnsupportedError(
            f"{config.model} cannot be steered: its attention maps are captured, but their gradient is "
            f"{result.gradient}; run it without torch.compile and with --dtype float32"
        )
    show(f"model           {config.model}: {result.layers} attention layers, {result.channels} maps per object")
    show(f"layout          {result.fingerprint}; a classifier for this model has the same")
    if result.memory:
        sizes = (result.memory.weights, result.memory.kept, result.memory.checkpointed)
        weights, kept, checkpointed = (f"{size / 2**30:.2f} GiB" for size in sizes)
        show(
            f"memory          {weights} of weights, and {kept} per image during an iteration "
            f"({checkpointed} with --checkpointing on)"
        )
    peak = "" if result.peak is None else f"; {result.peak / 2**30:.2f} GiB above the weights"
    times = "once" if result.timed == 1 else f"{result.timed} times, median"
    show(
        f"one iteration   {result.seconds:.2f} s on {device} at {variant.resolution} px: forward and backward for one "
        f"image, timed {times}, after a warm-up{peak}; gradient is finite"
    )
    show(f"{config.model} can be steered on this machine")
