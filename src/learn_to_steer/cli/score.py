"""``score``: pictures that are there already."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from learn_to_steer.cli import options
from learn_to_steer.cli.console import progress
from learn_to_steer.cli.evaluate import show
from learn_to_steer.cli.model_options import general, taking


@taking(general)
def score(
    pictures: Annotated[
        str,
        typer.Argument(
            help="A folder that evaluate left, GenEval's layout, T2I-CompBench's file names, or a JSON-lines manifest.",
            metavar="DIR",
        ),
    ],
    benchmark: Annotated[
        str | None, typer.Option(help="See: list benchmarks.", metavar="NAME", show_default="the evaluation's own")
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(help="Your own prompts instead, as for evaluate.", metavar="FILE.jsonl", show_default=False),
    ] = None,
    data: options.Data = None,
    detector: options.Detector = None,
    device: Annotated[str, typer.Option(help="Where the detector runs.", metavar="NAME")] = "cpu",
    images: Annotated[int | None, typer.Option(min=1, help="Pictures of each prompt.", show_default="all")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many prompts, the subset of evaluate.", show_default="all")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of that subset.")] = 0,
    against: options.Against = None,
    similarity: options.Similarity = None,
    out: Annotated[str, typer.Option(help="Folder of the results.", metavar="DIR")] = "out/score",
    *,
    chosen: dict[str, Any],
) -> None:
    """Judge pictures that are there already, of any tool; detections are kept, so a second look takes seconds.

    Missing pictures are an error. Writes detections.jsonl, results.jsonl (a line an image) and summary.json into
    --out.
    """
    # torch comes in here.
    from learn_to_steer.evaluation import ScoreConfig
    from learn_to_steer.evaluation import score as run

    config = ScoreConfig(
        pictures, benchmark, prompts, data, detector, device, images, limit, seed, against, similarity, out
    )
    with progress("looking", "images") as advance:
        summary = run(config, advance)
    show(summary)
    print(f"Written to {out}")
