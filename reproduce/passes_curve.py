"""Accuracy against cost: steering with fewer and more passes, by our schedule and by the authors'.

    python reproduce/passes_curve.py --model sd:emoji --limit 32        # ten minutes on two cores
    python reproduce/passes_curve.py --draw                             # only the figures; needs the extra `figures`

Validation prompts, one image each, the same noise everywhere. A pass is a forward and backward of the denoiser for one
image. *forwards* counts three for a pass, one for a check of the stop, and those of the unsteered image: two a step
where classifier-free guidance adds a second row, else one. *front-loaded* is the paper's runtime schedule: up to 16
passes in each of the first 10 or 20 per cent of the steps, then one a step.

A script that was stopped goes on where it was. Numbers go to docs/results/passes/MODEL.json, the figure beside them.
Seconds can only be compared if the machine had no other work.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from learn_to_steer import storage
from learn_to_steer.evaluation import EvaluateConfig, evaluate
from learn_to_steer.model_names import named_variant

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "results" / "passes"
KEPT = (
    *("accuracy", "accuracy_interval", "both_present", "passes_per_image", "checks_per_image", "images"),
    "seconds_per_image",
)
COLOURS = ("tab:green", "tab:gray", "tab:blue")
CERTAIN = 0.99999  # the probability that the authors' smallest loss target stands for
CURVES: dict[str, list[dict[str, Any]]] = {
    "default": [{"total_passes": n} for n in (1, 2, 4, 8, 15, 30)],
    "official": [{"passes": n} for n in (1, 2, 4, 8, 16)],
    "front-loaded": [{"share": share} for share in (0.1, 0.2)],
}


def steering(curve: str, point: dict[str, Any], steps: int) -> dict[str, Any]:
    """Return the steering settings of a point; ``steps`` are the model's denoising steps."""
    if curve != "front-loaded":
        return point
    early = range(max(1, round(point["share"] * steps)))
    return {"passes": 1, "refinement": tuple((step / steps, 15, CERTAIN) for step in early)}


def measure(options: argparse.Namespace) -> None:
    """Make all points and keep their numbers."""
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
    unsteered = steps * (2 if variant.family == "sd" and variant.guidance > 1 else 1)
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
        point["forwards_per_image"] = unsteered + 3 * point["passes_per_image"] + point["checks_per_image"]
        if settings:
            stored["curves"].setdefault(curve, []).append(point)
        else:
            stored["unsteered"] = point
        print(f"{label:28} correct {summary['accuracy']:.3f}  passes {summary['passes_per_image']:.1f}", flush=True)
        storage.write_json(FOLDER / f"{name}.json", stored)


def draw(path: Path) -> None:
    """Draw the figure of one model's numbers."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise SystemExit("the figure needs matplotlib: pip install 'learn-to-steer[figures]'") from error

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
            accuracy = [point["accuracy"] for point in points]
            low, high = zip(*(point["accuracy_interval"] for point in points), strict=True)
            axes.plot(cost, accuracy, "o-", color=colour, label=curve)
            axes.fill_between(cost, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.axhline(stored["unsteered"]["accuracy"], color="black", linestyle=":", label="unsteered")
        axes.set(xscale="log", ylim=(0, 1.03), xlabel=name)
    panels[0][0].set_ylabel("position correct")
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
    parser.add_argument("--draw", action="store_true", help="only draw the figures")
    options = parser.parse_args()
    if not options.draw:
        measure(options)
    for path in sorted(FOLDER.glob("*.json")):
        draw(path)


if __name__ == "__main__":
    main()
