"""Capturing changes nothing it looks at, and its ways of computing a map agree."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from learn_to_steer.attention import AttentionCapture
from learn_to_steer.families.sd import FAMILY
from learn_to_steer.maps import MapSpec, columns_to_weights

WEIGHTS = columns_to_weights([[(2,), (4, 5)], [(3, 4), (7,)]], 77)


def inputs(width: int = 8) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(3)
    return {
        "sample": torch.randn(2, 16, 8, width, generator=generator),
        "timestep": torch.tensor(700),
        "encoder_hidden_states": torch.randn(2, 77, 16, generator=generator),
    }


def maps_and_gradient(unet: Any, method: str) -> tuple[torch.Tensor, torch.Tensor]:
    given = inputs()
    given["sample"].requires_grad_()
    with AttentionCapture(FAMILY.attention_layers(unet), FAMILY.attention(unet), method=method).capture(
        WEIGHTS, 8, 8
    ) as maps:
        unet(**given)
        shown = maps().stack(8)
        (gradient,) = torch.autograd.grad(shown.square().sum(), given["sample"])
    return shown.detach(), gradient


@pytest.mark.parametrize("method", ["indicator", "logits", "auto"])
def test_the_ways_agree_with_explicit_softmax(tiny_sd: Any, method: str) -> None:
    maps, gradient = maps_and_gradient(tiny_sd.unet, "explicit")
    other, other_gradient = maps_and_gradient(tiny_sd.unet, method)
    torch.testing.assert_close(other, maps, rtol=1e-5, atol=1e-7)
    assert (other_gradient - gradient).abs().max() <= 1e-5 * gradient.abs().max()


def test_without_gradients_the_output_keeps_its_bits(tiny_sd: Any) -> None:
    with torch.no_grad():
        before = tiny_sd.unet(**inputs()).sample
        with AttentionCapture(FAMILY.attention_layers(tiny_sd.unet), FAMILY.attention(tiny_sd.unet)).capture(
            WEIGHTS, 8, 8
        ) as maps:
            during = tiny_sd.unet(**inputs()).sample
            maps()
        assert torch.equal(during, before)
        assert torch.equal(tiny_sd.unet(**inputs()).sample, before)


def test_columns_are_probabilities(tiny_sd: Any) -> None:
    every = torch.eye(77).expand(2, 77, 77)
    with torch.no_grad(), AttentionCapture(FAMILY.attention_layers(tiny_sd.unet)).capture(every, 8, 8) as maps:
        tiny_sd.unet(**inputs())
        for layer in maps().layers:
            torch.testing.assert_close(layer.sum(1), torch.ones_like(layer[:, 0]))


def test_maps_have_the_pictures_shape(tiny_sd: Any) -> None:
    with torch.no_grad(), AttentionCapture(FAMILY.attention_layers(tiny_sd.unet)).capture(WEIGHTS, 8, 12) as maps:
        tiny_sd.unet(**inputs(width=12))
        shapes = {layer.shape for layer in maps().layers}
    assert shapes == {(2, 2, 2, 8, 12), (2, 2, 2, 4, 6)}


def only_coarse(layers: Any, height: int, width: int) -> Any:
    return [layer for layer in layers if layer.level == 1]


@pytest.mark.parametrize("grad", [False, True])
def test_chosen_layers_are_those_of_all(tiny_sd: Any, grad: bool) -> None:
    capture = AttentionCapture(FAMILY.attention_layers(tiny_sd.unet), FAMILY.attention(tiny_sd.unet))
    some = AttentionCapture(capture.points, FAMILY.attention(tiny_sd.unet), MapSpec(choose=only_coarse))
    with torch.set_grad_enabled(grad):
        with capture.capture(WEIGHTS, 8, 8) as maps:
            whole = tiny_sd.unet(**inputs()).sample
            every = maps().layers
        with some.capture(WEIGHTS, 8, 8) as maps:
            part = tiny_sd.unet(**inputs()).sample
            coarse = maps().layers
    assert [layer.shape[-1] for layer in coarse] == [4, 4, 4, 4]
    assert all(torch.equal(one, other) for one, other in zip(coarse, every, strict=False))
    torch.testing.assert_close(part, whole)


def test_own_attention_is_the_pictures_to_itself(tiny_sd: Any) -> None:
    """Against the projections of the block itself, written out."""
    points = [point for point in FAMILY.attention_layers(tiny_sd.unet) if point.layer.level == 1]
    spec = MapSpec(choose=only_coarse, self_attention=True)
    seen: list[torch.Tensor] = []
    module = points[0].self_attention
    assert module is not None
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    with torch.no_grad():
        before = tiny_sd.unet(**inputs()).sample
        with AttentionCapture(FAMILY.attention_layers(tiny_sd.unet), spec=spec).capture(WEIGHTS, 8, 8) as maps:
            during = tiny_sd.unet(**inputs()).sample
            own = maps().self_attention
        query, key = (
            part(seen[-1]).unflatten(-1, (module.heads, -1)).transpose(1, 2) for part in (module.to_q, module.to_k)
        )
        by_hand = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(-1).mean(1)
    handle.remove()
    torch.testing.assert_close(during, before)
    assert [layer.shape for layer in own] == [(2, 16, 4, 4)] * 4
    torch.testing.assert_close(own[0].flatten(2), by_hand)


def test_channels_come_by_resolution_then_down_mid_up(tiny_sd: Any) -> None:
    layers = [point.layer for point in FAMILY.attention_layers(tiny_sd.unet)]
    assert [layer.level for layer in layers] == sorted((layer.level for layer in layers), reverse=True)
    places = [layer.name.split(".")[0] for layer in layers if layer.level == 1]
    assert places == ["down_blocks", "mid_block", "up_blocks", "up_blocks"]


def test_an_exception_leaves_no_mode_behind(tiny_sd: Any) -> None:
    capture = AttentionCapture(FAMILY.attention_layers(tiny_sd.unet), FAMILY.attention(tiny_sd.unet))
    broken = inputs() | {"encoder_hidden_states": torch.randn(2, 77, 15)}
    with pytest.raises(RuntimeError), capture.capture(WEIGHTS, 8, 8):
        tiny_sd.unet(**broken)
    assert torch.overrides._get_current_function_mode() is None
