"""Measure a model, steered or not: generate images, score them with a detector, summarise.

``evaluate`` runs a benchmark and writes its images into a folder of GenEval's layout; a run that was stopped can be
continued. ``score`` scores images that exist already. Their parts are useful alone: ``open_model`` (pipeline and
steering), ``draw`` (images whose noise depends on seed, prompt and index only) and ``load_scorer`` (a detector that
passed its self-test, and the scores that follow from its detections).
"""

from learn_to_steer.configs import EvaluateConfig, ModelConfig, ScoreConfig
from learn_to_steer.evaluation.evaluate_model import evaluate
from learn_to_steer.evaluation.generation import GeneratedImage, Job, draw, noise_generator, steerable, takes_callback
from learn_to_steer.evaluation.model import Model, open_model
from learn_to_steer.evaluation.results import summarise
from learn_to_steer.evaluation.run_comparison import compare_rows
from learn_to_steer.evaluation.score_images import score
from learn_to_steer.evaluation.scoring import Scorer, load_scorer
from learn_to_steer.image_files import png_bytes
from learn_to_steer.result_rows import image_path

__all__ = [
    "EvaluateConfig",
    "GeneratedImage",
    "Job",
    "Model",
    "ModelConfig",
    "ScoreConfig",
    "Scorer",
    "compare_rows",
    "draw",
    "evaluate",
    "image_path",
    "load_scorer",
    "noise_generator",
    "open_model",
    "png_bytes",
    "score",
    "steerable",
    "summarise",
    "takes_callback",
]
