"""The web page, made with Gradio and mounted on the server's application.

It draws through the server's queue and the process that holds the model. ``page_settings`` is what is asked for,
``page_drawing`` draws it, ``page_html`` shows it, and ``page_layout`` is where everything stands.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Any

import gradio
from fastapi import FastAPI, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from learn_to_steer.serve.config import ServeConfig, is_loopback
from learn_to_steer.serve.dispatcher import Dispatcher
from learn_to_steer.serve.page_layout import build_page, page_theme
from learn_to_steer.serve.pictures import PictureFolder
from learn_to_steer.serve.worker import Worker

MAX_UPLOAD = "20mb"
API = ("/v1/", "/healthz", "/metrics", "/files/")
# Gradio's own scripts are inline and compile templates. Nothing is loaded from elsewhere.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'"
)


def mount_page(
    app: FastAPI,
    config: ServeConfig,
    facts: Any,
    dispatcher: Callable[[], Dispatcher],
    pictures: PictureFolder,
    *,
    public: bool = False,
) -> None:
    """Mount the page at ``/``. Routes that the application has already come first.

    Args:
        app: The application.
        config: The server's settings. With a token, the page asks for it.
        facts: What the model is like (``drawing.ModelFacts``).
        dispatcher: Returns the queue; called when something is drawn.
        pictures: Where finished pictures are kept; ``/files/ID.png`` has to serve them.
        public: Whether every host name and every visitor is welcome.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read whenever something would be sent
    token = None if public else config.access_token()
    blocks = build_page(config, facts, dispatcher, pictures)
    auth = None if token is None else lambda _, given: secrets.compare_digest(given.encode(), token.encode())
    gradio.mount_gradio_app(
        app,
        blocks,
        path="/",
        auth=auth,
        auth_message="Give the token of this server as password, and any user name." if auth else None,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        max_file_size=MAX_UPLOAD,
        show_error=True,
        theme=page_theme(),
        css=_own_file("page.css"),
        head=f"<script>{_own_file('page.js')}</script>",
    )
    app.add_middleware(PageGuard, any_host=public or token is not None)


def make_page_app(config: ServeConfig, worker: Worker) -> FastAPI:
    """Return an application that is the page alone, for every visitor and under every host name.

    Args:
        config: The settings; the token is not used.
        worker: The worker, started. It is stopped when the application ends.
    """
    pictures = PictureFolder()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.dispatcher = Dispatcher(worker, config.batch, config.queue)
        task = asyncio.create_task(app.state.dispatcher.run())
        try:
            yield
        finally:
            worker.stop()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            pictures.close()

    async def picture(name: str) -> Response:
        png = pictures.read(name)
        return Response(status_code=404) if png is None else Response(png, media_type="image/png")

    app = FastAPI(title="Learn-to-Steer", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_api_route("/files/{name}.png", picture, response_model=None)
    mount_page(app, config, worker.facts, lambda: app.state.dispatcher, pictures, public=True)
    return app


class PageGuard:
    """Gives answers of the page its security headers, and refuses it to foreign host names.

    Args:
        app: The application.
        any_host: Whether every host name is welcome. Otherwise a web page could reach this server under a name that it
            resolves to this machine.
    """

    def __init__(self, app: ASGIApp, any_host: bool) -> None:
        self._app, self._any_host = app, any_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http" or scope["path"].startswith(API):
            await self._app(scope, receive, send)
            return
        if not self._any_host and not is_loopback(_host_name(scope)):
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": b"this server answers to localhost only"})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _host_name(scope: Scope) -> str:
    host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
    return host.rsplit("]", 1)[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]


def _own_file(name: str) -> str:
    return files("learn_to_steer.serve").joinpath(name).read_text(encoding="utf-8")
