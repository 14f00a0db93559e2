"""Does a classifier read the relation word instead of the layout? Trained on true prompts only, and on both.

    python runs/leakage.py --model sd:emoji --data out/maps --limit 48

``--data`` is a collection (``learn-to-steer collect``). Both classifiers see the same pictures, sizes and number of
optimiser steps at most (true prompts are half the rows, so they get twice the epochs), without augmentation: a
mirrored map no longer agrees with the trace of its words. Reported: accuracy on wrong-word prompts of held-out
pictures, the share of them on which the prompted word is named instead, and steered accuracy on validation prompts
from the same noise. *Source:* paper, Table 4. Numbers go to docs/results/leakage/MODEL.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from learn_to_steer import storage
from learn_to_steer.evaluation import EvaluateConfig, evaluate
from learn_to_steer.training import TrainConfig, train

ROOT = Path(__file__).resolve().parents[1]
KEPT = ("accuracy", "accuracy_interval", "both_present", "accuracy_where_present", "passes_per_image", "images")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sd:emoji")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--epochs", type=int, default=16, help="of the one trained on both; the other gets twice as many"
    )
    parser.add_argument("--limit", type=int, default=48, help="validation prompts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/leakage"))
    options = parser.parse_args()
    name = options.model.replace(":", "-")
    found = {}
    for prompts, epochs in (("true", 2 * options.epochs), ("both", options.epochs)):
        folder = options.out / name / prompts
        config = TrainConfig(epochs=epochs, prompts=prompts, augment=False, seed=options.seed, patience=epochs)
        train(options.data, folder, config)
        metrics = storage.read_json(folder / "metrics.json")
        summary = evaluate(
            EvaluateConfig(
                model=options.model,
                classifier=str(folder),
                benchmark="geneval-position-val",
                images=1,
                limit=options.limit,
                seed=options.seed,
                out=str(folder / "steered"),
                batch=16,
            )
        )
        probe = metrics.get("test", metrics["val"])
        found[prompts] = {"leakage": probe["leakage"], "pictures": probe["pictures"]} | {k: summary[k] for k in KEPT}
        both = probe["leakage"]["both"]
        print(f"{prompts}: steered {summary['accuracy']:.3f}", {k: round(v, 3) for k, v in both.items()}, flush=True)
        storage.write_json(ROOT / "docs" / "results" / "leakage" / f"{name}.json", found)


if __name__ == "__main__":
    main()
