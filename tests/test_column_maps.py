"""Maps that the backward computes again are the same, with the same gradient, and keep nothing but their inputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from learn_to_steer.attention import AttentionCapture
from learn_to_steer.column_maps import Attention, ColumnMaps, ColumnWeights
from learn_to_steer.conditioning import record
from learn_to_steer.families import find
from learn_to_steer.maps import columns_to_weights
from learn_to_steer.steering.compatibility import prepared

TEXT, PLACES = 7, 12
WEIGHTS = columns_to_weights([[(2,), (4, 5)], [(3, 4), (6,)]], TEXT)
METHODS = ["explicit", "indicator", "logits"]


def attention(text: str = "only", dtype: torch.dtype = torch.float32, masked: bool = False) -> Attention:
    queries, keys = (PLACES, TEXT) if text == "only" else (TEXT + PLACES, TEXT + PLACES)
    query, value = torch.randn(2, 3, queries, 8), torch.randn(2, 3, keys, 8)
    key = torch.randn(2, 3, keys, 8)
    mask = (torch.arange(keys) != 1).expand(2, 1, queries, keys) if masked else None
    return Attention(query.to(dtype).requires_grad_(), key.to(dtype).requires_grad_(), value.to(dtype), mask)


def gradients(maps: torch.Tensor, given: Attention) -> list[torch.Tensor]:
    wanted = [tensor for tensor in (given.query, given.key) if tensor.requires_grad]
    weights = torch.linspace(-1, 1, maps.numel()).reshape(maps.shape)
    return list(torch.autograd.grad((maps.float().square() * weights).sum(), wanted))


def check_equal(again: torch.Tensor, first: torch.Tensor, given: Attention) -> None:
    torch.testing.assert_close(again, first, rtol=1e-6, atol=1e-6)
    for one, other in zip(gradients(again, given), gradients(first, given), strict=True):
        assert one.dtype == given.query.dtype
        assert other.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("text", "softmax", "masked"),
    [
        ("only", "text", False),
        ("only", "text", True),
        ("first", "text", False),
        ("first", "joint", False),
        ("last", "joint", False),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_recomputed_maps_are_the_same(method: Any, text: Any, softmax: Any, masked: bool, dtype: torch.dtype) -> None:
    given = attention(text, dtype, masked)
    columns = ColumnMaps(ColumnWeights(WEIGHTS), text, softmax, method)
    again = columns.recomputed(given)
    assert again.shape == (2, 3, PLACES, 2) and again.dtype == torch.float32 and again.is_contiguous()
    check_equal(again, columns.of(given), given)


def test_recomputed_means_over_heads_are_the_same() -> None:
    given = attention(masked=True)
    check_equal(given.mean_probabilities(), given.probabilities().mean(dim=1), given)


@pytest.mark.parametrize("method", METHODS)
def test_only_queries_and_keys_are_kept(method: Any) -> None:
    given = attention("first", torch.bfloat16)
    kept = set()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.add(t.data_ptr()), t)[1], lambda t: t):
        ColumnMaps(ColumnWeights(WEIGHTS), "first", "text", method).recomputed(given)
        given.mean_probabilities()
    assert kept == {given.query.data_ptr(), given.key.data_ptr()}


def test_keys_of_a_frozen_text_need_no_gradient() -> None:
    given = attention()
    given.key.requires_grad_(False)
    columns = ColumnMaps(ColumnWeights(WEIGHTS), "only", "text", "indicator")
    check_equal(columns.recomputed(given), columns.of(given), given)


def test_a_forward_under_autocast_has_a_gradient() -> None:
    given = attention()
    columns = ColumnMaps(ColumnWeights(WEIGHTS), "only", "text", "explicit")
    with torch.autocast("cpu", torch.bfloat16):
        again = columns.recomputed(given)
    expected = gradients(columns.of(given), given)
    for one, other in zip(gradients(again, given), expected, strict=True):
        assert (one - other).abs().max() < 0.05 * other.abs().max()


def test_weights_are_moved_once_to_a_device() -> None:
    weights = ColumnWeights(WEIGHTS)
    cpu, meta = torch.device("cpu"), torch.device("meta")
    assert weights.on(meta) is weights.on(meta)
    assert weights.on(meta).device == meta
    assert torch.equal(weights.on(cpu), WEIGHTS[:, None])


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["tiny_sd", "tiny_flux"])
def test_the_gradient_of_a_model_is_the_same(
    name: str, checkpointing: bool, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = request.getfixturevalue(name)
    family = find(pipe)
    recording = record(pipe, family, ["a dog to the left of a cat"], 64, 64)
    latents = torch.randn_like(recording.call.latents)
    weights = columns_to_weights([((1,), (2,))], family.text_length(recording.call))
    monkeypatch.setattr("learn_to_steer.column_maps.EAGER_LIMIT", 0)  # attention as on a GPU

    def gradient() -> torch.Tensor:
        leaf = latents.clone().requires_grad_()
        capture = AttentionCapture(family.attention_layers(recording.denoiser))
        with capture.capture(weights, *family.latent_size(recording.denoiser, recording.call)) as maps:
            recording(leaf, recording.call.time)
            (found,) = torch.autograd.grad(maps().stack(4).square().sum(), leaf)
        return found

    with prepared(recording.denoiser, checkpointing):
        again = gradient()
        monkeypatch.setattr(ColumnMaps, "recomputed", ColumnMaps.of)
        kept = gradient()
    assert kept.abs().max() > 0
    assert (again - kept).abs().max() <= 1e-6 * kept.abs().max()
