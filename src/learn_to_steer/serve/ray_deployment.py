"""The server on several GPUs or machines: the same application as a Ray Serve deployment (extra ``ray``).

Each replica has a model of its own, in a process of its own. The web page is left out, since its visits belong to one
replica. Pictures that are fetched by URL lie in a folder that all replicas must reach.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from learn_to_steer.errors import UnsupportedError
from learn_to_steer.serve.config import ServeConfig

NAME = "learn-to-steer"
REFUSED = 64  # requests of a replica that may be under way to be refused, beside those that may wait


class RayArguments(BaseModel):
    """The arguments of ``build``: settings of the server, and where it runs.

    Attributes:
        model: Name, folder or hub id of the model.
        classifier: That of its classifier. None: the model's own.
        device: Torch device of each replica.
        batch: Pictures that a replica draws together.
        queue: Pictures that may wait at a replica.
        timeout: Seconds that a request may take.
        token: Bearer token that clients must send; also from the environment. There must be one: what the proxies of
            Ray listen on is not known here.
        replicas: Number of models.
        gpus: GPUs of each.
        folder: Of the pictures that are fetched by URL. On several machines, one that all of them share.
    """

    model_config = ConfigDict(extra="forbid")

    model: str = ServeConfig.model
    classifier: str | None = None
    device: str = "auto"
    batch: int = ServeConfig.batch
    queue: int = ServeConfig.queue
    timeout: float = ServeConfig.timeout
    token: str | None = Field(default=None, repr=False)
    replicas: Annotated[int, Field(ge=1)] = 1
    gpus: Annotated[float, Field(ge=0)] = 0
    folder: str | None = None


def build(arguments: Mapping[str, Any]) -> Any:
    """Return the Ray Serve application, for ``serve run`` and ``ray.serve.run``.

    Args:
        arguments: Those of ``RayArguments`` by name; texts are read as numbers where these are wanted.

    Raises:
        UnsupportedError: Ray is not installed, an argument is wrong, or there is no token.
        DataError: A setting of the server is out of range.
    """
    if find_spec("ray") is None:
        raise UnsupportedError("this needs Ray: pip install 'learn-to-steer[ray,serve]'")
    from ray import serve

    try:
        chosen = RayArguments.model_validate(dict(arguments))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise UnsupportedError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    named = chosen.model_dump(exclude={"replicas", "gpus", "folder"})
    config = ServeConfig(**named, host="0.0.0.0", page=False)
    config = replace(config, token=config.access_token())  # replicas may be where the environment has none
    folder = Path(chosen.folder or tempfile.mkdtemp(prefix="learn-to-steer-"))

    def replica() -> Any:
        return make_replica(config, folder)

    made = serve.deployment(
        serve.ingress(replica)(),
        name=NAME,
        num_replicas=chosen.replicas,
        max_ongoing_requests=config.queue + REFUSED,
        ray_actor_options={"num_gpus": chosen.gpus},
    )
    return made.bind()


def make_replica(config: ServeConfig, folder: Path) -> Any:
    """Return the application of one replica, with its model loaded. Runs in the replica.

    Args:
        config: The settings.
        folder: Of the pictures that are fetched by URL.
    """
    from learn_to_steer.serve.app import make_app
    from learn_to_steer.serve.pictures import PictureFolder
    from learn_to_steer.serve.worker import Worker

    worker = Worker(config)
    worker.start()
    return make_app(config, worker, PictureFolder(folder=folder))
