"""Where to set the template judge's threshold: right finds minus false ones, on scenes that the base has redrawn.

    python runs/judge_threshold.py --pictures 96

Scenes as the renderer draws them would set it too high: a base model's sprites are never pixel for pixel the atlas's.
"""

from __future__ import annotations

import argparse

from PIL import Image
from redraw import redrawn
from train_detector import score

from learn_to_steer.emoji import judge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=96, help="of the 256 that the detector does not learn from")
    options = parser.parse_args()
    pixels, labels = redrawn(256, 43)
    seen = []
    for number, picture in enumerate(pixels[: options.pictures], 1):
        drawn = Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).numpy())
        seen.append(judge.find(drawn, threshold=0.1))
        print(f"\r{number} of {options.pictures} pictures", end="", flush=True)
    print()
    for threshold in (round(0.1 + 0.025 * k, 3) for k in range(22)):
        found = score(seen, labels[: options.pictures], threshold)
        mark = "  <- now" if threshold == judge.THRESHOLD else ""
        print(f"{threshold:.3f}  right {found['right']:.3f}  false {found['false']:.3f}{mark}", flush=True)


if __name__ == "__main__":
    main()
