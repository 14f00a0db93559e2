"""An evaluation beside another one: what is right more often, and how alike the pictures are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from learn_to_steer import storage
from learn_to_steer.errors import DataError
from learn_to_steer.evaluation.folders import Placed
from learn_to_steer.evaluation.pairs import alike
from learn_to_steer.evaluation.summary import compared

Row = Mapping[str, Any]


def others(against: str | None, similarity: str | None, out: str, identity: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of the evaluation or scoring in ``against``, for one that ``identity`` judges into ``out``.

    None where ``against`` is None. Raises DataError when there are no rows, when they are those in ``out`` itself, and
    when another detector judged them: the difference would be the detectors'.
    """
    if against is None:
        if similarity is not None:
            raise DataError("--similarity is to another evaluation's pictures: name it with --against")
        return []
    folder = Path(against)
    if folder.resolve() == Path(out).resolve():
        raise DataError(f"--out {out} is where the pictures lie, and their results; choose another folder")
    path = folder / "results.jsonl"
    rows = storage.read_jsonl(path) if path.is_file() else []
    if not rows or not {"index", "sample", "prompt", "correct", "present"} <= set(rows[0]):
        raise DataError(f"{folder} holds no results.jsonl of evaluate or score; name the folder of one")
    summary = folder / "summary.json"
    theirs = storage.read_json(summary).get("judged_by") if summary.is_file() else None
    if theirs is not None and theirs != identity:
        raise DataError(
            f"{folder} was judged by {theirs}, not by {dict(identity)}; score those pictures too, "
            "then compare the two scorings"
        )
    return rows


def difference(
    rows: Sequence[dict[str, Any]],
    theirs: Sequence[dict[str, Any]],
    placed: Sequence[Placed],
    folder: str,
    similarity: str | None,
    device: str,
) -> dict[str, Any]:
    """``rows`` minus ``theirs`` (``compared``) and, with the embedder ``similarity``, of their pictures (``alike``).

    ``placed`` are the pictures of ``rows``, ``folder`` holds the others. Raises DataError when they share no picture.
    """
    try:
        found = {"folder": folder, **compared(rows, theirs)}
    except ValueError as error:
        raise DataError(f"{folder} cannot be compared with these pictures: {error}") from error
    return found | alike(similarity, device, placed, rows, folder, theirs) if similarity else found
