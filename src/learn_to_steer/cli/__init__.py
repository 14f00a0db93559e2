"""The command line. Each verb is a function that calls one function of the package and prints what came of it.

The options of a verb are the fields of its config (``learn_to_steer.configs``); ``commands`` makes them. The verbs
import torch when they run and not before, so that ``--help`` answers at once. Bad input ends with exit code 2 and one
line on stderr; ``--debug`` adds the traceback.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence

import typer

from learn_to_steer.cli import generating, inspecting, making, measuring, verifying
from learn_to_steer.cli.commands import Verb, as_command
from learn_to_steer.cli.console import set_up_logging
from learn_to_steer.errors import SteerError
from learn_to_steer.versions import installed_version

__all__ = ["main"]

log = logging.getLogger(__name__)
VERBS: dict[str, Verb] = {
    "generate": generating.generate,
    "collect": making.collect,
    "train": making.train,
    "evaluate": measuring.evaluate,
    "score": measuring.score,
    "audit": measuring.audit,
    "verify": verifying.verify,
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
        print(f"learn-to-steer {installed_version('learn-to-steer')}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", help="Show the version and exit.", callback=_version, is_eager=True
    ),
) -> None:
    """Steer text-to-image models so that objects are where the prompt says.

    Start with: [bold]learn-to-steer generate "a dog to the left of a teddy bear"[/bold]
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments without the name of the program. None: those of the process.

    Returns:
        The exit code: 0 for success, 2 for bad input, 130 if the user stopped it.
    """
    set_up_logging()
    try:
        with warnings.catch_warnings():
            # Deprecation warnings of other libraries do not help the user. This package warns through logging.
            warnings.simplefilter("ignore")
            code = app(None if argv is None else list(argv), standalone_mode=False, prog_name="learn-to-steer")
        return int(code or 0)
    except SteerError as error:
        log.debug("traceback of the error:", exc_info=error)
        return _report_error(str(error), 2)
    except typer.Abort:
        return _report_error("stopped", 130)
    except Exception as error:
        # Usage errors are a class of click, of which some versions of typer have a copy of their own.
        if not hasattr(error, "format_message"):
            raise
        return _report_error(error.format_message(), getattr(error, "exit_code", 2))


def _report_error(message: str, code: int) -> int:
    if message:
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code
