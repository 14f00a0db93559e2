"""The server as a Ray Serve deployment of two replicas."""

from __future__ import annotations

import shutil
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from learn_to_steer.errors import UnsupportedError
from learn_to_steer.serve import ray_deployment

MODEL, TOKEN = "flux:emoji-schnell", "a-token"


def test_without_ray_its_extra_is_named_and_there_must_be_a_token(monkeypatch: Any) -> None:
    monkeypatch.delenv("LEARN_TO_STEER_TOKEN", raising=False)
    monkeypatch.setattr(ray_deployment, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match=r"pip install 'learn-to-steer\[ray,serve\]'"):
        ray_deployment.build({})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_replicas_draw_the_same(monkeypatch: Any, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    from ray import serve

    monkeypatch.delenv("LEARN_TO_STEER_TOKEN", raising=False)
    with pytest.raises(UnsupportedError, match="--token"):
        ray_deployment.build({"model": MODEL})
    with pytest.raises(UnsupportedError, match="replicas"):
        ray_deployment.build({"replicas": "none", "token": TOKEN})
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    short = tempfile.mkdtemp(prefix="ray-")  # paths of sockets must be short
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, _temp_dir=short)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        arguments = {"model": MODEL, "device": "cpu", "replicas": "2", "token": TOKEN, "folder": str(tmp_path)}
        serve.run(ray_deployment.build(arguments), name=ray_deployment.NAME)
        url = f"http://127.0.0.1:{port}"
        headers = {"Authorization": f"Bearer {TOKEN}"}

        def ask(_: int) -> Any:
            fields = {"prompt": "a dog to the left of a cat", "seed": 3, "threshold": 0.7}
            answer = httpx.post(f"{url}/v1/images/generations", json=fields, headers=headers, timeout=300)
            assert answer.status_code == 200, answer.text
            return answer.json()["data"][0]

        with ThreadPoolExecutor(8) as pool:
            entries = list(pool.map(ask, range(8)))
        # Each file can be had from every replica.
        files = {httpx.get(entry["url"]).content for entry in entries for _ in range(4)}
        assert len(files) == 1 and next(iter(files)).startswith(b"\x89PNG")
        assert len({str(entry["steering"]) for entry in entries}) == 1
        # Both have drawn.
        pages = [httpx.get(f"{url}/metrics", headers=headers).text for _ in range(40)]
        drawn = {line for page in pages for line in page.splitlines() if line.startswith("lts_pictures_total")}
        assert drawn and not drawn & {"lts_pictures_total 0.0", "lts_pictures_total 8.0"}
        assert httpx.get(f"{url}/v1/models").status_code == 401
    finally:
        serve.shutdown()
        ray.shutdown()
        shutil.rmtree(short, ignore_errors=True)
