"""What messages about workers tell to do, tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray_stand_in import Dies, StandIn
from told import told
from toy import Toy

from learn_to_steer import distributed
from learn_to_steer.distributed import check_options, open_workers
from learn_to_steer.errors import DataError, UnsupportedError
from learn_to_steer.evaluation import EvaluateConfig, ScoreConfig, evaluate, score
from learn_to_steer.ray_address import require_answer
from learn_to_steer.worker_options import WorkersConfig
from learn_to_steer.worker_process import Shard


def opened(
    folder: Path, build: type[Toy] = Toy, refuses: str = "", works: tuple[Any, ...] = (1, 2), **more: Any
) -> int:
    """Open workers and run shards; their number."""
    done: list[int] = []
    shards = [Shard(str(number), str(number), work) for number, work in enumerate(works)]
    config = WorkersConfig(**{"workers": 2} | more)
    with open_workers(config, build, folder, refuses, device="auto", most=len(shards)) as pool:
        pool.run(shards, folder, lambda shard, result: done.append(result), method="run")
    return len(done)


def test_options(stand_in: StandIn) -> None:
    with told("; give only one of them"):
        check_options(WorkersConfig(workers=2, ray="head:6379"))
    assert check_options(WorkersConfig(ray="auto"))
    with told("; give 1, 2, ... or a share"):
        check_options(WorkersConfig(workers=2, gpus_per_worker=1.5))
    assert all(check_options(WorkersConfig(workers=2, gpus_per_worker=share)) for share in (0.5, 1, 2))
    with told("; add --workers N or --ray ADDRESS, or leave it out"):
        check_options(WorkersConfig(gpus_per_worker=1))
    assert check_options(WorkersConfig(workers=1, gpus_per_worker=1)) and not check_options(WorkersConfig())
    with told("cannot be; use cuda or cpu"):
        check_options(WorkersConfig(workers=1), "cuda:1")
    assert check_options(WorkersConfig(workers=1), "cuda") and check_options(WorkersConfig(workers=1), "cpu")


def test_addresses(stand_in: StandIn, tmp_path: Path) -> None:
    with told("; give HOST:PORT, as 'ray start' prints it on the first machine, or auto on a machine of the cluster"):
        opened(tmp_path, workers=None, ray="head")
    with pytest.raises(UnsupportedError, match="refused"):  # nobody is there, but it is an address
        require_answer("127.0.0.1:1")
    assert opened(tmp_path, workers=None, ray="auto") == 2


def test_gpus(stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.resources = {"CPU": 4.0, "GPU": 1.0}
    with told("; use fewer workers, or a smaller --gpus-per-worker, such as 0.5 for two workers on a GPU"):
        opened(tmp_path)
    assert opened(tmp_path, workers=1) == opened(tmp_path, gpus_per_worker=0.5) == 2
    stand_in.resources = {"CPU": 4.0, "GPU": 2.0}
    monkeypatch.setattr("learn_to_steer.worker_process._gpu_memory", lambda: (50 << 30, 80 << 30))
    with told("; use --gpus-per-worker "):
        opened(tmp_path, gpus_per_worker=0.5)
    assert opened(tmp_path, gpus_per_worker=0.63) == 2


def test_memory(stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learn_to_steer.worker_process.current_memory", lambda: 6 << 30)
    monkeypatch.setattr(distributed, "free_memory", lambda: 5 << 30)
    with told("; use --workers "):
        opened(tmp_path)
    assert opened(tmp_path, workers=1) == 2


class DiesAtStart(Toy):
    """A worker that has no room."""

    def describe(self) -> str:
        raise Dies


def test_workers_that_die(stand_in: StandIn, tmp_path: Path) -> None:
    with told("while it started; use fewer workers if memory is short"):
        opened(tmp_path, DiesAtStart)
    assert opened(tmp_path, workers=1) == 2
    for file in tmp_path.iterdir():
        file.unlink()
    with told("; mend the cause and run the same command again"):
        opened(tmp_path, refuses="later", works=("kill", 1), workers=1)
    assert opened(tmp_path, works=("kill", 1), workers=1) == 2


def test_room(stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "ROOM", 0.0)
    stand_in.has_room = False
    with told("or use a smaller --gpus-per-worker, and run the same command again"):
        opened(tmp_path)
    stand_in.has_room = True
    assert opened(tmp_path) == 2


class ModelIsUsedError(Exception):
    """The loaded model was accepted."""


class Loaded:
    """A loaded model."""

    def __getattr__(self, name: str) -> Any:
        raise ModelIsUsedError


def test_loaded_models(stand_in: StandIn, tmp_path: Path) -> None:
    def run(**more: Any) -> None:
        config = EvaluateConfig(benchmark="diagonals", detector="emoji", out=str(tmp_path), limit=1, **more)
        evaluate(config, model=Loaded())  # type: ignore[arg-type]

    with told("; leave --workers and --ray out"):
        run(workers=2)
    with pytest.raises(ModelIsUsedError):
        run()
    loaded: Any = Loaded()
    with told("; leave --workers and --ray out"):
        score(ScoreConfig(pictures="none", workers=2), scorer=loaded)
    with pytest.raises(DataError, match="none does not exist"):
        score(ScoreConfig(pictures="none", detector="emoji"), scorer=loaded)
