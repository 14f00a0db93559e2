"""How steering is done: one frozen config, its profiles, and the one place where settings are put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from learn_to_steer.configs import PROFILE_ALIASES
from learn_to_steer.errors import UnknownNameError
from learn_to_steer.families import Variant
from learn_to_steer.losses.base import NEVER
from learn_to_steer.validation import check_fields

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Target = Annotated[float, Field(ge=0, allow_inf_nan=True)]
Size = Annotated[float, Field(ge=0)]
PROFILES = ("default", "equal", "official")
EXAMPLES = {
    "refinement": "rows of share of the schedule, iterations and target, e.g. [[0.2, 20, 0.5]]",
    "search": "rounds, iterations of a round and last iterations, e.g. [5, 10, 50]",
    "loss_targets": "one target a step, e.g. [1e-5, 3e-5]",
}
# Field -> its name in files (config.json, summary.json). Both are understood wherever settings are given.
STORED_NAMES = {
    "step_size": "rate",
    "iterations": "passes",
    "max_iterations": "total_passes",
    "relation_reduction": "pick",
}
_FIELD_NAMES = {stored: name for name, stored in STORED_NAMES.items()}


@dataclass(frozen=True)
class SteeringConfig:
    """Settings of the optimisation of the latents; checked when the config is made.

    An iteration is one forward and one backward pass through the denoiser. The defaults are ours. What published
    methods use differs and is in the ``schedule`` of each loss.

    Raises:
        UnknownNameError: A value is of the wrong type or out of range.
    """

    profile: str = "default"
    """The schedule that the other settings started from: a profile, or the method that published them."""

    window: Share = 0.5
    """Share of the noise schedule, from the noisiest end, at which steering ends. In [0, 1].

    Source: the authors' code, which steers the first 25 of 50 steps.
    """

    iterations: Count = 2
    """Most iterations in one denoising step. In files: ``passes``."""

    max_iterations: Count = 30
    """Most iterations for one image. In files: ``total_passes``."""

    step_size: Size | None = 0.02
    """Units of the denoiser's input per unit of gradient, the paper's alpha. In files: ``rate``.

    With ``normalised`` it is the root mean square of a move. None: the authors' value for this kind of model.
    """

    normalised: bool = True
    """Scale each gradient to a root mean square of 1 before the move."""

    keep_norm: bool = False
    """Scale the moved latents back to the L2 norm that they had before the move."""

    relation_reduction: Literal["worst", "round-robin", "sum"] = "worst"
    """Which of an image's relations an iteration works on. In files: ``pick``.

    "worst" is the one with the largest loss, "round-robin" takes them in turn, "sum" adds their losses.
    """

    threshold: Target = 0.95
    """An image stops when its probability reaches this value. Above 1: it never stops early."""

    stop: Literal["all", "worst"] = "all"
    """The probability that is compared with ``threshold``.

    "all" is the product over the image's relations, "worst" the lowest of them, as published stop rules have it.
    """

    check_while_sampling: bool = True
    """Check images in the forward that the pipeline makes anyway after the last iteration of a denoising step.

    It costs next to nothing. Images that are satisfied then get no iterations in the next step. Off: every denoising
    step begins with an evaluation of its own. Published schedules and the profiles "equal" and "official" have it off.
    """

    loss_targets: tuple[Target, ...] = ()
    """If given, a denoising step ends when its loss is at most its target; ``threshold`` is not used then.

    One target per denoising step; later steps use the last one. Source: the authors' code (profile "official").
    """

    by_step_index: bool = False
    """Measure ``start`` and ``window`` in denoising steps instead of noise levels."""

    checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time, the same images."""

    start: Share = 0.0
    """Share of the noise schedule, from the noisiest end, that is not steered yet. In [0, 1]."""

    decay: Share = 1.0
    """The square of ``step_size`` decays linearly to ``decay`` times its first value at the last step. In [0, 1].

    Source: Attend-and-Excite, arXiv 2301.13826 (value 0.5).
    """

    by_variance: bool = False
    """Multiply ``step_size`` by the variance of the noise. Source: layout guidance, arXiv 2304.03373."""

    clip: Size | None = None
    """Largest L2 norm of a gradient. None: gradients are not clipped. Source: STORM, arXiv 2503.22168 (value 1)."""

    refinement: tuple[tuple[Share, Count, Target], ...] = ()
    """Extra iterations in single denoising steps: rows of (share of the schedule, most iterations, probability).

    They come before the usual ones and end when the probability is reached. Source: Attend-and-Excite, arXiv
    2301.13826.
    """

    search: tuple[Count, Count, Count] | None = None
    """Search for a better initial noise: (rounds, iterations of a round, iterations if no round succeeded).

    They count towards ``max_iterations``, but are not limited by it. Source: InitNO, arXiv 2404.04650.
    """

    update: Literal["latents", "prediction"] = "latents"
    """What the gradient changes: the latents, or the noise that the model predicts. Source: InfSplign, arXiv
    2512.17851.
    """

    def __post_init__(self) -> None:
        names = {name: _both_names(name) for name in STORED_NAMES}
        check_fields(self, "the steering setting", UnknownNameError, names, EXAMPLES)
        object.__setattr__(self, "profile", _name_in_files(self.profile))

    def changed(self, **values: Any) -> SteeringConfig:
        """Return a copy with some settings changed.

        Args:
            **values: Settings by the name of their field or by their name in files.

        Raises:
            UnknownNameError: There is no such setting, one is given twice, or a value is out of range.
        """
        known = {field.name for field in fields(self)}
        changes: dict[str, Any] = {}
        for given, value in values.items():
            name = _FIELD_NAMES.get(given, given)
            if name not in known:
                listed = ", ".join(sorted(map(_both_names, known)))
                raise UnknownNameError(f"there is no steering setting {given!r}; settings: {listed}")
            if name in changes:
                raise UnknownNameError(f"the steering setting {_both_names(name)} is given under both of its names")
            changes[name] = value
        return replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON has them, under their names in files."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {STORED_NAMES.get(name, name): _as_lists(value) for name, value in values.items()}

    def image_settings(self) -> dict[str, Any]:
        """Return ``as_dict()`` without the settings that change no image (checkpointing).

        Nor is ``check_while_sampling`` in it where it is off, as it was in version 0.1.0, whose folders can thus be
        completed.
        """
        settings = self.as_dict()
        del settings["checkpointing"]
        if not self.check_while_sampling:
            del settings["check_while_sampling"]
        return settings

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SteeringConfig:
        """Return the config that ``as_dict`` or ``image_settings`` was called on.

        Args:
            values: Settings by the name of their field or by their name in files; others keep their defaults, but
                ``check_while_sampling`` is off where ``image_settings`` or version 0.1.0 left it out.

        Raises:
            UnknownNameError: As ``changed``.
        """
        return cls(check_while_sampling=False).changed(**values)


