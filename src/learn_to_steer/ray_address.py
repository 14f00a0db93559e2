"""Whether a Ray cluster answers at an address. Imports no Ray; see ``distributed``."""

from __future__ import annotations

import socket
import subprocess
import sys
from functools import cache

from learn_to_steer.errors import UnsupportedError

CONNECT, ANSWER = 6.0, 18.0  # seconds to wait for the address, and for Ray behind it


@cache
def require_answer(address: str) -> None:
    """Check that a Ray cluster answers. Ray itself would try for minutes.

    Args:
        address: The address, HOST:PORT.

    Raises:
        UnsupportedError: Nothing answers, or not as Ray does, or the address has another form.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UnsupportedError(
            f"--ray {address} is no address; give HOST:PORT, as 'ray start' prints it on the first machine, or auto on "
            "a machine of the cluster"
        )
    why = "it does not answer as Ray does"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT).close()
        command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER, check=False)
        if done.returncode == 0:
            return
    except OSError as error:
        why = error.strerror or str(error)
    except subprocess.TimeoutExpired:
        pass
    raise UnsupportedError(
        f"no Ray cluster answers at {address} ({why}); check the address, and that 'ray status' works there"
    )
