"""The relation classifier: network, file, and a reader for the authors' checkpoints."""

from learn_to_steer.classifier.file import load, save
from learn_to_steer.classifier.network import ClassifierConfig, RelationClassifier
from learn_to_steer.classifier.official import read_official

__all__ = ["ClassifierConfig", "RelationClassifier", "load", "read_official", "save"]
