"""The verbs, and how a command runs and reports errors."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from functools import cache
from typing import Any

import typer

from learn_to_steer.cli import fitting, generating, inspecting, making, measuring, serving, timing, verifying
from learn_to_steer.cli.commands import Verb, as_command
from learn_to_steer.cli.console import set_up_logging, show
from learn_to_steer.errors import SteerError
from learn_to_steer.plain_text import one_line
from learn_to_steer.versions import installed_version

LONGEST = 1000  # characters of an error that are shown
log = logging.getLogger(__name__)
VERBS: dict[str, Verb] = {
    "generate": generating.generate,
    "fit": fitting.fit,
    "collect": making.collect,
    "train": making.train,
    "evaluate": measuring.evaluate,
    "score": measuring.score,
    "audit": measuring.audit,
    "report": measuring.report,
    "bench": timing.bench,
    "serve": serving.serve,
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
        show(f"learn-to-steer {installed_version('learn-to-steer')}")
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


def run(arguments: list[str]) -> int:
    """Run a command.

    Args:
        arguments: The words of the command line, without the name of the program.

    Returns:
        The exit code: 0 for success, 2 for bad input, 1 if the reader of the output went away.
    """
    set_up_logging()
    command = _command()
    try:
        with warnings.catch_warnings():
            # Deprecation warnings of other libraries do not help the user. This package warns through logging.
            warnings.simplefilter("ignore")
            # Not ``app()``, which prints an empty line and loses the KeyboardInterrupt when the user stops it.
            with command.make_context("learn-to-steer", arguments) as context:
                command.invoke(context)
        sys.stdout.flush()
        return 0
    except typer.Exit as end:
        return end.exit_code
    except SteerError as error:
        log.debug("traceback of the error:", exc_info=error)
        return _report_error(str(error), 2)
    except BrokenPipeError:  # as in "learn-to-steer list models | head -1"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        # Usage errors are a class of click, of which some versions of typer have a copy of their own.
        if not hasattr(error, "format_message"):
            raise
        return _report_error(error.format_message(), getattr(error, "exit_code", 2))


@cache
def _command() -> Any:
    """The command line as an object of click."""
    return typer.main.get_command(app)


def _report_error(message: str, code: int) -> int:
    text = one_line(message)
    if len(text) > LONGEST:  # it quotes a long prompt, for example; the end says what to do
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    if text:
        print(f"error: {text}", file=sys.stderr)
    return code
