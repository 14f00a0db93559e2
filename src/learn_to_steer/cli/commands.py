"""Make typer commands of functions that take a config, so that no option is written twice.

``learn_to_steer.configs`` declares settings as fields of dataclasses. ``as_command`` turns a function of such a config
into a command: it makes an option of each field and, when the command runs, a config of the options' values. Every
command also gets ``--config`` and ``--debug``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import date
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

from learn_to_steer.cli.option_values import checked
from learn_to_steer.configs import OptionName
from learn_to_steer.errors import DataError
from learn_to_steer.plain_text import shown
from learn_to_steer.processes import require_one_process
from learn_to_steer.registry import unknown
from learn_to_steer.safe_parsing import parse_json
from learn_to_steer.storage import read_yaml

Config = TypeVar("Config")
Verb = Callable[..., None]
SEVERAL_PROCESSES = ("train",)  # verbs that 'accelerate launch' may start in several processes


@dataclass(frozen=True)
class _OptionField:
    """A field of a config that is an option.

    Attributes:
        field: The field's name.
        name: The option's name.
        annotation: The field's type.
        info: The ``Option`` or ``Argument`` in its annotation.
        default: The field's default; ``Parameter.empty`` if it has none.
    """

    field: str
    name: str
    annotation: Any
    info: OptionInfo | ArgumentInfo
    default: Any

    @property
    def _is_repeated(self) -> bool:
        """Whether the option may be given more than once; typer needs a list then, whatever the field's type."""
        return get_origin(self.annotation) in (tuple, Mapping)

    def parameter(self) -> Parameter:
        """The parameter of a typer command that stands for the field."""
        annotation, default, info = self.annotation, self.default, self.info
        if self._is_repeated:
            annotation, default = list[str] | None, None
        elif get_origin(annotation) is Literal:
            annotation = str
        if isinstance(info, ArgumentInfo) and self._is_repeated:
            info = copy(info)
            info.callback = _argument_from_file
        return Parameter(self.name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, info])

    def to_field(self, value: Any) -> Any:
        """The field's value, from the one that typer read."""
        if get_origin(self.annotation) is Literal and value not in get_args(self.annotation):
            raise unknown(self.name, value, get_args(self.annotation))
        if not self._is_repeated:
            return value
        return tuple(value or ()) if get_origin(self.annotation) is tuple else read_settings(value)


def _option_fields(config: type[Any]) -> list[_OptionField]:
    """The fields of a config that are options."""
    hints = get_type_hints(config, include_extras=True)
    options = []
    for field in fields(config):
        if get_origin(hints[field.name]) is not Annotated:
            continue
        annotation, *extras = get_args(hints[field.name])
        info = next((extra for extra in extras if isinstance(extra, (OptionInfo, ArgumentInfo))), None)
        if info is not None:
            name = next((extra.name for extra in extras if isinstance(extra, OptionName)), field.name)
            default = Parameter.empty if field.default is MISSING else field.default
            options.append(_OptionField(field.name, name, annotation, info, default))
    return options


def as_command(verb: Verb) -> Verb:
    """Return a function that typer can make a command of.

    Args:
        verb: A function with one parameter, a config, whose fields become the options. Or a function with typer's own
            parameters, which are kept.

    Returns:
        A function with the name and docstring of ``verb``, one parameter per option, and those of ``--config`` and
        ``--debug``. It calls ``verb``.
    """
    parameters = list(signature(verb, eval_str=True).parameters.values())
    first = parameters[0].annotation if parameters else None
    config_type: type[Any] | None = first if isinstance(first, type) and is_dataclass(first) else None
    options = _option_fields(config_type) if config_type else []
    if config_type:
        parameters = [option.parameter() for option in options]
    parameters = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in (*parameters, *_GENERAL)]

    def command(context: typer.Context, config: str | None, debug: bool, **values: Any) -> None:
        if "out" in values and verb.__name__ not in SEVERAL_PROCESSES:
            require_one_process(verb.__name__.replace("_", "-"))
        for parameter in context.command.params:
            if parameter.name in values:
                values[parameter.name] = checked(values[parameter.name], parameter, context)
        if config_type is None:
            verb(**values)
        else:
            verb(config_type(**{option.field: option.to_field(values[option.name]) for option in options}))

    # typer reads these.
    command.__name__, command.__doc__ = verb.__name__, verb.__doc__
    command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def copy_fields(config_type: type[Config], source: Any, /, **others: Any) -> Config:
    """Return a new config with values from another one.

    Args:
        config_type: The dataclass of the new config.
        source: An instance of another dataclass. Fields that both have are copied.
        others: Values of further fields.
    """
    names = {field.name for field in fields(config_type)} & {field.name for field in fields(source)}  # type: ignore[arg-type]
    return config_type(**{name: getattr(source, name) for name in names} | others)


def read_settings(pairs: list[str] | None) -> dict[str, Any]:
    """Return the settings in the values of ``--set``.

    Args:
        pairs: Each "name=value". A value that is JSON becomes a number, boolean or tuple; any other stays text.

    Raises:
        DataError: A pair is not of that form.
    """
    settings: dict[str, Any] = {}
    for pair in pairs or []:
        name, sign, value = pair.partition("=")
        if not sign or not name.strip():
            raise DataError(f"cannot read the setting {pair!r}; write it as name=value")
        parsed = _parse_value(value, f"the setting {name.strip()}")
        settings[name.strip().replace("-", "_")] = tuple(parsed) if isinstance(parsed, list) else parsed
    return settings


