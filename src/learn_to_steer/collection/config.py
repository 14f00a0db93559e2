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

    source: str = field()  # required: the command line fills in the model's own
    """Name of the source of labelled images."""
    inversion_settings: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the inversion."""
    side: int = 128
    """Width and height of the images in pixels."""
    levels: tuple[float, ...] | None = None
    """Noise levels in (0, 1]; None: eight, spread over the noisier three fifths of the schedule."""
    map_side: int = 16
    """Width and height to which maps are resized."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of every pipeline call."""

    def settings(self) -> dict[str, Any]:
        """Return all that decides the content as JSON has it, with ``data`` as a hash of that file.

        Settings that came later are left out at their defaults, so that older collections stay valid.

        Raises:
            DataError: ``data`` cannot be read.
        """
        kept = asdict(self)
        del kept["batch"]
        if not self.exclude_benchmarks:
            del kept["exclude_benchmarks"]
        if self.reduce == "none":
            del kept["reduce"]
        if self.softmax == "text":
            del kept["softmax"]
        kept["data"] = f"sha256:{sha256(self.data)}" if self.data is not None else None
        return kept | {"levels": list(self.levels) if self.levels else None}
