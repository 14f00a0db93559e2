"""Where everything stands on the page, and what happens when it is used."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from html import escape
from importlib.resources import files
from typing import Any

import gradio as gr

from learn_to_steer.errors import SteerError
from learn_to_steer.prompts import PREDICATES
from learn_to_steer.serve import page_html
from learn_to_steer.serve.config import ServeConfig
from learn_to_steer.serve.dispatcher import Dispatcher, QueueFullError
from learn_to_steer.serve.page_drawing import Sheet, draw_sheets
from learn_to_steer.serve.page_history import KEPT, Entry, entry_of, read_entries
from learn_to_steer.serve.page_settings import (
    MAX_PAIRS,
    MAX_STRENGTH,
    Editor,
    PageSettings,
    check_settings,
    compose_prompt,
    contradiction,
    follow_prompt,
    new_seed,
    read_picture,
)
from learn_to_steer.serve.pictures import PictureFolder
from learn_to_steer.vocabulary import CLASSES

EXAMPLES = (
    ("a dog to the left of a cat", 1),
    ("a pizza above a clock", 1),
    ("a teddy bear to the right of a cake", 3),
    ("an elephant to the left of a bus", 3),
    ("a bird above an umbrella", 1),
)
SEVERAL = [("dog", "left of", "cat"), ("bird", "above", "cat")]
MOST_ROWS = 6
CLICKS = """element.addEventListener("click", (event) => {
    const button = event.target.closest("[data-number]");
    if (button) trigger("click", { number: Number(button.dataset.number) });
});"""


def page_theme() -> Any:
    """Return the theme: system fonts, so that none is loaded from elsewhere."""
    return gr.themes.Base(
        primary_hue="teal",  # its darker shades: white on them can be read
        neutral_hue="slate",
        radius_size="lg",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
    )


def build_page(config: ServeConfig, facts: Any, dispatcher: Callable[[], Dispatcher], pictures: PictureFolder) -> Any:
    """Return the page as Gradio blocks.

    Args:
        config: The server's settings.
        facts: What the model is like (``drawing.ModelFacts``).
        dispatcher: Returns the queue.
        pictures: Where finished pictures are kept.
    """
    return _Page(config, facts, dispatcher, pictures).build()


class _Page:
    """The page: its parts are attributes, and its methods answer their events."""

    def __init__(
        self, config: ServeConfig, facts: Any, dispatcher: Callable[[], Dispatcher], pictures: PictureFolder
    ) -> None:
        self.config, self.facts, self.dispatcher, self.pictures = config, facts, dispatcher, pictures
        self.objects = list(facts.objects or CLASSES)

    def build(self) -> Any:
        with gr.Blocks(
            title="Learn-to-Steer", analytics_enabled=False, delete_cache=(600, 3600), fill_width=True
        ) as blocks:
            gr.HTML(page_html.header(self.config.model, self.facts.resolution, self.facts.steered))
            with gr.Row(equal_height=False, elem_id="lts-main"):
                with gr.Column(scale=5, min_width=320):
                    self._build_form()
                with gr.Column(scale=7, min_width=320):
                    self.status = gr.HTML(
                        "", elem_classes=["lts-status"], html_template="<div role='status'>${value}</div>"
                    )
                    self.stage = gr.HTML(page_html.welcome(), elem_id="lts-stage")
            self.gallery = gr.HTML("", elem_id="lts-gallery", js_on_load=CLICKS)
            self.drawn = gr.BrowserState([], storage_key="learn-to-steer")
            self.seen = gr.State([], time_to_live=3600)  # sheets with their steps, which the browser does not keep
            self._connect(blocks)
        return blocks

    def _build_form(self) -> None:
        self.active = gr.State("prompt")
        with gr.Tabs(selected="prompt") as self.tabs:
            with gr.Tab("One prompt", id="prompt") as self.prompt_tab:
                self.prompt = gr.Textbox(
                    EXAMPLES[0][0],
                    label="Prompt",
                    lines=2,
                    max_lines=6,
                    max_length=4000,
                    elem_id="lts-prompt",
                    info="Shift+Enter draws.",
                )
                self.editor = self._editor(free=False, value=follow_prompt(EXAMPLES[0][0], Editor())[0])
                self.note = _note()
            with gr.Tab("Several relations", id="several") as self.several_tab:
                self.several = self._editor(free=True, value=Editor(rows=list(SEVERAL), nouns=self.objects))
                self.several_note = _note()
                self.graph = gr.HTML(page_html.graph(SEVERAL))
                self.composed = gr.Textbox(
                    compose_prompt(SEVERAL), label="Prompt that is drawn", interactive=False, lines=2, max_lines=6
                )
        with gr.Row():
            self.draw = gr.Button("Draw", variant="primary", elem_id="lts-draw", scale=3)
            self.stop = gr.Button("Stop", interactive=False, elem_id="lts-stop", scale=1, min_width=90)
        with gr.Row(elem_classes=["lts-after"]):
            self.seed = gr.Number(
                EXAMPLES[0][1], label="Seed", precision=0, minimum=0, elem_id="lts-seed", min_width=120
            )
            self.other_seed = gr.Button("Another seed", min_width=120, elem_id="lts-other-seed")
        with gr.Row(elem_classes=["lts-after"]):
            self.pairs = gr.Slider(1, MAX_PAIRS, value=1, step=1, label="Number of pairs")
        with gr.Accordion("Steering", open=False, elem_classes=["lts-after"]):
            self.tries = gr.Slider(
                1, 8, value=1, step=1, label="Tries", info="A steered picture that looks wrong is drawn again."
            )
            self.strength = gr.Slider(
                0, MAX_STRENGTH, value=1, step=0.25, label="Strength", info="Factor of the step size; 0 moves nothing."
            )
        examples = "".join(
            f'<button type="button" data-number="{number}">{prompt}</button>'
            for number, (prompt, _) in enumerate(EXAMPLES)
        )
        self.examples = gr.HTML(
            f'<p class="lts-label">Examples</p><div class="lts-examples">{examples}</div>',
            elem_id="lts-examples",
            elem_classes=["lts-after"],
            js_on_load=CLICKS,
        )
        with gr.Column(elem_classes=["lts-after"], elem_id="lts-file"):
            self.file = gr.UploadButton("Settings from a picture …", file_types=[".png"], size="md")
            gr.HTML('<p class="lts-label">Or drop a picture that was drawn here anywhere on the page.</p>')

    def _editor(self, free: bool, value: Editor) -> Any:
        script = files("learn_to_steer.serve").joinpath("page_editor.js").read_text(encoding="utf-8")
        return gr.HTML(
            value.model_dump(),
            html_template='<div class="lts-editor"></div>',
            js_on_load=script,
            predicates=list(PREDICATES),
            free=free,
            most=MOST_ROWS,
            empty="No spatial relation found. Add one, or write for example “a dog to the left of a cat”.",
            blank="The relations of the prompt appear here as you type.",
            elem_id="lts-several" if free else "lts-relations",
        )

    def _connect(self, blocks: Any) -> None:
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        form = [
            self.tabs,
            self.active,
            self.prompt,
            self.editor,
            self.note,
            self.seed,
            self.pairs,
            self.tries,
            self.strength,
        ]
        self.prompt_tab.select(lambda: "prompt", None, self.active, **quiet)
        self.several_tab.select(lambda: "several", None, self.active, **quiet)
        following: dict[str, Any] = {"inputs": [self.prompt, self.editor], "outputs": [self.editor, self.note]}
        self.prompt.change(_follow, trigger_mode="always_last", concurrency_limit=None, **following, **quiet)
        # The editors are not answered with a new value, which would undo what is typed meanwhile.
        self.editor.input(_remark, self.editor, self.note, trigger_mode="always_last", concurrency_limit=None, **quiet)
        self.editor.clear(_follow, concurrency_limit=None, **following, **quiet)
        self.several.input(
            _several_changed,
            self.several,
            [self.several_note, self.graph, self.composed],
            trigger_mode="always_last",
            concurrency_limit=None,
            **quiet,
        )
        self.other_seed.click(new_seed, None, self.seed, **quiet)
        inputs = [
            *(self.active, self.prompt, self.editor, self.composed, self.several),
            *(self.seed, self.pairs, self.tries, self.strength, self.drawn, self.seen),
        ]
        outputs = [self.stage, self.status, self.draw, self.stop, self.gallery, self.drawn, self.seen]
        drawing: dict[str, Any] = {"fn": self._draw, "inputs": inputs, "outputs": outputs, "concurrency_limit": None}
        by_hand = gr.on([self.draw.click, self.prompt.submit], **drawing, **quiet)
        by_example = self.examples.click(self._use_example, None, form, **quiet).then(**drawing, **quiet)
        self.stop.click(_stopped, None, [self.status, self.draw, self.stop], cancels=[by_hand, by_example], **quiet)
        self.gallery.click(self._show_again, [self.drawn, self.seen], [*form, self.stage, self.status], **quiet)
        self.file.upload(self._use_picture, self.file, [*form, self.file, self.stage, self.status], **quiet)
        blocks.load(self._restore, self.drawn, [*form, self.stage, self.gallery, self.drawn], **quiet)

    async def _draw(
        self,
        active: str,
        prompt: str,
        editor: Any,
        composed: str,
        several: Any,
        seed: int | None,
        pairs: int,
        tries: int,
        strength: float,
        drawn: Any,
        seen: list[Sheet],
    ) -> AsyncIterator[tuple[Any, ...]]:
        """Draw, and show how far it is."""
        same = gr.skip()
        began, busy = time.monotonic(), (gr.Button(interactive=False), gr.Button(interactive=True))
        ready = gr.Button(interactive=True), gr.Button(interactive=False)
        try:
            chosen = Editor.model_validate(several if active == "several" else editor)
            text = composed if active == "several" else prompt
            settings = check_settings(
                prompt=text, relations=chosen.relations(), seed=seed, pairs=pairs, tries=tries, strength=strength
            )
            jobs = settings.jobs(self.facts.resolution, self.facts.steered)
            updates = draw_sheets(self.dispatcher(), self.pictures, jobs, self.config.timeout)
            async with aclosing(updates):  # type: ignore[type-var]
                async for sheets in updates:
                    words = page_html.status(sheets, time.monotonic() - began)
                    yield page_html.pairs(sheets), words, *busy, same, same, same
        except QueueFullError as error:
            yield page_html.message(f"Too much is being drawn: {error}."), "", *ready, same, same, same
            return
        except TimeoutError:
            yield page_html.message("It took too long and was stopped."), "", *ready, same, same, same
            return
        except (SteerError, ValueError) as error:
            yield page_html.message(str(error)), "", *ready, same, same, same
            return
        if not settings.relations and self.facts.steered:
            words += " No relation was asked for, so nothing was steered."
        entries = read_entries(drawn, self.pictures)
        new = entry_of(settings, sheets)
        entries = [*([new] if new else []), *entries][:KEPT]
        yield (
            page_html.pairs(sheets),
            words,
            *ready,
            _gallery(entries),
            [entry.model_dump() for entry in entries],
            [*sheets, *seen][: KEPT * MAX_PAIRS],
        )

    def _use_example(self, event: gr.EventData) -> tuple[Any, ...]:
        prompt, seed = EXAMPLES[int(event.number) % len(EXAMPLES)]
        editor, remark = follow_prompt(prompt, Editor())
        return (
            *(gr.Tabs(selected="prompt"), "prompt", prompt, editor.model_dump(), escape(remark), seed),
            *(gr.skip(), gr.skip(), gr.skip()),
        )

    def _use_picture(self, path: str | None) -> tuple[Any, ...]:
        """Take the settings from a picture."""
        same = gr.skip()
        if path is None:
            return (same,) * 12
        try:
            stored = read_picture(path)
        except SteerError as error:
            return *(same,) * 9, None, page_html.message(str(error)), ""
        prompt = stored["prompt"]
        relations = stored["relations"]
        if relations is None:
            relations = follow_prompt(prompt, Editor())[0].relations()
        settings = PageSettings(**{**stored, "relations": relations})
        model = stored["model"]
        other = f" It was drawn by {model}; this is {self.config.model}." if model != self.config.model else ""
        words = f"The settings are those of the picture.{other} Press Draw to draw it again."
        return *self._form(settings), None, same, words

    def _show_again(self, drawn: Any, seen: list[Sheet], event: gr.EventData) -> tuple[Any, ...]:
        entries = read_entries(drawn, self.pictures)
        number = int(event.number)
        if not 0 <= number < len(entries):
            return *(gr.skip(),) * 9, page_html.message("These pictures are no longer kept."), ""
        entry = entries[number]
        return *self._form(entry.settings), self._pairs(entry, seen), ""

    def _restore(self, drawn: Any) -> tuple[Any, ...]:
        """What a page that is loaded again shows."""
        entries = read_entries(drawn, self.pictures)
        if not entries:
            return *(gr.skip(),) * 10, "", []
        kept = [entry.model_dump() for entry in entries]
        return *self._form(entries[0].settings), self._pairs(entries[0], []), _gallery(entries), kept

    def _pairs(self, entry: Entry, seen: list[Sheet]) -> str:
        return page_html.pairs(entry.restore(self.facts.resolution, seen))

    def _form(self, settings: PageSettings) -> tuple[Any, ...]:
        """The fields of the form, filled in."""
        read, remark = follow_prompt(settings.prompt, Editor())
        rows: list[Any] = [tuple(text.split(" | ")) for text in settings.relations]
        editor = read if rows == read.rows else Editor(rows=rows, nouns=read.nouns, edited=True)
        return (
            *(gr.Tabs(selected="prompt"), "prompt", settings.prompt, editor.model_dump(), escape(remark)),
            *(settings.seed, settings.pairs, settings.tries, settings.strength),
        )


def _note() -> Any:
    return gr.HTML("", html_template='<p class="lts-note" role="status">${value}</p>')


def _follow(prompt: str, editor: Any) -> tuple[Any, ...]:
    followed, remark = follow_prompt(prompt, Editor.model_validate(editor))
    return followed.model_dump(), escape(remark)


def _remark(editor: Any) -> str:
    return escape(contradiction(Editor.model_validate(editor).rows))


def _several_changed(several: Any) -> tuple[Any, ...]:
    rows = Editor.model_validate(several).rows
    return escape(contradiction(rows)), page_html.graph(rows), compose_prompt(rows)


def _stopped() -> tuple[Any, ...]:
    return "Stopped.", gr.Button(interactive=True), gr.Button(interactive=False)


def _gallery(entries: list[Entry]) -> str:
    return page_html.gallery(
        [{"prompt": one.settings.prompt, "seed": one.settings.seed, "thumb": one.thumb} for one in entries]
    )
