"""What is collected."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class CollectConfig:
    """What to collect. ``batch`` (pictures a forward, two rows each) changes speed, not content.

    ``model`` is recorded, not loaded; ``side`` in pixels; ``levels`` are noise levels (default: eight over the noisier
    three fifths of the schedule); ``quality`` replaces the inversion's own limit.
    """

    model: str
    source: str = "emoji"
    inversion: str = "noise"
    limit: int = 1500
    side: int = 128
    seed: int = 0
    levels: tuple[float, ...] | None = None
    diagonals: bool = False
    map_side: int = 16
    quality: float | None = None
    batch: int = 16

    def settings(self) -> dict[str, Any]:
        """Everything that decides the content, as JSON has it."""
        kept = asdict(self)
        del kept["batch"]
        return kept | {"levels": list(self.levels) if self.levels else None}
