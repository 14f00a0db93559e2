"""A Hugging Face Space: the page of Learn-to-Steer, for every visitor.

Variables of the Space: ``MODEL`` (a name of ``learn-to-steer list models``, a hub id or a folder) and ``CLASSIFIER``
(a folder or hub id; by default the model's own). Without a GPU, the small emoji models draw a pair in seconds.
"""

from __future__ import annotations

import os

import uvicorn

from learn_to_steer.serve.config import ServeConfig
from learn_to_steer.serve.page import make_page_app
from learn_to_steer.serve.worker import Worker


def main() -> None:
    """Serve the page on the port that Spaces expect."""
    config = ServeConfig(
        model=os.environ.get("MODEL", "flux:emoji"), classifier=os.environ.get("CLASSIFIER") or None, queue=32
    )
    worker = Worker(config)
    try:
        worker.start()
        uvicorn.run(make_page_app(config, worker), host="0.0.0.0", port=int(os.environ.get("PORT", "7860")))
    finally:
        worker.stop()


if __name__ == "__main__":  # the worker is a process that imports this file again
    main()
