"""A command that was refused ends with exit code 0 once the remedy in its message is done."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from told import tells, told

from learn_to_steer import loading, registry, verification
from learn_to_steer.benchmarks import _prompt_files
from learn_to_steer.classifier import import_official
from learn_to_steer.cli.commands import read_settings
from learn_to_steer.errors import SteerError
from learn_to_steer.maps import Layout, MapLayer

PROMPT = "a dog to the left of a cat"
EDITION1 = Path(__file__).parents[1] / "fixtures" / "edition1"
TINY_TRAINING = ("--epochs", "1", "--width", "4")


@pytest.fixture
def generate(run: Callable[..., str], saved_sd: Path, tmp_path: Path) -> Callable[..., str]:
    """``generate(*words)`` with the tiny model and two steps."""
    model = ("--model", saved_sd, "--classifier", saved_sd / "classifier", "--steps", 2, "--height", 64, "--width", 64)

    def command(*words: Any, **how: Any) -> str:
        return run("generate", *model, "--out", tmp_path / "out", "--set", "passes=1", *words, **how)

    return command


def test_settings() -> None:
    with told("write it as name=value"):
        read_settings(["threshold"])
    assert read_settings(["threshold=0.9"]) == {"threshold": 0.9}


def test_prompts_and_relations(generate: Callable[..., str]) -> None:
    relation = ("--relation", "dog | left of | cat")
    assert tells(generate(fails=True), "say what the image shows, e.g. 'a dog to the left of a cat'")
    generate("a dog to the left of a cat")
    assert tells(generate(PROMPT, "a cat above a dog", *relation, fails=True), "run them one by one")
    generate(PROMPT, *relation)
    assert tells(generate("a dog and a cat", "--strict", fails=True), "reword it or give --relation")
    assert tells(generate("a dog and a cat"), "reword it or give --relation")
    assert "reword" not in generate("a dog and a cat", *relation, "--strict")
    assert "reword" not in generate(PROMPT, "--strict")
    long = "a dog above a cat, " + "soft light and fine detail, " * 15
    assert tells(generate(long), "correct them with --relation")
    generate(long, *relation)


@pytest.mark.slow
def test_options_of_a_model(generate: Callable[..., str], run: Callable[..., str], saved_sd: Path) -> None:
    assert tells(generate(PROMPT, "--height", 65, fails=True), "choose another --")
    generate(PROMPT, "--height", 64)
    assert tells(generate(PROMPT, "--loss", "for-spatial", fails=True), "leave --classifier out, or choose --loss")
    generate(PROMPT, "--loss", "learned")
    plain = ("generate", PROMPT, "--model", saved_sd, "--steps", 2, "--height", 64, "--width", 64)
    run(*plain, "--loss", "none")
    flow = "FlowMatchEulerDiscreteScheduler"
    said = generate(PROMPT, "--scheduler", flow, fails=True)
    assert tells(said, "leave --scheduler out or use one of:")
    generate(PROMPT, "--scheduler", said.partition("use one of:")[2].split(",")[0].strip())
    assert tells(run(*plain, "--offload", "model", fails=True), "leave them out")


def test_names_of_models(saved_sd: Path, tmp_path: Path) -> None:
    for name, remedy in (
        ("", "name a variant, a diffusers folder or a hub id"),
        (str(tmp_path / "nowhere"), "name a diffusers folder, a hub id or a variant"),
        ("sd:2.1=/nowhere", "name a diffusers folder or a hub id after"),
    ):
        with told(remedy):
            loading.load_pipeline(name)
    for name in (str(saved_sd), f"sd:2.1={saved_sd}", "sd:emoji"):
        assert loading.load_pipeline(name)


def test_a_model_without_a_classifier(run: Callable[..., str], generate: Callable[..., str], saved_sd: Path) -> None:
    """One of the two ways is tried to the end: collect, train, --classifier; the other needs the authors' files."""
    small = ("--limit", 16, "--side", 64, "--levels", "0.9", "--quality", "1e9", "--source", "emoji")
    tiny = ("generate", PROMPT, "--model", f"sd:2.1={saved_sd}", "--steps", 2, "--height", 64, "--width", 64)
    assert tells(run(*tiny, fails=True), "or train one (learn-to-steer collect, then train), then name its folder")
    run("collect", "--model", f"sd:2.1={saved_sd}", *small, "--out", "maps")
    run("train", "--data", "maps", *TINY_TRAINING, "--out", "mine")
    run(*tiny, "--classifier", "mine", "--set", "passes=1")


