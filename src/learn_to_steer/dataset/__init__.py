"""Labelled pictures x inversion x tap -> shards of attention maps, and their reader.

A folder of collected maps::

    manifest.json                settings, model, layout, classes, levels; what the source skipped; counts once complete
    shards/train-0000.safetensors  maps [n, 2, channels, side, side] fp16; label, prompted, level, group [n]
    shards/train-0000.jsonl      one line a row: picture, objects, prompt, ...
    shards/train-0000.json       counts, dropped pictures and both hashes; written last: with it the shard is done
"""

from learn_to_steer.dataset.collect import benchmark_pairs, collect
from learn_to_steer.dataset.config import CollectConfig
from learn_to_steer.dataset.levels import parsed, trained_levels
from learn_to_steer.dataset.reader import Rows
from learn_to_steer.dataset.verify import verify

__all__ = ["CollectConfig", "Rows", "benchmark_pairs", "collect", "parsed", "trained_levels", "verify"]
