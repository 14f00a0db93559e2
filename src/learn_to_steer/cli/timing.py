"""The verb ``bench``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from typer import Option

from learn_to_steer.cli.commands import copy_fields
from learn_to_steer.cli.console import progress, show
from learn_to_steer.speed.config import BenchConfig


@dataclass(frozen=True)
class BenchOptions(BenchConfig):
    """The settings of ``bench``, and how the result is printed."""

    as_json: Annotated[
        bool, Option("--json", help="Print a JSON object instead of text.", rich_help_panel="Output")
    ] = False


def bench(options: BenchOptions) -> None:
    """Measure what steering costs: time, operations and memory with and without it, in the same run.

    Every prompt is timed in a pair of calls with the same noise. On the CPU the time is the CPU time of the process, on
    a GPU the time between two CUDA events. Weights or a classifier that the model lacks are random: the time is the
    same.
    """
    # This imports torch.
    from learn_to_steer.speed.bench import measure_model

    with progress("timing", "images") as advance:
        result = measure_model(copy_fields(BenchConfig, options), advance)
    if options.as_json:
        show(json.dumps(result, ensure_ascii=False))
        return
    for line in _lines(result):
        show(line)


def _lines(result: Mapping[str, Any]) -> list[str]:
    sampling, flops = result["sampling"], result["flops"]
    size = f"{sampling['width']} x {sampling['height']} px, {sampling['num_inference_steps']} steps"
    lines = [
        f"model           {result['model']}: {result['dtype']}, {size}",
        f"device          {result['device']}, {result['threads']} threads",
        f"measured        {result['prompts']} prompts, each {_times(result['repeats'])}, {result['clock']} of an image",
        f"one image       {_speed(result)}",
    ]
    if "batch" in result:
        lines.append(f"{result['batch']['images']:<2} a call       {_speed(result['batch'])}")
    lines += [
        f"steering        {result['passes']:.1f} iterations and {result['checks']:.1f} checks for each image, as much "
        f"work as {result['forwards_equivalent']:.1f} calls of the denoiser; an iteration ends after {result['depth']} "
        f"of {result['layers']} layers",
        f"operations      {flops['unsteered']:.3g} unsteered, {flops['steered']:.3g} steered: {flops['ratio']:.2f} "
        f"times (counted on {flops['images']} images)",
    ]
    if result["peak_bytes"] is not None:
        lines.append(
            f"memory          at most {result['peak_bytes'] / 2**30:.2f} GiB at one image a call, with weights"
        )
    if "accuracy" in result:
        lines.append(f"accuracy        {result['unsteered_accuracy']:.3f} unsteered, {result['accuracy']:.3f} steered")
    return lines + [f"note            {note}" for note in result["notes"]]


def _speed(part: Mapping[str, Any]) -> str:
    low, high = part["ratio_interval"]
    return (
        f"{part['unsteered_seconds']:.3g} s unsteered, {part['steered_seconds']:.3g} s steered: {part['ratio']:.2f} "
        f"times (95 %: {low:.2f} to {high:.2f})"
    )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
