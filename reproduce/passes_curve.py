"""Accuracy against cost: our loop cut short at several totals, the authors' at several passes a step and front-loaded.

    python reproduce/passes_curve.py --model sd:emoji --limit 32        # resumable
    python reproduce/passes_curve.py --draw                             # the figures alone; needs the extra `figures`

Validation prompts, one image each, the same noise everywhere. A pass is one forward and backward of the denoiser for
one image. *forwards* counts a pass as three, a check of the stop as one, and what the picture costs unsteered: a step
is two forwards where guidance is a second row. *front-loaded* is the paper's runtime schedule: all passes in the first
10 or 20 per cent of the steps, then one a step. Numbers go to docs/results/passes/MODEL.json, the figure beside them;
seconds are worth reading from a quiet machine alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from learn_to_steer import storage
from learn_to_steer.evaluation import EvaluateConfig, evaluate
from learn_to_steer.loading import named_variant

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "results" / "passes"
KEPT = (
    *("accuracy", "accuracy_interval", "both_present", "passes_per_image", "checks_per_image", "images"),
    "seconds_per_image",
)
COLOURS = ("tab:green", "tab:gray", "tab:blue")
CERTAIN = 0.99999  # the probability at the authors' smallest loss target
CURVES: dict[str, list[dict[str, Any]]] = {
    "default": [{"total_passes": n} for n in (1, 2, 4, 8, 15, 30)],
    "official": [{"passes": n} for n in (1, 2, 4, 8, 16)],
    "front-loaded": [{"share": share} for share in (0.1, 0.2)],
}


def steering(curve: str, point: dict[str, Any], steps: int) -> dict[str, Any]:
    """Steering settings of a point; sixteen passes in the first ``share`` of ``steps``, one later."""
    if curve != "front-loaded":
        return point
    early = range(max(1, round(point["share"] * steps)))
    return {"passes": 1, "refinement": tuple((step / steps, 15, CERTAIN) for step in early)}


def measure(options: argparse.Namespace) -> None:
    name = options.model.replace(":", "-")
    stored: dict[str, Any] = {
        "model": options.model,
        "prompts": options.limit,
        "dtype": options.dtype,
        "seed": options.seed,
        "curves": {},
    }
    variant = named_variant(options.model)
    if variant is None:
        raise SystemExit(f"{options.model} is not one of the named models: its steps are not known here")
    steps = variant.steps
    alone = steps * (2 if variant.family == "sd" and variant.guidance > 1 else 1)
    rows = [("none", "default", {}), *(("learned", p, s) for p, settings in CURVES.items() for s in settings)]
    for objective, curve, settings in rows:
        label = " ".join([curve, *(f"{k}={v}" for k, v in settings.items())]) if settings else "unsteered"
        summary = evaluate(
            EvaluateConfig(
                model=options.model,
                objective=objective,
                profile="official" if curve == "front-loaded" else curve,
                benchmark="geneval-position-val",
                images=1,
                limit=options.limit,
                seed=options.seed,
                settings=steering(curve, settings, steps),
                out=str(options.out / name / label),
                dtype=options.dtype,
                batch=16,
            )
        )
        point = {key: summary[key] for key in KEPT} | {"settings": settings}
        point["forwards_per_image"] = alone + 3 * point["passes_per_image"] + point["checks_per_image"]
        if settings:
            stored["curves"].setdefault(curve, []).append(point)
        else:
            stored["unsteered"] = point
        print(f"{label:28} right {summary['accuracy']:.3f}  passes {summary['passes_per_image']:.1f}", flush=True)
        storage.write_json(FOLDER / f"{name}.json", stored)


def draw(path: Path) -> None:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise SystemExit("the numbers are there; for the figure: pip install 'learn-to-steer[figures]'") from error

    stored = storage.read_json(path)
    costs = {"passes_per_image": "passes per image", "forwards_per_image": "forwards per image"}
    costs |= {"seconds_per_image": "seconds per image"}
    costs = {key: name for key, name in costs.items() if key in stored["unsteered"]}
    figure, panels = plt.subplots(
        1, len(costs), figsize=(1 + 5 * len(costs), 3.6), layout="constrained", sharey=True, squeeze=False
    )
    for axes, (key, name) in zip(panels[0], costs.items(), strict=True):
        for (curve, points), colour in zip(stored["curves"].items(), COLOURS, strict=False):
            cost = [point[key] for point in points]
            right = [point["accuracy"] for point in points]
            low, high = zip(*(point["accuracy_interval"] for point in points), strict=True)
            axes.plot(cost, right, "o-", color=colour, label=curve)
            axes.fill_between(cost, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.axhline(stored["unsteered"]["accuracy"], color="black", linestyle=":", label="unsteered")
        axes.set(xscale="log", ylim=(0, 1.03), xlabel=name)
    panels[0][0].set_ylabel("position right")
    panels[0][0].legend(frameon=False)
    figure.suptitle(f"{stored['model']}, {stored['prompts']} validation prompts, 95 % intervals", fontsize=10)
    figure.savefig(path.with_suffix(".png"), dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sd:emoji")
    parser.add_argument("--limit", type=int, default=32, help="validation prompts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/passes"))
    parser.add_argument("--dtype", help="bfloat16 is twice as fast on a CPU that computes in it")
    parser.add_argument("--draw", action="store_true")
    options = parser.parse_args()
    if not options.draw:
        measure(options)
    for path in sorted(FOLDER.glob("*.json")):
        draw(path)


if __name__ == "__main__":
    main()
