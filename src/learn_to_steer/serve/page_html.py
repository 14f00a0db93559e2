"""The parts of the page that are HTML of our own. All text in them is escaped."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from html import escape
from typing import Any

from learn_to_steer.geometry import DIRECTIONS
from learn_to_steer.serve.jobs import StepSeen
from learn_to_steer.serve.page_drawing import Sheet
from learn_to_steer.serve.page_settings import Row

UNSTEERED, STEERED = "Unsteered", "Steered"
CURVE_WIDTH, CURVE_HEIGHT = 480, 150


def header(model: str, resolution: int, steered: bool) -> str:
    """The head of the page."""
    classifier = "" if steered else " It is served without a classifier, so nothing can be steered."
    return (
        '<header class="lts-head"><h1>Learn-to-Steer</h1><p>Draws the objects of a prompt where the prompt puts them: '
        f"unsteered and steered, from the same noise. Model <b>{escape(model)}</b>, {resolution} by {resolution} "
        f"pixels.{classifier}</p></header>"
    )


def welcome() -> str:
    """What is shown before anything is drawn."""
    return (
        '<div class="lts-welcome"><p>Write a prompt that says where things are, and press <b>Draw</b>.<br>'
        "Both pictures of a pair begin with the same noise.</p></div>"
    )


def message(text: str, kind: str = "error") -> str:
    """A message in place of pictures."""
    return f'<div class="lts-message lts-{kind}" role="alert">{escape(text)}</div>'


def status(sheets: Sequence[Sheet], seconds: float) -> str:
    """One line on how far the drawing is, for the eye and for screen readers."""
    done = sum(sheet.is_done for sheet in sheets)
    if done == len(sheets):
        return f"{_count(done, 'picture')} drawn in {seconds:.1f} s."
    now = next(sheet for sheet in sheets if not sheet.is_done)
    if not now.steps:
        return f"Picture {done + 1} of {len(sheets)} waits or begins."
    step = now.steps[-1]
    attempt = f", try {step.attempt + 1}" if step.attempt else ""
    return f"Picture {done + 1} of {len(sheets)}{attempt}: step {step.step + 1} of {step.steps}."


def pairs(sheets: Sequence[Sheet]) -> str:
    """All pictures, unsteered beside steered."""
    groups: dict[int, list[Sheet]] = {}
    for sheet in sheets:
        groups.setdefault(sheet.job.seed, []).append(sheet)
    return "".join(_pair(seed, group) for seed, group in groups.items())


def _pair(seed: int, sheets: Sequence[Sheet]) -> str:
    figures = "".join(_figure(sheet) for sheet in sheets)
    finished = all(sheet.is_done for sheet in sheets)
    more = _look_inside(sheets) if finished else ""
    facts = _facts(sheets) if finished else f"Seed {seed}"
    two = "lts-two" if len(sheets) > 1 else "lts-one"
    return (
        f'<section class="lts-pair" aria-label="Seed {seed}"><div class="{two}">{figures}</div>'
        f'<p class="lts-facts">{facts}</p>{more}</section>'
    )


def _figure(sheet: Sheet) -> str:
    kind = STEERED if sheet.job.steer else UNSTEERED
    alt = escape(f"{kind}: {sheet.job.prompt}", quote=True)
    if sheet.name is not None:
        inner = f'<img src="files/{sheet.name}.png" alt="{alt}">'
    elif sheet.error:
        inner = f'<p class="lts-error">{escape(sheet.error)}</p>'
    else:
        picture = sheet.foreseen
        image = f'<img class="lts-foreseen" src="{_data(picture)}" alt="{alt}, as foreseen">' if picture else ""
        step = sheet.steps[-1] if sheet.steps else None
        value, most = (step.step + 1, step.steps) if step else (0, 1)
        inner = f'{image}<progress max="{most}" value="{value}" aria-label="{kind}: steps"></progress>'
    return (
        f'<figure class="lts-sheet lts-{kind.lower()}"><div class="lts-frame">{inner}</div>'
        f"<figcaption><b>{kind}</b>{_verdict(sheet)}{_download(sheet)}</figcaption></figure>"
    )


def _verdict(sheet: Sheet) -> str:
    """Whether the picture shows what was asked for, and who says so."""
    details, satisfied = sheet.details, sheet.steering.get("satisfied")
    if sheet.name is None or satisfied is None:
        return ""
    judge = details.get("verified_by", "classifier")
    if judge == "classifier":
        words = f"probability {probability(sheet):.2f}, says the classifier"
    else:
        words = details.get("reason") or "as the prompt says"
    mark, name = ("✓", "right") if satisfied else ("✗", "wrong")
    title = escape(f"judged by {judge}", quote=True)
    sign = f'<span aria-hidden="true">{mark}</span>'
    return f'<span class="lts-verdict lts-{name}" title="{title}">{sign} {escape(words)}</span>'


def _download(sheet: Sheet) -> str:
    if sheet.name is None:
        return ""
    words = "-".join(word for word in _plain(sheet.job.prompt).split() if word)[:60]
    file = f"{words or 'picture'}_{sheet.job.seed}_{'steered' if sheet.job.steer else 'unsteered'}.png"
    return (
        f'<a class="lts-save" href="files/{sheet.name}.png" download="{file}" title="The settings are in the file">'
        "Download</a>"
    )


def probability(sheet: Sheet) -> float:
    """The classifier's last estimate that all relations of a picture hold."""
    return float(math.prod(sheet.steering.get("probability") or [0.0]))


