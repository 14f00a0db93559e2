"""Run shards of work on the workers of a Ray cluster, here or elsewhere: the only module that imports Ray.

A worker is an actor that opens what it needs once (a model, a detector) and then runs one shard after another. A shard
is made again if its worker dies, and named in the error if it fails; the others go on. What a shard computes may not
depend on which worker runs it, so that results are the same bits whatever the number of workers.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learn_to_steer import storage
from learn_to_steer.errors import SteerError, UnsupportedError, WorkerError
from learn_to_steer.processes import free_memory, keeping_signal_handlers
from learn_to_steer.ray_address import require_answer
from learn_to_steer.worker_options import WorkersConfig
from learn_to_steer.worker_process import FILE as RECORD
from learn_to_steer.worker_process import Reply, Shard, Worker, WorkerProcess, describe_failures

ROOM = 300.0  # seconds to wait until a machine has room for a worker
TICK = 5.0  # seconds after which a wait looks around
DEATHS = 3  # of its worker, after which a shard fails
IN_A_ROW = 8  # failed shards with none that is done in between, after which no more are begun
OBJECT_STORE = 256 << 20  # bytes that a local Ray may use for what is sent
log = logging.getLogger(__name__)


def check_options(config: WorkersConfig, device: str = "auto") -> bool:
    """Check the options about workers before anything is loaded.

    Args:
        config: The settings.
        device: The device that they name.

    Returns:
        Whether there are workers.

    Raises:
        UnsupportedError: The options contradict each other, Ray is not installed, or no cluster answers.
    """
    if not config.has_workers:
        if config.gpus_per_worker is not None:
            raise UnsupportedError("--gpus-per-worker needs workers; add --workers N or --ray ADDRESS, or leave it out")
        return False
    if config.workers is not None and config.ray is not None:
        raise UnsupportedError(
            "--workers starts workers on this machine, --ray uses those of a cluster; give only one of them"
        )
    if (share := config.gpus_per_worker) is not None and share > 1 and share != int(share):
        raise UnsupportedError(f"--gpus-per-worker {share:g} is above 1 and no whole number; give 1, 2, ... or a share")
    if ":" in device:
        raise UnsupportedError(f"workers choose their GPUs themselves, so --device {device} cannot be; use cuda or cpu")
    try:
        import ray
    except ImportError as error:
        raise UnsupportedError(
            "--workers and --ray need Ray, which is not installed; install the extra 'ray': "
            "pip install 'learn-to-steer[ray]'"
        ) from error
    if config.ray not in (None, "auto") and not ray.is_initialized():
        require_answer(str(config.ray))
    return True


@dataclass
class _Actor:
    """An actor, and what is waited for: that a machine has room for it (``placed``), and that it is open."""

    handle: Any
    placed: Any
    opened: Any


class WorkerPool:
    """Workers that have opened what they need, or are about to.

    Args:
        begin: Starts an actor.

    Attributes:
        description: What the workers say about themselves.
    """

    def __init__(self, begin: Callable[[], _Actor]) -> None:
        self._begin = begin
        self._actors: dict[str, _Actor] = {}
        self._names: list[str] = ["worker-0"]
        self._opening: dict[Any, str] = {}  # by what is waited for
        self._idle: deque[str] = deque()
        self._dead_starts = Counter[str]()
        self._told: set[str] = set()
        self._why: SteerError = WorkerError("no worker has started")
        self.description: Any = None

    def __len__(self) -> int:
        return len(self._names)

    def open_first(self) -> Reply:
        """Start the first worker, alone: it may have to fetch weights, and shows how much memory a worker takes."""
        import ray

        self._start("worker-0")
        since = time.monotonic()
        while not self._idle:
            self._await_room(since)
            done, _ = ray.wait(list(self._opening), num_returns=1, timeout=TICK)
            for reference in done:
                first = self._opened(reference)
        self.description = first.value
        return first

    def grow(self, count: int) -> None:
        """Let there be ``count`` workers; the others start while the first works."""
        self._names = [f"worker-{number}" for number in range(count)]

    def run(
        self,
        shards: Sequence[Shard],
        out: Path | None,
        on_result: Callable[[Shard, Any], None],
        *,
        method: str,
        kept: bool = True,
    ) -> None:
        """Run shards, each once, and write a line a shard into ``workers.jsonl``.

        Args:
            shards: The shards.
            out: The folder of the results. None: nothing is written.
            on_result: Called in this process with each shard and its result, in the order in which they are done.
            method: The method of the worker that runs a shard. It gets ``Shard.work``.
            kept: Whether what is done is kept when the command ends, for the message of an error.

        Raises:
            WorkerError: Shards failed, which it names, or no worker is left; the other shards are done.
        """
        import ray

        waiting, running = deque(shards), dict[Any, tuple[str, Shard]]()
        failed, deaths, in_a_row = dict[str, str](), Counter[str](), 0
        for name in self._names[: len(shards)]:
            if name not in self._actors:
                self._start(name)
        since = time.monotonic()
        while running or (waiting and in_a_row < IN_A_ROW):
            while waiting and self._idle and in_a_row < IN_A_ROW:
                name, shard = self._idle.popleft(), waiting.popleft()
                running[self._actors[name].handle.call.remote(method, shard.work)] = name, shard
            since = time.monotonic() if running else self._await_room(since)
            done, _ = ray.wait([*running, *self._opening], num_returns=1, timeout=TICK)
            if not done:
                continue
            if done[0] in self._opening:
                self._opened(done[0])
                continue
            name, shard = running.pop(done[0])
            try:
                reply: Reply = ray.get(done[0])
            except ray.exceptions.RayError as error:
                why = _why(error)
                deaths[shard.name] += 1
                if deaths[shard.name] < DEATHS:
                    log.warning("%s %s; shard %s (%s) is made again", name, why, shard.name, shard.about)
                    waiting.appendleft(shard)
                else:
                    failed[shard.name] = f"{shard.about}: its worker {why}, {DEATHS} times"
                self._drop(name)
                if waiting:
                    self._start(name)
                continue
            self._idle.append(name)
            self._tell(reply)
            line: dict[str, Any] = {"name": shard.name, "worker": name, "pid": reply.pid, "seconds": reply.seconds}
            in_a_row = 0 if reply.error is None else in_a_row + 1
            if reply.error is None:
                on_result(shard, reply.value)
            else:
                failed[shard.name] = f"{shard.about}: {reply.error}"
                log.warning("shard %s failed: %s", shard.name, failed[shard.name])
                line["error"] = str(reply.error)
            if out is not None:
                storage.append_jsonl(out / RECORD, line)
        if failed:
            raise WorkerError(describe_failures(failed, len(waiting), len(shards), kept))

    def ask(self, method: str, work: Any) -> Any:
        """Return what a method of a worker returns.

        Args:
            method: The name of the method.
            work: Its argument.

        Raises:
            WorkerError: It failed.
        """
        answers: list[Any] = []
        self.run([Shard(method, method, work)], None, lambda _, answer: answers.append(answer), method=method)
        return answers[0]

    def close(self) -> None:
        """End the workers."""
        for name in list(self._actors):
            self._drop(name)

    def _start(self, name: str) -> None:
        actor = self._actors[name] = self._begin()
        self._opening[actor.opened] = name

    def _drop(self, name: str) -> None:
        import ray

        actor = self._actors.pop(name)
        self._opening.pop(actor.opened, None)
        if name in self._idle:
            self._idle.remove(name)
        ray.kill(actor.handle, no_restart=True)

    def _opened(self, reference: Any) -> Reply:
        """A worker is open, or cannot be opened. The first must be; others may be missing."""
        import ray

        name, first = self._opening.pop(reference), self.description is None
        reply = Reply()
        try:
            reply = ray.get(reference)
        except ray.exceptions.RayError as error:
            reply.error = WorkerError(f"{name} {_why(error)} while it started; use fewer workers if memory is short")
            self._dead_starts[name] += 1
            if self._dead_starts[name] < DEATHS:
                self._drop(name)
                self._start(name)
                return reply
        self._tell(reply)
        if reply.error is None and not first and reply.value != self.description:
            reply.error = WorkerError(f"{name} has other weights or versions than the first worker")
        if reply.error is None:
            self._idle.append(name)
            return reply
        self._drop(name)
        if first:
            raise reply.error
        log.warning("going on without %s: %s", name, reply.error)
        self._names.remove(name)
        self._why = reply.error
        return reply

    def _await_room(self, since: float) -> float:
        """Check, while no worker is open, that some are being opened, and that a machine has room for one."""
        import ray

        if not self._opening:
            raise WorkerError(f"no worker is left ({self._why}); mend the cause and run the same command again")
        placed = [self._actors[name].placed for name in self._opening.values()]
        if ray.wait(placed, num_returns=1, timeout=0)[0] or time.monotonic() - since < ROOM:
            return since
        raise WorkerError(
            f"no machine has had room for a worker for {ROOM / 60:.0f} minutes; see 'ray status', end other jobs there "
            "or use a smaller --gpus-per-worker, and run the same command again"
        )

    def _tell(self, reply: Reply) -> None:
        """Log what a worker logged; what several of them say, once."""
        for logger, level, text in reply.messages:
            if text not in self._told:
                self._told.add(text)
                logging.getLogger(logger).log(level, "%s", text)


@contextmanager
def open_workers(
    config: WorkersConfig, build: Callable[..., Worker], *arguments: Any, device: str, most: int | None = None
) -> Iterator[WorkerPool]:
    """Start workers, on this machine or on a cluster, and end them afterwards.

    Args:
        config: The settings.
        build: The class of the worker; an importable one, on a cluster.
        arguments: What it is made of.
        device: The device that the settings name, such as "auto" or "cpu".
        most: The number of shards, if it is known; more workers than that are not started.

    Yields:
        The workers.

    Raises:
        UnsupportedError: There are too few GPUs or too little memory, or the cluster cannot be reached.
        SteerError: What ``build`` raises.
    """
    import ray
    import torch

    check_options(config, device)
    ours = not ray.is_initialized()
    if ours:
        _connect(config)
    with suppress(AttributeError):
        ray._private.worker._worker_logs_enabled = False  # it would print to stdout which worker died
    pool: WorkerPool | None = None
    try:
        resources = ray.cluster_resources()
        share = _gpu_share(config, device, resources)
        actor = ray.remote(WorkerProcess).options(
            num_cpus=1, num_gpus=share, max_restarts=0, scheduling_strategy="SPREAD"
        )

        def begin() -> _Actor:
            handle = actor.remote(os.getcwd(), torch.get_num_threads(), share > 0)
            return _Actor(handle, handle.__ray_ready__.remote(), handle.start.remote(build, arguments))

        pool = WorkerPool(begin)
        first = pool.open_first()
        by_gpu = resources.get("GPU", 0.0) // share if share else float("inf")
        wanted = config.workers or int(min(by_gpu, resources.get("CPU", 1.0)))
        wanted = max(1, min(wanted, wanted if most is None else most))
        pool.grow(_fitting(wanted, first, share, config))
        yield pool
    finally:
        if pool is not None:
            pool.close()
        if ours:
            ray.shutdown()


def _connect(config: WorkersConfig) -> None:
    """Start Ray here, or join the cluster at an address."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    with keeping_signal_handlers():
        if config.ray is None:
            quiet |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
            ray.init(address="local", num_cpus=config.workers, **quiet)
            return
        try:
            ray.init(address=config.ray, **quiet)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            why = str(error).strip().splitlines()[:1]
            raise UnsupportedError(
                f"no Ray cluster answers at {config.ray} ({why[0] if why else type(error).__name__}); check the "
                "address, that 'ray status' works there, and that this machine is part of the cluster"
            ) from error


