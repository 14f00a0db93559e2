"""A steered call touches no other call: same denoiser, from callbacks and threads, and nothing is left behind."""

from __future__ import annotations

import copy
import gc
import inspect
import threading
import types
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import diffusers
import pytest
import torch
from diffusers.callbacks import SDCFGCutoffCallback

from learn_to_steer.attention import AttentionCapture
from learn_to_steer.conditioning import record
from learn_to_steer.errors import SteerError, UnsupportedError
from learn_to_steer.families import find
from learn_to_steer.maps import columns_to_weights
from learn_to_steer.steering.compatibility import object_view, prepared

PROMPT = "a dog to the left of a cat"
OTHER = "a photo of a pizza above a horse"
SECONDS = 60  # after which a thread that hangs fails its test


def draw(pipe: Any, prompt: Any = PROMPT, seed: int = 0, **more: Any) -> Any:
    settings = {"num_inference_steps": 4, "guidance_scale": 4.0, "output_type": "latent", "height": 64, "width": 64}
    return pipe(prompt, generator=torch.Generator().manual_seed(seed), **(settings | more))


def elsewhere(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The result of a function that runs in another thread."""
    with ThreadPoolExecutor(1) as other:
        return other.submit(function, *args, **kwargs).result(timeout=SECONDS)


def sibling(pipe: Any) -> Any:
    """Another pipeline on the same models, with a scheduler of its own."""
    parts = pipe.components | {"scheduler": type(pipe.scheduler).from_config(pipe.scheduler.config)}
    more = {"requires_safety_checker": False} if "safety_checker" in parts else {}
    other = type(pipe)(**parts, **more)
    other.set_progress_bar_config(disable=True)
    return other


def after_each_step(action: Callable[[Any], Any]) -> Callable[..., Any]:
    def callback(pipe: Any, step: int, time: Any, values: dict[str, Any]) -> dict[str, Any]:
        action(pipe)
        return values

    return callback


def state_of(pipe: Any) -> Any:
    """All that a steered call might leave behind on a pipeline of Stable Diffusion or FLUX."""
    denoiser = getattr(pipe, find(pipe).denoiser)
    modules = [
        (m._forward_pre_hooks, m._forward_hooks, m._compiled_call_impl, sorted(vars(m)), vars(m).get(name))
        for m in denoiser.modules()
        for name in ("gradient_checkpointing", "_gradient_checkpointing_func")
    ]
    flags = [parameter.requires_grad for parameter in denoiser.parameters()]
    scheduler = {name: value for name, value in vars(pipe.scheduler).items() if not isinstance(value, torch.Tensor)}
    return repr((modules, flags, scheduler, torch._C._len_torch_function_stack()))


@pytest.mark.parametrize("thread", [False, True])
@pytest.mark.parametrize("same_pipeline", [False, True])
def test_plain_calls_in_a_callback_are_plain(
    tiny_sd: Any, tiny_steerer: Any, same_pipeline: bool, thread: bool
) -> None:
    plain = tiny_sd if same_pipeline else sibling(tiny_sd)
    stock, alone = draw(plain, OTHER, 1).images, draw(tiny_steerer(), PROMPT)
    inside: list[Any] = []
    run = elsewhere if thread else lambda function, *args: function(*args)
    callback = after_each_step(lambda _: inside.append(run(draw, plain, OTHER, 1).images))
    out = draw(tiny_steerer(), PROMPT, callback_on_step_end=callback)
    assert torch.equal(out.images, alone.images)
    assert [image.as_dict() for image in out.steering.images] == [image.as_dict() for image in alone.steering.images]
    assert len(inside) == 4 and all(torch.equal(image, stock) for image in inside)


def test_what_a_callback_is_given_draws_plainly(tiny_sd: Any, tiny_steerer: Any) -> None:
    """Its pipeline, a new pipeline of its parts, and its denoiser; steered, too."""
    stock, alone = draw(tiny_sd, OTHER, 1).images, draw(tiny_steerer(), PROMPT).images
    steered = draw(tiny_steerer(), OTHER, 1).images
    fed = torch.randn(1, 16, 8, 8), torch.tensor(500), torch.randn(1, 77, 16)
    with torch.no_grad():
        prediction = tiny_sd.unet(*fed).sample
    inside: list[Any] = []

    def act(pipe: Any) -> None:
        inside.append(draw(pipe, OTHER, 1).images)
        inside.append(draw(sibling(pipe), OTHER, 1).images)
        assert torch.equal(pipe.unet(*fed).sample, prediction)
        again = tiny_steerer(pipe)
        assert again.pipe is tiny_sd and torch.equal(draw(again, OTHER, 1).images, steered)

    assert torch.equal(draw(tiny_steerer(), PROMPT, callback_on_step_end=after_each_step(act)).images, alone)
    assert len(inside) == 8 and all(torch.equal(image, stock) for image in inside)


def test_a_steered_call_in_the_callback_of_a_plain_one(tiny_sd: Any, tiny_steerer: Any) -> None:
    """The plain call reads its guidance from the pipeline, which the steered call must not overwrite."""
    stock = draw(tiny_sd, OTHER, 1, guidance_scale=7.0).images
    alone = draw(tiny_steerer(), PROMPT).images
    inside: list[Any] = []
    callback = after_each_step(lambda _: inside.append(draw(tiny_steerer(), PROMPT).images))
    assert torch.equal(draw(tiny_sd, OTHER, 1, guidance_scale=7.0, callback_on_step_end=callback).images, stock)
    assert all(torch.equal(image, alone) for image in inside)


def test_steered_calls_nest_in_one_thread(tiny_sd: Any, tiny_steerer: Any) -> None:
    outer, inner = draw(tiny_steerer(), PROMPT).images, draw(tiny_steerer(passes=1), OTHER, 1).images
    inside: list[Any] = []
    callback = after_each_step(
        lambda _: inside.append(draw(tiny_steerer(passes=1, checkpointing=True), OTHER, 1, timeout=0).images)
    )
    before = state_of(tiny_sd)
    assert torch.equal(draw(tiny_steerer(), PROMPT, callback_on_step_end=callback).images, outer)
    assert len(inside) == 4 and all(torch.equal(image, inner) for image in inside)
    assert state_of(tiny_sd) == before


def test_a_plain_call_during_the_passes_is_plain(tiny_sd: Any, tiny_steerer: Any) -> None:
    """Another thread draws while the maps of a pass are captured."""
    plain, steered = sibling(tiny_sd), tiny_steerer(checkpointing=True)
    stock, alone = draw(plain, OTHER, 1).images, draw(steered).images
    inside: list[Any] = []
    handle = tiny_sd.unet.mid_block.attentions[0].register_forward_hook(
        lambda *_: inside.append(elsewhere(draw, plain, OTHER, 1).images) if own() else None
    )
    thread = threading.get_ident()

    def own() -> bool:
        return torch.is_grad_enabled() and threading.get_ident() == thread and len(inside) < 3

    assert torch.equal(draw(steered).images, alone)
    handle.remove()
    assert len(inside) == 3 and all(torch.equal(image, stock) for image in inside)


def test_another_thread_waits_as_long_as_it_is_told(tiny_sd: Any, tiny_steerer: Any) -> None:
    steered, waits = tiny_steerer(), tiny_steerer()
    alone = draw(waits, OTHER, 1).images
    refused: list[Any] = []
    with ThreadPoolExecutor(1) as other:
        later: list[Any] = []

        def act(_: Any) -> None:
            if not later:
                refused.append(other.submit(draw, waits, OTHER, 1, timeout=0.01).exception(timeout=SECONDS))
                later.append(other.submit(draw, waits, OTHER, 1, timeout=None))

        draw(steered, callback_on_step_end=after_each_step(act))
        assert torch.equal(later[0].result(timeout=SECONDS).images, alone)
    assert isinstance(refused[0], SteerError)
    assert "another thread" in str(refused[0]) and "timeout=" in str(refused[0]) and "0.01 s" in str(refused[0])


@pytest.mark.parametrize("prepare", ["setting", "user", "user's own function"])
def test_recomputation_in_another_thread(
    tiny_flux: Any, steer: Any, monkeypatch: pytest.MonkeyPatch, prepare: str
) -> None:
    """As autograd does it on a GPU: the captured maps belong to the call, not to its thread."""
    expected = draw(steer(tiny_flux), max_sequence_length=48)
    transformer = tiny_flux.transformer
    kinds: list[type] = []

    def checkpoint(module: torch.nn.Module, *args: Any) -> Any:
        kinds.append(type(module))
        assert list(module.parameters())
        return torch.utils.checkpoint.checkpoint(module.__call__, *args, use_reentrant=False)

    if prepare != "setting":
        transformer.enable_gradient_checkpointing(*([checkpoint] if prepare == "user's own function" else []))
    before, gradient, threads = state_of(tiny_flux), torch.autograd.grad, []

    def foreign_gradient(*args: Any, **kwargs: Any) -> Any:
        threads.append(1)
        return elsewhere(gradient, *args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", foreign_gradient)
    out = draw(steer(tiny_flux, checkpointing=True), max_sequence_length=48)
    assert torch.equal(out.images, expected.images) and len(threads) == out.steering.images[0].passes > 0
    assert state_of(tiny_flux) == before
    assert all(issubclass(kind, torch.nn.Module) for kind in kinds) and bool(kinds) == ("own" in prepare)


def test_captures_do_not_see_other_threads_or_each_other(tiny_sd: Any) -> None:
    weights = columns_to_weights([[(2,), (4, 5)]], 77)
    fed = torch.randn(1, 16, 8, 8), torch.tensor(500), torch.randn(1, 77, 16)
    other = tuple(part + 1 for part in fed)
    family = find(tiny_sd)
    capture = AttentionCapture(family.attention_layers(tiny_sd.unet), family.attention(tiny_sd.unet))
    with torch.no_grad(), prepared(tiny_sd.unet):
        with capture.capture(weights, 8, 8) as maps:
            tiny_sd.unet(*fed)
            expected = maps().stack(8)
        with capture.capture(weights, 8, 8) as maps:
            elsewhere(torch.no_grad()(tiny_sd.unet), *other)
            with capture.capture(weights, 8, 8) as inner:
                tiny_sd.unet(*other)
                assert not torch.equal(inner().stack(8), expected)
            tiny_sd.unet(*fed)
            assert torch.equal(maps().stack(8), expected)


def test_capturing_leaves_the_choice_of_kernels_alone(tiny_sd: Any) -> None:
    """It is one for all threads."""
    seen: set[bool] = set()
    flags = torch.backends.cuda
    capture = AttentionCapture(find(tiny_sd).attention_layers(tiny_sd.unet), method="indicator")

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.nn.functional.scaled_dot_product_attention:
                seen.add(flags.cudnn_sdp_enabled())
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), capture.capture(columns_to_weights([[(2,), (4,)]], 77), 8, 8) as maps, Watch():
        tiny_sd.unet(torch.randn(1, 16, 8, 8), torch.tensor(500), torch.randn(1, 77, 16))
        maps()
    assert seen == {flags.cudnn_sdp_enabled()}


def test_recording_stops_no_other_call(tiny_sd: Any) -> None:
    plain = sibling(tiny_sd)
    stock = draw(plain, OTHER, 1).images
    begun: list[int] = []
    inside: list[Any] = []

    def draw_elsewhere(*_: Any) -> None:
        if not begun:
            begun.append(1)
            inside.append(elsewhere(draw, plain, OTHER, 1).images)

    # A hook on the text encoder runs before the denoiser is called, and while calls of it are waited for.
    handle = tiny_sd.text_encoder.register_forward_hook(draw_elsewhere)
    record(tiny_sd, find(tiny_sd), [PROMPT], 64, 64)
    handle.remove()
    assert torch.equal(inside[0], stock)


def test_a_call_can_be_stopped_from_its_callback_and_from_outside(tiny_sd: Any, tiny_steerer: Any) -> None:
    for stop in (lambda pipe: setattr(pipe, "_interrupt", True), lambda _: setattr(tiny_sd, "_interrupt", True)):
        steps: list[int] = []

        def act(pipe: Any, stop: Any = stop, steps: list[int] = steps) -> None:
            steps.append(1)
            stop(pipe)

        draw(tiny_steerer(), callback_on_step_end=after_each_step(act))
        assert len(steps) == 1
    assert draw(tiny_steerer()).steering.images[0].passes == 4  # the next call runs
    forwards: list[int] = []

    def stop_at_the_first(*_: Any) -> None:
        forwards.append(1)
        tiny_sd._interrupt = True

    handle = tiny_sd.unet.register_forward_hook(stop_at_the_first)
    draw(tiny_steerer(passes=0))
    handle.remove()
    assert len(forwards) == 1  # without a callback, too


def test_guidance_can_be_switched_off_midway(tiny_sd: Any, tiny_steerer: Any) -> None:
    rows: list[int] = []
    handle = tiny_sd.unet.conv_in.register_forward_pre_hook(
        lambda _, given: None if torch.is_grad_enabled() else rows.append(len(given[0]))
    )
    draw(tiny_steerer(), callback_on_step_end=SDCFGCutoffCallback(cutoff_step_ratio=0.5))
    handle.remove()
    assert rows == [2, 2, 2, 1]


def test_only_public_attributes_are_left_on_the_pipeline(tiny_sd: Any, tiny_steerer: Any) -> None:
    """Private ones are the state of a call, and another call of the pipeline may be reading its own."""

    class Counting(diffusers.StableDiffusionPipeline):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            self.calls = getattr(self, "calls", 0) + 1
            return super().__call__(*args, **kwargs)

    tiny_sd = Counting(**tiny_sd.components, requires_safety_checker=False)
    draw(tiny_sd, num_inference_steps=2, guidance_scale=2.0)
    before, attributes = state_of(tiny_sd), dict(vars(tiny_sd))
    seen: list[Any] = []

    def act(pipe: Any) -> None:
        seen.append((pipe.num_timesteps, pipe.guidance_scale, tiny_sd.mine if seen else None))
        pipe.mine = len(seen)

    draw(tiny_steerer(tiny_sd), guidance_scale=5.0, callback_on_step_end=after_each_step(act))
    assert seen == [(4, 5.0, None), (4, 5.0, 1), (4, 5.0, 2), (4, 5.0, 3)]
    assert vars(tiny_sd) == attributes | {"mine": 4, "calls": 2}
    assert state_of(tiny_sd) == before  # its scheduler, too


@pytest.mark.parametrize("name", ["unet", "scheduler"])
@pytest.mark.parametrize("own", [False, True])
def test_parts_replaced_during_the_call_are_noticed(tiny_sd: Any, tiny_steerer: Any, name: str, own: bool) -> None:
    other = sibling(tiny_sd).scheduler if name == "scheduler" else type(tiny_sd.unet).from_config(tiny_sd.unet.config)
    callback = after_each_step(lambda pipe: setattr(tiny_sd if own else pipe, name, other))
    with pytest.raises(SteerError, match=f"{name} was replaced"):
        draw(tiny_steerer(), callback_on_step_end=callback)


def test_offloading_is_left_to_the_users_pipeline(
    tiny_sd: Any, tiny_steerer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed: list[Any] = []
    monkeypatch.setattr(type(tiny_sd), "maybe_free_model_hooks", lambda self: freed.append(self))
    draw(tiny_steerer(), num_inference_steps=1)
    assert len(freed) == 1 and freed[0] is tiny_sd


def test_a_step_that_was_replaced_on_the_scheduler_is_used(tiny_sd: Any, tiny_steerer: Any) -> None:
    alone, step, times = draw(tiny_steerer()).images, tiny_sd.scheduler.step, []

    def watched(model_output: Any, timestep: Any, sample: Any, eta: float = 0.0, **more: Any) -> Any:
        times.append(int(timestep))
        return step(model_output, timestep, sample, eta=eta, **more)

    tiny_sd.scheduler.step = watched
    assert torch.equal(draw(tiny_steerer()).images, alone)
    assert len(times) == 4 and tiny_sd.scheduler.step is watched


def test_a_method_bound_to_the_pipeline_runs_on_the_call(tiny_sd: Any, tiny_steerer: Any) -> None:
    """It may read the state of the call, and its scheduler."""
    owners: list[Any] = []

    def prepare(self: Any, *args: Any, **kwargs: Any) -> Any:
        owners.append(self)
        return type(self).prepare_latents(self, *args, **kwargs)

    alone = draw(tiny_steerer()).images
    tiny_sd.prepare_latents = types.MethodType(prepare, tiny_sd)
    assert torch.equal(draw(tiny_steerer()).images, alone)
    assert len(owners) == 1 and owners[0] is not tiny_sd


def test_weights_of_inference_mode_are_refused_before_the_run(tiny_sd: Any, steer: Any, random_classifier: Any) -> None:
    steered, drawn = steer(tiny_sd), []
    with torch.inference_mode():
        tiny_sd.unet = type(tiny_sd.unet).from_config(tiny_sd.unet.config)
    before = state_of(tiny_sd)
    with pytest.raises(UnsupportedError, match=r"pipe\.unet was loaded inside torch\.inference_mode"):
        draw(steered, callback_on_step_end=after_each_step(drawn.append))
    assert drawn == [] and state_of(tiny_sd) == before


def test_a_classifier_of_inference_mode_is_refused_before_the_run(tiny_sd: Any, steer: Any) -> None:
    steered, drawn = steer(tiny_sd), []
    with torch.inference_mode():
        steered.loss.classifier = type(steered.loss.classifier)(steered.loss.classifier.config)
    with pytest.raises(UnsupportedError, match="the classifier was loaded inside"):
        draw(steered, callback_on_step_end=after_each_step(drawn.append))
    assert drawn == []


@pytest.mark.parametrize("search", [None, (1, 1, 0)])
def test_latents_of_inference_mode_are_steered(tiny_flux: Any, steer: Any, search: Any) -> None:
    with torch.inference_mode():
        latents = torch.randn(1, 16, 64)
    steered, settings = steer(tiny_flux, search=search), {"max_sequence_length": 48, "num_inference_steps": 2}
    out = draw(steered, latents=latents, **settings)
    assert torch.equal(out.images, draw(steered, latents=latents.clone(), **settings).images)


def test_compiled_blocks_stay_compiled_for_others(tiny_sd: Any, tiny_steerer: Any) -> None:
    steered, plain = tiny_steerer(), sibling(tiny_sd)
    runs: list[str] = []
    block = tiny_sd.unet.mid_block
    block._compiled_call_impl = lambda *args, **kwargs: (runs.append("compiled"), block._call_impl(*args, **kwargs))[1]
    draw(steered, callback_on_step_end=after_each_step(lambda _: (runs.append("plain"), draw(plain, OTHER, 1))))
    assert runs == ["plain", *["compiled"] * 4] * 4


def test_nothing_is_left_after_an_exception(tiny_sd: Any, tiny_steerer: Any) -> None:
    tiny_sd.unet.enable_gradient_checkpointing()
    before = state_of(tiny_sd)

    def broken(_: Any) -> None:
        raise KeyError("from a callback")

    with pytest.raises(KeyError):
        draw(tiny_steerer(checkpointing=True), callback_on_step_end=after_each_step(broken))
    assert state_of(tiny_sd) == before
    elsewhere(draw, tiny_steerer(), timeout=0)


def test_memory_is_freed_without_the_garbage_collector(tiny_sd: Any, steer: Any) -> None:
    steered = steer(tiny_sd)
    tiny_sd.unet = copy.deepcopy(tiny_sd.unet)  # of which nobody else knows
    denoiser = weakref.ref(tiny_sd.unet)
    gc.collect()
    gc.disable()
    try:
        draw(steered)
        tiny_sd.unet = None
        assert denoiser() is None
    finally:
        gc.enable()


def test_classes_without_subclasses_are_refused(tiny_sd: Any, tiny_steerer: Any) -> None:
    class Closed(diffusers.UNet2DConditionModel):
        def __init_subclass__(cls) -> None:
            raise TypeError("closed")

    steered = tiny_steerer()
    tiny_sd.unet = Closed.from_config(tiny_sd.unet.config)
    with pytest.raises(UnsupportedError, match="no class can derive from Closed"):
        draw(steered)


def test_a_view_is_like_the_object() -> None:
    module = torch.nn.Linear(2, 3)
    view = object_view(module, __call__=lambda given: given + 1, extra_repr=lambda: "mine")
    assert isinstance(view, torch.nn.Linear) and type(view).__name__ == "Linear" and view(1) == 2
    assert view.weight is module.weight and next(view.modules()) is module
    view.note = 1
    assert module.note == 1 and view.extra_repr() == "mine" and module.extra_repr() != "mine"
    del view.note
    assert not hasattr(module, "note") and inspect.signature(view.forward) == inspect.signature(module.forward)
