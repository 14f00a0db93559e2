"""A stand-in for the part of Ray that the package uses: actors are objects of this process, run one call at a time.

What is sent is pickled and copied, as between processes. An actor dies when its method raises ``Dies``.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any


class Dies(BaseException):
    """Ends the actor, as a signal ends a process."""


class RayError(Exception):
    """The base of the errors that ``get`` raises."""


class ActorDiedError(RayError):
    """The actor is gone."""


class Reference:
    """The result of a call, which is made when somebody waits for it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call, self.is_made, self._value, self._error = call, False, None, None

    def make(self) -> None:
        if self.is_made:
            return
        self.is_made = True
        try:
            self._value = pickle.dumps(self._call())
        except RayError as error:
            self._error = error

    def value(self) -> Any:
        self.make()
        if self._error is not None:
            raise self._error
        return pickle.loads(self._value)


class Handle:
    """An actor."""

    def __init__(self, ray: StandIn, build: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.ray, self.is_alive = ray, True
        self._build, self._arguments, self._object = build, pickle.dumps(arguments), None
        ray.actors.append(self)

    def __getattr__(self, name: str) -> Any:
        def remote(*arguments: Any) -> Reference:
            sent = pickle.dumps(arguments)
            return Reference(lambda: self._call(name, pickle.loads(sent)))

        return SimpleNamespace(remote=remote)

    def _call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if not self.is_alive:
            raise ActorDiedError("the actor is gone")
        if self._object is None:
            self._object = self._build(*pickle.loads(self._arguments))
        if name == "__ray_ready__":
            return True
        try:
            return getattr(self._object, name)(*arguments)
        except Dies:
            self.is_alive = False
            raise ActorDiedError("the actor died") from None


class StandIn(ModuleType):
    """The module ``ray``.

    Attributes:
        actors: All actors that were started.
        resources: What the cluster has.
        machines: What ``nodes`` returns.
        begun: The arguments of ``init``, while it runs.
        has_room: Whether actors are placed on a machine.
    """

    def __init__(self) -> None:
        super().__init__("ray")
        self.exceptions = SimpleNamespace(RayError=RayError, ActorDiedError=ActorDiedError)
        self.actors: list[Handle] = []
        self.resources: dict[str, float] = {"CPU": 2.0}
        self.machines: list[dict[str, Any]] = []
        self.begun: dict[str, Any] | None = None
        self.has_room = True
        self._turn = 0

    def init(self, **options: Any) -> None:
        self.begun = options

    def is_initialized(self) -> bool:
        return self.begun is not None

    def shutdown(self) -> None:
        self.begun = None

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def nodes(self) -> list[dict[str, Any]]:
        return self.machines

    def remote(self, build: Callable[..., Any]) -> Any:
        make = SimpleNamespace(remote=lambda *arguments: Handle(self, build, arguments))
        return SimpleNamespace(options=lambda **options: make)

    def wait(
        self, references: list[Reference], num_returns: int, timeout: float
    ) -> tuple[list[Reference], list[Reference]]:
        if not self.has_room:
            return [], references
        self._turn += 1
        first = next((one for one in references if one.is_made), references[self._turn % len(references)])
        first.make()
        return [first], [one for one in references if one is not first]

    def get(self, reference: Reference) -> Any:
        return reference.value()

    def kill(self, handle: Handle, no_restart: bool) -> None:
        handle.is_alive = False
