"""Rendered scenes that show nothing but the two objects: clean training data, as synthetic pictures are.

As the source ``emoji`` otherwise. *For:* the ablation of the paper's Table 4.
"""

from functools import partial

from learn_to_steer.sources import emoji

NOTE = f"{emoji.NOTE}; nothing else in the picture"
pictures = partial(emoji.pictures, crowded=0.0)
