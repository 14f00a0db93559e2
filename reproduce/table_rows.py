"""The rows of the paper's tables, and the paper's numbers beside them; used by paper_tables.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from learn_to_steer import registry

BASE, LEARNED = "none", "learned"
POSITION, COMPOSED = "geneval-position", "t2i-compbench-four-relations"
FORMS = ("3-2", "4-2", "4-3", "5-3")
PHRASED = ("multi-relation-3-2", "phrasing-and", "phrasing-same")
TUNED = ("compass-like", "rrnet-like")  # made by the scripts of these names
OWN_STOP = (("threshold", 0.95),)  # the stop of learned steering, on the probability that a handcrafted loss reports


@dataclass(frozen=True)
class Row:
    """One method on one benchmark.

    Attributes:
        objective: The loss; "none" for unsteered.
        benchmark: The prompts.
        profile: The profile of steering settings.
        verifier: The detector of FOR's second stage; None without one.
        settings: Steering settings that differ from the profile's.
    """

    objective: str
    benchmark: str = POSITION
    profile: str = "default"
    verifier: str | None = None
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def method(self) -> str:
        return f"{self.objective}, verified by {self.verifier}" if self.verifier else self.objective

    @property
    def schedule(self) -> str:
        return f"{self.profile}, stopped" if "threshold" in dict(self.settings) else self.profile

    @property
    def name(self) -> str:
        verified = [f"verified-by-{self.verifier}"] if self.verifier else []
        return "-".join([self.benchmark, self.objective, *verified, self.schedule.replace(", ", "-")])


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        title: In the docs.
        rows: In their order.
        plain: Whether the prompts have no relation, so that steering must not change any image.
        paper: The paper's numbers by benchmark and method, on its own models.
        view: What the columns show.
    """

    title: str
    rows: tuple[Row, ...]
    plain: bool = False
    paper: dict[tuple[str, str], str] = field(default_factory=dict)
    view: Literal["accuracy", "likeness", "relations", "labels"] = "accuracy"


# The paper's Table 1, on SD1.4, SD2.1, FLUX.1-schnell and FLUX.1-dev.
PAPER = {
    (POSITION, BASE): "SD1.4 .05, SD2.1 .07, schnell .26, dev .20",
    (POSITION, LEARNED): "SD1.4 .36, SD2.1 .54, schnell .52, dev .61",
    (POSITION, "for-spatial"): "SD1.4 .26, SD2.1 .27, schnell .35, dev .49",
    (POSITION, "for-unified, verified by emoji-templates"): "SD1.4 .30, SD2.1 .34",
    (POSITION, "storm-released"): "SD1.4 .18, SD2.1 .19",
    (POSITION, "initno"): "SD1.4 .12",
    (POSITION, "compass-like"): "SD1.4 .46, SD2.1 .51, dev .60",
    (POSITION, "rrnet-like"): "SD2.1 .09",
    (COMPOSED, BASE): "official: SD1.4 .057, SD2.1 .089, schnell .199, dev .177",
    (COMPOSED, LEARNED): "official: SD1.4 .278, SD2.1 .365, schnell .309, dev .392",
    (COMPOSED, "for-spatial"): "official: SD1.4 .228, SD2.1 .211, schnell .238, dev .357",
}
UNSEEN = {
    ("unseen", BASE): "SD1.4 .07, SD2.1 .15, dev .18",
    ("unseen", LEARNED): "SD1.4 .47, SD2.1 .60, dev .60",
}
SEVERAL = {
    (f"multi-relation-{kind}{form}", method): f"compat: dev {number}"
    for kind, method, numbers in (
        ("", BASE, (".05", ".04", ".01", ".01")),
        ("", LEARNED, (".36", ".36", ".20", ".17")),
        ("unseen-", BASE, (".02", ".04", ".01", ".01")),
        ("unseen-", LEARNED, (".28", ".22", ".19", ".09")),
    )
    for form, number in zip(FORMS, numbers, strict=True)
}
ALIKE = {(POSITION, LEARNED): "DINO / CLIP: SD1.4 .736 / .801, dev .863 / .877"}
APART = {(POSITION, LEARNED): "dev: above .615, below .670, left .605, right .546"}
PLAIN = {
    ("geneval-counting", BASE): "SD2.1 .44",
    ("geneval-counting", LEARNED): "SD2.1 .44",
    ("geneval-counting", "compass-like"): "SD2.1 .20",
    ("geneval-colors", BASE): "SD2.1 .85",
    ("geneval-colors", LEARNED): "SD2.1 .85",
    ("geneval-colors", "compass-like"): "SD2.1 .71",
}
BY_EYE = {
    ("multi-relation-3-2", LEARNED): "by eye .29, automatically .28",
    ("multi-relation-4-3", LEARNED): ".12, .12",
    ("multi-relation-5-3", LEARNED): ".07, .10",
}
LAYOUT = {(POSITION, "layout-guidance"): "3DIS .72, MIGC .76, RAGD .80", (POSITION, LEARNED): "dev .61"}


