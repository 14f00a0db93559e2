"""What was drawn on the page before, as the browser keeps it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from learn_to_steer.errors import SteerError
from learn_to_steer.serve.page_drawing import Sheet
from learn_to_steer.serve.page_settings import PageSettings
from learn_to_steer.serve.pictures import PictureFolder

KEPT = 12


class KeptSheet(BaseModel):
    """A finished picture: where it is, and what is known of it."""

    model_config = ConfigDict(extra="ignore")

    name: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    steering: dict[str, Any]
    details: dict[str, Any]
    steer: bool
    seed: int


class Entry(BaseModel):
    """Pictures that were drawn at one time, and the settings they were drawn with."""

    model_config = ConfigDict(extra="ignore")

    settings: PageSettings
    sheets: Annotated[list[KeptSheet], Field(min_length=1, max_length=16)]

    @property
    def thumb(self) -> str:
        """Id of the picture that stands for all."""
        return next((sheet.name for sheet in self.sheets if sheet.steer), self.sheets[0].name)

    def restore(self, resolution: int, steps: Sequence[Sheet] = ()) -> list[Sheet]:
        """Return the sheets again.

        Args:
            resolution: Height and width in pixels.
            steps: Sheets whose denoising steps are still known.
        """
        known = {sheet.name: sheet for sheet in steps}
        jobs = {(job.seed, job.steer): job for job in self.settings.jobs(resolution, steered=True)}
        return [
            known.get(one.name) or Sheet(jobs[one.seed, one.steer], [], one.name, one.steering, one.details)
            for one in self.sheets
            if (one.seed, one.steer) in jobs
        ]


def entry_of(settings: PageSettings, sheets: Iterable[Sheet]) -> Entry | None:
    """Return the entry of some pictures; None if all failed."""
    kept = [
        KeptSheet(
            name=sheet.name,
            steering=sheet.steering,
            details=sheet.details,
            steer=sheet.job.steer,
            seed=sheet.job.seed,
        )
        for sheet in sheets
        if sheet.name is not None
    ]
    return Entry(settings=settings, sheets=kept) if kept else None


def read_entries(stored: object, pictures: PictureFolder) -> list[Entry]:
    """Return the entries that a browser kept, as far as their pictures are still there.

    Args:
        stored: What the browser sent, which may be anything.
        pictures: The folder of pictures.
    """
    entries = []
    for one in stored[:KEPT] if isinstance(stored, list) else []:
        try:
            entry = Entry.model_validate(one)
            entry.restore(0)  # for its errors
        except (ValidationError, SteerError):
            continue
        if all(pictures.read(sheet.name) is not None for sheet in entry.sheets):
            entries.append(entry)
    return entries
