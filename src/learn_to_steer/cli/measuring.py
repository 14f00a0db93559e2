"""``evaluate``, ``score`` and ``audit``: how often a model's images are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from learn_to_steer.cli.console import progress
from learn_to_steer.configs import EvaluateConfig, ScoreConfig


def evaluate(config: EvaluateConfig) -> None:
    """Measure a model on a benchmark: generate, detect, score. Started again, it goes on where it stopped.

    Writes images (GenEval's folder layout), results.jsonl (a line an image), summary.json and config.json into --out.
    """
    # This imports torch.
    from learn_to_steer import evaluation

    with progress("evaluating", "images") as advance:
        summary = evaluation.evaluate(config, advance)
    show(summary)
    print(f"Written to {config.out}")


def score(config: ScoreConfig) -> None:
    """Score images that exist already, of any tool. Detections are kept, so that scoring again takes seconds.

    Missing images are an error. Writes detections.jsonl, results.jsonl (a line an image) and summary.json into --out.
    """
    # This imports torch.
    from learn_to_steer import evaluation

    with progress("looking", "images") as advance:
        summary = evaluation.score(config, advance)
    show(summary)
    print(f"Written to {config.out}")


def audit(
    folder: Annotated[str, typer.Argument(help="Folder that evaluate wrote.", metavar="DIR")],
    count: Annotated[int, typer.Option(min=1, help="Images on the page, drawn at random.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Seed of that draw.")] = 0,
    labels: Annotated[
        str | None,
        typer.Option(help="The labels saved from the page: report how far the scores agree.", metavar="FILE"),
    ] = None,
) -> None:
    """Make a page to label images by eye (DIR/audit.html), or, with --labels, compare labels and automatic score."""
    from learn_to_steer.report.audit import agreement, audit_page
    from learn_to_steer.storage import read_json

    if labels is None:
        print(f"Open {audit_page(folder, count, seed)} in a browser, label, save, then add --labels labels.json")
        return
    found = agreement(folder, read_json(labels))
    low, high = found["same_interval"]
    print(f"{found['pictures']} pictures: right by eye {found['manual']:.3f}, automatically {found['automatic']:.3f}")
    kappa = "undefined" if found["kappa"] is None else f"{found['kappa']:.2f}"
    print(f"same verdict {found['same']:.3f} (95 %: {low:.3f} to {high:.3f}), kappa {kappa}")


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
