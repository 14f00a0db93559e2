"""What PixArt and Sana have of their own: cleaned prompts, an instruction before them, and sizes of the image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from learn_to_steer.errors import PromptError, UnsupportedError
from learn_to_steer.families import find, resolve
from learn_to_steer.families.testing import tiny, tiny_model
from learn_to_steer.loading import load_pipeline, skeleton
from learn_to_steer.losses.learned import Learned
from learn_to_steer.steering import Steerer
from learn_to_steer.steering.probe import probe_pipeline

# Of diffusers' schedulers with new versions of NumPy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROMPT = "a dog to the left of a cat"
DOG, CAT = (2, 5), (23, 26)
FAMILIES = ("pixart", "sana")


def draw(pipe: Any, prompt: Any = PROMPT, **more: Any) -> Any:
    """A call of a pipeline, steered or not, with the arguments of the tiny one."""
    model = tiny_model(find(getattr(pipe, "pipe", pipe)).name)
    height, width = model.size
    settings = {"num_inference_steps": 2, "guidance_scale": 1.0, "output_type": "latent"}
    settings |= {"height": height, "width": width, **model.arguments}
    return pipe(prompt, generator=torch.Generator().manual_seed(0), **(settings | more))


def words(pipe: Any, prompt: str, spans: Any, **arguments: Any) -> list[str]:
    """What stands in the text columns of the spans, read off the tokens that the text encoder is given."""
    seen: list[Any] = []
    handle = pipe.text_encoder.register_forward_hook(lambda _, args, output: seen.append((args[0][0], output[0][0])))
    mine = {name: value for name, value in arguments.items() if name != "use_resolution_binning"}
    with torch.no_grad():
        states = pipe.encode_prompt(prompt, False, device="cpu", **mine)[0][0]
    handle.remove()
    ((tokens, every),) = seen
    found = []
    for columns in find(pipe).token_indices(pipe, prompt, spans, arguments):
        text = ""
        for column in columns:
            # The token is found by its state: the pipeline may drop others before it.
            (place,) = (every == states[column]).all(-1).nonzero().flatten().tolist()
            text += pipe.tokenizer.decode(tokens[place])
        found.append(text.strip())
    return found


@pytest.mark.parametrize(("model", "layers", "channels"), [("pixart:sigma", 28, 448), ("sana", 20, 400)])
def test_layouts_of_the_released_models(model: str, layers: int, channels: int) -> None:
    family, empty = skeleton(model)
    layout = family.layout(empty)
    assert (family.name, len(layout.layers), layout.channels) == (resolve(model).family, layers, channels)


@pytest.mark.parametrize("name", FAMILIES)
def test_columns_are_those_of_the_prompt_in_lower_case(name: str) -> None:
    """The text that is encoded begins elsewhere, and its first letters are other tokens."""
    pipe = tiny(name)
    arguments = dict(tiny_model(name).arguments)
    assert words(pipe, "  A Dog to the left of a CAT", [(4, 7), (25, 28)], **arguments) == ["dog", "cat"]


def test_columns_after_an_instruction() -> None:
    pipe = tiny("sana")
    own = {"max_sequence_length": 48}
    without = words(pipe, PROMPT, [DOG, CAT], complex_human_instruction=None, **own)
    short = words(pipe, PROMPT, [DOG, CAT], complex_human_instruction=["A dog and a cat.", "User Prompt: "], **own)
    assert without == short == ["dog", "cat"]
    family = find(pipe)
    (first,) = family.token_indices(pipe, "dog", [(0, 3)], {"complex_human_instruction": None})
    assert first[0] == 1  # after the start token
    usual = family.token_indices(pipe, PROMPT, [DOG, CAT], {})  # the pipeline's own instruction
    assert usual == family.token_indices(pipe, PROMPT, [DOG, CAT], own)
    with pytest.raises(PromptError, match="'cat' lies beyond"):
        family.token_indices(pipe, PROMPT + " " + "large " * 60 + "cat", [(387, 390)], own)


def cleaning(pipe: Any, monkeypatch: pytest.MonkeyPatch, words_to_go: str) -> None:
    """Have the pipeline clean prompts, as it does where two more packages are installed."""
    monkeypatch.setattr("diffusers.utils.is_bs4_available", lambda: True)
    monkeypatch.setattr("diffusers.utils.is_ftfy_available", lambda: True)

    def process(text: Any, clean_caption: bool = False) -> list[str]:
        texts = [text] if isinstance(text, str) else text
        return [each.lower().strip().replace(words_to_go if clean_caption else "\0", "") for each in texts]

    pipe._text_preprocessing = process


def test_columns_of_a_prompt_that_is_cleaned(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, arguments = tiny("pixart"), {"max_sequence_length": 64}
    cleaning(pipe, monkeypatch, "photo.jpg ")
    prompt = "photo.jpg A dog to the left of a cat"
    spans = [(12, 15), (33, 36)]
    assert words(pipe, prompt, spans, clean_caption=True, **arguments) == ["dog", "cat"]
    family = find(pipe)
    cleaned = family.token_indices(pipe, prompt, spans, arguments)
    assert cleaned == family.token_indices(pipe, PROMPT, [DOG, CAT], arguments)
    whole = family.token_indices(pipe, prompt, [(0, len(prompt))], arguments)
    assert whole == family.token_indices(pipe, PROMPT, [(0, len(PROMPT))], arguments)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_size_that_is_drawn(name: str, steer: Any) -> None:
    pipe = tiny(name)
    family = find(pipe)
    side = int(pipe.transformer.config.sample_size) * pipe.vae_scale_factor
    assert family.drawn_size(pipe, 64, 64, {}) == (side, side)
    assert family.drawn_size(pipe, 64, 128, {"use_resolution_binning": False}) == (64, 128)
    height, width = family.drawn_size(pipe, 64, 128, {})
    shown = draw(steer(pipe), height=64, width=128, num_inference_steps=1, use_resolution_binning=True)
    factor = pipe.vae_scale_factor
    assert shown.images.shape[-2:] == (height // factor, width // factor) and height < width
    assert shown.steering.images[0].passes > 0


def test_memory_is_that_of_the_size_that_is_drawn() -> None:
    own = {"max_sequence_length": 64}
    asked, drawn = (
        probe_pipeline(tiny("pixart"), 64, 64, own | {"use_resolution_binning": on}) for on in (False, True)
    )
    whole = probe_pipeline(tiny("pixart"), 256, 256, own | {"use_resolution_binning": False})
    assert asked.memory and drawn.memory and whole.memory
    assert asked.memory.kept < drawn.memory.kept == whole.memory.kept


def alpha() -> Any:
    """PixArt-Alpha, which is fed the size of the image, and reads fewer tokens."""
    parts = dict(tiny("pixart").components)
    sizes = {"sample_size": 128, "num_attention_heads": 3, "cross_attention_dim": 24}
    config = {**parts["transformer"].config, **sizes, "use_additional_conditions": True}
    torch.manual_seed(0)
    parts["transformer"] = type(parts["transformer"]).from_config(config).eval()
    with torch.no_grad():
        parts["transformer"].proj_out.weight.normal_(0, 0.3)
    return diffusers.PixArtAlphaPipeline(**parts)


def test_pixart_alpha(steer: Any) -> None:
    pipe = alpha()
    mine = draw(steer(pipe), guidance_scale=4.0)
    stock = draw(pipe, guidance_scale=4.0)
    assert mine.steering.images[0].passes > 0 and (mine.images - stock.images).abs().max() > 1e-3
    long = "a dog to the left of a" + " large" * 150 + " cat"
    span = (len(long) - 3, len(long))
    assert find(pipe).token_indices(tiny("pixart"), long, [span], {})
    with pytest.raises(PromptError, match="beyond the 120 tokens"):
        find(pipe).token_indices(pipe, long, [span], {})


def test_an_older_folder_of_pixart(tmp_path: Path) -> None:
    """In it the transformer has the name of a class that it shared with DiT."""
    folder = tmp_path / "model"
    tiny("pixart").save_pretrained(folder)
    for path, change in (
        ("transformer/config.json", {"_class_name": "Transformer2DModel"}),
        ("model_index.json", {"transformer": ["diffusers", "Transformer2DModel"]}),
    ):
        config = json.loads((folder / path).read_text())
        (folder / path).write_text(json.dumps(config | change))
    family, empty = skeleton(str(folder))
    assert family.name == "pixart" and len(family.layout(empty).layers) == 3
    assert find(load_pipeline(str(folder))).name == "pixart"


def test_sana_with_a_controlnet(steer: Any) -> None:
    whole = tiny("sana")
    names = ("in_channels", "num_attention_heads", "attention_head_dim", "num_cross_attention_heads")
    names += ("cross_attention_head_dim", "cross_attention_dim", "caption_channels", "sample_size")
    config = {name: whole.transformer.config[name] for name in names}
    control = diffusers.SanaControlNetModel(**config, num_layers=1).eval()
    with torch.no_grad():
        for layer in control.controlnet_blocks:
            layer.weight.normal_(0, 0.5)
    pipe = diffusers.SanaControlNetPipeline(**whole.components, controlnet=control)
    image = torch.rand(1, 3, 256, 256)
    mine = draw(steer(pipe), guidance_scale=4.0, control_image=image)
    stock = draw(pipe, guidance_scale=4.0, control_image=image)
    assert mine.steering.images[0].passes > 0 and (mine.images - stock.images).abs().max() > 1e-3


def test_sana_with_the_other_scheduler(tmp_path: Path, steer: Any) -> None:
    """It has the same shift there, under another name."""
    tiny("sana").save_pretrained(tmp_path)
    pipe = load_pipeline(str(tmp_path), scheduler="FlowMatchEulerDiscreteScheduler")
    assert pipe.scheduler.config.shift == tiny("sana").scheduler.config.flow_shift == 3.0
    assert draw(steer(pipe)).steering.images[0].passes > 0
    with pytest.raises(UnsupportedError, match=r"cannot sample this model; .* use one of: DPMSolverMultistepScheduler"):
        load_pipeline(str(tmp_path), scheduler="DDIMScheduler")
    load_pipeline(str(tmp_path), scheduler="DPMSolverMultistepScheduler")


def test_a_model_with_another_scale_of_time() -> None:
    pipe = tiny("sana")
    pipe.transformer.register_to_config(timestep_scale=0.001)
    family, time = find(pipe), torch.tensor(400)
    fed = family.model_timestep(pipe, time)
    assert fed == pytest.approx(0.4) and family.noise_level(pipe, fed) == pytest.approx(0.4)
    assert family.times(pipe, torch.tensor([0.4])).tolist() == pytest.approx([0.4])


@pytest.mark.parametrize("name", FAMILIES)
def test_perturbed_attention_guidance_is_refused(name: str, steer: Any) -> None:
    kind = {"pixart": "PixArtSigmaPAGPipeline", "sana": "SanaPAGPipeline"}[name]
    usual = tiny_model(name).pipeline
    pipe = getattr(diffusers, kind)(**tiny(name).components)
    with pytest.raises(UnsupportedError, match=rf"{kind} has not been tried .* \({usual}.from_pipe\(pipe\)\)"):
        steer(pipe)
    assert draw(steer(getattr(diffusers, usual).from_pipe(pipe))).steering.images[0].passes > 0


def test_sana_sprint_is_refused(random_classifier: Any) -> None:
    parts, loss = dict(tiny("sana").components), Learned(random_classifier(tiny("sana")))
    config = {key: value for key, value in parts["transformer"].config.items() if key != "_use_default_values"}
    config["guidance_embeds"] = True
    parts |= {"transformer": type(parts["transformer"]).from_config(config), "scheduler": diffusers.SCMScheduler()}
    with pytest.raises(
        UnsupportedError, match=r"no model family knows the pipeline SanaSprintPipeline .* those of sana"
    ):
        Steerer(loss).on(diffusers.SanaSprintPipeline(**parts))
