"""What the errors of PixArt and Sana tell to do works."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from told import tells, told

from learn_to_steer.errors import UnsupportedError
from learn_to_steer.families import find
from learn_to_steer.families.testing import tiny, tiny_model
from learn_to_steer.losses.learned import Learned
from learn_to_steer.steering import Steerer

# Of diffusers' schedulers with new versions of NumPy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROMPT = "a dog to the left of a cat"
LONGER = PROMPT + " and a large red kite above a small blue boat"
CAT = (23, 26)


@pytest.fixture
def draw(random_classifier: Callable[..., Any]) -> Callable[..., Any]:
    loss = Learned(random_classifier(tiny("sana")).requires_grad_(False))

    def call(pipe: Any, prompt: Any = PROMPT, **more: Any) -> Any:
        height, width = tiny_model("sana").size
        settings = {"num_inference_steps": 2, "output_type": "latent", "height": height, "width": width}
        return Steerer(loss).on(pipe)(prompt, **settings, **tiny_model("sana").arguments, **more)

    return call


def test_an_object_that_cleaning_takes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline cleans prompts where two more packages are installed."""
    pipe, arguments = tiny("pixart"), {"max_sequence_length": 64}
    family, prompt = find(pipe), f"{PROMPT}.jpg"
    monkeypatch.setattr("diffusers.utils.is_bs4_available", lambda: True)
    monkeypatch.setattr("diffusers.utils.is_ftfy_available", lambda: True)
    pipe._text_preprocessing = lambda text, clean_caption: [text.replace("cat.jpg", "") if clean_caption else text]
    with told("; name the object in plain words, or give clean_caption=False"):
        family.token_indices(pipe, prompt, [CAT], arguments)
    columns = family.token_indices(pipe, PROMPT, [CAT], arguments)
    assert family.token_indices(pipe, prompt, [CAT], arguments | {"clean_caption": False}) == columns


def test_a_solver_that_is_not_set_for_rectified_flow(draw: Callable[..., Any]) -> None:
    pipe = tiny("sana")
    pipe.scheduler = diffusers.DPMSolverMultistepScheduler()
    with pytest.raises(UnsupportedError) as error:
        draw(pipe)
    assert tells(str(error.value), "; set it: pipe.scheduler = diffusers.")
    exec(str(error.value).partition("set it: ")[2], {"diffusers": diffusers, "pipe": pipe})
    assert draw(pipe).steering.images[0].relations


def test_several_images_of_several_prompts(draw: Callable[..., Any]) -> None:
    """The pipeline gives the second image of the first prompt the mask of the second prompt."""
    pipe = tiny("sana")
    with torch.no_grad():
        masks = pipe.encode_prompt([LONGER, PROMPT], False, num_images_per_prompt=2, device="cpu")[1]
    assert (masks[1] < masks[0]).any()
    with told("; leave num_images_per_prompt out, and give a prompt once for each of its images"):
        draw(pipe, [PROMPT, LONGER], num_images_per_prompt=2)
    assert len(draw(pipe, [PROMPT, PROMPT, LONGER, LONGER]).images) == 4
    assert len(draw(pipe, PROMPT, num_images_per_prompt=2).images) == 2
