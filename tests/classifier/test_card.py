"""The card beside a classifier, and the way to the hub and back; the hub is a local folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from learn_to_steer.classifier import file, load, push_to_hub, save
from learn_to_steer.cli import main
from learn_to_steer.errors import DataError

SCORES = {
    "pictures": 12,
    "accuracy": 0.625,
    "accuracy_interval": [0.5, 0.75],
    "per_relation": {"above": 0.5, "left of": 0.75},
    "leakage": {
        "both": {"true_prompts": 0.7, "wrong_prompts": 0.5, "names_prompted_word": 0.25, "by_chance": 0.1},
    },
}
DATA = {
    "model": "owner/base",
    "base_model": "owner/base",
    "source": "source gqa",
    "note": "CC BY 4.0",
    "pictures": "12 pictures",
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "hub"

    def create_repo(self: Any, repository: str, **more: Any) -> str:
        if repository == "owner/closed":
            raise ValueError("403: you may not")
        (root / repository).mkdir(parents=True, exist_ok=True)
        return f"https://hub/{repository}"

    def upload_folder(self: Any, repo_id: str, folder_path: Path, allow_patterns: list[str], **more: Any) -> None:
        for name in allow_patterns:
            if (folder_path / name).is_file():
                shutil.copy(folder_path / name, root / repo_id / name)

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo, name, revision=None: str(root / repo / name))
    return root


def test_card_says_what_it_is(tiny_sd: Any, random_classifier: Callable[..., Any], tmp_path: Path) -> None:
    model = random_classifier(tiny_sd)
    save(model, tmp_path, {"test": SCORES}, data=DATA)
    text = (tmp_path / "README.md").read_text()
    head, body = text.split("---\n")[1:3]
    assert "base_model: owner/base" in head and "library_name: learn-to-steer" in head
    for words in (*model.config.classes, "CC BY 4.0", "0.62 [0.50, 0.75]", "| 0.50 | 0.75 |", "0.25", "12 held-out"):
        assert words in body, words
    assert f"`{model.layout.fingerprint}`" in body
    save(model, tmp_path)
    assert "## Measured" not in (tmp_path / "README.md").read_text()


def test_to_the_hub_and_back(tiny_sd: Any, random_classifier: Callable[..., Any], hub: Path, tmp_path: Path) -> None:
    model = random_classifier(tiny_sd)
    save(model, tmp_path / "mine", {"test": SCORES}, half=False)
    (tmp_path / "mine" / "checkpoint.pt").write_bytes(b"not for others")
    assert push_to_hub(tmp_path / "mine", "owner/name") == "https://hub/owner/name"
    assert {path.name for path in (hub / "owner" / "name").iterdir()} == {file.FILE, "README.md"}
    again = load("owner/name")
    mine, theirs = model.state_dict(), again.state_dict()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert again.layout == model.layout and again.config.classes == model.config.classes


def test_the_publisher_names_the_licence(
    tiny_sd: Any, random_classifier: Callable[..., Any], hub: Path, tmp_path: Path
) -> None:
    save(random_classifier(tiny_sd), tmp_path / "mine", data=DATA)
    before = (tmp_path / "mine" / "README.md").read_text()
    for wrong in ("Apache 2.0", "", "a\nb: c"):
        with pytest.raises(DataError, match="not a licence identifier"):
            push_to_hub(tmp_path / "mine", "owner/name", license=wrong)
    assert (tmp_path / "mine" / "README.md").read_text() == before
    for broken in (b"---\na: [\n---\n", b"---\n- 1\n---\n", b"\xff\xfe"):
        (tmp_path / "mine" / "README.md").write_bytes(broken)
        with pytest.raises(DataError, match="licence cannot be written"):
            push_to_hub(tmp_path / "mine", "owner/name", license="mit")
    (tmp_path / "mine" / "README.md").write_text(before)
    assert main(["push", str(tmp_path / "mine"), "owner/name", "--license", "cc-by-4.0"]) == 0
    page = huggingface_hub.ModelCard.load(hub / "owner" / "name" / "README.md")
    assert page.data.license == "cc-by-4.0" and page.data.base_model == "owner/base"
    assert page.text.strip() == before.split("---\n", 2)[2].strip()


def test_what_cannot_be_uploaded(
    tiny_sd: Any, random_classifier: Callable[..., Any], hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        push_to_hub(tmp_path / "nothing", "owner/name")
    save(random_classifier(tiny_sd), tmp_path / "mine")
    with pytest.raises(DataError, match="403"):
        push_to_hub(tmp_path / "mine", "owner/closed")
    assert main(["push", str(tmp_path / "mine"), "owner/name"]) == 0
    assert "https://hub/owner/name" in capsys.readouterr().out
