"""Tiny pipelines of random weights, one for each family: for tests, and to try things out in seconds.

``tiny("sdxl")`` is a whole diffusers pipeline with a text encoder, a denoiser and a VAE, of about a megabyte. What it
is made of stands in ``TINY``, a ``TinyModel``, in the module of the family, or in a file beside it whose name begins
with ``_tiny_``. ``TINY_OTHERS`` there has further models of the family by name: ``tiny("flux2:klein")``. The contract
tests (``tests/families/test_contract.py``) run on these pipelines.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

from learn_to_steer import registry
from learn_to_steer.errors import PluginError

START, END, PAD = "<start>", "<end>", "<pad>"
_WORDS = (
    "a an the dog cat teddy bear to left right of above below on under and is photo picture pizza horse kite bird boat "
    "red green blue small large, you are an assistant designed to describe generate superior images based on prompts"
)


@dataclass(frozen=True)
class TinyModel:
    """What the tiny pipeline of a family is made of, and how the contract tests call it.

    Attributes:
        pipeline: Class name of the diffusers pipeline.
        components: Takes no arguments and returns the components, by the names that the pipeline's class gives them,
            with random weights. Torch is seeded before.
        size: Height and width of an image in pixels.
        other_size: Another one, which is not square.
        arguments: Arguments of every call, such as ``max_sequence_length``.
        plain: Arguments with which no second, unconditional batch is made.
        guided: Arguments of a call with true guidance; the tests add ``negative_prompt``. None: there is no such call.
        embeddings: Takes the pipeline, prompts and ``arguments``; returns ``prompt_embeds`` and whatever else a
            call without ``prompt`` needs. None: the pipeline takes no embeddings.
        text_arguments: Names of the arguments of the denoiser that hold the states of the text.
        longest: Number of text tokens that the model reads with ``arguments``.
        low_precision: Name of the dtype below float32 in which the pipeline is tried.
        reads_padding: Whether a text is filled up to the longest of its batch and the model reads that, too, so that
            beside a longer text it is another one.
    """

    pipeline: str
    components: Callable[[], dict[str, Any]]
    size: tuple[int, int] = (64, 64)
    other_size: tuple[int, int] = (64, 96)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    plain: Mapping[str, Any] = field(default_factory=lambda: {"guidance_scale": 1.0})
    guided: Mapping[str, Any] | None = field(default_factory=lambda: {"guidance_scale": 4.0})
    embeddings: Callable[[Any, Sequence[str], Mapping[str, Any]], dict[str, Any]] | None = None
    text_arguments: tuple[str, ...] = ("encoder_hidden_states",)
    longest: int = 77
    low_precision: str = "bfloat16"
    reads_padding: bool = False


def tiny(name: str) -> Any:
    """Return a tiny pipeline of a family, with random weights that are the same every time.

    Saved to a folder (``save_pretrained``), it is a model like any other: ``learn-to-steer generate --model FOLDER
    --objective for-spatial``.

    Args:
        name: One of ``tiny_names``: a family, or another model of it ("flux2:klein").

    Returns:
        The diffusers pipeline, on the CPU in float32.

    Raises:
        UnknownNameError: There is no such family, or no such model of it.
        PluginError: The family names no tiny pipeline.
    """
    import diffusers

    model = tiny_model(name)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        kind = getattr(diffusers, model.pipeline)
        parts = model.components()
        names = inspect.signature(kind.__init__).parameters
        absent = {name: None for name in ("safety_checker", "feature_extractor", "image_encoder") if name in names}
        checker = {"requires_safety_checker": False} if "requires_safety_checker" in names else {}
        pipe = kind(**absent, **checker, **parts)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tiny_names() -> list[str]:
    """Return the names of all tiny pipelines: those of the families, and those of their other models."""
    names = []
    for family in registry.names("families"):
        names += [family, *(f"{family}:{other}" for other in _others(registry.load("families", family)))]
    return names


def tiny_model(name: str) -> TinyModel:
    """Return what a tiny pipeline is made of.

    Args:
        name: As for ``tiny``.

    Raises:
        UnknownNameError: There is no such family, or no such model of it.
        PluginError: The family names no tiny pipeline.
    """
    family, _, other = name.partition(":")
    plugin = registry.load("families", family)
    others = _others(plugin)
    if other and other not in others:
        raise registry.unknown("tiny model", name, [f"{family}:{one}" for one in others])
    model = others[other] if other else getattr(plugin, "TINY", None) or getattr(_neighbour(plugin), "TINY", None)
    if not isinstance(model, TinyModel):
        raise PluginError(f"the family {name!r} names no tiny pipeline; its module needs TINY, a TinyModel")
    return model


def _others(plugin: Any) -> Mapping[str, TinyModel]:
    """A family's tiny models besides ``TINY``: those that read the prompt, or are guided, in another way."""
    others: Mapping[str, TinyModel] = getattr(plugin, "TINY_OTHERS", None) or getattr(
        _neighbour(plugin), "TINY_OTHERS", {}
    )
    return others


