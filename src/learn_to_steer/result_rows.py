"""Read the rows of ``results.jsonl`` back, one per image, with a check of every field."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from learn_to_steer import storage

FILE = "results.jsonl"
Number = Annotated[int, Field(ge=0, le=2**31)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class BoxEntry(BaseModel):
    """A detection."""

    name: str
    score: Annotated[float, Field(ge=0, le=1)]
    box: Annotated[list[Finite], Field(min_length=4, max_length=4)]
    color: str | None = None


class StepEntry(BaseModel):
    """A steered denoising step; see ``steering.report.StepReport``."""

    step: Number
    passes: Number = 0
    probability: list[Finite] = []


class ResultRow(BaseModel):
    """The fields of a row. All but two may be absent, since readers need different ones; further ones are allowed."""

    model_config = ConfigDict(extra="allow")

    index: Number
    sample: Number
    tag: Any = ""
    prompt: str = ""
    relations: list[Annotated[list[str], Field(min_length=3, max_length=3)]] = []
    passes: Number | None = None
    checks: Number | None = None
    converged: bool | None = None
    probability: list[Finite] | None = None
    steps: list[StepEntry] | None = None
    note: str | None = None
    satisfied: bool | None = None
    tries: Number | None = None
    why: str | None = None
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    correct: bool = False
    present: bool = False
    once: bool | None = None
    held: list[bool] = []
    on_axis: list[bool | None] = []
    reason: str = ""
    scores: dict[str, Finite | bool | None] = {}
    boxes: list[BoxEntry] = []

    @model_validator(mode="after")
    def _one_value_per_relation(self) -> ResultRow:
        given = self.model_fields_set
        for name, values in (("held", self.held), ("on_axis", self.on_axis)):
            if {name, "relations"} <= given and len(values) != len(self.relations):
                raise ValueError(f"{name} has {len(values)} values for {len(self.relations)} relations")
        return self


def row_key(row: Mapping[str, Any]) -> tuple[int, int]:
    """The key of a row's image: index of its prompt and number of the image."""
    return int(row["index"]), int(row["sample"])


def image_id(row: Mapping[str, Any]) -> str:
    """The id of an image in labels, such as "00353-0000": index of its prompt and number of the image."""
    return f"{row['index']:05d}-{row['sample']:04d}"


def image_path(folder: Path, index: int, sample: int) -> Path:
    """Where ``evaluate`` puts image ``sample`` of the prompt with ``index``."""
    return folder / "images" / f"{index:05d}" / "samples" / f"{sample:04d}.png"


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a folder that ``evaluate`` or ``score`` wrote.

    Args:
        folder: The folder.

    Returns:
        The rows, in the order of the file; none if there is no such file.

    Raises:
        DataError: A row is malformed; the message names line and field.
    """
    path = folder / FILE
    return storage.read_jsonl(path, ResultRow) if path.exists() else []
