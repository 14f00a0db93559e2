"""What is collected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from learn_to_steer.maps import Reduce, Softmax
from learn_to_steer.storage import sha256


@dataclass(frozen=True)
class CollectConfig:
    """What to collect. ``batch`` (pictures a forward, two rows each) changes speed, not content.

    ``model`` is recorded, not loaded; ``data`` is the file that lists the pictures, for sources that read one;
    ``exclude_benchmarks`` leaves out the pairs of objects that a benchmark's prompt names together; ``arguments`` are
    further ones of every pipeline call; ``side`` in pixels; ``levels`` are noise levels (default: eight over the
    noisier three fifths of the schedule); ``quality`` replaces the inversion's own limit; ``reduce`` keeps means over
    heads instead of every head's map (``maps.Layout``), which takes a fraction of the disk; ``softmax`` "joint"
    lets the text columns share it with the picture's, in models that attend to both at once.
    """

    model: str
    source: str
    data: str | None = None
    exclude_benchmarks: bool = False
    inversion: str = "noise"
    inversion_settings: Mapping[str, Any] = field(default_factory=dict)
    limit: int = 1500
    side: int = 128
    seed: int = 0
    levels: tuple[float, ...] | None = None
    diagonals: bool = False
    map_side: int = 16
    quality: float | None = None
    reduce: Reduce = "none"
    softmax: Softmax = "text"
    batch: int = 16
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """Everything that decides the content, as JSON has it; ``data`` as the hash of that file, wherever it lies.

        Raises DataError when the file cannot be read.
        """
        kept = asdict(self)
        del kept["batch"]
        if not self.exclude_benchmarks:
            del kept["exclude_benchmarks"]  # as before there was such a setting
        if self.reduce == "none":
            del kept["reduce"]
        if self.softmax == "text":
            del kept["softmax"]
        kept["data"] = f"sha256:{sha256(self.data)}" if self.data is not None else None
        return kept | {"levels": list(self.levels) if self.levels else None}
