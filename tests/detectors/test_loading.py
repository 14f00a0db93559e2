"""Weights that cannot be used are one clear error; importing a detector costs nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from safetensors.torch import load_file, save_file

from learn_to_steer import registry
from learn_to_steer.detectors import _networks, clipseg, grounding_dino, mask2former, owlv2
from learn_to_steer.errors import DataError

MODULES = (mask2former, owlv2, grounding_dino, clipseg)
BY_NAME = {module.__name__.rpartition(".")[2]: module for module in MODULES}


def test_they_are_in_the_catalog_and_cheap_to_import():
    assert {"mask2former", "owlv2", "grounding-dino", "clipseg"} <= set(registry.names("detectors"))
    names = ", ".join(module.__name__ for module in MODULES)
    code = f"import sys, {names}; print('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize("module", MODULES, ids=list(BY_NAME))
def test_places_that_are_nothing(module, tmp_path):
    for source in (str(tmp_path / "none"), "./none", "nothing-here", "a/b/c"):
        with pytest.raises(DataError, match="neither a folder nor a hub id"):
            module.load("cpu", source)
    with pytest.raises(DataError, match=r"could not be loaded.*name a folder or hub id of a .* model"):
        module.load("cpu", str(tmp_path))  # an empty folder


@pytest.mark.parametrize("module", MODULES, ids=list(BY_NAME))
def test_another_kind_of_network_is_refused(module, clip_folder):
    with pytest.raises(DataError, match="are of a clip model, not of"):
        module.load("cpu", str(clip_folder))


@pytest.mark.parametrize("name", BY_NAME)
def test_broken_folders(name, request, tmp_path):
    whole = request.getfixturevalue(f"{name}_folder")

    def broken(how):
        folder = tmp_path / how
        shutil.copytree(whole, folder)
        return folder

    torn = broken("torn")
    (torn / "model.safetensors").write_bytes((whole / "model.safetensors").read_bytes()[:1000])
    bare = broken("bare")
    (bare / "model.safetensors").unlink()
    garbled = broken("garbled")
    (garbled / "config.json").write_text('{"model_type": ')
    shapes = broken("shapes")
    tensors = load_file(whole / "model.safetensors")
    key = max(tensors, key=lambda k: tensors[k].numel())
    save_file(tensors | {key: tensors[key][:1].clone()}, shapes / "model.safetensors", {"format": "pt"})
    for folder in (torn, bare, garbled, shapes):
        with pytest.raises(DataError, match="could not be loaded") as error:
            BY_NAME[name].load("cpu", str(folder))
        assert "\n" not in str(error.value)
    lacking = broken("lacking")
    del tensors[key]
    save_file(tensors, lacking / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match="lack 1 tensors"):
        BY_NAME[name].load("cpu", str(lacking))


@pytest.mark.parametrize("name", ["owlv2", "grounding_dino", "clipseg"])
def test_tokenizer_must_lie_beside_the_weights(name, request, tmp_path):
    whole = request.getfixturevalue(f"{name}_folder")
    for kept in ("*.safetensors", "config.json"):
        for path in whole.glob(kept):
            shutil.copy(path, tmp_path)
    with pytest.raises(DataError, match="tokenizer"):
        BY_NAME[name].load("cpu", str(tmp_path))


def test_tokenizer_of_a_larger_vocabulary_is_refused(clipseg_folder):
    with pytest.raises(DataError, match="does not fit its network"):
        _networks.load_tokenizer(str(clipseg_folder), 100)


def test_hub_id_without_a_connection(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="the weights nobody/nothing could not be loaded") as error:
        owlv2.load("cpu", "nobody/nothing")
    assert "\n" not in str(error.value)


def test_identity_names_the_hubs_commit(tmp_path):
    config = type("Config", (), {"_commit_hash": "0123456789abcdef"})
    assert _networks._weights_identity(tmp_path / "none", "owner/name", config) == "owner/name@0123456789ab"
    assert _networks._weights_identity(tmp_path / "none", "owner/name", None) == "owner/name@main"


def test_identity_of_a_folder_is_its_contents(clip_folder, tmp_path):
    shutil.copytree(clip_folder, tmp_path / "moved")
    assert _networks._weights_identity(clip_folder, "", None) == _networks._weights_identity(
        tmp_path / "moved", "", None
    )
    assert json.loads((clip_folder / "config.json").read_text())["model_type"] == "clip"
