"""What a model family must offer.

A plug-in is one file of this folder, or a module that an installed package registers. It offers ``FAMILY``, an object
with everything that ``Family`` lists, and may offer ``VARIANTS``, a tuple of ``Variant`` (``families/variant.py``):
models with names of their own. ``families/defaults.py`` has classes to derive from, with which most of it is a few
facts. See ``docs/add_a_family.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from jaxtyping import Float
from torch import Tensor, nn

from learn_to_steer.errors import UnsupportedError
from learn_to_steer.families.variant import Variant
from learn_to_steer.maps import HookPoint, Layout, MapLayer, TextSpan

Images = Float[Tensor, "batch 3 height width"]


@dataclass(frozen=True)
class Call:
    """One call of the denoiser, with its arguments sorted by what they are.

    Attributes:
        latents: As the denoiser is fed them: (batch, channels, height, width), or as the family packs them.
        time: The timestep as the denoiser is fed it, a scalar or one value per row.
        rest: All other arguments by name. A tensor whose first axis is as long as the batch has one row per sample.
        shared: Further arguments by name that belong to all samples together, whatever the length of their first axis.
        lists: Further arguments by name that are lists with one entry per sample, such as texts of different lengths.
    """

    latents: Tensor
    time: Tensor
    rest: Mapping[str, Any]
    shared: Mapping[str, Any] = field(default_factory=dict)
    lists: Mapping[str, Sequence[Any]] = field(default_factory=dict)


class Family(Protocol):
    """The facts of one model family, for all of its pipelines.

    A family is a class without state that derives from this one; what most families have in common is implemented
    here. ``pipe`` is always a diffusers pipeline for which ``matches`` is true,
    ``denoiser`` its UNet or transformer, ``call`` a ``Call`` that ``read`` made, and ``time`` a timestep as the
    denoiser is fed it (``model_timestep``).

    Attributes:
        name: The name of its file, or of its entry point in an installed package.
        denoiser: Name of the pipeline's component that denoises: "unet" or "transformer".
        network: Class name of that component in diffusers.
        former_networks: Names that older folders give for that class; diffusers reads them as ``network``.
        dtype: Name of the torch dtype in which a model that is no variant is held on a GPU.
        schedulers: Class names of the schedulers that work with steering, the usual one first. Their ``step`` must
            start from the latents it is given: one that rebuilds them from earlier steps loses the update.
        pipelines: Class names of the diffusers pipelines that were tried (docs/pipelines.md).
        modular_pipelines: Class names of the modular pipelines that were tried (docs/modular.md).
        conditional: Which half of a guided batch is made for the prompts; the other is for negative ones. Pipelines
            that call the denoiser twice make the first call for the prompts.
        masks: Names of arguments of the denoiser whose values say how long its sequences are. The memory estimate,
            whose other tensors have no values, keeps these.
    """

    name: str
    denoiser: str
    network: str
    dtype: str
    schedulers: tuple[str, ...]
    pipelines: tuple[str, ...]
    conditional: Literal["first", "last"] = "last"
    masks: tuple[str, ...] = ()
    former_networks: tuple[str, ...] = ()
    modular_pipelines: tuple[str, ...] = ()

    # Which models belong to the family, and how they are sampled.

    def matches(self, pipe: Any) -> bool:
        """Return whether a pipeline belongs to this family.

        Args:
            pipe: Any diffusers pipeline.
        """
        denoiser: Any = getattr(pipe, self.denoiser, None)
        return type(denoiser).__name__ == self.network and self.knows_config(denoiser.config)

    def knows_config(self, config: Mapping[str, Any]) -> bool:
        """Return whether a denoiser belongs to this family, by its config alone.

        Args:
            config: The config of a denoiser of the class ``network``, or one of ``former_networks``. Keys may be
                missing, as in older files.
        """
        return True

    def check(self, pipe: Any) -> None:
        """Refuse a pipeline of this family that cannot be steered, however it is called.

        Args:
            pipe: The pipeline.

        Raises:
            UnsupportedError: It lacks a component, or its denoiser is fed more than latents. The message says what to
                use instead.
        """
        return None  # most take all of their pipelines

    def require_scheduler(self, name: str) -> None:
        """Refuse a scheduler that loses what steering does.

        Args:
            name: Its class name.

        Raises:
            UnsupportedError: It is none of the family's; the message names them.
        """
        if name not in self.schedulers:
            usual = self.schedulers[0]
            raise UnsupportedError(
                f"{name} is not known to step the latents that it is given, as steering needs (PNDM, Heun, KDPM2 and "
                f"UniPC rebuild them from stored values); set another one, e.g. pipe.scheduler = {usual}.from_config("
                f"pipe.scheduler.config), or --scheduler {usual}. "
                f"Supported: {', '.join(one.removesuffix('Scheduler') for one in self.schedulers)}"
            )

    def recommended_pipeline(self, pipe: Any) -> str:
        """Return the class name of the pipeline to use in place of one of this family that was not tried.

        Args:
            pipe: That pipeline, from which the other can be made (``from_pipe``).
        """
        return self.pipelines[0]

    def default_variant(self, pipe: Any, model: str) -> Variant:
        """Return the facts of a model that is no variant: how models like it are usually sampled.

        Args:
            pipe: The loaded pipeline.
            model: Its folder or hub id, which becomes the name and source of the result.
        """

    def pixel_multiple(self, pipe: Any) -> int:
        """Return the number of pixels of which an image's height and width must be multiples.

        It is the side of the square of pixels that one position of the latents stands for.
        """

    def drawn_size(self, pipe: Any, height: int, width: int, arguments: Mapping[str, Any]) -> tuple[int, int]:
        """Return the height and width in pixels at which a pipeline draws; some resize the image afterwards.

        Args:
            pipe: The pipeline.
            height: As asked for, in pixels.
            width: Likewise.
            arguments: Other arguments of the pipeline call.
        """
        return height, width

    # Where attention is read.

    def attention_layers(self, denoiser: nn.Module) -> tuple[HookPoint, ...]:
        """Return the attention modules whose maps are captured, in the order of the map channels."""

    def running_order(self, layers: Sequence[MapLayer]) -> tuple[MapLayer, ...]:
        """Return layers of ``layout`` in the order in which the denoiser runs them.

        Args:
            layers: The layers, in any order.
        """

    def attention(self, denoiser: nn.Module) -> tuple[nn.Module, ...]:
        """Return all attention modules, whether their maps are captured or not."""
        return tuple(point.module for point in self.attention_layers(denoiser))

    def layout(self, denoiser: nn.Module, side: int = 16) -> Layout:
        """Return the layout of the denoiser's maps.

        Args:
            denoiser: The UNet or transformer; its weights are not needed.
            side: Height and width to which the maps are resized.
        """
        return Layout(self.name, tuple(point.layer for point in self.attention_layers(denoiser)), side)

    # Which tokens of a prompt the maps belong to.

    def tokenizer(self, pipe: Any) -> Any:
        """Return the tokenizer whose tokens are the text columns of the maps."""
        return pipe.tokenizer

    def token_indices(
        self, pipe: Any, prompt: str, spans: Sequence[tuple[int, int]], arguments: Mapping[str, Any]
    ) -> list[tuple[int, ...]]:
        """Return the text columns of parts of a prompt, counted from the start of the text that the denoiser is given.

        A template around the prompt counts, too, apart from tokens that the pipeline drops again. Where texts are
        padded on the left and nothing in the call says how far, columns are negative: they count from the end.

        Args:
            pipe: The pipeline.
            prompt: The prompt.
            spans: Character offsets (start, end) in the prompt, one per object.
            arguments: Other arguments of the pipeline call; some change how many tokens are read.

        Returns:
            For each span the indices of its tokens (see ``prompts.token_indices``).

        Raises:
            PromptError: A span lies beyond the tokens that the model reads.
        """

    def padded(self, pipe: Any, text: str, columns: Sequence[int], arguments: Mapping[str, Any]) -> tuple[int, ...]:
        """Return columns as ``token_indices`` does, given some that count from the start of a text.

        Args:
            pipe: The pipeline.
            text: The text.
            columns: The columns.
            arguments: Other arguments of the pipeline call.
        """
        return tuple(columns)

    def text(self, prompts: Sequence[str], arguments: Mapping[str, Any]) -> list[str]:
        """Return the texts whose tokens are the text columns.

        Args:
            prompts: ``prompt`` of the pipeline call.
            arguments: Its other arguments. FLUX, for example, takes the text of its second encoder from ``prompt_2``.

        Returns:
            One text per prompt.
        """
        return list(prompts)

    def text_length(self, call: Call) -> int:
        """Return the number of text columns of a call: those of its longest text."""
        return int(call.rest["encoder_hidden_states"].shape[1])

    def spans(self, denoiser: nn.Module, call: Call) -> Sequence[TextSpan] | None:
        """Return where the text and the image of each sample of a call stand in the sequence of an attention layer.

        Needed where texts of different lengths stand in one batch, or where anything but text and image is in the
        sequence. Columns beyond a sample's own text are then no part of its maps: they are those of the sample alone.

        Args:
            denoiser: The module that is called.
            call: The call, or some rows of one.

        Returns:
            One span per row. None: ``HookPoint.text`` says it all, and every row has ``text_length`` columns.
        """
        return None

    # The denoiser's call.

    def read(self, denoiser: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """Sort the arguments of a denoiser call.

        Args:
            denoiser: The module that is called.
            args: Its positional arguments.
            kwargs: Its keyword arguments.

        Raises:
            UnsupportedError: More than the image's own latents is fed in (inpainting, FLUX Kontext), so that an update
                of them would have no meaning.
        """

    def write(self, call: Call) -> dict[str, Any]:
        """Return the keyword arguments with which the denoiser repeats a call."""

    def predicted(self, output: Any, call: Call) -> Tensor:
        """Return the prediction in the denoiser's output, as the pipeline gives it to the scheduler.

        Args:
            output: The first entry of what the denoiser returns. Some return a list, or further channels, or the
                negative of what the scheduler takes.
            call: The call that it was returned for.

        Returns:
            A tensor of the shape of the call's latents.
        """
        prediction: Tensor = output
        return prediction

    def latent_size(self, denoiser: nn.Module, call: Call) -> tuple[int, int]:
        """Return height and width of a call's latents, in positions that the denoiser attends from.

        Args:
            denoiser: The module that is called.
            call: The call.
        """

    def mended(self, denoiser: nn.Module) -> AbstractContextManager[None]:
        """Return a context in which the denoiser computes with gradients what it computes without.

        Args:
            denoiser: The UNet or transformer, which is afterwards as it was.
        """
        return nullcontext()

    def first_conditional_row(self, rows: int, prompts: int) -> int:
        """Return the index of the first row that is made for the prompts in a call; the others are for guidance.

        Args:
            rows: Number of rows of the call: one or two for each prompt.
            prompts: Number of prompts, or of images to be drawn.
        """
        return 0 if self.conditional == "first" else rows - prompts

    # Time and noise.

    def model_timestep(self, pipe: Any, timestep: Tensor) -> Tensor:
        """Return what the denoiser is fed for a timestep of the scheduler.

        Args:
            pipe: The pipeline.
            timestep: An entry of ``scheduler.timesteps``.
        """
        return timestep

    def noise_level(self, pipe: Any, time: Tensor) -> float:
        """Return the noise level at ``time``: the factor of the noise in the latents, from 0 (clean) to 1 (noise)."""

    def progress(self, pipe: Any, time: Tensor) -> float:
        """Return the share of the noise schedule that is over at ``time``: 0 at the noisiest end, 1 at the cleanest."""

    def times(self, pipe: Any, levels: Tensor) -> Tensor:
        """Return the times whose noise levels are nearest to the given ones.

        Args:
            pipe: The pipeline.
            levels: Noise levels, one-dimensional.

        Returns:
            One time per level.
        """

    def add_noise(self, pipe: Any, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Return latents with the noise of ``time``, in closed form.

        Args:
            pipe: The pipeline.
            clean: Clean latents, as the denoiser is fed them.
            noise: Standard normal noise of the same shape.
            time: A scalar, or one value per row.
        """

    def predict_clean(self, pipe: Any, latents: Tensor, prediction: Tensor, time: Tensor) -> Tensor:
        """Return the clean latents that a prediction of the denoiser stands for.

        Args:
            pipe: The pipeline.
            latents: Noisy latents, as the denoiser was fed them.
            prediction: Its output for them: noise, velocity or clean latents, as the model was trained.
            time: A scalar, or one value per row.

        Raises:
            UnsupportedError: It is not known what the denoiser predicts.
        """

    # Images and latents.

    def encode(self, pipe: Any, images: Images) -> Tensor:
        """Return the latents of images (the VAE's posterior mode, no sampling), as the denoiser is fed them, in fp32.

        Args:
            pipe: The pipeline.
            images: Values in [0, 1].
        """

    def decode(self, pipe: Any, call: Call) -> Images:
        """Return the images of a call's latents, taken as clean ones; values in [0, 1]."""

    # Recording a call of the denoiser (``conditioning.record``).

    def record_arguments(self, pipe: Any) -> dict[str, Any]:
        """Return pipeline arguments with which the denoiser is fed the conditional batch alone, one row per prompt."""

    def empty_latents(self, pipe: Any, batch: int, height: int, width: int) -> Tensor:
        """Return zeros for ``latents=`` of a pipeline call, so that the call draws no random numbers.

        Args:
            pipe: The pipeline.
            batch: Number of images.
            height: Of the images, in pixels.
            width: Likewise.
        """
