"""The exceptions that this library raises on purpose.

::

    SteerError                  the one to catch; the command line turns it into one line and exit code 2
    ├── UnknownNameError        a model, benchmark, source, ... that does not exist (nearest match named)
    ├── PluginError             an installed package whose plug-in is broken, or has a name that is taken
    ├── PromptError             empty prompt, object not in the prompt, unknown predicate, truncated text
    ├── MismatchError           classifier against model: layout, channels, classes
    ├── UnsupportedError        a scheduler, attention backend or pipeline that steering would corrupt
    ├── CaptureError            attention layers that were not captured
    ├── InversionError          an image whose inversion failed its quality check
    └── DataError               files: missing, broken, of another version, failing their hash

A message says what happened, where, and what to do. The user can act on these errors; an assertion or any other
exception is a bug in this library.
"""

from __future__ import annotations


class SteerError(Exception):
    """Base of all errors that learn_to_steer raises on purpose."""


class UnknownNameError(SteerError):
    """A name that is not in the registry."""


class PluginError(SteerError):
    """A plug-in of an installed package cannot be imported, lacks something, or has the name of another."""


class PromptError(SteerError):
    """A prompt or relation that cannot be steered as given."""


class MismatchError(SteerError):
    """A classifier that was made for another model, layout or set of classes."""


class UnsupportedError(SteerError):
    """A component whose use with steering would corrupt the image."""


class CaptureError(SteerError):
    """The captured attention layers are not those that the family lists."""


class InversionError(SteerError):
    """An image could not be inverted to noise and reconstructed well enough."""


class DataError(SteerError):
    """A file is missing, broken, or does not match its hash, version or schema."""
