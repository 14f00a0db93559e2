"""One server for all tests, started by its verb. Tests that use it are in one group, and so in one process."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image

TOKEN = "a-token"
MODEL = "flux:emoji-schnell"
COMMAND = [
    *(sys.executable, "-c", "import sys; from learn_to_steer.cli import main; sys.exit(main())", "serve"),
    *("--model", MODEL, "--device", "cpu", "--port", "0", "--batch", "2", "--token", TOKEN, "--no-page"),
]


class Served:
    """A server that runs, with two pictures a batch.

    Attributes:
        url: Where it listens.
        http: A client that sends its token.
        token: The token.
        model: The model.
    """

    token, model = TOKEN, MODEL

    def __init__(self, log: Path) -> None:
        with log.open("w") as errors:
            self.process = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "listening on" in line, log.read_text()
        self.url = line.split()[-1]
        self.http = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=120)

    def ask(self, **fields: Any) -> httpx.Response:
        """Ask for pictures; without further fields, for one that is not steered."""
        fields = {"prompt": "a dog to the left of a cat", "seed": 1, "response_format": "b64_json"} | fields
        return self.http.post("/v1/images/generations", json={"steer": False} | fields)

    def draw(self, **fields: Any) -> list[bytes]:
        """The pixels of the pictures."""
        answer = self.ask(**fields)
        assert answer.status_code == 200, answer.text
        files = [io.BytesIO(base64.b64decode(entry["b64_json"])) for entry in answer.json()["data"]]
        return [Image.open(one).tobytes() for one in files]

    def metric(self, name: str) -> float:
        """The value of a metric."""
        lines = self.http.get("/metrics").text.splitlines()
        return float(next(line.split()[-1] for line in lines if line.split()[0] == name))

    def worker(self) -> psutil.Process:
        """The process that holds the model, the largest of the server's."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return max(children, key=lambda child: child.memory_info().rss)

    def close(self) -> None:
        """Stop it, as a user would, and see that nothing of it is left."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.http.close()
        self.process.terminate()
        self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        left = psutil.wait_procs(children, 30)[1]
        assert [child for child in left if child.status() != psutil.STATUS_ZOMBIE] == []


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    one = Served(tmp_path_factory.mktemp("server") / "log.txt")
    yield one
    one.close()


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """``until(holds)`` waits until something holds."""

    def wait(holds: Callable[[], bool]) -> None:
        for _ in range(1500):
            if holds():
                return
            time.sleep(0.02)
        raise AssertionError("it did not come to pass")

    return wait