def profile(name: str, step_size: float | None = None, schedule: Mapping[str, Any] | None = None) -> SteeringConfig:
    """Return the settings of a profile, before those of a model are added (``resolve_config``).

    - "default": the schedule of the loss: ours for the learned loss, the published one for a published loss.
    - "fixed-budget", recorded as "equal": our schedule for every loss, without early stopping. All losses get the
      same number of iterations, since only the learned loss has a probability to stop at.
    - "official": the authors' loop. Up to 16 iterations in every step of the first half, raw gradient, one relation
      at a time; a step ends when the loss of that relation is at most its target.

    Args:
        name: One of the profiles.
        step_size: Of the profile "official". None: the authors' value for the pipeline that is steered.
        schedule: The ``schedule`` of the loss. Used by "default" only.

    Raises:
        UnknownNameError: There is no such profile.

    Source:
        "official": sapir1779/learn-to-steer, ``pipelines/test_time_optimization.py``.
    """
    name = _name_in_files(name)
    if name == "default":
        return SteeringConfig(check_while_sampling=not schedule).changed(**(schedule or {}))
    if name == "equal":
        return SteeringConfig(profile="equal", threshold=NEVER, check_while_sampling=False)
    if name == "official":
        return SteeringConfig(
            profile="official",
            iterations=16,
            max_iterations=10_000,
            step_size=step_size,
            normalised=False,
            relation_reduction="round-robin",
            loss_targets=(1e-5, 3e-5, 5e-5, 7e-5),
            check_while_sampling=False,
            by_step_index=True,
        )
    known = ", ".join((*PROFILES, *PROFILE_ALIASES))
    raise UnknownNameError(f"there is no steering profile {name!r}; profiles: {known}")


def resolve_config(
    schedule: Mapping[str, Any],
    variant: Variant | None,
    profile_name: str = "default",
    overrides: Mapping[str, Any] | None = None,
) -> SteeringConfig:
    """Return the settings in effect. Later ones replace earlier ones:

    1. the profile; for "default", the schedule of the loss;
    2. what every profile needs on this model (``Variant.steering``);
    3. what was tuned on this model for our own schedule (``Variant.tuned_settings``). It is not used with published
       schedules and "official", and "equal" keeps its threshold;
    4. explicit settings.

    Args:
        schedule: The ``schedule`` of the loss.
        variant: The model that is steered. None: unknown; 2 and 3 are skipped.
        profile_name: One of ``PROFILES``, or "fixed-budget" for "equal".
        overrides: Explicit settings, by the name of their field or by their name in files.

    Returns:
        The settings. ``step_size`` may still be None (``Steerer.on``).

    Raises:
        UnknownNameError: There is no such profile or setting, or a value is out of range.
    """
    config = profile(profile_name, variant.step_size if variant else None, schedule)
    if variant is not None:
        tuned = dict(variant.tuned_settings) if config.profile in ("default", "equal") else {}
        if config.profile == "equal":
            tuned.pop("threshold", None)
        config = config.changed(**variant.steering).changed(**tuned)
    return config.changed(**(overrides or {}))


def _name_in_files(profile_name: str) -> str:
    return PROFILE_ALIASES.get(profile_name, profile_name)


def _both_names(name: str) -> str:
    return f"{name} (also {STORED_NAMES[name]})" if name in STORED_NAMES else name


def _as_lists(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    return [_as_lists(part) for part in value] if isinstance(value, tuple) else value
