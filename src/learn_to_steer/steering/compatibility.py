"""What a pipeline must be for steering, and what keeps a steered call apart from all other calls.

First the checks: ``check_pipeline`` refuses what cannot be steered, before a step is made, and names the remedy.

Then ``prepared``, which changes the denoiser itself, for one steered call at a time and such that calls without
gradients do not notice. Last the views: a call runs on a shallow copy of the pipeline (``pipeline_view``), with a
scheduler of its own (``own_scheduler``) and a denoiser that only this copy has (``object_view``).
"""

from __future__ import annotations

import contextvars
import copy
import functools
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from numbers import Real
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from learn_to_steer.attention import Complete
from learn_to_steer.errors import PromptError, SteerError, UnsupportedError
from learn_to_steer.families import DENOISERS, Family
from learn_to_steer.steering.report import SteeringReport

TIMEOUT = 600.0  # seconds that a steered call waits for one of another thread
_LOCKS: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
_LOCKS_GUARD = threading.Lock()
_EAGER: contextvars.ContextVar[bool] = contextvars.ContextVar("learn_to_steer_eager", default=False)


def check_model(pipe: Any, family: Family) -> None:
    """Refuse a pipeline that cannot be steered whatever its settings are: its model or its class.

    Args:
        pipe: A diffusers pipeline.
        family: Its family, which lists the pipelines that were tested.

    Raises:
        UnsupportedError: The denoiser is fed more than latents, or the class was not tried.
    """
    family.check(pipe)
    tried = {*family.pipelines, *family.modular_pipelines}
    if not {kind.__name__ for kind in type(pipe).__mro__} & tried:
        instead = family.recommended_pipeline(pipe)
        others = ", ".join(name for name in family.pipelines if name != instead)
        raise UnsupportedError(
            f"{type(pipe).__name__} has not been tried with steering; use the same weights in {instead} "
            f"({instead}.from_pipe(pipe)){others and f', or in one of: {others}'}"
        )


def check_pipeline(pipe: Any, family: Family, arguments: Mapping[str, Any] | None = None) -> None:
    """Refuse a pipeline whose images steering would corrupt, or whose denoiser has no gradient.

    Args:
        pipe: A diffusers pipeline.
        family: Its family, which lists the schedulers that were tested.
        arguments: Of the call, if there is one. A call that fails would leave perturbed attention on the denoiser.

    Raises:
        UnsupportedError: Something does not work with steering; the message names the remedy.
    """
    check_model(pipe, family)
    family.require_scheduler(type(pipe.scheduler).__name__)
    if torch.is_inference_mode_enabled():
        raise UnsupportedError("steering needs gradients: call it outside torch.inference_mode() (no_grad is fine)")
    if arguments is not None and arguments.get("pag_scale", hasattr(type(pipe), "do_perturbed_attention_guidance")):
        raise UnsupportedError("perturbed-attention guidance cannot be steered: turn it off (pag_scale=0)")
    denoiser = uncompiled(getattr(pipe, family.denoiser))
    refuse_inference_tensors(denoiser, f"pipe.{family.denoiser}")
    if kind := _cache(denoiser):
        raise UnsupportedError(
            f"pipe.{family.denoiser} reuses old activations ({kind}), whose maps are not those of the moved latents; "
            f"switch it off while steering (pipe.{family.denoiser}.disable_cache()), or load the pipeline anew"
        )
    if any(_offloaded_in_groups(module) for module in denoiser.modules()):
        raise UnsupportedError(
            f"pipe.{family.denoiser} is offloaded in groups, and the weights are gone when the backward needs them; "
            "load the pipeline anew and use pipe.enable_model_cpu_offload() (--offload model)"
        )


def _cache(denoiser: nn.Module) -> str:
    """The diffusers cache that is on, by the model's own method or by an ``apply_...`` function; empty if none is."""
    if getattr(denoiser, "is_cache_enabled", False):
        return type(denoiser._cache_config).__name__.removesuffix("Config")
    for module in denoiser.modules():
        for hook in getattr(getattr(module, "_diffusers_hook", None), "hooks", {}).values():
            if "cache" in type(hook).__module__ or "broadcast" in type(hook).__module__:
                return type(hook).__name__
    return ""


def _offloaded_in_groups(module: nn.Module) -> bool:
    """Whether diffusers' group offloading takes this module's weights away after its forward."""
    hooks = getattr(module, "_diffusers_hook", None)
    return hooks is not None and hooks.get_hook("group_offloading") is not None


def refuse_inference_tensors(module: nn.Module, name: str) -> None:
    """Refuse weights that were made inside ``torch.inference_mode``: autograd does not take them.

    Args:
        module: The denoiser, or the classifier of a loss.
        name: What the message calls it.

    Raises:
        UnsupportedError: There are such weights; the message names the remedy.
    """
    if any(tensor.is_inference() for tensor in (*module.parameters(), *module.buffers())):
        raise UnsupportedError(
            f"{name} was loaded inside torch.inference_mode(), and such weights allow no gradient: load it outside "
            "(torch.no_grad() is fine)"
        )