def _facts(sheets: Sequence[Sheet]) -> str:
    parts = [f"Seed {sheets[0].job.seed}"]
    plain = [sheet for sheet in sheets if not sheet.job.steer and sheet.details]
    steered = [sheet for sheet in sheets if sheet.job.steer and sheet.details]
    for sheet in steered:
        passes, details = sheet.steering["passes"], sheet.details
        parts.append(_count(passes, "pass").replace("passs", "passes"))
        if details["tries"] > 1:
            parts.append(f"{details['tries']} tries, the best is number {details['kept_try'] + 1}")
        before = f" instead of {plain[0].details['seconds']:.1f} s" if plain else ""
        parts.append(f"{details['seconds']:.1f} s{before}")
    if plain and steered and plain[0].steering.get("probability"):
        both = f"{probability(plain[0]):.2f} → {probability(steered[0]):.2f}"
        parts.append(
            f'probability <span title="unsteered → steered, the last estimate of the classifier">{both}</span>'
        )
    notes = [escape(sheet.details["note"]) for sheet in steered if sheet.details["note"]]
    return " · ".join([*parts, *notes])


def _look_inside(sheets: Sequence[Sheet]) -> str:
    """What happened step by step: a slider through the steps, and the curve of the probability."""
    steps = sorted({step.step for sheet in sheets for step in sheet.shown_steps()})
    curve = _curve(sheets)
    if not steps and not curve:
        return ""
    slider = ""
    if len(steps) > 1:
        total = max(step.steps for sheet in sheets for step in sheet.steps)
        frames = "".join(_frame(sheets, step, total, last=step == steps[-1]) for step in steps)
        slider = (
            f'<label class="lts-slide"><span>Step</span><input type="range" class="lts-steps" min="0" '
            f'max="{len(steps) - 1}" value="{len(steps) - 1}" step="1" aria-label="Denoising step"></label>{frames}'
        )
    return f'<details class="lts-look"><summary>Look inside: maps and probability</summary>{slider}{curve}</details>'


def _frame(sheets: Sequence[Sheet], step: int, total: int, last: bool) -> str:
    rows = []
    for sheet in sheets:
        seen = max((one for one in sheet.shown_steps() if one.step <= step), key=lambda one: one.step, default=None)
        if seen is not None:
            foreseen = [one.picture for one in sheet.steps if one.step <= step and one.picture is not None]
            source = _data(foreseen[-1]) if foreseen else ""
            rows.append(_frame_row(sheet, seen, f"files/{sheet.name}.png" if last and sheet.name else source))
    hidden = "" if last else " hidden"
    return f'<div class="lts-step"{hidden}><p>Step {step + 1} of {total}</p>{"".join(rows)}</div>'


