"""Everything that can go wrong on purpose.

::

    SteerError                  the one to catch; the command line turns it into one line and exit code 2
    ├── UnknownNameError        a model, benchmark, source, ... that does not exist (nearest match named)
    ├── PluginError             an installed package whose plug-in is broken, or has a name that is taken
    ├── PromptError             empty prompt, object not in the prompt, unknown predicate, truncated text
    ├── MismatchError           classifier against model: layout, channels, classes
    ├── UnsupportedError        a scheduler, attention backend or pipeline that steering would corrupt
    ├── CaptureError            attention layers that the tap did not see
    ├── InversionError          a picture whose inversion failed its quality check
    └── DataError               files: missing, broken, of another version, failing their hash

Messages say what happened, where, and what to do. Errors of this tree are the user's to act on; an
assertion or any other exception is a bug of ours.
"""

from __future__ import annotations


class SteerError(Exception):
    """Base of all errors raised on purpose by learn_to_steer."""


class UnknownNameError(SteerError):
    """A name that is not in the registry."""


class PluginError(SteerError):
    """A plug-in of an installed package cannot be imported, lacks something, or has the name of another."""


class PromptError(SteerError):
    """A prompt or relation that cannot be steered as given."""


class MismatchError(SteerError):
    """A classifier that was made for another model, layout or set of classes."""


class UnsupportedError(SteerError):
    """A component that steering cannot work with without corrupting the picture."""


class CaptureError(SteerError):
    """The tap saw other attention layers than the family lists."""


class InversionError(SteerError):
    """A picture could not be turned into noise and back well enough."""


class DataError(SteerError):
    """A file is missing, broken, or does not match its hash, version or schema."""
