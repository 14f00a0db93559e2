"""RF-inversion: the steps and the closed form agree, the authors' numbers come out, failures are noticed."""

from dataclasses import replace

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from learn_to_steer import inversion
from learn_to_steer.conditioning import record
from learn_to_steer.errors import DataError, UnsupportedError
from learn_to_steer.families import find
from learn_to_steer.inversion.rf import invert, residual

TIMES = torch.tensor([0.9, 0.6, 0.33])
PROMPTS = ["a dog above a cat", "a dog below a cat"]


def _task(pipe, times=TIMES):
    """Two pictures that the VAE shows as they are."""
    family = find(pipe)
    drawn = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    more = {"max_sequence_length": 48} if family.name == "flux" else {}
    recording = record(pipe, family, PROMPTS, 64, 64, more)
    clean = family.encode(pipe, drawn)
    pictures = family.decode(pipe, replace(recording.call, latents=clean))
    return inversion.InversionTask(pipe, recording, clean, pictures, times, (1, 2))


def _observer(task):
    shown = {}

    def observe(level, latents, time):
        assert level not in shown and float(time) == float(task.times[level])
        shown[level] = latents.clone()
        return task.recording(latents, time).float()

    return shown, observe


@torch.no_grad()
def test_the_closed_form_is_what_the_walk_collapses_to(tiny_flux):
    task = _task(tiny_flux)
    (closed, see), (walked, watch) = _observer(task), _observer(task)
    invert(task, see)
    # Not exactly one, so that both ways are really walked.
    quality = invert(task, watch, gamma=1 - 1e-12, eta=1 - 1e-12)
    for level in range(len(TIMES)):
        torch.testing.assert_close(walked[level], closed[level], rtol=1e-4, atol=1e-4)
    assert quality.good.all()


@torch.no_grad()
def test_an_inversion_that_fails_is_rejected(tiny_flux):
    """Following a random network alone, neither picture comes back."""
    task = _task(tiny_flux)
    lost = invert(task, _observer(task)[1], gamma=0.0, eta=0.0)
    assert not lost.good.any()
    held = invert(task, _observer(task)[1], gamma=0.0, eta=0.999)
    assert (held.value > lost.value).all() and held.good.all()


@torch.no_grad()
def test_the_closed_form_asks_the_network(tiny_flux):
    task = _task(tiny_flux)
    answer = task.clean * torch.tensor([0.0, 1.0]).reshape(2, 1, 1)
    # velocity = (latents - clean) / level knows the first picture; the second is off by its own size and more
    quality = invert(task, lambda level, latents, time: (latents - task.clean + 3 * answer) / time)
    torch.testing.assert_close(quality.value, torch.tensor([0.0, 3.0]), rtol=1e-4, atol=1e-4)
    assert quality.good.tolist() == [True, False]


@pytest.mark.parametrize("size", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("time", [0.9, 0.5, 0.4])
@torch.no_grad()
def test_the_closed_form_rejects_a_network_that_knows_nothing(tiny_flux, time, size):
    task = _task(tiny_flux, torch.tensor([time]))
    answer = size * torch.randn(task.clean.shape, generator=torch.Generator().manual_seed(3))
    assert not invert(task, lambda level, latents, time: answer).good.any()


@pytest.mark.parametrize(
    ("steps", "shifting", "share"), [(4, False, 0.1128), (50, True, 0.00054)], ids=["schnell", "dev"]
)
@torch.no_grad()
def test_compat_keeps_the_authors_share_of_the_picture(tiny_flux, steps, shifting, share):
    tiny_flux.scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=shifting)
    task = _task(tiny_flux, torch.tensor([0.75, 0.25]))
    assert residual(task, steps) == pytest.approx(share, rel=0.01)
    shown, observe = _observer(task)
    invert(task, observe, mode="compat", steps=steps)
    mixed = (1 - (1 - share) * 0.75) * task.clean + (1 - share) * 0.75 * task.noise(0)
    torch.testing.assert_close(shown[0], mixed, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_what_cannot_be_is_refused(tiny_flux, tiny_sd):
    task = _task(tiny_flux)
    with pytest.raises(DataError, match="gamma"):
        invert(task, _observer(task)[1], gamma=1.5)
    with pytest.raises(DataError, match="compat"):
        invert(task, _observer(task)[1], gamma=0.5, mode="compat")
    with pytest.raises(UnsupportedError, match="not rectified flows"):
        invert(_task(tiny_sd), lambda *_: None)
