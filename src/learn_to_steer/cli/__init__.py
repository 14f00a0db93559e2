"""The command line. Each verb is a function that calls one function of the package and prints what came of it.

The options of a verb are the fields of its config (``learn_to_steer.configs``); ``commands`` makes them. The verbs
import torch when they run and not before, so that ``--help`` answers at once. Bad input ends with exit code 2 and one
line on stderr; ``--debug`` adds the traceback.

This module imports next to nothing, so that Ctrl-C is handled from the start.
"""

from __future__ import annotations

import _thread
import gc
import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any

__all__ = ["main"]

RESUMED = ("fit", "collect", "train", "evaluate", "score")
LOAD_A_MODEL = ("generate", "fit", "collect", "evaluate", "doctor", "bench")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments without the name of the program. None: those of the process, which ends with the command.

    Returns:
        The exit code: 0 for success, 2 for bad input, 130 if the user stopped it with Ctrl-C, 143 if it was terminated.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    verb = arguments[0] if arguments else ""
    signals = _StopSignals(resumed=verb in RESUMED, process_ends=argv is None)
    try:
        signals.watch()
        if argv is None and verb in LOAD_A_MODEL:
            from learn_to_steer import garbage

            garbage.postpone()
        from learn_to_steer.cli.application import run

        return run(arguments)
    except BaseException:
        # Code in C++ may have turned the KeyboardInterrupt into another exception.
        if signals.received is None:
            raise
        return signals.report(signals.received)
    finally:
        signals.release()
        if argv is None:
            # What exists is left to the system: a search through it at the end of the process takes a second.
            gc.freeze()


class _StopSignals:
    """Turns SIGINT (Ctrl-C) and SIGTERM into a KeyboardInterrupt. A second Ctrl-C ends the process at once.

    Attributes:
        received: The first signal; None as long as there is none.
    """

    def __init__(self, resumed: bool, process_ends: bool) -> None:
        """Prepare to handle signals.

        Args:
            resumed: Whether the command goes on where it was stopped when it runs again.
            process_ends: Whether the process ends with the command.
        """
        self.received: int | None = None
        self._resumed, self._process_ends = resumed, process_ends
        self._before: dict[int, Any] = {}
        self._hook = sys.unraisablehook

    def watch(self) -> None:
        """Handle the signals from now on, except for those that somebody else handles or ignores."""
        for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
            if signal.getsignal(number) is usual:
                try:
                    self._before[number] = signal.signal(number, self._stop)
                except ValueError:  # not in the main thread
                    return
        sys.unraisablehook = self._raise_again

    def release(self) -> None:
        """Restore the former handlers; if the process ends anyway, let the signals end it at once."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if self._process_ends else handler)
        if not self._process_ends:
            sys.unraisablehook = self._hook

    def report(self, number: int) -> int:
        """Say how to go on after signal ``number``, and return the exit code."""
        text = f"Stopped. Run the same command again to {'go on' if self._resumed else 'start over'}."
        print(text, file=sys.stderr, flush=True)
        return 128 + number

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = number
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if self._process_ends and _is_importing(frame):
            # Modules in C++ abort the process if they are left by an exception, and nothing is being written yet.
            os._exit(self.report(self.received))
        raise KeyboardInterrupt

    def _raise_again(self, unraisable: Any) -> None:
        """Raise a KeyboardInterrupt again that came where Python cannot pass one on: in a destructor or callback."""
        if self.received is None or not issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._hook(unraisable)
        elif signal.SIGTERM in self._before:
            # Not at once, or it would come in here, where Python cannot pass it on either.
            timer = threading.Timer(0.05, _thread.interrupt_main, [signal.SIGTERM])
            timer.daemon = True
            timer.start()


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported in this frame or in one of its callers."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None
