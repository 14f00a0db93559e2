"""The command line. Each verb takes one frozen config and calls one function of the package.

The options are the fields of the configs (``learn_to_steer.configs``); ``commands`` makes them.
torch is imported inside the verbs, so that ``--help`` answers at once. Bad input ends with exit code 2 and one
line on stderr; ``--debug`` adds the traceback.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence

import typer

from learn_to_steer.cli import drawing, inspecting, making, measuring
from learn_to_steer.cli.commands import Verb, as_command
from learn_to_steer.cli.console import package_version, set_up_logging
from learn_to_steer.errors import SteerError

__all__ = ["main"]

log = logging.getLogger(__name__)
VERBS: dict[str, Verb] = {
    "generate": drawing.generate,
    "collect": making.collect,
    "train": making.train,
    "evaluate": measuring.evaluate,
    "score": measuring.score,
    "audit": measuring.audit,
    "parse": inspecting.parse,
    "push": making.push,
    "export-prompts": inspecting.export_prompts,
    "import-official": making.import_official,
    "doctor": inspecting.doctor,
    "list": inspecting.list_names,
}
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for name, verb in VERBS.items():
    app.command(name)(as_command(verb))


def _version(value: bool) -> None:
    if value:
        print(f"learn-to-steer {package_version('learn-to-steer')}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", help="Show the version and stop.", callback=_version, is_eager=True
    ),
) -> None:
    """Make text-to-image models put things where the prompt says.

    Start with: [bold]learn-to-steer generate "a dog to the left of a teddy bear"[/bold]
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments, without the program's name. None: those of the process.

    Returns:
        The exit code: 0, 2 for bad input, 130 if stopped.
    """
    set_up_logging()
    try:
        with warnings.catch_warnings():
            # Deprecations of the libraries below are not the user's business; ours go through logging.
            warnings.simplefilter("ignore")
            code = app(None if argv is None else list(argv), standalone_mode=False, prog_name="learn-to-steer")
        return int(code or 0)
    except SteerError as error:
        log.debug("the error came from here", exc_info=error)
        return _complain(str(error), 2)
    except typer.Abort:
        return _complain("stopped", 130)
    except Exception as error:
        # typer carries its own copy of click or not, by version: its usage errors are told by their shape.
        if not hasattr(error, "format_message"):
            raise
        return _complain(error.format_message(), getattr(error, "exit_code", 2))


def _complain(message: str, code: int) -> int:
    if message:
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code
