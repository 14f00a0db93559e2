"""Where to set the template judge's threshold: right finds minus false ones, on scenes that the base has redrawn.

    python training/judge_threshold.py --pictures 96

Scenes as the renderer draws them would set it too high: a base model's sprites are never pixel for pixel the atlas's.
"""

from __future__ import annotations

import argparse

from learn_to_steer_emoji import template_matching
from learn_to_steer_emoji.scenes import pictures
from redraw import redrawn
from train_detector import score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=96, help="of the 256 that the detector does not learn from")
    options = parser.parse_args()
    pixels, labels = redrawn(256, 43)
    seen = []
    for number, drawn in enumerate(pictures(pixels[: options.pictures]), 1):
        seen.append(template_matching.find(drawn, threshold=0.1))
        print(f"\r{number} of {options.pictures} pictures", end="", flush=True)
    print()
    for threshold in (round(0.1 + 0.025 * k, 3) for k in range(22)):
        found = score(seen, labels[: options.pictures], threshold)
        mark = "  <- now" if threshold == template_matching.THRESHOLD else ""
        print(f"{threshold:.3f}  right {found['right']:.3f}  false {found['false']:.3f}{mark}", flush=True)


if __name__ == "__main__":
    main()