def _gpu_share(config: WorkersConfig, device: str, resources: Mapping[str, float]) -> float:
    """How much of a GPU a worker gets; UnsupportedError if there are too few."""
    gpus = 0.0 if device == "cpu" else resources.get("GPU", 0.0)
    share = config.gpus_per_worker if config.gpus_per_worker is not None else min(gpus, 1.0)
    needed = share * (config.workers or 1)
    if needed > gpus:
        raise UnsupportedError(
            f"{config.workers or 1} workers with {share:g} of a GPU each need {needed:g} GPUs, but there are {gpus:g}; "
            "use fewer workers, or a smaller --gpus-per-worker, such as 0.5 for two workers on a GPU"
        )
    return share


def _fitting(wanted: int, first: Reply, share: float, config: WorkersConfig) -> int:
    """How many workers have room in memory, at most ``wanted``. UnsupportedError if the user asked for more."""
    import ray

    used, there = first.gpu
    if used > share * there and share < 1:
        raise UnsupportedError(
            f"a worker takes {used / 2**30:.1f} GiB of GPU memory, more than {share:g} of the {there / 2**30:.1f} GiB "
            f"of a GPU; use --gpus-per-worker {min(1.0, -(-used * 100 // there) / 100):g} or more"
        )
    one = max(first.memory, 1)
    if config.ray is None:
        free = free_memory()
        fit = wanted if free is None else 1 + free // one
        where = f"{(free or 0) / 2**30:.1f} GiB are free"
    else:
        nodes = [node["Resources"].get("memory", 0.0) for node in ray.nodes() if node["Alive"]]
        fit = max(1, sum(int(memory // one) for memory in nodes))
        where = f"the machines of the cluster have {sum(nodes) / 2**30:.1f} GiB"
    if wanted <= fit:
        return wanted
    text = f"a worker takes {one / 2**30:.1f} GiB of memory, and {where}: {wanted} workers do not fit"
    if config.workers is not None:
        raise UnsupportedError(f"{text}; use --workers {fit}")
    log.warning("%s; %d are used", text, fit)
    return fit


def _why(error: Exception) -> str:
    """What happened to a worker, from the error of Ray."""
    name = type(error).__name__
    if "OutOfMemory" in name:
        return "was ended because memory is short"
    return "died" if "Died" in name or "Crashed" in name or "Unavailable" in name else f"failed ({str(error)[-300:]})"
