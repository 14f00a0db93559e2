"""Where a map stands: its centre of mass and spread, and how far two centres are on the wrong side."""

from __future__ import annotations

import torch
from torch import Tensor

# Predicate -> the axis it is about (0: x, rightward; 1: y, downward), and whether the subject has the smaller value.
SIDES = {"left of": (0, True), "right of": (0, False), "above": (1, True), "below": (1, False)}


def centre(maps: Tensor, last: float) -> Tensor:
    """Expected (x, y), (..., 2), of maps (..., height, width); both axes run from 0 to ``last``."""
    weights = maps / maps.sum((-2, -1), keepdim=True)
    x = (weights.sum(-2) * axis(maps.shape[-1], last, maps)).sum(-1)
    y = (weights.sum(-1) * axis(maps.shape[-2], last, maps)).sum(-1)
    return torch.stack([x, y], dim=-1)


def variance(maps: Tensor, last: float) -> Tensor:
    """Expected squared distance from the centre, (...,), in the same units."""
    weights = maps / maps.sum((-2, -1), keepdim=True)
    middle = centre(maps, last)
    x = (axis(maps.shape[-1], last, maps) - middle[..., :1]) ** 2
    y = (axis(maps.shape[-2], last, maps) - middle[..., 1:]) ** 2
    return (weights * (y[..., :, None] + x[..., None, :])).sum((-2, -1))


def separation(predicate: str, subject: Tensor, reference: Tensor) -> Tensor:
    """How far the centre ``subject`` (..., 2) lies on its right side of ``reference``; negative on the wrong one."""
    along, smaller = SIDES[predicate]
    apart = reference[..., along] - subject[..., along]
    return apart if smaller else -apart


def axis(size: int, last: float, like: Tensor) -> Tensor:
    """Coordinates of ``size`` cells, from 0 to ``last``."""
    return torch.linspace(0, last, size, device=like.device, dtype=like.dtype)
