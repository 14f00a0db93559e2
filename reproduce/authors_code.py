"""Runs the authors' own code, imported from a clone that the user made; used by authors_side_by_side.py.

Nothing of their code is in this repository: its licence is non-commercial. ``patches_for`` says what is replaced in it:
sizes, paths, the device.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import nn

from authors_patches import Patch, PatchedLine, patched_modules, require_applied, version_note
from learn_to_steer.classifier import RelationClassifier
from learn_to_steer.classifier.official import NAMES
from learn_to_steer.errors import DataError, MismatchError
from learn_to_steer.families import Variant, find
from learn_to_steer.maps import Layout
from learn_to_steer.prompts import Relation

SPACY_MODEL = "en_core_web_sm"
SIDE = 16  # of the maps that their classifiers read
PIXELS = {"sd": 8, "flux": 16}  # of an image, for one place of its largest map
HUB_ID = {"sd": "stabilityai/stable-diffusion-2-1-base", "flux": "black-forest-labs/FLUX.1-dev"}
VERSION = {"sd": "sd2", "flux": "dev"}
GENERATOR = {"sd": "Sd2ImageGenerator", "flux": "FluxImageGenerator"}


class AuthorsCodeError(DataError):
    """The authors' code failed on a prompt."""


def patches_for(variant: Variant, pipeline: Path) -> list[Patch]:
    """Return what has to be replaced in the authors' code so that it runs a model on the CPU.

    Args:
        variant: The model's facts.
        pipeline: A folder with its pipeline.
    """
    kind, arguments = GENERATOR[variant.family], variant.arguments
    published = {"sd": ("50", "7.5"), "flux": ("50", "3.5")}[variant.family]
    steered = -(-variant.steps // 2)
    listed = [
        Patch("utils.py", "diffusion_version_to_model_id", repr(HUB_ID[variant.family]), repr(str(pipeline)), "path"),
        Patch("run.py", "load_relation_classifier", "'cuda'", "'cpu'", "device"),
        Patch("run.py", f"{kind}.__init__", published[0], str(variant.steps), "the model's steps"),
        Patch("run.py", f"{kind}.__init__", published[1], str(variant.guidance), "the model's guidance"),
        Patch("run.py", "get_test_time_opt_config", "25", str(steered), "half of the steps", key="end_idx"),
    ]
    if variant.family == "sd":
        listed += [
            Patch("run.py", f"{kind}.load_pipeline", "'cuda'", "'cpu'", "device"),
            Patch("run.py", f"{kind}.generate_image", "512", str(variant.resolution), "the model's size in pixels"),
        ]
    else:
        length = str(arguments["max_sequence_length"])
        listed += [
            Patch("run.py", f"{kind}.load_pipeline", "torch.cuda.is_available()", "False", "device"),
            Patch(
                "run.py", f"{kind}.load_pipeline", "torch.bfloat16", "torch.float32", "dtype, as for all others here"
            ),
            Patch("run.py", f"{kind}.generate_image", "512", length, "the model's text tokens"),
        ]
    if not has_spacy():
        why = f"spaCy or its {SPACY_MODEL} is not installed: it is given the relations that ours found"
        listed.append(Patch("run.py", "ImageGenerator.__init__", "PromptParser()", "None", why))
    return listed


def has_spacy() -> bool:
    """Return whether what the authors' parser needs is installed."""
    return find_spec("spacy") is not None and find_spec(SPACY_MODEL) is not None


def write_checkpoint(
    classifier: RelationClassifier, layout: Layout, levels: Sequence[float], map_side: int, path: Path
) -> None:
    """Write a classifier of ours as a checkpoint that the authors' code reads.

    Their time embedding has a row for each denoising step. It gets the row that ours reads in that step, so both
    compute the same.

    Args:
        classifier: The classifier.
        layout: The layout of all maps of the model.
        levels: The noise level of each denoising step.
        map_side: Height and width of the model's largest maps.
        path: The file to write.

    Raises:
        MismatchError: The authors' code cannot give the classifier the maps that it was trained on.
    """
    config, own = classifier.config, classifier.layout
    if (
        own is None
        or own.layers != layout.layers
        or (own.side, own.renormalise, own.softmax, own.reduce)
        != (
            *(SIDE, True, "text"),
            "none",
        )
    ):
        raise MismatchError(
            f"the authors' code reads the maps of all {len(layout.layers)} layers, {SIDE} x {SIDE}, a channel for each "
            "head; this classifier was trained on other maps; name one for their code with --authors-classifier"
        )
    steps = len(levels)
    rows = torch.tensor([config.row(level, step, steps) for step, level in enumerate(levels)])
    state = {
        name: value[rows] if "timestep_embedding" in name else value for name, value in classifier.state_dict().items()
    }
    theirs = {ours: name for name, ours in NAMES.items()}
    names = {index: theirs.get(name, name) for index, name in enumerate(config.classes)}
    extractor = {
        "use_mean": config.extractor == "mean",
        "timestep_embedding": {"enable": config.inject != "none", "mode": config.inject},
        "dropout": config.dropout,
        "nhead": config.heads,
        "dim_feedforward": config.hidden,
        "num_layers": config.layers,
        "layer_attn_nheads": config.query_heads,
    }
    head = {
        "mode": "multiclass",
        "dropout": config.dropout,
        "timestep_embedding_dim": config.time_width,
        "nhead": config.head_heads,
        "dim_feedforward": config.head_hidden,
        "num_layers": config.head_layers,
    }
    checkpoint = {
        "model_state_dict": state,
        "rel_name_to_idx": {name: index for index, name in names.items()},
        "idx_to_rel_name": names,
        "input_channels": config.channels,
        "config": {
            "num_timesteps": steps,
            "map_size": config.side,
            "d_model": config.width,
            "extractor": extractor,
            "classifier": head,
        },
        "training_config": {"timesteps": list(range(steps)), "orig_map_size": map_side},
    }
    torch.save(checkpoint, path)


@dataclass
class GivenRelations:
    """Stands in for the authors' parser where spaCy is missing: it returns relations that it was given."""

    triplets: list[tuple[str, str, str]] = field(default_factory=list)

    def extract_relation_triplets_from_prompt(self, prompt: str) -> list[tuple[str, str, str]]:
        return self.triplets


def triplets(prompt: str, relations: Sequence[Relation]) -> list[tuple[str, str, str]]:
    """Return relations as the authors' parser does: objects in the prompt's words, predicates under their names."""
    theirs = {ours: name for name, ours in NAMES.items()}

    def words(name: str, span: tuple[int, int] | None) -> str:
        return prompt[slice(*span)] if span else name

    return [
        (
            words(one.subject, one.subject_span),
            theirs.get(one.predicate, one.predicate),
            words(one.object, one.object_span),
        )
        for one in relations
    ]


@dataclass
class AuthorsLoop:
    """The authors' image generator, with counts of what it does.

    Attributes:
        generator: Theirs.
        patched: The lines of their code that were patched.
        workspace: The folder that they write their logs to.
        looks: Forwards of the denoiser that they made for the loss of the current image.
        passes: Those of them with a backward.
    """

    generator: Any
    patched: Sequence[PatchedLine]
    workspace: Path
    looks: int = 0
    passes: int = 0

    def draw(self, prompt: str, relations: Sequence[Relation], seed: int) -> Image:
        """Draw one image.

        Args:
            prompt: The prompt.
            relations: Its relations; their own parser finds them again where spaCy is installed.
            seed: Seed of a torch generator on the CPU.

        Returns:
            The image. ``looks`` and ``passes`` are then those of this image.

        Raises:
            AuthorsCodeError: Their code failed.
        """
        self.looks = self.passes = 0
        if isinstance(self.generator.prompt_parser, GivenRelations):
            self.generator.prompt_parser.triplets = triplets(prompt, relations)
        try:
            with redirect_stdout(sys.stderr):
                image: Image = self.generator.generate_image(prompt, seed, str(self.workspace), "image")
        except Exception as error:  # code of others can fail in any way
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise AuthorsCodeError(f"the authors' code failed on {prompt!r}: {reason}") from error
        return image

    def count(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Count the forwards for the loss and their backwards; a pre-hook of the denoiser."""
        if torch.is_grad_enabled():
            self.looks += 1
            latents = args[0] if args else kwargs["hidden_states"]
            latents.register_hook(self._count_backward)

    def _count_backward(self, gradient: torch.Tensor) -> None:
        self.passes += 1


@contextmanager
def authors_loop(
    clone: Path, pipe: Any, variant: Variant, classifier: RelationClassifier, levels: Sequence[float], folder: Path
) -> Iterator[AuthorsLoop]:
    """Load the authors' code with a model and a classifier of ours.

    Args:
        clone: The folder of their repository.
        pipe: The pipeline; theirs has the same weights, in fp32.
        variant: The model's facts.
        classifier: The classifier, which reads all layers.
        levels: The noise level of each denoising step.
        folder: An empty folder for the files that their code reads and writes.

    Yields:
        Their loop.

    Raises:
        DataError: The clone's code cannot be run, or is not the code that the patches were written for.
        MismatchError: As in ``write_checkpoint``.
    """
    family = find(pipe)
    denoiser = getattr(pipe, family.denoiser)
    checkpoint, pipeline = folder / "classifier.pth", folder / "pipeline"
    map_side = variant.resolution // PIXELS[family.name]
    write_checkpoint(classifier, family.layout(denoiser), levels, map_side, checkpoint)
    pipe.save_pretrained(pipeline)
    patches = patches_for(variant, pipeline)
    with patched_modules(clone, patches) as patched:
        settings = argparse.Namespace(
            diffusion_version=VERSION[family.name],
            relation_classifier_model_path=str(checkpoint),
            map_size=map_side,
            visualize_cross_attn_maps=False,
        )
        try:
            with redirect_stdout(sys.stderr), warnings.catch_warnings(action="ignore"):
                generator = importlib.import_module("run").init_image_generator(settings)
        except Exception as error:  # code of others can fail in any way
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise DataError(
                f"the authors' code in {clone} could not be run ({reason}); {version_note(clone)}"
            ) from error
        require_applied(clone, patches, patched)
        if generator.prompt_parser is None:
            generator.prompt_parser = GivenRelations()
        loop = AuthorsLoop(generator, patched, folder / "logs")
        with getattr(generator.pipe, family.denoiser).register_forward_pre_hook(loop.count, with_kwargs=True):
            yield loop


def require_clone(clone: Path) -> None:
    """Require that a folder can be the authors' repository.

    Raises:
        DataError: It has no run.py.
    """
    if not (clone / "run.py").is_file():
        raise DataError(
            f"{clone} is no clone of the authors' repository: it has no run.py; name the folder that has it"
        )
