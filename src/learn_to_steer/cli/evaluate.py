"""``evaluate``: a model on a benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from learn_to_steer.cli import options
from learn_to_steer.cli.console import progress
from learn_to_steer.cli.model_options import general, placed, sampled, taking


@taking(placed, sampled, general)
def evaluate(
    benchmark: Annotated[
        str | None, typer.Option(help="See: list benchmarks.", metavar="NAME", show_default=False)
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            help="Your own prompts instead: lines with 'prompt' and, if you like, 'relations'.",
            metavar="FILE.jsonl",
            show_default=False,
        ),
    ] = None,
    data: options.Data = None,
    objective: options.Objective = "learned",
    detector: options.Detector = None,
    verifier: Annotated[
        str | None,
        typer.Option(
            help="For the objective for-unified: a detector that looks at each picture before it is drawn a second "
            "time, what was missing mended, and keeps the better of the two.",
            metavar="NAME[:SOURCE]",
            show_default=False,
        ),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Images of each prompt.")] = 4,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Only so many prompts: a seeded subset, every task and relation in its share.",
            show_default="all",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Noise depends on seed, prompt and image number only.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 8,
    against: options.Against = None,
    similarity: options.Similarity = None,
    out: Annotated[str, typer.Option(help="Folder of the results.", metavar="DIR")] = "out/evaluate",
    *,
    chosen: dict[str, Any],
) -> None:
    """Measure a model on a benchmark: generate, detect, score. Started again, it goes on where it stopped.

    Writes images (GenEval's folder layout), results.jsonl (a line an image),
    summary.json and config.json into --out.
    """
    # torch comes in here.
    from learn_to_steer.evaluation import EvaluateConfig
    from learn_to_steer.evaluation import evaluate as run

    config = EvaluateConfig(
        benchmark=benchmark,
        prompts=prompts,
        data=data,
        objective=objective,
        detector=detector,
        verifier=verifier,
        images=images,
        limit=limit,
        seed=seed,
        batch=batch,
        against=against,
        similarity=similarity,
        out=out,
        **chosen,
    )
    with progress("evaluating", "images") as advance:
        summary = run(config, advance)
    show(summary)
    print(f"Written to {out}")


def show(summary: Mapping[str, Any]) -> None:
    """Print what matters of a summary, and of its difference from another one."""
    low, high = summary["accuracy_interval"]
    print(f"accuracy {summary['accuracy']:.3f} (95 %: {low:.3f} to {high:.3f}), {summary['images']} images")
    present, right = summary["both_present"], _number(summary["accuracy_where_present"])
    once = "" if summary["each_once"] is None else f"; each exactly once {summary['each_once']:.3f}"
    print(f"all objects present {present:.3f}, of those right {right}{once}")
    if len(summary["per_relation"]) > 1:
        print(", ".join(f"{name} {_number(found['accuracy'])}" for name, found in summary["per_relation"].items()))
    if summary["failures"]:
        print("wrong: " + ", ".join(f"{kind} {count}" for kind, count in summary["failures"].items()))
    for name, value in summary["metrics"].items():
        print(f"{name.replace('_', ' ')} {_metric(value)}")
    if summary["passes_per_image"] is not None:
        print(f"per image: {summary['passes_per_image']:.1f} passes, {summary['seconds_per_image']:.2f} s")
    if "against" in summary:
        _show_difference(summary["against"])


def _show_difference(found: Mapping[str, Any]) -> None:
    for name in ("correct", "present", "once"):
        if name in found:
            print(f"{name} against {found['folder']}: {_interval(found[name], signed=True)}")
    if "similarity" in found:
        strangers = _number(found["similarity_to_strangers"])
        told = f"to pictures of other prompts {strangers}"
        print(f"similarity ({found['embedder']}) {_interval(found['similarity'])}, {told}")
    if "background" in found:
        changed, deviation = found["background"]["difference"], found["background"]["deviation"]
        print(f"background: changed by {_interval(changed)}, deviation {_interval(deviation, signed=True)}")


def _interval(found: Sequence[float], signed: bool = False) -> str:
    mean, low, high = (f"{value:+.3f}" if signed else f"{value:.3f}" for value in found)
    return f"{mean} (95 %: {low} to {high})"


def _metric(value: float | Mapping[str, float | None] | None) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_number(share)}" for name, share in value.items())
    return _number(value)


def _number(share: float | None) -> str:
    return "-" if share is None else f"{share:.3f}"
