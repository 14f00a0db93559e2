"""Every verb on workers writes the same bytes as in one process, though a worker dies."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from ray_stand_in import Dies, StandIn

from learn_to_steer import registry
from learn_to_steer.cli import main
from learn_to_steer.errors import UnsupportedError
from learn_to_steer.evaluation import EvaluateConfig, evaluate
from learn_to_steer.evaluation.image_batches import EvaluationWorker
from learn_to_steer.sources import SourceRequest
from learn_to_steer.worker_process import WorkerProcess

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray leaves sockets and files to the end of the process
TIMES = ("seconds", "seconds_per_image")
DOG, CAT = "a dog to the left of a cat", "a cat above a pizza"
# By verb: its arguments; "MODEL" stands for a tiny model.
VERBS: dict[str, list[str]] = {
    "evaluate": [
        *("evaluate", "--model", "MODEL", "--classifier", "MODEL/classifier", "--prompts", "PROMPTS", "--steps", "2"),
        *("--detector", "emoji", "--images", "3", "--batch", "2", "--set", "passes=1", "--set", "threshold=1.1"),
    ],
    "generate": [
        *("generate", DOG, CAT, "--model", "MODEL", "--classifier", "MODEL/classifier", "--steps", "2"),
        *("--set", "passes=1", "--set", "threshold=1.1", "--images", "2"),
    ],
    "collect": [
        *("collect", "--model", "MODEL", "--source", "emoji", "--limit", "12", "--batch", "4", "--levels", "0.9,0.7"),
        *("--reduce", "layer-mean", "--quality", "100", "--side", "64"),
    ],
    "score": ["score", "IMAGES", "--detector", "emoji", "--prompts", "PROMPTS"],
}


@pytest.fixture
def command(saved_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, Path]]:
    """``command(verb, folder, *more)``: run a verb into a folder; its exit code and the folder."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in (DOG, CAT)))
    scenes = registry.load("sources", "emoji").images(SourceRequest(18, 0, 64))
    for number, scene in enumerate(scenes):  # images that are scored
        path = tmp_path / "images" / f"{number % 2:05d}" / "samples" / f"{number // 2:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (scene.pixels().clamp(0, 1) * 255).byte().permute(1, 2, 0)
        Image.fromarray(pixels.numpy()).save(path)
    words = {"MODEL": str(saved_sd), "PROMPTS": str(prompts), "IMAGES": str(tmp_path / "images")}

    def run(verb: str, folder: str, *more: str) -> tuple[int, Path]:
        arguments = VERBS[verb]
        for word, value in words.items():
            arguments = [argument.replace(word, value) for argument in arguments]
        out = tmp_path / folder
        return main([*arguments, *more, "--out", str(out)]), out

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("learn_to_steer.collection.collector.SHARD", 4)
    return run


