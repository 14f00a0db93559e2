"""The options of the verbs that can run on several processes or machines. Imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Annotated, Any, Self

from typer import Option

from learn_to_steer.validation import Checked

MAX_WORKERS = 10_000
MAX_GPUS = 64.0  # of one worker
_workers = partial(Option, rich_help_panel="Workers")


@dataclass(frozen=True, kw_only=True)
class WorkersConfig(Checked):
    """Where the work is done. No result depends on it, so it is not written to files of settings."""

    workers: Annotated[
        int | None,
        _workers(
            min=1,
            max=MAX_WORKERS,
            help="Run on this many processes of this machine (needs the extra 'ray'). The results are the same.",
            show_default="in this process",
            metavar="N",
        ),
    ] = None
    ray: Annotated[
        str | None,
        _workers(
            help="Run on the Ray cluster at this address, HOST:PORT, or on the one that this machine is part of: auto. "
            "All its machines must see --out (docs/cluster.md).",
            show_default="in this process",
            metavar="ADDRESS",
        ),
    ] = None
    gpus_per_worker: Annotated[
        float | None,
        _workers(
            min=0.0,
            max=MAX_GPUS,
            help="GPUs that each worker gets; 0.5 puts two workers on a GPU.",
            show_default="1 if there are GPUs",
            metavar="F",
        ),
    ] = None

    @property
    def has_workers(self) -> bool:
        """Whether the work is done on workers, not in this process."""
        return self.workers is not None or self.ray is not None

    def in_process(self) -> Self:
        """Return the same settings without workers."""
        return replace(self, workers=None, ray=None, gpus_per_worker=None)

    def written(self) -> dict[str, Any]:
        """Return the settings as they are written to JSON: without those about workers."""
        return {name: value for name, value in asdict(self).items() if name not in ABOUT_WORKERS}


ABOUT_WORKERS = tuple(one.name for one in fields(WorkersConfig))
