"""No inversion at all: the latents are those of the path on which the model drew the picture.

For sources whose pictures the model draws itself; ``collection.drawing`` keeps the maps while it draws.
"""

from __future__ import annotations

from learn_to_steer.errors import UnsupportedError
from learn_to_steer.inversion.base import InversionQuality, InversionTask, Observe


def invert(task: InversionTask, observe: Observe, *, limit: float | None = None) -> InversionQuality:
    """Refuse: the path of a picture that exists already is not known; see ``inversion.Inversion``.

    Args:
        task: Has no effect.
        observe: Has no effect.
        limit: Has no effect.

    Raises:
        UnsupportedError: Always.
    """
    raise UnsupportedError(
        "the path to a picture is known only while the model draws it; use --source drawn, or another --inversion"
    )
