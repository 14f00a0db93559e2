"""Workers: each shard once, a worker that dies, shards that fail, and what is said before anything starts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import ray_stand_in
import toy
from ray_stand_in import StandIn
from toy import OtherToy, Toy

from learn_to_steer import distributed
from learn_to_steer.distributed import check_options, open_workers
from learn_to_steer.errors import PromptError, UnsupportedError, WorkerError
from learn_to_steer.worker_options import WorkersConfig
from learn_to_steer.worker_process import Shard, shard_name

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray leaves sockets and files to the end of the process


def results(folder: Path, works: list[Any], workers: int = 2, build: type[Toy] = Toy, **more: Any) -> list[Any]:
    """What the shards returned, sorted."""
    done: list[tuple[str, Any]] = []
    shards = [Shard(shard_name(work), f"work {work}", work) for work in works]
    arguments = (folder, more.pop("refuses", ""), more.pop("kills", False))
    with open_workers(WorkersConfig(workers=workers, **more), build, *arguments, device="cpu", most=len(works)) as pool:
        pool.run(shards, folder, lambda shard, result: done.append((shard.about, result)), method="run")
        assert pool.ask("run", 9) == 81
    return sorted(done)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "workers.jsonl").read_text().splitlines()]


def check_each_shard_is_done_once(folder: Path, kills: bool) -> None:
    done = results(folder, [1, 2, "kill", 3, 4], kills=kills)
    assert done == [("work 1", 1), ("work 2", 4), ("work 3", 9), ("work 4", 16), ("work kill", "kill")]
    assert sorted(line["name"] for line in lines(folder)) == sorted(map(shard_name, [1, 2, "kill", 3, 4]))
    assert all(line.keys() == {"name", "worker", "pid", "seconds"} for line in lines(folder))


def check_failures_are_named(folder: Path, kills: bool) -> None:
    with pytest.raises(WorkerError) as told:
        results(folder, [1, "fail", 2, "always"], kills=kills)
    text = str(told.value)
    assert text.startswith("2 of 4 shards failed") and text.endswith("mend the cause and run the same command again")
    assert f"shard {shard_name('fail')} (work fail: ValueError: no such picture)" in text
    assert "work always: its worker died, 3 times" in text and "the others are done and kept" in text
    assert {line["name"] for line in lines(folder) if "error" not in line} == {shard_name(1), shard_name(2)}


def test_each_shard_is_done_once_though_a_worker_dies(tmp_path: Path, stand_in: StandIn) -> None:
    check_each_shard_is_done_once(tmp_path, kills=False)
    assert len(stand_in.actors) == 3 and not any(actor.is_alive for actor in stand_in.actors)
    assert not stand_in.is_initialized()


def test_shards_that_fail_are_named_and_the_rest_is_done(tmp_path: Path, stand_in: StandIn) -> None:
    check_failures_are_named(tmp_path, kills=False)


@pytest.mark.slow
def test_processes_that_are_killed(tmp_path: Path, real_ray: Any) -> None:
    for module in (ray_stand_in, toy):  # which workers cannot import
        real_ray.cloudpickle.register_pickle_by_value(module)
    for check, name in ((check_each_shard_is_done_once, "one"), (check_failures_are_named, "two")):
        (tmp_path / name).mkdir()
        check(tmp_path / name, kills=True)


def test_no_more_shards_are_begun_after_many_failures(tmp_path: Path, stand_in: StandIn) -> None:
    with pytest.raises(WorkerError, match=r"of 21 shards failed.*were not begun after that and kept"):
        results(tmp_path, [1, *["fail"] * 20])
    assert len(lines(tmp_path)) < 12


def test_an_error_of_the_first_start_is_the_users(tmp_path: Path, stand_in: StandIn) -> None:
    with pytest.raises(PromptError, match="no dog"):
        results(tmp_path, [1, 2], refuses="no dog")
    assert not stand_in.is_initialized()


def test_work_goes_on_without_a_worker_that_cannot_start(
    tmp_path: Path, stand_in: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(results(tmp_path, [1, 2, 3, 4], refuses="later no dog")) == 4
    assert {line["worker"] for line in lines(tmp_path)} == {"worker-0"}
    assert "going on without worker-1: later no dog" in caplog.text


def test_a_worker_with_other_weights_is_not_used(tmp_path: Path, stand_in: StandIn) -> None:
    assert len(results(tmp_path, [1, 2, 3, 4], build=OtherToy)) == 4
    assert {line["worker"] for line in lines(tmp_path)} == {"worker-0"}


def test_the_work_ends_if_no_worker_is_left(tmp_path: Path, stand_in: StandIn) -> None:
    with pytest.raises(
        WorkerError, match=r"no worker is left \(worker-0 has other weights.*run the same command again"
    ):
        results(tmp_path, ["kill", "kill", 1], workers=1, build=OtherToy)


def test_what_workers_log_is_told_once(tmp_path: Path, stand_in: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    results(tmp_path, [1, 2, 3])
    told = [record.filename for record in caplog.records if record.getMessage() == "opened"]
    assert sorted(told) == ["distributed.py", "toy.py", "toy.py"]  # each of the two in its process, and once here


def test_too_many_workers_for_the_memory(
    tmp_path: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("learn_to_steer.worker_process.current_memory", lambda: 6 << 30)
    monkeypatch.setattr(distributed, "free_memory", lambda: 15 << 30)
    told = r"a worker takes 6\.0 GiB of memory, and 15\.0 GiB are free: 4 workers do not fit; use --workers 3"
    with pytest.raises(UnsupportedError, match=told):
        results(tmp_path, [1, 2, 3, 4, 5], workers=4)
    assert len(results(tmp_path, [1, 2, 3, 4, 5], workers=3)) == 5
    # A cluster is filled as far as there is room.
    stand_in.begun, stand_in.resources = {}, {"CPU": 16.0}
    stand_in.machines = [{"Alive": True, "Resources": {"memory": 13.0 * 2**30}}] * 2
    config = WorkersConfig(ray="auto")
    with open_workers(config, Toy, tmp_path, device="cpu") as pool:
        assert len(pool) == 4


def test_too_little_gpu_memory_for_a_share(tmp_path: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.resources = {"CPU": 2.0, "GPU": 1.0}
    monkeypatch.setattr("learn_to_steer.worker_process._gpu_memory", lambda: (50 << 30, 80 << 30))
    told = r"a worker takes 50\.0 GiB of GPU memory, more than 0\.5 of the 80\.0 GiB.*--gpus-per-worker 0\.63"
    with (
        pytest.raises(UnsupportedError, match=told),
        open_workers(WorkersConfig(workers=2, gpus_per_worker=0.5), Toy, tmp_path, device="auto"),
    ):
        pytest.fail("it started")
    with pytest.raises(UnsupportedError, match="2 workers with 1 of a GPU each need 2 GPUs, but there are 0"):
        results(tmp_path, [1, 2], gpus_per_worker=1.0)


def test_options_that_make_no_sense(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    for config, told in (
        (WorkersConfig(workers=2, ray="head:6379"), "only one of them"),
        (WorkersConfig(gpus_per_worker=0.5), "needs workers"),
        (WorkersConfig(workers=1, gpus_per_worker=1.5), "no whole number"),
    ):
        with pytest.raises(UnsupportedError, match=told):
            check_options(config)
    with pytest.raises(UnsupportedError, match="--device cuda:1 cannot be"):
        check_options(WorkersConfig(workers=1), "cuda:1")
    assert not check_options(WorkersConfig()) and check_options(WorkersConfig(workers=1))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'learn-to-steer\[ray\]'"):
        check_options(WorkersConfig(workers=2))


def test_names_of_shards_follow_from_their_content() -> None:
    assert shard_name(0, [1, "a"]) == shard_name(0, [1, "a"]) != shard_name(0, [1, "b"])
