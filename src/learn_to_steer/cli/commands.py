"""From declared settings to typer commands, and back; ``--config`` and ``--debug``, which every command has.

A command is a function that takes one config (``learn_to_steer.configs``) or plain typer parameters. Its options come
from the config's fields, so that no option is written twice.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import MISSING, dataclass, fields, is_dataclass
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

from learn_to_steer.configs import Named
from learn_to_steer.errors import DataError
from learn_to_steer.registry import unknown

Config = TypeVar("Config")
Verb = Callable[..., None]


@dataclass(frozen=True)
class _Declared:
    """One field of a config that is an option."""

    field: str
    name: str
    kind: Any
    info: OptionInfo | ArgumentInfo
    default: Any

    def parameter(self) -> Parameter:
        """The same as a typer parameter. Typer knows lists, not tuples or mappings."""
        kind, default, info = self.kind, self.default, self.info
        if _is_many(kind):
            kind, default = list[str] | None, None
        elif get_origin(kind) is Literal:
            kind = str
        if isinstance(info, ArgumentInfo) and _is_many(self.kind):
            info = copy(info)
            info.callback = _from_file
        return Parameter(self.name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info])

    def value(self, given: Any) -> Any:
        """What typer read, as the config has it."""
        if get_origin(self.kind) is Literal and given not in get_args(self.kind):
            raise unknown(self.name, given, get_args(self.kind))
        if not _is_many(self.kind):
            return given
        return tuple(given or ()) if get_origin(self.kind) is tuple else read_settings(given)


def _is_many(kind: Any) -> bool:
    return get_origin(kind) in (tuple, Mapping)


def _declared(config: type[Any]) -> list[_Declared]:
    """The fields of a config that are options."""
    hints = get_type_hints(config, include_extras=True)
    found = []
    for field in fields(config):
        kind, *notes = get_args(hints[field.name]) if get_origin(hints[field.name]) is Annotated else (None,)
        info = next((note for note in notes if isinstance(note, (OptionInfo, ArgumentInfo))), None)
        if info is not None:
            name = next((note.name for note in notes if isinstance(note, Named)), field.name)
            default = Parameter.empty if field.default is MISSING else field.default
            found.append(_Declared(field.name, name, kind, info, default))
    return found


def as_command(verb: Verb) -> Verb:
    """Return ``verb`` as typer takes it.

    Args:
        verb: Its only parameter is a config, whose fields become the options; or its parameters are typer's own.
    """
    parameters = list(signature(verb, eval_str=True).parameters.values())
    first = parameters[0].annotation if parameters else None
    kind: type[Any] | None = first if isinstance(first, type) and is_dataclass(first) else None
    declared = _declared(kind) if kind else []
    listed = [*([one.parameter() for one in declared] if kind else parameters), *_GENERAL]

    def command(config: Path | None, debug: bool, **values: Any) -> None:
        if kind is None:
            verb(**values)
        else:
            verb(kind(**{one.field: one.value(values[one.name]) for one in declared}))

    command.__name__, command.__doc__ = verb.__name__, verb.__doc__
    command.__signature__ = Signature([p.replace(kind=Parameter.KEYWORD_ONLY) for p in listed])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in listed}
    return command


def shared(kind: type[Config], given: Any, /, **others: Any) -> Config:
    """Return a config of ``kind`` with the fields that it shares with ``given``, and ``others``."""
    names = {field.name for field in fields(kind)} & {field.name for field in fields(given)}  # type: ignore[arg-type]
    return kind(**{name: getattr(given, name) for name in names} | others)


def read_settings(pairs: list[str] | None) -> dict[str, Any]:
    """Return the ``name=value`` pairs of ``--set``: JSON values where they are JSON, else text.

    Raises:
        DataError: A pair is not of that form.
    """
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


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the file's values the defaults of this command's options; DataError for one that does not exist."""
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
    """An argument of any number of words, from the file if none are given: some versions of click read the file for
    options only."""
    return value or (context.default_map or {}).get(str(parameter.name))


def _be_loud(value: bool) -> bool:
    if value:
        logging.getLogger("learn_to_steer").setLevel(logging.DEBUG)
    return value


_GENERAL = (
    Parameter(
        "config",
        Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            Path | None,
            typer.Option(
                "--config",
                callback=_read_config,
                is_eager=True,
                metavar="FILE.yaml",
                help="Read options from this file; what is written here still wins.",
            ),
        ],
    ),
    Parameter(
        "debug",
        Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[
            bool, typer.Option("--debug", callback=_be_loud, is_eager=True, help="Show the traceback of an error.")
        ],
    ),
)
