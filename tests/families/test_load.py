"""From a model's name to a pipeline."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from learn_to_steer import footprint, model_names
from learn_to_steer import placement as placement_module
from learn_to_steer.errors import DataError, UnknownNameError, UnsupportedError
from learn_to_steer.families import Variant, flux, sd
from learn_to_steer.loading import load_pipeline
from learn_to_steer.model_names import package_folder
from learn_to_steer.placement import Placement
from learn_to_steer.sampling import loaded_variant


def test_folder(saved_sd, capfd):
    pipe = load_pipeline(str(saved_sd))
    variant = loaded_variant(pipe)
    assert type(pipe.scheduler).__name__ == "DDIMScheduler"
    assert (variant.family, variant.resolution, variant.steps, variant.classifier) == ("sd", 64, 50, None)
    assert pipe.unet.dtype == torch.float32
    assert capfd.readouterr().err == ""


def test_variant_brings_its_scheduler_and_half_weights_are_widened(saved_sd, tiny_sd, monkeypatch):
    tiny_sd.to(torch.float16).save_pretrained(saved_sd)
    variant = Variant("sd:tiny", "sd", str(saved_sd), 64, 7, 3.0, 5.0, scheduler={"class": "EulerDiscreteScheduler"})
    monkeypatch.setattr(sd, "VARIANTS", (variant,))
    pipe = load_pipeline("sd:tiny")
    assert loaded_variant(pipe) is variant
    assert type(pipe.scheduler).__name__ == "EulerDiscreteScheduler"
    assert {parameter.dtype for parameter in pipe.unet.parameters()} == {torch.float32}
    assert type(load_pipeline("sd:tiny", scheduler="DDPMScheduler").scheduler).__name__ == "DDPMScheduler"


def test_parts_that_another_folder_owns(tiny_flux, tmp_path, monkeypatch):
    owner, folder = tmp_path / "owner", tmp_path / "folder"
    tiny_flux.save_pretrained(owner)
    shutil.copytree(owner, folder)
    for part in ("vae", "tokenizer", "text_encoder_2"):
        shutil.rmtree(folder / part)
    shared = dict.fromkeys(("vae", "tokenizer", "text_encoder_2"), str(owner))
    variant = Variant("flux:tiny", "flux", str(folder), 64, 4, 3.5, 5.0, shared_components=shared)
    monkeypatch.setattr(flux, "VARIANTS", (variant,))
    pipe = load_pipeline("flux:tiny", placement=Placement(dtype="bfloat16"))
    assert {p.dtype for part in (pipe.vae, pipe.text_encoder_2) for p in part.parameters()} == {torch.bfloat16}
    pipe.save_pretrained(tmp_path / "whole")
    assert (tmp_path / "whole" / "vae").is_dir()
    # The real pipeline class takes what was put together, and it is the owner's.
    whole = load_pipeline(str(tmp_path / "whole"))
    for part in ("vae", "text_encoder_2"):
        mine, theirs = (getattr(p, part).state_dict() for p in (whole, tiny_flux))
        assert all(torch.equal(mine[key], theirs[key].to(torch.bfloat16).float()) for key in mine)


def test_names_that_are_nothing():
    with pytest.raises(UnknownNameError, match="did you mean 'sd:emoji'"):
        load_pipeline("sd:emojis")
    with pytest.raises(DataError, match="does not exist"):
        load_pipeline("some/folder/here")
    with pytest.raises(DataError, match="holds no weights in 'nothing-here'"):
        package_folder("package:learn_to_steer/nothing-here")
    for nowhere in ("package:not_installed/data", "package:"):
        with pytest.raises(DataError, match="not installed"):
            package_folder(nowhere)
    assert package_folder("owner/name") == "owner/name"


def _lora(pipe, folder, scale):
    """A LoRA of ``pipe`` that shifts its first query projection."""
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipe.unet.add_adapter(LoraConfig(r=2, lora_alpha=2, init_lora_weights="gaussian", target_modules=["to_q"]))
    with torch.no_grad():
        for name, parameter in pipe.unet.named_parameters():
            if "lora_B" in name:
                parameter.fill_(scale)
    type(pipe).save_lora_weights(str(folder), unet_lora_layers=get_peft_model_state_dict(pipe.unet))
    pipe.unet.delete_adapters("default")


def test_loras_are_loaded_at_their_scales(saved_sd, tiny_sd, tmp_path):
    _lora(tiny_sd, tmp_path / "one", 0.5)
    _lora(tiny_sd, tmp_path / "two", 0.25)
    placement = Placement(lora=(str(tmp_path / "one"), f"{tmp_path / 'two'}:0.5"))
    pipe = load_pipeline(str(saved_sd), placement=placement)
    assert pipe.get_active_adapters() == ["lora0", "lora1"]
    layer = pipe.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2.to_q
    assert layer.scaling == {"lora0": 1.0, "lora1": 0.5}
    with pytest.raises(DataError, match="missing"):
        load_pipeline(str(saved_sd), placement=Placement(lora=("./missing",)))


def test_placements_that_cannot_be(saved_sd, monkeypatch):
    with pytest.raises(UnknownNameError, match="bfloat16"):
        Placement(dtype="bfloat")
    with pytest.raises(UnsupportedError, match="GPU"):
        load_pipeline(str(saved_sd), placement=Placement(offload="model"))
    monkeypatch.setattr(placement_module, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match=r"learn-to-steer\[quant\]"):
        Placement(quantize="4bit")


def test_weights_are_held_in_the_dtype_asked_for(saved_sd):
    pipe = load_pipeline(str(saved_sd), placement=Placement(dtype="bfloat16"))
    assert {parameter.dtype for parameter in pipe.unet.parameters()} == {torch.bfloat16}


def test_a_variant_with_weights_from_elsewhere(saved_sd, monkeypatch):
    pipe = load_pipeline(f"sd:2.1={saved_sd}")
    variant = loaded_variant(pipe)
    assert (variant.name, variant.trained_steps[-1], variant.resolution) == ("sd:2.1", 49, 512)
    assert type(pipe.scheduler).__name__ == "DDIMScheduler"
    with pytest.raises(DataError, match=r"after sd:2\.1="):
        load_pipeline("sd:2.1=./nowhere")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match=r"withdrew .* --model sd:2\.1=FOLDER"):
        load_pipeline("sd:2.1")


def test_schedulers_of_another_kind_are_refused(saved_sd):
    with pytest.raises(UnsupportedError, match="cannot sample this model"):
        load_pipeline(str(saved_sd), scheduler="FlowMatchEulerDiscreteScheduler")


def test_loras_that_do_not_fit(saved_sd, tiny_sd, tmp_path):
    _lora(tiny_sd, tmp_path / "one", 0.5)
    with pytest.raises(DataError, match="must be a number"):
        load_pipeline(str(saved_sd), placement=Placement(lora=(f"{tmp_path / 'one'}:nan",)))
    path = next((tmp_path / "one").glob("*.safetensors"))
    save_file({key: torch.zeros(3, 5) for key in load_file(path)}, path)
    with pytest.raises(DataError, match="could not be loaded on this model"):
        load_pipeline(str(saved_sd), placement=Placement(lora=(str(tmp_path / "one"),)))


def test_what_the_hub_calls_a_model(saved_sd, tmp_path):
    shutil.copytree(saved_sd, tmp_path / "a=b" / "model")
    assert model_names.hub_source(str(tmp_path / "a=b" / "model")) == ""
    assert (
        model_names.hub_source("flux:dev")
        == model_names.hub_source("black-forest-labs/FLUX.1-dev")
        == "black-forest-labs/FLUX.1-dev"
    )
    assert model_names.hub_source("sd:2.1=owner/mirror") == "owner/mirror"
    for elsewhere in ("flux:emoji", str(saved_sd), f"sd:1.4={saved_sd}"):
        assert model_names.hub_source(elsewhere) == ""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path], list[str]]:
    """Puts a folder on a hub that has no network; returns a list in which all files go that are asked for."""

    def build(folder: Path) -> list[str]:
        asked: list[str] = []

        def download(source: str, allow_patterns: Sequence[str], **_: Any) -> str:
            copy = tmp_path / "commit"
            for file in sorted(folder.rglob("*")):
                name = str(file.relative_to(folder))
                if file.is_file() and any(fnmatch(name, pattern) for pattern in allow_patterns):
                    (copy / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file, copy / name)
                    asked.append(name)
            return str(copy)

        def load(*_: Any, **__: Any) -> None:
            asked.append("weights")
            raise OSError("no network")

        monkeypatch.setattr("huggingface_hub.snapshot_download", download)
        monkeypatch.setattr("diffusers.DiffusionPipeline.from_pretrained", load)
        return asked

    return build


def test_a_model_of_no_family_costs_no_download(saved_sd: Path, tmp_path: Path, hub: Any) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved_sd, folder)
    config = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps(config | {"encoder_hid_dim_type": "text_proj"}))
    asked = hub(folder)
    with pytest.raises(
        UnsupportedError, match=r"no model family knows the pipeline StableDiffusionPipeline \(its unet"
    ):
        load_pipeline("owner/name")
    assert "unet/config.json" in asked and "weights" not in asked
    with pytest.raises(UnsupportedError, match="no model family knows"):
        load_pipeline(str(folder))


def test_an_unknown_scheduler_costs_no_download(saved_sd: Path, hub: Any) -> None:
    asked = hub(saved_sd)
    with pytest.raises(UnknownNameError, match="did you mean 'DDIMScheduler'"):
        load_pipeline("owner/name", scheduler="DDIMSchedular")
    assert asked == []
    with pytest.raises(DataError, match="no network"):
        load_pipeline("owner/name", scheduler="DDIMScheduler")
    assert asked[-1] == "weights"


def test_a_scheduler_that_cannot_be_steered_costs_no_download(saved_sd: Path, hub: Any, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved_sd, folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"scheduler": ["diffusers", "PNDMScheduler"]}))
    asked = hub(folder)
    with pytest.raises(UnsupportedError, match=r"PNDMScheduler is not known .* --scheduler DDIMScheduler"):
        load_pipeline("owner/name", steered=True)
    with pytest.raises(UnsupportedError, match="FlowMatchEulerDiscreteScheduler cannot sample this model"):
        load_pipeline("owner/name", scheduler="FlowMatchEulerDiscreteScheduler")
    with pytest.raises(UnsupportedError, match="HeunDiscreteScheduler is not known"):
        load_pipeline("owner/name", scheduler="HeunDiscreteScheduler", steered=True)
    assert "weights" not in asked
    for usable in ({}, {"scheduler": "DDIMScheduler", "steered": True}):  # unsteered, any will do
        with pytest.raises(DataError, match="no network"):
            load_pipeline("owner/name", **usable)
    with pytest.raises(DataError, match="no network"):  # whose variant brings another
        load_pipeline("sd:1.4", steered=True)
    assert asked.count("weights") == 3


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The memory of each device in bytes, and what is "free" of it; what is not there is not known."""
    held: dict[str, int] = {}
    monkeypatch.setattr(footprint, "total_memory", lambda device: held.get(device, 0))
    monkeypatch.setattr(footprint, "free_memory", lambda device: held.get("free", 0))
    return held


