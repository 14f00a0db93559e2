"""GenEval's rule at its thresholds, VISOR's without a margin, and overlap."""

from __future__ import annotations

import pytest

from learn_to_steer.geometry import basic_relations, holds, iou, on_axis

UNIT = (0.0, 0.0, 1.0, 1.0)


def moved(dx: float, dy: float) -> tuple[float, float, float, float]:
    return (dx, dy, 1 + dx, 1 + dy)


@pytest.mark.parametrize(("offset", "expected"), [(0.38, set()), (0.42, {"right of"}), (-0.42, {"left of"})])
def test_two_unit_squares_need_an_offset_of_four_tenths(offset: float, expected: set[str]) -> None:
    """Margin 0.1 of the summed size 2 leaves (d - 0.2) / d, which exceeds 0.5 from d = 0.4 on."""
    assert basic_relations(moved(offset, 0), UNIT) == expected


def test_a_margin_of_ones_own() -> None:
    assert basic_relations(moved(0.38, 0), UNIT, margin=0.05) == {"right of"}


def test_equal_squares_are_diagonal_from_0_68_of_their_side_on() -> None:
    assert not holds(moved(0.67, 0.67), "below right of", UNIT)
    assert holds(moved(0.69, 0.69), "below right of", UNIT)
    assert not holds(moved(0.69, 0.69), "above right of", UNIT)


def test_an_unknown_predicate_is_an_error() -> None:
    with pytest.raises(ValueError, match="no rule is defined for the predicate 'near'"):
        holds(UNIT, "near", UNIT)


def test_visor_needs_no_margin() -> None:
    assert on_axis(moved(0.01, 0), "right of", UNIT) and not on_axis(UNIT, "right of", UNIT)
    assert on_axis(moved(0.01, -0.01), "above right of", UNIT)
    assert not on_axis(moved(0.01, 0), "above right of", UNIT)


def test_iou() -> None:
    assert iou(UNIT, UNIT) == 1
    assert iou(UNIT, moved(0.5, 0)) == pytest.approx(1 / 3)
    assert iou(UNIT, moved(2, 0)) == 0 and iou((0, 0, 0, 0), (0, 0, 0, 0)) == 0
