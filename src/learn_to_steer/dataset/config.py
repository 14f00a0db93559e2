"""What is collected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from learn_to_steer.configs import CollectSettings
from learn_to_steer.storage import sha256


@dataclass(frozen=True)
class CollectConfig(CollectSettings):
    """Everything that a collection depends on. ``model`` is recorded, not loaded."""

    inversion_settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the inversion, by name."""

    side: int = 128
    """Height and width of the images, in pixels."""

    levels: tuple[float, ...] | None = None
    """Noise levels in [0, 1] at which maps are kept. None: eight, over the noisier three fifths of the schedule."""

    map_side: int = 16
    """Height and width that the maps are resized to."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of every pipeline call."""

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
