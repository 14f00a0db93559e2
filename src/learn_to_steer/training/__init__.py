"""Train the relation classifier on collected maps, and say how much of it is leakage."""

from learn_to_steer.training.config import TrainConfig
from learn_to_steer.training.train import train

__all__ = ["TrainConfig", "train"]
