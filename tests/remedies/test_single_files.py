"""What the messages about models of one file advise is done here."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from told import tells, told

from learn_to_steer.families.testing import tiny
from learn_to_steer.loading import load_pipeline
from learn_to_steer.placement import Placement

sys.path.insert(0, str(Path(__file__).parents[1] / "families"))
import original_layout

STEER = ("--loss", "for-spatial", "--steps", "2", "--height", "64", "--width", "64")
PROMPT = "a dog to the left of a cat"


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Path]:
    """``made(family)``: a single file in the working folder, whose base is the folder ``base``."""

    def build(family: str, **settings: Any) -> Path:
        pipe = tiny(family.removesuffix("2"))
        pipe.save_pretrained(tmp_path / "base")
        return original_layout.write(pipe, tmp_path / "model.safetensors", family, **settings)

    return build


def generated(run: Callable[..., str], *words: Any, fails: bool = False) -> str:
    return run("generate", PROMPT, *STEER, "--out", "out", *words, fails=fails)


def test_a_file_of_another_architecture(made: Any, run: Any) -> None:
    made("sd")
    assert tells(generated(run, "--model", "model.safetensors", fails=True), "that it was made from with --base")
    generated(run, "--model", "model.safetensors", "--base", "base")


@pytest.mark.slow
def test_a_file_in_other_verbs(made: Any, run: Any) -> None:
    made("sd")
    run("doctor", "--model", "model.safetensors", "--base", "base")
    run(
        "bench",
        "--model",
        "model.safetensors",
        "--base",
        "base",
        *STEER,
        "--limit",
        "1",
        "--repeats",
        "1",
        "--batch",
        "1",
    )


@pytest.mark.slow
def test_a_component_that_is_nowhere(made: Any, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made("sd")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    shutil.copytree(tmp_path / "base", tmp_path / "poor")
    shutil.rmtree(tmp_path / "poor" / "tokenizer")
    message = generated(run, "--model", "model.safetensors", "--base", "poor", fails=True)
    assert tells(message, "holds no tokenizer, nor does")
    assert tells(message, "name a diffusers folder or hub id that does (--base CompVis/stable-diffusion-v1-4)")
    generated(run, "--model", "model.safetensors", "--base", "base")
    assert tells(message, ", or fetch these folders of it into the cache")
    folder = tmp_path / "hub" / "models--CompVis--stable-diffusion-v1-4"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    shutil.copytree(tmp_path / "base" / "tokenizer", folder / "snapshots" / ("0" * 40) / "tokenizer")
    generated(run, "--model", "model.safetensors", "--base", "poor")


def test_files_that_hold_something_else(made: Any, run: Any, tmp_path: Path) -> None:
    path = made("sd")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:-9])
    unet = "model.diffusion_model."
    latents = {f"{unet}input_blocks.0.0.weight": (4, 4, 3, 3), f"{unet}out.2.weight": (4, 4, 3, 3)}
    others = {
        "scaled": {"double_blocks.0.img_attn.qkv.scale_weight": (1,)},
        "inpaint": latents | {f"{unet}input_blocks.0.0.weight": (4, 9, 3, 3)},
        "refiner": latents | {"conditioner.embedders.0.model.text_projection": (4, 4)},
    }
    for name, shapes in others.items():
        save_file({key: torch.zeros(shape) for key, shape in shapes.items()}, tmp_path / f"{name}.safetensors")
    for name, remedy in (
        ("model.gguf", "which are not read; name a .safetensors file"),
        ("nowhere.safetensors", "name a .safetensors file, a diffusers folder or a hub id"),
        ("scaled.safetensors", "; name a file of 16 or 32 bits"),
        ("inpaint.safetensors", "; name the file of a text-to-image model"),
        ("refiner.safetensors", "; name the file of a base model"),
        ("cut.safetensors", "download it again"),
    ):
        assert tells(generated(run, "--model", name, "--base", "base", fails=True), remedy)
    message = generated(run, "--model", f"sdxl:base={path}", "--base", "base", fails=True)
    assert tells(message, "leave the name before = out")
    generated(run, "--model", path, "--base", "base")
    message = generated(run, "--model", "base/unet/diffusion_pytorch_model.safetensors", fails=True)
    assert tells(message, "; name the folder that has its model_index.json")
    generated(run, "--model", "base")


@pytest.mark.slow
def test_an_sd2_file_that_does_not_say_what_it_predicts(made: Any, run: Any) -> None:
    path = made("sd2")
    for name in ("unet", "text_encoder", "vae"):  # what is left is a base without a scheduler
        assert (path.parent / "base" / name).is_dir()
    scheduler = path.parent / "base" / "scheduler" / "scheduler_config.json"
    text = scheduler.read_text()
    scheduler.unlink()
    message = generated(run, "--model", path, "--base", "base", fails=True)
    assert tells(message, f"for the first write --model sd:2.1={path}")
    generated(run, "--model", f"sd:2.1={path}", "--base", "base")
    assert tells(message, "whose scheduler has prediction_type v_prediction with --base")
    scheduler.write_text(text.replace('"epsilon"', '"v_prediction"'))
    loaded = load_pipeline(str(path), placement=Placement(base=str(path.parent / "base")))
    assert loaded.scheduler.config.prediction_type == "v_prediction"
    generated(run, "--model", path, "--base", "base")


@pytest.mark.slow
def test_a_pickled_file(made: Any, run: Any, tmp_path: Path) -> None:
    path = made("sd")
    torch.save({"state_dict": load_file(path)}, tmp_path / "old.ckpt")
    message = generated(run, "--model", "old.ckpt", "--base", "base", fails=True)
    assert tells(message, 'save_file(state.get("state_dict", state), "model.safetensors")')
    state = torch.load(tmp_path / "old.ckpt", weights_only=True)
    save_file(state.get("state_dict", state), tmp_path / "model.safetensors")
    generated(run, "--model", "model.safetensors", "--base", "base")


@pytest.mark.slow
def test_quantised_weights_come_from_a_folder(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, base = made("sd"), str(tmp_path / "base")
    monkeypatch.setattr("learn_to_steer.placement.find_spec", lambda name: True)
    monkeypatch.setattr("learn_to_steer.loading.resolve_device", lambda name: "cuda")
    with told(".save_pretrained(FOLDER), and name that folder"):
        load_pipeline(str(path), placement=Placement(quantize="4bit", base=base))
    monkeypatch.undo()
    load_pipeline(str(path), placement=Placement(dtype="bfloat16", base=base)).save_pretrained(tmp_path / "folder")
    assert load_pipeline(str(tmp_path / "folder")).unet.dtype == torch.float32


@pytest.mark.slow
def test_a_base_of_another_kind(made: Any, run: Any) -> None:
    path = made("sd")
    tiny("flux").save_pretrained(path.parent / "other")
    message = generated(run, "--model", path, "--base", "other", fails=True)
    assert tells(message, "name the model that the file was made from with --base")
    generated(run, "--model", path, "--base", "base")


@pytest.mark.slow
def test_a_base_without_a_file(made: Any, run: Any) -> None:
    made("sd")
    assert tells(generated(run, "--model", "base", "--base", "base", fails=True), "leave it out")
    generated(run, "--model", "base")


@pytest.mark.slow
def test_a_layout_that_is_not_read(made: Any, run: Any, tmp_path: Path) -> None:
    """diffusers reads some, and keeps them as folders."""
    path = tmp_path / "model.safetensors"
    save_file({"layers.0.weight": torch.zeros(4, 4)}, path)
    message = generated(run, "--model", path, fails=True)
    assert tells(message, "keep it as a folder (pipe.save_pretrained(FOLDER)), and name that folder")
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_single_file(str(made("sd")), config=str(tmp_path / "base"))
    pipe.save_pretrained(tmp_path / "folder")
    generated(run, "--model", "folder")
