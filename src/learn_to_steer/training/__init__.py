"""Train the relation classifier on collected maps, and measure accuracy and leakage."""

from learn_to_steer.training.config import TrainConfig
from learn_to_steer.training.process_group import ProcessGroup
from learn_to_steer.training.train_classifier import add_metrics, train

__all__ = ["ProcessGroup", "TrainConfig", "add_metrics", "train"]
