"""Networks and tokenizers of transformers, from a folder or a hub id: silently, and whole or not at all."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from learn_to_steer.errors import DataError
from learn_to_steer.storage import is_hub_id, sha256


def load_network(network: Any, source: str, device: str = "cpu") -> tuple[Any, str]:
    """The network ``source``, of transformers' class ``network``, in fp32 evaluation mode, and which weights it is.

    ``source`` is a folder in transformers' format or a hub id ("owner/name"). The second value, for a detector's
    ``identity``, is the hub id and its commit, or the hash of a folder's weights. Raises DataError for a
    source that is not there, holds another kind of network, or lacks some of the weights.
    """
    from transformers import AutoConfig

    where, wanted = _place(source), network.config_class.model_type
    with _reading(source, f"name a folder or hub id of a {wanted} model", bars=not where.is_dir()):
        config = AutoConfig.from_pretrained(_id(where, source))
        if config.model_type != wanted:
            raise DataError(f"the weights {source} are of a {config.model_type} model, not of {wanted}; name others")
        model, report = network.from_pretrained(
            _id(where, source), config=config, dtype=torch.float32, output_loading_info=True
        )
    # Missing weights are random ones, which would find random things. A buffer is computed, not learned.
    missing = sorted(set(report["missing_keys"]) & {name for name, _ in model.named_parameters()})
    if missing:
        raise DataError(f"the weights {source} lack {len(missing)} tensors ({missing[0]}, ...); download them again")
    return model.to(device).eval().requires_grad_(False), _which(where, source, config)


def load_tokenizer(source: str, words: int) -> Any:
    """The tokenizer in ``source``, for a network that knows ``words`` tokens. Raises DataError as above."""
    from transformers import AutoTokenizer

    where = _place(source)
    with _reading(source, "its tokenizer must lie beside its weights", bars=not where.is_dir()):
        tokenizer = AutoTokenizer.from_pretrained(_id(where, source))
    ids = tokenizer("a dog and a cat").input_ids
    if len(set(ids)) < 4 or max(ids) >= words:  # without its files transformers may make an empty one
        raise DataError(f"the tokenizer in {source} does not fit its network; its files must lie beside the weights")
    return tokenizer


def encode(tokenizer: Any, texts: Sequence[str], length: int, device: Any, pad_all: bool = False) -> dict[str, Any]:
    """Tokens of ``texts``, cut at ``length`` and padded to the longest of them, or to ``length``."""
    padding = "max_length" if pad_all else True
    tokens = tokenizer(list(texts), padding=padding, truncation=True, max_length=length, return_tensors="pt")
    return {name: value.to(device) for name, value in tokens.items()}


def _place(source: str) -> Path:
    path = Path(source).expanduser()
    if not path.is_dir() and not is_hub_id(source):
        raise DataError(f"{source} is neither a folder nor a hub id (owner/name)")
    return path


def _id(where: Path, source: str) -> str:
    return str(where) if where.is_dir() else source


def _which(where: Path, source: str, config: Any) -> str:
    if where.is_dir():
        files = sorted(path for ending in ("safetensors", "bin") for path in where.glob(f"*.{ending}"))
        return "sha256:" + "+".join(sha256(path)[:12] for path in files)
    return f"{source}@{str(getattr(config, '_commit_hash', None) or 'main')[:12]}"


@contextmanager
def _reading(source: str, remedy: str, bars: bool) -> Iterator[None]:
    """Inside, transformers says nothing but shows ``bars`` of downloads; what it raises becomes a DataError."""
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
    except Exception as error:  # a stranger's folder can fail in any way: no file, torn JSON, other shapes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"the weights {source} could not be loaded ({reason}); {remedy}") from error
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
