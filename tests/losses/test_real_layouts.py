"""Which layers of the real models the published methods read: full architectures, no weights."""

from __future__ import annotations

from collections import Counter

import pytest

from learn_to_steer import registry
from learn_to_steer.loading import skeleton
from learn_to_steer.losses import _attention_maps as attention
from learn_to_steer.losses.infsplign import two_coarsest_up
from learn_to_steer.losses.layout_guidance import middle_and_first_up
from learn_to_steer.maps import Layout, MapLayer

COARSE = {"down_blocks.2": 2, "up_blocks.1": 3}  # block -> layers, as published for 512 pixels
UP = {"up_blocks.1": 3, "up_blocks.2": 3}
MIDDLE = {"mid_block.attentions": 1, "up_blocks.1": 3}


def blocks(layers: list[MapLayer]) -> dict[str, int]:
    return dict(Counter(".".join(layer.name.split(".")[:2]) for layer in layers))


@pytest.mark.parametrize(("model", "maps", "words_only"), [("sd:1.4", 40, False), ("sd:2.1", 100, True)])
def test_stable_diffusion_at_512_pixels(model: str, maps: int, words_only: bool) -> None:
    family, denoiser = skeleton(model)
    layout = family.layout(denoiser)
    coarse = attention.layers_nearest_16x16(layout.layers, 64, 64)
    assert blocks(coarse) == COARSE and sum(layer.heads for layer in coarse) == maps
    assert blocks(two_coarsest_up(layout.layers, 64, 64)) == UP
    assert blocks(middle_and_first_up(layout.layers, 64, 64)) == MIDDLE
    for name in ("attend-and-excite", "divide-and-bind", "initno", "storm-fixed", "storm-ot", "storm-released"):
        assert registry.load("losses", name).build(layout).words_only == words_only
    assert {point.self_attention for point in family.attention_layers(denoiser)} <= set(denoiser.modules())


def test_other_sizes_read_the_level_nearest_to_16_x_16() -> None:
    family, denoiser = skeleton("sd:1.4")
    layers = family.layout(denoiser).layers
    for (height, width), size in {(64, 96): (16, 24), (32, 32): (16, 16), (16, 16): (16, 16)}.items():
        assert {layer.size(height, width) for layer in attention.layers_nearest_16x16(layers, height, width)} == {size}


def test_flux_has_two_baselines() -> None:
    layout = Layout("flux", (MapLayer("transformer_blocks.0.attn", 24, 0),))
    for name in ("for-spatial", "for-logistic"):
        loss_function = registry.load("losses", name).build(layout)
        assert loss_function.spec.choose is None and loss_function.spec.columns == "objects"
