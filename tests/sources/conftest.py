"""Pictures to put under the annotations, and boxes that stand in a given relation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# Boxes (x0, y0, x1, y1) of subject and object in a picture of 120 x 80.
PLACES = {
    "left of": ((5, 25, 35, 55), (80, 25, 110, 55)),
    "right of": ((80, 25, 110, 55), (5, 25, 35, 55)),
    "above": ((40, 2, 70, 32), (40, 45, 70, 75)),
    "below": ((40, 45, 70, 75), (40, 2, 70, 32)),
    "is": ((30, 10, 90, 70), (45, 25, 75, 55)),
}
SIZE = (120, 80)


@pytest.fixture
def paint() -> Callable[..., Path]:
    """``paint(path, size)``: write a picture of noise that no other path has."""

    def write(path: Path, size: tuple[int, int] = SIZE) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(list(path.name.encode()))
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
        return path

    return write