def test_one_process(run: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("train", "--data", EDITION1 / "collection", *TINY_TRAINING, "--out", "trained")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert tells(run(*words, fails=True), "start it by itself, without 'accelerate launch' or 'torchrun'")
    monkeypatch.delenv("WORLD_SIZE")
    run(*words)


def test_files_of_options(run: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes("prompt: ä".encode("latin-1"))
    words = ("export-prompts", "--config", file, "--out", "sets")
    assert tells(run(*words, fails=True), "save the file as UTF-8")
    file.write_text("benchmark: ood\n", encoding="utf-8")
    run(*words)
    words = ("export-prompts", "--config", file, "--benchmark", "ood")
    file.write_text("out: 2001-01-31 10:00:00\n")
    assert tells(run(*words, fails=True), "a text was expected; put it in quotes")
    file.write_text('out: "2001-01-31 10:00:00"\n')
    run(*words)
    assert (tmp_path / "2001-01-31 10:00:00").is_dir()


def test_verified_folders_are_whole_after_the_command_is_run_again(run: Callable[..., str], tmp_path: Path) -> None:
    train = ("train", "--data", EDITION1 / "collection", *TINY_TRAINING, "--out", "trained")
    export = ("export-prompts", "--benchmark", "ood", "--out", "sets")

    def mended(folder: str, damage: Callable[[Path], Any], remedy: str, *words: Any) -> None:
        damage(tmp_path / folder)
        problems = " ".join(one.problem for one in verification.verify(tmp_path / folder).findings)
        assert tells(problems, remedy), problems
        run(*words)
        assert not verification.verify(tmp_path / folder).problems

    run(*train)
    run(*export)
    again = "run train again with the same settings"
    mended("trained", lambda at: (at / "relation_classifier.safetensors").unlink(), again, *train)
    mended("sets", lambda at: next(at.glob("*.jsonl")).write_text("{}"), "run export-prompts again", *export)
    (tmp_path / "trained" / "metrics.json").write_text("{")
    said = verification.verify(tmp_path / "trained").problems[0].problem
    assert tells(said, "delete it, and run train again with the same settings")
    (tmp_path / "trained" / "metrics.json").unlink()
    run(*train)
    assert not verification.verify(tmp_path / "trained").problems


@pytest.mark.slow
def test_verified_images_are_whole_after_the_command_is_run_again(
    run: Callable[..., str], generate: Callable[..., str], tmp_path: Path
) -> None:
    evaluate = ("evaluate", "--benchmark", "unseen", "--limit", 2, "--images", 1, "--steps", 2, "--out", "rated")
    score = ("score", "rated", "--out", "scored")
    run(*evaluate)
    run(*score)
    generate(PROMPT)
    cases: list[tuple[str, Callable[[Path], Any], str, Callable[[], Any]]] = [
        (
            "rated",
            lambda at: (at / "summary.json").unlink(),
            "run evaluate again with the same settings",
            lambda: run(*evaluate),
        ),
        (
            "rated",
            lambda at: next(at.rglob("*.png")).unlink(),
            "run evaluate again with the same settings",
            lambda: run(*evaluate),
        ),
        (
            "scored",
            lambda at: (at / "summary.json").unlink(),
            "run score again with the same settings",
            lambda: run(*score),
        ),
        (
            "out",
            lambda at: (at / "report.json").unlink(),
            "run generate again with the same settings",
            lambda: generate(PROMPT),
        ),
    ]
    for folder, damage, remedy, again in cases:
        damage(tmp_path / folder)
        problems = " ".join(one.problem for one in verification.verify(tmp_path / folder).findings)
        assert tells(problems, remedy), problems
        again()
        assert not verification.verify(tmp_path / folder).problems
    rows = (tmp_path / "rated" / "results.jsonl").read_text().splitlines(keepends=True)
    first = json.loads(rows[0])
    del first["held"]
    (tmp_path / "rated" / "results.jsonl").write_text(json.dumps(first) + "\n" + "".join(rows[1:]))
    assert tells(verification.verify(tmp_path / "rated").problems[0].problem, "remove the row, and")
    (tmp_path / "rated" / "results.jsonl").write_text("".join(rows[1:]))
    run(*evaluate)
    assert not verification.verify(tmp_path / "rated").problems


def test_plugins_that_are_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A package that declares a plug-in which cannot be imported, then a mended one."""
    info = tmp_path / "broken_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[learn_to_steer.losses]\nbroken = broken_plugin\n")
    (tmp_path / "broken_plugin.py").write_text("import nothing_of_this_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    _forget()
    try:
        with told("update that package or uninstall it"):
            registry.load("losses", "broken")
        shutil.rmtree(info)
        _forget()
        assert "broken" not in registry.names("losses")
        registry.load("losses", "for-spatial")
    finally:
        shutil.rmtree(info, ignore_errors=True)
        _forget()


def _forget() -> None:
    for value in vars(registry).values():
        if hasattr(value, "cache_clear"):
            value.cache_clear()


def test_sets_that_need_a_file(run: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("export-prompts", "--benchmark", "t2i-compbench-spatial", "--out", "sets")
    assert tells(run(*words, fails=True), "name it with --data FILE, or download it with --data download")
    os.mkdir(tmp_path / "folder")
    with pytest.raises(SteerError):
        _published(str(tmp_path / "folder"), "")
    text = "a dog on the left of a cat\n"
    (tmp_path / "file.txt").write_text(text)
    with told("name a readable file with --data FILE"):
        _published(str(tmp_path / "nowhere.txt"), text)
    assert _published(str(tmp_path / "file.txt"), text) == [text.strip()]
    (tmp_path / "file.txt").write_text("a cat\n")
    with told("give the file.txt of https://example.org/file.txt"):
        _published(str(tmp_path / "file.txt"), text)
    (tmp_path / "file.txt").write_text(text)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(_prompt_files, "urlopen", _no_network)
    with told("download it in another way and name it with --data FILE"):
        _published("download", text)
    monkeypatch.setattr(_prompt_files, "urlopen", lambda *_, **__: io.BytesIO(b"another file"))
    with told("find the published file and name it with --data FILE"):
        _published("download", text)
    monkeypatch.setattr(_prompt_files, "urlopen", lambda *_, **__: io.BytesIO(text.encode()))
    _published("download", text)
    (cached,) = (tmp_path / "cache").rglob("*.txt")
    cached.write_text("damaged")
    with told("remove it and download it again"):
        _published("download", text)
    cached.unlink()
    assert _published("download", text) == [text.strip()]
    assert _published(str(tmp_path / "file.txt"), text) == [text.strip()]


def _no_network(*_: Any, **__: Any) -> None:
    raise OSError("no network")


def _published(data: str, text: str) -> list[str]:
    return _prompt_files.published_lines(
        "a", data, "https://example.org/file.txt", hashlib.sha256(text.encode()).hexdigest()
    )


def test_checkpoints_of_the_authors(tmp_path: Path) -> None:
    official = EDITION1.parent / "golden" / "sd_classifier.pth"
    small = Layout("sd", (MapLayer("a.attn2", 4, 0), MapLayer("b.attn2", 2, 1)))
    (tmp_path / "letter.pth").write_text("dear")
    with told("name a .pth file that the authors published"):
        import_official(tmp_path / "letter.pth", small, tmp_path / "out")
    large = Layout("sd", (MapLayer("a.attn2", 1000, 0), MapLayer("b.attn2", 1000, 1)))
    with told("but this model gives 2000; give the model that it was trained on with --model"):
        import_official(official, large, tmp_path / "out")
    with told("give the model that it was trained on with --model"):
        import_official(official, small, tmp_path / "out", steps=77)
    import_official(official, small, tmp_path / "out")
