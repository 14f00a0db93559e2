"""The published formulas, written out a second time for one relation, against the losses."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from learn_to_steer.losses import _attention_maps as attention
from learn_to_steer.losses.attend_and_excite import AttendAndExcite
from learn_to_steer.losses.base import ObjectPair, StepInfo
from learn_to_steer.losses.infsplign import InfSplign
from learn_to_steer.losses.initno import InitNO, clean, conflict, response
from learn_to_steer.losses.layout_guidance import LayoutGuidance
from learn_to_steer.losses.storm_ot import StormOT, transport
from learn_to_steer.losses.storm_released import StormReleased
from learn_to_steer.maps import AttentionMaps

TOKENS = 5  # start, dog, cat, end, padding


def blob(size: int, x: float, y: float, spread: float = 0.15) -> Tensor:
    """A Gaussian around (x, y), both in image widths."""
    at = (torch.arange(size) + 0.5) / size
    return torch.exp(-((at[None] - x) ** 2 + (at[:, None] - y) ** 2) / (2 * spread**2))


FIRST, SECOND = (0.3, 0.35), (0.6, 0.7)


def text_maps(strength: float = 0.05, second: float = 1.0) -> AttentionMaps:
    """Maps of every text token with one blob an object."""
    maps = torch.full((1, TOKENS, 2, 16, 16), 0.01)
    maps[0, 1] += strength * blob(16, *FIRST)
    maps[0, 2] += strength * second * blob(16, *SECOND)
    words = torch.tensor([[False, True, True, False, False]])
    return AttentionMaps((maps,), torch.eye(TOKENS)[None, 1:3], words, memory=(None,))


def softmax_over_text(maps: AttentionMaps, words_only: bool = False) -> Tensor:
    """Factor 100; without the first and the last token, or without all but the words."""
    kept = slice(1, 3) if words_only else slice(1, 4)
    return (100 * maps.layers[0][0, kept].mean(1)).softmax(0)[:2]


def row(predicate: str) -> list[list[ObjectPair]]:
    return [[ObjectPair(0, predicate, 1)]]


@pytest.mark.parametrize("words_only", [False, True])
def test_attend_and_excite(words_only: bool) -> None:
    maps = text_maps(second=0.3)
    output = AttendAndExcite(words_only)(maps, row("left of"), StepInfo(0.9, 0))
    lower = attention.blur(softmax_over_text(maps, words_only)).amax((1, 2)).min()
    torch.testing.assert_close(output.loss[0, 0], 1 - lower)
    torch.testing.assert_close(output.probability[0, 0], lower)


@pytest.mark.parametrize(("predicate", "axis"), [("left of", 1), ("below", 0)])
def test_storm_as_released(predicate: str, axis: int) -> None:
    """The order of the objects and the axis of the cells are the same whatever the relation is."""
    maps = text_maps()
    output = StormReleased()(maps, row(predicate), StepInfo(0.9, 1, steps=25))
    first, second = attention.normalise(attention.blur(softmax_over_text(maps)))
    places = torch.arange(16.0)
    centres = [(one.sum(1 - axis if axis == 0 else 0) * places).sum() for one in (first, second)]
    weight = 1 + 99 * (1 - math.exp(-0.4 * 2))  # step 1 of 25 is step 2 of 50
    expected = torch.zeros(())
    for column in range(16):
        for distance in (centres[1] - column, column - centres[0]):
            cost = 1 / (weight * distance) if distance > 0 else -weight * distance
            expected = expected + cost * (first * second)[:, column].sum()
    torch.testing.assert_close(output.loss[0, 0], expected, rtol=1e-4, atol=1e-7)
    assert output.refinable is not None and output.refinable[0, 0] == (centres[0] < centres[1])


def test_infsplign() -> None:
    """On two layers; the fine one is larger than 64 x 64, so that antialiasing matters."""
    layers = []
    for size in (16, 192):
        shown = torch.stack([blob(size, *FIRST, spread=0.05), blob(size, *SECOND)])
        layers.append((shown + 0.001 * (torch.arange(size) % 2))[None, :, None].expand(1, 2, 2, size, size))
    output = InfSplign()(AttentionMaps(tuple(layers)), row("left of"), StepInfo(0.9, 0))
    losses, probabilities = [], []
    at = torch.linspace(0, 1, 64)
    for layer in layers:
        maps = functional.interpolate(layer.mean(2), (64, 64), mode="bilinear", antialias=True)[0]
        maps = maps / maps.sum((1, 2), keepdim=True)
        x, y = (maps.sum(1) * at).sum(1), (maps.sum(2) * at).sum(1)
        spread = [(maps[n] * ((at - x[n]) ** 2 + (at[:, None] - y[n]) ** 2)).sum() for n in (0, 1)]
        assert spread[0] < spread[1]
        apart = x[1] - x[0]
        compact = spread[0] + spread[1] if layer.shape[-1] == 16 else spread[1] - spread[0]
        losses.append(functional.gelu(0.75 * (0.25 - apart)) + compact)
        probabilities.append(torch.sigmoid(15 * apart))
    torch.testing.assert_close(output.loss[0, 0], torch.stack(losses).mean())
    torch.testing.assert_close(output.probability[0, 0], torch.stack(probabilities).mean())


@pytest.mark.parametrize(("strength", "neglected"), [(0.05, False), (0.005, True)])
def test_initno(strength: float, neglected: bool) -> None:
    """Regular updates, refinement and search use different sums of the four terms."""
    maps = text_maps(strength)
    maps.layers[0][0, 1] += 0.9 * strength * blob(16, 0.85, 0.15, 0.08)  # a second patch, which the clean term is about
    generator = torch.Generator().manual_seed(0)
    self_attention = torch.rand(2, 1, 256, 16, 16, generator=generator).pow(8)
    before = torch.rand(1, 2, 16, 16, generator=generator)
    output = InitNO()(
        replace(maps, self_attention=tuple(self_attention), memory=(before[0],)), row("left of"), StepInfo(0.9, 1)
    )
    objects = attention.blur(softmax_over_text(maps))
    peaks = objects.flatten(1).argmax(1).tolist()
    assert peaks[0] != peaks[1] and 0 not in peaks
    r = response(objects)
    c = conflict(attention.blur(torch.stack([self_attention[:, 0, peak].mean(0) for peak in peaks])))
    k = clean(objects[0]) + clean(objects[1])
    a = sum((objects[n] - before[0, n]).abs().mean() for n in (0, 1))
    assert (r > 0.5) == neglected and c > 0.01 and k > 0.01
    assert output.refinement is not None and output.search is not None
    torch.testing.assert_close(output.loss[0, 0], r)
    torch.testing.assert_close(output.probability[0, 0], torch.minimum(1 - r, 1 - c / 1.5))
    torch.testing.assert_close(output.refinement[0, 0], r + c + 0.1 * (k + a))
    torch.testing.assert_close(output.search[0, 0], r + k + (0 if neglected else c))


def test_initnos_conflict_can_be_what_fails() -> None:
    """The probability is the smaller of two; with equal self-attention the conflict is 1/2."""
    maps = text_maps(strength=0.2)
    output = InitNO()(
        replace(maps, self_attention=(torch.full((1, 256, 16, 16), 1 / 256),)), row("above"), StepInfo(1, 0)
    )
    assert output.loss[0, 0] < 0.2
    torch.testing.assert_close(output.probability[0, 0], torch.tensor(1 - 0.5 / 1.5), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("predicate", "axis", "smaller"), [("left of", 0, True), ("below", 1, False)])
def test_storm_by_transport(predicate: str, axis: int, smaller: bool) -> None:
    maps = text_maps()
    output = StormOT()(maps, row(predicate), StepInfo(0.9, 0))
    both = attention.normalise(attention.blur(softmax_over_text(maps)))
    places = torch.linspace(0, 1, 16)
    cells = torch.stack([places.repeat(16), places.repeat_interleave(16)], dim=1)  # (x, y), row by row
    expected = torch.zeros(())
    for mine, other, low in ((both[0], both[1], smaller), (both[1], both[0], not smaller)):
        centre = (other.flatten()[:, None] * cells).sum(0)[axis]
        target = (mine.flatten()[:, None] * cells).sum(0)
        target[axis] = centre / 2 if low else centre + (1 - centre) / 2
        blob_at_target = (-((cells - target) ** 2).sum(1) / (2 * (3 / 15) ** 2)).exp()
        past = cells[:, axis] - centre if low else centre - cells[:, axis]
        cost = torch.cdist(cells, cells) ** 2 + 0.1 * other.flatten() / other.max() + past.clamp_min(0)
        expected = expected + transport(mine.flatten(), blob_at_target / blob_at_target.sum(), cost)
    torch.testing.assert_close(output.loss[0, 0], expected, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(output.probability[0, 0], 1 - output.loss[0, 0])


@pytest.mark.parametrize(
    ("predicate", "first", "second"),
    [
        ("left of", (slice(3, 12), slice(0, 7)), (slice(3, 12), slice(8, 15))),
        ("right of", (slice(3, 12), slice(8, 15)), (slice(3, 12), slice(0, 7))),
        ("above", (slice(0, 7), slice(3, 12)), (slice(8, 15), slice(3, 12))),
        ("below", (slice(8, 15), slice(3, 12)), (slice(0, 7), slice(3, 12))),
    ],
)
def test_layout_guidance(predicate: str, first: tuple[slice, slice], second: tuple[slice, slice]) -> None:
    """Every head of every layer counts the same, whatever the layer's resolution is."""
    generator = torch.Generator().manual_seed(0)
    layers = torch.rand(2, 1, 2, 3, 16, 16, generator=generator)
    output = LayoutGuidance()(AttentionMaps(tuple(layers)), row(predicate), StepInfo(0.9, 0))
    shares = [
        layers[:, 0, n, :, box[0], box[1]].sum((-2, -1)) / layers[:, 0, n].sum((-2, -1))
        for n, box in enumerate((first, second))
    ]
    expected = ((1 - torch.stack(shares)) ** 2).mean()
    torch.testing.assert_close(output.loss[0, 0], expected)
    torch.testing.assert_close(output.probability[0, 0], 1 - expected)
