"""The relation classifier: network, file, and a reader for the authors' checkpoints."""

from learn_to_steer.classifier.file import load, save
from learn_to_steer.classifier.network import ClassifierConfig, RelationClassifier
from learn_to_steer.classifier.official import import_official, read_official

__all__ = ["ClassifierConfig", "RelationClassifier", "import_official", "load", "read_official", "save"]
