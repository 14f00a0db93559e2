"""Several tries with steering against the best of n images without it, at equal time.

    python reproduce/tries.py --model sd:emoji                  # some hours on two cores
    python reproduce/tries.py --model sd:emoji --benchmark multi-relation-val-3-2 --limit 40

An image that fails is drawn again, at most K times in all (--tries), and the best is kept. What looks at images is not
the detector that scores them. Rows: unsteered, one image; *steered*, K tries for each K; *unsteered*, best of n: for
each K the least n (--most at most) whose images take at least as long as the steered ones, so that rounding is in their
favour. Seconds of an image contain every try and every look. They are those of the clock: run this on an idle machine.

Shares have 95 % intervals clustered by prompt. Differences between a steered row and its unsteered partner are paired
by prompt and number of the image. A script that was stopped goes on where it was. Images go to out/tries, numbers to
docs/results/tries/MODEL-BENCHMARK.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from learn_to_steer import storage
from learn_to_steer.evaluation import EvaluateConfig, compare_rows, evaluate
from learn_to_steer.result_rows import FILE as RESULTS

ROOT = Path(__file__).resolve().parents[1]
KEPT = (
    *("accuracy", "accuracy_interval", "both_present", "each_once", "images", "prompts", "passes_per_image"),
    *("seconds_per_image", "tries_per_image", "verifier", "judged_by", "verified_by", "fingerprints"),
)
NUMBERS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)  # of the best-of-n rows


class Comparison:
    """The rows of one comparison; each is drawn once.

    Attributes:
        options: The options of the command line.
        rows: What was measured, by name.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.rows: dict[str, dict[str, Any]] = {}
        self.label = f"{options.model}-{options.benchmark}".replace(":", "-")

    def folder(self, name: str) -> Path:
        """The images and results of a row."""
        return Path(self.options.out) / self.label / name

    def row(self, tries: int, *, steered: bool) -> str:
        """Measure a row unless that was done; returns its name."""
        options, name = self.options, f"{'steered' if steered else 'unsteered'}-{tries}"
        if name not in self.rows:
            config = EvaluateConfig(
                model=options.model,
                objective="learned" if steered else "none",
                benchmark=options.benchmark,
                detector=options.detector,
                verifier=options.verifier if tries > 1 else None,
                tries=tries,
                limit=options.limit,
                images=options.images,
                seed=options.seed,
                batch=16,
                out=str(self.folder(name)),
            )
            summary = evaluate(config)
            self.rows[name] = {key: summary[key] for key in KEPT if key in summary}
            print(f"{name:14} {_shown(self.rows[name])}", flush=True)
        return name

    def partner(self, steered: str) -> str:
        """The best-of-n row that takes at least as long as a steered one, or the largest."""
        name = ""
        for number in (one for one in NUMBERS if one <= self.options.most):
            name = self.row(number, steered=False)
            if self.rows[name]["seconds_per_image"] >= self.rows[steered]["seconds_per_image"]:
                break
        return name

    def compare(self, steered: str, other: str) -> None:
        """Enter and print the paired difference of two rows."""
        pair = [storage.read_jsonl(self.folder(name) / RESULTS) for name in (steered, other)]
        difference = compare_rows(*pair)
        self.rows[steered]["minus"] = {"row": other, **difference}
        shown = (f"{k} {v[0]:+.3f} [{v[1]:+.3f}, {v[2]:+.3f}]" for k, v in difference.items() if isinstance(v, list))
        print(f"{steered:14} minus {other}: {', '.join(shown)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sd:emoji")
    parser.add_argument("--benchmark", default="geneval-position-val")
    parser.add_argument("--tries", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--most", type=int, default=NUMBERS[-1], help="largest n of the best-of-n rows")
    parser.add_argument("--detector", help="what scores; the model's own by default")
    parser.add_argument("--verifier", help="what looks at images while they are drawn; the model's own by default")
    parser.add_argument("--limit", type=int, default=100, help="prompts")
    parser.add_argument("--images", type=int, default=2, help="images of each prompt, each from a seed of its own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/tries"))
    options = parser.parse_args()
    comparison = Comparison(options)
    comparison.row(1, steered=False)
    for tries in options.tries:
        steered = comparison.row(tries, steered=True)
        comparison.compare(steered, comparison.partner(steered))
    path = ROOT / "docs" / "results" / "tries" / f"{comparison.label}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = {"model": options.model, "benchmark": options.benchmark, "seed": options.seed}
    storage.write_json(path, settings | {"rows": comparison.rows})


def _shown(row: dict[str, Any]) -> str:
    low, high = row["accuracy_interval"]
    text = (
        f"right {row['accuracy']:.3f} [{low:.3f}, {high:.3f}], once {row['each_once'] or 0:.3f}, "
        f"{row['tries_per_image']:.2f} tries, {row['seconds_per_image']:.2f} s, {row['images']} images of "
        f"{row['prompts']} prompts"
    )
    if "verified_by" in row and row["verifier"]:
        low, high = row["verifier"]["agreement_interval"]
        text += f", verifier agrees on {row['verifier']['agreement']:.3f} [{low:.3f}, {high:.3f}]"
    return text


if __name__ == "__main__":
    main()
