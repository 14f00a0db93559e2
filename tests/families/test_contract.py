"""What every model family promises, tried on its tiny random pipeline (``families.testing.tiny``).

A new family gets these tests by being registered: nothing here names one.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from learn_to_steer import registry
from learn_to_steer.attention import AttentionCapture, run_until_captured
from learn_to_steer.cli import main
from learn_to_steer.collection import CollectConfig, MapDataset, collect
from learn_to_steer.conditioning import record
from learn_to_steer.errors import MismatchError, PromptError
from learn_to_steer.families import find, of_config
from learn_to_steer.families.testing import tiny, tiny_model, tiny_names
from learn_to_steer.loading import load_pipeline, skeleton
from learn_to_steer.losses.learned import Learned
from learn_to_steer.maps import HookPoint, MapSpec, TextSpan, columns_to_weights
from learn_to_steer.prompts import parse
from learn_to_steer.steering import Steerer
from learn_to_steer.steering.loop import SteeringLoop, index_batch
from learn_to_steer.steering.memory import estimate

# Of diffusers' Euler scheduler with new versions of NumPy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROMPT = "a dog to the left of a cat"
LONGER = "a small red photo of a teddy bear and a blue bird on a large green boat, above a horse and under a kite"
PLAIN = "a dog and a cat"
NEGATIVE = "a pizza"
STEPS = 3
FAMILIES = registry.names("families")

_tiny = functools.cache(tiny)


class Tiny:
    """A tiny pipeline, with calls of it that are short to write."""

    def __init__(self, name: str) -> None:
        self.pipe = copy.deepcopy(_tiny(name))
        self.model = tiny_model(name)
        self.family = find(self.pipe)
        self.denoiser = getattr(self.pipe, self.family.denoiser)
        self.arguments: dict[str, Any] = dict(self.model.arguments)

    def draw(self, pipe: Any, prompt: Any, seeds: int | Sequence[int] = 0, **more: Any) -> Any:
        prompt = list(prompt) if isinstance(prompt, list) else prompt  # some pipelines write into the list
        numbers = [seeds] if isinstance(seeds, int) else seeds
        generators = [torch.Generator().manual_seed(seed) for seed in numbers]
        height, width = self.model.size
        given = {"num_inference_steps": STEPS, "output_type": "latent", "height": height, "width": width}
        given |= self.arguments | dict(self.model.plain) | more
        prompt = list(prompt) if isinstance(prompt, list) else prompt  # some pipelines write into the list
        return pipe(prompt=prompt, generator=generators if len(generators) > 1 else generators[0], **given)

    def record(self, prompts: Sequence[str], size: tuple[int, int] | None = None) -> Any:
        return record(self.pipe, self.family, prompts, *(size or self.model.size), self.arguments)

    def columns(self, prompt: str) -> list[tuple[int, ...]]:
        relation = parse(prompt)[0]
        spans = [span for span in (relation.subject_span, relation.object_span) if span]
        return self.family.token_indices(self.pipe, prompt, spans, self.arguments)

    def captured(self, recording: Any, columns: Any, latents: torch.Tensor, **how: Any) -> list[torch.Tensor]:
        """The maps of every layer in a forward at the recorded time."""
        call = recording.call
        spans = self.family.spans(self.denoiser, call)
        weights = columns_to_weights(columns, self.family.text_length(call), spans)
        size = self.family.latent_size(self.denoiser, call)
        capture = AttentionCapture(self.family.attention_layers(self.denoiser), **how)
        with capture.capture(weights, *size, spans=spans) as maps:
            recording(latents, call.time)
            return list(maps().layers)


@pytest.fixture(params=tiny_names())
def case(request: pytest.FixtureRequest) -> Tiny:
    return Tiny(request.param)


class Watch(TorchFunctionMode):
    """Keeps queries, keys and mask of the attention calls inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, float]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            given = dict(zip(("query", "key", "value", "attn_mask"), args, strict=False)) | kwargs
            scale = given.get("scale") or given["query"].shape[-1] ** -0.5
            self.seen.append((given["query"], given["key"], given.get("attn_mask"), scale))
        return func(*args, **kwargs)


