"""Every verb that writes a folder removes the temporary files of a killed run, and writes the same bytes again."""

from __future__ import annotations

import os

import pytest

DOG = "a dog to the left of a cat"
EXACT = (".png", ".safetensors", ".pt", ".txt", ".md")  # the others hold times, too


@pytest.fixture
def verbs(run, model, tmp_path):
    """The verbs in an order in which each finds its input; each with its arguments and its folder."""
    maps, classifier, images, scores, drawn = (tmp_path / name for name in ("maps", "trained", "run", "score", "drawn"))
    small = ["--limit", "6", "--side", "64", "--levels", "0.9", "--quality", "1e9"]
    return {
        "collect": (["--model", model[1], "--source", "emoji", *small, "--out", maps], maps),
        "train": (["--data", maps, "--epochs", "1", "--width", "4", "--out", classifier], classifier),
        "evaluate": (
            ["--benchmark", "unseen", "--limit", "1", "--images", "2", *model, "--detector", "emoji", "--out", images],
            images,
        ),
        "score": ([images, "--out", scores], scores),
        "generate": ([DOG, *model, "--out", drawn], drawn),
        "export-prompts": (["--benchmark", "unseen", "--out", tmp_path / "prompts"], tmp_path / "prompts"),
    }


def test_no_leftovers_and_the_permissions_of_the_umask(run, verbs):
    before = os.umask(0o022)
    try:
        for verb, (arguments, out) in verbs.items():
            first = run(verb, *arguments)
            assert first.code == 0, first.err
            folders = {path.parent for path in out.rglob("*") if path.is_file()}
            names = {path.relative_to(out) for path in out.rglob("*")}
            content = {path: path.read_bytes() for path in out.rglob("*") if path.suffix in EXACT}
            for folder in folders:
                for path in [*folder.iterdir()]:
                    if path.is_file():
                        (folder / f".{path.name}.0123456789ab.tmp").write_bytes(b"half")
            again = run(verb, *arguments)
            assert again.code == 0, again.err
            assert {path.relative_to(out) for path in out.rglob("*")} == names, verb
            assert {path: path.read_bytes() for path in content} == content, verb
            assert {path.stat().st_mode & 0o777 for path in out.rglob("*") if path.is_file()} == {0o644}, verb
            assert run("verify", out).code == 0, verb
    finally:
        os.umask(before)
