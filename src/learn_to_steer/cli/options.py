"""Options that several verbs share, and ``--config``."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from learn_to_steer.catalog import unknown
from learn_to_steer.errors import DataError


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the file's values the defaults of this verb's options; DataError for one that does not exist."""
    if path is None:
        return None
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid YAML: {error}") from error
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise DataError(f"{path} must hold one 'option: value' a line")
    known = {str(p.name): p for p in context.command.params if p.name not in ("config", "debug", "help")}
    # "--set" is the parameter "setting": both are understood.
    written = {said.lstrip("-").replace("-", "_"): name for name, p in known.items() for said in (name, *p.opts)}
    given = {}
    for said, value in values.items():
        name = written.get(str(said).replace("-", "_"), "")
        if not name:
            raise unknown(f"option in {path}", str(said), sorted(n.replace("_", "-") for n in written))
        many = known[name].multiple or known[name].nargs == -1
        if isinstance(value, dict) and name == "setting":  # a mapping reads better than a list of "name=value"
            value = [f"{key}={json.dumps(_numbers(part), default=str)}" for key, part in value.items()]
        parts = value if many and isinstance(value, list) else [value]
        if any(isinstance(part, (dict, list)) for part in parts):
            raise DataError(f"{said} in {path} must be {'a value or a list of values' if many else 'one value'}")
        given[name] = parts if many else value
    context.default_map = given
    return path


def _numbers(value: Any) -> Any:
    """YAML takes "1e-3" for a word: numbers among the words of a setting."""
    if isinstance(value, list):
        return [_numbers(part) for part in value]
    try:
        return json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError:
        return value


def _from_file(context: typer.Context, parameter: typer.CallbackParam, value: list[str] | None) -> list[str] | None:
    """An argument that takes any number of words, from the file when there are none: some versions of click ask only
    for the file's options."""
    return value or (context.default_map or {}).get(str(parameter.name))


def _be_loud(value: bool) -> bool:
    if value:
        logging.getLogger("learn_to_steer").setLevel(logging.DEBUG)
    return value


def settings(pairs: list[str] | None) -> dict[str, Any]:
    """``name=value`` pairs of ``--set`` as values (JSON where they are, else text); DataError for anything else."""
    found = {}
    for pair in pairs or []:
        name, sign, value = pair.partition("=")
        if not sign or not name.strip():
            raise DataError(f"cannot read the setting {pair!r}; write it as name=value")
        try:
            parsed = json.loads(value)
        except json.JSONDecodeError:
            parsed = value.strip()
        found[name.strip().replace("-", "_")] = tuple(parsed) if isinstance(parsed, list) else parsed
    return found


Prompts = Annotated[
    list[str] | None, typer.Argument(help="One or more prompts.", show_default=False, callback=_from_file)
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        callback=_read_config,
        is_eager=True,
        show_default=False,
        metavar="FILE.yaml",
        help="Read options from this file; what is written here still wins.",
    ),
]
Debug = Annotated[
    bool, typer.Option("--debug", callback=_be_loud, is_eager=True, help="Show the traceback of an error.")
]
Data = Annotated[
    str | None,
    typer.Option(
        help="The file that a benchmark reads (docs/benchmarks.md), or 'download'.", metavar="FILE", show_default=False
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(help="Replace the scheduler (see: list schedulers).", show_default="the model's own", metavar="CLASS"),
]
Objective = Annotated[
    str,
    typer.Option(
        help="What steers: 'learned', a baseline (see: list objectives), or 'none' for the plain model.", metavar="NAME"
    ),
]
Detector = Annotated[
    str | None,
    typer.Option(
        help="Who looks at the pictures (see: list detectors), with ':' and a folder or hub id for other weights.",
        metavar="NAME[:SOURCE]",
        show_default="the model's own",
    ),
]
Against = Annotated[
    str | None,
    typer.Option(
        help="Another evaluation or scoring: report the difference on the same prompts.",
        metavar="DIR",
        show_default=False,
    ),
]
Similarity = Annotated[
    str | None,
    typer.Option(
        help="Also how alike the pictures of the two are, by a DINO or CLIP model (folder or hub id) or one of: "
        "list embedders.",
        metavar="NAME",
        show_default=False,
    ),
]
