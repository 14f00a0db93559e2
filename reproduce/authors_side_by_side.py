"""The authors' own code beside ours: CPU time, passes and accuracy from the same noise, in one run.

    git clone https://github.com/sapir1779/learn-to-steer ../authors
    python reproduce/authors_side_by_side.py --authors ../authors                       # a quarter of an hour
    python reproduce/authors_side_by_side.py --authors ../authors --model flux:emoji --json

Their licence is non-commercial, so their code is not part of this repository. The script runs your own clone of it. In
memory it replaces sizes, paths, the device and packages that are not installed, nothing of the method, and it lists
every line that it replaces.

Validation prompts, one image each, one image a call, one thread, fp32. Each prompt is drawn in four ways: "plain"
without steering; "authors" by their code; "official" by our profile of that name, which is their method; "default" by
our default. The order goes round from prompt to prompt. Their code and "official" use a classifier of all layers. Time
is CPU time of the whole call. A ratio is one of mean times; its 95 % interval is a paired bootstrap over prompts.

Their parser needs spaCy and its model ``en_core_web_sm``. Where these are not installed, their code is given the
relations that ours found. A prompt on which their code fails is left out and named. Numbers go to
out/authors_side_by_side/MODEL.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image

from authors_code import AuthorsCodeError, AuthorsLoop, authors_loop, has_spacy, require_clone
from authors_patches import PatchedLine, commit_of
from learn_to_steer import storage
from learn_to_steer.benchmarks import BenchmarkPrompt, prompts, stratified
from learn_to_steer.classifier import load
from learn_to_steer.configs import ModelConfig
from learn_to_steer.errors import SteerError, UnsupportedError
from learn_to_steer.evaluation.generation import Job, draw, noise_generator
from learn_to_steer.evaluation.model import Model, open_model
from learn_to_steer.evaluation.scoring import Scorer, default_detector, load_scorer
from learn_to_steer.families import find
from learn_to_steer.losses.learned import Learned
from learn_to_steer.statistics import clustered_interval
from learn_to_steer_emoji.sprites import canonical_names

PLAIN, AUTHORS, OFFICIAL, DEFAULT = WAYS = ("plain", "authors", "official", "default")
RATIOS = (
    (AUTHORS, DEFAULT),
    (AUTHORS, OFFICIAL),
    (AUTHORS, PLAIN),
    (DEFAULT, PLAIN),
)
MODELS = ("sd:emoji", "flux:emoji")
Drawn = tuple[Image, int, int]  # an image, passes, checks


@dataclass(frozen=True)
class Row:
    """One image.

    Attributes:
        prompt: Its prompt.
        way: How it was drawn.
        seconds: CPU time of the call.
        passes: Iterations with a backward.
        checks: Forwards for the loss without a backward.
        correct: Whether the relation holds.
        once: Whether each object is there exactly once.
    """

    prompt: str
    way: str
    seconds: float
    passes: int
    checks: int
    correct: bool
    once: bool


def ours(model: Model, job: Job, seed: int, *, steer: bool) -> Drawn:
    """Draw an image with our code."""
    (drawn,) = draw(model, [job], seed, steer=steer)
    report = drawn.report
    return drawn.image, report.passes if report else 0, report.checks if report else 0


def theirs(loop: AuthorsLoop, job: Job, seed: int) -> Drawn:
    """Draw an image with the authors' code, from the same noise."""
    noise = noise_generator(seed, job.prompt, job.index).initial_seed()
    image = loop.draw(job.prompt, job.relations, noise)
    return image, loop.passes, loop.looks - loop.passes