@contextmanager
def watched(points: Sequence[HookPoint]) -> Iterator[list[Watch]]:
    """The attention calls of each layer."""
    watches, handles = [Watch() for _ in points], []
    for point, watch in zip(points, watches, strict=True):
        handles.append(point.module.register_forward_pre_hook(lambda *_, w=watch: w.__enter__() and None))
        handles.append(point.module.register_forward_hook(lambda *_, w=watch: w.__exit__(None, None, None)))
    try:
        yield watches
    finally:
        for handle in handles:
            handle.remove()


def place_of(case: Tiny, call: Any, point: HookPoint, keys: int) -> TextSpan:
    """Where text and image of a call of one row stand."""
    spans = case.family.spans(case.denoiser, call)
    if spans is not None:
        return spans[0]
    text = case.family.text_length(call)
    if point.text == "last":
        return TextSpan(keys - text, text, 0)
    return TextSpan(0, text, text if point.text == "first" else 0)


def explicit(case: Tiny, recording: Any, columns: Any, latents: torch.Tensor, softmax: str) -> list[torch.Tensor]:
    """The maps of one sample, alone, with the softmax written out; the last attention call of a layer is the text's."""
    points = case.family.attention_layers(case.denoiser)
    with watched(points) as watches:
        recording(latents, recording.call.time)
    size = case.family.latent_size(case.denoiser, recording.call)
    found = []
    for point, watch in zip(points, watches, strict=True):
        query, key, mask, scale = watch.seen[-1]
        span, (height, width) = place_of(case, recording.call, point, key.shape[-2]), point.layer.size(*size)
        image = slice(span.image, span.image + height * width)
        text = slice(span.start, span.start + span.length)
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        logits = query.double() @ key.double().transpose(-2, -1) * scale
        if mask is not None:
            whole = mask.expand(logits.shape)
            logits = logits.masked_fill(~whole, float("-inf")) if mask.dtype == torch.bool else logits + whole
        logits = logits[..., image, :]
        if softmax == "text" and point.text != "only":
            probabilities = logits[..., text].softmax(-1)
        else:
            probabilities = logits.softmax(-1)[..., text]
        maps = torch.stack([probabilities[..., list(group)].mean(-1) for group in columns], dim=1)
        found.append(maps.unflatten(-1, (height, width)).float())
    return found


@torch.no_grad()
@pytest.mark.parametrize("softmax", ["text", "joint"])
def test_maps_equal_an_explicit_softmax_of_every_sample_alone(case: Tiny, softmax: Any) -> None:
    """Beside a longer text, too."""
    both = case.record([PROMPT, LONGER])
    latents = torch.randn(both.call.latents.shape)
    columns = [case.columns(PROMPT), case.columns(LONGER)]
    found = {
        method: case.captured(both, columns, latents, spec=MapSpec(softmax), method=method)
        for method in ("explicit", "indicator", "logits")
    }
    for row, prompt in enumerate([PROMPT, LONGER]):
        alone = case.record([prompt])
        if case.model.reads_padding:
            alone = replace(both, call=index_batch(both.call, torch.tensor([row]), 2))
        expected = explicit(case, alone, columns[row], latents[row : row + 1], softmax)
        assert len(expected) == len(case.family.layout(case.denoiser).layers)
        for maps in found.values():
            for mine, other in zip(maps, expected, strict=True):
                torch.testing.assert_close(mine[row : row + 1], other, rtol=2e-3, atol=1e-6)


def changed(case: Tiny, recording: Any, name: str) -> Any:
    """A recording with other text states."""
    call = recording.call
    if name in call.lists:
        return replace(recording, call=replace(call, lists={**call.lists, name: [-x for x in call.lists[name]]}))
    return replace(recording, call=replace(call, rest={**call.rest, name: -call.rest[name]}))


def is_put_back(mask: torch.Tensor | None, span: TextSpan, keys: int) -> torch.Tensor:
    """Which keys a mask hides from the image, or makes less of: padding, whose states are no part of the text."""
    if mask is None:
        return torch.zeros(keys, dtype=torch.bool)
    rows = mask.reshape(-1, *mask.shape[-2:])[0].float()
    row = rows[min(span.image, len(rows) - 1)]
    return row < row.max()


