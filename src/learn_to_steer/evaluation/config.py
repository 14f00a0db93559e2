"""What one evaluation is: a benchmark, a model, how many images, where to."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from learn_to_steer.evaluation.model import ModelConfig

# They change neither a picture nor its verdict, so a folder may be completed with other ones. What a benchmark
# reads is checked by its hash, wherever it lies.
FREE = ("out", "data", "images", "limit", "batch", "device", "offload", "checkpointing", "against", "similarity")


@dataclass(frozen=True)
class EvaluateConfig(ModelConfig):
    """A model on a benchmark, or on the prompts of a JSON-lines file ``prompts``.

    ``data`` is the file of a benchmark that reads one. ``images`` a prompt, of a seeded, stratified subset of
    ``limit`` prompts. ``detector`` None is the one that the model's variant names;
    ``verifier`` is the one that FOR's second stage asks (``noise_refinement``), None leaves that stage out. ``out`` is
    the folder of the results, ``batch`` the number of images of one pipeline call. ``against`` is the folder of another
    evaluation, whose difference is reported; with ``similarity`` (an embedder of ``likeness``) the pictures are
    compared too.
    """

    benchmark: str | None = None
    prompts: str | None = None
    data: str | None = None
    detector: str | None = None
    verifier: str | None = None
    images: int = 4
    limit: int | None = None
    seed: int = 0
    out: str = "out/evaluation"
    batch: int = 8
    against: str | None = None
    similarity: str | None = None

    @property
    def rows(self) -> int:
        return self.batch

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"lora": list(self.lora)}  # as JSON has it

    def decisive(self) -> dict[str, Any]:
        """The settings that a picture or its verdict depends on."""
        values = asdict(self)
        return {field.name: values[field.name] for field in fields(self) if field.name not in FREE}
