"""The facts of a model with a name of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Variant:
    """A model with a name of its own: where its weights are, how it is sampled, and how it is steered by default."""

    name: str
    """Full name, "family:variant"."""
    family: str
    """Name of the family."""
    source: str
    """Hub id, local folder, or ``package:IMPORT_NAME/FOLDER`` for weights in an installed package."""
    resolution: int
    """Default height and width of its images, in pixels."""
    steps: int
    """Default number of denoising steps."""
    guidance: float
    """Default guidance scale."""
    step_size: float
    """Step size of the official profile, in latent units per unit of gradient (the paper's alpha)."""
    trained_steps: tuple[int, ...] = ()
    """The denoising steps, counted from 0 on a schedule of ``steps``, whose maps the authors trained on."""
    levels: tuple[float, ...] | None = None
    """Noise levels in (0, 1] at which maps are collected. None: eight, over the noisier part of the schedule.

    A few-step model is steered at pure noise. Training images noised that much show nothing in their maps, so its
    classifier is trained at lower levels, and used at pure noise as if at the highest of them.
    """
    tuned_settings: Mapping[str, Any] = field(default_factory=dict)
    """Steering settings tuned on this model, for the profiles "default" and "equal" (the latter keeps its own
    threshold)."""
    classifier: str | None = None
    """Source of the classifier that comes with it, written as ``source``."""
    dtype: str = "float32"
    """Name of the torch dtype in which the weights are held on a GPU."""
    note: str = ""
    """A remark, shown by ``list models`` and in errors while loading."""
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    """A scheduler other than the one in the model's folder: "class" is its class name, other keys change its config."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of every pipeline call."""
    steering: Mapping[str, Any] = field(default_factory=dict)
    """Steering settings that this model needs in every profile."""
    architecture: Mapping[str, Any] = field(default_factory=dict)
    """The denoiser's config where it differs from its class's defaults; gives the layout without the weights."""
    shared_components: Mapping[str, str] = field(default_factory=dict)
    """Components that the model's folder lacks: each name with the source that has it."""
    detector: str | None = None
    """Name of a detector that knows everything this model draws. It is used where the user names none."""
    verifiers: tuple[str, ...] = ()
    """Names of detectors that can look at its images while they are drawn (``tries``), the best first. Where the user
    names none, the first that does not score the images is used."""
    image_source: str | None = None
    """Name of a source of labelled images like this model's own. It is used where the user names none."""
    objects: Callable[[], Sequence[str]] | None = None
    """Returns the names of objects that the model draws, for pictures that it draws to learn from. Those kept apart
    for tests are not among them. None: common nouns."""
    untaught_words: Callable[[str], Sequence[str]] | None = None
    """Takes a prompt and returns those of its words that the model was never taught, for a warning. None: not known, as
    for models that were trained on captions from the web."""
    unconfirmed: tuple[str, ...] = ()
    """Names of those fields above that could not be checked against the model's public card."""
    guidance_argument: str = "guidance_scale"
    """Name of the argument of a pipeline call that takes ``guidance``."""
