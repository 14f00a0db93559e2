"""What the rule of diagonals accepts and what it does not."""

from __future__ import annotations

from collections import Counter

import pytest

from learn_to_steer import benchmarks
from learn_to_steer.geometry import DIAGONAL, Detection, holds


def square(x: float, y: float, side: float) -> tuple[float, float, float, float]:
    return (x - side / 2, y - side / 2, x + side / 2, y + side / 2)


@pytest.mark.parametrize(
    ("x", "y", "side", "expected"),
    [
        (100, 100, 1, True),
        (100, 170, 1, True),  # 30 degrees off either axis is just enough for small boxes
        (100, 180, 1, False),
        (170, 100, 1, True),
        (180, 100, 1, False),
        (100, 0, 1, False),
        (69, 69, 100, True),  # boxes that overlap a little
        (68, 68, 100, False),
        (-100, 100, 1, False),  # the other diagonal
        (0, 0, 100, False),
    ],
)
def test_worked_examples(x: float, y: float, side: float, expected: bool) -> None:
    assert holds(square(0, 0, side), "above left of", square(x, y, side)) is expected
    # The same image, upside down and left to right.
    assert holds(square(0, 0, side), "below right of", square(-x, -y, side)) is expected
    assert holds(square(0, 0, side), "above right of", square(-x, y, side)) is expected


def test_what_is_only_above_fails_with_what_it_is() -> None:
    target = next(p for p in benchmarks.prompts("diagonals") if p.relations[0].predicate == "above left of")
    (relation,) = target.relations
    found = [Detection(relation.subject, 0.9, square(0, 0, 10)), Detection(relation.object, 0.9, square(5, 90, 10))]
    score = benchmarks.rule("diagonals")(target, found)
    assert not score.correct
    assert score.reason.endswith("(is above)")


def test_every_diagonal_has_its_quarter_and_no_pair_comes_twice() -> None:
    prompts = benchmarks.prompts("diagonals")
    assert Counter(p.relations[0].predicate for p in prompts) == dict.fromkeys(DIAGONAL, 50)
    assert len({frozenset(p.objects) for p in prompts}) == 200
    assert any(" above and to the left of " in p.prompt for p in prompts)