def uncompiled(denoiser: Any) -> Any:
    """Return the module in which ``torch.compile`` wrapped the denoiser, or the denoiser itself."""
    return getattr(denoiser, "_orig_mod", denoiser)


def without_compile(pipe: Any) -> Any:
    """Return a pipeline whose denoiser is not wrapped by ``torch.compile``: ``pipe`` itself, or a shallow copy."""
    wrapped = {name: part for name in DENOISERS if hasattr(part := getattr(pipe, name, None), "_orig_mod")}
    if not wrapped:
        return pipe
    plain = copy.copy(pipe)
    vars(plain).update({name: uncompiled(part) for name, part in wrapped.items()})
    return plain


@contextmanager
def run_eagerly() -> Iterator[None]:
    """Run modules eagerly inside the context, if they were compiled in place and are ``prepared``."""
    before = _EAGER.get()
    _EAGER.set(True)
    try:
        yield
    finally:
        _EAGER.set(before)


@contextmanager
def prepared(denoiser: nn.Module, checkpointing: bool = False, timeout: float | None = TIMEOUT) -> Iterator[None]:
    """Make a denoiser ready for gradients with respect to its input; afterwards it is as it was.

    Its parameters need no gradient inside. Gradient checkpointing recomputes in the context (``contextvars``) of the
    first run, also in another thread, as autograd does on a GPU. What was compiled in place obeys ``run_eagerly``. None
    of this changes a call without gradients. The same thread may enter again; other threads wait.

    Args:
        denoiser: The UNet or transformer, not wrapped by ``torch.compile``.
        checkpointing: Whether to switch gradient checkpointing on, if it is off.
        timeout: Seconds to wait for another thread. None: as long as it takes.

    Raises:
        PromptError: ``timeout`` is neither None nor a number from 0.
        SteerError: Another thread did not finish in time.
    """
    if timeout is not None and (not isinstance(timeout, Real) or isinstance(timeout, bool) or not timeout >= 0):
        raise PromptError(f"timeout is {timeout!r:.80}; give a number of seconds from 0, or None to wait for ever")
    with _LOCKS_GUARD:
        lock = _LOCKS.setdefault(denoiser, threading.RLock())
    if not lock.acquire(timeout=-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX)):
        raise SteerError(
            f"this {type(denoiser).__name__} is steered in another thread, which did not finish within {timeout:g} s. "
            "Only one steered call at a time can use a denoiser: wait longer (timeout=SECONDS, or None for ever), or "
            "load a model for each thread"
        )
    with ExitStack() as restore:
        restore.callback(lock.release)
        for module in denoiser.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.requires_grad:
                    restore.callback(_require_grad, module, name)
                    parameter.requires_grad_(False)
            if module._compiled_call_impl is not None:
                restore.callback(setattr, module, "_compiled_call_impl", module._compiled_call_impl)
                module._compiled_call_impl = _compiled_or_eager(module, module._compiled_call_impl)
            if hasattr(module, "gradient_checkpointing"):
                restore.callback(_restore_checkpointing, module, dict(vars(module)))
        if checkpointing and not getattr(denoiser, "is_gradient_checkpointing", False):
            denoiser.enable_gradient_checkpointing()  # type: ignore[operator]
        for module in denoiser.modules():
            if getattr(module, "gradient_checkpointing", False):
                module._gradient_checkpointing_func = _in_one_context(module._gradient_checkpointing_func)
        yield


def _require_grad(module: nn.Module, name: str) -> None:
    """By name, since offloading puts other tensors into the place of parameters."""
    parameter = module._parameters.get(name)
    if parameter is not None:
        parameter.requires_grad_(True)


