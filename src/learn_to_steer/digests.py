"""Hashes of a network's weights, as they are recorded in files.

There are two, because each kind of file has its own and both must stay comparable with files that exist already:
``sampled_weights`` is part of a collection's manifest and of the checkpoints trained on it, ``norms_and_biases`` of the
summaries and reports of images.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

DIGITS = 12


def sampled_weights(network: nn.Module, dtype: torch.dtype | None = None) -> str:
    """Return 12 hex digits of a hash of the name and the first 64 values of every tensor of a network.

    Args:
        network: The network.
        dtype: The dtype to which the values are rounded first; None: they are taken as they are.
    """
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        some = tensor.detach().flatten()[:64].to(dtype or tensor.dtype).float().cpu()
        digest.update(name.encode() + some.numpy().tobytes())
    return digest.hexdigest()[:DIGITS]


def norms_and_biases(network: nn.Module) -> str:
    """Return 12 hex digits of a hash of all one-dimensional parameters of a network, without their names."""
    digest = hashlib.sha256()
    for parameter in network.parameters():
        if parameter.ndim == 1:
            digest.update(parameter.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:DIGITS]
