"""Every handcrafted loss of the catalog, on maps made up for the purpose; a new file is tested at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from learn_to_steer import registry
from learn_to_steer.errors import UnsupportedError
from learn_to_steer.losses import _attention_maps as attention
from learn_to_steer.losses.base import Loss, ObjectPair, StepInfo
from learn_to_steer.maps import AttentionMaps, Layout, MapLayer
from learn_to_steer.steering import SteeringConfig

HANDCRAFTED = [name for name in registry.names("losses") if name != "learned"]
DIRECTED = ["for-spatial", "for-logistic", "for-unified", "storm-fixed", "storm-ot", "infsplign", "layout-guidance"]
BLIND = ["attend-and-excite", "conform", "divide-and-bind", "initno"]
ANYWHERE = {"for-spatial", "for-logistic"}
SD = Layout(
    "sd",
    (
        MapLayer("mid_block.attentions.0.transformer_blocks.0.attn2", 2, 3),
        MapLayer("down_blocks.2.attentions.0.transformer_blocks.0.attn2", 2, 2),
        MapLayer("up_blocks.1.attentions.0.transformer_blocks.0.attn2", 2, 2),
        MapLayer("up_blocks.2.attentions.0.transformer_blocks.0.attn2", 2, 1),
        MapLayer("up_blocks.3.attentions.0.transformer_blocks.0.attn2", 2, 0),
    ),
)
FLUX = Layout("flux", (MapLayer("transformer_blocks.0.attn", 2, 0),))
COLUMNS = 8  # start, three words of the prompt, end, padding
OBJECTS = ((1,), (3,))


def build(name: str, layout: Layout = SD) -> Loss:
    built: Loss = registry.load("losses", name).build(layout)
    return built


def place(size: int, x: float, y: float) -> Tensor:
    """A blob around (x, y), shares of the side; its peak is 0.05."""
    at = (torch.arange(size) + 0.5) / size
    return 0.05 * torch.exp(-((at[None] - x) ** 2 + (at[:, None] - y) ** 2) / (2 * 0.15**2))


def maps_of(loss_function: Loss, first: tuple[float, float], second: tuple[float, float]) -> AttentionMaps:
    """Maps of 64 x 64 latents with one blob an object, as the tap would give them to this loss."""
    spec = loss_function.spec
    chosen = SD.layers if spec.choose is None else spec.choose(SD.layers, 64, 64)
    layers = []
    for layer in chosen:
        size, _ = layer.size(64, 64)
        both = torch.stack([place(size, *first), place(size, *second)])
        if spec.columns == "every":
            shown = torch.full((COLUMNS, size, size), 0.01)
            shown[[columns[0] for columns in OBJECTS]] = both + 0.001
        else:
            shown = both + 0.001
        layers.append(shown[None, :, None].expand(1, -1, layer.heads, -1, -1))
    own = tuple(
        torch.ones(1, layer.size(64, 64)[0] ** 2, *layer.size(64, 64)) / layer.size(64, 64)[0] ** 2 for layer in chosen
    )
    maps = AttentionMaps(tuple(layers), self_attention=own if spec.self_attention else (), memory=(None,))
    if spec.columns == "objects":
        return maps
    weights = torch.zeros(1, 2, COLUMNS)
    for number, (column,) in enumerate(OBJECTS):
        weights[0, number, column] = 1.0
    words = torch.zeros(1, COLUMNS, dtype=torch.bool)
    words[0, 1:4] = True
    return replace(maps, objects=weights, words=words)


PLACES = {
    "left of": ((0.25, 0.5), (0.75, 0.5)),
    "right of": ((0.75, 0.5), (0.25, 0.5)),
    "above": ((0.5, 0.25), (0.5, 0.75)),
    "below": ((0.5, 0.75), (0.5, 0.25)),
}


@pytest.mark.parametrize("predicate", list(PLACES))
@pytest.mark.parametrize("name", DIRECTED)
def test_the_right_side_costs_less(name: str, predicate: str) -> None:
    loss_function, pairs, info = build(name), [[ObjectPair(0, predicate, 1)]], StepInfo(0.9, 5)
    right = loss_function(maps_of(loss_function, *PLACES[predicate]), pairs, info)
    wrong = loss_function(maps_of(loss_function, *reversed(PLACES[predicate])), pairs, info)
    assert right.loss.shape == right.probability.shape == (1, 1)
    assert right.loss.item() < wrong.loss.item() - 1e-3
    assert 0 <= wrong.probability.item() <= right.probability.item() <= 1


@pytest.mark.parametrize("predicate", list(PLACES))
@pytest.mark.parametrize("name", DIRECTED)
def test_descent_parts_two_objects_the_right_way(name: str, predicate: str) -> None:
    """Two blobs a little apart on the wrong side; where each goes is written into the gradient on its map."""
    loss_function = build(name)
    first, second = PLACES[predicate]
    near_first = tuple(0.5 - 0.2 * (value - 0.5) for value in first)
    near_second = tuple(0.5 - 0.2 * (value - 0.5) for value in second)
    maps = maps_of(loss_function, near_first, near_second)
    leaves = tuple(layer.clone().requires_grad_() for layer in maps.layers)
    output = loss_function(replace(maps, layers=leaves), [[ObjectPair(0, predicate, 1)]], StepInfo(0.9, 5))
    gradients = torch.autograd.grad(output.loss.sum(), leaves)
    column = OBJECTS[0][0] if loss_function.spec.columns == "every" else 0
    along, smaller = attention.SIDES[predicate]
    for gradient in gradients:
        assert gradient.isfinite().all()
    moves = [-gradient[0, column].mean(0) for gradient in gradients]  # what descent adds to the subject's map
    sides = []
    for move in moves:
        halves = move.sum(dim=1 if along == 1 else 0).chunk(2)
        sides.append(halves[0].sum() - halves[1].sum())
    wanted = torch.stack(sides).sum().item()
    assert (wanted > 0) == smaller and wanted != 0


@pytest.mark.parametrize("name", HANDCRAFTED)
def test_gradients_are_finite_and_reach_the_maps(name: str) -> None:
    loss_function = build(name)
    maps = maps_of(loss_function, (0.3, 0.4), (0.6, 0.6))
    again = loss_function(maps, [[ObjectPair(0, "left of", 1)]], StepInfo(0.9, 0))
    leaves = tuple(layer.clone().requires_grad_() for layer in maps.layers)
    moved = replace(maps, layers=leaves, memory=again.memory or (None,))
    output = loss_function(moved, [[ObjectPair(0, "left of", 1)]], StepInfo(0.9, 1))
    losses = [output.loss] if output.refinement is None else [output.loss, output.refinement]
    for loss in losses:
        gradients = torch.autograd.grad(loss.sum(), leaves, retain_graph=True)
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert sum(gradient.abs().sum() for gradient in gradients) > 0
    assert not output.probability.requires_grad


@pytest.mark.parametrize("name", HANDCRAFTED)
def test_samples_with_fewer_relations_are_padded(name: str) -> None:
    loss_function = build(name)
    maps = maps_of(loss_function, (0.3, 0.4), (0.6, 0.6))
    both = replace(
        maps,
        layers=tuple(layer.expand(2, -1, -1, -1, -1) for layer in maps.layers),
        self_attention=tuple(layer.expand(2, -1, -1, -1) for layer in maps.self_attention),
        objects=None if maps.objects is None else maps.objects.expand(2, -1, -1),
        words=None if maps.words is None else maps.words.expand(2, -1),
        memory=(None, None),
    )
    pairs = [[ObjectPair(0, "left of", 1), ObjectPair(1, "above", 0)], [ObjectPair(0, "left of", 1)]]
    output = loss_function(both, pairs, StepInfo(0.9, 5))
    assert output.loss.shape == output.probability.shape == (2, 2)
    assert output.loss[1, 1] == 0 and output.probability[1, 1] == 1
    alone = loss_function(maps, [pairs[1]], StepInfo(0.9, 5))
    torch.testing.assert_close(output.loss[1, :1], alone.loss[0])


@pytest.mark.parametrize("name", HANDCRAFTED)
def test_its_schedule_is_a_steering_config(name: str) -> None:
    config = SteeringConfig().changed(**build(name).schedule)
    assert config.profile == name and config.by_step_index and config.max_iterations > 1000
    assert {"left of", "right of", "above", "below"} <= set(build(name).predicates())


@pytest.mark.parametrize("name", HANDCRAFTED)
def test_a_family_it_cannot_work_with_is_refused_by_name(name: str) -> None:
    if name in ANYWHERE:
        build(name, FLUX).check(FLUX)
        return
    with pytest.raises(UnsupportedError, match=r"'flux'.*for-spatial"):
        build(name, FLUX)
    with pytest.raises(UnsupportedError, match="UNet"):
        build(name).check(FLUX)


@pytest.mark.parametrize("name", BLIND)
def test_methods_without_directions_do_not_look_at_the_predicate(name: str) -> None:
    loss_function = build(name)
    maps = maps_of(loss_function, (0.3, 0.4), (0.6, 0.6))
    losses = [loss_function(maps, [[ObjectPair(0, predicate, 1)]], StepInfo(0.9, 5)).loss for predicate in PLACES]
    assert all(torch.equal(loss, losses[0]) for loss in losses)


def test_every_baseline_is_sorted_by_what_it_can_do() -> None:
    assert set(DIRECTED) | set(BLIND) | {"storm-released"} >= set(HANDCRAFTED)


def test_released_storm_pushes_the_subject_left_whatever_is_asked() -> None:
    loss_function = build("storm-released")
    maps = maps_of(loss_function, *PLACES["left of"])
    left, right = (
        loss_function(maps, [[ObjectPair(0, predicate, 1)]], StepInfo(0.9, 5)) for predicate in ("left of", "right of")
    )
    assert torch.equal(left.loss, right.loss)
    assert left.refinable is not None and left.refinable.all()
    other = loss_function(
        maps_of(loss_function, *PLACES["right of"]), [[ObjectPair(0, "left of", 1)]], StepInfo(0.9, 5)
    )
    assert other.refinable is not None and not other.refinable.any()


def test_conform_remembers_the_step_before_and_not_the_pass_before() -> None:
    loss_function, pairs = build("conform"), [[ObjectPair(0, "left of", 1)]]
    one, two = maps_of(loss_function, (0.3, 0.4), (0.6, 0.6)), maps_of(loss_function, (0.5, 0.5), (0.5, 0.5))
    first = loss_function(one, pairs, StepInfo(0.9, 0))
    assert first.loss.item() == 0
    again = loss_function(replace(two, memory=first.memory), pairs, StepInfo(0.9, 0))
    assert again.loss.item() == 0
    next_step = loss_function(replace(one, memory=again.memory), pairs, StepInfo(0.9, 1))
    assert next_step.loss.item() > 0
    kept = loss_function(replace(one, memory=next_step.memory), pairs, StepInfo(0.9, 1))
    assert torch.equal(kept.loss, next_step.loss)


def test_initno_compares_with_a_running_mean_of_its_maps() -> None:
    loss_function, pairs = build("initno"), [[ObjectPair(0, "left of", 1)]]
    maps = maps_of(loss_function, (0.3, 0.4), (0.6, 0.6))
    first = loss_function(maps, pairs, StepInfo(0.9, 0))
    still = loss_function(replace(maps, memory=first.memory), pairs, StepInfo(0.9, 1))
    assert first.refinement is not None and still.refinement is not None
    torch.testing.assert_close(still.refinement, first.refinement)
    other = maps_of(loss_function, (0.6, 0.6), (0.3, 0.4))
    alone = loss_function(other, pairs, StepInfo(0.9, 1))
    drifted = loss_function(replace(other, memory=first.memory), pairs, StepInfo(0.9, 1))
    assert drifted.refinement is not None and alone.refinement is not None
    assert drifted.refinement.item() > alone.refinement.item()
    torch.testing.assert_close(drifted.memory[0], 0.9 * first.memory[0] + 0.1 * alone.memory[0])


def test_attend_and_excite_looks_at_the_worse_object() -> None:
    loss_function = build("attend-and-excite")
    maps = maps_of(loss_function, (0.3, 0.4), (0.6, 0.6))
    weaker = tuple(layer.clone() for layer in maps.layers)
    for layer in weaker:
        layer[:, OBJECTS[1][0]] *= 0.2
    pairs = [[ObjectPair(0, "left of", 1)]]
    before, after = (
        loss_function(maps, pairs, StepInfo(0.9, 0)),
        loss_function(replace(maps, layers=weaker), pairs, StepInfo(0.9, 0)),
    )
    assert after.loss.item() > before.loss.item()
    torch.testing.assert_close(after.probability, 1 - after.loss)
