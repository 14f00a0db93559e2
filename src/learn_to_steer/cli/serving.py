"""The verb ``serve``."""

from __future__ import annotations

import socket
from importlib.util import find_spec

from learn_to_steer.cli.console import show
from learn_to_steer.errors import SteerError, UnsupportedError
from learn_to_steer.serve.config import ServeConfig

PACKAGES = ("fastapi", "uvicorn", "prometheus_client")
LAST_ANSWERS = 5  # seconds that requests may take to end when the server is stopped


def serve(config: ServeConfig) -> None:
    """Serve a model over HTTP: OpenAI's /v1/images/generations, with steering.

    Listens on 127.0.0.1 unless --host says otherwise. Stop it with Ctrl-C.
    """
    packages = (*PACKAGES, "gradio") if config.page else PACKAGES
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UnsupportedError(f"serve needs {', '.join(missing)}: pip install 'learn-to-steer[serve]'")
    config.access_token()  # for its error
    import uvicorn

    from learn_to_steer.serve.app import make_app
    from learn_to_steer.serve.worker import Worker, WorkerDiedError

    # Before the model is loaded, which may take minutes.
    with _bound(config.host, config.port) as address:
        worker = Worker(config)
        try:
            worker.start()
            host = f"[{config.host}]" if ":" in config.host else config.host
            show(f"{config.model} is loaded; listening on http://{host}:{address.getsockname()[1]}")
            settings = uvicorn.Config(
                make_app(config, worker), log_level="warning", timeout_graceful_shutdown=LAST_ANSWERS
            )
            uvicorn.Server(settings).run(sockets=[address])
        except WorkerDiedError as error:
            raise SteerError(f"the process that loads {config.model} died; is there enough memory?") from error
        finally:
            worker.stop()


def _bound(host: str, port: int) -> socket.socket:
    """A socket that listens at this address; SteerError if it is taken or wrong."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise SteerError(f"cannot listen on {host}, port {port}: {error}; choose another --host or --port") from error
