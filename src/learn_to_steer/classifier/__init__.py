"""The relation classifier: its network, its file format, and a reader for the authors' checkpoints."""

from learn_to_steer.classifier.file import load, push_to_hub, save
from learn_to_steer.classifier.network import ClassifierConfig, RelationClassifier
from learn_to_steer.classifier.official import import_official, read_official

__all__ = ["ClassifierConfig", "RelationClassifier", "import_official", "load", "push_to_hub", "read_official", "save"]
