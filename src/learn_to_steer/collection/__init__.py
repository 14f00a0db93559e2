"""Labelled images x inversion x attention capture -> shards of attention maps, and their reader.

A collection is a folder::

    manifest.json                settings, model, layout, classes, levels; what the source skipped; counts once complete
    shards/train-0000.safetensors  maps [n, 2, channels, side, side] fp16; label, prompted, level, group [n]
    shards/train-0000.jsonl      one line a row: picture, objects, prompt, ...
    shards/train-0000.json       counts, dropped pictures and both hashes; written last: with it the shard is done
"""

from learn_to_steer.collection.collector import benchmark_pairs, collect
from learn_to_steer.collection.config import CollectConfig
from learn_to_steer.collection.map_dataset import MapDataset
from learn_to_steer.collection.noise_levels import parse_noise_levels, trained_noise_levels
from learn_to_steer.collection.progress import progress_bar
from learn_to_steer.collection.shards import Manifest, verify

__all__ = [
    "CollectConfig",
    "Manifest",
    "MapDataset",
    "benchmark_pairs",
    "collect",
    "parse_noise_levels",
    "progress_bar",
    "trained_noise_levels",
    "verify",
]
