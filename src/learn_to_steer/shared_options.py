"""Options that several commands have, and the bounds of numbers. Imports no torch, as ``configs``, which uses them."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from typer import Option

_sampling = partial(Option, rich_help_panel="Sampling")
_steering = partial(Option, rich_help_panel="Steering")
_benchmark = partial(Option, rich_help_panel="Benchmark")
_images = partial(Option, rich_help_panel="Images")
MODELS_OWN = "the model's own"  # how --help words a default of None

# Upper bounds of options: far above any use, but below what would fill the memory or overflow.
MAX_SEED = 2**63 - 1
MAX_TRAIN_SEED = 10**14  # seeds of epochs are multiples of it
MAX_IMAGES = 10_000  # of one prompt
MAX_LIMIT = 10_000_000
MAX_BATCH = 65_536
MAX_STEPS = 1000
MAX_SIDE = 8192  # pixels
MAX_GUIDANCE = 1000.0
MAX_TRIES = 1000

# Options that mean the same in several places.
_SPACY = "Name of a spaCy model that finds the objects in the prompt (needs the extra 'nlp')."
SpacyModel = Annotated[str | None, _steering(help=_SPACY, show_default="the built-in grammar", metavar="NAME")]
Data = Annotated[
    str | None,
    _benchmark(
        help="The prompts of a benchmark that reads them from a file (see: list benchmarks); 'download' fetches it.",
        show_default="none",
        metavar="FILE",
    ),
]
Detector = Annotated[
    str | None,
    _benchmark(
        help="Detector that finds the objects (see: list detectors); ':SOURCE' is a folder or hub id with its weights.",
        metavar="NAME[:SOURCE]",
        show_default=MODELS_OWN,
    ),
]
Objects = Annotated[
    str | None,
    _images(
        help="For pictures that the model draws: a text file with the names of the objects, one on each line.",
        show_default="the model's own, else common nouns",
        metavar="FILE",
    ),
]
Detectors = Annotated[
    str | None,
    _images(
        help="For pictures that the model draws: the detectors that label them (see: list detectors). Of several, what "
        "all agree on is kept.",
        show_default="the model's own, else owlv2",
        metavar="NAME[:SOURCE],...",
    ),
]
Contrast = Annotated[
    bool | None,
    _images(
        "--contrast/--no-contrast",
        help="For pictures that the model draws: read each also under a prompt with a wrong relation, so that the "
        "classifier does not learn from the words.",
        show_default="if the model obeys more than 0.4 of the words",
    ),
]
Inversion = Annotated[
    str | None,
    _sampling(
        help="How the noisy latents of an image are found (see: list inversions).",
        metavar="NAME",
        show_default="noise; of pictures that the model draws, path",
    ),
]
Against = Annotated[
    str | None,
    _benchmark(
        help="Compare with these results: the --out of another evaluate or score with the same prompts.",
        show_default="no comparison",
        metavar="DIR",
    ),
]
Similarity = Annotated[
    str | None,
    _benchmark(
        help="With --against: how similar the images of the two are, measured by an embedder (see: list embedders) or "
        "by a DINO or CLIP model (folder or hub id).",
        show_default="not measured",
        metavar="NAME",
    ),
]
Maps = Annotated[
    int,
    Option(
        min=0,
        max=MAX_LIMIT,
        help="Keep attention maps of so many images, for report.html.",
        rich_help_panel="Output",
        metavar="N",
    ),
]
Tries = Annotated[
    int,
    _steering(
        min=1,
        max=MAX_TRIES,
        help="How often an image is made at most. One that is wrong is made again from other noise; the best is kept.",
    ),
]
Verifier = Annotated[
    str | None,
    _steering(
        help="Detector that looks at finished images and tells whether they are right, or 'classifier': the last look "
        "of the loss's classifier, which cannot see a missing or doubled object. In evaluate, with the loss "
        "for-unified: the detector of its second stage, which makes an image again and keeps the better one.",
        show_default="with several tries the model's own, else the classifier",
        metavar="NAME[:SOURCE]",
    ),
]
Seed = Annotated[
    int, _sampling(min=0, max=MAX_SEED, help="Random seed: same seed, prompt and image number, same initial noise.")
]