def tables() -> dict[str, Table]:
    """Return all tables by their number in the paper, or by a name where the paper has none."""
    handcrafted = [name for name in registry.names("losses") if name != LEARNED]
    schedules: tuple[dict[str, Any], ...] = ({}, {"profile": "equal"}, {"profile": "equal", "settings": OWN_STOP})
    losses = [Row(name, **schedule) for name in handcrafted for schedule in schedules]
    # FOR's second stage; what verifies is not what scores.
    losses += [Row("for-unified", verifier="emoji-templates")]
    tuned = [Row(name) for name in TUNED]
    position = (Row(BASE), Row(LEARNED), Row(LEARNED, profile="equal"), *losses)
    composed = tuple(Row(name, COMPOSED) for name in (BASE, LEARNED, "for-spatial"))
    forms = [f"multi-relation-{kind}{form}" for kind in ("", "unseen-") for form in FORMS]
    plain = [f"geneval-{task}" for task in ("counting", "colors", "two-object")]
    return {
        "1": Table("Learned and handcrafted losses", (*position, *tuned, *composed), paper=PAPER),
        "2": Table("Unseen objects", tuple(Row(n, "unseen") for n in (BASE, LEARNED, "for-spatial")), paper=UNSEEN),
        "3": Table("Several relations", tuple(Row(n, f) for f in forms for n in (BASE, LEARNED)), paper=SEVERAL),
        "5": Table(
            "How alike a picture stays to the unsteered one, and what becomes of its background (Fig. 10)",
            position,
            paper=ALIKE,
            view="likeness",
        ),
        "6": Table("Each relation apart", (*position, *tuned), paper=APART, view="relations"),
        "7": Table(
            "Prompts without relations",
            tuple(Row(name, task) for task in plain for name in (BASE, LEARNED, "compass-like")),
            plain=True,
            paper=PLAIN,
        ),
        "8": Table(
            "Beside layout guidance, which is given the boxes",
            (Row(BASE), Row(LEARNED), *(Row("layout-guidance", **schedule) for schedule in schedules)),
            paper=LAYOUT,
        ),
        "10": Table(
            "The automatic score against labels made by eye (an AI assistant's, docs/results.md)",
            (
                *(Row(LEARNED, f"multi-relation-{form}") for form in ("3-2", "4-3", "5-3")),
                *(Row(name) for name in (BASE, LEARNED, "for-spatial")),
            ),
            paper=BY_EYE,
            view="labels",
        ),
        "phrasing": Table(
            "Two relations in other words (paper, 4.3)", tuple(Row(n, f) for f in PHRASED for n in (BASE, LEARNED))
        ),
        "dense": Table(
            "One relation, plainly and as people write",
            tuple(Row(name, f"phrasing-{form}") for form in ("plain", "dense") for name in (BASE, LEARNED)),
        ),
    }
