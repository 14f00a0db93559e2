"""The verbs that measure how often images show what their prompts say: evaluate, score, audit and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from learn_to_steer.cli.console import progress, show
from learn_to_steer.configs import EvaluateConfig, ScoreConfig
from learn_to_steer.distributed import check_options
from learn_to_steer.shared_options import MAX_LIMIT, MAX_SEED


def evaluate(config: EvaluateConfig) -> None:
    """Measure a model on a benchmark: make images and score them with a detector.

    Writes into --out: the images (in GenEval's folder layout), results.jsonl (one line per image), summary.json,
    config.json and report.html, a page to look at. If it is stopped, run the same command again: it goes on where it
    stopped.
    """
    check_options(config, config.device)  # before torch is imported, which takes long
    # This imports torch.
    from learn_to_steer import evaluation

    with progress("evaluating", "images", config) as advance:
        summary = evaluation.evaluate(config, advance)
    show_summary(summary)
    show(f"Written to {config.out}; look at {config.out}/report.html")


def score(config: ScoreConfig) -> None:
    """Score images that exist already, made by this or another tool.

    Writes into --out: detections.jsonl, results.jsonl (one line per image) and summary.json. Detections are used again
    when the same command runs again. It is an error if an image is missing.
    """
    check_options(config, config.device)  # before torch is imported, which takes long
    # This imports torch.
    from learn_to_steer import evaluation

    with progress("detecting", "images", config) as advance:
        summary = evaluation.score(config, advance)
    show_summary(summary)
    show(f"Written to {config.out}")


def audit(
    folder: Annotated[str, typer.Argument(help="Folder that evaluate wrote.", metavar="DIR")],
    count: Annotated[
        int, typer.Option(min=1, max=MAX_LIMIT, help="Number of images on the page, picked at random.")
    ] = 100,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Random seed of that pick.")] = 0,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Labels that were saved from the page. Then no page is made, and the agreement is shown.",
            show_default="make the page",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Check the automatic scores by eye: make a page for labelling images, or compare its labels with the scores.

    Without --labels it writes DIR/audit.html. Open it in a browser, label the images and save the labels; then run the
    command again with --labels.
    """
    from learn_to_steer.report.audit import agreement, audit_page
    from learn_to_steer.storage import read_json

    if labels is None:
        page = audit_page(folder, count, seed)
        show(f"Open {page} in a browser, label the images, save, and run this again with --labels labels.json")
        return
    result = agreement(folder, read_json(labels))
    low, high = result["same_interval"]
    show(f"{result['pictures']} images: correct by eye {result['manual']:.3f}, by the score {result['automatic']:.3f}")
    kappa = "undefined" if result["kappa"] is None else f"{result['kappa']:.2f}"
    show(f"agreement {result['same']:.3f} (95 %: {low:.3f} to {high:.3f}), Cohen's kappa {kappa}")


def report(
    folder: Annotated[str, typer.Argument(help="Folder that evaluate or score wrote.", metavar="DIR")],
    against: Annotated[
        str | None,
        typer.Option(
            help="Compare with this folder of another evaluation, image by image.",
            show_default="the one it was compared with",
            metavar="DIR",
        ),
    ] = None,
) -> None:
    """Make report.html again, the page about an evaluation: table, images, curves, settings.

    It needs nothing but the folder, and works for folders of older versions and for evaluations that are not finished.
    """
    from learn_to_steer.report.evaluation_report import write_report

    show(f"Look at {write_report(folder, against)}")


def show_summary(summary: Mapping[str, Any]) -> None:
    """Print the main numbers of a summary (summary.json), and of its comparison with another evaluation."""
    low, high = summary["accuracy_interval"]
    show(f"accuracy {summary['accuracy']:.3f} (95 %: {low:.3f} to {high:.3f}), {summary['images']} images")
    present, correct = summary["both_present"], _number(summary["accuracy_where_present"])
    once = "" if summary["each_once"] is None else f"; each exactly once {summary['each_once']:.3f}"
    show(f"all objects present {present:.3f}, of those correct {correct}{once}")
    if len(summary["per_relation"]) > 1:
        show(", ".join(f"{name} {_number(row['accuracy'])}" for name, row in summary["per_relation"].items()))
    if summary["failures"]:
        show("wrong: " + ", ".join(f"{kind} {count}" for kind, count in summary["failures"].items()))
    for name, value in summary["metrics"].items():
        show(f"{name.replace('_', ' ')} {_metric(value)}")
    if summary["passes_per_image"] is not None:
        show(f"per image: {summary['passes_per_image']:.1f} iterations, {summary['seconds_per_image']:.2f} s")
    if summary.get("verifier") and "verified_by" in summary:
        _show_verifier(summary["verifier"], summary["tries_per_image"])
    if "against" in summary:
        _show_comparison(summary["against"])


def _show_verifier(verifier: Mapping[str, Any], tries: float | None) -> None:
    low, high = verifier["agreement_interval"]
    drawn = "" if tries is None else f"{tries:.2f} tries an image; "
    agreement = f"agrees with the score on {verifier['agreement']:.3f} (95 %: {low:.3f} to {high:.3f})"
    show(f"{drawn}what judged the images was satisfied with {verifier['satisfied']:.3f} and {agreement}")


def _show_comparison(result: Mapping[str, Any]) -> None:
    for name in ("correct", "present", "once"):
        if name in result:
            show(f"{name} against {result['folder']}: {_interval(result[name], signed=True)}")
    if "similarity" in result:
        others = f"to images of other prompts {_number(result['similarity_to_strangers'])}"
        show(f"similarity ({result['embedder']}) {_interval(result['similarity'])}, {others}")
    if "background" in result:
        changed, deviation = result["background"]["difference"], result["background"]["deviation"]
        show(f"background: changed by {_interval(changed)}, deviation {_interval(deviation, signed=True)}")


def _interval(values: Sequence[float], signed: bool = False) -> str:
    """A mean with its 95 % interval, from the three numbers."""
    mean, low, high = (f"{value:+.3f}" if signed else f"{value:.3f}" for value in values)
    return f"{mean} (95 %: {low} to {high})"


def _metric(value: float | Mapping[str, float | None] | None) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_number(part)}" for name, part in value.items())
    return _number(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