@torch.no_grad()
def test_text_and_image_stand_where_the_family_says(case: Tiny) -> None:
    """In the first layer, other latents change only the image's part of the sequence, and another text only its own."""
    recording = case.record([PROMPT])
    read = {point.module for point in case.family.attention_layers(case.denoiser)}
    for module in case.family.attention(case.denoiser):
        if module not in read:  # refiners before the first layer, in which padding attends to text and image
            module.register_forward_hook(lambda _, args, output: output * 0 if torch.is_tensor(output) else None)
    layers = case.family.layout(case.denoiser).layers
    first = case.family.running_order(layers)[0]
    (point,) = (point for point in case.family.attention_layers(case.denoiser) if point.layer == first)
    latents = torch.randn(recording.call.latents.shape)
    seen = []
    other_text = recording
    for name in case.model.text_arguments:
        other_text = changed(case, other_text, name)
    for one, given in ((recording, latents), (recording, latents + 1), (other_text, latents)):
        with watched([point]) as (watch,):
            one(given, recording.call.time)
        seen.append(watch.seen[-1][:3])
    (query, key, mask), (query_of_latents, *_), (_, key_of_text, _) = seen
    height, width = first.size(*case.family.latent_size(case.denoiser, recording.call))
    span = place_of(case, recording.call, point, key.shape[-2])
    moved = (query_of_latents - query).abs().amax((0, 1, 3)) > 1e-6
    said = torch.zeros_like(moved)
    said[span.image : span.image + height * width] = True
    assert torch.equal(moved, said)
    moved = (key_of_text - key).abs().amax((0, 1, 3)) > 1e-6
    moved &= ~is_put_back(mask, span, key.shape[-2])
    said = torch.zeros_like(moved)
    said[span.start : span.start + span.length] = True
    assert moved.any() and not (moved & ~said).any()


@torch.no_grad()
def test_the_columns_of_a_word_are_those_that_another_word_changes(case: Tiny) -> None:
    prompts = ["a photo of a dog and a bird", "a photo of a horse and a bird"]
    recording = case.record(prompts)
    at = prompts[0].index("dog")
    (columns,) = case.family.token_indices(case.pipe, prompts[0], [(at, at + 3)], case.arguments)
    columns = tuple(column % case.family.text_length(recording.call) for column in columns)
    name = case.model.text_arguments[0]
    text = recording.call.lists.get(name) or recording.call.rest[name]
    one, other = text[0].float(), text[1].float()
    while one.ndim > 2:  # states of several layers
        one, other = one[0], other[0]
    change = (one - other).norm(dim=-1) / one.norm(dim=-1)
    for column in columns:  # the first change of a causal encoder, the largest one of others
        before, around = change[max(column - 3, 0) : column], change[max(column - 3, 0) : column + 4]
        assert change[column] > 0 and (before.max() < 1e-5 or change[column] == around.max())


@torch.no_grad()
def test_swapped_columns_swap_the_maps(case: Tiny) -> None:
    recording, (subject, reference) = case.record([PROMPT]), case.columns(PROMPT)
    latents = torch.randn(recording.call.latents.shape)
    maps = case.captured(recording, [(subject, reference)], latents)
    swapped = case.captured(recording, [(reference, subject)], latents)
    for one, other in zip(maps, swapped, strict=True):
        torch.testing.assert_close(one, other.flip(1))
        assert (one[:, 0] - one[:, 1]).abs().max() > 1e-7


def test_a_batch_of_two_lengths_equals_each_alone(case: Tiny, steer: Any) -> None:
    steered, prompts = steer(case.pipe), [PROMPT, LONGER]
    both = case.draw(steered, prompts, [0, 1]).images
    stock = case.draw(case.pipe, prompts, [0, 1]).images
    for row, prompt in enumerate(prompts):
        alone = case.draw(steered, prompt, row).images
        plain = case.draw(case.pipe, prompt, row).images
        assert (alone - plain).abs().max() > 1e-3
        own = (stock[row : row + 1] - plain).abs().max()  # some models let a sample attend to its padding
        assert (both[row : row + 1] - alone).abs().max() <= 2e-3 + 5 * own


def test_unsteered_rows_keep_their_bits(case: Tiny, steer: Any) -> None:
    mine = case.draw(steer(case.pipe), [PROMPT, PLAIN], [0, 1])
    stock = case.draw(case.pipe, [PROMPT, PLAIN], [0, 1]).images
    assert [image.passes > 0 for image in mine.steering.images] == [True, False]
    assert torch.equal(mine.images[1], stock[1]) and not torch.equal(mine.images[0], stock[0])


