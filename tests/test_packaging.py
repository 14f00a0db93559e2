"""What is built for an index of packages: sizes, licences, and nothing that does not belong there."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parents[1]


def build(project: Path, kind: str, out: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(out)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = out.iterdir()
    return built


def opened(wheel: Path) -> tuple[set[str], Message]:
    """The names of its files, and its metadata."""
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        return names, message_from_bytes(archive.read(metadata))


def test_the_library_is_small_and_under_one_licence(tmp_path):
    wheel = build(ROOT, "wheel", tmp_path)
    names, metadata = opened(wheel)
    assert wheel.stat().st_size <= 1.5e6
    assert {name.split("/")[0] for name in names} == {"learn_to_steer", "learn_to_steer-0.1.0.dist-info"}
    assert "learn_to_steer/py.typed" in names and not any("emoji" in name for name in names)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE", "NOTICE"]


def test_the_emoji_world_carries_its_models_and_the_licence_of_its_sprites(tmp_path):
    names, metadata = opened(build(ROOT / "emoji_world", "wheel", tmp_path))
    package = "learn_to_steer_emoji"
    assert {name.split("/")[0] for name in names} == {package, f"{package}-0.1.0.dist-info"}
    for model in ("sd-emoji/unet", "flux-emoji/transformer", "flux-emoji-schnell/transformer"):
        assert f"{package}/data/{model}/diffusion_pytorch_model.safetensors" in names
    assert metadata["License-Expression"] == "Apache-2.0 AND OFL-1.1"
    licences = [name for name in names if ".dist-info/licenses/" in name]
    assert {Path(name).name for name in licences} == {"LICENSE", "NOTICE", "LICENSE-OFL.txt"}


@pytest.mark.parametrize(
    ("folder", "inside"),
    [
        (".", {"src", "CHANGELOG.md", "CITATION.cff", "LICENSE", "NOTICE", "README.md"}),
        ("emoji_world", {"src", "training", "LICENSE", "NOTICE", "README.md"}),
    ],
)
def test_source_distributions_hold_sources(tmp_path, folder, inside):
    with tarfile.open(build(ROOT / folder, "sdist", tmp_path)) as archive:
        names = archive.getnames()
    found = {Path(name).parts[1] for name in names}
    assert found - {"PKG-INFO", "pyproject.toml", ".gitignore"} == inside
    assert not any("__pycache__" in name or name.endswith(".pyc") for name in names)
