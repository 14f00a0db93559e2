"""How steering is done: one frozen config and its two named profiles."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from learn_to_steer.errors import UnknownNameError


@dataclass(frozen=True)
class SteeringConfig:
    """Settings of the refine-until-good-enough loop.

    A pass is one forward and backward. ``window`` is the share of the schedule that is steered, from the
    noisiest end. ``rate`` is latent units per unit gradient; with ``normalised`` the gradient is first brought
    to a root mean square of one, so that ``rate`` is the size of a move; with ``keep_norm`` a move does not
    change the latents' own root mean square. A sample stops when the probability of its least satisfied
    relation reaches ``threshold``; the official profile stops at ``loss_targets`` instead (one per denoising
    step, the last one repeated).
    """

    profile: str = "default"
    window: float = 0.5
    passes: int = 6
    total_passes: int = 30
    rate: float = 0.04
    normalised: bool = True
    keep_norm: bool = False
    pick: Literal["worst", "round-robin"] = "worst"
    threshold: float = 0.85
    loss_targets: tuple[float, ...] = ()
    by_step_index: bool = False
    checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.pick not in ("worst", "round-robin"):
            raise UnknownNameError(f"pick is 'worst' or 'round-robin', not {self.pick!r}")
        if not 0 <= self.window <= 1:
            raise UnknownNameError(f"window is a share of the schedule between 0 and 1, not {self.window}")

    def changed(self, **values: Any) -> SteeringConfig:
        """A copy with some settings changed; UnknownNameError for a setting that does not exist."""
        known = {field.name for field in fields(self)}
        for name in values:
            if name not in known:
                raise UnknownNameError(f"there is no steering setting {name!r}; settings: {', '.join(sorted(known))}")
        return replace(self, **values)


def profile(name: str, rate: float | None = None) -> SteeringConfig:
    """The profile called ``name``; ``rate`` is the variant's step size for the official one.

    official: the authors' loop: up to 16 passes in every step of the first half, raw gradient, relations in
    turn inside a step, the step ends when one of them meets its target. *Source:* official_implementation, 5.
    default: ours.
    """
    if name == "default":
        return SteeringConfig()
    if name == "official":
        return SteeringConfig(
            profile="official",
            passes=16,
            total_passes=10_000,
            rate=5.0 if rate is None else rate,
            normalised=False,
            pick="round-robin",
            loss_targets=(1e-5, 3e-5, 5e-5, 7e-5),
            by_step_index=True,
        )
    raise UnknownNameError(f"there is no steering profile {name!r}; profiles: default, official")