def contents(out: Path) -> dict[str, Any]:
    """All files but the record of the workers, without times and the name of the folder."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        if path.is_dir() or path.name == "workers.jsonl":
            continue
        name = str(path.relative_to(out))
        found[name] = path.read_bytes() if path.name != "report.html" else b""  # has seconds in its text
        if path.suffix in (".json", ".jsonl"):
            text = path.read_text().replace(str(out), "OUT")
            rows = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else [json.loads(text)]
            found[name] = [without_times(row) for row in rows]
    return found


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(part) for key, part in value.items() if key not in TIMES}
    return [without_times(part) for part in value] if isinstance(value, list) else value


def without_seconds(text: str) -> str:
    return re.sub(r"\d+\.\d+ s\b", "", text)


def check_same(command: Callable[..., tuple[int, Path]], verb: str, capsys: Any) -> Path:
    """Run a verb with and without workers; the folder of the former."""
    assert command(verb, "one")[0] == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    code, out = command(verb, "two", "--workers", "2")
    told = capsys.readouterr()
    assert code == 0, told.err
    assert without_seconds(told.out).replace("/two", "/one") == without_seconds(printed)
    one, two = contents(out.with_name("one")), contents(out)
    assert list(two) == list(one) and [name for name in one if one[name] != two[name]] == []
    lines = [json.loads(line) for line in (out / "workers.jsonl").read_text().splitlines()]
    assert len({line["name"] for line in lines}) >= 2
    assert all(line.keys() - {"error"} == {"name", "worker", "pid", "seconds"} for line in lines)
    return out


@pytest.mark.parametrize("verb", ["score", "collect", pytest.param("generate", marks=pytest.mark.slow)])
def test_same_bytes(
    verb: str, command: Callable[..., tuple[int, Path]], stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    calls, call = [], WorkerProcess.call

    def dying(self: WorkerProcess, method: str, work: Any) -> Any:
        reply = call(self, method, work)
        calls.append(method)
        if calls.count(method) == 2:  # it dies when its work is done and before anybody knows
            raise Dies
        return reply

    monkeypatch.setattr(WorkerProcess, "call", dying)
    check_same(command, verb, capsys)
    assert len(stand_in.actors) == 3


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_same_bytes_though_a_process_is_killed(
    verb: str,
    command: Callable[..., tuple[int, Path]],
    real_ray: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    monkeypatch.setattr("learn_to_steer.collection.collector.SHARD", 32)  # as in the other processes
    record = tmp_path / "two" / "workers.jsonl"

    def kill() -> None:
        while not record.exists() or not record.read_text():
            time.sleep(0.02)
        os.kill(json.loads(record.read_text().splitlines()[0])["pid"], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    check_same(command, verb, capsys)
    killer.join()


def test_a_picture_that_fails_and_then_the_same_command_again(
    command: Callable[..., tuple[int, Path]], stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    run_batch = EvaluationWorker.run_batch

    def poisoned(self: EvaluationWorker, work: Any) -> Any:
        if (1, 1) in list(work.keys):
            raise ValueError("poison")
        return run_batch(self, work)

    with monkeypatch.context() as patch:
        patch.setattr(EvaluationWorker, "run_batch", poisoned)
        code, out = command("evaluate", "two", "--workers", "2")
        assert code == 2
    told = capsys.readouterr().err
    assert "1 of 3 shards failed" in told and "images 00001/0001 to 00001/0002: ValueError: poison" in told
    assert "kept: mend the cause and run the same command again" in told
    # An image that is gone is made again, too.
    (out / "images" / "00000" / "samples" / "0001.png").unlink()
    check_same(command, "evaluate", capsys)
    lines = [json.loads(line) for line in (out / "workers.jsonl").read_text().splitlines()]
    assert sorted(Counter(line["name"] for line in lines).values()) == [1, 2, 2]


def test_a_loaded_model_is_refused(stand_in: StandIn) -> None:
    with pytest.raises(UnsupportedError, match="by name"):
        evaluate(EvaluateConfig(benchmark="diagonals", workers=1), model=object())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "--benchmark", "diagonals", "--detector", "emoji"),
        ("generate", DOG),
        ("collect", "--out", "out"),
        ("score", "none", "--out", "out"),
        ("fit", "--out", "out"),
    ],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--workers", "0"], "--workers"),
        (["--workers", "-1"], "--workers"),
        (["--workers", "2", "--ray", "127.0.0.1:1"], "only one of them"),
        (["--gpus-per-worker", "0.5"], "needs workers"),
    ],
)
def test_options_are_checked_before_anything_is_loaded(
    words: tuple[str, ...], options: list[str], told: str, stand_in: StandIn, capsys: Any
) -> None:
    assert main([*words, *options]) == 2
    assert told in capsys.readouterr().err


def test_more_gpus_than_there_are(stand_in: StandIn, tmp_path: Path, capsys: Any) -> None:
    assert main(["generate", DOG, "--workers", "2", "--gpus-per-worker", "1", "--out", str(tmp_path)]) == 2
    assert "2 workers with 1 of a GPU each need 2 GPUs, but there are 0" in capsys.readouterr().err
