"""The settings of a collection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from pydantic import Field

from learn_to_steer.configs import CollectSettings
from learn_to_steer.storage import sha256


@dataclass(frozen=True)
class CollectConfig(CollectSettings):
    """Settings of a collection. ``model`` is recorded in the manifest; ``collect`` takes the pipeline itself.

    Raises:
        DataError: A setting has the wrong type or is out of range.
    """

    source: str = field()  # required here; the command line falls back to the source of the model
    """Name of the source of labelled images."""
    inversion: str = field(default="noise")
    """Name of the inversion; "path" for a source whose pictures the model draws."""
    inversion_settings: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the inversion."""
    side: Annotated[int, Field(ge=8, le=8192)] = 128
    """Width and height of the images in pixels."""
    levels: tuple[float, ...] | None = None
    """Noise levels in (0, 1]; None: eight, spread evenly over the first 60 % of the sampling schedule."""
    map_side: Annotated[int, Field(ge=1, le=128)] = 16
    """Width and height to which attention maps are resized."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Further keyword arguments of every pipeline call."""

    def settings(self) -> dict[str, Any]:
        """Return the settings that determine the content, as written to the manifest.

        ``data`` and ``objects`` become hashes of these files. Settings that older collections do not record are left
        out at their defaults, so that such collections can be resumed.

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
        for name in ("objects", "detectors", "contrast"):
            if kept[name] in (None, ""):
                del kept[name]
        if self.objects is not None:
            kept["objects"] = f"sha256:{sha256(self.objects)}"
        kept["data"] = f"sha256:{sha256(self.data)}" if self.data is not None else None
        return kept | {"levels": list(self.levels) if self.levels else None}  # a list, as JSON gives it back
