"""Whether the program was started in several processes at once, as ``accelerate launch`` and ``torchrun`` do."""

from __future__ import annotations

import os

from learn_to_steer.errors import UnsupportedError

# Where launchers and MPI tell a process how many there are.
COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def require_one_process(what: str) -> None:
    """Check that this is the only process of a launch: work is not divided, and all would write the same files.

    Args:
        what: What runs in one process, for the message.

    Raises:
        UnsupportedError: The environment names several processes.
    """
    for name in COUNTS:
        count = os.environ.get(name, "").strip()
        if count not in ("", "-1", "0", "1"):
            raise UnsupportedError(
                f"{what} runs in one process, but it was started in {count} ({name}={count}), which would all write "
                "the same files; start it by itself, without 'accelerate launch' or 'torchrun'"
            )
