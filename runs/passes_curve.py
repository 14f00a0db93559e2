"""Accuracy against passes: our loop cut short at several totals, the authors' at several passes a step.

    python runs/passes_curve.py --model sd:emoji --limit 32        # resumable
    python runs/passes_curve.py --draw                             # the figures alone; needs the extra `figures`

Validation prompts, one image each, the same noise everywhere. A pass is one forward and backward of the denoiser for
one image. Numbers go to docs/results/passes/MODEL.json, the figure beside them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from learn_to_steer import storage
from learn_to_steer.evaluation import EvaluateConfig, evaluate

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "results" / "passes"
KEPT = ("accuracy", "accuracy_interval", "both_present", "passes_per_image", "checks_per_image", "images")
CURVES = {
    "default": [{"total_passes": n} for n in (1, 2, 4, 8, 15, 30)],
    "official": [{"passes": n} for n in (1, 2, 4, 8, 16)],
}


def measure(options: argparse.Namespace) -> None:
    name = options.model.replace(":", "-")
    stored: dict = {
        "model": options.model,
        "prompts": options.limit,
        "dtype": options.dtype,
        "seed": options.seed,
        "curves": {},
    }
    rows = [("none", "default", {}), *(("learned", p, s) for p, settings in CURVES.items() for s in settings)]
    for objective, profile, settings in rows:
        label = " ".join([profile, *(f"{k}={v}" for k, v in settings.items())]) if settings else "unsteered"
        summary = evaluate(
            EvaluateConfig(
                model=options.model,
                objective=objective,
                profile=profile,
                benchmark="geneval-position-val",
                images=1,
                limit=options.limit,
                seed=options.seed,
                settings=settings,
                out=str(options.out / name / label),
                dtype=options.dtype,
                batch=16,
            )
        )
        point = {key: summary[key] for key in KEPT} | {"settings": settings}
        if settings:
            stored["curves"].setdefault(profile, []).append(point)
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
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for (profile, points), colour in zip(stored["curves"].items(), ("tab:green", "tab:gray"), strict=False):
        passes = [point["passes_per_image"] for point in points]
        right = [point["accuracy"] for point in points]
        low, high = zip(*(point["accuracy_interval"] for point in points), strict=True)
        axes.plot(passes, right, "o-", color=colour, label=profile)
        axes.fill_between(passes, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(stored["unsteered"]["accuracy"], color="black", linestyle=":", label="unsteered")
    axes.set(xscale="log", ylim=(0, 1.03), xlabel="passes per image", ylabel="position right")
    axes.set_title(f"{stored['model']}, {stored['prompts']} validation prompts, 95 % intervals", fontsize=10)
    axes.legend(frameon=False)
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
