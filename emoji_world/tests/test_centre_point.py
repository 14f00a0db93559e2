"""The detector network's shapes and the reading of its heatmaps."""

from __future__ import annotations

import math

import pytest
import torch

from learn_to_steer_emoji.centre_point import DetectorNet, decode

NAMES = ("dog", "cat", "bus")
Peak = tuple[int, int, int, float]


def maps(*peaks: Peak, side: float = 4.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and boxes of one 8 x 10 grid with ``peaks`` (class, row, column, score), boxes ``side`` cells wide."""
    heat, box = torch.full((1, 3, 8, 10), -8.0), torch.zeros(1, 4, 8, 10)
    box[:, 2:] = math.log(side)
    for c, y, x, score in peaks:
        heat[0, c, y, x] = math.log(score / (1 - score))
    return heat, box


@pytest.mark.parametrize(("height", "width"), [(128, 128), (96, 128), (72, 40)])
def test_grid_is_an_eighth_of_any_picture(height: int, width: int) -> None:
    heat, box = DetectorNet(5, (16, 16, 16, 16)).eval()(torch.rand(2, 3, height, width))
    assert heat.shape == (2, 5, height // 8, width // 8)
    assert box.shape == (2, 4, height // 8, width // 8)


def test_full_size_network_stays_small() -> None:
    assert 1_000_000 < sum(p.numel() for p in DetectorNet(61).parameters()) < 2_000_000


def test_box_is_read_in_pixels() -> None:
    heat, box = maps((1, 3, 4, 0.9))
    box[0, :, 3, 4] = torch.tensor([0.25, -0.5, math.log(2.0), math.log(3.0)])
    ((found,),) = decode(heat, box, NAMES, 0.5, (64, 80))
    assert found.name == "cat"
    assert found.score == pytest.approx(0.9, abs=1e-5)
    assert found.box == pytest.approx((38 - 8, 24 - 12, 38 + 8, 24 + 12), abs=1e-3)


def test_boxes_end_at_the_picture() -> None:
    heat, box = maps((0, 0, 0, 0.9), (0, 7, 9, 0.8), side=6)
    (found,) = decode(heat, box, NAMES, 0.5, (60, 78))
    assert found[0].box[:2] == (0.0, 0.0)
    assert found[1].box[2:] == (78.0, 60.0)


def test_threshold_and_order() -> None:
    heat, box = maps((0, 1, 1, 0.6), (1, 1, 7, 0.95), (2, 6, 4, 0.4))
    (found,) = decode(heat, box, NAMES, 0.5, (64, 80))
    assert [d.name for d in found] == ["cat", "dog"]
    (found,) = decode(heat, box, NAMES, 0.3, (64, 80))
    assert [d.name for d in found] == ["cat", "dog", "bus"]


def test_neighbouring_cells_are_one_peak() -> None:
    heat, box = maps((0, 3, 3, 0.9), (0, 3, 4, 0.8), (0, 4, 4, 0.7))
    (found,) = decode(heat, box, NAMES, 0.5, (64, 80))
    assert len(found) == 1


def test_only_the_best_class_stays_on_one_spot() -> None:
    heat, box = maps((0, 3, 3, 0.7), (1, 3, 3, 0.9), (2, 3, 6, 0.6))
    (found,) = decode(heat, box, NAMES, 0.5, (64, 80))
    assert [d.name for d in found] == ["cat", "bus"]


def test_peaks_whose_boxes_share_a_centre_are_one_object() -> None:
    heat, box = maps((0, 3, 2, 0.9), (0, 3, 4, 0.8))
    box[0, 0, 3, 2], box[0, 0, 3, 4] = 1.0, -1.0
    (found,) = decode(heat, box, NAMES, 0.5, (64, 80))
    assert [d.score for d in found] == pytest.approx([0.9], abs=1e-5)


def test_equal_objects_apart_are_counted() -> None:
    heat, box = maps((0, 1, 1, 0.9), (0, 1, 5, 0.8), (0, 6, 3, 0.7), side=3)
    (found,) = decode(heat, box, NAMES, 0.5, (64, 80))
    assert [d.name for d in found] == ["dog"] * 3


def test_pictures_of_a_batch_do_not_mix() -> None:
    first, second = maps((0, 1, 1, 0.9)), maps((1, 1, 1, 0.8))
    empty = maps()
    heat, box = (torch.cat(parts) for parts in zip(first, empty, second, strict=True))
    found = decode(heat, box, NAMES, 0.5, (64, 80))
    assert [[d.name for d in picture] for picture in found] == [["dog"], [], ["cat"]]