def noise_levels(model: Model, job: Job, seed: int) -> list[float]:
    """Return the noise level of each denoising step, and warm up."""
    family = find(model.pipe)
    denoiser = getattr(model.pipe, family.denoiser)
    levels: list[float] = []

    def read(module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        levels.append(family.noise_level(model.pipe, family.read(denoiser, args, kwargs).time))

    with denoiser.register_forward_pre_hook(read, with_kwargs=True):
        ours(model, job, seed, steer=False)
    return levels


def measure(
    ways: Mapping[str, Callable[[Job], Drawn]], prompt: BenchmarkPrompt, turn: int, scorer: Scorer
) -> tuple[list[Row], int]:
    """Draw a prompt in every way.

    Args:
        ways: The ways by name.
        prompt: The prompt.
        turn: Which of the ways comes first.
        scorer: The detector.

    Returns:
        The images' numbers, and by how much the pictures of the authors' code and of our profile "official" differ: the
        largest difference of a value, of 255.

    Raises:
        AuthorsCodeError: The authors' code failed.
    """
    rows = []
    images: dict[str, Image] = {}
    for way in (*WAYS[turn:], *WAYS[:turn]):
        began = time.process_time()
        image, passes, checks = ways[way](Job(prompt.prompt, prompt.relations, 0))
        seconds = time.process_time() - began
        score = scorer.score(prompt, scorer.detect([image], [prompt])[0])
        rows.append(Row(prompt.prompt, way, seconds, passes, checks, score["correct"], bool(score["once"])))
        images[way] = image
    authors, official = (np.asarray(images[way].convert("RGB"), dtype=int) for way in (AUTHORS, OFFICIAL))
    return rows, int(np.abs(authors - official).max())


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Return means of one way, with 95 % intervals over prompts."""
    clusters = [row.prompt for row in rows]
    values = {
        "correct": [float(row.correct) for row in rows],
        "once": [float(row.once) for row in rows],
        "seconds": [row.seconds for row in rows],
    }
    result: dict[str, Any] = {"images": len(rows)}
    for name, numbers in values.items():
        result[name] = float(np.mean(numbers))
        result[f"{name}_interval"] = clustered_interval(numbers, clusters)
    return result | {
        "passes": float(np.mean([row.passes for row in rows])),
        "checks": float(np.mean([row.checks for row in rows])),
    }


def ratio_of_means(
    first: Sequence[float], second: Sequence[float], draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Return the ratio of two means over the same prompts, and its 95 % interval (percentile bootstrap, paired)."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    times = np.random.default_rng(seed).multinomial(len(a), np.full(len(a), 1 / len(a)), size=draws)
    low, high = np.quantile((times @ a) / (times @ b), [0.025, 0.975])
    return float(a.mean() / b.mean()), float(low), float(high)


def side_by_side(options: argparse.Namespace) -> dict[str, Any]:
    """Run all and return the result.

    Raises:
        SteerError: The clone, the model or the classifier cannot be used.
    """
    require_clone(options.authors)
    storage.check_folder(options.out)
    default = open_model(ModelConfig(model=options.model, classifier=options.classifier, dtype="float32", device="cpu"))
    if default.steered is None or not isinstance(default.steered.loss, Learned):
        raise UnsupportedError(f"{options.model} is not steered by a classifier")
    scorer = load_scorer(default_detector(options.model.partition("=")[0]))
    chosen = stratified(prompts("geneval-position-val", canonical_names()), options.prompts, options.seed)
    warm_up = Job(chosen[0].prompt, chosen[0].relations, 0)
    levels = noise_levels(default, warm_up, options.seed)
    ours(default, warm_up, options.seed, steer=True)
    all_layers = options.authors_classifier or options.classifier
    classifier = load(options.authors_classifier) if options.authors_classifier else default.steered.loss.classifier
    with (
        tempfile.TemporaryDirectory() as folder,
        authors_loop(options.authors, default.pipe, default.variant, classifier, levels, Path(folder)) as loop,
    ):
        step_size = float(loop.generator.test_time_opt_config["step_sizes"][0])
        official = open_model(
            ModelConfig(
                model=options.model,
                classifier=all_layers,
                profile="official",
                settings={"step_size": step_size},
                dtype="float32",
                device="cpu",
            )
        )
        ways: dict[str, Callable[[Job], Drawn]] = {
            PLAIN: lambda job: ours(default, job, options.seed, steer=False),
            AUTHORS: lambda job: theirs(loop, job, options.seed),
            OFFICIAL: lambda job: ours(official, job, options.seed, steer=True),
            DEFAULT: lambda job: ours(default, job, options.seed, steer=True),
        }
        rows: list[Row] = []
        differences: list[int] = []
        left_out: list[str] = []
        for number, prompt in enumerate(chosen):
            try:
                drawn, difference = measure(ways, prompt, number % len(WAYS), scorer)
            except AuthorsCodeError as error:
                print(f"left out: {error}", file=sys.stderr, flush=True)
                left_out.append(str(error))
                continue
            rows += drawn
            differences.append(difference)
            print(f"{number + 1} of {len(chosen)}: {prompt.prompt}", file=sys.stderr, flush=True)
        if not rows:
            raise AuthorsCodeError(f"no prompt is left to compare: {left_out[0]}")
        patched = list(loop.patched)
    seconds = {way: [row.seconds for row in rows if row.way == way] for way in WAYS}
    return {
        "model": options.model,
        "prompts": len(differences),
        "left_out": left_out,
        "seed": options.seed,
        "threads": torch.get_num_threads(),
        "dtype": "float32",
        "authors_commit": commit_of(options.authors),
        "authors_parser": has_spacy(),
        "ways": {way: summary([row for row in rows if row.way == way]) for way in WAYS},
        "ratios": {f"{a} / {b}": ratio_of_means(seconds[a], seconds[b]) for a, b in RATIOS},
        "authors_and_official": {"largest_difference": differences, "equal": sum(d <= 1 for d in differences)},
        "settings": default.steered.config.as_dict(),
        "patched": [asdict(line) for line in patched],
        "rows": [asdict(row) for row in rows],
    }


def show(result: Mapping[str, Any]) -> None:
    """Print the result as text."""
    print("Replaced in the authors' code:")
    for line in (PatchedLine(**one) for one in result["patched"]):
        print(f"  {line.file}:{line.line}: {line.old} -> {line.new}  ({line.why})")
    print(
        f"\n{result['model']}, {result['prompts']} validation prompts, one image a call, seed {result['seed']}, "
        f"{result['threads']} thread, {result['dtype']}; the authors' clone is at {result['authors_commit']}\n"
    )
    print(f"{'':10}{'right [95 %]':>22}{'each once':>12}{'passes':>9}{'checks':>9}{'CPU s an image [95 %]':>30}")
    for way, row in result["ways"].items():
        right = "{:.2f} [{:.2f}, {:.2f}]".format(row["correct"], *row["correct_interval"])
        spent = "{:.2f} [{:.2f}, {:.2f}]".format(row["seconds"], *row["seconds_interval"])
        print(f"{way:10}{right:>22}{row['once']:>12.2f}{row['passes']:>9.1f}{row['checks']:>9.1f}{spent:>30}")
    print()
    for name, values in result["ratios"].items():
        print(f"{name:20}" + "{:6.2f} [{:.2f}, {:.2f}]".format(*values))
    equal = result["authors_and_official"]["equal"]
    print(f"\nauthors and official: {equal} of {result['prompts']} pictures differ by at most 1 of 255")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--authors", type=Path, required=True, help="your clone of sapir1779/learn-to-steer")
    parser.add_argument("--model", default="sd:emoji", help=f"{' or '.join(MODELS)}; other weights of it: NAME=FOLDER")
    parser.add_argument("--classifier", help="another classifier for our default than the model's own")
    parser.add_argument(
        "--authors-classifier", help="one of all layers, for the authors' code and our official profile"
    )
    parser.add_argument("--prompts", type=int, default=16, help="validation prompts, one image each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--out", type=Path, default=Path("out/authors_side_by_side"))
    options = parser.parse_args()
    if options.model.partition("=")[0] not in MODELS:
        parser.error(f"--model must be one of {', '.join(MODELS)}, not {options.model}")
    if options.prompts < 1 or options.seed < 0:
        parser.error("--prompts must be at least 1, --seed at least 0")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # all on the CPU, their code too
    torch.set_num_threads(1)
    try:
        result = side_by_side(options)
        storage.write_json(options.out / f"{options.model.partition('=')[0].replace(':', '-')}.json", result)
    except SteerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
