"""What a family of models must answer, and the frozen facts of its variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from learn_to_steer.maps import HookPoint, Layout


@dataclass(frozen=True)
class Variant:
    """A named base model: where its weights are, how it is sampled, and how it is steered by default."""

    name: str
    """Full name, "family:variant"."""
    family: str
    """Name of the family."""
    source: str
    """Hub id, local path, or ``package:IMPORT_NAME/FOLDER`` for weights in an installed package."""
    resolution: int
    """Default height and width of its images, in pixels."""
    steps: int
    """Denoising steps."""
    guidance: float
    """Guidance scale."""
    step_size: float
    """Step size of the official profile, in latent units per unit of gradient (the paper's alpha)."""
    trained_steps: tuple[int, ...] = ()
    """Denoising steps (of ``steps``) on whose maps the authors trained their classifier."""
    levels: tuple[float, ...] | None = None
    """Noise levels in (0, 1] at which maps are collected. None: eight, over the noisier part of the schedule.

    A few-step model is steered while its latents are pure noise. An image noised so far teaches nothing, so its
    classifier learns from lower levels, and reads pure noise as the highest of them.
    """
    tuned_settings: Mapping[str, Any] = field(default_factory=dict)
    """Steering settings tuned on this model, for our own profiles: "default" and, but for the threshold, "equal"."""
    classifier: str | None = None
    """Source of the classifier that comes with it."""
    dtype: str = "float32"
    """Name of the torch dtype in which the weights are held on a GPU."""
    note: str = ""
    """A remark for ``list models`` and for errors while loading."""
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    """Its scheduler, where that is not the one of the model folder: "class", and changes of its config."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of every pipeline call."""
    steering: Mapping[str, Any] = field(default_factory=dict)
    """Steering settings that this model needs in every profile."""
    architecture: Mapping[str, Any] = field(default_factory=dict)
    """The denoiser's config where it differs from the defaults of its class; gives the layout without the weights."""
    shared_components: Mapping[str, str] = field(default_factory=dict)
    """Components missing from the folder, each with the source that has it."""
    detector: str | None = None
    """Name of a detector that knows everything this model draws; used where the user names none."""
    image_source: str | None = None
    """Name of a source of labelled images like those that it draws; used where the user names none."""


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

    def matches(self, pipe: Any) -> bool:
        """Whether ``pipe`` is a pipeline of this family."""

    def default_variant(self, pipe: Any, model: str) -> Variant:
        """The facts of a model without a variant: how its kind is usually sampled."""

    def pixel_multiple(self, pipe: Any) -> int:
        """Pixels a side of one place that the denoiser sees; pictures' sides are multiples of it."""

    def attention_layers(self, denoiser: nn.Module) -> tuple[HookPoint, ...]:
        """The attention modules that are tapped, in channel order."""

    def attention(self, denoiser: nn.Module) -> tuple[nn.Module, ...]:
        """All attention modules, tapped or not."""

    def layout(self, denoiser: nn.Module, side: int = 16) -> Layout:
        """The layout of this denoiser's maps when resized to ``side``."""

    def tokenizer(self, pipe: Any) -> Any:
        """The tokenizer whose pieces are the text columns of the maps."""

    def token_indices(
        self, pipe: Any, prompt: str, spans: Sequence[tuple[int, int]], arguments: Mapping[str, Any]
    ) -> list[tuple[int, ...]]:
        """The text columns of each span of characters of ``prompt``, as a call with ``arguments`` reads it.

        Raises PromptError for a span that the model does not read (``prompts.token_indices``).
        """

    def text(self, prompts: Sequence[str], arguments: Mapping[str, Any]) -> list[str]:
        """The texts whose pieces are the columns, when a pipeline is called with ``prompts`` and ``arguments``."""

    def read(self, denoiser: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """A denoiser's arguments by name."""

    def write(self, call: Call) -> dict[str, Any]:
        """Keyword arguments that repeat ``call``."""

    def model_timestep(self, timestep: Tensor) -> Tensor:
        """What the network is fed for a timestep of the scheduler."""

    def text_length(self, call: Call) -> int:
        """Number of text columns in this call's keys."""

    def latent_size(self, call: Call) -> tuple[int, int]:
        """Height and width of the latents, in the places that the denoiser attends from."""

    def noise_level(self, pipe: Any, time: Tensor) -> float:
        """Noise level in [0, 1] of what the network is fed at ``time``: the factor of the noise in it."""

    def progress(self, pipe: Any, time: Tensor) -> float:
        """Share of the noise schedule that lies behind ``time``: 0 at the noisiest end, 1 at the cleanest."""

    def times(self, pipe: Any, levels: Tensor) -> Tensor:
        """What the network is fed at the noise levels nearest to ``levels``."""

    def add_noise(self, pipe: Any, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Closed-form noising of ``clean`` latents to ``time``."""

    def predict_clean(self, pipe: Any, latents: Tensor, prediction: Tensor, time: Tensor) -> Tensor:
        """The clean latents a prediction stands for."""

    def encode(self, pipe: Any, pictures: Tensor) -> Tensor:
        """Pictures (n, 3, H, W) in [0, 1] to latents as the denoiser is fed them (posterior mean)."""

    def decode(self, pipe: Any, call: Call) -> Tensor:
        """A call's latents to pictures (n, 3, H, W) in [0, 1]."""

    def record_arguments(self, pipe: Any) -> dict[str, Any]:
        """Pipeline arguments that make a call carry the conditional batch alone."""

    def empty_latents(self, pipe: Any, batch: int, height: int, width: int) -> Tensor:
        """Zeros for ``latents=`` of a pipeline call, so that recording it uses up no random numbers."""
