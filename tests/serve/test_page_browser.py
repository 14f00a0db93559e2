"""The page in a real browser, as a user sees it: Chromium, driven by Playwright. Run by ``make test-browser``."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from learn_to_steer.serve.config import ServeConfig

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
MODEL = "flux:emoji-schnell"
QUIET = ("--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync")
PAIR = ".lts-pair:has(.lts-steered img:not(.lts-foreseen))"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    uvicorn = pytest.importorskip("uvicorn")
    from learn_to_steer.serve.app import make_app
    from learn_to_steer.serve.worker import Worker

    config = ServeConfig(model=MODEL, device="cpu")
    worker = Worker(config)
    worker.start()
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(make_app(config, worker), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join()
    listening.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.fail("there is no browser; install one: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.fail("there is no playwright; install it: pip install playwright")
    with sync_playwright() as driver:
        one = driver.chromium.launch(executable_path=program, args=list(QUIET))
        yield one
        one.close()


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Any]:
    """The page, loaded. In the end, nothing may have been logged, and nothing may have been asked of other hosts."""
    context = browser.new_context(viewport={"width": 1200, "height": 1000}, accept_downloads=True)
    one = context.new_page()
    one.set_default_timeout(60_000)
    troubles: list[str] = []
    one.on("console", lambda line: line.type in ("error", "warning") and troubles.append(line.text))
    one.on("pageerror", lambda error: troubles.append(str(error)))
    one.on("request", lambda asked: asked.url.startswith((url, "data:", "blob:")) or troubles.append(asked.url))
    one.goto(url)
    one.wait_for_selector("#lts-relations select")
    yield one
    context.close()
    assert troubles == []


def test_relations_follow_the_prompt_until_they_are_edited(page: Any) -> None:
    _write(page, "a bird above a boat")
    _until(lambda: _relations(page) == ["bird", "above", "boat"])
    _write(page, "a bird and a boat")
    page.get_by_text("No spatial relation found").wait_for()
    page.get_by_role("button", name="Add a relation").click()
    _until(lambda: _relations(page) == ["bird", "left of", "boat"])
    page.get_by_label("Predicate of relation 1").select_option("below")
    _write(page, "a bird and a big boat")
    page.wait_for_timeout(1000)
    assert _relations(page) == ["bird", "below", "boat"]
    page.get_by_role("button", name="Read the prompt again").click()
    page.get_by_text("No spatial relation found").wait_for()
    _write(page, "a dog to the left of a cat")
    _until(lambda: _relations(page) == ["dog", "left of", "cat"])


def test_an_edited_relation_changes_the_steered_picture_alone(page: Any) -> None:
    unsteered, steered = _draw(page)
    assert unsteered != steered
    page.get_by_label("Predicate of relation 1").select_option("right of")
    again, other = _draw(page)
    assert again == unsteered and other != steered
    assert "passes" in page.locator(".lts-facts").inner_text()


def test_all_works_by_keyboard(page: Any) -> None:
    page.locator("#lts-prompt textarea").focus()
    for _ in range(5):  # subject, predicate, object, remove, add
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "+ Add a relation"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.value") != "left of"
    page.locator("#lts-prompt textarea").focus()
    page.keyboard.press("Shift+Enter")
    page.wait_for_selector(PAIR)
    page.locator(".lts-look summary").focus()
    page.keyboard.press("Enter")
    page.locator("input.lts-steps").focus()
    page.keyboard.press("Home")
    assert page.locator(".lts-step:visible p").inner_text() == "Step 1 of 4"


def test_a_dropped_picture_brings_its_settings_back(page: Any, tmp_path: Path) -> None:
    page.locator("#lts-seed input").fill("11")
    _write(page, "a pizza above a clock")
    _until(lambda: _relations(page) == ["pizza", "above", "clock"])
    first = _draw(page)
    with page.expect_download() as download:
        page.locator(".lts-steered .lts-save").click()
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    assert file.name == "a-pizza-above-a-clock_11_steered.png"
    page.locator("#lts-seed input").fill("5")
    _write(page, "a bus")
    _drop(page, file)
    _until(lambda: page.locator("#lts-prompt textarea").input_value() == "a pizza above a clock")
    assert page.locator("#lts-seed input").input_value() == "11"
    assert _draw(page) == first
    (tmp_path / "other.png").write_bytes(b"no picture")
    _drop(page, tmp_path / "other.png")
    page.get_by_text("This file is no PNG picture").wait_for()


def test_what_was_drawn_is_still_there_after_a_reload(page: Any) -> None:
    page.locator("#lts-examples").get_by_text("a bird above an umbrella").click()
    page.wait_for_selector(PAIR)
    page.locator(".lts-thumb").wait_for()
    drawn = _pictures(page)
    page.reload()
    page.wait_for_selector(".lts-thumb")
    assert _pictures(page) == drawn
    assert page.locator("#lts-prompt textarea").input_value() == "a bird above an umbrella"
    page.locator("#lts-seed input").fill("77")
    assert _draw(page) != drawn
    page.locator(".lts-thumb").nth(1).click()
    _until(lambda: _pictures(page) == drawn)


def test_several_relations_are_shown_as_a_graph_and_drawn(page: Any) -> None:
    page.get_by_role("tab", name="Several relations").click()
    page.locator("#lts-several").get_by_label("Predicate of relation 2").select_option("below")
    _until(lambda: "bird below cat" in (page.locator(".lts-graph").get_attribute("aria-label") or ""))
    page.locator("#lts-several").get_by_label("Subject of relation 2").fill("cat")
    page.keyboard.press("Tab")
    page.get_by_text("cannot be below itself").wait_for()
    page.locator("#lts-several").get_by_label("Subject of relation 2").fill("boat")
    page.keyboard.press("Tab")
    _until(lambda: "boat below cat" in (page.locator(".lts-graph").get_attribute("aria-label") or ""))
    _draw(page)
    assert "a boat below the cat" in page.locator(".lts-steered img").first.get_attribute("alt")


def test_a_drawing_can_be_stopped_and_errors_are_said(page: Any) -> None:
    page.get_by_label("number input for Number of pairs").fill("4")
    page.keyboard.press("Tab")
    page.locator("#lts-draw").click()
    page.wait_for_selector(".lts-pair")
    page.locator("#lts-stop").click()
    page.get_by_text("Stopped.").wait_for()
    _write(page, "")
    page.locator("#lts-draw").click()
    page.get_by_text("Write a prompt first").wait_for()


def test_a_phone_shows_all_without_sideways_scrolling(page: Any) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    _draw(page)
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
    below = page.evaluate("document.querySelector('.lts-pair').getBoundingClientRect().top + scrollY")
    assert below < page.evaluate("document.querySelector('#lts-seed').getBoundingClientRect().top + scrollY")


def _write(page: Any, prompt: str) -> None:
    page.locator("#lts-prompt textarea").fill(prompt)


def _relations(page: Any) -> list[str]:
    fields = page.locator("#lts-relations select")
    return [fields.nth(number).input_value() for number in range(fields.count())]


def _draw(page: Any) -> list[bytes]:
    """Draw, and return the finished pictures."""
    page.evaluate("document.querySelectorAll('.lts-pair').forEach((one) => one.classList.add('before'))")
    page.locator("#lts-draw").click()
    page.wait_for_selector(f"{PAIR}:not(.before)")
    _until(lambda: page.locator("#lts-draw").is_enabled())
    return _pictures(page)


def _pictures(page: Any) -> list[bytes]:
    """The pixels of the pictures that are shown."""
    script = """async (images) => Promise.all(images.map(async (image) => {
        await image.decode();
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
        canvas.getContext("2d").drawImage(image, 0, 0);
        return canvas.toDataURL();
    }))"""
    return list(page.locator(".lts-frame img").evaluate_all(script))


def _drop(page: Any, file: Path) -> None:
    """Drop a file on the head of the page."""
    files = page.evaluate_handle(
        """([bytes, name]) => {
            const files = new DataTransfer();
            files.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
            return files;
        }""",
        [list(file.read_bytes()), file.name],
    )
    page.dispatch_event(".lts-head", "drop", {"dataTransfer": files})


def _until(holds: Any) -> None:
    for _ in range(300):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come to pass")
