"""Measure a model, steered or not: generate, detect, score, summarise; resumable after a kill.

``evaluate`` runs a benchmark into a folder of GenEval's layout, ``score`` judges pictures that are there already.
Their parts serve the command line as well:
``open_model`` (pipeline and steering), ``draw`` (pictures whose noise depends on seed, prompt and index only)
and ``find_detector`` and ``judge`` (boxes and the verdict on them).
"""

from learn_to_steer.configs import EvaluateConfig, ModelConfig, ScoreConfig
from learn_to_steer.evaluation.generate import Job, Picture, draw, generator
from learn_to_steer.evaluation.model import Model, open_model
from learn_to_steer.evaluation.rescore import score
from learn_to_steer.evaluation.run import evaluate
from learn_to_steer.evaluation.score import find_detector, judge
from learn_to_steer.evaluation.summary import compared, summarise

__all__ = [
    "EvaluateConfig",
    "Job",
    "Model",
    "ModelConfig",
    "Picture",
    "ScoreConfig",
    "compared",
    "draw",
    "evaluate",
    "find_detector",
    "generator",
    "judge",
    "open_model",
    "score",
    "summarise",
]