def _compiled_or_eager(module: Any, compiled: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return module._call_impl(*args, **kwargs) if _EAGER.get() else compiled(*args, **kwargs)

    return call


def _restore_checkpointing(module: nn.Module, before: Mapping[str, Any]) -> None:
    for name in ("gradient_checkpointing", "_gradient_checkpointing_func"):
        if name in before:
            setattr(module, name, before[name])
        else:
            vars(module).pop(name, None)


def _in_one_context(checkpoint: Any) -> Any:
    """A gradient checkpointing function whose recomputation sees the context variables of the first run."""

    @functools.wraps(checkpoint)
    def wrapped(function: Any, *args: Any, **kwargs: Any) -> Any:
        context = contextvars.copy_context()
        ended = False

        def run(*given: Any, **named: Any) -> Any:
            nonlocal ended
            try:
                return context.copy().run(function, *given, **named)
            except Complete:  # raised again once checkpointing has noted what to recompute
                ended = True

        # Functions of users may expect the module that diffusers gives them.
        view = object_view(function, __call__=run) if isinstance(function, nn.Module) else run
        result = checkpoint(view, *args, **kwargs)
        if ended:
            raise Complete  # a new one: this frame must not hold the traceback, which leads to all activations
        return result

    return wrapped


def object_view(target: Any, **own: Any) -> Any:
    """Return an object that behaves like another, except for a few attributes of its own.

    Its class derives from that of ``target``. All other attributes are read from ``target`` and set there, and methods
    run on ``target``.

    Args:
        target: Any object.
        **own: The attributes in which the view differs; ``__call__`` is what calling it does.

    Raises:
        UnsupportedError: No class can derive from that of ``target``.
    """
    view: Any = object.__new__(_object_view_class(type(target)))  # type: ignore[arg-type]
    object.__getattribute__(view, "__dict__").update(target=target, own=own)
    return view


@functools.lru_cache
def _object_view_class(kind: type) -> type:
    """A class that derives from ``kind`` and goes by its name. Called, it makes an ordinary ``kind``."""

    def get(self: Any, name: str) -> Any:
        fields = object.__getattribute__(self, "__dict__")
        return fields["own"][name] if name in fields["own"] else getattr(fields["target"], name)

    def put(self: Any, name: str, value: Any) -> None:
        setattr(object.__getattribute__(self, "__dict__")["target"], name, value)

    def delete(self: Any, name: str) -> None:
        delattr(object.__getattribute__(self, "__dict__")["target"], name)

    attributes = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__new__": lambda _, *args, **kwargs: kind(*args, **kwargs),
        "__getattribute__": get,
        "__setattr__": put,
        "__delattr__": delete,
        "__call__": lambda self, *args, **kwargs: self.__call__(*args, **kwargs),  # the attribute, not this function
    }
    try:
        return types.new_class(kind.__name__, (kind,), exec_body=lambda body: body.update(attributes))
    except TypeError as error:
        raise UnsupportedError(
            f"no class can derive from {kind.__name__}, as a steered call needs ({error}); use a class of diffusers"
        ) from error


def own_scheduler(scheduler: Any, wrap_step: Callable[[Any], Any]) -> Any:
    """Return the scheduler of one steered call, which other calls do not advance.

    Args:
        scheduler: The pipeline's.
        wrap_step: Given its ``step``, returns the one to use.

    Raises:
        UnsupportedError: The scheduler cannot be copied.
    """
    # A method that was replaced on this very object may work on its state, so that a copy would be out of step.
    if not any(callable(value) and hasattr(type(scheduler), name) for name, value in vars(scheduler).items()):
        try:
            scheduler = copy.deepcopy(scheduler)
        except Exception as error:
            raise UnsupportedError(
                f"the {type(scheduler).__name__} cannot be copied, as a steered call needs ({error}); set a new one: "
                "pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)"
            ) from error
    return object_view(scheduler, step=wrap_step(scheduler.step))


def pipeline_view(pipe: Any, parts: Mapping[str, Any]) -> Any:
    """Return a shallow copy of a pipeline with other parts, on which one steered call runs.

    The state of the call (``_guidance_scale``, ``_num_timesteps``, ...) stays on the copy, also after the call: another
    call of ``pipe``, such as the one from whose callback this call is made, reads its own from ``pipe``.

    Args:
        pipe: The user's pipeline. Offloading is left to it.
        parts: Components by name.
    """
    view = copy.copy(pipe)
    # Not by setattr, with which diffusers would enter the parts into the config that both share.
    own = vars(view)
    for name, value in vars(pipe).items():
        if getattr(value, "__self__", None) is pipe:  # a method that was replaced on this very object
            own[name] = types.MethodType(value.__func__, view)
    own.update(parts)
    if hasattr(pipe, "maybe_free_model_hooks"):  # a modular pipeline has none
        own["maybe_free_model_hooks"] = pipe.maybe_free_model_hooks
    return view


def with_report(output: Any, report: SteeringReport) -> Any:
    """Return the pipeline's output with the report on it.

    Args:
        output: What a pipeline returned.
        report: The report on the call.

    Raises:
        UnsupportedError: The output takes no report.
    """
    if isinstance(output, tuple):
        return (*output, report)
    try:
        output.steering = report
    except AttributeError as error:
        raise UnsupportedError(f"a {type(output).__name__}, which the pipeline returned, takes no report") from error
    return output


def users_callback(
    callback: Callable[..., Any], pipe: Any, view: Any, denoiser: str, after: Callable[[], None]
) -> Callable[..., Any]:
    """Return a ``callback_on_step_end`` that is given the view, but with the denoiser and ``__call__`` of ``pipe``.

    Args:
        callback: The user's.
        pipe: The user's pipeline.
        view: Its view, on which the call runs.
        denoiser: Name of the denoiser.
        after: Called after the callback.
    """
    own = {denoiser: getattr(pipe, denoiser), "__call__": pipe, "steered_pipeline": pipe}
    parts = [(owner, name, getattr(owner, name)) for owner in (pipe, view) for name in (denoiser, "scheduler")]

    def call(_: Any, *args: Any, **kwargs: Any) -> Any:
        result = callback(object_view(view, **own, components=pipe.components), *args, **kwargs)
        for owner, name, part in parts:
            if getattr(owner, name) is not part:
                raise SteerError(f"the pipeline's {name} was replaced during a steered call; set it before the call")
        after()
        return result

    return call
