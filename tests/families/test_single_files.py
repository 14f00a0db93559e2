"""Models of one file: what their headers say, and that a pipeline made of one has the bits of the original."""

from __future__ import annotations

import inspect as python_inspect
import json
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import diffusers
import original_layout
import pytest
import torch
from diffusers.loaders import single_file_model, single_file_utils
from safetensors.torch import load_file, save_file

from learn_to_steer import families, single_file_pipelines
from learn_to_steer.errors import DataError, MismatchError, UnsupportedError
from learn_to_steer.families import sdxl
from learn_to_steer.families.testing import tiny
from learn_to_steer.loading import load_pipeline, skeleton
from learn_to_steer.model_names import hub_source, named_variant
from learn_to_steer.placement import Placement
from learn_to_steer.sampling import loaded_variant
from learn_to_steer.single_files import inspect

# Of diffusers' Euler scheduler with new versions of NumPy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NAMES = {"sd": "sd:1.4", "sdxl": "sdxl:base", "sd3": "sd3.5:medium", "flux": "flux:dev"}
PROMPT = "a dog to the left of a cat"
# Parameters of the released networks, as their makers and users give them.
RELEASED = {
    "sd:1.4": 859_520_964,
    "sd:2.1": 865_910_724,
    "sdxl:base": 2_567_463_684,
    "sd3:medium": 2_028_328_000,
    "sd3.5:large": 8_056_627_520,
    "flux:dev": 11_901_408_320,
}
COMPONENTS = {
    "clip-l": 123_060_480,
    "clip-h": 340_387_840,
    "clip-g-projected": 694_659_840,
    "t5-xxl": 4_762_310_656,
    "vae-sd": 83_653_863,
    "vae-flux": 83_819_683,
}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> NoReturn:
        raise AssertionError("a network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(autouse=True)
def _narrow_flux(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers' conversion of FLUX has the width 3072 in its code; the tiny transformer's is 32."""
    source = python_inspect.getsource(single_file_utils.convert_flux_transformer_checkpoint_to_diffusers)
    assert source.count("3072") == 1
    scope = dict(vars(single_file_utils))
    exec(source.replace("3072", "32"), scope)
    convert = scope["convert_flux_transformer_checkpoint_to_diffusers"]
    kinds = single_file_model.SINGLE_FILE_LOADABLE_CLASSES
    monkeypatch.setitem(kinds["FluxTransformer2DModel"], "checkpoint_mapping_fn", convert)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., tuple[Any, Path, Placement]]:
    """``made(family)``: a tiny pipeline, a single file of its weights, and a placement with its folder as the base."""

    def build(family: str, **settings: Any) -> tuple[Any, Path, Placement]:
        pipe = tiny(family)
        pipe.save_pretrained(tmp_path / "base")
        path = original_layout.write(pipe, tmp_path / "model.safetensors", family, **settings)
        return pipe, path, Placement(base=str(tmp_path / "base"))

    return build


def assert_same_weights(pipe: Any, other: Any, but: tuple[str, ...] = ()) -> None:
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            mine, theirs = part.state_dict(), getattr(other, name).state_dict()
            assert mine.keys() == theirs.keys(), name
            assert [key for key in mine if key not in but and not torch.equal(mine[key], theirs[key])] == [], name


def settings_of(config: Any) -> dict[str, Any]:
    """A config without diffusers' notes in it: it drops what is listed as a default, changed or not."""
    return {key: value for key, value in dict(config).items() if not key.startswith("_")}


@pytest.mark.parametrize("family", NAMES)
def test_the_weights_are_those_of_the_pipeline_and_are_steered(family: str, made: Any, steer: Any) -> None:
    pipe, path, placement = made(family)
    assert inspect(path).variant.name == NAMES[family]
    loaded = load_pipeline(str(path), placement=placement)
    # diffusers takes SD3's first encoder to have no projection, as that of the released files.
    assert_same_weights(pipe, loaded, but=("text_projection.weight",) if family == "sd3" else ())
    assert type(loaded) is type(pipe)
    assert settings_of(loaded.scheduler.config) == settings_of(pipe.scheduler.config)
    variant = loaded_variant(loaded)
    assert variant and (variant.name, variant.family) == (str(path), family)
    settings = {"num_inference_steps": 2, "height": 64, "width": 64, "output_type": "latent"}
    out = steer(loaded)(PROMPT, **settings, generator=torch.manual_seed(0))
    assert out.steering.images[0].passes > 0 and out.images.isfinite().all()


def test_a_file_without_prefixes_encoders_and_vae(made: Any) -> None:
    """As the files that hold nothing but FLUX's transformer."""
    pipe, path, placement = made("flux", encoders=False, vae=False)
    state = {name.removeprefix("model.diffusion_model."): tensor for name, tensor in load_file(path).items()}
    save_file(state, path)
    assert inspect(path).components == {"transformer"}
    assert_same_weights(pipe, load_pipeline(str(path), placement=placement))


@pytest.mark.slow
def test_weights_of_eight_bits_without_scales_are_widened(made: Any) -> None:
    _, path, placement = made("sdxl")
    narrow = {
        name: tensor.to(torch.float8_e4m3fn) if tensor.ndim > 1 and "diffusion_model" in name else tensor
        for name, tensor in load_file(path).items()
    }
    save_file(narrow, path)
    loaded = load_pipeline(str(path), placement=Placement(base=placement.base, dtype="bfloat16"))
    assert {parameter.dtype for parameter in loaded.unet.parameters()} == {torch.bfloat16}


@pytest.mark.slow
def test_sd3_is_loaded_without_t5_with_a_warning(made: Any, caplog: Any, tmp_path: Path) -> None:
    _, path, placement = made("sd3")
    save_file({name: tensor for name, tensor in load_file(path).items() if ".t5xxl." not in name}, path)
    shutil.rmtree(tmp_path / "base" / "text_encoder_3")
    loaded = load_pipeline(str(path), placement=placement)
    assert loaded.text_encoder_3 is None and "without T5" in caplog.text


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The shipped configs of SDXL are those of the tiny pipeline; returns the hub's cache, which is empty."""
    pipe = tiny("sdxl")
    parts = {}
    for name, part in pipe.components.items():
        if part is None:
            continue
        library = type(part).__module__.partition(".")[0]
        config = getattr(part, "config", None)
        values = config.to_dict() if hasattr(config, "to_dict") else dict(config) if config else {}
        plain = json.loads(json.dumps(settings_of(values), default=str))
        parts[name] = {"library": library, "class_name": type(part).__name__, "config": plain}
        if "tokenizer" in name:
            parts[name] = {"library": "transformers", "class_name": "PreTrainedTokenizerFast", "config": {}}
    own = parts.pop("unet")["config"]
    released = {"components": {name: name for name in parts}, "settings": {}, "hub": ["none/here", "owner/model"]}
    content = {"about": "", "sources": [], "unconfirmed": [], "components": parts, "pipelines": {"sdxl:base": released}}
    (tmp_path / "configs.json").write_text(json.dumps(content))
    monkeypatch.setattr(single_file_pipelines, "_CONFIGS", tmp_path / "configs.json")
    single_file_pipelines._known.cache_clear()
    monkeypatch.setattr(sdxl, "VARIANTS", (replace(families.resolve("sdxl:base"), architecture=own),))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    yield tmp_path / "hub"
    single_file_pipelines._known.cache_clear()


def cached(cache: Path, base: Path, *names: str) -> None:
    """Put components into the hub's cache, as a download of owner/model would."""
    folder = cache / "models--owner--model"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    for name in names:
        shutil.copytree(base / name, folder / "snapshots" / ("0" * 40) / name)


def test_shipped_configs_and_tokenizers_of_the_cache_are_enough(made: Any, shipped: Path, tmp_path: Path) -> None:
    pipe, path, _ = made("sdxl")
    cached(shipped, tmp_path / "base", "tokenizer", "tokenizer_2")
    loaded = load_pipeline(str(path))
    assert_same_weights(pipe, loaded)
    assert loaded.tokenizer("a dog")["input_ids"] == pipe.tokenizer("a dog")["input_ids"]
    assert type(loaded.scheduler) is type(pipe.scheduler)


def test_a_folder_of_tokenizers_is_enough(made: Any, shipped: Path, tmp_path: Path) -> None:
    pipe, path, _ = made("sdxl")
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(tmp_path / "base" / name, tmp_path / "tokenizers" / name)
    assert_same_weights(pipe, load_pipeline(str(path), placement=Placement(base=str(tmp_path / "tokenizers"))))


def test_marks_of_velocity_prediction(made: Any, shipped: Path, tmp_path: Path) -> None:
    _, path, placement = made("sdxl", v_pred=torch.zeros(0), ztsnr=torch.zeros(0))
    cached(shipped, tmp_path / "base", "tokenizer", "tokenizer_2")
    scheduler = load_pipeline(str(path)).scheduler.config
    assert (scheduler.prediction_type, scheduler.rescale_betas_zero_snr) == ("v_prediction", True)
    assert load_pipeline(str(path), placement=placement).scheduler.config.prediction_type == "epsilon"  # the base's


def test_a_named_variant_of_a_file(made: Any) -> None:
    _, path, placement = made("sdxl")
    variant = loaded_variant(load_pipeline(f"sdxl:turbo={path}", placement=placement))
    assert variant and (variant.name, variant.steps, variant.source) == ("sdxl:turbo", 1, str(path))
    assert hub_source(f"sdxl:turbo={path}") == hub_source(str(path)) == ""
    with pytest.raises(MismatchError, match="family sdxl, not sd; leave the name before = out"):
        load_pipeline(f"sd:1.4={path}", placement=placement)
    assert named_variant(str(path)) is None


def test_the_skeleton_of_a_file(made: Any) -> None:
    pipe, path, placement = made("sdxl")
    family, denoiser = skeleton(str(path), placement.base)
    assert family.layout(denoiser) == family.layout(pipe.unet)
    with pytest.raises(DataError, match=r"has 349,364 values, that of sdxl:base 2,567,463,684"):
        skeleton(str(path))


@pytest.mark.parametrize(
    "name", [name if name == "sdxl:base" else pytest.param(name, marks=pytest.mark.slow) for name in RELEASED]
)
def test_a_released_file_is_recognised(name: str, tmp_path: Path) -> None:
    """By a header of its full size; the file has a hole in place of weights."""
    variant = families.resolve(name)
    family = families.family(variant.family)
    with torch.device("meta"):
        denoiser = getattr(diffusers, family.network).from_config(dict(variant.architecture))
    assert sum(parameter.numel() for parameter in denoiser.parameters()) == RELEASED[name]
    convert = {"sd3": original_layout.sd3, "flux": original_layout.flux}.get(family.name, original_layout.unet)
    state = original_layout.prefixed("model.diffusion_model.", convert(denoiser))
    path, end, header = tmp_path / "model.safetensors", 0, {}
    for key, tensor in state.items():
        start, end = end, end + 2 * tensor.numel()
        header[key] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    found = inspect(path)
    assert found.variant.name == name
    assert single_file_pipelines.architecture(found, variant)["_class_name"] == family.network
    with path.open("r+b") as file:
        file.truncate(8 + len(text) + end - 1)
    with pytest.raises(DataError, match="is cut short"):
        inspect(path)


@pytest.mark.slow
def test_the_shipped_configs_are_those_of_the_released_components() -> None:
    import transformers

    known = single_file_pipelines._known()
    for name, count in COMPONENTS.items():
        part = known.components[name]
        with torch.device("meta"):
            if part.library == "diffusers":
                made = getattr(diffusers, part.class_name).from_config(dict(part.config))
            else:
                kind = getattr(transformers, part.class_name)
                made = kind(kind.config_class(**part.config))
        assert sum(parameter.numel() for parameter in made.parameters()) == count, name
    for released in known.pipelines.values():
        assert set(released.components.values()) <= set(known.components)


@pytest.mark.parametrize("content", [b"", b"\x00" * 40, b"\x02" + b"\x00" * 7 + b"{}", b"\x02" + b"\x00" * 7 + b"[]"])
def test_a_file_that_is_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError, match="download it again"):
        load_pipeline(str(path))


def test_a_file_without_some_weights(made: Any) -> None:
    _, path, placement = made("sd")
    state = load_file(path)
    del state["cond_stage_model.transformer.text_model.final_layer_norm.weight"]
    save_file(state, path)
    with pytest.raises(DataError, match="lacks some weights of the text_encoder"):
        load_pipeline(str(path), placement=placement)


UNET = "model.diffusion_model."


@pytest.mark.parametrize(
    ("shapes", "match"),
    [
        ({"lora_unet_down_blocks_0.lora_down.weight": (4, 4)}, "a LoRA: add it"),
        ({"control_model.time_embed.0.weight": (4, 4)}, "a ControlNet"),
        ({"edm_mean": (4,), f"{UNET}input_blocks.0.0.weight": (4, 4, 3, 3)}, "Playground"),
        ({"distilled_guidance_layer.in_proj.bias": (4,)}, "Chroma"),
        ({"double_stream_modulation_img.lin.weight": (4, 4)}, "FLUX.2"),
        ({"down_blocks.0.resnets.0.conv1.weight": (4, 4)}, "one component in the format of diffusers"),
        ({"double_blocks.0.img_attn.qkv.scale_weight": (1,)}, "quantised"),
        (
            {f"{UNET}input_blocks.0.0.weight": (4, 9, 3, 3), f"{UNET}out.2.weight": (4, 4, 3, 3)},
            "is fed 9 channels but predicts 4",
        ),
        (
            {
                f"{UNET}input_blocks.0.0.weight": (4, 4, 3, 3),
                f"{UNET}out.2.weight": (4, 4, 3, 3),
                "conditioner.embedders.0.model.text_projection": (4, 4),
            },
            "refiner",
        ),
        (
            {
                "double_blocks.0.img_attn.norm.key_norm.scale": (4,),
                "img_in.weight": (4, 384),
                "final_layer.linear.weight": (64, 4),
            },
            "Fill or Control",
        ),
        ({"layers.0.weight": (4, 4)}, "none of SD1, SD2, SDXL, SD3 and FLUX.1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_none_of_these_is_refused(shapes: dict[str, tuple[int, ...]], match: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, path)
    with pytest.raises(UnsupportedError, match=match):
        load_pipeline(str(path))