def _frame_row(sheet: Sheet, step: StepSeen, source: str) -> str:
    kind = STEERED if sheet.job.steer else UNSTEERED
    caption = "foreseen" if source.startswith("data:") else "picture"
    cells = [f'<figure><img src="{source}" alt=""><figcaption>{caption}</figcaption></figure>'] if source else []
    for name, values in step.maps.items():
        alt = escape(f"Attention to {name}", quote=True)
        cells.append(f'<figure><img src="{_data(values)}" alt="{alt}"><figcaption>{escape(name)}</figcaption></figure>')
    return f'<div class="lts-maps"><b>{kind}</b>{"".join(cells)}</div>'


def _curve(sheets: Sequence[Sheet]) -> str:
    """The classifier's estimate that all relations hold, over the steps."""
    drawn = [sheet for sheet in sheets if len(sheet.details.get("curve", [])) > 1]
    if not drawn:  # models of few steps are steered, and looked at, in the first alone
        return ""
    total = max([step.steps for sheet in drawn for step in sheet.steps] or [1])
    left, top, width, height = 34, 8, CURVE_WIDTH - 44, CURVE_HEIGHT - 34

    def place(step: int, value: float) -> tuple[float, float]:
        return left + width * step / max(total - 1, 1), top + height * (1 - value)

    lines, texts = [], []
    for sheet in drawn:
        kind = STEERED if sheet.job.steer else UNSTEERED
        points = [(step, math.prod(values)) for step, values, _ in sheet.details["curve"] if values]
        texts.append(f"{kind}: {points[0][1]:.2f} at step {points[0][0] + 1}, {points[-1][1]:.2f} at the last look")
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        marks = "".join(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{kind}, step {step + 1}: {value:.2f}</title></circle>'
            for (x, y), (step, value) in ((place(*point), point) for point in points)
        )
        lines.append(f'<g class="lts-line lts-{kind.lower()}"><polyline points="{path}"/>{marks}</g>')
    threshold = drawn[-1].details["threshold"]
    y = place(0, min(threshold, 1.0))[1]
    goal = (
        f'<line class="lts-goal" x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}"/>' if threshold <= 1 else ""
    )
    axis = "".join(
        f'<text x="{left - 6}" y="{place(0, value)[1] + 4:.1f}" text-anchor="end">{value:g}</text>'
        for value in (0, 0.5, 1)
    )
    low = CURVE_HEIGHT - 8
    ends = (
        f'<text x="{left}" y="{low}">step 1</text>'
        f'<text x="{left + width}" y="{low}" text-anchor="end">step {total}</text>'
    )
    label = escape("Probability that the relations hold. " + "; ".join(texts), quote=True)
    legend = ", ".join(
        f'<span class="lts-key lts-{kind.lower()}">{kind.lower()}</span>'
        for kind in (UNSTEERED, STEERED)
        if any(sheet.job.steer == (kind == STEERED) for sheet in drawn)
    )
    return (
        '<figure class="lts-curve"><figcaption>Probability that the relations hold, as the classifier reads it off the '
        f"maps: {legend}; dotted: where steering stops</figcaption>"
        f'<svg viewBox="0 0 {CURVE_WIDTH} {CURVE_HEIGHT}" role="img" aria-label="{label}">'
        f'<rect class="lts-plot" x="{left}" y="{top}" width="{width}" height="{height}"/>'
        f"{goal}{''.join(lines)}{axis}{ends}</svg></figure>"
    )


def gallery(entries: Sequence[dict[str, Any]]) -> str:
    """What was drawn before, the latest first: buttons with the last picture of each."""
    if not entries:
        return ""
    cells = []
    for number, entry in enumerate(entries):
        label = escape(f"Show again: {entry['prompt']}, seed {entry['seed']}", quote=True)
        cells.append(
            f'<button type="button" class="lts-thumb" data-number="{number}" aria-label="{label}" title="{label}">'
            f'<img src="files/{escape(entry["thumb"], quote=True)}.png" alt="" loading="lazy">'
            f"<span>{escape(entry['prompt'])}</span></button>"
        )
    inner = f'<div class="lts-gallery">{"".join(cells)}</div>'
    return f'<section aria-label="Drawn before"><h2>Drawn before</h2>{inner}</section>'


