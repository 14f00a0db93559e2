"""Collect the attention maps of labelled images, and read them back.

A collection is a folder::

    manifest.json                settings, layout, classes, noise levels; what was skipped; counts once complete
    shards/train-0000.safetensors  maps [n, 2, channels, side, side] fp16; label, prompted, level, group [n]
    shards/train-0000.jsonl      one line per row: image id, objects, prompt, ...
    shards/train-0000.json       counts, dropped images, and the hashes of the two files above; written last

If the model drew the images, there is also::

    pictures/drawn-0-0.png       the images
    pictures/train-0000.jsonl    one line per image: prompt, detections, and what became of each pair of objects
"""

from learn_to_steer.collection.collector import CollectionWorker, collect, collect_on
from learn_to_steer.collection.config import CollectConfig
from learn_to_steer.collection.map_dataset import MapDataset
from learn_to_steer.collection.noise_levels import parse_noise_levels, trained_noise_levels
from learn_to_steer.collection.preparation import (
    PATH,
    DrawingEstimate,
    benchmark_pairs,
    check_source,
    estimate_drawing,
)
from learn_to_steer.collection.progress import progress_bar
from learn_to_steer.collection.shards import Manifest, verify

__all__ = [
    "PATH",
    "CollectConfig",
    "CollectionWorker",
    "DrawingEstimate",
    "Manifest",
    "MapDataset",
    "benchmark_pairs",
    "check_source",
    "collect",
    "collect_on",
    "estimate_drawing",
    "parse_noise_levels",
    "progress_bar",
    "trained_noise_levels",
    "verify",
]
