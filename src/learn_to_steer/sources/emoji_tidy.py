"""Rendered scenes in tidy layouts, on the grid of ``flux:emoji``'s tokens, as that model is trained on.

As the source ``emoji`` otherwise.
"""

from functools import partial

from learn_to_steer.emoji.tidy import CELLS
from learn_to_steer.sources import emoji

NOTE = f"{emoji.NOTE}; upright, two sizes, on a grid"
pictures = partial(emoji.pictures, cells=CELLS)
