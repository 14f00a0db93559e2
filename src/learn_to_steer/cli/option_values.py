"""Checks of option values that hold for every option, before a verb sees them.

Numbers are finite. Texts can be written to files. A name (anything but a prompt, a relation or a setting) is not empty,
has no control characters, is not too long for a file name, and its ``~`` is the user's home.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import typer

from learn_to_steer.plain_text import has_lone_surrogate, printable

FREE_TEXT = ("prompt", "relations", "setting")  # parameters whose values are not names
LONGEST_NAME = 255  # bytes between two slashes: the limit of common file systems


def checked(value: Any, parameter: Any, context: typer.Context) -> Any:
    """Return the value of an option or argument, with ``~`` expanded.

    Args:
        value: The value that typer read, or a list of them.
        parameter: The option or argument, an object of click.
        context: The context of the command.

    Raises:
        typer.BadParameter: A value is not usable.
    """
    if isinstance(value, (list, tuple)):
        return [checked(item, parameter, context) for item in value]
    problem = None
    if isinstance(value, float) and not math.isfinite(value):
        problem = f"{value} is not a finite number."
    elif isinstance(value, (str, Path)):
        text = str(value)
        if parameter.name not in FREE_TEXT:
            text = os.path.expanduser(text)
            problem = _problem_of_name(text)
        if has_lone_surrogate(text):
            problem = f"'{printable(text)}' is not valid Unicode text."
        value = type(value)(text)
    if problem:
        raise typer.BadParameter(problem, ctx=context, param=parameter)
    return value


def _problem_of_name(text: str) -> str | None:
    """What is wrong with a name; None if nothing is."""
    if not text.strip():
        return "it is empty."
    if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in text):
        return f"'{printable(text)}' has a control character."
    if any(len(part.encode(errors="replace")) > LONGEST_NAME for part in text.split("/")):
        return f"'{text[:40]}...' is too long for a name."
    if text.startswith("~"):
        return f"'{text}': there is no such user."
    return None