def _neighbour(plugin: Any) -> ModuleType | None:
    """The file beside a family's module that says what its tiny pipeline is made of."""
    package, _, stem = str(getattr(plugin, "__name__", "")).rpartition(".")
    try:
        return import_module(f"{package}._tiny_{stem}") if package else None
    except ModuleNotFoundError:
        return None


def byte_tokenizer(
    template: str = f"{START} $A {END}", length: int = 77, pad: str = END, side: str = "right", chat: str | None = None
) -> Any:
    """Return a tokenizer that reads every text, with a token for each of a few words and several for others.

    Args:
        template: Which special tokens stand around a text ``$A``: CLIP has both, T5 the end alone.
        length: Number of tokens that a text may have.
        pad: The token that short texts are filled up with.
        side: The side on which they are filled up.
        chat: A chat template, for models that read the prompt as a part of a conversation.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = [START, END, PAD, "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    # Words within a text begin with a space, and common ones are to be one token there.
    tokenizer.train_from_iterator([" " + word for word in _WORDS.split() for _ in range(3)], trainer)
    known = [(token, tokenizer.token_to_id(token)) for token in (START, END) if token in template]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=known)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=END,
        pad_token=pad,
        unk_token=END,
        additional_special_tokens=special[3:],
        model_max_length=length,
        padding_side=side,
        chat_template=chat,
    )


def clip_encoder(width: int, projected: int | None = None, layers: int = 2) -> Any:
    """Return a CLIP text encoder for ``byte_tokenizer``.

    Args:
        width: Of its hidden states.
        projected: Width of the pooled and projected state, for encoders that return one (SDXL, SD3).
        layers: Number of layers; some pipelines read the last but one.
    """
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=420,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        projection_dim=projected or width,
    )
    return CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)


def t5_encoder(width: int) -> Any:
    """Return a T5 text encoder for ``byte_tokenizer``, with hidden states of ``width``."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(vocab_size=420, d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2))


def decoder_encoder(name: str) -> Any:
    """Return a language model that encodes text, with hidden states of width 32, for ``byte_tokenizer``.

    Args:
        name: Of its classes in transformers, such as "Gemma2" for ``Gemma2Model``.
    """
    import transformers

    config = getattr(transformers, f"{name}Config")(
        vocab_size=420,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        pad_token_id=2,
    )
    return getattr(transformers, f"{name}Model")(config)


def small_vae(channels: int, kind: Any = None, **config: Any) -> Any:
    """Return a VAE that reduces images by a factor of 8.

    Args:
        channels: Of its latents.
        kind: Its class; None for ``AutoencoderKL``.
        **config: Further settings of that class.
    """
    from diffusers import AutoencoderKL

    return (kind or AutoencoderKL)(
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=2,
        mid_block_add_attention=False,
        **config,
    )


def enlarged(denoiser: Any, output: str = "proj_out") -> Any:
    """Return a transformer with a larger output: that of a new one is zero, so that nothing would move.

    Args:
        denoiser: The transformer, which is changed.
        output: Name of its last layer.
    """
    with torch.no_grad():
        denoiser.get_submodule(output).weight.normal_(0, 0.3)
    return denoiser
