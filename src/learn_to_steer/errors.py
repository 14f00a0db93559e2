"""The exceptions that this library raises on purpose.

::

    SteerError                  the base of all; the command line prints its message and exits with code 2
    ├── UnknownNameError        a model, benchmark, source, ... that does not exist; the nearest name is suggested
    ├── PluginError             a plug-in of an installed package that is broken, or whose name is taken
    ├── PromptError             empty prompt, object not in the prompt, unknown predicate, truncated text
    ├── MismatchError           a classifier that does not fit the model: layout, channels, classes
    ├── UnsupportedError        a scheduler, attention backend, pipeline or setting that cannot be steered
    ├── CaptureError            attention layers that were not captured
    ├── InversionError          an image that could not be reconstructed well enough from its inversion
    ├── WorkerError             work that failed on the workers of a cluster; the rest of it is done
    └── DataError               a file that is missing or broken, or has another version or hash than expected

A message says what happened, where, and what to do. These errors are for the user to act on; any other exception that
leaves the library is a bug.
"""

from __future__ import annotations


class SteerError(Exception):
    """Base of all errors that learn_to_steer raises on purpose."""


class UnknownNameError(SteerError):
    """A name that is not in the registry."""


class PluginError(SteerError):
    """A plug-in of an installed package cannot be imported, lacks a required name, or has the name of another."""


class PromptError(SteerError):
    """A prompt or relation that cannot be steered as given."""


class MismatchError(SteerError):
    """A classifier that was made for another model, layout or set of classes."""


class UnsupportedError(SteerError):
    """A component or setting with which steering would fail or corrupt the image."""


class CaptureError(SteerError):
    """The captured attention layers are not those that the model's family lists."""


class InversionError(SteerError):
    """An image could not be inverted to noise and reconstructed well enough."""


class WorkerError(SteerError):
    """Shards that failed on workers, or a worker that cannot start."""


class DataError(SteerError):
    """A file that is missing, broken, or does not match its hash, version or schema."""
