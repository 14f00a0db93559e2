"""Numbers of the published losses on blobs of a 16 x 16 map, worked out apart from this code."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from learn_to_steer.losses import _attention_maps as attention
from learn_to_steer.losses.base import ObjectPair, StepInfo
from learn_to_steer.losses.conform import nt_xent
from learn_to_steer.losses.divide_and_bind import total_variation
from learn_to_steer.losses.for_logistic import ForLogistic
from learn_to_steer.losses.for_spatial import ForSpatial
from learn_to_steer.losses.for_unified import ForStage2, ForUnified, missing, overlap
from learn_to_steer.losses.infsplign import spatial
from learn_to_steer.losses.initno import clean, conflict, otsu, response
from learn_to_steer.losses.layout_guidance import energy
from learn_to_steer.losses.storm_ot import ENTROPY, transport
from learn_to_steer.losses.storm_released import side_weight, weighted_overlap
from learn_to_steer.maps import AttentionMaps


def blob(x: float, y: float) -> Tensor:
    places = torch.arange(16.0)
    shown = torch.exp(-((places[None] - x) ** 2 + (places[:, None] - y) ** 2) / (2 * 2.5**2))
    return shown / shown.sum()


A, B, C, D = blob(4, 8), blob(11, 8), blob(5, 8), blob(10, 8)


def near(value: Tensor, golden: float | list[float], tolerance: float = 2e-6) -> None:
    torch.testing.assert_close(value, torch.tensor(golden), rtol=2e-5, atol=tolerance)


def scaled(shown: Tensor) -> Tensor:
    return (shown - shown.min()) / (shown.max() - shown.min())


def test_centres_and_spread() -> None:
    near(attention.centre_of_mass(A, 15.0), [4.201416, 7.992359])
    near(attention.centre_of_mass(B, 15.0)[0], 10.798584)
    near(attention.centre_of_mass(torch.stack([A, B]), 1.0)[:, 0], [0.2800944, 0.7199056])
    near(attention.spatial_variance(A, 1.0), 0.0508254)


@pytest.mark.parametrize(
    ("predicate", "golden"),
    [("left of", 0.00136237), ("right of", 0.99863763), ("above", 0.5), ("below", 0.5)],
)
def test_for_spatial_and_for_logistic(predicate: str, golden: float) -> None:
    maps, pairs = AttentionMaps((torch.stack([A, B])[None, :, None],)), [[ObjectPair(0, predicate, 1)]]
    output = ForSpatial(unet=False)(maps, pairs, StepInfo(1.0, 0))
    near(output.loss[0, 0], golden)
    near(output.probability[0, 0], 1 - golden)
    logistic = ForLogistic(unet=False)(maps, pairs, StepInfo(1.0, 0))
    torch.testing.assert_close((-logistic.loss).exp(), output.probability)
    torch.testing.assert_close(logistic.probability, output.probability)


def test_for_logistic_still_pushes_where_the_sigmoid_is_flat() -> None:
    slopes = {}
    for kind in (ForSpatial, ForLogistic):
        leaf = torch.stack([blob(14, 8), blob(1, 8)])[None, :, None].requires_grad_()
        loss = kind(unet=False)(AttentionMaps((leaf,)), [[ObjectPair(0, "left of", 1)]], StepInfo(1.0, 0)).loss.sum()
        slopes[kind] = torch.autograd.grad(loss, leaf)[0].norm()
    assert slopes[ForLogistic] > 1000 * slopes[ForSpatial]


def test_for_unified() -> None:
    near(overlap(A, B), 0.0365480)
    near(overlap(A, A), 0.2581876)
    near(missing(torch.stack([1 + 0.05 * scaled(A), 1 + 0.05 * scaled(B)])), 2 * 0.8099670, 2e-4)


def test_conform() -> None:
    near(nt_xent(torch.stack([A, C, B, D]).flatten(1), torch.tensor([0, 0, 1, 1])), 0.3944797)
    assert nt_xent(torch.stack([A, B]).flatten(1), torch.tensor([0, 1])) == 0


def test_initno() -> None:
    near(conflict(torch.stack([A, B])), 0.0822274)
    near(conflict(torch.stack([A, A])), 0.49999975)
    near(response(torch.stack([0.5 * scaled(A), 0.2 * scaled(B)])), 0.8)


def test_initnos_clean_term_is_the_strongest_speck_outside_the_patch() -> None:
    spot = torch.zeros(16, 16)
    spot[2:6, 2:6] = 0.6
    spot[3, 3] = 0.8
    assert 0 < otsu(spot) < 0.6
    near(clean(spot), 0.0)
    spot[12, 12] = 0.7  # above the patch's weakest place
    near(clean(spot), 0.7)
    spot[12, 12] = 0.55  # above the threshold, but weaker than all of the patch
    near(clean(spot), 0.0)
    spot[6, 6] = 0.7  # touches the patch by a corner only
    near(clean(spot), 0.7)


def test_infsplign() -> None:
    centres = attention.centre_of_mass(torch.stack([A, B]), 1.0)
    near(spatial(attention.signed_separation("left of", *centres)), -0.0631215)
    near(spatial(attention.signed_separation("right of", *centres)), 0.3608818)


def test_storm() -> None:
    near(weighted_overlap(A, B, 0, 0, 1), 0.0028905)
    near(weighted_overlap(B, A, 0, 0, 1), 0.4315918)
    near(torch.tensor([side_weight(step) for step in (0, 1, 2, 5, 7)]), [1.0, 33.6, 55.5, 86.6, 94.0], 0.1)


@pytest.mark.parametrize("predicate", ["left of", "above"])
def test_storms_vertical_cost_is_the_horizontal_one_turned(predicate: str) -> None:
    along = attention.SIDES[predicate][0]
    first, second = (A, B) if along == 0 else (A.T, B.T)
    near(weighted_overlap(first, second, along, along, 1), 0.0028905)


def test_transport_is_the_plans_cost() -> None:
    """Against the plan of plain Sinkhorn scaling on a small problem, run until it stands still."""
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.rand(6, generator=generator).softmax(0) for _ in range(2))
    cost = torch.rand(6, 6, generator=generator)
    plan = source[:, None] * target[None] * (-cost / ENTROPY).exp()
    for _ in range(2000):
        plan = plan * (source / plan.sum(1))[:, None]
        plan = plan * (target / plan.sum(0))[None]
    regularised = (plan * cost).sum() + ENTROPY * (plan * (plan / (source[:, None] * target[None])).log()).sum()
    torch.testing.assert_close(transport(source, target, cost), regularised, rtol=1e-3, atol=1e-4)
    leaf = cost.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(transport(source, target, leaf), leaf)
    torch.testing.assert_close(gradient, plan, rtol=2e-2, atol=1e-3)


def test_divide_and_bind() -> None:
    near(total_variation(A), 0.0025011)


def test_layout_guidance() -> None:
    near(energy(A, (0, 0, 0.5, 1)), 0.0067613)
    near(energy(A, (0.5, 0, 1, 1)), 0.8423065)


def test_smoothing_kernel() -> None:
    point = torch.zeros(1, 5, 5)
    point[0, 2, 2] = 1
    near(attention.blur(point)[0, 2, 1:4], [0.12210, 0.33191, 0.12210], 1e-5)
    near(attention.blur(point)[0, 1, 1], 0.04492, 1e-5)


@pytest.mark.parametrize("words_only", [False, True])
def test_the_second_softmax_runs_over_the_right_columns(words_only: bool) -> None:
    """Seven columns: start, three words, end, two of padding."""
    layer = torch.rand(1, 7, 2, 16, 16, generator=torch.Generator().manual_seed(0)) / 50
    weights = torch.tensor([[[0, 0.5, 0.5, 0, 0, 0, 0]]])
    words = torch.tensor([[False, True, True, True, False, False, False]])
    maps: Any = AttentionMaps((layer, layer), objects=weights, words=words)
    kept = layer[0, 1:4] if words_only else layer[0, 1:6]
    expected = (100 * kept.mean(1)).softmax(0)[:2].mean(0)
    found = attention.object_maps(maps, smooth=False, words_only=words_only)
    torch.testing.assert_close(found[0, 0], expected)


def test_stage_2_sets_a_missing_object_apart_and_the_next_from_it() -> None:
    """Object 1 lies where object 0 does; once it is repaired it is good, and 2 is set apart from both."""
    empty = torch.zeros(16, 16)
    shown = torch.stack([empty, A, A, B, empty])
    words = torch.tensor([[False, True, True, True, False]])
    maps = AttentionMaps((shown[None, :, None],), torch.eye(5)[None, 1:4], words, memory=(None,))
    pairs = [[ObjectPair(0, "left of", 1), ObjectPair(1, "left of", 2)]]
    loss_function = ForStage2([1, 2])
    first = loss_function(maps, pairs, StepInfo(0.9, 0))
    second = loss_function(replace(maps, memory=first.memory), pairs, StepInfo(0.9, 0))
    done = loss_function(replace(maps, memory=second.memory), pairs, StepInfo(0.9, 0))
    assert (first.memory, second.memory, done.refinement) == ((1,), (2,), None)
    assert first.refinement is not None and second.refinement is not None
    plain = attention.object_maps(maps, factor=1.0, smooth=False)[0]
    spatial_terms = ForSpatial(unet=True)(maps, pairs, StepInfo(0.9, 0)).loss[0]
    # Nothing sets 1 apart from 0, and they have no order; the terms of both its relations are added.
    near(spatial_terms[0], 0.5)
    near(first.refinement[0, 0], float(1 + overlap(plain[0], plain[0]) + spatial_terms.sum()), 1e-4)
    # Object 2 stands out from both a little, with the contrast of stage 2.
    share = plain / plain.sum((-2, -1), keepdim=True)
    apart = 100 * (share[2] - share[0]).amax()
    assert 0.005 < apart < 1
    expected = 1 - apart + overlap(plain[2], plain[0]) + overlap(plain[2], plain[1]) + spatial_terms[1]
    near(second.refinement[0, 0], float(expected))
    assert float(overlap(plain[2], plain[0])) < 0.3 and second.refinement[0, 0] < first.refinement[0, 0]
    torch.testing.assert_close(done.loss, ForUnified()(maps, pairs, StepInfo(0.9, 0)).loss)
