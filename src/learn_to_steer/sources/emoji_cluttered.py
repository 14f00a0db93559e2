"""Rendered scenes with one to three further objects in each: cluttered training data, as photographs are.

As the source ``emoji`` otherwise. *For:* the ablation of the paper's Table 4.
"""

from functools import partial

from learn_to_steer.sources import emoji

NOTE = f"{emoji.NOTE}; further objects in every picture"
pictures = partial(emoji.pictures, crowded=1.0)
