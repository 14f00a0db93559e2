"""What bounds the server, without a model: hosts, the folder of pictures, the queue, time limits and lost clients."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvicorn

from learn_to_steer.cli import main, serving
from learn_to_steer.errors import UnsupportedError
from learn_to_steer.serve import app
from learn_to_steer.serve.config import ServeConfig
from learn_to_steer.serve.dispatcher import Dispatcher
from learn_to_steer.serve.jobs import Failed, Job, Picture
from learn_to_steer.serve.pictures import PictureFolder

PATH = "/v1/images/generations"


class SlowWorker:
    """A worker that draws nothing until it is told to."""

    facts = SimpleNamespace(resolution=64, grid=16, steered=True, batch_invariant=True)
    starts = 1

    def __init__(self) -> None:
        self.released, self.cancelled, self.drawn = threading.Event(), [], []

    def is_alive(self) -> bool:
        return True

    def draw(self, number: int, jobs: list[Job], tell: Any) -> list[Picture | Failed]:
        self.drawn.append([job.seed for job in jobs])
        self.released.wait(10)
        return [Picture(b"png", {}) for _ in jobs]

    def cancel(self, number: int) -> None:
        self.cancelled.append(number)
        self.released.set()

    def stop(self) -> None:
        self.released.set()


class Slow:
    """A server with a slow worker, at ``url``."""

    def __init__(self, **settings: Any) -> None:
        self.worker: Any = SlowWorker()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        made = app.make_app(ServeConfig(queue=8, page=False, **settings), self.worker)
        self.server = uvicorn.Server(uvicorn.Config(made, log_level="critical"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})
        self.thread.start()

    def ask(self, **fields: Any) -> httpx.Response:
        return httpx.post(self.url + PATH, json={"prompt": "a dog"} | fields, timeout=20)

    def close(self) -> None:
        self.worker.stop()
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()


@pytest.fixture
def slow() -> Iterator[Callable[..., Slow]]:
    made: list[Slow] = []

    def make(**settings: Any) -> Slow:
        made.append(Slow(**settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_host_that_others_reach_needs_a_token(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.delenv("LEARN_TO_STEER_TOKEN", raising=False)
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.com"):
        with pytest.raises(UnsupportedError, match="--token"):
            ServeConfig(host=host).access_token()
    assert ServeConfig(host="::1").access_token() is None
    assert main(["serve", "--host", "0.0.0.0"]) == 2
    assert "LEARN_TO_STEER_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("LEARN_TO_STEER_TOKEN", " ")
    with pytest.raises(UnsupportedError, match="--token"):
        ServeConfig(host="0.0.0.0").access_token()
    monkeypatch.setenv("LEARN_TO_STEER_TOKEN", "secret")
    assert ServeConfig(host="0.0.0.0").access_token() == "secret"
    assert "hidden" not in repr(ServeConfig(token="hidden"))


def test_without_the_extra_its_name_is_said(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(serving, "find_spec", lambda name: None)
    assert main(["serve"]) == 2
    assert "pip install 'learn-to-steer[serve]'" in capsys.readouterr().err


def test_a_port_that_is_taken_is_told_before_the_model_is_loaded(capsys: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 2
    assert "choose another --host or --port" in capsys.readouterr().err


def test_pictures_leave_after_their_time_and_when_there_are_too_many() -> None:
    now = [0.0]
    folder = PictureFolder(lifetime=10, capacity=2, most_bytes=5, clock=lambda: now[0])
    first, second, third = (folder.add(bytes([i])) for i in range(3))
    assert [folder.read(name) for name in (first, second, third)] == [None, b"\1", b"\2"]
    assert folder.read(f"../{second}") is None
    large = folder.add(b"large")
    assert [folder.read(name) for name in (second, third, large)] == [None, None, b"large"]
    now[0] = 11
    assert folder.read(large) is None
    folder.close()


def test_servers_that_share_a_folder_serve_each_others_pictures(tmp_path: Path) -> None:
    now = [time.time()]
    first, second = (PictureFolder(lifetime=10, clock=lambda: now[0], folder=tmp_path) for _ in range(2))
    name = first.add(b"png")
    assert second.read(name) == b"png"
    now[0] += 60
    assert second.read(name) is None and first.read(name) is None
    kept = second.add(b"png")
    first.close()
    assert second.read(kept) == b"png"
    second.close()
    assert list(tmp_path.iterdir()) == []


def test_what_nobody_waits_for_is_not_drawn_and_alike_jobs_are_drawn_together() -> None:
    async def run() -> None:
        worker: Any = SlowWorker()
        dispatcher = Dispatcher(worker, rows=2, limit=8)
        task = asyncio.create_task(dispatcher.run())
        sizes = [64, 64, 64, 128, 64, 64]
        answers = dispatcher.submit([Job("a dog", seed, side, 64) for seed, side in enumerate(sizes)])
        while not worker.drawn:
            await asyncio.sleep(0.01)
        dispatcher.cancel([answers[0]])
        assert worker.cancelled == []  # somebody waits for the other picture of the batch
        dispatcher.cancel([answers[1], answers[4]])
        await asyncio.gather(*answers[2:4], answers[5])
        assert worker.cancelled == [1] and worker.drawn == [[0, 1], [2, 5], [3]]
        task.cancel()

    asyncio.run(run())


def test_a_request_that_takes_too_long_is_504_and_cancelled(slow: Any) -> None:
    served = slow(timeout=0.1)
    answer = served.ask()
    assert answer.status_code == 504 and answer.json()["error"]["type"] == "server_error"
    assert served.worker.cancelled == [1]


def test_a_full_queue_is_429_and_says_when_to_come_back(slow: Any, until: Any) -> None:
    served = slow()
    first = threading.Thread(target=served.ask, kwargs={"n": 8})
    first.start()
    until(lambda: served.worker.drawn)
    answer = served.ask()
    assert answer.status_code == 429 and answer.json()["error"]["type"] == "rate_limit_error"
    assert int(answer.headers["retry-after"]) >= 1
    served.worker.released.set()
    first.join()
    assert served.ask().status_code == 200


def test_a_client_that_hangs_up_is_forgotten(slow: Any, until: Any) -> None:
    served = slow()
    with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as client:
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: 18\r\n\r\n".encode() + b'{"prompt":"a dog"}')
        until(lambda: served.worker.drawn)
    until(lambda: served.worker.cancelled)
    assert "lts_pictures_waiting 0.0" in httpx.get(f"{served.url}/metrics").text


def test_a_body_that_does_not_come_and_a_server_that_fails_are_answered(slow: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(app, "BODY_TIMEOUT", 0.1)
    served = slow()
    with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as client:
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: 18\r\n\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 408 ")
    monkeypatch.setattr(served.worker, "facts", None)
    failed = served.ask()
    assert failed.status_code == 500 and failed.json()["error"]["message"] == "the server failed; its log says why"


def test_a_server_without_a_token_answers_to_no_other_name(slow: Any) -> None:
    served = slow()
    for host, status in (("evil.example", 403), ("localhost", 200), ("[::1]:80", 200), ("[::1", 200), ("", 403)):
        assert httpx.get(f"{served.url}/v1/models", headers={"Host": host}).status_code == status
