"""Correct and false detections of template matching at many thresholds, on scenes that the base model has redrawn.

    python training/template_threshold.py --images 96      # two minutes

The best threshold has the largest difference of the two. On scenes as rendered it would come out too high: sprites
that a model draws never equal those of the atlas in every pixel.
"""

from __future__ import annotations

import argparse

from learn_to_steer_emoji import template_matching
from learn_to_steer_emoji.scenes import to_pil
from redraw import redrawn
from train_detector import score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=96, help="of the 256 that the detector is not trained on")
    options = parser.parse_args()
    pixels, labels = redrawn(256, 43)
    detections = []
    for number, image in enumerate(to_pil(pixels[: options.images]), 1):
        detections.append(template_matching.find(image, threshold=0.1))
        print(f"\r{number} of {options.images} images", end="", flush=True)
    print()
    for threshold in (round(0.1 + 0.025 * k, 3) for k in range(22)):
        shares = score(detections, labels[: options.images], threshold)
        mark = "  <- in use" if threshold == template_matching.THRESHOLD else ""
        print(f"{threshold:.3f}  correct {shares['correct']:.3f}  false {shares['false']:.3f}{mark}", flush=True)


if __name__ == "__main__":
    main()
