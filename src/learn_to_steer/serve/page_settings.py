"""What is asked for on the page: prompts, their relations and settings, and how they are read back from a picture.

Nothing here knows Gradio, and torch is not imported.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from learn_to_steer.errors import DataError, PromptError
from learn_to_steer.geometry import DIRECTIONS
from learn_to_steer.image_files import png_text
from learn_to_steer.prompts import Analysis, Relation, analyse, indefinite_article, locate, phrase
from learn_to_steer.prompts.chunking import chunk_words
from learn_to_steer.prompts.tagging import Tag, TaggedPrompt
from learn_to_steer.serve.jobs import PNG_KEY, Job
from learn_to_steer.serve.requests import MAX_PROMPT, MAX_RELATIONS, MAX_TRIES
from learn_to_steer.shared_options import MAX_SEED

MAX_PAIRS = 4
MAX_STRENGTH = 4.0
Row = tuple[str, str, str]


class Editor(BaseModel):
    """What the editor of relations holds.

    Attributes:
        rows: Subject, predicate and object of each relation; a word that is not chosen yet is empty.
        nouns: The objects to choose from.
        edited: Whether the user changed the relations, so that they follow the prompt no more.
    """

    model_config = ConfigDict(extra="ignore")

    rows: Annotated[list[Row], Field(max_length=MAX_RELATIONS)] = []
    nouns: Annotated[list[str], Field(max_length=1000)] = []
    edited: bool = False

    def relations(self) -> list[str]:
        """Return the relations of rows that are complete, written as "dog | left of | cat"."""
        return [" | ".join(row) for row in self.rows if all(word.strip() for word in row)]


class PageSettings(BaseModel):
    """What is to be drawn: some pairs of an unsteered and a steered picture from the same noise."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT)]
    relations: Annotated[list[str], Field(max_length=MAX_RELATIONS)]
    seed: Annotated[int, Field(ge=0, le=MAX_SEED - MAX_PAIRS)]
    pairs: Annotated[int, Field(ge=1, le=MAX_PAIRS)] = 1
    tries: Annotated[int, Field(ge=1, le=MAX_TRIES)] = 1
    strength: Annotated[float, Field(ge=0, le=MAX_STRENGTH)] = 1.0

    def jobs(self, resolution: int, steered: bool) -> list[Job]:
        """Return the pictures to draw, for each seed the unsteered one and, if there is what to steer to, the steered.

        Args:
            resolution: Height and width in pixels.
            steered: Whether the model has a classifier.

        Raises:
            PromptError: A relation names what is not in the prompt.
        """
        jobs = []
        relations = tuple(locate(self.prompt, Relation.from_text(text)) for text in self.relations)
        for seed in range(self.seed, self.seed + self.pairs):
            job = Job(self.prompt, seed, resolution, resolution, relations, found=False, watched=True)
            jobs.append(replace(job, steer=False))
            if steered and relations:
                jobs.append(replace(job, tries=self.tries, strength=self.strength))
        return jobs


