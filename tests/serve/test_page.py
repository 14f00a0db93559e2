"""The web page: what it understands, what it shows, and what it answers over HTTP."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from learn_to_steer.errors import DataError, PromptError
from learn_to_steer.image_files import png_bytes
from learn_to_steer.prompts import parse
from learn_to_steer.serve.config import ServeConfig
from learn_to_steer.serve.jobs import PNG_KEY, Failed, Job, Picture, StepSeen
from learn_to_steer.serve.page_drawing import KEPT_STEPS, Sheet
from learn_to_steer.serve.page_settings import (
    Editor,
    check_settings,
    compose_prompt,
    contradiction,
    follow_prompt,
    read_picture,
)

PROMPT = "a dog to the left of a cat"
FACTS = SimpleNamespace(resolution=64, grid=16, steered=True, steps=2, threshold=0.95, objects=("dog", "cat"))


class PaintBox:
    """A worker without a model: pictures of one colour, in two steps."""

    facts, starts = FACTS, 1

    def __init__(self, wait: bool = False) -> None:
        self.drawn: list[Job] = []
        self.cancelled = threading.Event()
        self.wait = wait

    def is_alive(self) -> bool:
        return True

    def draw(self, number: int, jobs: list[Job], tell: Any) -> list[Picture | Failed]:
        answers: list[Picture | Failed] = []
        for job in jobs:
            self.drawn.append(job)
            for step in range(2):
                tell(StepSeen(0, step, 2, b"a picture", {"dog": b"a map"}))
            if self.wait:
                self.cancelled.wait(10)
            color = (job.seed, 100 if job.steer else 200, 0)
            file = png_bytes(Image.new("RGB", (64, 64), color), {PNG_KEY: json.dumps({"model": "m", **job.settings()})})
            steering = {"passes": 3, "probability": [0.9], "satisfied": True, "seed": job.seed}
            details = {"seconds": 1, "curve": [[0, [0.2], 2], [1, [0.9], 1]], "threshold": 0.95, "reason": ""}
            more = {"tries": 1, "kept_try": 0, "note": "<b>", "verified_by": "classifier"}
            answers.append(Picture(file, steering, details | more))
        return answers

    def cancel(self, number: int) -> None:
        self.cancelled.set()

    def stop(self) -> None:
        self.cancelled.set()


def test_relations_follow_the_prompt_until_they_are_edited() -> None:
    editor, remark = follow_prompt(PROMPT, Editor())
    assert editor.rows == [("dog", "left of", "cat")] and editor.nouns == ["dog", "cat"] and remark == ""
    edited = Editor(rows=[("dog", "above", "cat")], nouns=editor.nouns, edited=True)
    assert follow_prompt("a big dog and a cat", edited)[0].rows == edited.rows
    assert follow_prompt("a pizza above a clock", edited)[0].rows == [("pizza", "above", "clock")]
    assert follow_prompt("a dog and a cat", Editor()) == (Editor(nouns=["dog", "cat"]), "")
    assert "over" in follow_prompt("light over the sea", Editor())[1]


def test_relations_that_contradict_each_other_are_found() -> None:
    rows = [("a", "left of", "b"), ("b", "above left of", "c"), ("c", "left of", "a")]
    assert "from left to right" in contradiction(rows)
    assert contradiction(rows[:2]) == ""
    assert "itself" in contradiction([("a", "above", "a")])


def test_several_relations_become_a_prompt_in_which_they_are_found() -> None:
    rows = [("owl", "left of", "cat"), ("bird", "above right of", "cat"), ("", "above", "cat")]
    prompt = compose_prompt(rows)
    assert prompt == "an owl to the left of a cat, and a bird above and to the right of the cat"
    assert follow_prompt(prompt, Editor())[0].rows == rows[:2]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": " "}, "Write a prompt"),
        ({"seed": None}, "seed"),
        ({"pairs": 5}, "pairs"),
        ({"relations": ["horse | above | cat"]}, "horse"),
    ],
)
def test_settings_out_of_range_are_refused(fields: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"prompt": PROMPT, "relations": ["dog | above | cat"], "seed": 1}
    with pytest.raises(PromptError, match=words):
        check_settings(**{**given, **fields})
    jobs = check_settings(**given).jobs(64, steered=True)
    assert [(job.steer, job.watched) for job in jobs] == [(False, True), (True, True)]
    assert len(check_settings(**{**given, "relations": []}).jobs(64, steered=True)) == 1


def test_settings_are_read_from_pictures_that_have_them(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8))
    settings = Job(PROMPT, 3, 64, 64, parse(PROMPT), tries=2, strength=0.5, watched=True).settings()
    assert "watched" not in settings
    for text in (None, "[]", '{"prompt": 1}', json.dumps({**settings, "seed": -1})):
        (tmp_path / "a.png").write_bytes(png_bytes(image, {PNG_KEY: text} if text else None))
        with pytest.raises(DataError, match="settings"):
            read_picture(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(png_bytes(image, {PNG_KEY: json.dumps({"model": "m", **settings})}))
    read = read_picture(tmp_path / "a.png")
    assert read["seed"] == 3 and read["tries"] == 2 and read["strength"] == 0.5 and read["model"] == "m"


def test_a_sheet_keeps_few_steps_of_its_last_try() -> None:
    sheet = Sheet(Job(PROMPT, 0, 64, 64))
    for attempt in (0, 1):
        for step in range(30):
            sheet.add(StepSeen(attempt, step, 30, None, {"dog": b""}))
    kept = [step.step for step in sheet.shown_steps()]
    assert len(sheet.steps) == 30 and len(kept) == KEPT_STEPS and kept[0] == 0 and kept[-1] == 29


def test_the_page_is_served_with_its_headers_and_to_no_other_host() -> None:
    async def run(client: Any, worker: Any) -> None:
        answer = await client.get("/")
        assert answer.status_code == 200 and "Learn-to-Steer" in answer.text
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert (await client.get("/", headers={"Host": "evil.example"})).status_code == 403
        assert (await client.get("/v1/models")).status_code == 200

    _with_page(ServeConfig(), PaintBox(), run)


def test_a_token_is_asked_for() -> None:
    async def run(client: Any, worker: Any) -> None:
        assert (await client.get("/config")).status_code == 401
        for password, status in (("wrong", 400), ("secret", 200)):
            answer = await client.post("/login", data={"username": "any", "password": password})
            assert answer.status_code == status
        assert (await client.get("/config")).status_code == 200

    _with_page(ServeConfig(host="0.0.0.0", token="secret"), PaintBox(), run)


def test_a_space_serves_the_page_alone_under_every_name() -> None:
    async def run(client: Any, worker: Any) -> None:
        assert (await client.get("/", headers={"Host": "who.hf.space"})).status_code == 200
        assert (await client.get("/v1/models")).status_code == 404
        page = await _events(client, prompt=PROMPT, relations=[], seed=7)
        name = page[-1]["output"]["data"][0].split('src="', 1)[1].split('"', 1)[0]
        assert (await client.get(f"/{name}")).headers["content-type"] == "image/png"
        assert "nothing was steered" in page[-1]["output"]["data"][1]

    _with_page(ServeConfig(), PaintBox(), run, app="make_page_app")


def test_a_pair_is_drawn_and_shown_step_by_step() -> None:
    async def run(client: Any, worker: Any) -> None:
        page = await _events(client, prompt=PROMPT + " <i>", relations=[["dog", "left of", "cat"]], seed=7)
        first, last = page[0]["output"]["data"], page[-1]["output"]["data"]
        assert "<progress" in json.dumps(first)
        shown = last[0]
        assert "<i>" not in shown and "&lt;b&gt;" in shown
        assert shown.count('class="lts-sheet') == 2 and "3 passes" in shown and "<polyline" in shown
        name = shown.split('src="files/', 1)[1].split('"', 1)[0]
        file = await client.get(f"/files/{name}")
        assert Image.open(io.BytesIO(file.content)).getpixel((0, 0)) == (7, 200, 0)
        assert [job.steer for job in worker.drawn] == [False, True]
        page = await _events(client, prompt="", relations=[], seed=7)
        assert "Write a prompt first" in page[-1]["output"]["data"][0] and len(worker.drawn) == 2

    _with_page(ServeConfig(), PaintBox(), run)


def _with_page(config: ServeConfig, worker: Any, run: Any, app: str = "make_app") -> None:
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("gradio")
    from learn_to_steer.serve.app import make_app
    from learn_to_steer.serve.page import make_page_app

    async def main() -> None:  # Gradio wants an event loop when the page is made
        made = make_app(config, worker) if app == "make_app" else make_page_app(config, worker)
        transport = httpx.ASGITransport(made)
        async with (
            made.router.lifespan_context(made),
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=30) as client,
        ):
            await run(client, worker)

    asyncio.run(main())


async def _events(client: Any, prompt: str, relations: list[list[str]], seed: int) -> list[dict[str, Any]]:
    """Press Draw, as Gradio's own client in the browser does, and return what the page is told."""
    config = (await client.get("/config")).json()
    ids = {
        one["props"].get("elem_id"): one["id"]
        for one in config["components"]
        if one["props"].get("elem_id") == "lts-draw"
    }
    draw = next(one for one in config["dependencies"] if [ids["lts-draw"], "click"] in one["targets"])
    editor = {"rows": relations, "nouns": [], "edited": True}
    data = ["prompt", prompt, editor, "", editor, seed, 1, 1, 1, [], None]
    asked = {"data": data, "fn_index": draw["id"], "session_hash": "test", "trigger_id": ids["lts-draw"]}
    joined = await client.post("/gradio_api/queue/join", json=asked)
    assert joined.status_code == 200, joined.text
    told = await client.get("/gradio_api/queue/data", params={"session_hash": "test"})
    events = [json.loads(line[5:]) for line in told.text.splitlines() if line.startswith("data:")]
    return [one for one in events if one["msg"] in ("process_generating", "process_completed")]
