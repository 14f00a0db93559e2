"""Classes that families derive from: the facts that models with the same kind of noise or of denoiser share.

``RectifiedFlow`` and ``VariancePreserving`` are the two kinds of noise. ``Transformer`` is for transformers of one or
more stacks of blocks, ``Packed`` for those that are fed patches of latents in place of latents. A family derives from
one of each, the noise first: ``class Flux(RectifiedFlow, Packed)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from learn_to_steer.errors import PromptError, UnsupportedError
from learn_to_steer.families import _vae
from learn_to_steer.families.base import Call, Family, Images
from learn_to_steer.maps import HookPoint, MapLayer, Text
from learn_to_steer.prompts import token_indices

# Noise levels at which maps are collected for a few-step model (see ``Variant.levels``).
FEW_STEP_LEVELS = (0.8, 0.65, 0.5)
# Steering settings for a few steps: only the first one is steered, that is, the initial noise.
FIRST_STEP = {"window": 0.2}
# The same for schedules that are shifted to the noisy end: several of four steps are in their first fifth.
FIRST_STEP_BY_INDEX = {"by_step_index": True, "window": 0.2}


class Transformer(Family):
    """The facts of pipelines whose denoiser is a transformer.

    Attributes:
        blocks: The stacks of blocks whose maps are captured, in the order in which they run: the name of each in the
            denoiser, with the place of the attention module in one of its blocks.
        text_place: Where the text stands among the keys, as in ``HookPoint.text``.
        own_attention: Place of the self-attention module in a block, if the maps are those of cross-attention.
        parameters: The positional parameters of the transformer.
        inputs: The names of its arguments for latents and time.
        shared: The names of those of its arguments that have no batch axis.
        lists: The names of those of its arguments that are lists with one entry per sample.
        longest_text: Text tokens that the model reads, unless the call gives ``max_sequence_length``.
    """

    denoiser = "transformer"
    dtype = "bfloat16"
    blocks: Mapping[str, str] = {"transformer_blocks": "attn"}
    text_place: Text = "first"
    own_attention: str | None = None
    parameters: tuple[str, ...] = ("hidden_states", "encoder_hidden_states")
    inputs: tuple[str, str] = ("hidden_states", "timestep")
    shared: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    longest_text: int | None = None

    def check(self, pipe: Any) -> None:
        """See ``Family.check``: the denoiser is fed latents alone."""
        require_latents_alone(pipe.transformer, "a model for inpainting or control", self.pipelines[0])

    def pixel_multiple(self, pipe: Any) -> int:
        """See ``Family.pixel_multiple``."""
        return int(pipe.vae_scale_factor) * int(pipe.transformer.config.patch_size)

    def attention_layers(self, denoiser: nn.Module) -> tuple[HookPoint, ...]:
        """See ``Family.attention_layers``: the stacks in their order, and within a stack block by block."""
        points = []
        for stack, place in self.blocks.items():
            for index, block in enumerate(getattr(denoiser, stack)):
                module: Any = block.get_submodule(place)
                layer = MapLayer(f"{stack}.{index}.{place}", int(module.heads), 0)
                own = block.get_submodule(self.own_attention) if self.own_attention else None
                points.append(HookPoint(layer, module, self.text_place, own))
        return tuple(points)

    def running_order(self, layers: Sequence[MapLayer]) -> tuple[MapLayer, ...]:
        """See ``Family.running_order``."""
        stacks = list(self.blocks)

        def place(layer: MapLayer) -> tuple[int, int]:
            stack, index = layer.name.split(".")[:2]
            return stacks.index(stack), int(index)

        return tuple(sorted(layers, key=place))

    def token_indices(
        self, pipe: Any, prompt: str, spans: Sequence[tuple[int, int]], arguments: Mapping[str, Any]
    ) -> list[tuple[int, ...]]:
        """See ``Family.token_indices``: for a prompt that is encoded as it is, and filled up on either side."""
        columns = token_indices(self.tokenizer(pipe), prompt, spans, max_length=self.longest(arguments))
        return [self.padded(pipe, prompt, group, arguments) for group in columns]

    def padded(self, pipe: Any, text: str, columns: Sequence[int], arguments: Mapping[str, Any]) -> tuple[int, ...]:
        """See ``Family.padded``; columns of a text that is filled up on the left count from its end.

        Raises:
            PromptError: A column lies beyond the text.
        """
        tokenizer = self.tokenizer(pipe)
        if getattr(tokenizer, "padding_side", "right") == "right":
            return tuple(columns)
        read = len(tokenizer(text, truncation=True, max_length=self.longest(arguments))["input_ids"])
        if max(columns) >= read:
            raise PromptError(f"{text!r} has {read} text columns (0 to {read - 1}), but {max(columns)} is given")
        return tuple(column - read for column in columns)

    def longest(self, arguments: Mapping[str, Any]) -> int | None:
        """Return how many text tokens the model reads of a prompt; None: as many as its tokenizer says.

        Args:
            arguments: Arguments of the pipeline call.
        """
        given = arguments.get("max_sequence_length")
        return int(given) if given else self.longest_text

    def read(self, denoiser: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """See ``Family.read``."""
        rest = dict(zip(self.parameters, args, strict=False)) | dict(kwargs)
        latents, time = (rest.pop(name) for name in self.inputs)
        shared = {name: rest.pop(name) for name in self.shared if name in rest}
        lists = {name: tuple(rest.pop(name)) for name in self.lists}
        call = Call(latents, torch.as_tensor(time, device=latents.device), rest, shared, lists)
        self.check_call(denoiser, call)
        return call

    def check_call(self, denoiser: nn.Module, call: Call) -> None:
        """Refuse a call whose input is more than latents.

        Args:
            denoiser: The module that is called.
            call: The call.

        Raises:
            UnsupportedError: It is.
        """

    def write(self, call: Call) -> dict[str, Any]:
        """See ``Family.write``: with one time per row, in its own dtype."""
        latents, time = self.inputs
        times = call.time.to(call.latents.device).expand(call.latents.shape[0])
        lists = {name: list(entries) for name, entries in call.lists.items()}
        return {latents: call.latents, time: times, **call.rest, **call.shared, **lists}

    def latent_size(self, denoiser: nn.Module, call: Call) -> tuple[int, int]:
        """See ``Family.latent_size``."""
        config: Any = denoiser.config
        return call.latents.shape[-2] // config.patch_size, call.latents.shape[-1] // config.patch_size

    def encode(self, pipe: Any, images: Images) -> Tensor:
        """See ``Family.encode``."""
        return _vae.encode(pipe, images)

    def decode(self, pipe: Any, call: Call) -> Images:
        """See ``Family.decode``."""
        return _vae.decode(pipe.vae, call.latents)

    def record_arguments(self, pipe: Any) -> dict[str, Any]:
        """See ``Family.record_arguments``."""
        return {"guidance_scale": 1.0}

    def empty_latents(self, pipe: Any, batch: int, height: int, width: int) -> Tensor:
        """See ``Family.empty_latents``."""
        scale, transformer = int(pipe.vae_scale_factor), pipe.transformer
        shape = (batch, transformer.config.in_channels, height // scale, width // scale)
        return torch.zeros(shape, device=pipe._execution_device, dtype=transformer.dtype)


class Packed(Transformer):
    """The facts of pipelines that feed their transformer a sequence of patches.

    2 x 2 positions of the VAE's latents become one position with four times the channels. The denoiser is fed tensors
    of the shape (batch, positions, 4 * VAE channels), and the pipeline takes ``latents=`` in that shape, too.
    """

    def pixel_multiple(self, pipe: Any) -> int:
        """See ``Family.pixel_multiple``."""
        return 2 * int(pipe.vae_scale_factor)

    def write(self, call: Call) -> dict[str, Any]:
        """See ``Family.write``: with one time per row, in the dtype of the latents."""
        return super().write(call) | {self.inputs[1]: call.time.to(call.latents).expand(call.latents.shape[0])}

    def encode(self, pipe: Any, images: Images) -> Tensor:
        """See ``Family.encode``."""
        return _vae.packed(_vae.encode(pipe, images))

    def decode(self, pipe: Any, call: Call) -> Images:
        """See ``Family.decode``."""
        return _vae.decode(pipe.vae, _vae.unpacked(call.latents, *self.latent_size(pipe.transformer, call)))

    def empty_latents(self, pipe: Any, batch: int, height: int, width: int) -> Tensor:
        """See ``Family.empty_latents``."""
        multiple, transformer = self.pixel_multiple(pipe), pipe.transformer
        shape = (batch, (height // multiple) * (width // multiple), transformer.config.in_channels)
        return torch.zeros(shape, device=pipe._execution_device, dtype=transformer.dtype)


class RectifiedFlow(Family):
    """Straight lines between images and noise: ``(1 - sigma) clean + sigma noise``, and the velocity is predicted.

    A denoiser whose fed time is not the noise level times a constant overrides ``sigma``, ``times`` and
    ``model_timestep``.

    Attributes:
        full_time: The time that the denoiser is fed at pure noise: 1, or 1000 if it takes the scheduler's timesteps.
    """

    schedulers: tuple[str, ...] = ("FlowMatchEulerDiscreteScheduler",)
    full_time: float = 1.0

    def sigma(self, pipe: Any, time: Tensor) -> Tensor:
        """Return the noise level at ``time``, of any shape.

        Args:
            pipe: The pipeline.
            time: As the denoiser is fed it.
        """
        return time if self.full_time == 1 else time / self.full_time

    def times(self, pipe: Any, levels: Tensor) -> Tensor:
        """See ``Family.times``."""
        return levels if self.full_time == 1 else levels * self.full_time

    def model_timestep(self, pipe: Any, timestep: Tensor) -> Tensor:
        """See ``Family.model_timestep``."""
        return timestep if self.full_time == 1000 else timestep / (1000 / self.full_time)

    def noise_level(self, pipe: Any, time: Tensor) -> float:
        """See ``Family.noise_level``."""
        return float(self.sigma(pipe, time).flatten()[0])

    def progress(self, pipe: Any, time: Tensor) -> float:
        """See ``Family.progress``."""
        return 1 - self.noise_level(pipe, time)

    def add_noise(self, pipe: Any, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """See ``Family.add_noise``."""
        sigma = _broadcast(self.sigma(pipe, time), clean)
        return (1 - sigma) * clean + sigma * noise

    def predict_clean(self, pipe: Any, latents: Tensor, prediction: Tensor, time: Tensor) -> Tensor:
        """See ``Family.predict_clean``; the prediction is the velocity from image to noise (``predicted``)."""
        return latents - _broadcast(self.sigma(pipe, time), latents) * prediction


class VariancePreserving(Family):
    """Noise of DDPM's kind: ``sqrt(a) clean + sqrt(1 - a) noise``, where ``a`` is the scheduler's ``alphas_cumprod``.

    The time that the denoiser is fed is the scheduler's timestep, and the scheduler says what is predicted.
    """

    schedulers: tuple[str, ...] = (
        "DDIMScheduler",
        "DDPMScheduler",
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "DPMSolverMultistepScheduler",
        "DEISMultistepScheduler",
        "LCMScheduler",
    )

    def noise_level(self, pipe: Any, time: Tensor) -> float:
        """See ``Family.noise_level``."""
        return float((1 - _alpha_bar(pipe, time)).sqrt().flatten()[0])

    def progress(self, pipe: Any, time: Tensor) -> float:
        """See ``Family.progress``."""
        return 1 - float(time.flatten()[0]) / int(pipe.scheduler.config.num_train_timesteps)

    def times(self, pipe: Any, levels: Tensor) -> Tensor:
        """See ``Family.times``."""
        schedule: Tensor = (1 - pipe.scheduler.alphas_cumprod.to(levels.device)).sqrt()
        return (levels[:, None] - schedule[None]).abs().argmin(dim=1)

    def add_noise(self, pipe: Any, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """See ``Family.add_noise``."""
        alpha_bar = _broadcast(_alpha_bar(pipe, time), clean)
        noisy: Tensor = alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise
        return noisy

    def predict_clean(self, pipe: Any, latents: Tensor, prediction: Tensor, time: Tensor) -> Tensor:
        """See ``Family.predict_clean``."""
        alpha_bar = _broadcast(_alpha_bar(pipe, time), latents)
        kind = pipe.scheduler.config.prediction_type
        if kind == "epsilon":
            return (latents - (1 - alpha_bar).sqrt() * prediction) / alpha_bar.sqrt()
        if kind == "v_prediction":
            return alpha_bar.sqrt() * latents - (1 - alpha_bar).sqrt() * prediction
        if kind == "sample":
            return prediction
        raise UnsupportedError(f"the scheduler's prediction_type {kind!r} is not one of epsilon, v_prediction, sample")


def require_latents_alone(denoiser: nn.Module, what: str, instead: str) -> None:
    """Refuse a denoiser that is fed more channels than it predicts.

    Args:
        denoiser: The UNet or transformer.
        what: What kinds of models are fed more, for the message.
        instead: The pipelines that take the weights of text-to-image models.

    Raises:
        UnsupportedError: It is.
    """
    config: Any = denoiser.config
    # A transformer's config may have None, for as many as it is fed, which a Control LoRA changes.
    predicted = int(vars(denoiser).get("out_channels") or config.out_channels or config.in_channels)
    if config.in_channels > predicted:
        raise UnsupportedError(
            f"the {type(denoiser).__name__} is fed {config.in_channels} channels but predicts {predicted}: {what}, of "
            f"whose input the latents are only a part; use the weights of a text-to-image model, in {instead}"
        )


def require_same_prompt(name: str, prompts: Sequence[str], arguments: Mapping[str, Any], why: str) -> None:
    """Refuse a second prompt that differs from the first.

    Args:
        name: Of the argument: "prompt_2" or "prompt_3".
        prompts: The first prompts.
        arguments: Arguments of the pipeline call.
        why: Why it cannot be steered, as the end of a sentence.

    Raises:
        UnsupportedError: It differs.
    """
    other = arguments.get(name)
    if other and ([other] if isinstance(other, str) else list(other)) != list(prompts):
        raise UnsupportedError(f"{name} differs from the prompt, and {why}; give the same prompt to all encoders")


def _alpha_bar(pipe: Any, time: Tensor) -> Tensor:
    """The share of the signal's variance in the latents at ``time`` (``alphas_cumprod`` of the scheduler)."""
    schedule: Tensor = pipe.scheduler.alphas_cumprod
    return schedule[time.to("cpu").round().long().clamp(0, len(schedule) - 1)].to(time.device)


def _broadcast(value: Tensor, like: Tensor) -> Tensor:
    """``value``, a scalar or one value per row, with as many axes as ``like``."""
    return value.to(like).reshape(-1, *[1] * (like.ndim - 1))
