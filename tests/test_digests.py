"""Hashes of weights: files record them, so their values stay."""

import torch
from torch import nn

from learn_to_steer import digests


def network() -> nn.Module:
    """A linear layer of 10 x 10 weights and a norm, filled with known numbers."""
    layers = nn.Sequential(nn.Linear(10, 10), nn.LayerNorm(10))
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.copy_(torch.arange(parameter.numel()).reshape(parameter.shape) / 8)
    return layers


def test_values_are_those_in_files_of_version_0_1() -> None:
    assert digests.sampled_weights(network()) == "6cb65129d369"
    assert digests.norms_and_biases(network()) == "b4131c8b390e"


@torch.no_grad()
def test_which_weights_count() -> None:
    first, changed = network(), network()
    changed[0].weight[9, 9] += 1  # beyond the first 64 values, and no norm
    assert digests.sampled_weights(changed) == digests.sampled_weights(first)
    changed[0].weight[6, 3] += 1
    assert digests.sampled_weights(changed) != digests.sampled_weights(first)
    assert digests.norms_and_biases(changed) == digests.norms_and_biases(first)
    changed[1].bias[0] += 1
    assert digests.norms_and_biases(changed) != digests.norms_and_biases(first)


def test_half_precision_of_the_same_values_has_the_same_hash() -> None:
    for digest in (digests.sampled_weights, digests.norms_and_biases):
        assert digest(network().half()) == digest(network())
