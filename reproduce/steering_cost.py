"""What cheaper steering gives up, if anything: a model's own classifier against another one, on the same noise.

    python reproduce/steering_cost.py --model flux:emoji --reference DIR --reference-set iterations=2 \\
        --reference-set step_size=0.02                                              # an hour on two cores
    python reproduce/steering_cost.py --model flux:emoji --reference DIR --limit 48 --images 1

Three rows on validation prompts: unsteered; *reference*, a classifier of all layers (--reference) whose images are
checked in forwards of their own, as version 0.1.0 did; and *default*, the model's own. Differences are paired and
clustered by prompt (95 %). What each costs is measured by ``learn-to-steer bench``, since seconds here depend on what
else the machine does.

A script that was stopped goes on where it was. Images go to out/cost, numbers to docs/results/cost/MODEL.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from learn_to_steer import storage
from learn_to_steer.evaluation import EvaluateConfig, compare_rows, evaluate
from tune_steering import settings_of

ROOT = Path(__file__).resolve().parents[1]
KEPT = (
    *("accuracy", "accuracy_interval", "both_present", "each_once", "accuracy_where_present", "images", "prompts"),
    *("passes_per_image", "checks_per_image", "fingerprints"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="flux:emoji")
    parser.add_argument("--reference", required=True, metavar="DIR", help="folder of a classifier of all layers")
    parser.add_argument("--classifier", metavar="DIR", help="another one than the model's own")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--reference-set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="settings of the reference, where they were others",
    )
    parser.add_argument("--benchmark", default="geneval-position-val")
    parser.add_argument("--limit", type=int, default=200, help="prompts")
    parser.add_argument("--images", type=int, default=5, help="images of each prompt, each from a seed of its own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/cost"))
    options = parser.parse_args()
    changed, before = settings_of(options.settings), settings_of(options.reference_set)
    rows: dict[str, dict[str, Any]] = {
        "unsteered": {"objective": "none"},
        "reference": {"classifier": options.reference, "settings": {"check_while_sampling": False, **before}},
        "default": {"classifier": options.classifier, "settings": changed},
    }
    label = options.model.replace(":", "-")
    stored: dict[str, Any] = {}
    for name, more in rows.items():
        folder = options.out / label / name
        config = EvaluateConfig(
            model=options.model,
            benchmark=options.benchmark,
            limit=options.limit,
            images=options.images,
            seed=options.seed,
            batch=16,
            out=str(folder),
            **more,
        )
        summary = evaluate(config)
        stored[name] = {key: summary[key] for key in KEPT}
        print(f"{name:10} {_shown(stored[name])}", flush=True)
        others = [other for other in stored if other != name]
        for other in others:
            pair = [storage.read_jsonl(options.out / label / which / "results.jsonl") for which in (name, other)]
            stored[name][f"minus_{other}"] = difference = compare_rows(*pair)
            shown = (f"{key} {d:+.3f} [{low:+.3f}, {high:+.3f}]" for key, (d, low, high) in _differences(difference))
            print(f"           minus {other}: {', '.join(shown)}", flush=True)
    path = ROOT / "docs" / "results" / "cost" / f"{label}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    storage.write_json(path, {"model": options.model, "seed": options.seed, "rows": stored})


def _differences(comparison: dict[str, Any]) -> list[tuple[str, list[float]]]:
    return [(key, value) for key, value in comparison.items() if isinstance(value, list)]


def _shown(row: dict[str, Any]) -> str:
    low, high = row["accuracy_interval"]
    return (
        f"right {row['accuracy']:.3f} [{low:.3f}, {high:.3f}], present {row['both_present']:.3f}, once "
        f"{row['each_once'] or 0:.3f}, {row['passes_per_image']:.1f} passes and {row['checks_per_image']:.1f} checks, "
        f"{row['images']} images of {row['prompts']} prompts"
    )


if __name__ == "__main__":
    main()
