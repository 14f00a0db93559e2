"""The web application: it answers requests, and draws nothing itself."""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from learn_to_steer.serve.config import ServeConfig, is_loopback
from learn_to_steer.serve.dispatcher import Dispatcher, QueueFullError
from learn_to_steer.serve.jobs import Failed, Job, Picture
from learn_to_steer.serve.pictures import PictureFolder
from learn_to_steer.serve.requests import RequestError, parse_request
from learn_to_steer.serve.worker import Worker

MAX_BODY = 64 * 1024  # bytes
BODY_TIMEOUT = 30.0  # seconds that a client may take to send it
WATCH = 0.25  # seconds between looks at whether the client is still there
TIDY = 60.0  # seconds between looks at whether pictures are too old


def make_app(config: ServeConfig, worker: Worker, pictures: PictureFolder | None = None) -> FastAPI:
    """Return the application.

    Args:
        config: The settings.
        worker: The worker, started. It is stopped when the application ends.
        pictures: Where pictures are kept. None: in a folder of its own.

    Raises:
        UnsupportedError: The host can be reached from elsewhere, and there is no token.
    """
    server = _Server(config, worker, pictures or PictureFolder())
    app = FastAPI(title="Learn-to-Steer", lifespan=server.lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(RequestError, _answer_error)
    app.add_exception_handler(HTTPException, _answer_error)
    app.add_exception_handler(Exception, _answer_error)
    app.add_api_route("/v1/images/generations", server.generate, methods=["POST"], response_model=None)
    app.add_api_route("/v1/models", server.models, response_model=None)
    app.add_api_route("/v1/models/{name:path}", server.model, response_model=None)
    app.add_api_route("/files/{name}.png", server.picture, response_model=None)
    app.add_api_route("/healthz", server.health, response_model=None)
    app.add_api_route("/metrics", server.metrics, response_model=None)
    if config.page:
        from learn_to_steer.serve.page import mount_page

        mount_page(app, config, worker.facts, lambda: server.dispatcher, server.pictures)
    return app


async def _answer_error(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        error = RequestError(error.status_code, str(error.detail), headers=dict(error.headers or {}))
    if not isinstance(error, RequestError):  # the log has it
        error = RequestError(500, "the server failed; its log says why")
    return JSONResponse(error.body(), error.status, error.headers)


class _Server:
    def __init__(self, config: ServeConfig, worker: Worker, pictures: PictureFolder) -> None:
        self.config, self.worker, self.token = config, worker, config.access_token()
        self.pictures = pictures
        self.began = int(time.time())
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.answered = Counter("lts_requests", "Requests for pictures by status", ["status"], registry=self.registry)
        self.drawn = Counter("lts_pictures", "Pictures drawn", registry=self.registry)
        self.seconds = Histogram("lts_request_seconds", "Seconds of answered requests", registry=self.registry)
        self.waiting = Gauge("lts_pictures_waiting", "Pictures that wait or are drawn", registry=self.registry)
        self.starts = Gauge("lts_worker_starts", "Starts of the process that draws", registry=self.registry)

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        self.dispatcher = Dispatcher(self.worker, self.config.batch, self.config.queue)
        tasks = [asyncio.create_task(one) for one in (self.dispatcher.run(), self._tidy())]
        try:
            yield
        finally:
            self.worker.stop()
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            self.pictures.close()

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY)
            self.pictures.tidy()

    async def generate(self, request: Request) -> Response:
        """Draw pictures."""
        began = time.monotonic()
        try:
            answer = await self._generate(request)
        except RequestError as error:
            self.answered.labels(str(error.status)).inc()
            raise
        self.answered.labels("200").inc()
        self.seconds.observe(time.monotonic() - began)
        return answer

    async def models(self, request: Request) -> Response:
        """List the one model."""
        self._admit(request)
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request, name: str) -> Response:
        """Describe the model."""
        self._admit(request)
        self._check_model(name)
        return JSONResponse(self._model())

    async def picture(self, request: Request, name: str) -> Response:
        """Return a picture. Its name cannot be guessed and is all that is needed."""
        png = self.pictures.read(name)
        if png is None:
            raise RequestError(404, "there is no such picture; pictures are kept for an hour", code="not_found")
        return Response(png, media_type="image/png", headers={"X-Content-Type-Options": "nosniff"})

    async def health(self) -> Response:
        """Say whether pictures can be drawn now."""
        alive = self.worker.is_alive()
        facts = {"status": "ok" if alive else "restarting", "batch_invariant": self.worker.facts.batch_invariant}
        return JSONResponse(facts, 200 if alive else 503)

    async def metrics(self, request: Request) -> Response:
        """Return Prometheus metrics."""
        self._admit(request)
        self.waiting.set(len(self.dispatcher))
        self.starts.set(self.worker.starts)
        return Response(generate_latest(self.registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _generate(self, request: Request) -> Response:
        self._admit(request)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            # A browser asks before it sends this type from another site, and is refused.
            raise RequestError(400, "the Content-Type must be application/json", code="invalid_content_type")
        asked = parse_request(await _body(request))
        if asked.model is not None:
            self._check_model(asked.model)
        facts = self.worker.facts
        jobs = await asyncio.to_thread(asked.jobs, facts.resolution, facts.grid, facts.steered)
        pictures = await self._draw(request, jobs)
        self.drawn.inc(len(pictures))
        as_text = asked.response_format == "b64_json"
        data = [self._entry(request, picture, as_text) for picture in pictures]
        return JSONResponse({"created": int(time.time()), "data": data})

    async def _draw(self, request: Request, jobs: Sequence[Job]) -> list[Picture]:
        try:
            answers = self.dispatcher.submit(jobs)
        except QueueFullError as error:
            headers = {"Retry-After": str(error.wait)}
            raise RequestError(429, str(error), code="rate_limit_exceeded", headers=headers) from error
        deadline = time.monotonic() + self.config.timeout
        try:
            while True:
                done, waiting = await asyncio.wait(answers, timeout=WATCH)
                failed = next((one for one in (task.result() for task in done) if isinstance(one, Failed)), None)
                if failed is not None:
                    raise RequestError(failed.status, failed.reason)
                if not waiting:
                    return [one for one in (answer.result() for answer in answers) if isinstance(one, Picture)]
                if time.monotonic() > deadline:
                    raise RequestError(504, f"the request took more than {self.config.timeout:g} s", code="timeout")
                if await request.is_disconnected():
                    raise RequestError(499, "the client went away")
        finally:
            self.dispatcher.cancel([answer for answer in answers if not answer.done()])

    def _entry(self, request: Request, picture: Picture, as_text: bool) -> dict[str, Any]:
        if as_text:
            shown = {"b64_json": base64.b64encode(picture.png).decode()}
        else:
            shown = {"url": str(request.base_url) + f"files/{self.pictures.add(picture.png)}.png"}
        return {**shown, "steering": picture.steering}

    def _admit(self, request: Request) -> None:
        """Raise RequestError for a request without the token, or without one for another host's name."""
        if self.token is None:
            # Otherwise a web page could reach this server under a name that it resolves to this machine.
            if not is_loopback(_host(request)):
                raise RequestError(403, "this server answers to localhost only", code="forbidden_host")
            return
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not secrets.compare_digest(given.strip().encode(), self.token.encode()):
            headers = {"WWW-Authenticate": "Bearer"}
            raise RequestError(401, "send the token of this server as bearer token", None, "invalid_api_key", headers)

    def _check_model(self, name: str) -> None:
        if name != self.config.model:
            raise RequestError(404, "there is no such model here; /v1/models lists them", "model", "model_not_found")

    def _model(self) -> dict[str, Any]:
        return {"id": self.config.model, "object": "model", "created": self.began, "owned_by": "learn-to-steer"}


def _host(request: Request) -> str:
    """The name under which the client reached the server, without the port."""
    host = request.headers.get("host", "").strip()
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            async for part in request.stream():
                body += part
                if len(body) > MAX_BODY:
                    raise RequestError(413, f"the body is longer than {MAX_BODY} bytes", code="request_too_large")
    except TimeoutError as error:
        raise RequestError(408, f"the body was not sent within {BODY_TIMEOUT:g} s", code="timeout") from error
    except ClientDisconnect as error:
        raise RequestError(499, "the client went away") from error
    return bytes(body)