def test_the_conditional_rows_are_steered_and_the_negative_prompt_is_not(
    case: Tiny, steer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case.model.guided is None:
        pytest.skip("these pipelines have no true guidance")
    moved, calls = [], []
    steer_step = SteeringLoop.steer

    def spied(loop: Any, step: Any, latents: Any, state: Any) -> Any:
        calls.append(step.call)
        moved.append(steer_step(loop, step, latents, state))
        return moved[-1]

    monkeypatch.setattr(SteeringLoop, "steer", spied)
    steered = steer(case.pipe, by_step_index=True, window=0.3)
    guided = [case.draw(steered, PROMPT, **case.model.guided, negative_prompt=text) for text in (NEGATIVE, LONGER)]
    alone = case.draw(steered, PROMPT)
    stock = case.draw(case.pipe, PROMPT, **case.model.guided, negative_prompt=NEGATIVE)
    assert (guided[0].images - guided[1].images).abs().max() > 1e-4  # it is guided
    assert (guided[0].images - stock.images).abs().max() > 1e-4  # and steered
    assert guided[0].steering.images[0].passes == alone.steering.images[0].passes > 0
    own = [(one - moved[-1]).abs().max() for one in moved[:2]]
    assert max(own) < 2e-3, "what is moved depends on the negative prompt"
    assert all(len(call.latents) == 1 for call in calls)


def test_guidance_is_off_where_the_family_records(case: Tiny) -> None:
    assert case.record([PROMPT, LONGER]).batch == 2


def test_images_that_are_not_square(case: Tiny, steer: Any) -> None:
    height, width = case.model.other_size
    multiple = case.family.pixel_multiple(case.pipe)
    recording = case.record([PROMPT], case.model.other_size)
    assert case.family.latent_size(case.denoiser, recording.call) == (height // multiple, width // multiple)
    mine = case.draw(steer(case.pipe), PROMPT, height=height, width=width)
    stock = case.draw(case.pipe, PROMPT, height=height, width=width)
    assert mine.images.shape == stock.images.shape and mine.steering.images[0].passes > 0
    assert (mine.images - stock.images).abs().max() > 1e-3


def test_checkpointing_changes_nothing(case: Tiny, steer: Any) -> None:
    plain = case.draw(steer(case.pipe), PROMPT).images
    assert torch.equal(case.draw(steer(case.pipe, checkpointing=True), PROMPT).images, plain)


def test_half_precision(case: Tiny, steer: Any) -> None:
    case.pipe.to(getattr(torch, case.model.low_precision))
    out = case.draw(steer(case.pipe), PROMPT)
    assert out.images.isfinite().all() and out.steering.images[0].passes > 0 and not out.steering.images[0].note
    assert not torch.equal(out.images, case.draw(case.pipe, PROMPT).images)


def test_a_lora_is_steered_with(case: Tiny, steer: Any) -> None:
    peft = pytest.importorskip("peft")
    before = case.draw(steer(case.pipe), PROMPT).images
    modules = {name.rpartition(".")[2] for name, _ in case.denoiser.named_modules()} & {"to_q", "to_k", "qkv"}
    # As add_adapter does, which not every transformer has.
    peft.inject_adapter_in_model(
        peft.LoraConfig(r=2, target_modules=sorted(modules), init_lora_weights=False), case.denoiser
    )
    mine, stock = case.draw(steer(case.pipe), PROMPT), case.draw(case.pipe, PROMPT)
    assert mine.steering.images[0].passes > 0
    assert not torch.equal(mine.images, stock.images) and not torch.equal(mine.images, before)


def test_embeddings_in_place_of_the_prompt(case: Tiny, steer: Any) -> None:
    if case.model.embeddings is None:
        pytest.skip("these pipelines take no embeddings")
    subject, reference = case.columns(PROMPT)
    with torch.no_grad():
        embeddings = case.model.embeddings(case.pipe, [PROMPT], case.arguments)
    width = len(embeddings["prompt_embeds"][0])
    columns = {name: tuple(column % width for column in its) for name, its in (("dog", subject), ("cat", reference))}
    given = {"relations": [["dog | left of | cat"]], "columns": [columns], **embeddings}
    mine = case.draw(steer(case.pipe), None, **given)
    assert mine.steering.images[0].passes > 0
    torch.testing.assert_close(mine.images, case.draw(steer(case.pipe), PROMPT).images, rtol=1e-3, atol=1e-3)


def test_a_pass_that_ends_early_is_the_same(case: Tiny, steer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    early = case.draw(steer(case.pipe, depth=1), PROMPT)
    whole: Callable[..., Any] = lambda denoiser, arguments: denoiser(**arguments)  # noqa: E731
    monkeypatch.setattr("learn_to_steer.steering.loop.run_until_captured", whole)
    assert torch.equal(case.draw(steer(case.pipe, depth=1), PROMPT).images, early.images)
    assert early.steering.images[0].passes > 0


@torch.no_grad()
def test_only_the_first_layers_run_where_only_they_are_read(case: Tiny) -> None:
    recording = case.record([PROMPT])
    order = case.family.running_order(case.family.layout(case.denoiser).layers)
    assert sorted(layer.name for layer in order) == sorted(x.name for x in case.family.layout(case.denoiser).layers)
    ran = []
    for layer in order:
        case.denoiser.get_submodule(layer.name).register_forward_hook(lambda *_, n=layer.name: ran.append(n))
    recording(recording.call.latents, recording.call.time)
    assert ran == [layer.name for layer in order], "the layers run in another order"
    ran.clear()
    capture = AttentionCapture(case.family.attention_layers(case.denoiser), spec=MapSpec(choose=lambda *_: order[:1]))
    spans = case.family.spans(case.denoiser, recording.call)
    weights = columns_to_weights([case.columns(PROMPT)], case.family.text_length(recording.call), spans)
    size = case.family.latent_size(case.denoiser, recording.call)
    with capture.capture(weights, *size, spans=spans):
        run_until_captured(case.denoiser, case.family.write(recording.call) | {"return_dict": False})
    assert ran == [order[0].name]


@torch.no_grad()
def test_a_replay_is_what_the_pipeline_does(case: Tiny) -> None:
    """At every step: the time that is fed, the prediction that the scheduler is given, and the noise level."""
    pipe, family, steps = case.pipe, case.family, []
    scheduler, step = pipe.scheduler, pipe.scheduler.step
    scale = getattr(scheduler, "scale_model_input", lambda sample, _: sample)

    def spied(prediction: Any, timestep: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
        steps.append((prediction, timestep, scale(sample, timestep)))
        return step(prediction, timestep, sample, *args, **kwargs)

    functools.update_wrapper(spied, step)
    scheduler.step = spied
    case.draw(pipe, PROMPT)
    del pipe.scheduler.step
    fed = [family.model_timestep(pipe, torch.as_tensor(one[1])) for one in steps]
    levels, shares = ([of(pipe, time) for time in fed] for of in (family.noise_level, family.progress))
    assert levels == sorted(levels, reverse=True) and 0.5 < levels[0] <= 1
    assert shares == sorted(shares) and 0 <= shares[0] < 0.5
    if "Flow" in type(pipe.scheduler).__name__:
        sigmas = pipe.scheduler.sigmas[: len(levels)].float()
        torch.testing.assert_close(torch.tensor(levels), sigmas, rtol=1e-3, atol=1e-3)
    recording = case.record([PROMPT])
    for (prediction, _, sample), time in zip(steps, fed, strict=True):
        mine = recording(sample.reshape(recording.call.latents.shape), time)
        torch.testing.assert_close(mine, prediction.reshape(mine.shape), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_noise_and_levels_fit_together(case: Tiny) -> None:
    pipe, family = case.pipe, case.family
    call = case.record([PROMPT, LONGER]).call
    wanted = torch.tensor([0.9, 0.5, 0.2])
    times = family.times(pipe, wanted)
    for level, time in zip(wanted.tolist(), times, strict=True):
        assert abs(family.noise_level(pipe, time) - level) < 0.01
        clean, noise = torch.zeros(call.latents.shape), torch.randn(call.latents.shape)
        noisy = family.add_noise(pipe, clean, noise, time)
        torch.testing.assert_close(noisy, noise * level, rtol=0.02, atol=0.02)
        zero = family.predict_clean(pipe, noisy, noise, time)  # noise is what predicts a clean image of zeros
        torch.testing.assert_close(zero, clean, rtol=0, atol=0.05)


@torch.no_grad()
def test_images_become_latents_and_come_back(case: Tiny) -> None:
    pipe, family, (height, width) = case.pipe, case.family, case.model.other_size
    recording = case.record([PROMPT], case.model.other_size)
    latents = family.encode(pipe, torch.rand(1, 3, height, width))
    assert latents.shape == recording.call.latents.shape and latents.dtype == torch.float32
    assert not recording.call.latents.any()  # no random numbers were drawn
    stepped, step = [], pipe.scheduler.step

    def spied(*args: Any, **kwargs: Any) -> Any:
        stepped.append(step(*args, **kwargs))
        return stepped[-1]

    pipe.scheduler.step = functools.wraps(step)(spied)
    shown = case.draw(pipe, PROMPT, output_type="pt", height=height, width=width).images
    assert shown.shape == (1, 3, height, width)
    drawn = stepped[-1][0]  # not what output_type="latent" returns: some pipelines change it before
    mine = family.decode(pipe, replace(recording.call, latents=drawn.reshape(latents.shape).float()))
    torch.testing.assert_close(mine, torch.as_tensor(shown).float(), rtol=1e-3, atol=1e-3)


def test_memory_is_estimated(case: Tiny) -> None:
    recording = case.record([PROMPT, LONGER])
    some = estimate(case.pipe, case.family, recording)
    assert 0 < some.checkpointed <= some.kept and some.weights > 0


def test_some_rows_of_a_call_are_those_rows(case: Tiny) -> None:
    both = case.record([PROMPT, LONGER])
    latents = torch.randn(both.call.latents.shape)
    one = replace(both, call=index_batch(both.call, torch.tensor([1]), 2))
    with torch.no_grad():
        expected = both(latents, both.call.time.flatten()[0])[1:]
        torch.testing.assert_close(one(latents[1:], one.call.time.flatten()[0]), expected, rtol=1e-3, atol=1e-4)


def test_the_classifier_of_another_family_is_refused(case: Tiny, random_classifier: Any) -> None:
    others = [name for name in FAMILIES if name != case.family.name]
    loss = Learned(random_classifier(_tiny(others[0])))
    with pytest.raises(MismatchError, match=f"was made for the family {others[0]}, this model is {case.family.name}"):
        Steerer(loss).on(case.pipe)


def test_a_word_beyond_the_text_that_is_read_is_refused(case: Tiny, steer: Any) -> None:
    prompt = "a dog to the left of a" + " large" * case.model.longest + " cat"
    with pytest.raises(PromptError, match="beyond"):
        case.draw(steer(case.pipe), prompt, relations="dog | left of | cat")
    (report,) = case.draw(steer(case.pipe), [prompt], relations=None).steering.images
    assert not report.relations


def test_maps_are_collected(case: Tiny, tmp_path: Path) -> None:
    side = max(case.model.size)
    config = CollectConfig(
        "tiny", "emoji", limit=2, side=side, levels=(0.9, 0.5), quality=1e9, batch=2, arguments=case.arguments
    )
    manifest = collect(case.pipe, tmp_path, config, progress=False)
    assert sum(manifest.counts["rows"].values()) == 8
    split = "train" if manifest.counts["rows"].get("train") else "val"
    maps = MapDataset.open(tmp_path, split).maps(range(manifest.counts["rows"][split])).float()
    assert maps.isfinite().all() and maps.shape[1:] == (2, case.family.layout(case.denoiser).channels, 16, 16)


def test_a_saved_folder_is_a_model_like_any_other(case: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    case.pipe.save_pretrained(folder)
    family, empty = skeleton(str(folder))
    assert family.name == case.family.name
    assert case.family.layout(empty) == case.family.layout(case.denoiser)
    assert [name for name in FAMILIES if registry.load("families", name).FAMILY.matches(case.pipe)] == [family.name]
    assert of_config({**case.denoiser.config, "_class_name": family.network}) is case.family
    loaded = load_pipeline(str(folder))
    # Not to the bit: loaded weights lie elsewhere in memory, and some kernels round by that.
    torch.testing.assert_close(
        case.draw(loaded, PROMPT).images, case.draw(case.pipe, PROMPT).images, rtol=1e-4, atol=1e-3
    )
    height, width = case.model.size
    options = ["--steps", "2", "--objective", "for-spatial", "--height", str(height), "--width", str(width)]
    options += ["--out", str(tmp_path / "out")]
    assert main(["generate", PROMPT, "--model", str(folder), *options]) == 0
    assert list((tmp_path / "out").glob("*.png"))
