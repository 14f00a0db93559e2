"""``audit``: pictures labelled by eye against the automatic score."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from learn_to_steer.cli.model_options import general, taking


@taking(general)
def audit(
    folder: Annotated[str, typer.Argument(help="What evaluate left.", metavar="DIR")],
    count: Annotated[int, typer.Option(min=1, help="Pictures on the page, drawn at random.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of that draw.")] = 0,
    labels: Annotated[
        str | None,
        typer.Option(
            help="The labels saved from the page: report how far the scores agree.", metavar="FILE", show_default=False
        ),
    ] = None,
    *,
    chosen: dict[str, Any],
) -> None:
    """Make a page to label pictures by eye (DIR/audit.html), or, with --labels, compare labels and automatic score."""
    from learn_to_steer.report.audit import agreement, audit_page
    from learn_to_steer.storage import read_json

    if labels is None:
        print(f"Open {audit_page(folder, count, seed)} in a browser, label, save, then add --labels labels.json")
        return
    found = agreement(folder, read_json(labels))
    low, high = found["same_interval"]
    print(f"{found['pictures']} pictures: right by eye {found['manual']:.3f}, automatically {found['automatic']:.3f}")
    kappa = "undefined" if found["kappa"] is None else f"{found['kappa']:.2f}"
    print(f"same verdict {found['same']:.3f} (95 %: {low:.3f} to {high:.3f}), kappa {kappa}")
