"""What a family of models must answer, and the frozen facts of its variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from learn_to_steer.maps import HookPoint, Layout


@dataclass(frozen=True)
class Variant:
    """A named base model: where it is, how it is sampled, and what the authors did with it.

    ``source`` is a hub id, a local path, or ``package:IMPORT_NAME/FOLDER`` for weights in a folder of an installed
    package.
    ``trained_steps`` are the loop indices (of ``steps``) whose maps the authors' classifier was trained on.
    ``levels`` are the noise levels (0-1) at which maps are collected, None for the usual eight. A model of few
    steps is steered while its latents are pure noise; a picture noised so far teaches nothing, so its classifier learns
    from cleaner ones and reads the noise as the noisiest of them. ``ours`` are settings of the profiles of our own,
    default and (but for ``threshold``) equal, that were chosen for this model; published schedules have none of them.
    ``rate`` is the official profile's step size, in latent units per unit gradient. ``arguments`` are further
    ones of every pipeline call, ``steering`` settings that differ from the profile's. ``architecture`` is the
    denoiser's config as far as it differs from its class's own, so that the layout is known without the weights.
    ``shares`` are parts that the folder lacks, each with the source whose part of that name is used. ``detector`` names
    one that knows everything this model draws, ``picture_source`` a source of labelled pictures like those it draws:
    what is used where the user names none.
    """

    name: str
    family: str
    source: str
    side: int
    steps: int
    guidance: float
    rate: float
    trained_steps: tuple[int, ...] = ()
    levels: tuple[float, ...] | None = None
    ours: Mapping[str, Any] = field(default_factory=dict)
    classifier: str | None = None
    dtype: str = "float32"
    note: str = ""
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    steering: Mapping[str, Any] = field(default_factory=dict)
    architecture: Mapping[str, Any] = field(default_factory=dict)
    shares: Mapping[str, str] = field(default_factory=dict)
    detector: str | None = None
    picture_source: str | None = None


@dataclass(frozen=True)
class Call:
    """One denoiser call: ``latents`` and ``time`` as fed, everything else by name.

    ``rest`` may hold tensors with a row a sample; those in ``shared`` have none, whatever their first axis is.
    """

    latents: Tensor
    time: Tensor
    rest: Mapping[str, Any]
    shared: Mapping[str, Any] = field(default_factory=dict)


class Family(Protocol):
    """The facts that steering, tap, replay and inversion ask for. One final class a family."""

    name: str
    denoiser: str
    network: str  # the denoiser's class in diffusers
    dtype: str  # in which models without a variant are held on a GPU
    schedulers: tuple[str, ...]  # whose step takes the latents it is given; the usual one first
    pipelines: tuple[str, ...]  # classes of diffusers that were tried; docs/pipelines.md

    def knows(self, pipe: Any) -> bool:
        """Whether ``pipe`` is a pipeline of this family."""

    def unnamed(self, pipe: Any, model: str) -> Variant:
        """The facts of a model without a variant: how its kind is usually sampled."""

    def cell(self, pipe: Any) -> int:
        """Pixels a side of one place that the denoiser sees; pictures' sides are multiples of it."""

    def points(self, denoiser: nn.Module) -> tuple[HookPoint, ...]:
        """The attention modules that are tapped, in channel order."""

    def attention(self, denoiser: nn.Module) -> tuple[nn.Module, ...]:
        """All attention modules, tapped or not."""

    def layout(self, denoiser: nn.Module, side: int = 16) -> Layout:
        """The layout of this denoiser's maps when resized to ``side``."""

    def tokenizer(self, pipe: Any) -> Any:
        """The tokenizer whose pieces are the text columns of the maps."""

    def columns(
        self, pipe: Any, prompt: str, spans: Sequence[tuple[int, int]], arguments: Mapping[str, Any]
    ) -> list[tuple[int, ...]]:
        """The text columns of each span of characters of ``prompt``, as a call with ``arguments`` reads it.

        Raises PromptError for a span that the model does not read (``prompts.token_columns``).
        """

    def text(self, prompts: Sequence[str], arguments: Mapping[str, Any]) -> list[str]:
        """The texts whose pieces are the columns, when a pipeline is called with ``prompts`` and ``arguments``."""

    def read(self, denoiser: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """A denoiser's arguments by name."""

    def write(self, call: Call) -> dict[str, Any]:
        """Keyword arguments that repeat ``call``."""

    def fed(self, timestep: Tensor) -> Tensor:
        """What the network is fed for a timestep of the scheduler."""

    def text_length(self, call: Call) -> int:
        """Number of text columns in this call's keys."""

    def latent_size(self, call: Call) -> tuple[int, int]:
        """Height and width of the latents, in the places that the denoiser attends from."""

    def noise_level(self, pipe: Any, time: Tensor) -> float:
        """Noise level in [0, 1] of what the network is fed at ``time``: the factor of the noise in it."""

    def elapsed(self, pipe: Any, time: Tensor) -> float:
        """Share of the noise schedule that lies behind ``time``: 0 at the noisiest end, 1 at the cleanest."""

    def times(self, pipe: Any, levels: Tensor) -> Tensor:
        """What the network is fed at the noise levels nearest to ``levels``."""

    def mix(self, pipe: Any, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Closed-form noising of ``clean`` latents to ``time``."""

    def clean_estimate(self, pipe: Any, latents: Tensor, prediction: Tensor, time: Tensor) -> Tensor:
        """The clean latents a prediction stands for."""

    def encode(self, pipe: Any, pictures: Tensor) -> Tensor:
        """Pictures (n, 3, H, W) in [0, 1] to latents as the denoiser is fed them (posterior mean)."""

    def decode(self, pipe: Any, call: Call) -> Tensor:
        """A call's latents to pictures (n, 3, H, W) in [0, 1]."""

    def record_arguments(self, pipe: Any) -> dict[str, Any]:
        """Pipeline arguments that make a call carry the conditional batch alone."""

    def empty_latents(self, pipe: Any, batch: int, height: int, width: int) -> Tensor:
        """Zeros for ``latents=`` of a pipeline call, so that recording it uses up no random numbers."""
