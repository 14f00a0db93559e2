"""When Python searches for garbage: not while libraries and a model are being loaded, and never through these.

torch, diffusers and transformers make most of a million objects when they are imported, which live as long as the
process. To search them again and again takes a fifth of the time of importing them, and the search at the end of the
process, which ``cli.main`` spares, as much once more.

Only the command line postpones the search: in a process of the user's own, other objects would be kept, too.
"""

from __future__ import annotations

import gc

# New objects after which a search begins anyway, so that a verb that goes another way does not fill the memory.
WHILE_LOADING = 1_000_000
_usual: tuple[int, int, int] | None = None  # the thresholds while the search is postponed


def postpone() -> None:
    """Let the search for garbage wait until ``loaded`` is called."""
    global _usual
    if _usual is None and gc.isenabled():
        _usual = gc.get_threshold()
        gc.set_threshold(WHILE_LOADING, *_usual[1:])


def loaded() -> None:
    """Leave what exists out of all later searches, and search as usual from now on; does nothing if none waits."""
    global _usual
    if _usual is not None:
        gc.freeze()
        gc.set_threshold(*_usual)
        _usual = None
