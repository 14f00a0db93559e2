"""The settings of the verb ``serve``. Imports no torch."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from typing import Annotated

from typer import Option

from learn_to_steer.errors import UnsupportedError
from learn_to_steer.registry import DEFAULT_MODEL
from learn_to_steer.validation import check_fields

TOKEN_VARIABLE = "LEARN_TO_STEER_TOKEN"


@dataclass(frozen=True)
class ServeConfig:
    """A model, where it is served, and the bounds of what it is asked for.

    Raises:
        DataError: A field has the wrong type or is out of range.
    """

    model: Annotated[str, Option(help="Model: see 'list models', or a folder or hub id.", metavar="MODEL")] = (
        DEFAULT_MODEL
    )
    classifier: Annotated[
        str | None,
        Option(help="Classifier: a folder, file or hub id.", show_default="the model's own", metavar="CLASSIFIER"),
    ] = None
    device: Annotated[str, Option(help="Torch device, or 'auto' for the GPU if there is one.")] = "auto"
    host: Annotated[str, Option(help="Address to listen on. Any but loopback needs a token.")] = "127.0.0.1"
    port: Annotated[int, Option(min=0, max=65535, help="Port to listen on; 0: any that is free.")] = 8000
    token: Annotated[
        str | None,
        Option(help=f"Bearer token that clients must send; also from {TOKEN_VARIABLE}.", show_default="none"),
    ] = field(default=None, repr=False)
    batch: Annotated[
        int,
        Option(
            min=1,
            max=64,
            help="Pictures that are drawn together. Batches have one shape: smaller ones are padded.",
        ),
    ] = 1
    queue: Annotated[int, Option(min=8, max=10_000, help="Pictures that may wait; more are refused (429).")] = 64
    page: Annotated[bool, Option("--page/--no-page", help="Serve the web page at /.")] = True
    timeout: Annotated[float, Option(min=0.1, max=86_400, help="Seconds that a request may take (504).")] = 600.0

    def __post_init__(self) -> None:
        check_fields(self, "the server's")

    def access_token(self) -> str | None:
        """Return the token that clients must send; None if there is none.

        Raises:
            UnsupportedError: There is none, and the host can be reached from elsewhere.
        """
        token = (self.token or os.environ.get(TOKEN_VARIABLE) or "").strip() or None
        if token is None and not is_loopback(self.host):
            raise UnsupportedError(
                f"the host {self.host} can be reached from other machines; give --token or set LEARN_TO_STEER_TOKEN, "
                "or use --host 127.0.0.1"
            )
        return token


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own, which no other can reach."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