def check_settings(**values: Any) -> PageSettings:
    """Return settings from the fields of the page.

    Raises:
        PromptError: A value is out of range, or a relation names what is not in the prompt.
    """
    if not str(values.get("prompt", "")).strip():
        raise PromptError("Write a prompt first, for example “a dog to the left of a cat”.")
    try:
        settings = PageSettings(**values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise PromptError(f"{first['loc'][0] if first['loc'] else 'settings'}: {first['msg']}") from error
    for text in settings.relations:
        locate(settings.prompt, Relation.from_text(text))
    return settings


def new_seed() -> int:
    """Return a seed that is short enough to be read aloud."""
    return secrets.randbelow(100_000)


def follow_prompt(prompt: str, editor: Editor) -> tuple[Editor, str]:
    """Return the editor after the prompt was changed, and a remark on the relations, which may be empty.

    Relations that the user edited stay as long as both of their objects are in the prompt; others are those that are
    found in it.

    Args:
        prompt: The prompt.
        editor: The editor before.
    """
    if not prompt.strip():
        return Editor(), ""
    nouns = nouns_in(prompt)
    if editor.edited:
        kept = [row for row in editor.rows if _can_be_located(prompt, row)]
        if kept:
            return Editor(rows=kept, nouns=nouns, edited=True), contradiction(kept)
    try:
        found = analyse(prompt)
    except PromptError as error:
        return Editor(nouns=nouns), str(error)
    rows: list[Row] = [(one.subject, one.predicate, one.object) for one in found.relations[:MAX_RELATIONS]]
    nouns = list(dict.fromkeys([*(word for row in rows for word in (row[0], row[2])), *nouns]))
    return Editor(rows=rows, nouns=nouns), _remarks(found) or contradiction(rows)


def nouns_in(prompt: str) -> list[str]:
    """Return the nouns of a prompt, in lower case, each once."""
    try:
        chunks = chunk_words(TaggedPrompt(prompt, ()))
    except PromptError:
        return []
    return list(dict.fromkeys(chunk.text.lower() for chunk in chunks if chunk.tag is Tag.NOUN))


def compose_prompt(rows: Sequence[Row]) -> str:
    """Word some relations as one prompt, in which an object that comes again is "the" object.

    Args:
        rows: Subject, predicate and object of each; rows that are not complete are left out.
    """
    named: set[str] = set()

    def with_article(noun: str) -> str:
        article = "the" if noun in named else indefinite_article(noun)
        named.add(noun)
        return f"{article} {noun}"

    parts = []
    for subject, predicate, object in rows:
        subject, object = (re.sub(r"[^\w\s'-]", "", noun).strip().lower() for noun in (subject, object))
        if subject and object and predicate in DIRECTIONS:
            parts.append(f"{with_article(subject)} {phrase(predicate)} {with_article(object)}")
    return ", and ".join(parts)


def contradiction(rows: Sequence[Row]) -> str:
    """Say which relations cannot hold together; empty if they can.

    Args:
        rows: Subject, predicate and object of each.
    """
    for axis, name in ((0, "from left to right"), (1, "from top to bottom")):
        after: dict[str, set[str]] = {}
        for subject, predicate, object in rows:
            if subject and subject == object:
                return f"“{subject}” cannot be {predicate} itself."
            for its_axis, subject_first in DIRECTIONS.get(predicate, ()):
                if its_axis == axis:
                    first, second = (subject, object) if subject_first else (object, subject)
                    after.setdefault(first, set()).add(second)
        for start in after:
            if start in _reached(start, after):
                return f"These relations contradict each other: “{start}” would come before itself {name}."
    return ""


def read_picture(path: str | PathLike[str]) -> dict[str, Any]:
    """Return the settings in a PNG file that this server wrote.

    Args:
        path: The file.

    Returns:
        The JSON object in its text chunk ``PNG_KEY``.

    Raises:
        DataError: It is no PNG file, or holds no settings.
    """
    try:
        text = png_text(path, PNG_KEY)
    except DataError as error:
        raise DataError("This file is no PNG picture.") from error
    if text is None:
        raise DataError("This picture holds no settings of Learn-to-Steer. Pictures drawn here do.")
    try:
        return _Stored.model_validate_json(text).model_dump()
    except ValidationError as error:
        raise DataError("The settings in this picture cannot be read.") from error


class _Stored(BaseModel):
    """The settings in a picture, as far as the page uses them."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    model: Annotated[str, Field(max_length=400)] = ""
    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT)]
    seed: Annotated[int, Field(ge=0, le=MAX_SEED - MAX_PAIRS)]
    relations: Annotated[list[str], Field(max_length=MAX_RELATIONS)] | None = None
    tries: Annotated[int, Field(ge=1, le=MAX_TRIES)] = 1
    strength: Annotated[float, Field(ge=0, le=MAX_STRENGTH)] = 1.0


def _can_be_located(prompt: str, row: Row) -> bool:
    try:
        locate(prompt, Relation.from_text(" | ".join(row)))
    except PromptError:
        return False
    return True


def _remarks(found: Analysis) -> str:
    if found.passed_over:
        first = found.passed_over[0]
        about = f": {first.noun}" if first.noun else ""
        return f"Passed over: “{first.wording}” ({first.reason}{about})."
    return "" if not found.warning else "The prompt is long; check the relations."


def _reached(start: str, after: dict[str, set[str]]) -> set[str]:
    """All that comes after ``start``."""
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        for one in after.get(waiting.pop(), ()):
            if one not in reached:
                reached.add(one)
                waiting.append(one)
    return reached
