"""The time that a probe tells is that of an iteration, not of the first one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from learn_to_steer.steering import probe
from learn_to_steer.steering.probe import probe_pipeline


@pytest.mark.parametrize(
    ("seconds", "expected", "timed"),
    [((1000.0, 1.0, 3.0, 2.0, 1.5, 9.0), 2.0, 5), ((1000.0, 60.0), 60.0, 1), ((1000.0, 6.0, 5.0), 5.5, 2)],
    ids=["quick", "slow", "between"],
)
def test_the_first_iteration_is_not_timed(
    tiny_sd: Any, monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, ...], expected: float, timed: int
) -> None:
    """The clock goes on only while the denoiser works, by another duration each time."""
    clock, durations = [0.0], iter(seconds)
    forward = tiny_sd.unet.forward

    def counted(*arguments: Any, **settings: Any) -> Any:
        if not arguments and settings["sample"].device.type == "meta":  # the estimate of the memory
            return forward(*arguments, **settings)
        result = forward(*arguments, **settings)
        if settings.get("sample", *arguments[:1]).requires_grad:
            clock[0] += next(durations)
        return result

    monkeypatch.setattr(tiny_sd.unet, "forward", counted)
    monkeypatch.setattr(probe, "time", SimpleNamespace(perf_counter=lambda: clock[0], monotonic=lambda: clock[0]))
    result = probe_pipeline(tiny_sd, 64, 64)
    assert result.seconds == pytest.approx(expected)
    assert result.timed == timed
    assert result.gradient > 0
