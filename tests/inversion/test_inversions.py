"""The inversions noise and fixed-point against what each must equal, on a tiny random pipeline."""

from dataclasses import replace

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from learn_to_steer import inversion
from learn_to_steer.conditioning import record
from learn_to_steer.errors import DataError, UnknownNameError, UnsupportedError
from learn_to_steer.families.sd import FAMILY
from learn_to_steer.inversion import fixed_point

TIMES = torch.tensor([961, 641, 401])
PROMPTS = ["a dog above a cat", "a dog below a cat"]


def _task(pipe, prompts=PROMPTS, seeds=(1, 2), times=TIMES):
    pictures = torch.rand(len(prompts), 3, 64, 64, generator=torch.Generator().manual_seed(3))
    recording = record(pipe, FAMILY, prompts, 64, 64)
    return inversion.InversionTask(pipe, recording, FAMILY.encode(pipe, pictures), pictures, times, seeds)


def _observer(task):
    shown = {}

    def observe(level, latents, time):
        assert int(time) == int(task.times[level])
        assert level not in shown
        shown[level] = latents.clone()
        return task.recording(latents, time).float()

    return shown, observe


@torch.no_grad()
def test_noise_is_what_the_scheduler_adds(tiny_sd):
    task = _task(tiny_sd)
    shown, observe = _observer(task)
    inversion.load("noise")(task, observe)
    for level, time in enumerate(TIMES):
        added = tiny_sd.scheduler.add_noise(task.clean, task.noise(level), time.expand(2))
        torch.testing.assert_close(shown[level], added)


@torch.no_grad()
def test_noise_of_a_sample_does_not_depend_on_the_batch(tiny_sd):
    pair, alone = _task(tiny_sd), _task(tiny_sd, PROMPTS[:1], seeds=(2,))
    assert torch.equal(pair.noise(1)[1], alone.noise(1)[0])
    assert not torch.equal(pair.noise(0), pair.noise(1))


@torch.no_grad()
def test_noise_quality_is_the_error_of_the_clean_estimate(tiny_sd):
    tiny_sd.scheduler.register_to_config(prediction_type="sample")
    task = _task(tiny_sd)
    # A network that knows the first picture and is far off with the second.
    answer = task.clean * torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
    quality = inversion.load("noise")(task, lambda level, latents, time: answer)
    torch.testing.assert_close(quality.value, torch.tensor([0.0, 2.0]))
    assert quality.good.tolist() == [True, False]
    assert inversion.load("noise")(task, lambda *_: answer, limit=3.0).good.all()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@torch.no_grad()
def test_fixed_point_comes_back_to_the_picture(tiny_sd, prediction):
    tiny_sd.scheduler.register_to_config(prediction_type=prediction)
    for parameter in tiny_sd.unet.parameters():
        parameter.mul_(0.7)  # a trained network varies slowly along the path; a random one must be calmed
    task = _task(tiny_sd)
    shown, observe = _observer(task)
    back = fixed_point._Ddim(task)
    latents, grid = back.invert(steps=25, iterations=5)
    assert grid[0] == 0 and grid[-1] == 961 and {401, 641} <= set(grid)
    for time, after in zip(grid[:0:-1], grid[-2::-1], strict=True):
        latents = back.step(latents, task.recording(latents, torch.tensor(time)), time, after)
    error = (latents - task.clean).square().mean() / task.clean.square().mean()
    assert -10 * torch.log10(error) > 30
    quality = fixed_point.invert(task, observe, limit=5.0, steps=25)
    assert sorted(shown) == [0, 1, 2]
    shown_again = FAMILY.decode(tiny_sd, replace(task.recording.call, latents=task.clean))
    expected = -10 * torch.log10((shown_again - task.images).square().flatten(1).mean(dim=1))
    torch.testing.assert_close(quality.value, expected, atol=0.1, rtol=0)
    assert (quality.good == (quality.value >= 5.0)).all()


@torch.no_grad()
def test_fixed_point_steps_as_ddim_does(tiny_sd):
    task = _task(tiny_sd)
    tiny_sd.scheduler.set_timesteps(50)
    latents = task.noise(0)
    prediction = task.recording(latents, torch.tensor(481))
    theirs = tiny_sd.scheduler.step(prediction, 481, latents).prev_sample
    torch.testing.assert_close(fixed_point._Ddim(task).step(latents, prediction, 481, 461), theirs)


@torch.no_grad()
def test_fixed_point_refuses_what_it_cannot_do(tiny_sd):
    task = _task(tiny_sd, times=torch.tensor([401, 0]))
    with pytest.raises(DataError, match="levels above 0"):
        fixed_point.invert(task, _observer(task)[1])
    tiny_sd.scheduler = FlowMatchEulerDiscreteScheduler()
    with pytest.raises(UnsupportedError, match="'noise'"):
        fixed_point.invert(task, _observer(task)[1])


def test_unknown_names_get_the_nearest():
    with pytest.raises(UnknownNameError, match="fixed-point"):
        inversion.load("fixedpoint")


@torch.no_grad()
def test_fresh_noise_does_not_come_back(tiny_sd):
    task = _task(tiny_sd)
    seen = []

    def observe(level, latents, time):
        seen.append(latents)
        return task.recording(latents, time).float()

    way = inversion.load("fixed-point")
    lost = way(task, observe, steps=10, start="noise")
    torch.testing.assert_close(
        seen[0], task.recording.family.add_noise(tiny_sd, task.clean, task.noise(0), task.times[0])
    )
    held = way(task, lambda level, latents, time: task.recording(latents, time).float(), steps=10)
    assert (lost.value < held.value).all()
    assert ((lost.value > 0) & (lost.value < 19.5)).all() and not lost.good.any()
    with pytest.raises(DataError, match="start"):
        way(task, observe, start="nowhere")
