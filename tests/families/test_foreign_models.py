"""A model's folder from a stranger: no code in it is run, and broken or absurd configs end in one clear error."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from learn_to_steer import loading
from learn_to_steer.errors import DataError
from learn_to_steer.loading import load_pipeline, skeleton
from learn_to_steer.model_configs import check_model, component_class
from learn_to_steer.placement import Placement

MARK = "from pathlib import Path\nPath({!r}).write_text('ran')\n\nclass X:\n    pass\n"


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that code of the model would write."""
    return tmp_path / "mark"


@pytest.fixture
def code(mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Code that writes the mark, which could also be imported as the module evilmod."""
    text = MARK.format(str(mark))
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "evilmod.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    return text


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"unet": ["evilmod", "X"]},
        {"extra": ["evilmod", "X"]},
        {"unet": ["os", "system"]},
        {"unet": ["diffusers", "AutoModel"]},
        {"unet": ["diffusers", "StableDiffusionPipeline"]},
        {"unet": ["diffusers", "NoSuchModel"]},
        {"unet": ["diffusers", 5]},
        {"tokenizer": ["transformers", "AutoTokenizer"]},
        {"tokenizer": ["transformers", "pipeline"]},
        {"unet": ["diffusers", ["evilmod", "X"]]},
        {"unet": ["stable_diffusion", "StableDiffusionPipeline"]},
        {"unet": [None, "X"]},
        {"unet": ["diffusers"]},
        {"../unet": ["diffusers", "UNet2DConditionModel"]},
        {"_class_name": ["evilmod", "X"]},
        {"_class_name": "UNet2DConditionModel"},
        {"_class_name": "KandinskyCombinedPipeline"},
        {"_class_name": None},
        {"_class_name": "X"},
    ],
    ids=str,
)
def test_only_classes_of_diffusers_and_transformers_are_loaded(
    saved_sd: Path, code: str, mark: Path, changes: dict[str, Any]
) -> None:
    (saved_sd / "evilmod.py").write_text(code)
    (saved_sd / "unet" / "evilmod.py").write_text(code)
    edit(saved_sd / "model_index.json", **changes)
    with pytest.raises(DataError, match=r"code that comes with a model is never run|loads other models|library and a"):
        load_pipeline(str(saved_sd))
    assert not mark.exists() and "evilmod" not in sys.modules


def test_code_that_bears_the_name_of_a_library_is_refused(saved_sd: Path, code: str, mark: Path) -> None:
    (saved_sd / "unet" / "diffusers.py").write_text(code)
    with pytest.raises(DataError, match=r"the component unet comes with the code diffusers\.py"):
        load_pipeline(str(saved_sd))
    assert not mark.exists()


def test_other_hooks_for_code_are_never_followed(saved_sd: Path, code: str, mark: Path) -> None:
    for folder in (saved_sd, *saved_sd.iterdir()):
        if folder.is_dir():
            for name in ("evilmod", "pipeline", "modeling"):
                (folder / f"{name}.py").write_text(code)
    hooks = {"auto_map": {"AutoModel": "evilmod.X", "AutoTokenizer": ["evilmod.X", None]}, "trust_remote_code": True}
    edit(saved_sd / "model_index.json", custom_pipeline="pipeline", **hooks)
    for file in ("text_encoder/config.json", "tokenizer/tokenizer_config.json", "unet/config.json"):
        edit(saved_sd / file, **hooks)
    load_pipeline(str(saved_sd))
    assert not mark.exists()


def test_code_to_download_for_attention_is_refused(saved_sd: Path) -> None:
    edit(saved_sd / "text_encoder" / "config.json", _attn_implementation="owner/kernel")
    with pytest.raises(DataError, match="_attn_implementation names code to download"):
        load_pipeline(str(saved_sd))


class Evil:
    """Writes the mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return eval, (f"__import__('pathlib').Path({str(self.mark)!r}).write_text('ran')",)


@pytest.mark.parametrize(
    ("component", "weights"),
    [("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"), ("text_encoder", "model")],
)
def test_pickled_weights_run_no_code(saved_sd: Path, mark: Path, component: str, weights: str) -> None:
    (saved_sd / component / f"{weights}.safetensors").unlink()
    name = "pytorch_model" if weights == "model" else weights
    torch.save({"weight": Evil(mark)}, saved_sd / component / f"{name}.bin")
    with pytest.raises(DataError, match="could not be loaded"):
        load_pipeline(str(saved_sd))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["evil.bin", "evil.safetensors", "evil.pt"])
