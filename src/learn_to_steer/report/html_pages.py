"""What the HTML pages share: templates, images small enough to be part of a page, and boxes drawn on them.

A page is one file that loads nothing: images and style are inside, and its policy forbids every request. Text from
prompts and detectors is escaped, and no script runs but the page's own, which the policy names by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image

from learn_to_steer.image_files import read_image
from learn_to_steer.plain_text import printable

SIDE = 256  # longer side of an image on a page, in pixels
LONGEST = 400  # characters of a text of a foreign file on a page
COLORS = 5  # colours of boxes and curves in the style sheet


def render(template: str, *, script: str | None = None, linked: bool = False, **variables: Any) -> str:
    """Render a page.

    Args:
        template: File name of the template in ``report/templates``.
        script: File name of the page's script there.
        linked: Whether the page shows image files that lie beside it.
        **variables: The variables of the template.

    Returns:
        The page.
    """
    code = _source(script) if script else ""
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    policy += (
        "img-src " + ("'self' file:" if linked else "data:") + (f"; script-src 'sha256-{digest}'" if script else "")
    )
    shared = {"policy": policy, "script": Markup(code), "style": Markup(_source("style.css"))}
    return _environment().get_template(template).render(shared | variables)


def inline_image(image: Image.Image, side: int = SIDE) -> str:
    """Return an image as a data address, with at most ``side`` pixels on its longer side."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    small.save(data, "WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()


def read_figure(path: Path, boxes: Sequence[Mapping[str, Any]], objects: Sequence[str] = ()) -> dict[str, Any]:
    """Make the variables of the macro ``picture`` from an image file.

    Args:
        path: The image.
        boxes: The detections in it, as in ``results.jsonl``.
        objects: Names that have a colour of their own each.

    Returns:
        The variables; the image is part of them.

    Raises:
        DataError: The image is missing or cannot be read.
    """
    image = read_image(path)
    return figure(inline_image(image), image.size, boxes, objects)


def figure(
    source: str, size: tuple[int, int], boxes: Sequence[Mapping[str, Any]], objects: Sequence[str] = ()
) -> dict[str, Any]:
    """Make the variables of the macro ``picture``: an image's address, its size in pixels, and its boxes."""
    width, height = size
    colors = {name: number % COLORS for number, name in enumerate(dict.fromkeys(objects))}
    return {
        "source": source,
        "width": width,
        "height": height,
        "font_size": f"{height / 14:.1f}",
        "boxes": [_box(entry, width, height, colors) for entry in boxes],
        "right": None,
    }


def _box(entry: Mapping[str, Any], width: int, height: int, colors: Mapping[str, int]) -> dict[str, Any]:
    left, top, right, bottom = (round(float(edge), 1) for edge in entry["box"])
    at_right = left > 0.6 * width  # its label would leave the image
    return {
        "left": left,
        "top": top,
        "width": round(right - left, 1),
        "height": round(bottom - top, 1),
        "label": brief(entry["name"], 40),
        "label_x": right if at_right else left,
        "label_y": round(max(top - height / 64, height / 14), 1),
        "at_right": at_right,
        "color": colors.get(entry["name"]),
    }


def brief(text: Any, longest: int = LONGEST) -> str:
    """Return text that is safe to show: escapes for control characters, and cut if it is long."""
    shown = printable(str(text))
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def share(value: float | None) -> str:
    """Return a share with three decimals, a dash for None."""
    return "-" if value is None else f"{value:.3f}"


def signed(value: float) -> str:
    """Return a difference with its sign and three decimals."""
    return f"{value:+.3f}"


@cache
def _source(name: str) -> str:
    return files("learn_to_steer.report").joinpath("templates", name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    names = ("base.html", "macros.html", "audit.html", "evaluation.html", "fit.html")
    environment = Environment(
        loader=DictLoader({name: _source(name) for name in names}),
        autoescape=True,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"share": share, "signed": signed, "brief": brief}
    return environment
