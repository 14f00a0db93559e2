"""The server as its clients see it: OpenAI's own client, curl and httpx."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from PIL import Image

DOCS = Path(__file__).resolve().parents[2] / "docs" / "serve.md"
PROMPT = "a dog to the left of a cat"
# Relations that are there, behind all that the model reads.
LONG = f"a picture of {'very ' * 60}big things, and a pizza above a robot"
pytestmark = pytest.mark.xdist_group("server")


def test_openais_client_draws_and_the_picture_holds_its_settings(served: Any) -> None:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.token, max_retries=0) as client:
        assert [one.id for one in client.models.list()] == [served.model]
        assert client.models.retrieve(served.model).id == served.model
        answer = client.images.generate(
            model=served.model, prompt=PROMPT, size="128x128", extra_body={"seed": 3, "threshold": 0.6}
        )
        with pytest.raises(openai.NotFoundError) as unknown:
            client.images.generate(model="dall-e-3", prompt=PROMPT)
        with pytest.raises(openai.BadRequestError) as too_many:
            client.images.generate(prompt=PROMPT, n=9)
    assert unknown.value.code == "model_not_found" and too_many.value.param == "n"
    steering = answer.data[0].steering
    assert set(steering) == {"relations", "passes", "probability", "satisfied", "seed"}
    assert steering["relations"] == [["dog", "left of", "cat"]] and steering["seed"] == 3
    assert len(steering["probability"]) == 1 and steering["satisfied"] == (steering["probability"][0] >= 0.6)
    page = httpx.get(answer.data[0].url)
    assert page.headers["content-type"] == "image/png"
    settings = json.loads(Image.open(io.BytesIO(page.content)).text["learn-to-steer"])
    assert settings["prompt"] == PROMPT and settings["seed"] == 3 and settings["steering"] == steering


def test_the_docs_example_runs(served: Any, capsys: Any) -> None:
    example = re.search(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert example
    text = example[1].replace("http://127.0.0.1:8000", served.url).replace('"none"', repr(served.token))
    namespace: dict[str, Any] = {}
    exec(text, namespace)
    namespace["client"].close()
    assert "'relations': [['dog', 'left of', 'cat']]" in capsys.readouterr().out


def test_curl_draws_with_the_command_of_the_docs(served: Any) -> None:
    if shutil.which("curl") is None:
        pytest.skip("this machine has no program curl")
    command = re.search(r"^curl .*?(?<!\\)\n", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    assert command
    words = shlex.split(command[0].replace("\\\n", " ").replace("http://127.0.0.1:8000", served.url))
    done = subprocess.run(
        [*words, "--silent", "--header", f"Authorization: Bearer {served.token}"], capture_output=True, check=True
    )
    assert json.loads(done.stdout)["data"][0]["b64_json"]


def test_a_picture_does_not_depend_on_what_is_drawn_beside_it(served: Any) -> None:
    asked = {"prompt": "a turtle to the right of a bird", "steer": True, "threshold": 0.7}
    both = served.ask(n=2, seed=11, **asked).json()["data"]
    assert [one["steering"]["seed"] for one in both] == [11, 12]
    assert both[0]["steering"]["passes"] == 0 < both[1]["steering"]["passes"]  # one rests while the other is moved
    assert served.ask(seed=12, **asked).json()["data"] == both[1:]
    assert served.http.get("/healthz").json() == {"status": "ok", "batch_invariant": True}


def test_tries_are_counted_and_the_relations_that_are_sent_are_used(served: Any) -> None:
    fields = {"steer": True, "tries": 2, "threshold": 0.05, "steps": 2, "prompt": "a dog and a cat"}
    steering = served.ask(relations=[["cat", "to the right of", "dog"]], **fields).json()["data"][0]["steering"]
    assert steering["relations"] == [["cat", "right of", "dog"]] and steering["satisfied"] in (True, False)
    assert served.ask(relations=[], **fields).json()["data"][0]["steering"]["satisfied"] is None


@pytest.mark.parametrize(
    ("status", "param", "fields"),
    [
        (400, "prompt", {"prompt": ""}),
        (400, "prompt", {"prompt": "x" * 4001}),
        (400, "n", {"n": 9}),
        (400, "n", {"n": True}),
        (400, "size", {"size": "17x64"}),
        (400, "size", {"size": "99999x99999"}),
        (400, "tries", {"tries": 0}),
        (400, "steps", {"steps": 101}),
        (400, "seed", {"seed": -1}),
        (400, "treshold", {"treshold": 0.9}),
        (400, "stream", {"stream": True}),
        (400, "relations", {"relations": ["dog | inside | cat"]}),
        (400, "relations", {"relations": ["horse | left of | cat"]}),
        (400, None, {"prompt": LONG, "relations": ["pizza | above | robot"], "steer": True}),
        (404, "model", {"model": "../../etc/passwd"}),
        (413, None, {"prompt": "x" * 100_000}),
    ],
)
def test_bad_requests_are_answered_in_openais_form(
    served: Any, status: int, param: str | None, fields: dict[str, Any]
) -> None:
    answer = served.ask(**fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param)
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"


def test_a_bad_request_does_not_harm_the_others(served: Any) -> None:
    good = {"steer": True, "threshold": 0.05, "steps": 2, "seed": 4}
    bad = good | {"prompt": LONG, "relations": ["pizza | above | robot"]}
    alone = served.draw(**good)
    with ThreadPoolExecutor() as pool:
        pool.submit(served.draw)  # the others wait meanwhile, and are drawn together
        answers = [pool.submit(served.draw, **good), pool.submit(served.ask, **bad), pool.submit(served.draw, **good)]
    assert answers[1].result().status_code == 400
    assert answers[0].result() == answers[2].result() == alone


def test_a_request_without_the_token_or_from_a_form_is_refused(served: Any) -> None:
    asked = {"prompt": PROMPT}
    for path in ("/v1/models", "/metrics"):
        assert httpx.get(served.url + path).status_code == 401
        assert httpx.get(served.url + path, headers={"Authorization": "Bearer other"}).status_code == 401
    assert httpx.post(f"{served.url}/v1/images/generations", json=asked).json()["error"]["code"] == "invalid_api_key"
    form = served.http.post("/v1/images/generations", content=b"{}", headers={"Content-Type": "text/plain"})
    assert form.status_code == 400
    origin = {"Origin": "https://example.com", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in served.http.options("/v1/images/generations", headers=origin).headers
    assert "access-control-allow-origin" not in served.http.get("/v1/models", headers=origin).headers
    for path in ("/files/..%2f..%2fetc%2fpasswd.png", f"/files/{'0' * 32}.png", "/nothing"):
        assert served.http.get(path).status_code == 404


@pytest.mark.slow
def test_a_worker_that_dies_is_started_again_within_30_seconds(served: Any, until: Callable[..., None]) -> None:
    before, first = served.draw(), served.worker()
    with ThreadPoolExecutor() as pool:
        lost = pool.submit(served.ask, n=8, steer=True)
        until(lambda: served.metric("lts_pictures_waiting") > 0)
        first.kill()
        died = time.monotonic()
        assert lost.result().status_code == 503 and lost.result().json()["error"]["type"] == "server_error"
    assert served.draw() == before and time.monotonic() - died < 30
    assert served.metric("lts_worker_starts") == 2
    served.worker().kill()  # while nothing is drawn: no request is lost
    until(lambda: served.http.get("/healthz").status_code == 503)
    assert served.draw() == before
    assert not psutil.pid_exists(first.pid)
