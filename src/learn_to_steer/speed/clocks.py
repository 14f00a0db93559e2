"""Measures a piece of work: its time, its peak of memory, and its floating-point operations."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

Result = TypeVar("Result")
# The fused attention of the CPU, which torch's table of operations lacks.
_FUSED_ON_CPU = "aten::_scaled_dot_product_flash_attention_for_cpu"


@dataclass(frozen=True)
class Cost:
    """What a piece of work took.

    Attributes:
        seconds: On the CPU the CPU time of the process, on a GPU the time between two CUDA events.
        wall: Time on the clock, in seconds.
        peak: The most bytes in use meanwhile, weights included; None if it is not known.
    """

    seconds: float
    wall: float
    peak: int | None


def clock_name(device: torch.device) -> str:
    """Return what measures the time on a device."""
    return {"cuda": "CUDA events", "cpu": "process CPU time"}.get(device.type, "wall time")


def measured(work: Callable[[], Result], device: torch.device) -> tuple[Result, Cost]:
    """Run a piece of work and measure it.

    Args:
        work: What is run.
        device: Where its tensors are.

    Returns:
        What ``work`` returned, and its cost.
    """
    if device.type == "cuda":
        return _measured_on_gpu(work, device)
    _forget_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return result, Cost(cpu if device.type == "cpu" else wall, wall, _peak())


def _measured_on_gpu(work: Callable[[], Result], device: torch.device) -> tuple[Result, Cost]:
    with torch.cuda.device(device):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        wall = time.perf_counter()
        began.record()
        result = work()
        ended.record()
        torch.cuda.synchronize()
        wall = time.perf_counter() - wall
        return result, Cost(began.elapsed_time(ended) / 1000, wall, torch.cuda.max_memory_allocated())


def _forget_peak() -> None:
    """Begin to record the peak of the process's resident memory anew, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak() -> int | None:
    """The peak of the process's resident memory in bytes; None where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


class FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the floating-point operations of matrix products, convolutions and attention, forward and backward.

    Additions that go with them, norms and activations are not counted. A multiplication with its addition is two.

    Attributes:
        total: The operations so far.
        of_calls: Those of each call of the module that is ``watched``.

    Source:
        The formulas are torch's (``torch.utils.flop_counter``).
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        self.of_calls: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        name = func.name().partition(".")[0]
        if packet in flop_registry:
            self.total += flop_registry[packet](*args, **(kwargs or {}), out_val=result)
        elif name.startswith(_FUSED_ON_CPU):
            if name.endswith("_backward"):
                shapes = [one.shape for one in args[:4]]
                self.total += sdpa_backward_flop_count(*shapes)  # type: ignore[no-untyped-call]
            else:
                shapes = [one.shape for one in args[:3]]
                self.total += sdpa_flop_count(*shapes)  # type: ignore[no-untyped-call]
        return result

    @contextmanager
    def watched(self, module: nn.Module) -> Iterator[None]:
        """Count the operations of each call of a module, its forward alone.

        Args:
            module: The module.
        """
        began: list[int] = []
        handles = [
            module.register_forward_pre_hook(lambda *_: began.append(self.total)),
            module.register_forward_hook(lambda *_: self.of_calls.append(self.total - began.pop())),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
