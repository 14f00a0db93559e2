"""What messages of the server's verb tell to do lets it serve."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from told import tells

from learn_to_steer.cli import main
from learn_to_steer.serve.worker import Worker


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    """``served(*options)``: whether the verb comes to serve; no model is loaded."""
    reached = []
    monkeypatch.delenv("LEARN_TO_STEER_TOKEN", raising=False)
    monkeypatch.setattr(Worker, "start", lambda self: None)
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: reached.append(sockets))

    def run(*options: str) -> bool:
        reached.clear()
        assert main(["serve", "--no-page", "--port", "0", *options]) == (0 if reached else 2)
        return bool(reached)

    return run


def test_served_to_others_with_a_token(served: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert not served("--host", "0.0.0.0")
    remedy = "can be reached from other machines; give --token or set LEARN_TO_STEER_TOKEN, or use --host 127.0.0.1"
    assert tells(capsys.readouterr().err, remedy)
    assert served("--host", "0.0.0.0", "--token", "secret")
    assert served("--host", "127.0.0.1")
    monkeypatch.setenv("LEARN_TO_STEER_TOKEN", "secret")
    assert served("--host", "0.0.0.0")


def test_served_on_another_port(served: Any, capsys: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert not served("--port", str(taken.getsockname()[1]))
    assert tells(capsys.readouterr().err, "; choose another --host or --port")
    assert served("--port", "0")
    assert not served("--host", "no-such-host.invalid", "--token", "secret")
    assert served("--host", "127.0.0.1")
