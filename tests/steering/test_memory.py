"""The memory of a pass, counted without data, is what autograd really keeps."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from learn_to_steer.attention import AttentionCapture, run_until_captured
from learn_to_steer.conditioning import record
from learn_to_steer.families import find
from learn_to_steer.families.flux import FAMILY as FLUX
from learn_to_steer.families.sd import FAMILY as SD
from learn_to_steer.maps import MapLayer, MapSpec, columns_to_weights
from learn_to_steer.steering.compatibility import prepared
from learn_to_steer.steering.memory import estimate

PROMPT = "a dog to the left of a cat"


def third(layers: Sequence[MapLayer], height: int, width: int) -> Sequence[MapLayer]:
    """The first third of the layers that run."""
    family = SD if layers[0].name.endswith("attn2") else FLUX
    return family.running_order(layers)[: max(len(layers) // 3, 1)]


@contextmanager
def one_pass(recording: Any, spec: MapSpec) -> Iterator[list[torch.Tensor]]:
    """A real forward up to its maps; yields what is no part of what it keeps: the latents, the columns, the maps."""
    family, call = recording.family, copy.deepcopy(recording.call)
    tokens = family.text_length(call)
    weights = torch.eye(tokens)[None] if spec.columns == "every" else columns_to_weights([((1,), (2,))], tokens)
    leaf = torch.randn_like(call.latents).requires_grad_()
    arguments = family.write(replace(call, latents=leaf)) | {"return_dict": False}
    size = family.latent_size(recording.denoiser, call)
    del call
    capture = AttentionCapture(family.attention_layers(recording.denoiser), spec=spec, method="indicator")
    with capture.capture(weights, *size) as maps:
        run_until_captured(recording.denoiser, arguments)
        del arguments
        captured = maps()
        yield [leaf, weights, *captured.layers, *captured.self_attention]


def allocated(recording: Any, spec: MapSpec) -> int:
    """Bytes that the CPU allocator gave to a forward and did not get back by its end."""
    with ExitStack() as after:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            apart = after.enter_context(one_pass(recording, spec))
        beside = sum(tensor.untyped_storage().nbytes() for tensor in apart)
    return sum(event.self_cpu_memory_usage for event in profiled.events()) - beside


SPECS = {
    "all layers": MapSpec(),
    "a third": MapSpec(choose=third),
    "every column": MapSpec("joint", "every"),
    "self-attention": MapSpec(self_attention=True),
}


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        *((name, spec) for name in ("tiny_sd", "tiny_flux") for spec in ("all layers", "a third")),
        ("tiny_sd", "self-attention"),
        ("tiny_flux", "every column"),
    ],
)
def test_the_estimate_is_what_a_pass_allocates(
    name: str, spec: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = request.getfixturevalue(name)
    more = {"max_sequence_length": 48} if name == "tiny_flux" else {}
    recording = record(pipe, find(pipe), [PROMPT], 64, 64, more)
    monkeypatch.setattr("learn_to_steer.column_maps.EAGER_LIMIT", 0)  # attention as on a GPU
    need = estimate(pipe, find(pipe), recording, SPECS[spec])
    with prepared(recording.denoiser):
        assert need.kept == pytest.approx(allocated(recording, SPECS[spec]), rel=0.05)
    with prepared(recording.denoiser, checkpointing=True):
        outside = allocated(recording, SPECS[spec])
    # A recomputation may run the whole block in which the forward ended.
    whole = estimate(pipe, find(pipe), recording, SPECS["all layers"]).kept
    assert outside < need.checkpointed <= outside + max(need.kept, whole)
    held = [p for part in pipe.components.values() if isinstance(part, torch.nn.Module) for p in part.parameters()]
    assert need.weights == sum(p.numel() * p.element_size() for p in held)


@pytest.mark.parametrize("name", ["tiny_sd", "tiny_flux"])
def test_maps_keep_nothing_of_their_own(name: str, request: pytest.FixtureRequest) -> None:
    """The queries and keys, which the model's own attention keeps as well, are all that the backward needs."""
    pipe = request.getfixturevalue(name)
    recording = record(pipe, find(pipe), [PROMPT], 64, 64)
    last = MapSpec(choose=lambda layers, *_: find(pipe).running_order(layers)[-1:])
    every, one = (estimate(pipe, find(pipe), recording, spec).kept for spec in (MapSpec(), last))
    assert every == one


@pytest.mark.parametrize("name", ["tiny_sd", "tiny_flux"])
def test_fewer_layers_and_checkpointing_keep_less(name: str, request: pytest.FixtureRequest) -> None:
    pipe = request.getfixturevalue(name)
    recording = record(pipe, find(pipe), [PROMPT], 64, 64)
    every, some = (estimate(pipe, find(pipe), recording, SPECS[spec]) for spec in ("all layers", "a third"))
    assert some.kept < 0.6 * every.kept
    assert every.checkpointed < every.kept
    assert some.checkpointed < every.checkpointed


def test_it_is_per_image(tiny_sd: Any) -> None:
    one, three = (record(tiny_sd, find(tiny_sd), [PROMPT] * n, 64, 64) for n in (1, 3))
    assert estimate(tiny_sd, find(tiny_sd), one) == estimate(tiny_sd, find(tiny_sd), three)
