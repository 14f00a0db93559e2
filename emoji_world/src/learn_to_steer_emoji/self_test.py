"""Images whose objects are known, for the self-test of the detectors."""

from __future__ import annotations

from PIL import Image

from learn_to_steer.geometry import Detection
from learn_to_steer_emoji.scenes import Placed, Scene, render, to_pil

SCENES = (
    Scene((Placed("dog", 0.27, 0.3, 0.4), Placed("bus", 0.72, 0.7, 0.4)), "gray"),
    Scene((Placed("banana", 0.3, 0.72, 0.4), Placed("clock", 0.7, 0.28, 0.4)), "white"),
    Scene((Placed("cow", 0.26, 0.5, 0.4), Placed("umbrella", 0.74, 0.5, 0.4)), "gray"),
)


def self_test_images() -> list[tuple[Image.Image, list[Detection]]]:
    """Render clean scenes of two objects each, 128 pixels square.

    Returns:
        Each image with the detections that a working detector makes in it.
    """
    pixels, boxes = render(SCENES, 128)
    objects = [[placed.name for placed in scene.objects] for scene in SCENES]
    return [
        (image, [Detection(name, 1.0, box) for name, box in zip(names, image_boxes, strict=True)])
        for image, names, image_boxes in zip(to_pil(pixels), objects, boxes, strict=True)
    ]
