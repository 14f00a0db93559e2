"""Load networks of transformers from a folder or hub id, and prepare images and texts for them.

Loading prints nothing, and fails when weights are missing. transformers' own image processors are not used: they need
torchvision or SciPy, and they resize and pad images in other ways than the published evaluations do.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor
from torch.nn import functional

from learn_to_steer.errors import DataError
from learn_to_steer.storage import sha256

# Mean and standard deviation of red, green and blue in [0, 1].
IMAGENET_COLORS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP_COLORS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def load_network(network: Any, source: str, device: str = "cpu") -> tuple[Any, str]:
    """Load a network in fp32 evaluation mode.

    Args:
        network: Its class in transformers.
        source: A folder in transformers' format, or a hub id ("owner/name").
        device: The torch device.

    Returns:
        The network; and its weights as a detector's ``identity`` names them: the hub id and its commit, or the hash of
        the folder's weights.

    Raises:
        DataError: The source does not exist, holds another kind of network, or lacks some weights.
    """
    from transformers import AutoConfig

    path, expected = _checked_path(source), network.config_class.model_type
    with _reading(source, f"name a folder or hub id of a {expected} model", bars=not path.is_dir()):
        config = AutoConfig.from_pretrained(_location(path, source), trust_remote_code=False)
        if config.model_type != expected:
            raise DataError(f"the weights {source} are of a {config.model_type} model, not of {expected}; name others")
        model, report = network.from_pretrained(
            _location(path, source), config=config, dtype=torch.float32, output_loading_info=True
        )
    # Missing weights would be random ones. Buffers are computed, so they may be missing.
    missing = sorted(set(report["missing_keys"]) & {name for name, _ in model.named_parameters()})
    if missing:
        raise DataError(f"the weights {source} lack {len(missing)} tensors ({missing[0]}, ...); download them again")
    return model.to(device).eval().requires_grad_(False), _weights_identity(path, source, config)


def load_tokenizer(source: str, vocabulary_size: int) -> Any:
    """Load a tokenizer.

    Args:
        source: As in ``load_network``.
        vocabulary_size: Number of token ids that the network knows.

    Returns:
        The tokenizer.

    Raises:
        DataError: The source has no tokenizer, or one that does not fit the network.
    """
    from transformers import AutoTokenizer

    path = _checked_path(source)
    with _reading(source, "its tokenizer must lie beside its weights", bars=not path.is_dir()):
        tokenizer = AutoTokenizer.from_pretrained(_location(path, source), trust_remote_code=False)
    ids = tokenizer("a dog and a cat").input_ids
    if len(set(ids)) < 4 or max(ids) >= vocabulary_size:  # without its files, transformers may build an empty tokenizer
        raise DataError(f"the tokenizer in {source} does not fit its network; its files must lie beside the weights")
    return tokenizer


def encode(tokenizer: Any, texts: Sequence[str], length: int, device: Any, pad_all: bool = False) -> dict[str, Any]:
    """Tokenize texts.

    Args:
        tokenizer: A tokenizer of transformers.
        texts: The texts.
        length: Number of tokens after which a text is truncated.
        device: The torch device of the result.
        pad_all: Pad to ``length`` instead of to the longest text.

    Returns:
        The network's keyword arguments.
    """
    padding = "max_length" if pad_all else True
    tokens = tokenizer(list(texts), padding=padding, truncation=True, max_length=length, return_tensors="pt")
    return {name: value.to(device) for name, value in tokens.items()}


def to_tensor(image: Image) -> Float[Tensor, "1 3 height width"]:
    """An RGB image as a float32 tensor with values in [0, 255]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()


def resize(
    pixels: Float[Tensor, "n channels _ _"], size: tuple[int, int], antialias: bool = False
) -> Float[Tensor, "n channels height width"]:
    """Resize bilinearly to ``size`` = (height, width) in pixels, with ``align_corners=False``."""
    return functional.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=antialias)


def normalise(
    pixels: Float[Tensor, "n 3 height width"], colors: tuple[tuple[float, ...], tuple[float, ...]]
) -> Float[Tensor, "n 3 height width"]:
    """Subtract the mean of ``colors`` from pixels in [0, 255], and divide by their standard deviation."""
    mean, deviation = (pixels.new_tensor(values)[:, None, None] * 255 for values in colors)
    return (pixels - mean) / deviation


def keep_ratio(size: tuple[int, int], short: int, long: int) -> tuple[int, int]:
    """The largest (height, width) of the same aspect ratio whose sides are at most ``short`` and ``long`` pixels."""
    factor = min(short / min(size), long / max(size))
    height, width = (max(int(side * factor + 0.5), 1) for side in size)
    return height, width


def _checked_path(source: str) -> Path:
    path = Path(source).expanduser()
    if not path.is_dir() and (source.startswith((".", "/", "~")) or source.count("/") != 1):
        raise DataError(f"the weights {source} are neither a folder nor a hub id; name one of the two (owner/name)")
    return path


def _location(path: Path, source: str) -> str:
    """What ``from_pretrained`` loads: the folder if there is one, else the hub id."""
    return str(path) if path.is_dir() else source


def _weights_identity(path: Path, source: str, config: Any) -> str:
    if path.is_dir():
        files = sorted(file for suffix in ("safetensors", "bin") for file in path.glob(f"*.{suffix}"))
        return "sha256:" + "+".join(sha256(file)[:12] for file in files)
    return f"{source}@{str(getattr(config, '_commit_hash', None) or 'main')[:12]}"


@contextmanager
def _reading(source: str, remedy: str, bars: bool) -> Iterator[None]:
    """Silence transformers, except for download bars with ``bars``, and turn what it raises into DataError."""
    from transformers.utils import logging

    level, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not bars:
        logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except Exception as error:  # a user's folder can fail in any way: no file, broken JSON, other shapes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"the weights {source} could not be loaded ({reason}); {remedy}") from error
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
