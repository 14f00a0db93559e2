"""``push``: a classifier to the hub."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from learn_to_steer.cli.model_options import general, taking


@taking(general)
def push(
    folder: Annotated[str, typer.Argument(help="Folder of a classifier.", metavar="DIR")],
    repository: Annotated[str, typer.Argument(help="Where to: owner/name on the hub.", metavar="ID")],
    private: Annotated[bool, typer.Option("--private", help="Not for everyone's eyes.")] = False,
    license: Annotated[
        str | None, typer.Option(help="Licence of the weights for the model card, e.g. apache-2.0.", metavar="ID")
    ] = None,
    *,
    chosen: dict[str, Any],
) -> None:
    """Upload a classifier and its model card to the Hugging Face hub (log in with 'hf auth login' first).

    Anyone can then steer with it: --classifier owner/name.
    """
    from learn_to_steer.classifier import push_to_hub

    print(f"Uploaded to {push_to_hub(folder, repository, private=private, license=license)}")
