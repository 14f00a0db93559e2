"""How steering is done: one frozen config and its named profiles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from learn_to_steer.errors import UnknownNameError
from learn_to_steer.objectives._protocol import NEVER

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Target = Annotated[float, Field(ge=0)]
Size = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PROFILES = ("default", "equal", "official")
EXAMPLES = {
    "refinement": "rows of share of the schedule, passes and target, e.g. [[0.2, 20, 0.5]]",
    "search": "rounds, passes and last passes, e.g. [5, 10, 50]",
    "loss_targets": "one target a step, e.g. [1e-5, 3e-5]",
}


@dataclass(frozen=True)
class SteeringConfig:
    """Settings of the refine-until-good-enough loop.

    A pass is one forward and backward. ``window`` is the share of the schedule that is steered, from the
    noisiest end. ``rate`` is latent units per unit gradient (None: what the authors used for the kind of model that is
    steered); with ``normalised`` the gradient is first brought to a root mean square of one, so that ``rate`` is the
    size of a move; with ``keep_norm`` a move does not change the latents' own root mean square. A sample stops when a
    probability reaches ``threshold``: with ``stop`` "all" that of all its relations together, their product, with
    "worst" the least one's, as published stops and losses that judge a picture as a whole have it. The official profile
    stops at ``loss_targets`` instead (one per denoising step, the last one repeated).

    The rest is what published baselines do. ``start`` is the share of the schedule that goes by before the window
    opens. ``decay`` is the share of ``rate`` squared that is left in the last step, falling evenly; with
    ``by_variance`` the rate is also multiplied with the noise's variance. ``clip`` bounds the gradient's L2 norm.
    ``refinement`` are rows of (share of the schedule, passes, target): in the denoising step at that share, up to so
    many passes are made beforehand, until the probability reaches the target. ``search`` are (rounds, passes, passes
    of the last resort) of a search for a better initial noise, which counts towards ``total_passes``. ``pick`` "sum"
    works on all relations at once. ``update`` "prediction" leaves the latents alone and adds the gradient to the noise
    that the model predicts.
    """

    profile: str = "default"
    window: Share = 0.5
    passes: Count = 2
    total_passes: Count = 30
    rate: Size | None = 0.02
    normalised: bool = True
    keep_norm: bool = False
    pick: Literal["worst", "round-robin", "sum"] = "worst"
    threshold: Target = 0.95
    stop: Literal["all", "worst"] = "all"
    loss_targets: tuple[Target, ...] = ()
    by_step_index: bool = False
    checkpointing: bool = False
    start: Share = 0.0
    decay: Share = 1.0
    by_variance: bool = False
    clip: Size | None = None
    refinement: tuple[tuple[Share, Count, Target], ...] = ()
    search: tuple[Count, Count, Count] | None = None
    update: Literal["latents", "prediction"] = "latents"

    def __post_init__(self) -> None:
        for name, adapter in _adapters().items():
            value = _as_tuples(getattr(self, name))
            try:
                object.__setattr__(self, name, adapter.validate_python(value, strict=True))
            except ValidationError as error:
                first = error.errors()[0]
                place = first["loc"][:-1] if first["type"] == "missing" else first["loc"]
                where = "".join(f"[{part}]" for part in place if isinstance(part, int))
                message = f"{first['msg'][0].lower()}{first['msg'][1:]}"
                hint = f"; it is {EXAMPLES[name]}" if name in EXAMPLES else ""
                raise UnknownNameError(
                    f"the steering setting {name}{where} cannot be {first['input']!r}: {message}{hint}"
                ) from error

    def changed(self, **values: Any) -> SteeringConfig:
        """A copy with some settings changed; UnknownNameError for a setting that does not exist."""
        known = {field.name for field in fields(self)}
        for name in values:
            if name not in known:
                raise UnknownNameError(f"there is no steering setting {name!r}; settings: {', '.join(sorted(known))}")
        return replace(self, **values)

    def rate_at(self, step: int, steps: int, level: float) -> float:
        """The rate in denoising step ``step`` of ``steps``, at a noise level in [0, 1]."""
        if self.rate is None:
            raise ValueError("the rate is settled when the steering is put on a pipeline")
        rate = self.rate
        if self.decay != 1.0:
            rate *= math.sqrt(1 - (1 - self.decay) * step / max(steps - 1, 1))
        return rate * level**2 if self.by_variance else rate

    def refined(self, step: int, steps: int) -> tuple[int, float]:
        """Refinement passes before denoising step ``step`` of ``steps``, and the probability that ends them."""
        rows = [row for row in self.refinement if int(row[0] * steps + 0.5) == step]
        return (int(rows[0][1]), float(rows[0][2])) if rows else (0, 0.0)


@cache
def _adapters() -> dict[str, TypeAdapter[Any]]:
    """What each setting may be, by its type."""
    hints = get_type_hints(SteeringConfig, include_extras=True)
    return {field.name: TypeAdapter(hints[field.name]) for field in fields(SteeringConfig)}


def _as_tuples(value: Any) -> Any:
    """Lists, as JSON and YAML have them, as tuples, all the way down."""
    return tuple(_as_tuples(part) for part in value) if isinstance(value, (list, tuple)) else value


def profile(name: str, rate: float | None = None, schedule: Mapping[str, Any] | None = None) -> SteeringConfig:
    """The profile called ``name``; ``rate`` is the official one's step size (None: of the pipeline).

    default: what the objective's ``schedule`` says: ours for the learned one, a baseline's as it was published.
    equal: ours for every objective, but without its stop: a probability is the learned one's alone, and so all take
    the same passes.
    official: the authors' loop: up to 16 passes in every step of the first half, raw gradient, relations in
    turn inside a step, the step ends when one of them meets its target. *Source:* official_implementation, 5.
    """
    if name == "default":
        return SteeringConfig().changed(**(schedule or {}))
    if name == "equal":
        return SteeringConfig(profile="equal", threshold=NEVER)
    if name == "official":
        return SteeringConfig(
            profile="official",
            passes=16,
            total_passes=10_000,
            rate=rate,
            normalised=False,
            pick="round-robin",
            loss_targets=(1e-5, 3e-5, 5e-5, 7e-5),
            by_step_index=True,
        )
    raise UnknownNameError(f"there is no steering profile {name!r}; profiles: {', '.join(PROFILES)}")