def graph(rows: Sequence[Row]) -> str:
    """Relations as a graph: objects where the relations put them, arrows from subject to object."""
    rows = [row for row in rows if row[0].strip() and row[2].strip() and row[0] != row[2]]
    if not rows:
        return '<p class="lts-empty">Choose two objects and a relation; they are shown here.</p>'
    places = _placed(rows)
    xs, ys = [x for x, _ in places.values()], [y for _, y in places.values()]
    pad_x, pad_y, unit = 70, 34, 120
    width, height = (max(xs) - min(xs)) * unit + 2 * pad_x, (max(ys) - min(ys)) * unit + 2 * pad_y
    at = {name: (pad_x + (x - min(xs)) * unit, pad_y + (y - min(ys)) * unit) for name, (x, y) in places.items()}
    edges, nodes = [], []
    for subject, predicate, object in rows:
        (x0, y0), (x1, y1) = at[subject], at[object]
        length = max(math.hypot(x1 - x0, y1 - y0), 1.0)
        ux, uy = (x1 - x0) / length, (y1 - y0) / length
        start, end = _rim(subject, ux, uy), _rim(object, ux, uy)
        edges.append(
            f'<line x1="{x0 + ux * start:.1f}" y1="{y0 + uy * start:.1f}" x2="{x1 - ux * (end + 6):.1f}" '
            f'y2="{y1 - uy * (end + 6):.1f}" marker-end="url(#lts-arrow)"/>'
            f'<text class="lts-edge" x="{(x0 + x1) / 2:.1f}" y="{(y0 + y1) / 2 - 6:.1f}">{escape(predicate)}</text>'
        )
    for name, (x, y) in at.items():
        half = _half_width(name)
        nodes.append(
            f'<rect x="{x - half:.1f}" y="{y - 15:.1f}" width="{2 * half:.1f}" height="30" rx="15"/>'
            f'<text class="lts-node" x="{x:.1f}" y="{y + 5:.1f}">{escape(name)}</text>'
        )
    label = escape("; ".join(" ".join(row) for row in rows), quote=True)
    return (
        f'<svg class="lts-graph" viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:{width:.0f}px" '
        f'role="img" aria-label="{label}"><defs>'
        '<marker id="lts-arrow" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0,0 L8,4 L0,8 z"/></marker></defs>{"".join(edges)}{"".join(nodes)}</svg>'
    )


def _placed(rows: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """Where each object stands: relations pull, objects that are too near push."""
    names = list(dict.fromkeys(name for row in rows for name in (row[0], row[2])))
    places = {name: [0.3 * math.cos(2.4 * number), 0.3 * math.sin(2.4 * number)] for number, name in enumerate(names)}
    for _ in range(300):
        for subject, predicate, object in rows:
            wanted = [0.0, 0.0]
            for axis, smaller in DIRECTIONS.get(predicate, ()):
                wanted[axis] = -1.5 if smaller and axis == 0 else 1.5 if axis == 0 else -0.9 if smaller else 0.9
            for axis in (0, 1):
                gap = places[subject][axis] - places[object][axis] - wanted[axis]
                pull = 0.12 if wanted[axis] else 0.03
                places[subject][axis] -= pull * gap
                places[object][axis] += pull * gap
        for i, one in enumerate(names):
            for other in names[i + 1 :]:
                dx, dy = (places[one][axis] - places[other][axis] for axis in (0, 1))
                if abs(dx) < 1.2 and abs(dy) < 0.5:
                    push = 0.05 if dy >= 0 else -0.05
                    places[one][1] += push
                    places[other][1] -= push
    return {name: (x, y) for name, (x, y) in places.items()}


def _half_width(name: str) -> float:
    return 12 + 4 * len(name)


def _rim(name: str, ux: float, uy: float) -> float:
    """How far the rim of an object's box is from its centre in a direction."""
    return min(_half_width(name) / max(abs(ux), 1e-6), 15 / max(abs(uy), 1e-6))


def _data(file: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(file).decode()


def _plain(text: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else " " for letter in text.lower())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
