"""Maps at one resolution, and the layout that gives their channels a meaning."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from learn_to_steer.errors import MismatchError
from learn_to_steer.maps import AttentionMaps, Layout, MapLayer, columns_to_weights

LAYOUT = Layout("sd", (MapLayer("mid.attn2", 4, 1), MapLayer("up.attn2", 4, 0)))


def stacked(side: int, renormalise: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    native = torch.rand(1, 2, 3, side, side, generator=torch.Generator().manual_seed(side))
    return native, AttentionMaps((native,)).stack(16, renormalise)


def test_the_resize_is_the_authors() -> None:
    native, shown = stacked(64)  # the mean of the central 2 x 2 of each 4 x 4 cell
    cells = native.reshape(1, 2, 3, 16, 4, 16, 4)[:, :, :, :, 1:3, :, 1:3]
    torch.testing.assert_close(shown, cells.mean((4, 6)))
    native, shown = stacked(32)
    torch.testing.assert_close(shown, native.reshape(1, 2, 3, 16, 2, 16, 2).mean((4, 6)))
    native, shown = stacked(16)
    assert torch.equal(shown, native)


def test_renormalised_maps_sum_to_one() -> None:
    _, shown = stacked(32, renormalise=True)
    torch.testing.assert_close(shown.sum((-2, -1)), torch.ones(1, 2, 3))


def test_layers_keep_their_order() -> None:
    coarse, fine = torch.full((1, 1, 2, 8, 8), 0.25), torch.full((1, 1, 3, 16, 16), 0.5)
    shown = AttentionMaps((coarse, fine)).stack(16, renormalise=False)
    assert shown[0, 0, :, 0, 0].tolist() == [0.25, 0.25, 0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    "other",
    [
        replace(LAYOUT, side=8),
        replace(LAYOUT, renormalise=False),
        replace(LAYOUT, softmax="joint"),
        replace(LAYOUT, family="flux"),
        replace(LAYOUT, layers=LAYOUT.layers[::-1]),
        replace(LAYOUT, layers=(MapLayer("mid.attn2", 8, 1), LAYOUT.layers[1])),
    ],
)
def test_any_change_of_meaning_changes_the_fingerprint(other: Layout) -> None:
    assert other.fingerprint != LAYOUT.fingerprint


def test_other_channels_are_refused() -> None:
    for other in (replace(LAYOUT, family="flux"), replace(LAYOUT, layers=LAYOUT.layers[::-1])):
        with pytest.raises(MismatchError):
            LAYOUT.require(other)


def test_how_maps_are_resized_is_the_classifiers_choice() -> None:
    replace(LAYOUT, renormalise=False, softmax="joint", side=8).require(LAYOUT)


def test_a_layout_survives_its_file() -> None:
    again = Layout.from_dict(LAYOUT.as_dict())
    assert again == LAYOUT and again.fingerprint == LAYOUT.fingerprint
    again.require(LAYOUT)


def test_odd_sizes_round_up() -> None:
    assert MapLayer("x", 1, 2).size(9, 16) == (3, 4)


def test_weights_average_an_objects_columns() -> None:
    weights = columns_to_weights([[(2,), (5, 6)], [(1,)]], 8)
    assert weights.shape == (2, 2, 8)
    assert weights[0, 1, 5] == weights[0, 1, 6] == 0.5
    assert weights[1, 1].sum() == 0  # this sample names one object only
