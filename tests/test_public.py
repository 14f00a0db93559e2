"""The public way in: a model by name, sampled as it is meant to be, with its classifier and tuned settings."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from PIL import Image

from learn_to_steer import Steerer, SteeringConfig, load_pipeline, model_names
from learn_to_steer.errors import DataError, UnknownNameError
from learn_to_steer.families import resolve
from learn_to_steer.steering.inputs import with_sampling_defaults

README = Path(__file__).parents[1] / "README.md"
PROMPT = "a dog to the right of a teddy bear"


def test_the_readme_runs_as_typed(tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    done = subprocess.run([sys.executable, "-c", code[1]], cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "dog.png") as image:
        assert image.size == (128, 128)


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline("sd:emoji")


def test_a_pipeline_remembers_how_it_is_sampled(pipe) -> None:
    expected = {"num_inference_steps": 25, "guidance_scale": 4.0, "height": 128, "width": 128}
    assert pipe.steering_defaults == expected
    assert pipe.to("cpu").steering_defaults == expected
    assert not hasattr(StableDiffusionImg2ImgPipeline.from_pipe(pipe), "steering_defaults")
    assert load_pipeline("flux:emoji-schnell").steering_defaults["max_sequence_length"] == 48


def test_what_the_caller_gives_wins() -> None:
    loaded = SimpleNamespace(steering_defaults={"height": 128, "num_inference_steps": 25})
    filled = with_sampling_defaults(loaded, {"num_inference_steps": 2, "height": None, "generator": None})
    assert filled == {"height": 128, "num_inference_steps": 2, "generator": None}
    assert with_sampling_defaults(SimpleNamespace(), {"height": None}) == {"height": None}


def test_a_steered_call_is_sampled_like_the_models_own(pipe) -> None:
    """Without a relation the steered call is the pipeline's own."""
    steered = Steerer.from_pretrained("sd:emoji").on(pipe)
    mine = steered("a dog", num_inference_steps=2, generator=torch.Generator().manual_seed(0)).images[0]
    arguments = pipe.steering_defaults | {"num_inference_steps": 2}
    theirs = pipe("a dog", generator=torch.Generator().manual_seed(0), **arguments).images[0]
    assert mine.size == (128, 128) and mine.tobytes() == theirs.tobytes()


def test_settings_are_those_of_the_command_line(pipe, tmp_path: Path) -> None:
    from learn_to_steer.cli import main

    command = ["generate", PROMPT, "--steps", "2", "--out", str(tmp_path)]
    for model in ("sd:emoji", "flux:emoji-schnell"):
        assert main([*command, "--model", model]) == 0
        config = json.loads((tmp_path / "config.json").read_text())
        steerer = Steerer.from_pretrained(model)
        assert steerer.config.image_settings() == config["steering"]
        assert steerer.config == SteeringConfig.from_dict(config["steering"])
    assert (steerer.config.iterations, steerer.config.step_size) == (6, 0.03)


def test_a_classifier_alone_gets_the_settings_of_the_model_it_is_put_on(pipe, tiny_sd, random_classifier) -> None:
    folder = model_names.classifier_source(resolve("sd:emoji"))
    alone = Steerer.from_pretrained(folder)
    assert alone.on(pipe).config == Steerer.from_pretrained("sd:emoji").on(pipe).config
    assert alone.on(pipe).config.threshold == 0.8
    explicit = SteeringConfig(threshold=0.6)
    assert Steerer.from_pretrained("sd:emoji", explicit).on(pipe).config == explicit
    # Of a pipeline from elsewhere nothing is known.
    users = type(pipe)(**pipe.components, requires_safety_checker=False)
    assert alone.on(users).config.threshold == 0.95


@pytest.mark.parametrize("model", ["sd:1.4", "sd:2.1=owner/copy", "flux:dev", "flux:schnell"])
def test_models_without_a_classifier(model: str) -> None:
    with pytest.raises(DataError, match=r"import-official.*train"):
        Steerer.from_pretrained(model)


def test_names_that_are_nothing() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'flux:emoji'"):
        Steerer.from_pretrained("flux:emojy")
    with pytest.raises(UnknownNameError, match="did you mean 'flux:emoji'"):
        load_pipeline("flux:emojy")
    with pytest.raises(DataError, match=r"no/such/folder"):
        Steerer.from_pretrained("no/such/folder")


def test_importing_the_package_does_not_import_torch() -> None:
    code = (
        "import sys, learn_to_steer; from learn_to_steer import Relation, parse; print('torch' in sys.modules);"
        "print(parse('a dog left of a cat')[0].as_list());"
        "from learn_to_steer import Steerer, SteeringConfig, load_pipeline"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n['dog', 'left of', 'cat']\n"


@pytest.mark.parametrize("name", ["", "sd:emojy=owner/name"])
def test_a_classifier_must_have_a_name(name: str) -> None:
    with pytest.raises(UnknownNameError, match="unknown model or classifier"):
        Steerer.from_pretrained(name)