def test_a_lora_runs_no_code(saved_sd: Path, mark: Path, tmp_path: Path, name: str) -> None:
    torch.save({"unet.weight": Evil(mark)}, tmp_path / name)
    with pytest.raises(DataError, match=r"the LoRA .* could not be loaded"):
        load_pipeline(str(saved_sd), placement=Placement(lora=(str(tmp_path / name),)))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("unet/config.json", {"layers_per_block": 2**31}),
        ("unet/config.json", {"layers_per_block": -1}),
        ("unet/config.json", {"layers_per_block": "many"}),
        ("unet/config.json", {"transformer_layers_per_block": [1, 2**31]}),
        ("unet/config.json", {"block_out_channels": [2**40, 32]}),
        ("unet/config.json", {"block_out_channels": 5}),
        ("unet/config.json", {"block_out_channels": [0, 0]}),
        ("unet/config.json", {"down_block_types": ["CrossAttnDownBlock2D"] * 5000}),
        ("unet/config.json", {"down_block_types": None}),
        ("unet/config.json", {"norm_num_groups": 0}),
        ("unet/config.json", {"in_channels": "x"}),
        ("vae/config.json", {"latent_channels": 2**33}),
        ("vae/config.json", {"act_fn": 5}),
        ("text_encoder/config.json", {"num_hidden_layers": 2**31}),
        ("text_encoder/config.json", {"hidden_size": 0}),
        ("text_encoder/config.json", {"num_attention_heads": 0}),
        ("text_encoder/config.json", {"hidden_act": "explode"}),
        ("text_encoder/config.json", {"vocab_size": 10**12}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**10}),
        ("scheduler/scheduler_config.json", {"beta_schedule": 5}),
        ("scheduler/scheduler_config.json", {"beta_start": "x"}),
    ],
    ids=str,
)
def test_a_broken_config_of_a_component_is_one_error(saved_sd: Path, file: str, changes: dict[str, Any]) -> None:
    edit(saved_sd / file, **changes)
    with pytest.raises(DataError) as refusal:
        load_pipeline(str(saved_sd))
    assert str(saved_sd) in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"5", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a": 1, "a": 2}'])
@pytest.mark.parametrize("file", ["model_index.json", "unet/config.json"])
def test_a_config_that_is_none_is_one_error(saved_sd: Path, file: str, content: bytes) -> None:
    (saved_sd / file).write_bytes(content)
    with pytest.raises(DataError, match=file.rpartition("/")[2]):
        load_pipeline(str(saved_sd))


@pytest.mark.parametrize(
    "changes", [{"layers_per_block": 2**31}, {"block_out_channels": 5}, {"norm_num_groups": 0}], ids=str
)
def test_a_broken_config_makes_no_skeleton(saved_sd: Path, changes: dict[str, Any]) -> None:
    edit(saved_sd / "unet" / "config.json", **changes)
    with pytest.raises(DataError, match="config of the unet"):
        skeleton(str(saved_sd))


def test_a_hub_id_is_checked_before_and_loaded_at_the_checked_commit(
    saved_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import DiffusionPipeline

    asked: dict[str, Any] = {}
    original = DiffusionPipeline.from_pretrained.__func__

    def from_pretrained(cls: Any, source: str, **settings: Any) -> Any:
        asked.update(settings, source=source)
        return original(cls, str(saved_sd), **settings)

    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", classmethod(from_pretrained))
    monkeypatch.setattr(loading, "_download_configs", lambda source, revision: saved_sd)
    load_pipeline("owner/name")
    assert (asked["source"], asked["revision"], asked["trust_remote_code"]) == ("owner/name", saved_sd.name, False)
    asked.clear()
    edit(saved_sd / "model_index.json", unet=["evilmod", "X"])
    with pytest.raises(DataError, match="owner/name: the component 'unet'"):
        load_pipeline("owner/name")
    assert not asked


def test_the_usual_folders_pass(tmp_path: Path) -> None:
    """What published models of these families list, among it names of former versions."""
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.8.0",
        "feature_extractor": ["transformers", "CLIPFeatureExtractor"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "image_encoder": [None, None],
        "requires_safety_checker": True,
    }
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text('{"lambda_min_clipped": -Infinity}')
    check_model(tmp_path, "a model")


def test_what_a_library_only_imports_is_no_component(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers, "Popen", subprocess.Popen, raising=False)
    with pytest.raises(DataError, match="which is no class of diffusers or transformers"):
        component_class("tokenizer", "transformers", "Popen")