def _read_config(context: typer.Context, parameter: typer.CallbackParam, file: str | None) -> str | None:
    """Callback of ``--config``: make the values in the file the defaults of the command's options."""
    if file is None:
        return None
    path = Path(checked(file, parameter, context))
    contents = read_yaml(path)
    parameters = {str(p.name): p for p in context.command.params if p.name not in ("config", "debug", "help")}
    # A parameter is known by its own name and by those of its options: "setting" is "set", too.
    names = {key.lstrip("-").replace("-", "_"): name for name, p in parameters.items() for key in (name, *p.opts)}
    defaults: dict[str, Any] = {}
    for key, value in contents.values.items():
        place = f"{path}, line {contents.lines[key]}"
        name = names.get(str(key).replace("-", "_"), "")
        if not name:
            raise unknown(f"option in {place}:", str(key)[:80], sorted(choice.replace("_", "-") for choice in names))
        if name in defaults:
            raise DataError(f"{place}: {key} is given twice, once under another of its names")
        repeated = parameters[name].multiple or parameters[name].nargs == -1
        if isinstance(value, dict) and name == "setting":  # the settings of "--set" may be a mapping
            value = [f"{setting}={json.dumps(_parse_numbers(item), default=str)}" for setting, item in value.items()]
        items = value if repeated and isinstance(value, list) else [value]
        if any(isinstance(item, (dict, list)) for item in items):
            raise DataError(f"{place}: {key} must be {'a value or a list of values' if repeated else 'one value'}")
        # An empty value stands for the default, as if the option was not there.
        defaults[name] = [_checked(item, parameters[name], f"{place}: {key}") for item in items if item is not None]
        if not repeated:
            defaults[name] = next(iter(defaults[name]), None)
    context.default_map = {name: value for name, value in defaults.items() if value is not None}
    return file


def _checked(value: Any, parameter: Any, place: str) -> Any:
    """A value in a file, if it is one of its option, where nothing is guessed: 1.5 is no integer, and yes no text."""
    described = getattr(parameter, "type_descriptor", None)  # click, which older versions of typer use, has a type
    kind = described.annotation.__name__ if described else parameter.type.name.removesuffix(" range")
    number = {"int": int, "integer": int, "float": float}.get(kind)
    if kind in ("bool", "boolean"):
        wrong = "" if isinstance(value, bool | str) or value in (0, 1) else "true or false was expected"
    elif number is None:
        value = str(value) if type(value) is date else value  # YAML takes 2001-01-31 for more than a text
        wrong = "" if type(value) in (str, int, float) else "a text was expected; put it in quotes"
    else:
        value = int(value) if isinstance(value, float) and number is int and value.is_integer() else value
        wrong = _wrong_number(value, number, parameter)
    if wrong:
        raise DataError(f"{place} cannot be {shown(value)}: {wrong}")
    return value


def _wrong_number(value: Any, number: type[int] | type[float], parameter: Any) -> str:
    """Why a value is not a number that an option takes; "" if it is."""
    noun = "an integer" if number is int else "a number"
    if type(value) not in (str, int, number):
        return f"{noun} was expected"
    try:
        parsed = number(value)
    except (ValueError, OverflowError):
        return f"{noun} was expected"
    limits = parameter if hasattr(parameter, "min") else getattr(parameter, "type", None)
    low, high = getattr(limits, "min", None), getattr(limits, "max", None)
    if low is not None and not parsed >= low:
        return f"it must be at least {low}"
    return f"it must be at most {high}" if high is not None and not parsed <= high else ""


def _parse_numbers(value: Any) -> Any:
    """``value`` with its texts parsed as JSON where they are JSON: YAML reads the number 1e-3 as text."""
    if isinstance(value, list):
        return [_parse_numbers(item) for item in value]
    return _parse_value(value, "a setting") if isinstance(value, str) else value


def _parse_value(text: str, where: str) -> Any:
    """The value of a text that is JSON (NaN and infinite numbers included); any other text as it is, trimmed."""
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return text.strip()
    except (ValueError, RecursionError):  # a number of too many digits, or too deep: the next line says which
        pass
    return parse_json(text, where, finite=False)


def _argument_from_file(
    context: typer.Context, parameter: typer.CallbackParam, value: list[str] | None
) -> list[str] | None:
    """Callback of an argument with any number of values, for versions of click that read only options from the file."""
    return value or (context.default_map or {}).get(str(parameter.name))


def _enable_debug(value: bool) -> bool:
    """Callback of ``--debug``."""
    if value:
        logging.getLogger("learn_to_steer").setLevel(logging.DEBUG)
    return value


_GENERAL = (
    Parameter("context", Parameter.KEYWORD_ONLY, annotation=typer.Context),
    Parameter(
        "config",
        Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            str | None,
            typer.Option(
                "--config",
                callback=_read_config,
                is_eager=True,
                metavar="FILE.yaml",
                help="Read options from this file, one 'option: value' per line. Options on the command line win.",
            ),
        ],
    ),
    Parameter(
        "debug",
        Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[
            bool,
            typer.Option("--debug", callback=_enable_debug, is_eager=True, help="Also show the traceback of an error."),
        ],
    ),
)