def test_a_model_that_cannot_fit_costs_no_download(
    saved_sd: Path, tiny_sd: Any, hub: Any, memory: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    parts = (tiny_sd.unet, tiny_sd.vae, tiny_sd.text_encoder)
    counts = [sum(parameter.numel() for parameter in part.parameters()) for part in parts]
    asked, size = hub(saved_sd), 4 * sum(counts)
    assert footprint.parameters(saved_sd) == dict(zip(("unet", "vae", "text_encoder"), counts, strict=True))
    memory["cpu"] = size - 1
    with pytest.raises(UnsupportedError, match=r"take 0\.0 GiB .* in all; they fit with --dtype bfloat16$"):
        load_pipeline("owner/name")
    assert "weights" not in asked
    with pytest.raises(DataError, match="no network"):  # as it says
        load_pipeline("owner/name", placement=Placement(dtype="bfloat16"))
    memory["cpu"] = size // 2 - 1
    with pytest.raises(UnsupportedError, match="use a machine with more memory, or a smaller model"):
        load_pipeline("owner/name")
    memory |= {"cpu": size, "free": size - 1}
    with pytest.raises(DataError, match="no network"):
        load_pipeline("owner/name")
    assert "are free now" in caplog.text


def test_what_is_not_known_is_not_refused(saved_sd: Path, hub: Any, memory: dict[str, int]) -> None:
    asked = hub(saved_sd)
    with pytest.raises(DataError, match="no network"):
        load_pipeline("owner/name")
    memory["cpu"] = 1
    (saved_sd / "vae" / "config.json").write_text('{"act_fn": "none"}')  # no network can be made of it
    with pytest.raises(DataError, match="no network"):
        load_pipeline("owner/name")
    assert asked.count("weights") == 2


@pytest.mark.parametrize(
    ("gpu", "advice"),
    [
        (3000, "--dtype bfloat16"),
        (2000, "--dtype bfloat16 --offload model"),
        (1250, "--dtype bfloat16 --quantize 8bit"),
        (1100, "--dtype bfloat16 --offload model --quantize 8bit"),
        (750, "--dtype bfloat16 --quantize 4bit"),
        (600, "--dtype bfloat16 --offload model --quantize 4bit"),
        (100, ""),
    ],
)
def test_advice_for_a_gpu(gpu: int, advice: str, memory: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "parameters", lambda folder: {"unet": 1000, "vae": 50, "text_encoder": 50})
    monkeypatch.setattr(placement_module, "find_spec", lambda name: True)
    memory |= {"cuda": gpu, "cpu": 10_000}
    with pytest.raises(UnsupportedError) as refusal:
        footprint.require_memory(Path(), "owner/name", "float32", Placement(), "cuda")
    assert str(refusal.value).endswith(f"they fit with {advice}" if advice else "or a smaller model")
    words = advice.split()
    options = {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}
    if options:  # as it says
        footprint.require_memory(Path(), "owner/name", options["dtype"], Placement(**options), "cuda")


def test_a_gpu_of_apple(saved_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in: the device of this machine is another one."""
    from diffusers import DiffusionPipeline

    with pytest.raises(UnsupportedError, match="the device 'mps' cannot be used"):
        load_pipeline(str(saved_sd), "mps")
    moved: list[str] = []
    empty = torch.empty
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", lambda *size, device=None, **kind: empty(*size, device="cpu", **kind))
    monkeypatch.setattr(DiffusionPipeline, "to", lambda pipe, device: moved.append(device) or pipe)
    pipe = load_pipeline(str(saved_sd), "mps")
    assert moved == ["mps"] and {parameter.dtype for parameter in pipe.unet.parameters()} == {torch.float32}
    with pytest.raises(UnsupportedError, match="with --device mps leave them out"):
        load_pipeline(str(saved_sd), "mps", Placement(offload="model"))
    assert placement_module.resolve_device("auto") in ("cpu", "cuda")  # it has to be asked for
